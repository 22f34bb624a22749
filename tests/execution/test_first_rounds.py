"""The first round of a study is the same on every machine, to 1e-5 of a range (decision 10).

The recorded rounds are from one machine. On another one these tests check the promise. Record them anew only after a
change to what makes a first round (the tuner's defaults, an example, the built-in prior, library versions):

    python -m tests.execution.test_first_rounds
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhpo_core.evaluators.kinds import evaluator_class
from rlhpo_core.execution.beginning import prior_of
from rlhpo_core.space.parameters import Float
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import load_study
from rlhpo_core.trial import Config
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.state import initial_state

EXAMPLES = Path(__file__).parents[2] / "examples"
RECORDED = Path(__file__).parents[1] / "fixtures" / "first-rounds.json"
#: Largest difference of floats, as a share of their range (of its logarithm, on a log scale).
AGREEMENT = 1e-5
#: More in the first round than the one trial that it has by itself.
FIVE: dict[str, Any] = {"tuner": {"trials_per_round": 5}}
#: Examples and changes to them: the ways in which studies begin.
STUDIES: dict[str, tuple[str, dict[str, Any]]] = {
    "numbers": ("01-first-study", FIVE),
    "conditions": ("03-conditional-space", FIVE),
    "regression": ("02-regression", FIVE),
    "the paper's settings": ("01-first-study", {"tuner": {"profile": "paper"}}),
    "all hyperparameters in one step": ("01-first-study", {"tuner": {"mode": "rl_doc", **FIVE["tuner"]}}),
    "random search": ("01-first-study", {"tuner": {"mode": "random", **FIVE["tuner"]}}),
    "a prior's portfolio": ("04-prior", FIVE),
    "a prior's portfolio, and more chosen by the reward model": ("04-prior", {"tuner": {"trials_per_round": 12}}),
    "a prior that has no policy, and nothing screened": (
        "04-prior",
        {"tuner": {"screening": None, "agent": {"nodes": 20}, **FIVE["tuner"]}},
    ),
}


def first_round(name: str) -> tuple[SearchSpace, list[Config]]:
    example, changes = STUDIES[name]
    spec = load_study(EXAMPLES / f"{example}.yaml", changes)
    prior = prior_of(spec, EXAMPLES)
    defaults = evaluator_class(spec.evaluator.kind).defaults(spec)
    start = initial_state("first", spec.seed, spec.space, spec.objective.direction, spec.tuner, prior, defaults)
    return spec.space, [proposal.config for proposal in algorithm.propose(start)]


@pytest.mark.parametrize("name", STUDIES)
def test_the_first_round_is_the_recorded_one(name: str) -> None:
    space, found = first_round(name)
    recorded = json.loads(RECORDED.read_text())[name]
    floats = {step.name for step in space.steps if isinstance(step, Float)}
    assert [_without(config, floats) for config in found] == [_without(config, floats) for config in recorded]
    np.testing.assert_allclose(space.encode(found), space.encode(recorded), rtol=0, atol=2 * AGREEMENT)


def _without(config: Config, names: set[str]) -> Config:
    return {name: value for name, value in config.items() if name not in names}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps({name: first_round(name)[1] for name in STUDIES}, indent=1) + "\n")

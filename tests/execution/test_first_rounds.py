"""The first round of a study is the same on every machine, to five of the seven digits that numbers are rounded to.

The recorded rounds are from one machine; whoever runs this on another one checks the promise. After a change of what
first rounds are made of (the tuner's defaults, an example, the prior in the box), and only then, record them anew:

    python -m tests.execution.test_first_rounds
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhpo_core.execution.beginning import prior_of
from rlhpo_core.space.parameters import Float
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import load_study
from rlhpo_core.trial import Config
from rlhpo_core.tuner import algorithm

EXAMPLES = Path(__file__).parents[2] / "examples"
RECORDED = Path(__file__).parents[1] / "fixtures" / "first-rounds.json"
#: Largest difference of numbers, as a share of their range, on a log scale if they have one.
AGREEMENT = 1e-5
#: Examples with other settings, which begin in other ways.
STUDIES: dict[str, tuple[str, dict[str, Any]]] = {
    "car": ("car", {}),
    "credit": ("credit", {}),
    "wine": ("wine", {}),
    "by the paper": ("car", {"tuner": {"profile": "paper"}}),
    "in one step": ("car", {"tuner": {"mode": "rl_doc"}}),
    "at random": ("car", {"tuner": {"mode": "random"}}),
    "the portfolio of a prior": ("car-with-prior", {}),
    "more than the portfolio, chosen by the reward model": ("car-with-prior", {"tuner": {"trials_per_round": 12}}),
    "by a policy that imitates the prior's": (
        "car-with-prior", {"tuner": {"screening": None, "agent": {"nodes": 20}}}
    ),
}  # fmt: skip


def first_round(name: str) -> tuple[SearchSpace, list[Config]]:
    example, changes = STUDIES[name]
    spec = load_study(EXAMPLES / f"{example}.yaml", changes)
    prior = prior_of(spec, EXAMPLES)
    start = algorithm.initial_state("first", spec.seed, spec.space, spec.objective.direction, spec.tuner, prior)
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

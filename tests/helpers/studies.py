"""Search spaces for property-based tests, and studies small enough to be run in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Config, Proposal, Trial, TrialStatus
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.state import TunerState

_NUMBERS = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@st.composite
def parameters(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kind = draw(st.sampled_from(["float", "int", "categorical", "bool", "fixed"]))
    if kind == "float":
        log = draw(st.booleans())
        low = draw(st.floats(min_value=1e-8, max_value=1e3)) if log else draw(_NUMBERS)
        width = draw(st.floats(min_value=1e-3, max_value=1e6))
        return {"type": "float", "low": low, "high": low * (1 + width) if log else low + width, "log": log}
    if kind == "int":
        low = draw(st.integers(min_value=1, max_value=1000))
        return {"type": "int", "low": low, "high": low + draw(st.integers(1, 5000)), "log": draw(st.booleans())}
    if kind == "categorical":
        choices = draw(st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=6, unique=True))
        return {"type": "categorical", "choices": choices}
    return {"type": "bool"} if kind == "bool" else {"type": "fixed", "value": draw(st.integers(0, 3))}


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """1 to 8 hyperparameters, some conditional on one or two earlier ones, in shuffled order."""
    definitions: dict[str, dict[str, Any]] = {"p0": {"type": "float", "low": 0.0, "high": 1.0}}
    for index in range(1, draw(st.integers(1, 8))):
        definition = draw(parameters(f"p{index}"))
        parents = [name for name, d in definitions.items() if d["type"] in ("int", "categorical", "bool")]
        for parent in draw(st.lists(st.sampled_from(parents), max_size=2, unique=True)) if parents else []:
            # A parent that is itself conditional on the same ancestor could contradict: depend on it alone.
            if definition.get("when"):
                break
            definition["when"] = {parent: draw(st.lists(st.sampled_from(_values(definitions[parent])), min_size=1))}
        definitions[f"p{index}"] = definition
    order = draw(st.permutations(list(definitions)))
    return SearchSpace.model_validate({name: definitions[name] for name in order})


def _values(definition: dict[str, Any]) -> list[Any]:
    if definition["type"] == "int":
        return [definition["low"], definition["high"]]
    return definition["choices"] if definition["type"] == "categorical" else [False, True]


def random_actions(space: SearchSpace, count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, len(space.steps)))


#: Every kind of hyperparameter, conditions nested and with several parents.
RICH_SPACE = SearchSpace.model_validate(
    {
        "depth": {"type": "int", "low": 1, "high": 12},
        "rate_drop": {"type": "float", "low": 0.0, "high": 1.0, "when": {"booster": "dart"}},
        "booster": {"type": "categorical", "choices": ["gbtree", "dart", "gblinear"]},
        "eta": {"type": "float", "low": 1e-4, "high": 1.0, "log": True, "when": {"booster": ["gbtree", "dart"]}},
        "one_drop": {"type": "bool", "when": {"booster": "dart"}},
        "skip": {"type": "float", "low": 0.0, "high": 0.5, "when": {"booster": "dart", "one_drop": True}},
        "rounds": {"type": "int", "low": 10, "high": 3000, "log": True},
        "verbosity": {"type": "fixed", "value": 0},
    }
)

#: Numbers only, nothing conditional.
CUBE = SearchSpace.model_validate({name: {"type": "float", "low": 0.0, "high": 1.0} for name in "abcd"})


def bowl(config: Config) -> float:
    """Smooth on CUBE, at most 0, there where a = 0.2, b = 0.7, c = 0.6, d = 0.35."""
    return -sum((float(config[name]) - best) ** 2 for name, best in zip("abcd", (0.2, 0.7, 0.6, 0.35), strict=True))


def rich(config: Config) -> float:
    """A score on RICH_SPACE to which every hyperparameter contributes."""
    score = {"gbtree": 0.3, "dart": 0.5, "gblinear": 0.0}[str(config["booster"])]
    score -= ((float(config["depth"]) - 7) / 12) ** 2 + (np.log10(float(config["rounds"])) - 2.5) ** 2 / 4
    score -= (np.log10(float(config.get("eta", 1.0))) + 1.5) ** 2 / 9
    return float(score - float(config.get("rate_drop", 0.4)) ** 2 + float(config.get("skip", 0.0)) / 5)


def trials_of(proposals: Sequence[Proposal], objective: Callable[[Config], float | None]) -> list[Trial]:
    """The proposals, evaluated; where the objective is ``None`` the trial failed."""
    trials = []
    for proposal in proposals:
        value = objective(proposal.config)
        status = TrialStatus.FAILED if value is None else TrialStatus.COMPLETE
        trials.append(Trial(proposal=proposal, status=status, value=value, error="crashed" if value is None else None))
    return trials


def steps_of_a_round(state: TunerState, objective: Callable[[Config], float | None]) -> Iterator[TunerState]:
    """The state after each of the tuner's steps."""
    state = algorithm.observe(state, trials_of(algorithm.propose(state), objective))
    yield state
    state = algorithm.fit_reward_model(state)
    yield state
    yield algorithm.update_policy(state)


def after_rounds(state: TunerState, objective: Callable[[Config], float | None], rounds: int) -> TunerState:
    for _ in range(rounds):
        *_, state = steps_of_a_round(state, objective)
    return state


def small_settings(**changes: Any) -> TunerSettings:
    """Rounds of four trials, a policy that learns, short model phases that start early and are never skipped."""
    model = {"min_trials": 4, "min_r2": None, "episodes": 8, "max_updates": 2} | changes.pop("model", {})
    return TunerSettings.model_validate({"trials_per_round": 4, "train_policy": True, "model": model, **changes})


_PAPER, _EXTENDED = {"profile": "paper"}, {"profile": "extended"}
_SCREENING = {"candidates": 32}


def _variant(agent: dict[str, str], screening: dict[str, Any] | None = None, **changes: Any) -> TunerSettings:
    return small_settings(agent=agent, screening=screening, **changes)


#: Every mode, agent profile, reward model, imagined reward, with and without screening.
VARIANTS: dict[str, TunerSettings] = {
    "random": small_settings(mode="random"),
    "rl_sdp paper": _variant(_PAPER, mode="rl_sdp"),
    "rl_sdp extended": _variant(_EXTENDED, mode="rl_sdp", order_seed=3),
    "rl_doc paper": _variant(_PAPER, mode="rl_doc"),
    "rl_doc extended": _variant(_EXTENDED, mode="rl_doc"),
    "mbrl paper mlp": _variant(_PAPER, model={"kind": "mlp", "reward": "mean"}, order_seed=1),
    "mbrl paper ensemble": _variant(_PAPER, model={"kind": "ensemble", "reward": "ucb"}),
    "mbrl paper gp": _variant(_PAPER, model={"kind": "gp", "reward": "ei"}),
    "mbrl extended mlp": _variant(_EXTENDED, model={"kind": "mlp", "reward": "ei"}),
    "mbrl extended ensemble": _variant(_EXTENDED, model={"kind": "ensemble", "reward": "log_ei"}),
    "mbrl extended gp": _variant(_EXTENDED, model={"kind": "gp", "reward": "log_ei"}),
    "mbrl paper mlp screened": _variant(
        _PAPER, {**_SCREENING, "reward": "ucb"}, model={"kind": "mlp", "reward": "mean"}
    ),
    "mbrl extended gp screened": _variant(_EXTENDED, _SCREENING, model={"kind": "gp"}),
    "mbrl extended gp screened, the policy as it began": _variant(
        _EXTENDED, _SCREENING, model={"kind": "gp"}, train_policy=False
    ),
}

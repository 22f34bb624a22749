"""Studies for reports: histories with any outcomes, and a study as the tuner leaves it."""

from __future__ import annotations

import io
import math
from typing import Any

from PIL import Image

from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Direction, History, Proposal, RoundSummary, Stop, Trial, TrialStatus, sign
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.state import initial_state
from tests.helpers.studies import RICH_SPACE, random_actions

Study = tuple[StudySpec, History, tuple[RoundSummary, ...]]


def make_spec(space: SearchSpace, direction: str = "maximize", **fields: Any) -> StudySpec:
    """A study of a function; ``fields`` replace or add to those of its file."""
    return StudySpec.model_validate(
        {
            "name": "a-study",
            "seed": 5,
            "evaluator": {"kind": "function", "function": "module:function"},
            "objective": {"metric": "score", "direction": direction},
            "space": space.model_dump(),
            **fields,
        }
    )


def line_space(count: int) -> SearchSpace:
    """Numbers x0, x1, … in [0, 1]."""
    return SearchSpace.model_validate({f"x{i}": {"type": "float", "low": 0, "high": 1} for i in range(count)})


def history_of(spec: StudySpec, outcomes: list[dict[str, Any]]) -> History:
    """A history of random proposals with the given outcomes; without a status, complete."""
    configs = spec.space.decode(random_actions(spec.space, max(len(outcomes), 1)))
    actions = spec.space.encode(configs)
    trials = []
    for i, outcome in enumerate(outcomes):
        row = tuple(None if math.isnan(a) else float(a) for a in actions[i])
        proposal = Proposal(trial_id=f"t{i}", number=i, round=i // 5, index=i % 5, config=configs[i], actions=row)
        trials.append(Trial(proposal=proposal, **{"status": TrialStatus.COMPLETE, "seconds": 1.0, **outcome}))
    return History(direction=spec.objective.direction, trials=tuple(trials))


def scored(
    space: SearchSpace, function: Any, count: int = 60, direction: str = "maximize"
) -> tuple[StudySpec, History]:
    """A study of random trials whose values are those of a function of the configuration."""
    spec = make_spec(space, direction)
    blank = history_of(spec, [{"value": 0.0}] * count)
    return spec, history_of(spec, [{"value": float(function(trial.config))} for trial in blank.trials])


def tuned(direction: Direction, rounds: int = 7) -> Study:
    """The tuner at work on a conditional space in which trials fail, score NaN, are pruned or diverge."""
    budget = {"trials": 60, "cost": {"limit": 9, "per_trial_hour": 36}}
    tuner = {"trials_per_round": 5, "train_policy": True}
    spec = make_spec(RICH_SPACE, direction, budget=budget, tuner=tuner)
    state = initial_state("id", spec.seed, spec.space, spec.objective.direction, spec.tuner)
    whole = state.history
    for _ in range(rounds):
        trials = []
        for proposal in algorithm.propose(state):
            number = proposal.number
            value = sign(direction) * (0.9 - abs(proposal.config["depth"] - 6) / 20 - (1e9 if number == 12 else 0))  # type: ignore[operator]
            curve = tuple((step, value - sign(direction) * math.exp(-step / 3)) for step in range(1, 6))
            outcome: dict[str, Any] = {"status": TrialStatus.COMPLETE, "value": value, "curve": curve}
            if number % 9 == 3:
                outcome = {"status": TrialStatus.FAILED, "error": "Traceback:\n  line 1\nMemoryError: too deep"}
            elif number % 9 == 5:
                outcome = {"status": TrialStatus.INFEASIBLE, "error": "the score is NaN"}
            elif number % 9 == 7:
                stop = Stop(reason="at step 3: it is poor", step=3, value=curve[2][1], estimate=value, deviation=0.1)
                outcome = {"status": TrialStatus.PRUNED, "curve": curve[:3], "stop": stop}
            trials.append(Trial(proposal=proposal, started_at=1e9 + 7.0 * number, seconds=20.0, **outcome))
        whole = whole.extended(trials)
        state = algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, trials)))
    return spec, whole, state.summaries


def check_pngs(pngs: dict[str, bytes]) -> None:
    """Each is an image of sensible size with something on it."""
    for name, png in pngs.items():
        image = Image.open(io.BytesIO(png))
        assert image.format == "PNG"
        assert 700 <= image.width <= 3000, name
        assert 400 <= image.height <= 1500, name
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20, f"{name} is blank"

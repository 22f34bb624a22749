from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlhpo_core.trial import History, Proposal, Stop, Trial, TrialStatus, trial_id

FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), FINITE, st.text(max_size=8))


def proposal(number: int = 0, **changes: object) -> Proposal:
    fields = {
        "trial_id": trial_id("s", 0, number), "number": number, "round": 0, "index": number,
        "config": {"x": 0.5}, "actions": (0.0,),
    }  # fmt: skip
    return Proposal.model_validate(fields | changes)


def complete(number: int, value: float) -> Trial:
    return Trial(proposal=proposal(number), status=TrialStatus.COMPLETE, value=value)


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    status = draw(st.sampled_from(TrialStatus))
    value = draw(FINITE) if status is TrialStatus.COMPLETE else None
    stop = None
    if status is TrialStatus.PRUNED:
        stop = Stop(
            reason=draw(st.text(max_size=8)),
            step=draw(st.none() | st.integers(0, 10**6)),
            value=draw(st.none() | FINITE),
            estimate=draw(st.none() | FINITE),
            deviation=draw(st.none() | st.floats(0, 1e300)),
        )
    return Trial(
        proposal=proposal(
            draw(st.integers(0, 1000)),
            config=draw(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=4)),
            actions=tuple(draw(st.lists(st.none() | st.floats(-1, 1), max_size=4))),
            predicted=draw(st.none() | FINITE),
        ),
        status=status,
        value=value,
        metrics=draw(st.dictionaries(st.text(max_size=8), FINITE, max_size=3)),
        curve=tuple(draw(st.lists(st.tuples(st.integers(0, 10**6), FINITE), max_size=4))),
        started_at=draw(st.floats(0, 2e9)),
        seconds=draw(st.floats(0, 1e6)),
        error=draw(st.none() | st.text(max_size=20)),
        stop=stop,
    )


@given(trials())
def test_a_trial_travels_as_json_without_loss(trial: Trial) -> None:
    back = Trial.model_validate_json(trial.model_dump_json())
    assert back == trial
    # Equality takes True for 1 and 1 for 1.0; a training routine may not.
    for name, value in trial.config.items():
        assert type(back.config[name]) is type(value)


@pytest.mark.parametrize(
    ("status", "value", "message"),
    [
        (TrialStatus.COMPLETE, None, "a complete trial needs a value"),
        (TrialStatus.FAILED, 0.5, "a trial that is failed has no value"),
        (TrialStatus.INFEASIBLE, 0.5, "a trial that is infeasible has no value"),
        (TrialStatus.PRUNED, 0.5, "a trial that is pruned has no value"),
        (TrialStatus.PRUNED, None, "a trial that is pruned says where and why"),
        (TrialStatus.COMPLETE, math.nan, "finite number"),
        (TrialStatus.COMPLETE, math.inf, "finite number"),
    ],
)
def test_a_status_and_its_value_agree(status: TrialStatus, value: float | None, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Trial(proposal=proposal(), status=status, value=value)


def test_only_a_pruned_trial_was_stopped() -> None:
    with pytest.raises(ValidationError, match="and no other does"):
        Trial(proposal=proposal(), status=TrialStatus.COMPLETE, value=1.0, stop=Stop(reason="it was poor"))


@pytest.mark.parametrize(("std", "expected"), [(None, None), (0.5, (0.25, 0.5))])
def test_an_expectation_is_whole_or_not_there(std: float | None, expected: tuple[float, float] | None) -> None:
    assert proposal(predicted=0.25, predicted_std=std).expected == expected


@pytest.mark.parametrize("change", [{"number": -1}, {"index": -1}, {"actions": (math.nan,)}, {"confg": {}}])
def test_a_malformed_proposal_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        proposal(**change)


def test_records_cannot_be_changed() -> None:
    trial = complete(0, 1.0)
    with pytest.raises(ValidationError, match="frozen"):
        trial.value = 2.0  # type: ignore[misc]


def test_a_trial_is_named_by_study_round_and_index_alone() -> None:
    assert trial_id("s", 1, 2) == trial_id("s", 1, 2)
    others = {trial_id(study, round_, index) for study in ("s", "t") for round_ in (0, 1) for index in (0, 1)}
    assert len(others) == 8
    # Recorded: an identity must not change between releases, or resumed studies would count trials twice.
    assert trial_id("s", 0, 0) == "91e356d936e39d66"


@pytest.mark.parametrize(("direction", "best", "curve"), [("maximize", 2, [3, 3, 5, 5]), ("minimize", 1, [3, 1, 1, 1])])
def test_the_best_is_so_by_direction(direction: str, best: int, curve: list[float]) -> None:
    history = History.model_validate({"direction": direction}).extended(
        [complete(number, value) for number, value in enumerate([3, 1, 5, 4])]
    )
    found = history.best()
    assert found is not None
    assert found.proposal.number == best
    assert history.best_so_far() == curve
    assert history.ranked()[0] == found
    rewards = [history.reward(trial) for trial in history.ranked()]
    assert rewards == sorted(rewards, key=lambda reward: -(reward or 0.0))


def test_of_equals_the_earliest_is_the_best() -> None:
    history = History(direction="minimize").extended([complete(0, 2.0), complete(1, 1.0), complete(2, 1.0)])
    assert [trial.proposal.number for trial in history.ranked()] == [1, 2, 0]


def test_only_complete_trials_can_be_the_best() -> None:
    stop = Stop(reason="it was poor", step=1, value=9.0, estimate=9.0, deviation=0.1)
    pruned = Trial(proposal=proposal(0), status=TrialStatus.PRUNED, stop=stop)
    failed = Trial(proposal=proposal(1), status=TrialStatus.FAILED)
    history = History(direction="maximize").extended([pruned, failed])
    assert history.best() is None
    assert history.best_so_far() == [None, None]
    assert history.reward(failed) is None
    assert history.extended([complete(2, 1.0)]).best_so_far() == [None, None, 1.0]


def test_a_history_is_ordered_and_holds_no_number_twice() -> None:
    history = History(direction="maximize").extended([complete(4, 1.0), complete(2, 1.0)]).extended([complete(3, 1.0)])
    assert [trial.proposal.number for trial in history.trials] == [2, 3, 4]
    assert len(history) == 3
    with pytest.raises(ValidationError, match="each number once"):
        history.extended([complete(3, 2.0)])
    with pytest.raises(ValidationError, match="in the order of their numbers"):
        History(direction="maximize", trials=(complete(1, 1.0), complete(0, 1.0)))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow.schedules import checked_cron


@pytest.mark.parametrize(
    "text",
    [
        "0 30 2 * * *",
        "0 0 */6 * * *",
        "0 0 9 ? * 2-6",
        "0 0/15 * * * *",
        "30 0 4 1,15 JAN-jun Mon,fri",
        "0 10-50/20 8-18 28 * *",
        "0 0 0 29 2 *",
        "0 0 0 31 2 1",  # a Monday in February, too
    ],
)
def test_six_fields_pass(text: str) -> None:
    assert checked_cron(f"  {text.replace(' ', '   ')} ") == text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30 2 * * *", "0 30 2 * * *"),
        ("*/15 8-18 * * MON-FRI", "0 */15 8-18 * * MON-FRI"),
        ("@daily", "0 0 0 * * *"),
        ("@Hourly", "0 0 * * * *"),
        ("* 30 2 * * *", "0 30 2 * * *"),
        ("*/20 * * * * *", "0 * * * * *"),
    ],
)
def test_what_was_meant_is_shown_and_passes(text: str, meant: str) -> None:
    with pytest.raises(UserError) as refused:
        checked_cron(text)
    assert repr(meant) in str(refused.value)
    assert checked_cron(meant) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 0 fields, not six"),
        ("@every 1h", "has 2 fields, not six"),
        ("0 30 2 * * * 2026", "has 7 fields"),
        ("61 2 * * *", "has 5 fields"),
        ("0 60 2 * * *", "'60' is not a minute from 0 to 59"),
        ("0 0 24 * * *", "'24' is not a hour"),
        ("0 0 0 0 * *", "'0' is not a day of month from 1 to 31"),
        ("0 0 0 * 13 *", "'13' is not a month"),
        ("0 0 0 * * 7", "'7' is not a day of week from 0 to 6"),
        ("0 50-10 * * * *", "'50-10' is not a minute"),
        ("0 */0 * * * *", "must be at least 1"),
        ("0 1-2-3 * * * *", "'2-3' is not a minute"),
        ("0 1,,2 * * * *", "'' is not a minute"),
        ("0 ² * * * *", "'²' is not a minute"),
        ("0 -1 * * * *", "'' is not a minute"),
        ("0 0 0 31 4 *", "never comes due"),
        ("0 0 0 30 feb ?", "never comes due: no such month has a day 30"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("*", r"\*")):
        checked_cron(text)


HIGHEST = (59, 59, 23, 28, 12, 6)


@given(st.tuples(*(st.integers(int(place in (3, 4)), high) for place, high in enumerate(HIGHEST))))
def test_every_moment_can_be_written(moment: tuple[int, ...]) -> None:
    text = " ".join(str(value) for value in moment)
    assert checked_cron(text) == text


@given(st.text(alphabet="0123456789*?/-, @aJFn", max_size=30))
def test_any_text_passes_or_is_refused_with_words(text: str) -> None:
    try:
        checked = checked_cron(text)
    except UserError as error:
        refusal = str(error)
        assert text in refusal or repr(text) in refusal
    else:
        assert len(checked.split(" ")) == 6

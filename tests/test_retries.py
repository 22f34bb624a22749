"""Waiting out faults that pass, in a time that does not pass by itself."""

from __future__ import annotations

import re

import pytest

from rlhpo_core.errors import Outage, UserError
from rlhpo_core.retries import PATIENCE, current, patiently, wait_out
from tests.helpers.weather import FakeTime


class Fault:
    """Raises until it has been called often enough, or until a time."""

    def __init__(self, calls: int = 10**9, error: Exception | None = None) -> None:
        self.left, self.error, self.calls = calls, error or Outage("the server is away;\nstart it."), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error
        return "done"


def test_a_fault_that_passes_is_waited_out_and_told() -> None:
    time, fault = FakeTime(), Fault(4)
    with time.waiting(PATIENCE):
        assert wait_out("write a", fault) == "done"
    waits = [float(re.findall(r"again in (\d+) s", line)[0]) for line in time.said]
    assert len(waits) == 4
    assert time.said[0].startswith("cannot write a: the server is away; start it. Trying again in ")
    assert all(low <= wait <= low + 2 for low, wait in zip((1, 2, 4, 8), waits, strict=True))
    assert 15 <= time.now <= 19


def test_waits_grow_to_half_a_minute_and_end_within_the_patience() -> None:
    time, fault = FakeTime(), Fault()
    with time.waiting(PATIENCE), pytest.raises(Outage, match="the server is away"):
        wait_out("write a", fault)
    assert PATIENCE - 31 <= time.now <= PATIENCE
    assert 20 <= fault.calls <= 30


def test_processes_do_not_come_back_at_once() -> None:
    ends = set()
    for _ in range(5):
        time = FakeTime()
        with time.waiting(PATIENCE):
            wait_out("write a", Fault(3))
        ends.add(time.now)
    assert len(ends) == 5


@pytest.mark.parametrize("error", [UserError("there is no such bucket"), ValueError("a mistake")])
def test_what_waiting_cannot_mend_is_raised_at_once(error: Exception) -> None:
    time, fault = FakeTime(), Fault(error=error)
    with time.waiting(PATIENCE), pytest.raises(type(error)):
        wait_out("write a", fault)
    assert (fault.calls, time.now, time.said) == (1, 0.0, [])


def test_nothing_waits_unless_it_is_told_to() -> None:
    fault = Fault()
    with pytest.raises(Outage):
        wait_out("write a", fault)
    assert fault.calls == 1
    time = FakeTime()
    with time.waiting(PATIENCE), patiently(0), pytest.raises(Outage):
        wait_out("write a", fault)
    assert fault.calls == 2
    assert time.now == 0.0


def test_waiting_ends_within_a_second_of_giving_up() -> None:
    time, fault = FakeTime(), Fault()
    with time.waiting(), patiently(give_up=lambda: time.now > 20), pytest.raises(Outage):
        wait_out("write a", fault)
    assert 20 < time.now <= 22


def test_the_patience_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with patiently():
        assert current.get().seconds == PATIENCE
    monkeypatch.setenv("RLHPO_PATIENCE", "90")
    with patiently():
        assert current.get().seconds == 90
    for text in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv("RLHPO_PATIENCE", text)
        with pytest.raises(UserError, match="RLHPO_PATIENCE"), patiently():
            pass
    assert current.get().seconds == 0

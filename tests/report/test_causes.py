from __future__ import annotations

from rlhpo_core.report.causes import count_causes, failure_report
from rlhpo_core.trial import TrialStatus
from tests.helpers.reported_studies import history_of, line_space, make_spec


def test_causes_are_counted_by_status_and_last_line() -> None:
    errors = ["Traceback\n  line 3\nValueError: too deep", "Traceback\n  line 9\nValueError: too deep", "  ", None]
    outcomes = [{"status": "failed", "error": error} for error in errors] + [{"status": "infeasible", "error": "NaN"}]
    assert count_causes(history_of(make_spec(line_space(1)), outcomes).trials) == {
        (TrialStatus.FAILED, "ValueError: too deep"): 2,
        (TrialStatus.FAILED, "no reason given"): 2,
        (TrialStatus.INFEASIBLE, "NaN"): 1,
    }


def test_the_commonest_causes_of_failure_come_first() -> None:
    errors = ["rare", *["Traceback …\nValueError: too deep"] * 3, None, None]
    history = history_of(make_spec(line_space(1)), [{"status": "failed", "error": error} for error in errors])
    assert failure_report(history).splitlines() == [
        "none of the 6 trials succeeded:",
        "  3 × ValueError: too deep",
        "  2 × no reason given",
        "  1 × rare",
    ]

"""The pool with real processes: they crash, hang, are killed, and eat memory."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.function import ALLOWED_MODULES
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.trial import POD_MEMORY, Proposal, Stop, Trial, TrialStatus
from tests.helpers.pool_study import proposal, run, spec, workers


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)


def gone(pids: str) -> bool:
    """Whether none of the processes runs any more; a zombie that nobody has collected yet does not run.

    Wait for it: a process that has been sent SIGKILL is gone a moment later.
    """
    processes = [psutil.Process(int(pid)) for pid in pids.split() if psutil.pid_exists(int(pid))]
    return all(process.status() == psutil.STATUS_ZOMBIE for process in processes)


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ALLOWED_MODULES, "tests")
        yield


@pytest.fixture(scope="module")
def pool() -> Iterator[TrialPool]:
    """Two workers without limits, shared by the tests: each finds it as the one before has left it."""
    with TrialPool(spec(), workers=2, threads=1) as pool:
        yield pool


# -- how trials end ----------------------------------------------------------------------------------------------------


def test_trials_complete_with_value_metrics_curve_and_times(pool: TrialPool) -> None:
    before = time.time()
    proposals = [proposal(i, "score", x=i / 8) for i in range(5)]
    reports: list[tuple[int, int, float]] = []
    trials = list(pool.run(proposals, lambda: False, lambda p, step, value: reports.append((p.number, step, value))))
    trials.sort(key=lambda trial: trial.proposal.number)
    assert [trial.proposal for trial in trials] == proposals
    for trial in trials:
        x = trial.proposal.number / 8
        assert trial.status is TrialStatus.COMPLETE
        assert trial.value == 2 * x
        assert trial.metrics == {"doubled": 4 * x}, "numpy numbers count, NaN is dropped"
        assert trial.curve == ((0, 0.0), (1, x), (2, 2 * x))
        assert before <= trial.started_at <= time.time()
        assert 0 < trial.seconds <= time.time() - before
    assert sorted(reports) == [(i, step, step * i / 8) for i in range(5) for step in range(3)]


def test_workers_that_were_begun_take_the_trials() -> None:
    others = set(workers())
    with TrialPool(spec(), workers=2, threads=1) as pool:
        pool.begin(1)
        (begun,) = set(workers()) - others
        assert run(pool, proposal(0, "score", x=0.5))[0].status is TrialStatus.COMPLETE
        assert set(workers()) - others == {begun}
        pool.begin(9)
        assert len(set(workers()) - others) == 2
    assert set(workers()) == others


def test_trials_run_at_the_same_time(pool: TrialPool, tmp_path: Path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    trials = run(pool, proposal(0, "meet", mine=one, other=other), proposal(1, "meet", mine=other, other=one))
    assert [trial.value for trial in trials] == [1.0, 1.0]


def test_workers_are_processes_of_their_own_and_serve_again(pool: TrialPool) -> None:
    trials = run(pool, *[proposal(i, "describe_process") for i in range(6)])
    pids = {int(trial.metrics["pid"]) for trial in trials}
    assert pids <= {worker.pid for worker in workers()}
    assert len(pids) <= 2


def test_threads_are_bounded_in_workers_only() -> None:
    before, others = dict(os.environ), workers()
    with TrialPool(spec(), workers=4, threads=1) as pool:
        (trial,) = run(pool, proposal(0, "describe_process"))
        assert len(workers()) == len(others) + 1, "no more workers than trials"
    assert {value for name, value in trial.metrics.items() if name.endswith("threads")} == {1.0}
    assert dict(os.environ) == before


def test_a_trial_scores_the_same_wherever_it_runs(pool: TrialPool) -> None:
    (alone,) = run(pool, proposal(3, "draw", draws=2))
    among_others = run(pool, *[proposal(i, "draw", draws=2 if i == 3 else i) for i in range(6)])
    assert among_others[3].value == alone.value
    assert len({trial.value for trial in among_others[1:]}) == 5


@pytest.mark.parametrize(
    ("act", "config", "last_line", "curve"),
    [
        ("crash", {}, "ArithmeticError: the loss exploded", ((1, 0.5),)),
        ("crash_oddly", {}, "OSError: cannot read caf?.csv", ()),
        ("run_out_of_memory", {}, "MemoryError", ()),
        ("no_such_routine", {}, "KeyError: 'no_such_routine'", ()),
        ("leave", {"code": 3}, "the process exited with code 3", ()),
        ("kill_itself", {"number": 9}, "the process was killed by SIGKILL (out of memory?)", ((1, 0.25),)),
        ("kill_itself", {"number": 11}, "the process was killed by SIGSEGV", ((1, 0.25),)),
    ],
)
def test_a_crash_fails_its_trial_and_no_other(
    pool: TrialPool, act: str, config: dict[str, Any], last_line: str, curve: tuple[tuple[int, float], ...]
) -> None:
    failed, other = run(pool, proposal(0, act, **config), proposal(1, "score", x=0.5))
    assert failed.status is TrialStatus.FAILED
    assert failed.value is None
    assert failed.error is not None
    assert failed.error.splitlines()[-1] == last_line
    assert failed.curve == curve
    assert other.value == 1.0


def test_the_error_of_a_crash_shows_where(pool: TrialPool) -> None:
    (trial,) = run(pool, proposal(0, "crash"))
    assert trial.error is not None
    assert "functions.py" in trial.error
    assert 'raise ArithmeticError("the loss' in trial.error


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_value_that_is_not_finite_is_infeasible(pool: TrialPool, value: str) -> None:
    reports: list[float] = []
    (trial,) = pool.run([proposal(0, "diverge", value=value)], lambda: False, lambda *report: reports.append(report[2]))
    assert trial.status is TrialStatus.INFEASIBLE
    assert trial.value is None
    assert trial.error == f"the objective came out as {value}; a trial needs a finite value"
    assert trial.curve == ((5, 0.5), (15, 0.25))
    assert all(math.isfinite(report) for report in reports)


@pytest.mark.parametrize(("reports", "value"), [(2, 0.5), (0, None)])
def test_a_trial_that_gives_up_is_pruned_and_keeps_its_last_report(
    pool: TrialPool, reports: int, value: float | None
) -> None:
    (trial,) = run(pool, proposal(0, "give_up", reports=reports))
    assert trial.status is TrialStatus.PRUNED
    assert trial.value is None
    assert trial.stop == Stop(reason="it gave up by itself", step=reports - 1 if reports else None, value=value)
    assert trial.curve == ((0, 0.0), (1, 0.5))[:reports]


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_trial_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    with TrialPool(spec(trial_timeout="2s"), workers=2, threads=1) as pool:
        file = tmp_path / "pids"
        hung, other = run(pool, proposal(0, "hang", path=str(file)), proposal(1, "score", x=0.5))
        assert hung.status is TrialStatus.FAILED
        assert hung.error == "ran longer than trial_timeout (2 s)"
        assert hung.curve == ((1, 0.5),)
        assert hung.seconds > 2
        assert other.value == 1.0
        wait_until(lambda: gone(file.read_text()))

        # What has ended in time is not lost when nobody looks for longer than that.
        trials = []
        for trial in pool.run([proposal(i, "score", x=0.5) for i in range(2)], lambda: False, lambda *_: None):
            trials.append(trial)
            time.sleep(2.5)
        assert [trial.value for trial in trials] == [1.0, 1.0]
        assert max(trial.seconds for trial in trials) < 2


def test_a_trial_that_needs_too_much_memory_is_killed() -> None:
    with TrialPool(spec(trial_memory_mb=700), workers=1, threads=1) as pool:
        hog, modest = run(pool, proposal(0, "hog", megabytes=2000), proposal(1, "score", x=0.5))
    assert hog.status is TrialStatus.FAILED
    assert hog.error is not None
    assert "of it before the trial; the limit is 700 MB; raise execution.trial_memory_mb" in hog.error
    assert modest.value == 1.0


def container(folder: Path, megabytes: float, **files: str) -> Path:
    """What a container of that limit shows of its control group."""
    for name, text in {"memory_max": str(round(megabytes * 2**20)), **files}.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def held_here() -> float:
    """Resident MB of this process and of all below it, other pools' workers among them."""
    here = psutil.Process()
    return sum(one.memory_info().rss for one in [here, *here.children(recursive=True)]) / 2**20


def test_a_trial_is_stopped_just_below_the_limit_of_its_container(tmp_path: Path) -> None:
    limit = held_here() + 900
    with TrialPool(spec(), workers=1, threads=1, container=container(tmp_path, limit)) as pool:
        hog, modest = run(pool, proposal(0, "hog", megabytes=2000), proposal(1, "score", x=0.5))
    assert hog.status is TrialStatus.FAILED
    assert hog.error is not None
    assert f"{limit * 15 / 16:.0f} MB is the most that it may; raise its limit" in hog.error
    assert hog.metrics == {POD_MEMORY: round(limit * 2**20 / 1e6)}
    assert modest.value == 1.0
    assert int(hog.error.split("then held ")[1].split(" MB")[0]) >= int(limit * 15 / 16)


def test_what_the_kernel_says_of_a_container_counts_and_the_largest_trial_goes(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    place = container(tmp_path, 100, memory_current=str(50 * 2**20))

    def grown() -> bool:
        sizes = sorted(worker.memory_info().rss for worker in workers())
        return mine.exists() and sizes[-1] - sizes[0] > 200 * 2**20

    def fill_up() -> None:
        wait_until(grown)
        container(tmp_path, 100, memory_current=str(99 * 2**20))

    proposals = [proposal(0, "hog", megabytes=400), proposal(1, "meet", mine=str(mine), other=str(other))]
    with TrialPool(spec(), workers=2, threads=1, container=place) as pool:
        threading.Thread(target=fill_up).start()
        ended = pool.run(proposals, lambda: False, lambda *_: None)
        hog = next(ended)
        container(tmp_path, 100, memory_current=str(50 * 2**20))
        other.touch()
        (modest,) = ended
    assert (hog.proposal.number, hog.status) == (0, TrialStatus.FAILED)
    assert "this container then held 99 MB, and 94 MB is the most that it may" in (hog.error or "")
    assert (modest.proposal.number, modest.value) == (1, 1.0)


def test_a_container_that_is_full_before_the_first_trial_is_an_error_of_the_study(tmp_path: Path) -> None:
    place = container(tmp_path, 100, memory_current=str(99 * 2**20))
    with (
        TrialPool(spec(), workers=1, threads=1, container=place) as pool,
        pytest.raises(UserError, match=r"this container holds 99 MB before it trains anything, and 94 MB is the most"),
    ):
        run(pool, proposal(0, "score", x=0.5))


def test_a_limit_that_no_trial_can_keep_is_an_error_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "data = bytearray(b'x') * 500_000_000\ndef f(config, report): return 1.0"
    (tmp_path / "heavy.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED_MODULES, "heavy")
    with (
        TrialPool(spec("heavy:f", trial_memory_mb=500), workers=1, threads=1) as pool,
        pytest.raises(UserError, match=r"trial_memory_mb: a worker needs \d+ MB .* the limit is 500 MB; raise it"),
    ):
        run(pool, proposal(0, "score", x=0.5))


def test_memory_that_a_trial_leaves_behind_is_not_blamed_on_the_next() -> None:
    with TrialPool(spec(trial_memory_mb=900), workers=1, threads=1) as pool:
        trials = run(pool, *[proposal(i, "leak", megabytes=400) for i in range(2)])
    assert [trial.value for trial in trials] == [1.0, 1.0]


# -- ending early ------------------------------------------------------------------------------------------------------


def test_after_stop_no_further_trial_is_started(pool: TrialPool) -> None:
    trials: list[Trial] = []
    for trial in pool.run([proposal(i, "score", x=0.5) for i in range(9)], lambda: bool(trials), lambda *_: None):
        trials.append(trial)
    assert 1 <= len(trials) <= 2, "the one that ended, and the one that was under way beside it"
    assert list(pool.run([proposal(0, "score", x=0.5)], lambda: True, lambda *_: None)) == []
    assert len(run(pool, proposal(0, "score", x=0.5))) == 1, "the pool works on"


def test_cancelled_trials_stop_and_are_not_yielded(tmp_path: Path) -> None:
    heeds, ignores = tmp_path / "heeds", tmp_path / "ignores"
    before = workers()
    with TrialPool(spec(), workers=2, threads=1) as pool:
        proposals = [
            proposal(0, "train_for_ever", path=str(heeds)),
            proposal(1, "hang", path=str(ignores)),
            proposal(2, "score", x=0.5),
        ]

        def cancel_when_both_run(_: Proposal, step: int, value: float) -> None:
            if ignores.exists():
                pool.cancel()

        assert list(pool.run(proposals, lambda: False, cancel_when_both_run)) == []
        assert heeds.read_text() == "stopped"
        wait_until(lambda: gone(ignores.read_text()))
        assert run(pool, proposal(2, "score", x=0.5)) == [], "a cancelled pool starts nothing more"
    assert workers() == before


def test_trials_are_killed_when_the_consumer_leaves(pool: TrialPool, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    proposals = [proposal(0, "hang", path=str(file)), proposal(1, "score", x=0.5)]
    trials = pool.run(proposals, lambda: False, lambda *_: None)
    next(trials)
    wait_until(file.exists)
    trials.close()  # type: ignore[attr-defined]
    wait_until(lambda: gone(file.read_text()))
    assert run(pool, proposal(2, "score", x=0.5))[0].value == 1.0


def test_no_process_outlives_the_pool(tmp_path: Path) -> None:
    before, file = workers(), tmp_path / "pids"
    proposals = [proposal(0, "hang", path=str(file)), proposal(1, "score", x=0.5)]
    with TrialPool(spec(), workers=2, threads=1) as pool:
        trials = pool.run(proposals, lambda: False, lambda *_: None)
        next(trials)
        wait_until(file.exists)
        assert len(workers()) == len(before) + 2
    assert workers() == before
    wait_until(lambda: gone(file.read_text()))
    assert list(trials) == []


# -- signals -----------------------------------------------------------------------------------------------------------


def test_workers_ignore_ctrl_c_while_they_start_and_while_they_work() -> None:
    before = {worker.pid for worker in workers()}
    interrupted: set[int] = set()

    def interrupt_new_workers() -> bool:
        for worker in workers():
            if worker.pid not in before | interrupted:
                worker.send_signal(signal.SIGINT)
                interrupted.add(worker.pid)
        return False

    with TrialPool(spec(), workers=1, threads=1) as pool:
        proposals = [proposal(0, "kill_itself", number=int(signal.SIGINT)), proposal(1, "describe_process")]
        first, second = pool.run(proposals, interrupt_new_workers, lambda *_: None)
    assert first.value == 0.75
    assert {int(second.metrics["pid"])} == interrupted, "the very process that was interrupted as it started"


def test_ctrl_c_for_the_parent_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "pids"

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    # A shell's background job begins with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), TrialPool(spec(), workers=1, threads=1) as pool:
            list(pool.run([proposal(0, "hang", path=str(file))], lambda: False, interrupt))
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: gone(file.read_text()))


def test_workers_and_what_they_started_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script, file = tmp_path / "parent.py", tmp_path / "pids"
    script.write_text(
        textwrap.dedent(f"""
            from rlhpo_core.execution.trial_pool import TrialPool
            from tests.helpers.pool_study import proposal, run, spec, workers

            if __name__ == "__main__":
                with TrialPool(spec(), workers=2, threads=1) as pool:
                    run(pool, proposal(0, "hang", path={str(file)!r}), proposal(1, "train_for_ever", path="unused"))
        """)
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=environment) as parent:
        wait_until(file.exists)
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 6, "two workers and their guards, what one of them started, and the resource tracker"
        parent.kill()
    # The kernel sees to the workers, and the guards to what their trials have started.
    wait_until(lambda: all(gone(str(process.pid)) for process in family))


# -- workers that cannot start -----------------------------------------------------------------------------------------


def test_an_evaluator_that_cannot_be_built_is_an_error_of_the_study() -> None:
    with (
        TrialPool(spec("tests.helpers.functions:no_such_function"), workers=1, threads=1) as pool,
        pytest.raises(UserError, match="has no 'no_such_function'"),
    ):
        run(pool, proposal(0, "score", x=0.5))


def test_a_function_of_a_module_that_is_not_allowed_is_not_called() -> None:
    with (
        TrialPool(spec("os:getpid"), workers=1, threads=1) as pool,
        pytest.raises(UserError, match=f"set the environment variable {ALLOWED_MODULES}=tests,os"),
    ):
        run(pool, proposal(0, "score", x=0.5))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", r"killed by SIGKILL \(out of memory\?\) while it loaded the data"),
        ("raise ValueError('not on a Sunday')", "ValueError: not on a Sunday$"),
    ],
)
def test_a_worker_that_dies_as_it_starts_is_an_error_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "deadly.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED_MODULES, "deadly")
    with TrialPool(spec("deadly:f"), workers=1, threads=1) as pool, pytest.raises(UserError, match=message):
        run(pool, proposal(0, "score", x=0.5))

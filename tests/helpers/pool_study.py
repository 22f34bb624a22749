"""A study of the tests' functions for the pool of workers, its proposals and its trials; workers that are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import psutil
import pytest

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.execution import trial_pool
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Proposal, Trial


def spec(function: str = "tests.helpers.functions:act", **execution: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "pool",
            "evaluator": {"kind": "function", "function": function},
            "objective": {"metric": "score", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"wall_time": "1h"},
            "execution": execution,
        }
    )


def proposal(number: int, act: str, /, **config: Any) -> Proposal:
    config["act"] = act
    return Proposal(trial_id=f"trial-{number}", number=number, round=0, index=number, config=config, actions=(0.0,))


def run(pool: TrialPool, *proposals: Proposal) -> list[Trial]:
    """The trials in the order of their numbers."""
    trials = pool.run(proposals, stop=lambda: False, on_report=lambda *_: None)
    return sorted(trials, key=lambda trial: trial.proposal.number)


def workers() -> list[psutil.Process]:
    """Our child processes that train trials. Others may run beside them: guards, servers that other tests share."""
    lines = {}
    for child in psutil.Process().children():
        # Some may have ended just now.
        with suppress(psutil.NoSuchProcess):
            lines[child] = " ".join(child.cmdline())
    return [child for child, line in lines.items() if "multiprocessing.spawn" in line]


@contextmanager
def kept_workers() -> Iterator[None]:
    """Has steps that train the same study on the same table share a pool of workers.

    A step has a pool of its own, whose worker imports XGBoost and reads the table anew: seconds for each trial.
    """

    def pool(
        spec: StudySpec, workers: int, threads: int, schema: TableSchema | None = None, checkpoints: str | None = None
    ) -> AbstractContextManager[TrialPool]:
        table = b"" if spec.data is None else spec.data.path.read_bytes()
        key = (spec.model_dump_json(exclude={"data": {"path"}}), hashlib.sha256(table).digest(), workers, threads)
        if key not in pools:
            pools[key] = started.enter_context(TrialPool(spec, workers, threads, schema))
        return nullcontext(pools[key])

    pools: dict[Any, TrialPool] = {}
    with ExitStack() as started, pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_pool, "TrialPool", pool)
        yield

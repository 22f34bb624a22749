"""Finished studies of one function on small spaces, for priors to learn from."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.priors.training import FinishedStudy, PriorSettings, train
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.tuner.prior import Prior
from tests.helpers.functions import hill

SPACE: dict[str, Any] = {
    "x": {"type": "float", "low": 0.0, "high": 1.0},
    "y": {"type": "float", "low": 0.0001, "high": 1.0, "log": True},
}
#: Enough for this function.
QUICK = PriorSettings(width=32, features=8, steps=300, policy_updates=20, episodes=64)


def study(name: str, peak: float = 0.7, **fields: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": name,
            "seed": zlib.crc32(name.encode()),
            "evaluator": {"kind": "function", "function": "tests.helpers.functions:hill", "options": {"peak": peak}},
            "objective": {"metric": "height", "direction": "maximize"},
            "space": SPACE,
            "budget": {"trials": 16},
            "tuner": {"mode": "random", "trials_per_round": 16},
            **fields,
        }
    )


def tuned(runs: Path, spec: StudySpec, tracked: bool = True) -> StudyFolder:
    """The study, run to its end and logged, as ``rlhpo tune`` leaves it."""
    folder = StudyFolder.create(runs / spec.name, spec, StudyRecord.new(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHPO_ALLOWED_MODULES", "tests")
        with TrialPool(spec, workers=1, threads=1) as pool:
            run(folder, spec, pool, [])
    if tracked:
        tracker = StudyTracker.open(spec, folder.record().study_id, runs)
        tracker.sync(folder.history(), folder.state().summaries, folder.with_curve)
        tracker.finish()
    return folder


def drawn(name: str, peak: float = 0.7, count: int = 40) -> FinishedStudy:
    """A study of random configurations, without the loop."""
    space = SearchSpace.model_validate(SPACE)
    configs = space.decode(np.random.default_rng(zlib.crc32(name.encode())).uniform(-1, 1, (count, 2)))
    heights = [hill(dict(config), lambda step, value: None, peak)["height"] for config in configs]
    return FinishedStudy(name, configs, np.array(heights))


def quick_prior(name: str, *peaks: float) -> Prior:
    studies = [drawn(f"{name}-{peak}", peak) for peak in peaks]
    return train(name, SearchSpace.model_validate(SPACE), studies, "height", settings=QUICK)

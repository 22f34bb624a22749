"""What every kind of evaluator does, as tests: inherit from ``EvaluatorContract`` in a test module of your own.

    class TestMine(EvaluatorContract):
        config = {"depth": 3}

        def spec(self, folder):
            return StudySpec.model_validate({...})

pytest collects the inherited tests. It shows the values in failed assertions if the test package's ``__init__`` or
``conftest`` says ``pytest.register_assert_rewrite("rlhpo_core.testing.evaluators")``.
"""

from __future__ import annotations

import ast
import math
import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from rlhpo_core.arrays import Floats
from rlhpo_core.data.labelled import split
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import build_evaluator, evaluator_class
from rlhpo_core.evaluators.metrics import score
from rlhpo_core.evaluators.protocol import (
    NO_CHECKPOINT,
    Checkpoint,
    Evaluation,
    Evaluator,
    Infeasible,
    Refit,
    StopTrial,
)
from rlhpo_core.production.answers import Model
from rlhpo_core.space.parameters import Int
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Config

#: How the files of a model may end: nothing in them is executable.
SAFE = (".json", ".npy", ".safetensors", ".ubj")
_SEED = 7


class KeptInMemory(Checkpoint):
    """A checkpoint for tests."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data
        self.writes = 0

    def read(self) -> bytes | None:
        """What was written last."""
        return self.data

    def write(self, data: bytes) -> None:
        """Keep it, and count."""
        self.data = data
        self.writes += 1

    def clear(self) -> None:
        """Forget it."""
        self.data = None


class _Killed(BaseException):
    """Takes the place of a signal that ends the process."""


class _Curve:
    """A reporter that remembers, and that ends the trial at a report, counted from 1, if told so."""

    def __init__(self, end_at: int | None = None, end: type[BaseException] = StopTrial) -> None:
        self.points: list[tuple[int, float]] = []
        self._end_at, self._end = end_at, end

    def __call__(self, step: int, value: float) -> None:
        self.points.append((step, value))
        if len(self.points) == self._end_at:
            raise self._end


class EvaluatorContract(ABC):
    """Tests that each kind of evaluator passes; ``protocol.Evaluator`` has them in words."""

    config: ClassVar[Config]
    """Trained within seconds, with two reports or more."""
    other: ClassVar[Config | None] = None
    """Another one, which scores otherwise; ``None`` to leave out what needs it."""
    infeasible: ClassVar[Config | None] = None
    """One that describes nothing that could be trained; ``None`` if there is none."""
    any_space: ClassVar[bool] = False
    """Whether whatever hyperparameters will do."""
    goes_on: ClassVar[bool] = False
    """Whether a trial that is killed goes on from a checkpoint; else it begins anew."""

    @abstractmethod
    def spec(self, folder: Path) -> StudySpec:
        """A study of this kind; its data, if it has any, may be written into the folder."""

    def built(self, folder: Path) -> Evaluator:
        """The study's evaluator, with one thread."""
        return build_evaluator(self.spec(folder), threads=1)

    # -- scores ------------------------------------------------------------------------------------------------------

    def test_the_same_configuration_scores_the_same(self, tmp_path: Path) -> None:
        """In another process, after other trials; the global random generators are seeded anew for each trial."""
        first, curve = _scored(self.built(tmp_path), self.config)
        again = self.built(tmp_path)
        differs, _ = _scored(again, self.other or self.config)
        if self.other is not None:
            assert differs.value != first.value, "the other configuration scores the same: choose one that differs"
        second, repeated = _scored(again, self.config)
        assert (first.value, dict(first.metrics), curve) == (second.value, dict(second.metrics), repeated)

    def test_the_configuration_is_left_as_it_was(self, tmp_path: Path) -> None:
        """The pool logs it after the trial."""
        config = dict(self.config)
        _scored(self.built(tmp_path), config)
        assert config == self.config

    def test_values_are_reported_on_the_way(self, tmp_path: Path) -> None:
        """Steps ascend, and values are numbers."""
        evaluation, curve = _scored(self.built(tmp_path), self.config)
        steps = [step for step, _ in curve]
        assert len(steps) >= 2, "the learning curve has fewer than two points"
        assert steps == sorted(set(steps))
        last = self.built(tmp_path).last_step(self.config)
        assert last is None or max(steps[-1], evaluation.step or 0) <= last, "it went beyond its last_step"
        assert all(math.isfinite(value) for _, value in curve)
        assert math.isfinite(evaluation.value)
        assert all(math.isfinite(value) for value in evaluation.metrics.values())

    def test_it_stops_when_it_is_told(self, tmp_path: Path) -> None:
        """At the report that says so; the next trial scores as ever."""
        evaluator, report = self.built(tmp_path), _Curve(end_at=1)
        expected, _ = _scored(self.built(tmp_path), self.config)
        assert _raised(evaluator, self.config, report) is StopTrial, "StopTrial has to pass through evaluate"
        assert len(report.points) == 1, "it went on after it was told to stop"
        evaluation, _ = _scored(evaluator, self.config)
        assert evaluation.value == expected.value

    def test_what_is_infeasible_costs_nothing(self, tmp_path: Path) -> None:
        """It is told before the first report, and is no failure."""
        if self.infeasible is None:
            return
        report, checkpoint = _Curve(), KeptInMemory()
        assert _raised(self.built(tmp_path), self.infeasible, report, checkpoint) is Infeasible
        assert (report.points, checkpoint.writes) == ([], 0)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def test_a_trial_that_was_killed_comes_to_the_same_end(self, tmp_path: Path) -> None:
        """With all its values, those of the first process too."""
        whole, curve = _scored(self.built(tmp_path), self.config)
        checkpoint = KeptInMemory()
        assert _raised(self.built(tmp_path), self.config, _Curve(1, _Killed), checkpoint) is _Killed
        assert (checkpoint.data is not None) == self.goes_on
        before = checkpoint.writes
        again, resumed = _scored(self.built(tmp_path), self.config, checkpoint)
        assert (again.value, dict(again.metrics), resumed) == (whole.value, dict(whole.metrics), curve)
        if self.goes_on:
            anew = KeptInMemory()
            _scored(self.built(tmp_path), self.config, anew)
            assert checkpoint.writes - before < anew.writes, "it has trained all of it again"

    def test_a_checkpoint_that_does_not_fit_is_passed_over(self, tmp_path: Path) -> None:
        """It is damaged, or another configuration's."""
        whole, _ = _scored(self.built(tmp_path), self.config)
        foreign = KeptInMemory()
        _raised(self.built(tmp_path), self.other or self.config, _Curve(1, _Killed), foreign)
        kept = foreign.data or b""
        for data in (b"", b"no checkpoint", kept[: len(kept) // 2], kept[:-1] + b"\x07", kept):
            evaluation, _ = _scored(self.built(tmp_path), self.config, KeptInMemory(data))
            assert evaluation.value == whole.value

    # -- what is said of it ------------------------------------------------------------------------------------------

    def test_its_kind_is_listed_and_described(self, tmp_path: Path) -> None:
        """Others ask the class and the study file's entry, and never for a name."""
        spec = self.spec(tmp_path)
        assert isinstance(self.built(tmp_path), evaluator_class(spec.evaluator.kind))
        assert spec.evaluator.describe()
        assert spec.evaluator.step_name

    def test_its_defaults_lie_in_the_space(self, tmp_path: Path) -> None:
        """They are the first trial of a study that knows nothing, also in ranges that leave them out."""
        spec = self.spec(tmp_path)
        defaults = evaluator_class(spec.evaluator.kind).defaults
        assert spec.space.snap(defaults(spec)) == defaults(spec)
        upper = {
            step.name: step.model_dump(exclude={"name", "when"}) | {"low": (step.low + step.high) // 2 + 1}
            for step in spec.space.steps
            if isinstance(step, Int) and step.high > step.low + 2
        }
        narrow = SearchSpace.model_validate(spec.space.model_dump() | upper)
        elsewhere = defaults(spec.model_copy(update={"space": narrow}))
        assert narrow.snap(elsewhere) == elsewhere

    def test_wrong_hyperparameters_are_refused(self, tmp_path: Path) -> None:
        """By name, before anything is trained."""
        space = SearchSpace.model_validate({"no_such_thing": {"type": "float", "low": 0.0, "high": 1.0}})
        evaluator, message = self.built(tmp_path), ""
        try:
            evaluator.check_space(space)
        except UserError as error:
            message = str(error)
        assert self.any_space or "space.no_such_thing" in message

    def test_its_data_is_described(self, tmp_path: Path) -> None:
        """The same each time, as the class reads it without building an evaluator."""
        spec = self.spec(tmp_path)
        described = self.built(tmp_path).data()
        read = evaluator_class(spec.evaluator.kind).read(spec)
        assert (described is None) == (read is None) == (spec.evaluator.reads is None)
        if described is None or read is None:
            return
        assert described == self.built(tmp_path).data()
        assert 0 < len(described.digest) <= 36
        assert described.digest == read.digest
        assert set(described.rows) == {"train", "validation", "holdout"}
        assert sum(described.rows.values()) == len(read)
        assert list(described.columns)[-1] == read.target_name
        assert described.schema == read.schema
        again = evaluator_class(spec.evaluator.kind).read(spec, described.schema)
        assert again is not None
        assert (again.digest, again.schema, again.changes) == (described.digest, described.schema, ())

    # -- the model ---------------------------------------------------------------------------------------------------

    def test_the_served_model_scores_as_its_refit_said(self, tmp_path: Path) -> None:
        """On raw rows of the holdout, by MLflow, from safe files, and without rlhpo."""
        spec, evaluator = self.spec(tmp_path), self.built(tmp_path)
        refit = evaluator.refit(self.config)
        assert (refit is not None) == evaluator.has_model
        data = evaluator_class(spec.evaluator.kind).read(spec)
        if refit is None or data is None:
            return
        assert set(refit.metrics) == set(refit.constant)
        assert all(name.endswith(SAFE) for name in refit.files)
        for script in (refit.serving, *refit.modules):
            assert "rlhpo_core" not in _imported(script)
        assert spec.data is not None
        rows = split(data, spec.data, spec.seed).holdout
        answered = _served(refit, tmp_path / "model").predict(data.raw(rows))
        output: Floats = answered["prediction"].to_numpy()
        if data.classes:
            output = answered[[f"probability_{name}" for name in data.classes]].to_numpy(dtype=np.float64)
            output = output[:, 1] if len(data.classes) == 2 else output
            assert set(answered["prediction"]) <= set(data.classes)
        metric = spec.objective.metric
        served = score(metric, data.target[rows], output, len(data.classes), data.weights_of(rows))
        assert math.isclose(served, refit.metrics[metric], rel_tol=1e-4, abs_tol=1e-6)

    def test_the_same_winner_is_trained_again(self, tmp_path: Path) -> None:
        """A study that is interrupted at its end registers the model that it would have registered."""
        first, second = (self.built(tmp_path).refit(self.config) for _ in range(2))
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert dict(first.files) == dict(second.files)
            assert dict(first.metrics) == dict(second.metrics)


def _scored(
    evaluator: Evaluator, config: Config, checkpoint: Checkpoint = NO_CHECKPOINT
) -> tuple[Evaluation, list[tuple[int, float]]]:
    """The evaluation and the learning curve of a trial that is seeded as the pool does it."""
    report = _Curve()
    random.seed(_SEED)
    np.random.seed(_SEED)
    return evaluator.evaluate(config, report, checkpoint), report.points


def _raised(
    evaluator: Evaluator, config: Config, report: _Curve, checkpoint: Checkpoint = NO_CHECKPOINT
) -> type[BaseException] | None:
    """What ended the trial early, if anything did."""
    try:
        evaluator.evaluate(config, report, checkpoint)
    except (StopTrial, Infeasible, _Killed) as end:
        return type(end)
    return None


def _served(refit: Refit, path: Path) -> Model:
    """The model as MLflow loads it from where it was registered."""
    # Import MLflow, which other tests do without.
    import mlflow.pyfunc
    from mlflow import models

    from rlhpo_core.production.registration import save_model

    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, refit, models.Model())
    loaded: Model = mlflow.pyfunc.load_model(str(path))
    return loaded


def _imported(script: Path) -> set[str]:
    """Names of the packages that a script imports."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}

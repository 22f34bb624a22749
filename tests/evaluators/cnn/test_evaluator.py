from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.cnn import device
from rlhpo_core.evaluators.cnn.evaluator import CNNEvaluator
from rlhpo_core.evaluators.cnn.training import Training
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.evaluators.protocol import Infeasible
from rlhpo_core.study.spec import CLASSIFICATION_METRICS
from rlhpo_core.testing.evaluators import KeptInMemory
from tests.helpers.pictures import SMALL, as_folder, as_npz, build, study


def quiet(step: int, value: float) -> None:
    """A reporter that nobody listens to."""


@pytest.fixture(scope="module")
def corners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_npz(tmp_path_factory.mktemp("corners") / "corners.npz")


def test_it_learns_and_its_best_epoch_counts(corners: Path) -> None:
    curve: list[float] = []
    evaluation = build(corners, epochs=8).evaluate(SMALL, lambda step, value: curve.append(value))
    assert len(curve) == 8
    assert evaluation.value == max(curve) > 0.8
    assert evaluation.metrics["best_epoch"] == 1 + curve.index(max(curve))
    assert set(evaluation.metrics) == {*CLASSIFICATION_METRICS, "best_epoch"}
    losses: list[float] = []
    lowest = build(corners, "log_loss", epochs=8).evaluate(SMALL, lambda step, value: losses.append(value))
    assert lowest.value == min(losses)


def test_two_classes_and_colour(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "sides", channels=3, classes=["left", "right"])
    evaluator = build(folder, "auc", epochs=6)
    assert evaluator.evaluate(SMALL, quiet).value > 0.8
    refit = evaluator.refit(SMALL)
    assert list(refit.output_example) == ["prediction", "probability_left", "probability_right"]
    described = evaluator.data()
    assert described.columns == {"image": "image of 10 × 10, colour", "class": "category"}


def test_the_training_images_alone_say_what_is_usual(tmp_path: Path) -> None:
    """What validation and holdout images are like must not leak into training."""
    path = as_npz(tmp_path / "a.npz")
    evaluator = build(path)
    with np.load(path) as file:
        x, y = file["x"].copy(), file["y"]
    others = np.concatenate([evaluator.split.validation, evaluator.split.holdout])
    expected = evaluator._data(evaluator.split.train)
    x[others] = 255 - x[others]
    np.savez(path, x=x, y=y)
    changed = build(path)
    np.testing.assert_array_equal(changed.split.train, evaluator.split.train)
    found = changed._data(changed.split.train)
    assert torch.equal(expected.mean, found.mean)
    assert torch.equal(expected.scale, found.scale)
    train = torch.from_numpy(evaluator.split.train)
    standardised = expected.batch(train)
    assert standardised.mean().item() == pytest.approx(0, abs=1e-4)
    assert standardised.std().item() == pytest.approx(1, abs=1e-3)


def test_images_without_any_variation_are_no_division_by_zero(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.full((30, 8, 8), 7, dtype=np.uint8), y=np.arange(30) % 3)
    assert build(tmp_path / "a.npz", epochs=1).evaluate(SMALL, quiet).value == pytest.approx(1 / 3)


def test_a_training_that_diverges_fails_and_the_next_one_does_not(corners: Path) -> None:
    evaluator = build(corners)
    expected = evaluator.evaluate(SMALL, quiet).value
    with pytest.raises(ArithmeticError, match="smaller learning_rate"):
        evaluator.evaluate({**SMALL, "learning_rate": 10.0, "momentum": 0.99, "weight_decay": 1.0}, quiet)
    assert evaluator.evaluate(SMALL, quiet).value == expected


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you …"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=str,
)
def test_a_device_without_room_fails_the_trial_and_frees_it(
    error: RuntimeError, corners: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errors are PyTorch's own; there is no GPU to provoke them on."""
    evaluator = build(corners)

    def full(self: Training) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", full)
        with pytest.raises(MemoryError, match=r"no room for a network of [\d,]+ weights in batches of 16"):
            evaluator.evaluate(SMALL, quiet)
    assert evaluator.evaluate(SMALL, quiet).value > 0


def test_another_error_of_pytorch_is_told_as_it_is(corners: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Training) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Training, "run_epoch", wrong)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        build(corners).evaluate(SMALL, quiet)


def test_infeasible_is_told_from_shapes_alone(corners: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = build(corners, evaluator={"padding": "none"})
    monkeypatch.setattr(Training, "__init__", lambda *_: pytest.fail("a network was built"))
    with pytest.raises(Infeasible, match="pool1: a kernel of 5"):
        evaluator.evaluate({**SMALL, "conv1_stride": 5, "pool1_kernel": 5}, quiet)


def test_threads_are_bounded_inside_and_as_before_outside(corners: Path) -> None:
    before, seen = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()), []
    evaluator = build_evaluator(study(corners), threads=2)
    evaluator.evaluate(
        SMALL, lambda *_: seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
    )
    assert set(seen) == {(2, True)}
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_checkpoint_that_would_be_too_large_is_not_written(corners: Path) -> None:
    kept, none = KeptInMemory(), KeptInMemory()
    build(corners, epochs=3).evaluate(SMALL, quiet, kept)
    build(corners, epochs=3, evaluator={"checkpoint_mb": 0}).evaluate(SMALL, quiet, none)
    assert (kept.writes, none.writes) == (2, 0)
    assert kept.data is not None
    large = {**SMALL, "fc1_nodes": 4096, "fc2_nodes": 4096}
    few = KeptInMemory()
    build(corners, epochs=2, evaluator={"checkpoint_mb": 1}).evaluate(large, quiet, few)
    assert few.writes == 0


def test_wrong_settings_are_refused(corners: Path) -> None:
    with pytest.raises(UserError, match=r"evaluator\.params\.epocs: the network's evaluator does not know"):
        build(corners, evaluator={"params": {"epocs": 3}})
    with pytest.raises(UserError, match=r"objective\.metric: rmse does not fit classification"):
        build(corners, "rmse")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="PyTorch finds no GPU here"):
            build(corners, execution={"device": "cuda"})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_repeatably(corners: Path) -> None:
    curves: list[list[float]] = [[], []]
    for curve in curves:
        evaluator = build(corners, "log_loss", epochs=4, execution={"device": "cuda"})
        evaluator.evaluate(SMALL, lambda step, value, curve=curve: curve.append(value))
        assert isinstance(evaluator, CNNEvaluator)
        assert device.placed(torch.zeros(4), evaluator.device).is_cuda
    assert curves[0] == curves[1]

from __future__ import annotations

import pytest
import torch

from rlhpo_core import tensor_document
from rlhpo_core.evaluators.cnn.evaluator import CNNEvaluator
from rlhpo_core.evaluators.cnn.network import architecture
from rlhpo_core.evaluators.cnn.parameters import DEFAULTS
from rlhpo_core.evaluators.cnn.training import Training
from tests.helpers.pictures import SMALL, as_npz, build

CONFIG = {**DEFAULTS, **SMALL}


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> CNNEvaluator:
    return build(as_npz(tmp_path_factory.mktemp("corners") / "corners.npz"))


def training(evaluator: CNNEvaluator, optimizer: str, **config: float) -> Training:
    rows = evaluator.split.train
    layers = architecture(CONFIG, evaluator.images.shape, 3, "half")
    data = evaluator._data(rows)
    return Training(layers, {**CONFIG, **config}, data, torch.from_numpy(rows), optimizer, seed=1)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_that_goes_on_ends_with_the_same_weights_bit_for_bit(
    evaluator: CNNEvaluator, optimizer: str
) -> None:
    whole = training(evaluator, optimizer)
    for _ in range(4):
        whole.run_epoch()
    first = training(evaluator, optimizer)
    for _ in range(2):
        first.run_epoch()
    data = tensor_document.write("test", {"format_version": 1}, first.tensors())
    second = training(evaluator, optimizer)
    second.go_on(tensor_document.read("test", data)[1], first.epoch)
    for _ in range(2):
        second.run_epoch()
    expected, found = whole.tensors(), second.tensors()
    assert second.epoch == 4
    assert set(expected) == set(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not torch.equal(expected["network/0.weight"], first.tensors()["network/0.weight"])


def test_a_loss_that_is_no_number_ends_the_epoch(evaluator: CNNEvaluator) -> None:
    with pytest.raises(ArithmeticError, match=r"the loss came out as (nan|inf) in epoch 1; a smaller learning_rate"):
        training(evaluator, "sgd", learning_rate=1e9).run_epoch()


def test_another_networks_state_is_refused(evaluator: CNNEvaluator) -> None:
    other = training(evaluator, "sgd")
    other.run_epoch()
    tensors = {name: tensor[:1] if tensor.ndim else tensor for name, tensor in other.tensors().items()}
    with pytest.raises((RuntimeError, ValueError)):
        training(evaluator, "sgd").go_on(tensors, 1)

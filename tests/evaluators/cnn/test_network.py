from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.evaluators.cnn.network import architecture, build, weights
from rlhpo_core.evaluators.cnn.parameters import DEFAULTS, KNOWN, VOCABULARY
from rlhpo_core.evaluators.protocol import Infeasible
from rlhpo_core.space.search_space import builtin_space
from rlhpo_core.trial import Config

SPACE = builtin_space("cnn")


def configs(count: int, seed: int = 0) -> list[Config]:
    return SPACE.decode(np.random.default_rng(seed).uniform(-1, 1, (count, len(SPACE.steps))))


def test_the_space_is_the_papers() -> None:
    assert len(SPACE.steps) == 16
    assert {step.name for step in SPACE.steps} | {"momentum", "weight_decay"} == set(KNOWN) == set(DEFAULTS)
    VOCABULARY.check_space(SPACE, ())
    VOCABULARY.check_params(DEFAULTS)


def test_the_shapes_are_those_of_the_network() -> None:
    config = {**DEFAULTS, "conv1_kernel": 5, "conv1_stride": 2, "conv2_kernel": 4, "pool2_type": "average"}
    layers = architecture(config, (28, 20, 3), 7, "half")
    assert [layer["type"] for layer in layers] == [
        "convolution", "relu", "max_pooling", "convolution", "relu", "average_pooling",
        "flatten", "linear", "relu", "linear", "relu", "linear",
    ]  # fmt: skip
    network = build(layers, seed=0)
    assert network(torch.zeros(2, 3, 28, 20)).shape == (2, 7)
    assert weights(layers) == sum(tensor.numel() for tensor in network.parameters())


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    padding=st.sampled_from(["half", "none"]),
)
def test_a_configuration_is_infeasible_only_if_it_cannot_be_built(
    seed: int, shape: tuple[int, int, int], padding: str
) -> None:
    config = {
        **DEFAULTS,
        **configs(1, seed)[0],
        "conv1_channels": 2,
        "conv2_channels": 2,
        "fc1_nodes": 3,
        "fc2_nodes": 3,
    }
    try:
        layers = architecture(config, shape, 2, padding)
    except Infeasible:
        assert padding == "none"
        return
    height, width, channels = shape
    assert build(layers, seed=0)(torch.zeros(1, channels, height, width)).shape == (1, 2)


def test_with_padding_all_of_the_papers_space_is_possible_and_most_of_it_is_not_without() -> None:
    sample = [{**DEFAULTS, **config} for config in configs(300)]

    def possible(padding: str) -> int:
        count = 0
        for config in sample:
            try:
                architecture(config, (28, 28, 1), 10, padding)
            except Infeasible:
                continue
            count += 1
        return count

    assert possible("half") == 300
    assert 10 < possible("none") < 100


def test_weights_follow_from_the_seed_alone() -> None:
    layers = architecture(DEFAULTS, (12, 12, 1), 3, "half")
    torch.manual_seed(1)
    one, state = build(layers, seed=5).state_dict(), torch.get_rng_state()
    torch.manual_seed(2)
    other, different = build(layers, seed=5).state_dict(), build(layers, seed=6).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["0.weight"], different["0.weight"])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_kernel_that_is_too_large_is_named() -> None:
    config = {**DEFAULTS, "conv1_stride": 5, "pool1_kernel": 5}
    with pytest.raises(Infeasible, match=r"pool1: a kernel of 5 .* of an image of 12 × 12"):
        architecture(config, (12, 12, 1), 3, "none")

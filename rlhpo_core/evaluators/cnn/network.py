"""The paper's network: two convolutions, each with a pooling, and two fully connected layers before the output.

An architecture is a list of layers that JSON can hold. ``serving`` builds the same network from it, by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from rlhpo_core.evaluators.protocol import Infeasible
from rlhpo_core.trial import Scalar

#: One layer: its ``type``, and what it is made of.
Layer = dict[str, Any]


def architecture(
    config: Mapping[str, Scalar], shape: tuple[int, int, int], classes: int, padding: str
) -> tuple[Layer, ...]:
    """The layers of a configuration, found without building one.

    Args:
        config: All of ``parameters.KNOWN``.
        shape: (height, width, channels) of an image.
        classes: How many outputs there are.
        padding: ``half`` a kernel beyond the border, or ``none``.

    Raises: Infeasible if the image gets smaller than a kernel.
    """
    height, width, channels = shape
    layers: list[Layer] = []
    for place in ("conv1", "pool1", "conv2", "pool2"):
        kernel, stride = int(config[f"{place}_kernel"]), int(config[f"{place}_stride"])
        margin = kernel // 2 if padding == "half" else 0
        window = {"kernel": kernel, "stride": stride, "padding": margin}
        height, width = (_passed(length, kernel, stride, margin) for length in (height, width))
        if min(height, width) < 1:
            raise Infeasible(
                f"{place}: a kernel of {kernel} is larger than what reaches it of an image of {shape[1]} × {shape[0]}; "
                "smaller strides before it, or padding: half, leave more"
            )
        if place.startswith("conv"):
            wide = int(config[f"{place}_channels"])
            layers += [{"type": "convolution", "in": channels, "out": wide, **window}, {"type": "relu"}]
            channels = wide
        else:
            layers.append({"type": f"{config[f'{place}_type']}_pooling", **window})
    layers.append({"type": "flatten"})
    nodes = height * width * channels
    for place in ("fc1", "fc2"):
        wide = int(config[f"{place}_nodes"])
        layers += [{"type": "linear", "in": nodes, "out": wide}, {"type": "relu"}]
        nodes = wide
    return (*layers, {"type": "linear", "in": nodes, "out": classes})


def weights(layers: Sequence[Layer]) -> int:
    """How many numbers the network has to learn, without building it."""
    learning = (layer for layer in layers if "out" in layer)
    return sum(int(layer["out"]) * (int(layer["in"]) * int(layer.get("kernel", 1)) ** 2 + 1) for layer in learning)


def build(layers: Sequence[Layer], seed: int) -> nn.Sequential:
    """The network on the CPU, with weights drawn by seed and the global generator left as it is.

    He et al. 2015, section 2.2. At the paper's learning rates PyTorch's own, smaller weights learn less in few epochs.
    """
    with torch.device("meta"):
        network = nn.Sequential(*(_module(layer) for layer in layers))
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for place, module in enumerate(network):
        if isinstance(module, nn.Conv2d | nn.Linear):
            kind: Literal["relu", "linear"] = "relu" if place + 1 < len(network) else "linear"
            nn.init.kaiming_normal_(module.weight, nonlinearity=kind, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def _passed(length: int, kernel: int, stride: int, margin: int) -> int:
    """What a window makes of a length; 0 if it does not fit."""
    return (length + 2 * margin - kernel) // stride + 1 if length + 2 * margin >= kernel else 0


def _module(layer: Layer) -> nn.Module:
    kind = layer["type"]
    if kind == "linear":
        return nn.Linear(layer["in"], layer["out"])
    if kind in ("relu", "flatten"):
        return nn.ReLU() if kind == "relu" else nn.Flatten()
    kernel, stride, padding = (int(layer[name]) for name in ("kernel", "stride", "padding"))
    if kind == "convolution":
        return nn.Conv2d(layer["in"], layer["out"], kernel, stride, padding)
    if kind == "max_pooling":
        return nn.MaxPool2d(kernel, stride, padding)
    return nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)

"""One network under training: epochs by seed, and all that it takes to go on from an epoch in another process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhpo_core.arrays import Floats
from rlhpo_core.evaluators.cnn import device as devices
from rlhpo_core.evaluators.cnn.network import Layer, build
from rlhpo_core.trial import Scalar

#: Images that are scored at once; ``serving`` takes as many, since the last bits of an answer may depend on it.
_CHUNK = 256
_NETWORK, _OPTIMIZER, _GENERATOR = "network/", "optimizer/", "generator"


@dataclass(frozen=True)
class Data:
    """Images and classes as a network is trained on them."""

    images: Tensor
    """(N, height, width, channels), uint8 or float32; on the device if they fit there."""
    target: Tensor
    """(N,) indices of classes, on the device."""
    mean: Tensor
    """(channels,) of the training images, on the device."""
    scale: Tensor
    """(channels,) one over their standard deviation, on the device."""
    device: torch.device

    def batch(self, rows: Tensor) -> Tensor:
        """Some images (n, channels, height, width), standardised, on the device."""
        taken = self.images[rows.to(self.images.device)].to(self.device, non_blocking=True)
        # Images lie channels-last, which a GPU's convolutions like best; a CPU's like the other order.
        batch = ((taken.float() - self.mean) * self.scale).permute(0, 3, 1, 2)
        return batch if self.device.type == "cuda" else batch.contiguous()

    def on_cpu(self, images: Tensor) -> Data:
        """The same on the CPU, where all images are at hand."""
        return Data(images, self.target.cpu(), self.mean.cpu(), self.scale.cpu(), torch.device("cpu"))


class Training:
    """A network, its optimiser, and the generator that shuffles its batches, after some epochs.

    Args:
        layers: As ``network.architecture`` has them.
        config: All of ``parameters.KNOWN``.
        rows: (n,) of the data, which are trained on.
        optimizer: ``sgd`` or ``adam``.
        seed: Of the weights and of the order of the batches.
    """

    def __init__(
        self, layers: Sequence[Layer], config: Mapping[str, Scalar], data: Data, rows: Tensor, optimizer: str, seed: int
    ) -> None:
        self.epoch = 0
        self._data, self._rows = data, rows
        self._batch = int(config["batch_size"])
        self._layout = torch.channels_last if data.device.type == "cuda" else torch.contiguous_format
        network = build(layers, seed)
        self.network = network.to(device=data.device, memory_format=self._layout)  # type: ignore[call-overload]
        self._optimizer = _optimizer(self.network, config, optimizer)
        self._generator = torch.Generator().manual_seed(seed)

    def run_epoch(self) -> None:
        """Train once on all rows, in an order of its own.

        Raises: ArithmeticError if the loss is no number any more.
        """
        self.network.train()
        data, total = self._data, torch.zeros((), device=self._data.device)
        order = self._rows[torch.randperm(len(self._rows), generator=self._generator)]
        for batch in torch.split(order, self._batch):
            with devices.half_precision(data.device):
                output = self.network(data.batch(batch))
            loss = nn.functional.cross_entropy(output.float(), data.target[batch.to(data.device)])
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.detach()
            # To look at it after each batch would keep a GPU waiting.
            if data.device.type == "cpu" and not math.isfinite(float(total)):
                break
        if not math.isfinite(float(total)):
            raise ArithmeticError(
                f"the loss came out as {float(total)} in epoch {self.epoch + 1}; a smaller learning_rate may help"
            )
        self.epoch += 1

    def probabilities(self, rows: Tensor) -> Floats:
        """As ``probabilities`` has them, by the network as it is now."""
        return probabilities(self.network, self._data, rows)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, the optimiser's state, and the generator's, all that an epoch changes."""
        state = self._optimizer.state_dict()["state"]
        kept = {f"{_NETWORK}{name}": tensor for name, tensor in self.network.state_dict().items()}
        kept |= {f"{_OPTIMIZER}{i}/{name}": torch.as_tensor(v) for i, of in state.items() for name, v in of.items()}
        kept[_GENERATOR] = self._generator.get_state()
        return {name: tensor.cpu().contiguous() for name, tensor in kept.items()}

    def go_on(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Take over what ``tensors`` returned after an epoch.

        Raises: KeyError, ValueError or RuntimeError if it is not of such a network.
        """
        network = {name.removeprefix(_NETWORK): t for name, t in tensors.items() if name.startswith(_NETWORK)}
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith(_OPTIMIZER):
                _, index, entry = name.split("/")
                state.setdefault(int(index), {})[entry] = tensor
        self.network.load_state_dict(network)
        # Numbers that lie otherwise than the weights would be added by another routine, which may round otherwise.
        state = {i: {name: _laid(tensor, self._layout) for name, tensor in of.items()} for i, of in state.items()}
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self._generator.set_state(tensors[_GENERATOR])
        self.epoch = epoch


def _optimizer(network: nn.Module, config: Mapping[str, Scalar], name: str) -> torch.optim.Optimizer:
    rate, decay = float(config["learning_rate"]), float(config["weight_decay"])
    if name == "adam":
        return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=float(config["momentum"]), weight_decay=decay)


def probabilities(network: nn.Module, data: Data, rows: Tensor) -> Floats:
    """Of each class for some rows, (n, K), in 32 bits. Raises: ArithmeticError if they are no numbers."""
    network.eval()
    with torch.inference_mode():
        parts = [network(data.batch(chunk)).softmax(1) for chunk in torch.split(rows, _CHUNK)]
    found = torch.cat(parts).cpu().numpy().astype(np.float64)
    if not np.isfinite(found).all():
        raise ArithmeticError("the network answers with what is no number; a smaller learning_rate may help")
    return found


def _laid(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """The tensor laid out so, if it has the axes for it."""
    return tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor

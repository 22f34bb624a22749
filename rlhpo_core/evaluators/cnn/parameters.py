"""Which hyperparameters the network has, which values they take, and what those are that a study leaves out."""

from __future__ import annotations

from rlhpo_core.evaluators.known_parameters import Known, Vocabulary
from rlhpo_core.trial import Scalar

POOLINGS = ("max", "average")
_COUNT = Known(1, 4096, whole=True)
_NODES = Known(1, 65_536, whole=True)
_LAYER = {
    "conv{}_stride": Known(1, 64, whole=True),
    "conv{}_kernel": Known(1, 64, whole=True),
    "conv{}_channels": _COUNT,
    "pool{}_kernel": Known(1, 64, whole=True),
    "pool{}_stride": Known(1, 64, whole=True),
    "pool{}_type": Known(choices=POOLINGS),
}
#: The paper's sixteen, and two of the optimiser's that it leaves open.
KNOWN: dict[str, Known] = {
    "batch_size": _COUNT,
    "learning_rate": Known(1e-9, 10),
    **{name.format(layer): known for layer in (1, 2) for name, known in _LAYER.items()},
    "fc1_nodes": _NODES,
    "fc2_nodes": _NODES,
    "momentum": Known(0, 0.9999),
    "weight_decay": Known(0, 1),
}
#: The usual values, where neither the space nor ``evaluator.params`` has one.
DEFAULTS: dict[str, Scalar] = {
    "batch_size": 64,
    "learning_rate": 0.01,
    "conv1_stride": 1, "conv1_kernel": 3, "conv1_channels": 32,
    "pool1_kernel": 2, "pool1_stride": 2, "pool1_type": "max",
    "conv2_stride": 1, "conv2_kernel": 3, "conv2_channels": 64,
    "pool2_kernel": 2, "pool2_stride": 2, "pool2_type": "max",
    "fc1_nodes": 256,
    "fc2_nodes": 128,
    "momentum": 0.9,
    "weight_decay": 0.0,
}  # fmt: skip
VOCABULARY = Vocabulary("the network", KNOWN, defaults=DEFAULTS)

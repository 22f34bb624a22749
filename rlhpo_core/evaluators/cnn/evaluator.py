"""A convolutional network on images: score a configuration on validation images, or train the winner for serving."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from rlhpo_core import tensor_document
from rlhpo_core.arrays import Floats
from rlhpo_core.data import drift, holdout
from rlhpo_core.data.images.dataset import IMAGE, Images, load_images
from rlhpo_core.data.images.encoded import png
from rlhpo_core.data.labelled import Rows, split
from rlhpo_core.data.schema import SCHEMA, TableSchema
from rlhpo_core.evaluators.cnn import device as devices
from rlhpo_core.evaluators.cnn.network import Layer, architecture, weights
from rlhpo_core.evaluators.cnn.parameters import DEFAULTS, VOCABULARY
from rlhpo_core.evaluators.cnn.training import Data, Training, probabilities
from rlhpo_core.evaluators.metrics import check_metric, constant_scores, measure
from rlhpo_core.evaluators.protocol import (
    NO_CHECKPOINT,
    Checkpoint,
    DataDescription,
    Evaluation,
    Evaluator,
    Refit,
    Reporter,
)
from rlhpo_core.seeds import derive_seed
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.evaluator_specs import CNNSpec
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Config, Scalar, sign

#: What a checkpoint is called in its file, and the version of its content.
_KIND, _VERSION = "rlhpo-cnn-checkpoint", 1
#: Numbers that an optimiser keeps for each weight, at most, and the weight itself.
_KEPT_PER_WEIGHT = {"sgd": 2, "adam": 3}
_EXAMPLES = 5

T = TypeVar("T")


@dataclass
class _Course:
    """How a training has gone so far."""

    curve: list[float] = field(default_factory=list)
    """The objective after each epoch."""
    best: dict[str, float] = field(default_factory=dict)
    """All metrics of the best epoch, and ``best_epoch``, counted from 1."""


class CNNEvaluator(Evaluator):
    """Keeps the images between trials, nothing that changes a score."""

    has_model: ClassVar[bool] = True

    def __init__(self, spec: StudySpec, threads: int, schema: TableSchema | None = None) -> None:
        """Load and divide the images.

        Args:
            schema: By which they are read; ``None`` to infer it.

        Raises: UserError if the images or a setting cannot be used.
        """
        assert isinstance(spec.evaluator, CNNSpec)
        assert spec.data is not None
        self.settings = spec.evaluator
        self.metric, self.direction = spec.objective.metric, spec.objective.direction
        self.seed = derive_seed(spec.seed, 0, "network")
        self.threads = threads
        self.source = spec.data.path
        VOCABULARY.check_params(self.settings.params)
        self.device = devices.find(spec.execution.device)
        self.images = self.read(spec, schema)
        check_metric(self.metric, self.images)
        self.split = split(self.images, spec.data, spec.seed)
        self._placed: Tensor | None = None
        self._training: Data | None = None

    @staticmethod
    def read(spec: StudySpec, schema: TableSchema | None = None) -> Images:
        """The images. Raises: UserError if they cannot be used."""
        assert spec.data is not None
        return load_images(spec.data, spec.seed, schema)

    @staticmethod
    def defaults(spec: StudySpec) -> Config:
        """What is closest to the usual network's values."""
        return VOCABULARY.default_in(spec.space)

    def check_space(self, space: SearchSpace) -> None:
        """Raises: UserError, naming each hyperparameter that the network does not have or that leaves its range."""
        VOCABULARY.check_space(space, self.settings.params)

    @staticmethod
    def check_unread(spec: StudySpec) -> None:
        """As ``check_space`` does it, and ``evaluator.params``. Raises: UserError, naming each."""
        assert isinstance(spec.evaluator, CNNSpec)
        VOCABULARY.check_params(spec.evaluator.params)
        VOCABULARY.check_space(spec.space, spec.evaluator.params)

    def data(self) -> DataDescription:
        """The images and their parts."""
        height, width, channels = self.images.shape
        parts = {"train": self.split.train, "validation": self.split.validation, "holdout": self.split.holdout}
        return DataDescription(
            name=self.source.name.split(".")[0],
            source=self.source,
            digest=self.images.digest,
            rows={name: len(rows) for name, rows in parts.items()},
            columns={
                IMAGE: f"image of {width} × {height}, {'grey' if channels == 1 else 'colour'}",
                self.images.target_name: "category",
            },
            schema=self.images.schema,
        )

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        """Train for some epochs, each of which is scored on the validation images and reported; the best one counts.

        Raises: Infeasible if the image gets smaller than a kernel; ArithmeticError if the training diverges;
        MemoryError if the device is too small.
        """
        full = self._full(config)
        layers = self._layers(full)
        course = self._on_device(lambda: self._train(full, layers, report, checkpoint), layers, full)
        return Evaluation(course.best[self.metric], course.best)

    def refit(self, config: Config) -> Refit:
        """Train on train + validation, for as many epochs as served validation best, and score the holdout once."""
        # Imports MLflow, which trials do without.
        from rlhpo_core.evaluators.cnn.serving import answer

        full = self._full(config)
        layers = self._layers(full)
        rows = holdout.training_rows(self.split)

        def train() -> tuple[Training, Data]:
            epochs = int(self._train(full, layers, lambda *_: None, NO_CHECKPOINT).best["best_epoch"])
            data = self._data(rows)
            training = Training(layers, full, data, torch.from_numpy(rows), self.settings.optimizer, self.seed)
            for _ in range(epochs):
                training.run_epoch()
            return training, data

        training, data = self._on_device(train, layers, full)
        # On the CPU, where the model is served: a GPU rounds otherwise, and the score is to be the served model's.
        network = training.network.to(device="cpu", memory_format=torch.contiguous_format)
        here = data.on_cpu(torch.from_numpy(self.images.pixels))
        with devices.settled(here.device, self.threads):
            output = probabilities(network, here, torch.from_numpy(self.split.holdout))
            example = probabilities(network, here, torch.from_numpy(rows[:_EXAMPLES]))
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        packages = ("mlflow", "numpy", "pandas", "pillow", "torch")
        return Refit(
            files={
                "weights.safetensors": save(state),
                "architecture.json": json.dumps(self._signature(layers, here), indent=1).encode(),
                # Not for serving: by what a later retuning reads its images, and what it compares those with.
                SCHEMA: self.images.schema.model_dump_json().encode(),
                holdout.PROFILE: drift.profile(self.images).model_dump_json().encode(),
                holdout.SEEN: holdout.to_bytes(holdout.training_keys(self.images, self.split)),
            },
            serving=Path(__file__).with_name("serving.py"),
            # Without the label of a build (+cpu, +cu128), which the index of packages does not know.
            requirements=tuple(f"{name}=={metadata.version(name).split('+')[0]}" for name in packages),
            input_example=self._example(rows[:_EXAMPLES]),
            output_example=answer(example, self.images.classes),
            metrics=measure(self.images, self.split.holdout, self._scored(output)),
            constant=constant_scores(self.images, rows, self.split.holdout),
        )

    def last_step(self, config: Config) -> int:
        """The study's number of epochs."""
        return self.settings.epochs

    def _train(
        self, config: Mapping[str, Scalar], layers: Sequence[Layer], report: Reporter, checkpoint: Checkpoint
    ) -> _Course:
        """All epochs, or those that another process has left."""
        data = self._training = self._training or self._data(self.split.train)
        training = Training(
            layers, config, data, torch.from_numpy(self.split.train), self.settings.optimizer, self.seed
        )
        course = self._resumed(training, config, checkpoint)
        for step, value in enumerate(course.curve, start=1):
            report(step, value)
        validation = torch.from_numpy(self.split.validation)
        while training.epoch < self.settings.epochs:
            training.run_epoch()
            output = self._scored(training.probabilities(validation))
            measured = measure(self.images, self.split.validation, output)
            value = measured[self.metric]
            if not course.best or sign(self.direction) * (value - course.best[self.metric]) > 0:
                course.best = {**measured, "best_epoch": float(training.epoch)}
            course.curve.append(value)
            # Before the report, which may end the trial for now.
            if self._keeps(layers) and training.epoch < self.settings.epochs:
                checkpoint.write(self._kept(training, config, course))
            report(training.epoch, value)
        return course

    def _keeps(self, layers: Sequence[Layer]) -> bool:
        """Whether a checkpoint is small enough to be written after each epoch."""
        size = 4 * weights(layers) * _KEPT_PER_WEIGHT[self.settings.optimizer]
        return size <= self.settings.checkpoint_mb * 1e6

    def _kept(self, training: Training, config: Mapping[str, Scalar], course: _Course) -> bytes:
        document = {
            "format_version": _VERSION, "of": self._identity(config), "epoch": training.epoch,
            "curve": course.curve, "best": course.best,
        }  # fmt: skip
        return tensor_document.write(_KIND, document, training.tensors())

    def _resumed(self, training: Training, config: Mapping[str, Scalar], checkpoint: Checkpoint) -> _Course:
        """The course so far, with the training moved to where it ends; an empty one if there is nothing to go on from.

        What is damaged, or was written for other settings, is passed over: the trial begins anew.
        """
        if self.settings.checkpoint_mb == 0 or (data := checkpoint.read()) is None:
            return _Course()
        try:
            document, tensors = tensor_document.read(_KIND, data)
        except ValueError:
            return _Course()
        if document["format_version"] != _VERSION or document["of"] != self._identity(config):
            return _Course()
        training.go_on(tensors, int(document["epoch"]))
        return _Course(list(document["curve"]), dict(document["best"]))

    def _identity(self, config: Mapping[str, Scalar]) -> dict[str, Any]:
        """Of what a checkpoint is, as JSON has it: with another of these, the training would go on otherwise."""
        settings = self.settings.model_dump(mode="json", exclude={"checkpoint_mb"})
        content = {
            "config": dict(config), "settings": settings, "seed": self.seed, "metric": self.metric,
            "data": self.images.digest, "device": self.device.type, "torch": torch.__version__,
        }  # fmt: skip
        return dict(json.loads(json.dumps(content)))

    def _on_device(self, work: Callable[[], T], layers: Sequence[Layer], config: Mapping[str, Scalar]) -> T:
        """What ``work`` returns. Raises: MemoryError if the device has no room for it; afterwards it is free again."""
        try:
            with devices.settled(self.device, self.threads):
                return work()
        except RuntimeError as error:
            if not devices.out_of_memory(error):
                raise
        # Outside of the handler, whose traceback holds on to the tensors.
        self._placed = self._training = None
        torch.cuda.empty_cache()
        where = "the GPU" if self.device.type == "cuda" else "memory"
        raise MemoryError(
            f"{where} has no room for a network of {weights(layers):,} weights in batches of {config['batch_size']}"
        )

    def _full(self, config: Config) -> dict[str, Scalar]:
        return {**DEFAULTS, **self.settings.params, **cast(dict[str, Scalar], config)}

    def _layers(self, config: Mapping[str, Scalar]) -> tuple[Layer, ...]:
        return architecture(config, self.images.shape, len(self.images.classes), self.settings.padding)

    def _data(self, rows: Rows) -> Data:
        """All images, standardised by some of them."""
        if self._placed is None:
            self._placed = devices.placed(torch.from_numpy(self.images.pixels), self.device)
        mean, deviation = _moments(self.images, rows)
        return Data(
            images=self._placed,
            target=torch.from_numpy(self.images.target.astype(np.int64)).to(self.device),
            mean=torch.tensor(mean, dtype=torch.float32, device=self.device),
            scale=torch.tensor(1 / deviation, dtype=torch.float32, device=self.device),
            device=self.device,
        )

    def _scored(self, output: Floats) -> Floats:
        """Probabilities (n, K) as ``metrics`` takes them: those of the second class alone if there are two."""
        return output[:, 1] if output.shape[1] == 2 else output

    def _example(self, rows: Rows) -> pd.DataFrame:
        """Images as a caller may send them: as PNG if their values allow that, which is short, else as arrays."""
        if self.images.pixels.dtype != np.uint8:
            return self.images.raw(rows)
        return pd.DataFrame({IMAGE: [png(self.images.pixels[row].astype(np.uint8)) for row in rows]})

    def _signature(self, layers: Sequence[Layer], data: Data) -> dict[str, Any]:
        """What serving needs to build the network, and to turn images into what it was trained on."""
        return {
            "layers": list(layers),
            "shape": list(self.images.shape),
            "mean": data.mean.tolist(),
            "scale": data.scale.tolist(),
            "encoded": bool(self.images.pixels.dtype == np.uint8),
            "classes": list(self.images.classes),
        }


def _moments(images: Images, rows: Rows) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel, (C,), over some images; 1 for a channel that never varies."""
    total, squares, count = np.zeros(images.shape[2]), np.zeros(images.shape[2]), 0
    for start in range(0, len(rows), 512):
        chunk = images.pixels[rows[start : start + 512]].astype(np.float64)
        total += chunk.sum((0, 1, 2))
        squares += (chunk**2).sum((0, 1, 2))
        count += chunk.shape[0] * chunk.shape[1] * chunk.shape[2]
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return mean, np.where(deviation > 1e-8 * (1 + np.abs(mean)), deviation, 1.0)

"""The winner as an MLflow model (models from code): images in, prediction and probabilities out.

Logged with the model's files and run where it is served, so it imports nothing of rlhpo, and nothing that PyTorch and
MLflow do not bring along. Pillow is needed only for encoded images. It computes on the CPU.
"""

import base64
import binascii
import io
import json
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext
from torch import nn

_IMAGE = "image"
#: Images that go through the network at once; as many as in training, so that a score comes out the same to the bit.
_CHUNK = 256


class CNNImageModel(PythonModel):  # type: ignore[misc]
    """Standardises images as they were in training."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network (``architecture.json``) and read its weights (``weights.safetensors``)."""
        self.described: dict[str, Any] = json.loads(
            Path(context.artifacts["architecture.json"]).read_text(encoding="utf-8")
        )
        self.network = nn.Sequential(*(_module(layer) for layer in self.described["layers"])).eval()
        self.network.load_state_dict(_weights(Path(context.artifacts["weights.safetensors"])))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers to images.

        Args:
            context: Not used; ``load_context`` has read all files.
            model_input: A column ``image`` of N images, each an array (height, width) or (height, width, channels), the
                same as nested lists, or a PNG or JPEG as bytes or in base64. Other columns are passed over.
            params: Not used; MLflow passes it.

        Returns: As ``answer``, with the index of a frame that was given.

        Raises: MlflowException, naming the row, at what is no image of the size of those in training.
        """
        frame = pd.DataFrame(model_input)
        if int((frame.columns == _IMAGE).sum()) != 1:
            raise MlflowException.invalid_parameter_value(f"one column has to be called {_IMAGE!r}")
        parts = [
            self._probabilities(start, frame[_IMAGE].iloc[start : start + _CHUNK])
            for start in range(0, len(frame), _CHUNK)
        ]
        shares = np.concatenate(parts) if parts else np.empty((0, len(self.described["classes"])))
        return answer(shares, self.described["classes"]).set_axis(frame.index, axis=0)

    def _probabilities(self, start: int, cells: pd.Series) -> Any:
        described = self.described
        shape = tuple(described["shape"])
        batch = np.stack([pixels_of(start + i, cell, shape, described["encoded"]) for i, cell in enumerate(cells)])
        mean, scale = torch.tensor(described["mean"]), torch.tensor(described["scale"])
        with torch.inference_mode():
            standardised = (torch.from_numpy(batch).float() - mean) * scale
            output = self.network(standardised.permute(0, 3, 1, 2).contiguous()).softmax(1)
        return output.numpy().astype(np.float64)


def answer(output: Any, classes: Sequence[Any]) -> pd.DataFrame:
    """The prediction and the probability of each class.

    Args:
        output: (N, K) probabilities.

    Returns: N rows with ``prediction`` and, for each class, ``probability_CLASS``.
    """
    frame = pd.DataFrame({f"probability_{name}": output[:, i] for i, name in enumerate(classes)})
    frame.insert(0, "prediction", [classes[i] for i in output.argmax(1)])
    return frame


def pixels_of(row: int, cell: Any, shape: tuple[int, ...], encoded: bool) -> Any:
    """One image as (height, width, channels), float32.

    Args:
        row: Its position, counted from 0, for an error to name.
        cell: As ``CNNImageModel.predict`` takes it.
        shape: (height, width, channels) of the images in training.
        encoded: Whether these were values of 0 to 255, as encoded images are.

    Raises: MlflowException, naming the row, if it is no such image.
    """
    if isinstance(cell, str):
        try:
            cell = base64.b64decode(cell, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _refused(row, "is text that is no base64") from error
    if isinstance(cell, bytes | bytearray | memoryview):
        if not encoded:
            raise _refused(row, "is encoded, and the model was trained on arrays with fractions; send such arrays")
        return _decoded(row, bytes(cell), shape)
    try:
        pixels = np.asarray(cell if isinstance(cell, np.ndarray) else _nested(cell), dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise _refused(
            row, f"is neither an array of numbers nor an encoded image but a {type(cell).__name__}"
        ) from error
    if pixels.shape == shape[:2] and shape[2] == 1:
        pixels = pixels[..., None]
    if pixels.shape != shape:
        raise _refused(row, f"has the shape {pixels.shape}, and those in training had {shape}")
    if not np.isfinite(pixels).all():
        raise _refused(row, "holds values that are missing or infinite")
    return pixels


def _nested(cell: Any) -> Any:
    """Lists, or arrays of arrays, as one array can be made of them."""
    return [_nested(part) for part in cell] if isinstance(cell, list | tuple | np.ndarray) else float(cell)


def _decoded(row: int, data: bytes, shape: tuple[int, ...]) -> Any:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if sorted(image.size) != sorted(shape[:2]):
                    size = f"{image.size[0]} × {image.size[1]}"
                    raise _refused(row, f"has {size} pixels, and those in training had {shape[1]} × {shape[0]}")
                if shape[2] == 1 and image.mode not in ("1", "L", "LA"):
                    raise _refused(row, "has colour, and those in training were grey")
                upright = ImageOps.exif_transpose(image) if image.format == "JPEG" else image
                pixels = np.asarray(upright.convert("L" if shape[2] == 1 else "RGB"), dtype=np.float32)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise _refused(row, f"cannot be read as PNG or JPEG: {error}") from error
    pixels = pixels.reshape(*pixels.shape[:2], shape[2])
    if pixels.shape != shape:
        raise _refused(row, f"has the shape {pixels.shape}, and those in training had {shape}")
    return pixels


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file of 32-bit floats: a header in JSON after its length, then all bytes.

    Nothing in it can be run. Read by hand, which spares the library of that name.

    Raises: ValueError, or what JSON and PyTorch raise, if the file is damaged.
    """
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    described = json.loads(data[8:start])
    found = {}
    for name, tensor in described.items():
        if name == "__metadata__":
            continue
        if tensor["dtype"] != "F32":
            raise ValueError(f"{path.name}: {name} is of type {tensor['dtype']}; F32 is expected")
        first, last = (start + offset for offset in tensor["data_offsets"])
        # A copy may be written to, and is aligned.
        found[name] = torch.frombuffer(bytearray(data[first:last]), dtype=torch.float32).reshape(tensor["shape"])
    return found


def _module(layer: dict[str, Any]) -> nn.Module:
    """A layer of the network, as it was built for training."""
    if layer["type"] == "linear":
        return nn.Linear(layer["in"], layer["out"])
    if layer["type"] in ("relu", "flatten"):
        return nn.ReLU() if layer["type"] == "relu" else nn.Flatten()
    window = {"kernel_size": layer["kernel"], "stride": layer["stride"], "padding": layer["padding"]}
    if layer["type"] == "convolution":
        return nn.Conv2d(layer["in"], layer["out"], **window)
    if layer["type"] == "max_pooling":
        return nn.MaxPool2d(**window)
    return nn.AvgPool2d(**window, count_include_pad=False)


def _refused(row: int, reason: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(f"the image in row {row + 1} {reason}")


mlflow.models.set_model(CNNImageModel())

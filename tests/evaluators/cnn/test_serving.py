"""The winner as MLflow serves it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import PythonModelContext, load_model
from PIL import Image
from safetensors.torch import save

from rlhpo_core.data.images.encoded import decode, png
from rlhpo_core.evaluators.cnn import network as networks
from rlhpo_core.evaluators.cnn.parameters import DEFAULTS
from rlhpo_core.evaluators.cnn.serving import CNNImageModel, pixels_of
from rlhpo_core.evaluators.metrics import measure
from rlhpo_core.evaluators.protocol import Refit
from rlhpo_core.production.registration import save_model
from tests.helpers.only_packages import linked, run_with
from tests.helpers.pictures import SMALL, Pictures, as_npz, bomb, build, pictures


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Refit, Pictures]:
    """A saved model of coloured pictures, its refit, and new pictures."""
    folder = tmp_path_factory.mktemp("colour")
    refit = build(as_npz(folder / "corners.npz", channels=3), epochs=6).refit(SMALL)
    save_model(folder / "model", refit, Model())
    return folder / "model", refit, pictures(12, channels=3, seed=9)[0]


def forms(x: Pictures) -> dict[str, Any]:
    """Name to images in another form, as callers send them."""
    encoded = [png(image) for image in x]
    text = [base64.b64encode(data).decode() for data in encoded]
    return {
        "arrays": pd.DataFrame({"image": list(x)}),
        "fractions": pd.DataFrame({"image": list(x.astype(np.float64))}),
        "lists": pd.DataFrame({"image": [image.tolist() for image in x]}),
        "PNG": pd.DataFrame({"image": encoded}),
        "base64": pd.DataFrame({"image": text}),
        "mixed": pd.DataFrame({"image": [*encoded[:6], *list(x[6:])]}),
        "records": [{"image": data} for data in text],
        "a dict of lists": {"image": encoded},
        "more columns, another index": pd.DataFrame({"who": "me", "image": list(x)}, index=np.arange(12) * 3),
    }


def test_all_forms_are_answered_alike(colour: tuple[Path, Refit, Pictures]) -> None:
    path, _, x = colour
    model = load_model(str(path))
    answers = {name: model.predict(form) for name, form in forms(x).items()}
    expected = answers["arrays"]
    assert list(expected) == ["prediction", "probability_below", "probability_left", "probability_right"]
    assert (expected["prediction"] == pictures(12, channels=3, seed=9)[1]).mean() > 0.7
    for name, answer in answers.items():
        pd.testing.assert_frame_equal(answer.reset_index(drop=True), expected, obj=name)
    assert list(answers["more columns, another index"].index) == list(np.arange(12) * 3)
    assert model.predict(pd.DataFrame({"image": []})).empty


def test_a_jpeg_is_decoded_as_in_training(colour: tuple[Path, Refit, Pictures]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(colour[2][0]).save(buffer, "JPEG", quality=95)
    np.testing.assert_array_equal(
        pixels_of(0, buffer.getvalue(), (10, 10, 3), True), decode(buffer.getvalue(), "a", 3).astype(np.float32)
    )


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        (
            np.zeros((10, 9, 3)),
            r"the image in row 2 has the shape \(10, 9, 3\), and those in training had \(10, 10, 3\)",
        ),
        (np.full((10, 10, 3), np.nan), "row 2 holds values that are missing or infinite"),
        ("no base64!", "row 2 is text that is no base64"),
        (b"no image", "row 2 cannot be read as PNG or JPEG"),
        (bomb(30_000, 30_000), "row 2 cannot be read as PNG or JPEG"),
        (bomb(3000, 3000), "row 2 has 3000 × 3000 pixels, and those in training had 10 × 10"),
        (None, "row 2 is neither an array of numbers nor an encoded image but a NoneType"),
        ([["a"]], "row 2 is neither an array of numbers nor"),
    ],
)
def test_what_is_no_such_image_is_refused(cell: Any, match: str, colour: tuple[Path, Refit, Pictures]) -> None:
    rows = pd.DataFrame({"image": pd.Series([colour[2][0], cell], dtype=object)})
    with pytest.raises(MlflowException, match=match):
        load_model(str(colour[0])).predict(rows)


def test_grey_is_not_made_of_colour(tmp_path: Path) -> None:
    """Which of several ways would be a guess."""
    with pytest.raises(MlflowException, match="row 1 has colour, and those in training were grey"):
        pixels_of(0, png(pictures(1, channels=3)[0][0]), (10, 10, 1), True)
    np.testing.assert_array_equal(
        pixels_of(0, png(pictures(1)[0][0]), (10, 10, 3), True), np.repeat(pictures(1)[0][0], 3, axis=2)
    )


def test_arrays_with_fractions_are_served_as_they_were_trained(tmp_path: Path) -> None:
    x, y = pictures()
    np.savez(tmp_path / "a.npz", x=x[..., 0] / 255, y=y)
    evaluator = build(tmp_path / "a.npz", epochs=4)
    refit = evaluator.refit(SMALL)
    assert evaluator.images.pixels.dtype == np.float32
    serve = served(tmp_path, refit)
    pd.testing.assert_frame_equal(serve(refit.input_example), refit.output_example, rtol=1e-5)
    with pytest.raises(MlflowException, match="is encoded, and the model was trained on arrays with fractions"):
        serve(pd.DataFrame({"image": [png(x[0])]}))


def served(folder: Path, refit: Refit) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The winner behind the script that MLflow would run."""
    for name, content in refit.files.items():
        (folder / name).write_bytes(content)
    context = PythonModelContext({name: str(folder / name) for name in refit.files}, None)
    model = CNNImageModel()
    model.load_context(context)
    return lambda rows: model.predict(context, rows)


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_the_script_builds_the_network_of_training(pooling: str, tmp_path: Path) -> None:
    """Of any architecture; it does so by itself, since it imports nothing of rlhpo."""
    config = {**DEFAULTS, "conv1_kernel": 4, "conv1_stride": 2, "pool1_type": pooling, "pool2_kernel": 5}
    layers = networks.architecture(config, (15, 11, 3), 4, "half")
    network = networks.build(layers, seed=3)
    described = {
        "layers": list(layers), "shape": [15, 11, 3], "mean": [1.0, 2.0, 3.0], "scale": [0.5, 0.1, 0.2],
        "encoded": False, "classes": list("abcd"),
    }  # fmt: skip
    (tmp_path / "architecture.json").write_text(json.dumps(described))
    (tmp_path / "weights.safetensors").write_bytes(save(network.state_dict()))
    names = ("architecture.json", "weights.safetensors")
    context = PythonModelContext({name: str(tmp_path / name) for name in names}, None)
    model = CNNImageModel()
    model.load_context(context)
    images = np.random.default_rng(0).normal(size=(3, 15, 11, 3)).astype(np.float32)
    batch = (torch.from_numpy(images) - torch.tensor([1.0, 2.0, 3.0])) * torch.tensor([0.5, 0.1, 0.2])
    expected = network(batch.permute(0, 3, 1, 2)).softmax(1).detach().numpy()
    answered = model.predict(context, pd.DataFrame({"image": list(images)}))
    np.testing.assert_allclose(answered[[f"probability_{name}" for name in "abcd"]], expected, rtol=1e-4)


def test_nothing_in_the_files_can_be_run(colour: tuple[Path, Refit, Pictures]) -> None:
    _, refit, _ = colour
    assert {Path(name).suffix for name in refit.files} == {".json", ".npy", ".safetensors"}
    assert {requirement.split("==")[0] for requirement in refit.requirements} == {
        "mlflow", "numpy", "pandas", "pillow", "torch",
    }  # fmt: skip
    assert not any("+" in requirement for requirement in refit.requirements)


def test_a_damaged_file_of_weights_is_refused(colour: tuple[Path, Refit, Pictures], tmp_path: Path) -> None:
    _, refit, _ = colour
    whole = refit.files["weights.safetensors"]
    for wrong in (whole[:-4], whole[:40], whole.replace(b'"F32"', b'"F16"'), b""):
        changed = dataclasses.replace(refit, files={**refit.files, "weights.safetensors": wrong})
        with pytest.raises((ValueError, RuntimeError)):
            served(tmp_path, changed)


ALONE = """
import sys, mlflow.pyfunc, numpy, pandas
model = mlflow.pyfunc.load_model("model")
for name in ("arrays", "encoded"):
    rows = pandas.DataFrame({"image": list(numpy.load(name + ".npy", allow_pickle=True))})
    answer = model.predict(rows)
    numpy.save("answer-" + name, answer.drop(columns="prediction").to_numpy())
names = ("rlhpo_core", "safetensors", "xgboost", "psutil")
print(" ".join(name for name in names if __import__("importlib").util.find_spec(name)) or "no more")
"""


def test_the_holdout_is_scored_as_registered_where_there_are_only_torch_and_mlflow(tmp_path: Path) -> None:
    """Given as arrays and as PNG: exactly the registered score, to the last bit."""
    evaluator = build(as_npz(tmp_path / "corners.npz", count=1500, channels=3), epochs=2, data={"holdout": 0.4})
    refit = evaluator.refit(SMALL)
    save_model(tmp_path / "model", refit, Model())
    rows = evaluator.split.holdout
    assert len(rows) == 600
    images = evaluator.images.pixels[rows].astype(np.uint8)
    np.save(tmp_path / "arrays.npy", images)
    np.save(tmp_path / "encoded.npy", np.array([png(image) for image in images], dtype=object))
    site = linked(tmp_path / "site", "torch", "mlflow")
    ended = run_with(site, ALONE, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "no more"
    for form in ("arrays", "encoded"):
        answered = np.load(tmp_path / f"answer-{form}.npy")
        assert measure(evaluator.images, rows, answered) == refit.metrics


def test_arrays_are_served_where_there_is_no_pillow_either(colour: tuple[Path, Refit, Pictures]) -> None:
    path, _, x = colour
    np.save(path.parent / "rows.npy", x)
    script = """
import sys
sys.modules["PIL"] = None
import mlflow.pyfunc, numpy, pandas
rows = pandas.DataFrame({"image": list(numpy.load("rows.npy"))})
print(",".join(mlflow.pyfunc.load_model("model").predict(rows)["prediction"]))
"""
    ended = run_with(linked(path.parent / "site", "torch", "mlflow"), script, cwd=path.parent)
    assert ended.returncode == 0, ended.stderr[-2000:]
    expected = load_model(str(path)).predict(pd.DataFrame({"image": list(x)}))["prediction"]
    assert ended.stdout.splitlines()[-1] == ",".join(expected)

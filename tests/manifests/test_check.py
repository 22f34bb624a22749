"""The program that ``manifests/base/check.yaml`` runs in a cluster, run here, and its pod compared with a trial's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import check, pod_settings
from tests.helpers.mlflow_store import new_store
from tests.manifests.rendering import MANIFESTS

GOLDEN = MANIFESTS.parent / "pipelines" / "hpo_loop" / "hpo_loop.yaml"


def job() -> dict[str, Any]:
    (document,) = yaml.safe_load_all((MANIFESTS / "base" / "check.yaml").read_text())
    spec: dict[str, Any] = document["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mounted config map of a pod that has nothing in its environment."""
    for name in ("RLHPO_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pod_settings, "MOUNT", tmp_path / "rlhpo")
    folder = tmp_path / "rlhpo" / "config"
    folder.mkdir(parents=True)
    (folder / "RLHPO_STORE").write_text(str(tmp_path / "store"))
    (folder / "MLFLOW_TRACKING_URI").write_text(new_store(tmp_path))
    return folder


def test_its_pod_has_what_a_trials_pod_has() -> None:
    pipeline, platform = yaml.safe_load_all(GOLDEN.read_text())
    default = {
        name: one.get("defaultValue") for name, one in pipeline["root"]["inputDefinitions"]["parameters"].items()
    }
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    trial, *_ = [one for one in executors if one["podMetadata"]["labels"]["rlhpo/step"] == "train"]
    wanted = {}
    for kind, field in (("configMapAsVolume", "configMapNameParameter"), ("secretAsVolume", "secretNameParameter")):
        for one in trial[kind]:
            parameter = one[field]["componentInputParameter"].split("--")[-1]
            wanted[one["mountPath"]] = (kind[:6], default[parameter], one["optional"])
    volumes = {one["name"]: one for one in job()["volumes"]}
    found = {}
    (container,) = job()["containers"]
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            found[mount["mountPath"]] = ("config", volume["configMap"]["name"], volume["configMap"]["optional"])
        elif "secret" in volume:
            found[mount["mountPath"]] = ("secret", volume["secret"]["secretName"], volume["secret"]["optional"])
    assert found == wanted
    assert not {"env", "envFrom"} & container.keys()
    assert container["command"] == ["python3", "-m", "rlhpo_core.kubeflow.check"]


def test_it_says_what_it_has_found(config: Path, tmp_path: Path) -> None:
    found = check.check("")
    assert found[0] == "settings: MLFLOW_TRACKING_URI, RLHPO_STORE"
    assert f"store: {tmp_path / 'store'} can be written" in found
    assert any(line.startswith("MLflow: sqlite:") for line in found)


def test_it_fails_with_words_where_one_cannot_be_used(config: Path, tmp_path: Path) -> None:
    (config / "MLFLOW_TRACKING_URI").write_text("http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 .* cannot be reached"):
        check.check("")
    (config / "MLFLOW_TRACKING_URI").unlink()
    with pytest.raises(UserError, match="Set MLFLOW_TRACKING_URI in the config map"):
        check.check("")
    (tmp_path / "file").write_text("")
    (config / "RLHPO_STORE").write_text(str(tmp_path / "file" / "store"))
    with pytest.raises(UserError, match="cannot write"):
        check.check("")
    (config / "RLHPO_STORE").unlink()
    with pytest.raises(UserError, match="Set RLHPO_STORE"):
        check.check("")


def test_as_a_program_it_ends_with_the_reason(config: Path) -> None:
    """Without mounts, as here, it has no settings."""
    command = [sys.executable, "-m", "rlhpo_core.kubeflow.check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "where do studies live? Set RLHPO_STORE in the config map, or name the store\n"

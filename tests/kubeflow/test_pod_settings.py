"""Settings of a pod, from files as the kubelet lays them out."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhpo_core.kubeflow import pod_settings


def mount(root: Path, folder: str, **keys: str) -> None:
    """A config map or a secret, as the kubelet writes it: links to a folder of the moment, replaced in one step."""
    place, moment = root / folder, f"..{time.monotonic_ns()}"
    (place / moment).mkdir(parents=True)
    for name, text in keys.items():
        (place / moment / name.replace("__", ".")).write_text(text)
    link = place / "..new"
    link.symlink_to(moment)
    link.replace(place / "..data")
    for path in place.iterdir():
        if path.is_symlink() and path.name != "..data":
            path.unlink()
    for name in keys:
        (place / name.replace("__", ".")).symlink_to(f"..data/{name.replace('__', '.')}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    mount(tmp_path / "rlhpo", "config", MLFLOW_TRACKING_URI="http://mlflow:5000\n", HTTPS_PROXY="http://proxy:3128")
    mount(tmp_path / "rlhpo", "store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_SESSION_TOKEN="t1")
    mount(tmp_path / "rlhpo", "mlflow", MLFLOW_TRACKING_TOKEN="bearer")
    (tmp_path / "rlhpo" / "alerts").mkdir()
    return tmp_path / "rlhpo"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_known_keys_are_read_and_no_others(root: Path) -> None:
    others = {"PATH": "/evil", "LD_PRELOAD": "x", "notes": "y"}
    mount(root, "config", MLFLOW_WORKSPACE="team", RLHPO_ALLOWED_MODULES="ours", **others)
    assert pod_settings.read(root) == {
        "MLFLOW_WORKSPACE": "team",
        "RLHPO_ALLOWED_MODULES": "ours",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "t1",
        "MLFLOW_TRACKING_TOKEN": "bearer",
    }


def test_the_account_of_the_registry_is_taken_if_there_is_one(root: Path) -> None:
    """Whole: a login of the one and a token of the other would be no account."""
    (root / "registry").mkdir()
    assert pod_settings.read(root)["MLFLOW_TRACKING_TOKEN"] == "bearer", "a secret that is not there is an empty folder"
    mount(root, "registry", MLFLOW_TRACKING_USERNAME="registrar", MLFLOW_TRACKING_PASSWORD="p")
    found = pod_settings.read(root)
    assert "MLFLOW_TRACKING_TOKEN" not in found
    assert (found["MLFLOW_TRACKING_USERNAME"], found["AWS_ACCESS_KEY_ID"]) == ("registrar", "key")
    mount(root, "registry")
    assert pod_settings.read(root)["MLFLOW_TRACKING_TOKEN"] == "bearer"


def test_they_are_there_inside_and_gone_afterwards(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-node")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    before = dict(os.environ)
    with pod_settings.mounted(root):
        assert os.environ["AWS_ACCESS_KEY_ID"] == "key"
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "bearer"
    assert dict(os.environ) == before


def test_without_mounts_nothing_changes(tmp_path: Path) -> None:
    before = dict(os.environ)
    with pod_settings.mounted(tmp_path / "none"):
        assert dict(os.environ) == before


def test_what_kfps_mlflow_plugin_says_is_left_out_where_another_mlflow_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = {
        "MLFLOW_TRACKING_URI": "http://theirs", "MLFLOW_RUN_ID": "theirs", "MLFLOW_EXPERIMENT_ID": "7",
        "MLFLOW_WORKSPACE": "theirs", "MLFLOW_TRACKING_AUTH": "kubernetes",
    }  # fmt: skip
    for name, value in plugin.items():
        monkeypatch.setenv(name, value)
    with pod_settings.mounted(root):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert not {*plugin, "MLFLOW_TRACKING_URI"} - {"MLFLOW_TRACKING_URI"} & os.environ.keys()
    assert os.environ["MLFLOW_RUN_ID"] == "theirs"
    shutil.rmtree(root / "config")
    with pod_settings.mounted(root):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://theirs", "none of ours: then theirs"


def test_what_changes_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pod_settings, "_LOOK", 0.01)
    for name in ("AWS_SESSION_TOKEN", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pod_settings.mounted(root):
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        mount(root, "store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_SESSION_TOKEN="t2")
        wait_for(lambda: os.environ.get("AWS_SESSION_TOKEN") == "t2")
        mount(root, "mlflow")
        wait_for(lambda: "MLFLOW_TRACKING_TOKEN" not in os.environ)
        assert os.environ["OMP_NUM_THREADS"] == "3", "what the step has set itself stays"
    said = capsys.readouterr().out
    assert "were read again" in said
    assert "t2" not in said


def test_authorities_are_trusted_besides_the_public_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    mount(root, "config", ca__crt="-----BEGIN CERTIFICATE-----\nours\n", SSL_CERT_FILE="/etc/own.pem")
    with pod_settings.mounted(root):
        bundle = Path(os.environ["REQUESTS_CA_BUNDLE"])
        assert bundle == Path(os.environ["AWS_CA_BUNDLE"])
        assert os.environ["SSL_CERT_FILE"] == "/etc/own.pem", "what is said goes first"
        text = bundle.read_text()
        assert "ours" in text
        assert Path(certifi.where()).read_text() in text
    assert not bundle.exists()


def test_a_setting_that_is_no_text_is_named_and_not_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "store" / "AWS_PROFILE").write_bytes(b"\xff\xfesecret")
    assert "AWS_PROFILE" not in pod_settings.read(root)
    said = capsys.readouterr().out
    assert "AWS_PROFILE cannot be read: UnicodeDecodeError" in said
    assert "secret" not in said.replace("AWS_SECRET", "")

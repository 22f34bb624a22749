"""Priors by their address: built in, in a file, in an object store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.priors.store import builtin_names, find_prior, load_prior, save_prior, taken
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import dump_study, load_study
from rlhpo_core.tracking.connection import Connection
from rlhpo_core.tuner.prior import Prior
from tests.helpers.finished_studies import quick_prior, study
from tests.helpers.servers import shared_s3_server

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture(scope="module")
def prior() -> Prior:
    return quick_prior("first", 0.2, 0.3)


def nowhere() -> Connection:
    raise AssertionError("MLflow is not asked")


def test_a_prior_in_a_file(prior: Prior, tmp_path: Path) -> None:
    address = str(tmp_path / "team" / "p.safetensors")
    assert not taken(address)
    assert save_prior(prior, address)
    assert taken(address)
    assert not save_prior(quick_prior("second", 0.4, 0.5), address), "what is there is kept"
    assert find_prior(address, nowhere).to_bytes() == prior.to_bytes()
    Path(address).write_bytes(b"{")
    assert save_prior(prior, address, overwrite=True)
    assert find_prior(address, nowhere).to_bytes() == prior.to_bytes()
    Path(address).write_bytes(b"{")
    with pytest.raises(UserError, match=rf"{re.escape(address)}: this is not an rlhpo prior"):
        load_prior(address)
    with pytest.raises(UserError, match=r"cannot read the prior .*missing.*; `rlhpo prior list` names those"):
        load_prior(str(tmp_path / "missing.safetensors"))


@pytest.mark.parametrize("name", builtin_names())
def test_a_prior_that_comes_with_rlhpo_is_found_by_its_name(name: str) -> None:
    assert find_prior(name, nowhere).card.name == name


def test_a_prior_in_an_object_store(prior: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = shared_s3_server()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    address = f"s3://{server.bucket}/priors/team.safetensors"
    assert not taken(address)
    assert save_prior(prior, address)
    assert taken(address)
    assert not save_prior(quick_prior("second", 0.4, 0.5), address), "what is there is kept"
    spec = study("stored", prior=address, tuner={})
    (tmp_path / "stored.yaml").write_text(dump_study(spec))
    assert load_study(tmp_path / "stored.yaml").prior == address, "an address is not relative to the study file"
    folder = StudyFolder.create(tmp_path / "stored", spec, StudyRecord.new(spec))
    assert (found := begin_study(folder, spec).prior) is not None
    assert found.card == prior.card

    with pytest.raises(UserError, match=r"there is no prior at s3://.*/absent\.safetensors"):
        find_prior(address.replace("team", "absent"), nowhere)
    open_store(f"s3://{server.bucket}/priors").write("broken.safetensors", b"{")
    with pytest.raises(UserError, match=r"s3://.*/broken\.safetensors: this is not an rlhpo prior"):
        find_prior(address.replace("team", "broken"), nowhere)

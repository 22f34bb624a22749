"""Priors in MLflow's registry, and studies that start from them there."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from rlhpo_core.cli.main import app
from rlhpo_core.errors import UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.kubeflow.steps import tuning
from rlhpo_core.priors.registry import register_prior
from rlhpo_core.priors.store import from_registry, save_prior
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.tracking.connection import Connection
from rlhpo_core.tuner import state_file
from rlhpo_core.tuner.prior import Prior
from tests.helpers.finished_studies import quick_prior, study
from tests.helpers.mlflow_store import new_store
from tests.helpers.servers import shared_server

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture(scope="module")
def priors() -> tuple[Prior, Prior]:
    return quick_prior("first", 0.2, 0.3), quick_prior("second", 0.7, 0.8)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    """A local MLflow store, as beside studies."""
    place = tmp_path_factory.mktemp("mlflow")
    return Connection(new_store(place), "the test")


@pytest.fixture(params=["database", "server"])
def connection(request: pytest.FixtureRequest) -> Connection:
    if request.param == "server":
        return Connection(shared_server().url, "the test")
    found: Connection = request.getfixturevalue("database")
    return found


def client(connection: Connection) -> MlflowClient:
    return MlflowClient(tracking_uri=connection.uri)


def test_versions_come_back_as_they_were(priors: tuple[Prior, Prior], connection: Connection) -> None:
    first, second = priors
    one = register_prior(first, "team prior", connection)
    two = register_prior(second, "team prior", connection)
    assert (one.address, one.aliases) == ("models:/team prior/1", ("challenger", "champion"))
    assert (two.address, two.aliases) == ("models:/team prior/2", ("challenger",))
    for address, prior in (("@champion", first), ("/1", first), ("@challenger", second), ("/2", second)):
        found = from_registry(f"models:/team prior{address}", connection)
        assert found.card.registered == f"models:/team prior/{1 if prior is first else 2}"
        plain = found.card.model_copy(update={"registered": ""})
        assert plain == prior.card
        assert found.tensors.keys() == prior.tensors.keys()
        assert all(found.tensors[name].equal(tensor) for name, tensor in prior.tensors.items())
    again = register_prior(from_registry("models:/team prior/1", connection), "team prior", connection)
    assert (again.version, again.aliases) == ("1", ("champion",)), "what is there is not registered again"
    assert register_prior(second, "team prior", connection, ["champion"]).aliases == ("challenger", "champion")
    assert from_registry("models:/team prior@champion", connection).card.name == "second"


def test_mlflow_shows_where_a_version_comes_from(priors: tuple[Prior, Prior], database: Connection) -> None:
    register_prior(priors[0], "shown", database)
    version = client(database).get_model_version("shown", "1")
    assert version.description.startswith("# Prior first")
    assert version.tags["rlhpo.objective"] == "height"
    assert version.tags["rlhpo.studies"] == "2"
    run = client(database).get_run(version.run_id)
    assert run.data.params["steps"] == "300"
    assert run.info.status == "FINISHED"
    files = {file.path for file in client(database).list_artifacts(version.run_id, "prior")}
    assert files == {"prior/MLmodel", "prior/card.md", "prior/prior.safetensors"}, "nothing that could be executed"


def test_what_is_no_registered_prior_is_refused(priors: tuple[Prior, Prior], connection: Connection) -> None:
    register_prior(priors[0], "known", connection)
    for address, message in [
        ("models:/absent@champion", "there is no models:/absent@champion in MLflow at .*--register absent"),
        ("models:/known@absent", "there is no models:/known@absent"),
        ("models:/known/7", "there is no models:/known/7"),
        ("models:/known", "is no version in a registry; write models:/NAME@ALIAS"),
        ("models:known@champion", "is no version in a registry"),
    ]:
        with pytest.raises(UserError, match=message):
            from_registry(address, connection)
    with pytest.raises(UserError, match="a name has no"):
        register_prior(priors[0], "a/b", connection)
    if "plain" not in [model.name for model in client(connection).search_registered_models()]:
        version = client(connection).get_model_version("known", "1")
        client(connection).create_registered_model("plain")
        client(connection).create_model_version("plain", version.source, version.run_id)
    with pytest.raises(UserError, match="models:/plain/1 is a model and not a prior"):
        from_registry("models:/plain/1", connection)


def test_another_file_than_the_one_registered_is_refused(priors: tuple[Prior, Prior], database: Connection) -> None:
    register_prior(priors[0], "swapped", database)
    version = client(database).get_model_version("swapped", "1")
    file = Path(client(database).get_run(version.run_id).info.artifact_uri.removeprefix("file://"))
    (file / "prior" / "prior.safetensors").write_bytes(priors[1].to_bytes())
    with pytest.raises(UserError, match="is not the one that was registered"):
        from_registry("models:/swapped/1", database)


def test_a_study_keeps_the_prior_that_an_alias_meant_when_it_began(
    priors: tuple[Prior, Prior], database: Connection, tmp_path: Path
) -> None:
    register_prior(priors[0], "moving", database)
    spec = study("study", prior="models:/moving@champion", tracking={"uri": database.uri}, tuner={})
    folder = StudyFolder.create(tmp_path / "study", spec, StudyRecord.new(spec))
    begin_study(folder, spec)
    register_prior(priors[1], "moving", database, ["champion"])
    found = folder.state().prior
    assert found is not None
    assert (found.card.name, found.card.registered) == ("first", "models:/moving/1")
    later = StudyFolder.create(tmp_path / "later", spec, StudyRecord.new(spec))
    assert (kept := begin_study(later, spec).prior) is not None
    assert kept.card.name == "second"


def test_every_step_of_a_pipeline_has_the_same_prior(
    priors: tuple[Prior, Prior], database: Connection, tmp_path: Path
) -> None:
    register_prior(priors[0], "steps", database)
    fields = {"budget": {"trials": 6}, "tuner": {"trials_per_round": 3}, "tracking": {"uri": database.uri}}
    spec = study("steps", prior="models:/steps@champion", execution={"threads": 1}, **fields)
    files = StudyFiles(open_store(str(tmp_path / "store")))
    files.write_spec(spec)
    store, table = str(tmp_path / "store"), tmp_path / "table"
    state = tmp_path / "state"
    prepared = tuning.prepare(store, "", table, state)
    assert client(database).get_run(prepared.run_id).data.tags["rlhpo.prior"] == "models:/steps/1"
    # From here on the alias means another prior, and then the version is gone.
    register_prior(priors[1], "steps", database, ["champion"])
    client(database).delete_model_version("steps", "1")
    for round_ in range(2):
        trials = []
        for index, proposal in enumerate(tuning.propose(store, state)):
            trials.append(tmp_path / f"trial-{round_}-{index}")
            tuning.train(store, prepared.run_id, proposal, table, "", trials[-1])
        fitted, updated = tmp_path / f"fitted-{round_}", tmp_path / f"updated-{round_}"
        tuning.fit_reward_model(state, trials, fitted)
        tuning.update_policy(store, prepared.run_id, fitted, updated)
        state = updated
        for found in (state_file.load(fitted), state_file.load(updated), files.state()):
            assert found.prior is not None
            assert found.prior.card.registered == "models:/steps/1"
    assert len(files.history()) == 6


def test_on_the_command_line(priors: tuple[Prior, Prior], database: Connection, tmp_path: Path) -> None:
    save_prior(priors[0], str(tmp_path / "team.safetensors"))
    where = ["--tracking-uri", database.uri]
    result = CliRunner().invoke(app, ["prior", "register", str(tmp_path / "team.safetensors"), "by-hand", *where])
    assert "registered models:/by-hand/1 (challenger, champion)" in result.output
    assert "prior: models:/by-hand@champion" in result.output
    result = CliRunner().invoke(app, ["prior", "show", "models:/by-hand@champion", *where])
    assert "Taken from models:/by-hand/1." in result.output

"""``rlhpo prior``: from finished studies to one that starts from what they have taught."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from rlhpo_core.cli.main import app
from rlhpo_core.errors import UserError
from rlhpo_core.priors.sources import read
from rlhpo_core.priors.store import load_prior
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import TrackingSpec, dump_study
from rlhpo_core.tracking.connection import Connection
from tests.helpers.finished_studies import SPACE, study, tuned
from tests.helpers.mlflow_store import new_store

pytestmark = pytest.mark.usefixtures("only_these_settings")

QUICK = ("--steps", "300", "--policy-updates", "20")
PEAKS = {"one": 0.65, "two": 0.7, "three": 0.75}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ of three finished studies, another in others/, and the prior of the three."""
    place = tmp_path_factory.mktemp("team")
    new_store(place / "runs")
    for name, peak in PEAKS.items():
        tuned(place / "runs", study(name, peak))
    tuned(place / "others", study("held-out", 0.72), tracked=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        result = rlhpo("train", "runs", "--out", "team.safetensors", *QUICK)
    assert result.output.startswith("one-")
    assert "wrote team.safetensors: 3 studies, 48 trials" in result.output
    return place


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def rlhpo(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["prior", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def connection(place: Path) -> Connection:
    return Connection.of(TrackingSpec(), place / "runs")


def study_id(place: Path, name: str) -> str:
    return StudyFolder(place / name).record().study_id


# -- train -------------------------------------------------------------------------------------------------------------


def test_the_card_says_where_all_of_it_comes_from(here: Path) -> None:
    card = load_prior("team.safetensors").card
    assert (card.name, card.objective, card.trials) == ("team", "height", 48)
    ids = tuple(study_id(here / "runs", name) for name in sorted(PEAKS))
    assert card.studies == ids
    assert {origin.study: (origin.place, origin.trials) for origin in card.origins} == {
        study_id(here / "runs", name): (f"runs/{name}", 16) for name in PEAKS
    }
    shown = rlhpo("show", "team.safetensors").output
    assert f"- {ids[0]}: 16 trials, from runs/one" in shown
    assert "- `y`: float in [0.0001, 1.0], log scale" in shown


def test_the_same_studies_and_seed_give_the_same_prior(here: Path, tmp_path: Path) -> None:
    again = tmp_path / "team.safetensors"
    rlhpo("train", "runs", "--out", str(again), *QUICK)
    assert again.read_bytes() == Path("team.safetensors").read_bytes()


def test_a_study_counts_once_and_small_ones_of_a_folder_are_left_out(here: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    shutil.copytree("runs/one", tmp_path / "runs" / "copy")
    tuned(tmp_path / "runs", study("small", budget={"trials": 4}), tracked=False)
    found = read(["runs/one", str(tmp_path / "runs")], connection(here), notes.append)
    assert [source.name for source in found] == [study_id(here / "runs", "one")]
    assert "is there already: left out" in notes[0]
    assert "has 4 trials with a value: left out" in notes[1]
    with pytest.raises(UserError, match=r"small-.*: 4 trials have a value"):
        rlhpo("train", "runs/one", str(tmp_path / "runs" / "small"), "--out", str(tmp_path / "p.safetensors"))


def test_ranges_that_differ_are_joined_or_given(here: Path, tmp_path: Path) -> None:
    wide = {**SPACE, "x": {**SPACE["x"], "high": 2.0}}
    tuned(tmp_path, study("wide", space=wide, budget={"trials": 32}), tracked=False)
    tuned(tmp_path, study("more", space={**SPACE, "z": SPACE["x"]}), tracked=False)
    out, given = str(tmp_path / "p.safetensors"), tmp_path / "narrow.yaml"
    hasty = ("--steps", "30", "--policy-updates", "2")
    both = ("train", "runs/one", str(tmp_path / "wide"), "--out", out, *hasty)
    rlhpo(*both)
    assert load_prior(out).space.model_dump() == wide
    given.write_text(dump_study(study("narrow")))
    output = rlhpo(*both, "--space", str(given), "--force").output
    assert load_prior(out).space.model_dump() == SPACE
    assert "left out, outside of the prior's space" in output
    with pytest.raises(UserError, match=r"more-\w+ tunes z, and one-\w+ has no such hyperparameter"):
        rlhpo("train", "runs/one", str(tmp_path / "more"), "--out", out, "--force")
    with pytest.raises(UserError, match=r"one-\w+ \(from runs/one\) has no booster, which the prior's space tunes"):
        rlhpo(*both, "--force", "--space", "xgboost-wide")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            {"metric": "height", "direction": "minimize"},
            r"one-\w+ is to maximize height and odd-\w+ to minimize height",
        ),
        (
            {"metric": "accuracy", "direction": "maximize"},
            r"odd-\w+ to maximize accuracy: a prior is about one objective",
        ),
    ],
)
def test_studies_of_different_objectives_do_not_mix(
    here: Path, tmp_path: Path, objective: dict[str, str], message: str
) -> None:
    spec = study("odd")
    folder = tuned(tmp_path, spec, tracked=False)
    odd = spec.model_copy(update={"objective": spec.objective.model_copy(update=objective)})
    folder.write_spec(odd)
    folder.write_record(StudyRecord.new(odd))
    if objective["direction"] == "minimize":
        state = folder.state()
        turned = state.history.model_copy(update={"direction": "minimize"})
        folder.write_state(replace(state, round=state.round + 1, history=turned))
    with pytest.raises(UserError, match=message):
        rlhpo("train", "runs/one", str(tmp_path / "odd"), "--out", str(tmp_path / "p.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs"], "say where the prior goes: --out FILE.safetensors, --register NAME, or both"),
        (["runs", "--out", "team.pt"], r"--out: team.pt must end with \.safetensors"),
        (["runs", "--out", "team.safetensors"], "team.safetensors exists; choose another --out"),
        (["runs/nowhere", "--out", "p.safetensors"], "runs/nowhere: no study is there; name a study's folder"),
        (["runs/one", "--out", "p.safetensors"], "takes two or more, not 1"),
        (["mlflow:absent", "--out", "p.safetensors"], "has no experiment 'absent'"),
        (["0" * 32, "--out", "p.safetensors"], "refused: Run with id=0+ not found"),
        (["models:/team/1", "--out", "p.safetensors"], "is a version of a model; name the study's run"),
        (["runs/one/study.json", "--out", "p.safetensors"], "not an rlhpo state file"),
        (["runs", "--out", "p.safetensors", "--space", "huge"], "huge is neither a study file nor a built-in space"),
    ],
)
def test_wrong_inputs_are_named(here: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rlhpo("train", *arguments)
    assert not Path("p.safetensors").exists()


# -- evaluate ----------------------------------------------------------------------------------------------------------


def test_a_prior_is_judged_by_a_study_that_it_has_not_seen(here: Path) -> None:
    output = rlhpo("evaluate", "team.safetensors", "others/held-out").output
    assert "no pick was trained" in output
    assert "The prior helps: after 5 picks" in output
    assert "lower on 1 of 1 study" in output
    row = next(line for line in output.splitlines() if line.strip().startswith("held-out-"))
    assert float(row.split()[3]) > 0.8, "the expectation ranks the study's trials"


def test_a_prior_is_not_judged_by_what_it_was_trained_on(here: Path, tmp_path: Path) -> None:
    shutil.copytree("runs/two", tmp_path / "renamed")
    with pytest.raises(UserError, match=r"prior team was trained on two-\w+"):
        rlhpo("evaluate", "team.safetensors", "others", str(tmp_path / "renamed"))
    with pytest.raises(UserError, match="name a prior, and after it studies"):
        rlhpo("evaluate", "team.safetensors")


def test_a_prior_that_is_wrong_shows(here: Path, tmp_path: Path) -> None:
    """The opposite of what the prior has seen: heights are depths."""
    spec = study("upside-down", 0.7, objective={"metric": "height", "direction": "minimize"})
    tuned(tmp_path, spec, tracked=False)
    output = rlhpo("evaluate", "team.safetensors", str(tmp_path / "upside-down")).output
    assert "No sign that the prior helps" in output


def test_each_study_is_judged_by_the_others(here: Path) -> None:
    output = rlhpo("evaluate", "--leave-one-out", "runs", *QUICK).output
    assert [line for line in output.splitlines() if line.startswith("without ")] == [
        f"without {study_id(here / 'runs', name)}" for name in sorted(PEAKS)
    ]
    assert "lower on 3 of 3 studies" in output
    with pytest.raises(UserError, match="--leave-one-out takes 3 studies or more, not 2"):
        rlhpo("evaluate", "--leave-one-out", "runs/one", "runs/two")


# -- use ---------------------------------------------------------------------------------------------------------------


def test_a_study_starts_from_the_prior_and_says_so_in_mlflow(here: Path) -> None:
    fields = {"budget": {"trials": 4}, "tuner": {"trials_per_round": 4}, "execution": {"workers": 1}}
    Path("taught.yaml").write_text(dump_study(study("taught", 0.72, prior="team.safetensors", **fields)))
    Path("cold.yaml").write_text(dump_study(study("cold", 0.72, prior="none", **fields)))
    best = {}
    for name in ("taught", "cold"):
        result = CliRunner().invoke(app, ["tune", f"{name}.yaml"])
        assert result.exit_code == 0, result.output
        folder = StudyFolder.open(here / "runs" / name)
        state = folder.state()
        assert (state.prior.card.name if state.prior else None) == ("team" if name == "taught" else None)
        best[name] = max(trial.value or -np.inf for trial in state.history.trials)
        shutil.rmtree(folder.path)
    assert best["taught"] > 0.85
    assert best["taught"] > best["cold"]
    client = MlflowClient(tracking_uri=connection(here).uri)
    experiment = client.get_experiment_by_name("rlhpo")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`rlhpo.prior` = 'team'")
    assert run.info.run_name == "taught"
    assert "prior.md" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_those_that_come_with_rlhpo_are_listed() -> None:
    assert "xgboost-log-loss" in rlhpo("list").output


@pytest.mark.parametrize("command", ["train", "evaluate", "register", "show", "list"])
def test_help_teaches(command: str) -> None:
    output = rlhpo(command, "--help").output
    assert "Usage:" in output

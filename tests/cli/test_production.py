"""``rlhpo retune | promote | rollback | audit``: their options and what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from rlhpo_core.cli import session
from rlhpo_core.cli.main import app
from rlhpo_core.cli.options import INTERRUPTED, console
from rlhpo_core.cli.session import Retuned
from rlhpo_core.execution.engines import Engine
from rlhpo_core.production.ledger import Ledger, Record
from rlhpo_core.production.retuning import Findings
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec
from tests.helpers.mlflow_store import new_store
from tests.helpers.stepwise import study

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # A console takes its width from the environment of its first import.
    monkeypatch.setattr(console, "width", 200)
    (tmp_path / "study.yaml").write_text(study())
    return tmp_path


def rlhpo(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


# -- promote, rollback, audit ------------------------------------------------------------------------------------------


@pytest.fixture
def registry(place: Path) -> MlflowClient:
    """Three versions of a model: the first is champion, the last challenges it."""
    client = MlflowClient(new_store(place / "runs"))
    client.create_registered_model("wine")
    for _ in range(3):
        client.create_model_version("wine", source=str(place))
    client.set_registered_model_alias("wine", "champion", "1")
    client.set_registered_model_alias("wine", "challenger", "3")
    return client


def test_versions_are_promoted_and_rolled_back_by_hand(registry: MlflowClient) -> None:
    done = rlhpo("promote", "wine", "--reason", "asked for by the cellar")
    assert done.output == "wine: the champion is version 3, before that version 1\n", done.exception
    done = rlhpo("promote", "wine", "--version", "2", "--reason", "smaller")
    assert done.output == "wine: the champion is version 2, before that version 3\n"
    done = rlhpo("rollback", "wine")
    assert done.output == "wine: the champion is version 3, before that version 2\n"
    aliases = registry.get_registered_model("wine").aliases
    assert (str(aliases["champion"]), str(aliases["previous"])) == ("3", "2")

    listed = rlhpo("audit", "wine").output
    for row, (event, change) in enumerate([("promoted", "1 → 3"), ("promoted", "3 → 2"), ("rolled_back", "2 → 3")]):
        line = listed.splitlines()[row + 1]
        assert event in line
        assert change in line
    assert "by hand: asked for by the cellar" in listed
    records = [json.loads(line) for line in rlhpo("audit", "wine", "--json").output.splitlines()]
    assert [record["champion"] for record in records] == ["3", "2", "3"]


def test_what_cannot_be_done_is_said(registry: MlflowClient) -> None:
    assert "there is no record of 'wine'; name the place with --store" in str(rlhpo("audit", "wine").exception)
    assert "has no previous champion to go back to" in str(rlhpo("rollback", "wine").exception)
    same = rlhpo("promote", "wine", "--version", "1", "--reason", "again")
    assert "version 1 is the champion of wine already" in str(same.exception)
    assert "Missing option '--reason'" in rlhpo("promote", "wine").output


def test_audit_carries_out_what_was_recorded_only(registry: MlflowClient, place: Path) -> None:
    assert rlhpo("promote", "wine", "--reason", "r").exit_code == 0
    ledger = Ledger.of("wine", str(place / "runs" / "registry"))
    (promoted,) = ledger.records()
    move = promoted.model_copy(update={"champion_before": "3", "champion": "2", "challenger": None})
    assert ledger.append(move, after=1) is not None
    assert rlhpo("audit", "wine").exit_code == 0
    assert str(registry.get_registered_model("wine").aliases["champion"]) == "2"


def test_audit_needs_no_mlflow(registry: MlflowClient) -> None:
    assert rlhpo("promote", "wine", "--reason", "r").exit_code == 0
    shown = rlhpo("audit", "wine", "--json", "--tracking-uri", "http://127.0.0.1:9")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["champion"] == "3"
    assert "the registry may not follow this log yet: MLflow at http://127.0.0.1:9" in shown.stderr


def test_the_log_lies_where_the_study_says(registry: MlflowClient, place: Path) -> None:
    assert rlhpo("promote", "wine", "--store", "elsewhere", "--reason", "r").exit_code == 0
    assert len(Ledger.of("wine", str(place / "elsewhere")).records()) == 1
    assert rlhpo("audit", "wine", "--store", "elsewhere").exit_code == 0


# -- retune ------------------------------------------------------------------------------------------------------------

FINDINGS = Findings(proceed=True, reason="drifted alcohol", digest="0" * 8)


@pytest.fixture
def retunings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command has asked for; it gets the last of these."""
    asked: list[Any] = [None]

    def retune(spec: StudySpec, path: Path, console: Any, engine: Engine, force: bool, numbered: bool) -> Retuned:
        assert numbered == (path == Path("runs/stepwise")), "the number is left to whoever makes the folder"
        outcome = asked.pop()
        asked.append((spec, path, engine, force))
        retuned: Retuned = outcome
        return retuned

    monkeypatch.setattr(session, "retune", retune)
    return asked


def result(place: Path, finished: bool = True) -> session.Result:
    folder = StudyFolder(place / "runs" / "stepwise")
    return session.Result(folder, "all 7 trials done", finished, None, None, True, "mlflow ui")


def record(outcome: Any) -> Record:
    return Record(at=0.0, by="someone", outcome=outcome, model="stepwise", reason="auc rises", champion="4")


def test_options_go_before_the_study_file(place: Path, retunings: list[Any]) -> None:
    retunings[:] = [Retuned(FINDINGS, None, None)]
    done = rlhpo(
        "retune", "study.yaml", "--table", "new.csv", "--force", "--trials", "3", "--workers", "2",
        "--tracking-uri", "http://there", "--out", "kept", "--engine", "kfp",
    )  # fmt: skip
    assert done.output == "drifted alcohol\n", done.exception
    ((spec, path, engine, force),) = retunings
    assert spec.data is not None
    assert (spec.data.path, spec.data.target) == (place / "new.csv", "target")
    assert (spec.budget.trials, spec.execution.workers, spec.execution.threads) == (3, 2, 1)
    assert (spec.tracking.uri, path, engine, force) == ("http://there", Path("kept"), Engine.KFP, True)


def test_a_decision_is_a_normal_end(place: Path, retunings: list[Any]) -> None:
    for event in ("promoted", "kept"):
        retunings[:] = [Retuned(FINDINGS, result(place), record(event))]
        done = rlhpo("retune", "study.yaml")
        assert done.exit_code == 0, done.exception
        assert f"{event}: auc rises" in done.output
        assert "champion   stepwise version 4" in done.output
        assert "runs/stepwise/report.html" in done.output


def test_an_interruption_and_a_missing_registration_are_not(place: Path, retunings: list[Any]) -> None:
    retunings[:] = [Retuned(FINDINGS, result(place, finished=False), None)]
    done = rlhpo("retune", "study.yaml")
    assert done.exit_code == INTERRUPTED
    assert "interrupted, and nothing is decided" in done.output
    retunings[:] = [Retuned(FINDINGS, result(place), None)]
    assert "the winner was not registered, so nothing is decided" in str(rlhpo("retune", "study.yaml").exception)

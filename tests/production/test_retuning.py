"""What a retuning finds before the study and decides after it, on real wines; models by the number of their trees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from rlhpo_core.data import holdout
from rlhpo_core.data.labelled import split
from rlhpo_core.data.table import load_table
from rlhpo_core.errors import UserError
from rlhpo_core.production import endings, promotion
from rlhpo_core.production.endings import recording_failure, send_alerts
from rlhpo_core.production.ledger import Record
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.production.retuning import Findings, check, decide, judge_challengers
from rlhpo_core.study.spec import StudySpec, WarmStartSpec, parse_study
from tests.helpers.mlflow_store import new_store
from tests.helpers.retuned_models import WINES, copies, finished, registered_model, study

pytestmark = pytest.mark.usefixtures("only_these_settings")

FIRST, NEW = WINES[:1200], WINES[1200:2700]
#: Alcohol in another unit, and the scale turned round.
MOVED = NEW.assign(alcohol=14 - NEW["alcohol"] / 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retuned")
    new_store(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _champion(folder: Path) -> None:
    """Version 1 of ``wine``, of few trees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        finished(folder, study(folder, FIRST, "wine", trees=3))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """Alerts, as (name, content)."""
    alerts: list[tuple[str, Mapping[str, Any]]] = []
    monkeypatch.setattr(endings.alerts, "send", lambda spec, alert, content, warn: alerts.append((alert, content)))
    return alerts


def with_empty_ledger(spec: StudySpec, folder: Path) -> tuple[StudySpec, RegisteredModel]:
    """The study and its model, of which nothing has been recorded."""
    registry = spec.registry.model_copy(update={"store": str(folder / "ledger")})
    spec = spec.model_copy(update={"registry": registry})
    return spec, registered_model(spec)


# -- before the study ------------------------------------------------------------------------------------------------


def test_without_a_champion_there_is_something_to_do(folder: Path) -> None:
    spec = study(folder, FIRST, "unknown")
    findings = check(spec, registered_model(spec))
    assert (findings.proceed, findings.champion, findings.warm_start) == (True, None, None)
    assert findings.reason == "there is no champion yet"


def test_the_champions_own_data_is_nothing_new(folder: Path, tmp_path: Path, sent: list[Any]) -> None:
    spec, model = with_empty_ledger(study(folder, FIRST, "wine"), tmp_path)
    findings = check(spec, model)
    assert (findings.proceed, findings.champion) == (False, "1")
    assert findings.reason == "unchanged: the data is that of the champion"
    (record,) = model.ledger.records()
    assert (record.outcome, record.champion, record.data_digest) == ("skipped", "1", findings.digest)
    assert [alert for alert, _ in sent] == ["skipped"]


def test_new_data_is_compared_and_the_champion_scored_on_it(folder: Path, tmp_path: Path) -> None:
    spec, model = with_empty_ledger(study(folder, MOVED, "wine"), tmp_path)
    findings = check(spec, model)
    assert findings.proceed
    assert findings.drift is not None
    assert findings.drift.drifted == ("alcohol",)
    assert findings.reason == findings.drift.summary()
    assert spec.data is not None
    table = load_table(spec.data, spec.seed)
    parts = split(table, spec.data, spec.seed)
    own = np.isin(holdout.row_keys(table, parts.holdout), holdout.training_keys(table, parts))
    assert findings.rows == 600 - own.sum(), "in another unit no wine is one that the champion has seen"
    assert own.sum() > 20, "some wines are there twice"
    assert findings.champion_score is not None
    assert 0.6 < findings.champion_score < 1.2
    assert model.ledger.records() == []
    # It starts from the champion's study, with the champion's configuration.
    assert findings.warm_start is not None
    assert findings.warm_start.study == model.tags("1")["rlhpo.store"]
    assert findings.warm_start.first == json.loads(model.tags("1")["rlhpo.config"])
    assert findings.warm_start.moved == findings.drift.moved > 0.1
    assert Findings.model_validate_json(findings.model_dump_json()) == findings


def test_a_promotion_that_was_recorded_only_is_carried_out_by_the_next_look(folder: Path) -> None:
    spec, model = copies(study(folder, FIRST, "wine"), "recorded", versions=2)
    created = promotion.created_at(model.client, "recorded")
    move = record(
        "promoted", model="recorded", model_created=created, champion_before="1", champion="2", previous="1",
        challenger="2", data_digest="another",
    )  # fmt: skip
    model.ledger.append(move, after=0)
    findings = check(spec, model)
    assert (findings.champion, findings.proceed) == ("2", False)
    assert promotion.champion_of(model.client, "recorded") == "2"
    assert [entry.outcome for entry in model.ledger.records()] == ["promoted", "skipped"]


def test_a_promotion_that_cannot_be_carried_out_leaves_its_data_undecided(folder: Path, sent: list[Any]) -> None:
    spec, model = copies(study(folder, NEW, "wine"), "abandoned", versions=2)
    findings = check(spec, model)
    move = record(
        "promoted", model="abandoned", model_created=promotion.created_at(model.client, "abandoned"),
        champion_before="1", champion="2", previous="1", challenger="2", data_digest=findings.digest,
    )  # fmt: skip
    model.ledger.append(move, after=0)
    model.client.delete_model_version("abandoned", "2")
    again = check(spec, model)
    assert (again.proceed, again.champion) == (True, "1")
    assert [entry.outcome for entry in model.ledger.records()] == ["promoted", "abandoned"]
    assert [alert for alert, _ in sent] == ["failed"]
    assert "version 2 champion, but that version is not in the registry any more" in sent[0][1]["reason"]


def test_a_model_made_anew_is_retuned_on_data_that_its_namesake_has_seen(folder: Path) -> None:
    spec, model = copies(study(folder, NEW, "wine"), "anew", versions=1)
    created = promotion.created_at(model.client, "anew")
    digest = check(spec, model).digest
    assert created is not None
    model.ledger.add(record("kept", model_created=created - 1, data_digest=digest, challenger="1"))
    assert check(spec, model).proceed
    model.ledger.add(record("kept", model_created=created, data_digest=digest, challenger="1"))
    assert not check(spec, model).proceed


def test_what_the_study_file_says_of_its_beginning_comes_first(folder: Path, tmp_path: Path) -> None:
    spec, model = with_empty_ledger(study(folder, NEW, "wine"), tmp_path)
    champion = json.loads(model.tags("1")["rlhpo.config"])
    given = spec.model_copy(update={"warm_start": WarmStartSpec(study="elsewhere")})
    assert check(given, model).warm_start == WarmStartSpec(study="elsewhere", first=champion)
    given = spec.model_copy(update={"warm_start": WarmStartSpec(first={"learning_rate": 0.2})})
    assert check(given, model).warm_start == given.warm_start


def test_when_only_drift_counts_new_rows_of_the_same_kind_are_skipped(folder: Path, tmp_path: Path) -> None:
    for table, proceed in ((NEW, False), (MOVED, True)):
        spec, model = with_empty_ledger(study(folder, table, "wine", retune={"when": "drifted"}), tmp_path)
        findings = check(spec, model)
        assert findings.proceed is proceed
        assert findings.reason.startswith("unchanged: ") is not proceed


def test_data_that_was_decided_about_is_not_decided_about_again(folder: Path, tmp_path: Path) -> None:
    spec, model = with_empty_ledger(study(folder, NEW, "wine"), tmp_path)
    digest = check(spec, model).digest
    model.ledger.add(record("kept", data_digest=digest, challenger="2"))
    assert check(spec, model).reason == "unchanged: the data is that of the last retuning, which ended as kept"
    forced = check(spec, model, force=True)
    assert forced.proceed
    assert forced.reason.startswith("forced; the data is new")


def test_too_few_new_rows_spend_nothing(folder: Path, tmp_path: Path, sent: list[Any]) -> None:
    table = pd.concat([FIRST, NEW[:40]])
    spec, model = with_empty_ledger(study(folder, table, "wine", gate={"min_rows": 400}), tmp_path)
    findings = check(spec, model, force=True)
    assert not findings.proceed
    assert f"only {findings.rows} of 496 holdout rows are new to the champion" in findings.reason
    assert [entry.outcome for entry in model.ledger.records()] == ["refused"]
    assert [alert for alert, _ in sent] == ["kept"]


def test_a_holdout_of_copies_spends_nothing(folder: Path, tmp_path: Path, sent: list[Any]) -> None:
    """The gate would have too few rows, since the winner would be trained on copies of most of them."""
    table = pd.concat([MOVED[:300]] * 6 + [MOVED[700:900]], ignore_index=True)
    spec, model = with_empty_ledger(study(folder, table, "wine", gate={"min_rows": 200}), tmp_path)
    findings = check(spec, model, force=True)
    assert not findings.proceed
    assert 50 < findings.rows < 150
    assert f"only {findings.rows} of 800 holdout rows are new to the champion and no copies of rows" in findings.reason
    assert [entry.outcome for entry in model.ledger.records()] == ["refused"]
    # With as many as there are it goes on, and the gate has so many.
    finished(folder, study(folder, FIRST, "copied", trees=3))
    spec = study(folder, table, "copied", trees=30, gate={"min_rows": findings.rows})
    model = registered_model(spec)
    again = check(spec, model)
    assert (again.proceed, again.rows) == (True, findings.rows)
    decision = decide(spec, model, *finished(folder, spec), again, print)
    assert decision is not None
    assert decision.verdict is not None
    assert (decision.verdict.rows, decision.outcome != "refused") == (findings.rows, True)


def test_a_study_whose_files_are_gone_is_warned_of(folder: Path, tmp_path: Path) -> None:
    spec, model = with_empty_ledger(study(folder, NEW, "wine"), tmp_path)
    address = Path(model.tags("1")["rlhpo.store"])
    hidden = (address / "study.yaml").rename(address / "hidden.yaml")
    (address / "study.yaml").write_text("name: [")
    warnings: list[str] = []
    try:
        findings = check(spec, model, warn=warnings.append)
    finally:
        hidden.rename(address / "study.yaml")
    assert findings.warm_start == WarmStartSpec(first=json.loads(model.tags("1")["rlhpo.config"]))
    assert len(warnings) == 1
    assert warnings[0].startswith("what version 1 has learnt cannot be read: ")


def test_an_evaluator_without_a_model_cannot_be_retuned(folder: Path) -> None:
    spec = study(folder, FIRST, "wine")
    fields = {
        **spec.model_dump(include={"name", "registry", "tracking"}),
        "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
        "objective": {"metric": "score", "direction": "maximize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    }
    with pytest.raises(UserError, match=r"registry\.model: there is no model to register of a function"):
        parse_study(yaml.safe_dump(fields), "study.yaml")


# -- after it --------------------------------------------------------------------------------------------------------


def test_a_better_winner_is_promoted_and_everything_says_so(folder: Path, sent: list[Any]) -> None:
    finished(folder, study(folder, FIRST, "promoted", trees=3))
    spec = study(folder, NEW, "promoted", trees=60)
    model = registered_model(spec)
    findings = check(spec, model)
    assert 400 < findings.rows < 600, "some wines are in both tables"
    files, tracker = finished(folder, spec)
    decision = decide(spec, model, files, tracker, findings, print)
    assert decision is not None
    assert (decision.outcome, decision.champion, decision.champion_before) == ("promoted", "2", "1")
    assert decision.verdict is not None
    assert decision.verdict.measured is not None
    assert decision.verdict.rows == findings.rows, "it was known before anything was trained"
    assert files.record().decision == f"promoted: {decision.reason}"
    run = tracker.client.get_run(tracker.run_id)
    assert run.data.metrics["gate.gain"] == pytest.approx(decision.verdict.measured.gain)
    assert run.data.metrics["gate.rows"] == decision.verdict.rows
    assert run.data.metrics["champion.holdout"] == pytest.approx(findings.champion_score)
    assert run.data.tags["rlhpo.decision"] == "promoted"
    artifacts = {artifact.path for artifact in tracker.client.list_artifacts(tracker.run_id)}
    assert {"decision.json", "drift.json", "model_card.md", "report.html"} <= artifacts
    assert "## Decision" in tracker.client.get_model_version("promoted", "2").description
    assert [alert for alert, _ in sent] == ["promoted"]
    # Again: it stays decided, and nothing is added to the ledger.
    assert decide(spec, model, files, tracker, findings, print) == decision
    assert len(model.ledger.records()) == 1


def test_a_worse_winner_leaves_the_champion(folder: Path, tmp_path: Path) -> None:
    finished(folder, study(folder, FIRST, "kept", trees=60))
    spec = study(folder, NEW, "kept", trees=2)
    model = registered_model(spec)
    findings = check(spec, model)
    files, tracker = finished(folder, spec)
    changed = findings.model_copy(update={"digest": "another"})
    with pytest.raises(UserError, match="the table has changed while it was tuned on"):
        decide(spec, model, files, tracker, changed, print)
    decision = decide(spec, model, files, tracker, findings, print)
    assert decision is not None
    assert (decision.outcome, decision.champion) == ("kept", "1")
    assert tracker.client.get_run(tracker.run_id).data.metrics["gate.gain"] < 0

    # Challengers that cannot be loaded: that of this study is refused, another one is left to its own process.
    assert spec.data is not None
    table = load_table(spec.data, spec.seed)
    parts = split(table, spec.data, spec.seed)
    verdicts = judge_challengers(spec, model, table, parts, "1", ["2", "8", "9"], version="9")
    assert {version: verdict.decision for version, verdict in verdicts.items()} == {"2": "keep", "9": "refuse"}
    assert verdicts["2"].confidence == pytest.approx(1 - 0.05 / 3)
    assert "not found" in verdicts["9"].reason


def quality(folder: Path, table: pd.DataFrame, trees: int, *names: str, **fields: Any) -> StudySpec:
    """A study of whether a wine is poor, fair or good; its table names these classes so."""
    grades = pd.cut(table["target"], [0, 5, 6, 10], labels=list(names), ordered=False).astype(str)
    return study(
        folder, table.assign(target=grades), "quality", trees, objective="log_loss",
        data={"path": folder / "quality.csv", "target": "target", "holdout": 0.4}, **fields,
    )  # fmt: skip


def test_labels_that_are_written_otherwise_promote_nobody(folder: Path, sent: list[Any]) -> None:
    finished(folder, quality(folder, FIRST, 30, "poor", "fair", "good"))

    # A class that is absent is no reason, nor is one that is truly new: both are judged on what they know.
    spec = quality(folder, NEW[NEW["target"] <= 6], 30, "poor", "fair", "good")
    assert check(spec, registered_model(spec)).proceed
    excellent = quality(folder, NEW, 30, "poor", "fair", "good")
    table = pd.read_csv(folder / "quality.csv")
    table.loc[NEW["target"].to_numpy() >= 8, "target"] = "excellent"
    table.to_csv(folder / "quality.csv", index=False)
    findings = check(excellent, registered_model(excellent))
    assert findings.proceed
    assert findings.reason.endswith("; left out, since they are new: rows of 'excellent'")
    assert findings.champion_score is not None
    assert findings.champion_score < 1.0, "without rows that it cannot get right"
    files, tracker = finished(folder, excellent)
    decision = decide(excellent, registered_model(excellent), files, tracker, findings, print)
    assert decision is not None
    assert decision.verdict is not None
    assert decision.outcome == "kept", decision.reason
    assert (decision.verdict.unknown, decision.champion) == (("excellent",), "1")
    assert "'excellent'" in decision.reason

    # Written otherwise, a challenger of two trees would beat the champion by far, which seems to be always wrong.
    spec = quality(folder, NEW, 2, "Poor", "FAIR", "good.")
    model = registered_model(spec)
    findings = check(spec, model)
    assert not findings.proceed, "nothing is spent"
    assert "'FAIR' (known: 'fair'), 'Poor' (known: 'poor'), 'good.' (known: 'good')" in findings.reason
    last = model.ledger.last()
    assert last is not None
    assert (last.outcome, last.champion) == ("refused", "1")
    forced = check(spec, model, force=True)
    assert forced.proceed
    assert "'FAIR' (known: 'fair')" in forced.reason
    assert forced.champion_score is None
    files, tracker = finished(folder, spec)
    decision = decide(spec, model, files, tracker, forced, print)
    assert decision is not None
    assert (decision.outcome, decision.champion) == ("refused", "1")
    assert "otherwise than the champion knows it: 'FAIR' (known: 'fair')" in decision.reason
    assert promotion.champion_of(model.client, "quality") == "1"


def test_without_a_registered_winner_nothing_is_decided(folder: Path) -> None:
    spec = study(folder, FIRST, "unregistered", registry={})
    files, tracker = finished(folder, spec)
    model = registered_model(study(folder, FIRST, "unregistered"))
    assert decide(spec, model, files, tracker, Findings(proceed=True, reason="", digest=""), print) is None
    assert model.ledger.records() == []


# -- both ------------------------------------------------------------------------------------------------------------


def record(outcome: str, **fields: Any) -> Record:
    return Record.model_validate({"at": 0, "by": "me", "outcome": outcome, "model": "wine", "reason": "", **fields})


def test_a_failure_is_recorded_and_goes_on(folder: Path, tmp_path: Path, sent: list[Any]) -> None:
    spec, model = with_empty_ledger(study(folder, FIRST, "wine"), tmp_path)
    with pytest.raises(ZeroDivisionError), recording_failure(spec, model.ledger, print):
        raise ZeroDivisionError("no rows\nat all")
    (entry,) = model.ledger.records()
    assert (entry.outcome, entry.reason) == ("failed", "no rows")
    assert [(alert, content["reason"]) for alert, content in sent] == [("failed", "no rows")]


def test_every_so_many_decisions_for_the_champion_there_is_an_alert(
    folder: Path, tmp_path: Path, sent: list[Any]
) -> None:
    spec, model = with_empty_ledger(study(folder, FIRST, "wine", alerts={"keeps": 2}), tmp_path)
    for outcome in ("kept", "vetoed", "skipped", "refused", "kept"):
        send_alerts(spec, model.ledger, model.ledger.add(record(outcome)), print)
    assert [alert for alert, _ in sent] == ["kept", "kept", "keeps_in_row", "skipped", "kept", "kept", "keeps_in_row"]
    assert sent[-1][1] == {"model": "wine", "reason": "the champion of wine was kept 4 times in a row", "keeps": 4}


def test_a_winner_of_no_use_is_refused_and_recorded(folder: Path, tmp_path: Path, sent: list[Any]) -> None:
    noise = NEW.assign(target=NEW["target"].sample(frac=1, random_state=0).to_numpy())
    spec, model = with_empty_ledger(study(folder, noise, "noise", trees=300), tmp_path)
    findings = check(spec, model)
    files, tracker = finished(folder, spec)
    decided = decide(spec, model, files, tracker, findings, print)
    winner = files.record().winner
    assert decided is not None
    assert winner is not None
    assert winner.registered is None
    assert (decided.outcome, decided.reason) == ("refused", winner.warning)
    assert (decided.champion, decided.data_digest) == (None, findings.digest)
    assert model.ledger.records() == [decided]
    assert [alert for alert, _ in sent] == ["kept"]
    assert tracker.client.get_run(tracker.run_id).data.tags["rlhpo.decision"] == "refused"


# -- the schema of the champion's table --------------------------------------------------------------------------------


def with_awkward_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Wines with a column of truth values, one of digits with a special value, and one that tells of the year."""
    sweet = table["residual.sugar"] > 5 if "residual.sugar" in table else table.iloc[:, 3] > 5
    bottle = np.array(["075", "150", "unknown"])[np.arange(len(table)) % 3]
    return table.assign(sweet=sweet.astype(object), bottle=bottle, year=2000 + np.arange(len(table)) % 20)


def test_columns_stay_what_they_were_when_the_champion_was_trained(folder: Path) -> None:
    """A truth value with its first blank, a category without its special value, a column that is blank throughout."""
    finished(folder, study(folder, with_awkward_columns(FIRST), "awkward"))
    later = with_awkward_columns(NEW).assign(bottle="075", year=None)
    later.loc[later.index[[5, 90, 700]], "sweet"] = None
    spec = study(folder, later, "awkward")
    model = registered_model(spec)
    findings = check(spec, model)
    assert findings.champion_score is not None, "the champion answers it"
    assert findings.drift is not None
    assert not findings.drift.schema_changed
    champion = model.schema("1")
    assert champion is not None
    kinds = {name: champion.columns[name].kind for name in ("sweet", "bottle", "year")}
    assert kinds == {"sweet": "boolean", "bottle": "category", "year": "number"}
    files, tracker = finished(folder, spec, champion)
    assert files.schema() == champion == model.schema("2")
    decision = decide(spec, model, files, tracker, findings, print)
    assert decision is not None
    assert decision.outcome in ("kept", "promoted")


@pytest.fixture(scope="module")
def _columns(folder: Path) -> None:
    """Version 1 of ``columns``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        finished(folder, study(folder, with_awkward_columns(FIRST), "columns"))


@pytest.mark.usefixtures("_columns")
def test_what_is_new_in_a_table_is_reported_with_its_rows(folder: Path) -> None:
    later = with_awkward_columns(NEW).assign(cork="natural")
    later.loc[later.index[[1, 3]], "bottle"] = "300"
    spec = study(folder, later, "columns")
    findings = check(spec, registered_model(spec))
    assert findings.proceed
    assert findings.champion_score is not None, "a category that is new to it counts as missing"
    assert "new columns cork" in findings.reason
    assert "column 'bottle' has new categories '300' in rows 2, 4" in findings.reason


@pytest.mark.usefixtures("_columns")
def test_a_table_that_breaks_the_schema_is_refused_with_rows(folder: Path) -> None:
    later = with_awkward_columns(NEW).drop(columns="sweet")
    later["year"] = later["year"].astype(object).where(later["year"] != 2003, "n. a.")
    spec = study(folder, later, "columns")
    model = registered_model(spec)
    with pytest.raises(UserError) as caught, recording_failure(spec, model.ledger, print):
        check(spec, model)
    assert "column 'sweet' is gone" in str(caught.value)
    assert "column 'year' should hold numbers, but rows 4, 24, 44, 64, 84 and 70 more of 1500" in str(caught.value)
    (failed,) = [entry for entry in model.ledger.records() if entry.outcome == "failed"]
    assert "'sweet' is gone" in failed.reason

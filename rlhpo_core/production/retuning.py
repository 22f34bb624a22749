"""Scheduled retuning, but for the tuning itself: what is new about the data, and what becomes of the winner.

Functions that any engine can call: ``check`` before the study, ``decide`` after it. Whether something is promoted or
not, both end well: an error is something that a person has to mend.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlhpo_core.data import drift, holdout
from rlhpo_core.data.conversions import ISO
from rlhpo_core.data.drift import DataProfile, Drift
from rlhpo_core.data.holdout import Holdout
from rlhpo_core.data.labelled import Labelled, Split, split
from rlhpo_core.data.schema import TableSchema
from rlhpo_core.data.splits import Dividing
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import CLASSES, evaluator_class
from rlhpo_core.frozen import Frozen
from rlhpo_core.production import promotion
from rlhpo_core.production.answers import Answers, Comparable, ask, comparable, left_out
from rlhpo_core.production.bootstrap import scores
from rlhpo_core.production.endings import Explain, fail_lost, send_alerts
from rlhpo_core.production.gate import Verdict, judge, refusal, too_few
from rlhpo_core.production.ledger import DECISIONS, Outcome, Record
from rlhpo_core.production.model_card import model_card
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.report.study_report import log_report, make_report
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.production_settings import GateSpec
from rlhpo_core.study.spec import SplitSpec, StudySpec, WarmStartSpec
from rlhpo_core.tracking.provenance import circumstances
from rlhpo_core.tracking.tracker import StudyTracker

#: Rows are divided by time only where there are so many different ones.
_TIMES = 20


class Findings(Frozen):
    """What is known about the data and the champion before anything is spent."""

    proceed: bool
    """Whether there is something to do."""
    reason: str
    """For a person to read."""
    digest: str
    """Of the current table."""
    champion: str | None = None
    """Its version."""
    champion_score: float | None = None
    """On the fresh holdout, in the objective's units."""
    rows: int = 0
    """Of the holdout, as many as the gate will have: neither the champion nor the winner is trained on them or on
    copies of them."""
    drift: Drift | None = None
    """Against the champion's table; ``None`` without a champion, or if it does not say what it was trained on."""
    warm_start: WarmStartSpec | None = None
    """What the study is to start from."""
    split: SplitSpec | None = None
    """By what the rows are divided where the study does not say it: by the table's one column of dates, so that the
    holdout has the latest."""
    run: str | None = None
    """The retuning, as ``endings`` has it; ``None`` if nobody but its own process looks after it."""


# -- before ----------------------------------------------------------------------------------------------------------


def check(
    spec: StudySpec,
    model: RegisteredModel,
    force: bool = False,
    warn: Callable[[str], None] = print,
    run: str | None = None,
    explain: Explain = lambda begun: "",
) -> Findings:
    """Compare the current data with the champion's, and score the champion on it.

    What a process that died has decided and not carried out is carried out first, and of an earlier retuning that died
    it is recorded that it failed. If nothing is to be done that is
    recorded, and an alert sent where it is wanted.

    Args:
        force: Go on even if the data is not new; too few rows still stop the retuning.
        warn: Takes the text of what went wrong without stopping the retuning.
        run: As ``Findings`` has it.
        explain: Asked what is known of an earlier retuning that died.

    Raises: UserError if the study cannot be retuned, or if its data cannot be read.
    """
    fail_lost(spec, model.ledger, run, warn, explain)
    with model.connection.open(timeout=60):
        abandoned = promotion.settle(model.client, model.ledger)
        version = promotion.champion_of(model.client, model.name)
    if abandoned is not None:
        send_alerts(spec, model.ledger, abandoned, warn)
    if version is None:
        table, _ = _table(spec, None)
        none = "there is no champion yet"
        return Findings(proceed=True, reason=none, digest=table.digest, split=_split(spec, table), run=run)
    with model.served(version) as served:
        champion = served[version]
        table, parts = _table(spec, champion.schema)
        drifted = None if champion.profile is None else _drift(champion.profile, table, spec)
        findings = Findings(proceed=True, reason="", digest=table.digest, champion=version, drift=drifted, run=run)
        findings = findings.model_copy(update={"split": _split(spec, table)})
        if not force and (reason := _nothing_to_do(spec, model, findings)) is not None:
            _stand_still(spec, model, findings, "skipped", reason, warn)
            return findings.model_copy(update={"proceed": False, "reason": reason})
        rows = holdout.unseen(table, parts.holdout, [champion.seen, holdout.training_keys(table, parts)])
        findings = findings.model_copy(update={"rows": len(rows)})
        if len(rows) < spec.gate.min_rows:
            reason = (
                f"only {len(rows)} of {len(parts.holdout)} holdout rows are new to the champion and no copies of rows "
                f"that would be trained on, and gate.min_rows asks for {spec.gate.min_rows}; the champion stays, and "
                "nothing is spent"
            )
            _stand_still(spec, model, findings, "refused", reason, warn)
            return findings.model_copy(update={"proceed": False, "reason": reason})
        name = f"the champion (version {version})"
        answers = ask({name: (champion.model, champion.size)}, rows)
    try:
        compared = comparable(rows, answers)
    except UserError as error:
        if not force:
            _stand_still(spec, model, findings, "refused", str(error), warn)
            return findings.model_copy(update={"proceed": False, "reason": str(error)})
        score, note = math.nan, f"; {error}"
    else:
        findings = findings.model_copy(update={"rows": len(compared.rows)})
        if (lacking := too_few(len(compared.rows), compared.rows.groups, spec.gate)) is not None:
            reason = lacking + left_out(compared.unknown)
            _stand_still(spec, model, findings, "refused", reason, warn)
            return findings.model_copy(update={"proceed": False, "reason": reason})
        score, note = _score(spec, compared.rows, compared.answers[name]), left_out(compared.unknown)
    summary = "the champion does not say which data it was trained on" if drifted is None else drifted.summary()
    summary += note
    return findings.model_copy(
        update={
            "reason": "forced; " + summary if force else summary,
            "champion_score": score if math.isfinite(score) else None,
            "warm_start": _warm_start(spec, model, table, version, warn),
        }
    )


def _drift(then: DataProfile, table: Labelled, spec: StudySpec) -> Drift:
    """What has changed since the champion's table, with the rows of what its schema lacks."""
    change = drift.compare(then, drift.profile(table), spec.retune)
    return change if change.same else change.model_copy(update={"schema_changes": table.changes})


def _nothing_to_do(spec: StudySpec, model: RegisteredModel, findings: Findings) -> str | None:
    """Why the data gives no cause for a retuning; ``None`` if it does."""
    digest, drifted = findings.digest, findings.drift
    same = drifted is not None and drifted.same
    if same or (findings.champion and model.tags(findings.champion).get("rlhpo.data_digest") == digest):
        return "unchanged: the data is that of the champion"
    ends = (*DECISIONS, "abandoned")
    decisions = [r for r in _records(model) if r.outcome in ends and r.data_digest is not None]
    if decisions and decisions[-1].data_digest == digest and decisions[-1].outcome != "abandoned":
        return f"unchanged: the data is that of the last retuning, which ended as {decisions[-1].outcome}"
    if spec.retune.when == "drifted" and drifted is not None and not (drifted.drifted or drifted.schema_changed):
        return f"unchanged: {drifted.summary()}"
    return None


def _records(model: RegisteredModel) -> list[Record]:
    """What the ledger holds of the model as it is in the registry now."""
    return model.ledger.records(_created(model))


def _created(model: RegisteredModel) -> int | None:
    with model.connection.open(timeout=60):
        return promotion.created_at(model.client, model.name)


def _score(spec: StudySpec, rows: Holdout, answers: Answers) -> float:
    """Of what a version answers to some rows, in the objective's units; NaN if the metric is not defined on them."""
    weights = np.ones(len(rows)) if rows.weights is None else rows.weights
    return float(scores(spec.objective.metric, rows.target, answers.output, weights[None])[0])


def _stand_still(
    spec: StudySpec, model: RegisteredModel, findings: Findings, outcome: Outcome, reason: str,
    warn: Callable[[str], None],
) -> Record:  # fmt: skip
    """Record that nothing is done, and say so."""
    record = Record(
        outcome=outcome, model=model.name, reason=reason, run=findings.run, data_digest=findings.digest,
        model_created=_created(model), champion_before=findings.champion, champion=findings.champion,
        **circumstances(),
    )  # fmt: skip
    record = model.ledger.add(record)
    send_alerts(spec, model.ledger, record, warn)
    return record


def _warm_start(
    spec: StudySpec, model: RegisteredModel, table: Labelled, champion: str, warn: Callable[[str], None]
) -> WarmStartSpec | None:
    """From the latest study of this model whose files can be read, with the champion's configuration first."""
    with model.connection.open(timeout=60):
        versions = model.client.search_model_versions(f"name = '{_quoted(model.name)}'")
    tags: dict[int, dict[str, str]] = {int(version.version): version.tags for version in versions}
    config = tags[int(champion)].get("rlhpo.config")
    first = None if config is None else json.loads(config)
    if spec.warm_start is not None:
        given = spec.warm_start.first is not None
        return spec.warm_start if given else spec.warm_start.model_copy(update={"first": first})
    for version in sorted(tags, reverse=True):
        address = tags[version].get("rlhpo.store")
        if address is not None and _can_be_read(address, version, warn):
            moved = _moved_since(spec, model, table, str(version))
            return WarmStartSpec(study=address, moved=moved, first=first)
    return None if first is None else WarmStartSpec(first=first)


def _can_be_read(address: str, version: int, warn: Callable[[str], None]) -> bool:
    """Whether the study that a version comes from is still there."""
    try:
        return StudyFiles(open_store(address)).spec_or_none() is not None
    except UserError as error:
        warn(f"what version {version} has learnt cannot be read: {error}")
        return False


def _moved_since(spec: StudySpec, model: RegisteredModel, table: Labelled, version: str) -> float:
    """How far the table has moved from that of a version (mean population stability index); 0 if it does not say."""
    with model.served(version) as served:
        profile = served[version].profile
    return 0.0 if profile is None else drift.compare(profile, drift.profile(table), spec.retune).moved


def _quoted(name: str) -> str:
    return name.replace("'", "\\'")


# -- after -----------------------------------------------------------------------------------------------------------


def decide(
    spec: StudySpec,
    model: RegisteredModel,
    files: StudyFiles,
    tracker: StudyTracker,
    findings: Findings,
    warn: Callable[[str], None],
) -> Record | None:
    """Judge the study's winner, promote it or keep the champion, and say so everywhere.

    May be repeated: what was decided stays decided.

    Args:
        files: Of the study, which has ended.
        tracker: Of the study; its run, its report and the version's description get the decision.
        findings: What ``check`` returned; the table must still be the same.
        warn: Takes the text of what went wrong without changing the decision.

    Returns: The decision, a refusal if the winner is of no use; ``None`` if no version was registered otherwise.

    Raises: UserError if the data is not what it was, or if MLflow or the store cannot be reached.
    """
    winner = files.record().winner
    if winner is not None and winner.registered is None and winner.warning is not None:
        record = _stand_still(spec, model, findings, "refused", winner.warning, warn)
        files.write_record(files.record().model_copy(update={"decision": f"{record.outcome}: {record.reason}"}))
        _publish(spec, model, files, tracker, findings, record)
        return record
    if winner is None or winner.registered is None:
        return None
    version, study_id = winner.registered.rsplit(" ", 1)[1], files.record().study_id
    table, parts = _table(spec, files.schema())
    if table.digest != findings.digest:
        raise UserError("the table has changed while it was tuned on; nothing is decided, and the champion stays")

    def judge_all(champion: str, challengers: Sequence[str]) -> Mapping[str, Verdict]:
        return judge_challengers(spec, model, table, parts, champion, challengers, version)

    with model.connection.open(timeout=120):
        promotion.enter(model.client, model.ledger, version, study_id, findings.champion)
        record = promotion.decide(model.client, model.ledger, version, study_id, table.digest, judge_all)
    files.write_record(files.record().model_copy(update={"decision": f"{record.outcome}: {record.reason}"}))
    _publish(spec, model, files, tracker, findings, record)
    send_alerts(spec, model.ledger, record, warn)
    return record


def judge_challengers(
    spec: StudySpec,
    model: RegisteredModel,
    table: Labelled,
    parts: Split,
    champion: str,
    challengers: Sequence[str],
    version: str,
) -> dict[str, Verdict]:
    """What the gate says of each challenger, on those rows of the holdout that neither it nor the champion has seen.

    Args:
        champion: A version, as are the challengers.
        version: The challenger of this study. It is refused if it cannot be loaded; one of another study is then left
            out, for its own process to decide about.
    """
    metric, gate = spec.objective.metric, spec.gate
    verdicts: dict[str, Verdict] = {}
    for challenger in challengers:
        try:
            compared = _compared(gate, model, table, parts, champion, challenger)
        except UserError as error:
            if challenger == version:
                verdicts[challenger] = refusal(metric, 0, gate.confidence, str(error))
            continue
        rows, unknown = compared.rows, compared.unknown
        if (lacking := too_few(len(rows), rows.groups, gate)) is not None:
            verdict = refusal(metric, len(rows), gate.confidence, lacking)
        else:
            verdict = judge(
                metric, rows.target, compared.answers["the champion"], compared.answers["the challenger"],
                holdout.slices(rows, gate.slices), gate, spec.seed, len(challengers), rows.weights, rows.groups,
            )  # fmt: skip
        reason = verdict.reason + left_out(unknown)
        verdicts[challenger] = verdict.model_copy(update={"reason": reason, "unknown": unknown})
    return verdicts


def _compared(
    gate: GateSpec, model: RegisteredModel, table: Labelled, parts: Split, champion: str, challenger: str
) -> Comparable:
    """The rows that neither version has seen, and what both answer to them; no answers if they are too few.

    Raises: UserError if a version cannot be loaded, cannot answer the rows, or names the label's classes otherwise.
    """
    with model.served(champion, challenger) as served:
        before, after = served[champion], served[challenger]
        rows = holdout.unseen(table, parts.holdout, [before.seen, after.seen])
        if len(rows) < gate.min_rows:
            return Comparable(rows, {}, ())
        named = {"the champion": before, "the challenger": after}
        answers = ask({name: (version.model, version.size) for name, version in named.items()}, rows)
    return comparable(rows, answers)


def run_name(place: str) -> str:
    """The name of a retuning's run in MLflow: one model has many.

    Args:
        place: Name of its folder, or of its place in the store.
    """
    return f"{place} {time.strftime('%Y-%m-%d')}"


def _publish(
    spec: StudySpec, model: RegisteredModel, files: StudyFiles, tracker: StudyTracker, findings: Findings,
    record: Record,
) -> None:  # fmt: skip
    """The decision in the study's run, its report, and the version's description."""
    version, winner = record.challenger, files.record().winner
    trial = files.trial(winner.trial_id) if winner is not None else None
    if winner is not None and trial is not None and version is not None:
        card = model_card(spec, tracker.study_id, trial, winner.holdout, tracker.rows(), findings.digest, record)
        tracker.log_artifact_bytes("model_card.md", card.encode())
        with model.connection.open(timeout=60):
            model.client.update_model_version(model.name, version, card)
    tracker.log_artifact_bytes("decision.json", record.model_dump_json(indent=1).encode())
    if findings.drift is not None:
        tracker.log_artifact_bytes("drift.json", findings.drift.model_dump_json(indent=1).encode())
    tracker.log_metrics(_metrics(findings, record))
    tracker.tag({"rlhpo.decision": record.outcome, "rlhpo.reason": record.reason})
    log_report(tracker, make_report(files, spec))


def _metrics(findings: Findings, record: Record) -> dict[str, float]:
    """What the study's run shows of a decision: how far the data has moved, and what the gate has measured."""
    values: dict[str, float] = {}
    if findings.champion_score is not None:
        values["champion.holdout"] = findings.champion_score
    if findings.drift is not None:
        values["data.moved"] = findings.drift.moved
    if (verdict := record.verdict) is not None:
        values["gate.rows"] = verdict.rows
        if (measured := verdict.measured) is not None:
            values |= {"gate.gain": measured.gain, "gate.low": measured.low, "gate.high": measured.high}
    return values


# -- both ------------------------------------------------------------------------------------------------------------


def _table(spec: StudySpec, schema: TableSchema | None) -> tuple[Labelled, Split]:
    evaluator = evaluator_class(spec.evaluator.kind)
    data = evaluator.read(spec, schema) if evaluator.has_model else None
    if spec.data is None or data is None:
        fitting = ", ".join(kind for kind in CLASSES if evaluator_class(kind).has_model)
        raise UserError(f"a retuning needs data and an evaluator that trains a model on it (kind: {fitting})")
    if data.dividing is None and (latest := _latest(data)) is not None:
        data = replace(data, dividing=latest)
    return data, split(data, spec.data, spec.seed)


def _latest(data: Labelled) -> Dividing | None:
    """By time, if there is one column of dates, without gaps."""
    dated = [
        name
        for name, column in data.schema.columns.items()
        if column.time is not None and (column.time.format == ISO or "%y" in column.time.format.lower())
    ]
    if len(dated) != 1 or data.given_holdout:
        return None
    days = data.columns()[dated[0]].to_numpy(dtype=np.float64)
    return None if np.isnan(days).any() or len(np.unique(days)) < _TIMES else Dividing("time", dated[0], days)


def _split(spec: StudySpec, data: Labelled) -> SplitSpec | None:
    """What the study is to say of that; ``None`` if it says it already, or if there is nothing to say."""
    if data.dividing is None or (spec.data is not None and spec.data.split is not None):
        return None
    return SplitSpec(by="time", column=data.dividing.column)


def tuned_spec(spec: StudySpec, findings: Findings) -> StudySpec:
    """The study as it is tuned: what it starts from, and how its rows are divided."""
    changes: dict[str, Any] = {"warm_start": findings.warm_start}
    if findings.split is not None and spec.data is not None:
        changes["data"] = spec.data.model_copy(update={"split": findings.split})
    return spec.model_copy(update=changes)

"""Scheduled retuning, but for the tuning itself: what is new about the data, and what becomes of the winner.

Functions that any engine can call: ``look`` before the study, ``conclude`` after it. Whether something is promoted or
not, both end well: an error is something that a person has to mend.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from rlhpo_core.data import drift, holdout
from rlhpo_core.data.drift import Drift
from rlhpo_core.data.table import Split, Table, load_table, split
from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.production import alerts, promotion
from rlhpo_core.production.answers import ask
from rlhpo_core.production.bootstrap import scores
from rlhpo_core.production.gate import Verdict, judge
from rlhpo_core.production.ledger import JUDGED, Candidate, Event, Record
from rlhpo_core.production.model_card import model_card
from rlhpo_core.production.registered_model import Desk
from rlhpo_core.report.study_report import log_report, make_report
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.production_settings import Event as Alert
from rlhpo_core.study.spec import StudySpec, WarmStartSpec, XGBoostSpec
from rlhpo_core.tracking.provenance import circumstances
from rlhpo_core.tracking.tracker import StudyTracker

_ALERTS: dict[Event, Alert] = {
    "first": "promoted", "promoted": "promoted", "kept": "kept", "vetoed": "kept", "refused": "kept",
    "skipped": "skipped", "failed": "failed", "rolled_back": "rolled_back",
}  # fmt: skip


class Look(Frozen):
    """What a retuning finds before it spends anything."""

    go: bool
    """Whether there is something to do."""
    reason: str
    digest: str
    """Of the current table."""
    champion: str | None = None
    champion_score: float | None = None
    """On the fresh holdout, in the objective's units."""
    rows: int = 0
    """Of the holdout that the champion has not seen."""
    drift: Drift | None = None
    """Against the champion's table; ``None`` without a champion, or if it does not say what it was trained on."""
    warm_start: WarmStartSpec | None = None


# -- before ----------------------------------------------------------------------------------------------------------


def look(spec: StudySpec, desk: Desk, force: bool = False, warn: Callable[[str], None] = print) -> Look:
    """Compare the current data with the champion's, and score the champion on it.

    If nothing is to be done that is recorded, and an alert sent where it is wanted.

    Raises: UserError if the study cannot be retuned, or if its data cannot be read.
    """
    table, parts = _table(spec)
    with desk.connection.open(timeout=60, retries=2):
        champion = promotion.champion_of(desk.client, desk.model)
    if champion is None:
        return Look(go=True, reason="there is no champion yet", digest=table.digest)
    with desk.served(champion) as served:
        one = served[champion]
        moved = None if one.profile is None else drift.compare(one.profile, drift.profile(table), spec.retune)
        found = Look(go=True, reason="", digest=table.digest, champion=champion, drift=moved)
        why = None if force else _nothing_to_do(spec, desk, champion, table.digest, moved)
        if why is not None:
            return _end(desk, spec, found, "skipped", why, warn)
        rows = holdout.unseen(table, parts.holdout, [one.seen])
        found = found.model_copy(update={"rows": len(rows)})
        if len(rows) < spec.gate.min_rows:
            why = (
                f"only {len(rows)} of {len(parts.holdout)} holdout rows are new to the champion, and gate.min_rows "
                f"asks for {spec.gate.min_rows}; the champion stays, and nothing is spent"
            )
            return _end(desk, spec, found, "refused", why, warn)
        answer = ask({f"the champion (version {champion})": (one.model, one.size)}, rows)
    (answers,) = answer.values()
    score = float(scores(spec.objective.metric, rows.target, answers.output, np.ones((1, len(rows))))[0])
    summary = moved.summary() if moved is not None else "the champion does not say which data it was trained on"
    return found.model_copy(
        update={
            "reason": "forced; " + summary if force else summary,
            "champion_score": score if np.isfinite(score) else None,
            "warm_start": _warm_start(spec, desk, table, champion, warn),
        }
    )


def _nothing_to_do(spec: StudySpec, desk: Desk, champion: str, digest: str, moved: Drift | None) -> str | None:
    if desk.tags(champion).get("rlhpo.data_digest") == digest or (moved is not None and moved.same):
        return "unchanged: the data is that of the champion"
    judged = [r for r in desk.ledger.records() if r.event in JUDGED and r.data_digest is not None]
    if judged and judged[-1].data_digest == digest:
        return f"unchanged: the data is that of the last retuning, which ended as {judged[-1].event}"
    if spec.retune.when == "drifted" and moved is not None and not (moved.drifted or moved.schema_changed):
        return f"unchanged: {moved.summary()}"
    return None


def _warm_start(
    spec: StudySpec, desk: Desk, table: Table, champion: str, warn: Callable[[str], None]
) -> WarmStartSpec | None:
    """From the latest study of this model whose files can be read, with the champion's configuration first."""
    with desk.connection.open(timeout=60, retries=2):
        versions = desk.client.search_model_versions(f"name = '{_quoted(desk.model)}'")
    tags = {int(version.version): version.tags for version in versions}
    given = tags[int(champion)].get("rlhpo.config")
    first = None if given is None else json.loads(given)
    if spec.warm_start is not None:
        given_first = spec.warm_start.first is not None
        return spec.warm_start if given_first else spec.warm_start.model_copy(update={"first": first})
    for version in sorted(tags, reverse=True):
        place = tags[version].get("rlhpo.store")
        if place is None:
            continue
        try:
            files = StudyFiles(open_store(place))
            if files.spec_or_none() is None:
                continue
        except UserError as error:
            warn(f"what version {version} has learnt cannot be read: {error}")
            continue
        with desk.served(str(version)) as served:
            then = served[str(version)].profile
        moved = 0.0 if then is None else drift.compare(then, drift.profile(table), spec.retune).moved
        return WarmStartSpec(study=place, moved=moved, first=first)
    return None if first is None else WarmStartSpec(first=first)


def _quoted(name: str) -> str:
    return name.replace("'", "\\'")


# -- after -----------------------------------------------------------------------------------------------------------


def conclude(
    spec: StudySpec, desk: Desk, files: StudyFiles, tracker: StudyTracker, found: Look, warn: Callable[[str], None]
) -> Record | None:
    """Judge the study's winner, promote it or keep the champion, and say so everywhere; ``None`` without a version.

    May be repeated: what was decided stays decided.

    Raises: UserError if the data is not what it was, or if MLflow or the store cannot be reached.
    """
    winner = files.record().winner
    if winner is None or winner.registered is None:
        return None
    version, study_id = winner.registered.rsplit(" ", 1)[1], files.record().study_id
    table, parts = _table(spec)
    if table.digest != found.digest:
        raise UserError("the table has changed while it was tuned on; nothing is decided, and the champion stays")
    desk.ledger.enter(Candidate(version=version, study_id=study_id, champion=found.champion))

    def judged(champion: str, challengers: Sequence[str]) -> Mapping[str, Verdict]:
        return verdicts(spec, desk, table, parts, champion, challengers, own=version)

    with desk.connection.open(timeout=120, retries=2):
        record = promotion.decide(desk.client, desk.ledger, version, study_id, table.digest, judged)
    decision = f"{record.event}: {record.reason}"
    files.write_record(files.record().model_copy(update={"decision": decision}))
    _publish(spec, desk, files, tracker, found, record)
    tell(spec, desk, record, warn)
    return record


def verdicts(
    spec: StudySpec, desk: Desk, table: Table, parts: Split, champion: str, challengers: Sequence[str], own: str
) -> dict[str, Verdict]:
    """What the gate says of each challenger, all on the rows of the holdout that none of them has seen.

    One of another study that cannot be loaded is left to its own process.
    """
    found: dict[str, Verdict] = {}
    for version in challengers:
        try:
            with desk.served(champion, version) as served:
                before, after = served[champion], served[version]
                rows = holdout.unseen(table, parts.holdout, [before.seen, after.seen])
                if len(rows) < spec.gate.min_rows:
                    found[version] = _too_few(spec, len(rows))
                    continue
                names = {"the champion": champion, "the challenger": version}
                models = {name: (served[v].model, served[v].size) for name, v in names.items()}
                answers = ask(models, rows)
        except UserError as error:
            if version != own:
                continue
            found[version] = _too_few(spec, 0).model_copy(update={"reason": str(error)})
            continue
        found[version] = judge(
            spec.objective.metric, rows.target, answers["the champion"], answers["the challenger"],
            holdout.slices(rows, spec.gate.slices), spec.gate, spec.seed, rivals=len(challengers),
        )  # fmt: skip
    return found


def _too_few(spec: StudySpec, rows: int) -> Verdict:
    return Verdict(
        decision="refuse", metric=spec.objective.metric, rows=rows, confidence=spec.gate.confidence,
        reason=f"{rows} rows are too few to decide; gate.min_rows asks for {spec.gate.min_rows}",
    )  # fmt: skip


def _publish(
    spec: StudySpec, desk: Desk, files: StudyFiles, tracker: StudyTracker, found: Look, record: Record
) -> None:
    """The decision in the study's run, its report, and the version's description."""
    version, winner = record.challenger, files.record().winner
    trial = files.trial(winner.trial_id) if winner is not None else None
    if winner is not None and trial is not None and version is not None:
        card = model_card(spec, tracker.study_id, trial, winner.holdout, tracker.rows(), found.digest, record)
        tracker.log_artifact_bytes("model_card.md", card.encode())
        with desk.connection.open(timeout=60, retries=2):
            desk.client.update_model_version(desk.model, version, card)
    tracker.log_artifact_bytes("decision.json", record.model_dump_json(indent=1).encode())
    if found.drift is not None:
        tracker.log_artifact_bytes("drift.json", found.drift.model_dump_json(indent=1).encode())
    values: dict[str, float | None] = {"champion.holdout": found.champion_score}
    if found.drift is not None:
        values["data.moved"] = found.drift.moved
    if record.verdict is not None:
        values |= {f"gate.{name}": getattr(record.verdict, name) for name in ("gain", "low", "high", "rows")}
    tracker.log_metrics({name: value for name, value in values.items() if value is not None})
    tracker.tag({"rlhpo.decision": record.event, "rlhpo.reason": record.reason})
    log_report(tracker, make_report(files, spec))


# -- both ------------------------------------------------------------------------------------------------------------


@contextmanager
def failures_told(spec: StudySpec, desk: Desk, warn: Callable[[str], None]) -> Iterator[None]:
    """Record that a retuning failed, and send the alert, before the error goes on."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        tell(spec, desk, desk.ledger.add(_record(desk, "failed", lines[0][:500])), warn)
        raise


def tell(spec: StudySpec, desk: Desk, record: Record, warn: Callable[[str], None]) -> None:
    """Send the alerts that a record gives cause for."""
    content = {"model": record.model, "reason": record.reason, "record": record.model_dump(mode="json")}
    alerts.send(spec.alerts, _ALERTS[record.event], content, warn)
    keeps = desk.ledger.keeps_in_row() if record.event in ("kept", "vetoed", "refused") else 0
    if keeps and keeps % spec.alerts.keeps == 0:
        reason = f"the champion of {record.model} was kept {keeps} times in a row"
        alerts.send(spec.alerts, "keeps_in_row", {"model": record.model, "reason": reason, "keeps": keeps}, warn)


def _end(desk: Desk, spec: StudySpec, found: Look, event: Event, why: str, warn: Callable[[str], None]) -> Look:
    record = _record(desk, event, why).model_copy(
        update={"data_digest": found.digest, "champion_before": found.champion, "champion": found.champion}
    )
    tell(spec, desk, desk.ledger.add(record), warn)
    return found.model_copy(update={"go": False, "reason": why})


def _record(desk: Desk, event: Event, reason: str) -> Record:
    return Record(event=event, model=desk.model, reason=reason, **circumstances())


def _table(spec: StudySpec) -> tuple[Table, Split]:
    if spec.data is None or not isinstance(spec.evaluator, XGBoostSpec):
        raise UserError("a retuning needs a table and an evaluator that trains a model on it (kind: xgboost)")
    table = load_table(spec.data, spec.seed)
    return table, split(table, spec.data, spec.seed)

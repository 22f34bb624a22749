"""A registered version in words: what it is, what it was trained on, how well it does, and what was decided."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rlhpo_core import __version__
from rlhpo_core.production.ledger import Record
from rlhpo_core.report.markdown import escaped, table
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Trial

#: MLflow keeps no longer description of a version.
_MOST = 4900


def model_card(
    spec: StudySpec,
    study_id: str,
    trial: Trial,
    holdout: Mapping[str, float],
    rows: Mapping[str, int],
    digest: str,
    record: Record | None = None,
) -> str:
    """Markdown of at most 4900 characters.

    Args:
        trial: The one that the version was refitted from.
        holdout: Metric to score of the refitted model.
        rows: How many rows each part of the data has: ``train``, ``validation``, ``holdout``.
        digest: Of the table.
        record: The decision about the version, once there is one.
    """
    source = spec.data.path.name if spec.data is not None else "the user's own"
    facts = [
        ("study", f"{spec.name} ({study_id}), trial {trial.proposal.number + 1}"),
        ("trained on", f"{source}, digest {digest}: {rows.get('train', 0) + rows.get('validation', 0)} rows"),
        ("target", (spec.data.target or "y") if spec.data is not None else ""),
        ("chosen by", f"{spec.objective.metric} on {rows.get('validation', 0)} validation rows"),
        *((f"holdout {name}", f"{value:.6g}") for name, value in holdout.items()),
        ("made by", f"rlhpo {__version__}, seed {spec.seed}"),
    ]
    parts = [f"# {spec.registry.model or spec.name}", table(("", ""), [row for row in facts if row[1]])]
    if record is not None:
        parts += ["## Decision", _decision(record)]
    parts += ["## Hyperparameters", table(("name", "value"), [(k, f"{v}") for k, v in trial.config.items()])]
    parts += [
        "## Limits",
        "It has been judged on rows like those of its table. On others it may do worse, and for groups of rows that "
        "are rare in the table its scores say little. Text that training has not seen counts as missing.",
    ]
    card = "\n\n".join(parts) + "\n"
    return card if len(card) <= _MOST else card[:_MOST].rsplit("\n", 1)[0] + "\n\n(cut short)\n"


def _decision(record: Record) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.at))
    lines = [f"**{record.outcome}** on {moment} by {escaped(record.by)}: {escaped(record.reason)}."]
    verdict = record.verdict
    if verdict is not None and (measured := verdict.measured) is not None:
        rows = [
            (f"champion (version {record.champion_before})", f"{measured.champion:.6g}"),
            ("this version", f"{measured.challenger:.6g}"),
            ("gain", f"{measured.gain:.4g}, from {measured.low:.4g} to {measured.high:.4g}"),
            ("margin, confidence", f"{measured.margin:g}, {100 * verdict.confidence:g} %"),
            ("rows that neither has seen", str(verdict.rows)),
            *((guard.name, f"{guard.challenger:.4g} ({guard.champion:.4g})") for guard in verdict.guards),
        ]
        lines.append(table((verdict.metric, ""), rows))
    return "\n\n".join(lines)

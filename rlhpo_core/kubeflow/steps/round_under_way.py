"""The round that a study is in: its proposals, as KFP takes them, and whether there is anything left to train."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhpo_core.evaluators.protocol import DataDescription
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Proposal

# Slow to import: torch.
if TYPE_CHECKING:
    from rlhpo_core.tuner.state import TunerState

#: Takes the place of a proposal when the budget is spent: a loop over no items would fail.
NOTHING = ""
#: Trials whose files are read in less time than torch is imported.
_FEW = 100
#: Whether another round follows: what the pipeline's conditions compare with.
MORE, OVER = "yes", "no"


def begun(files: StudyFiles, spec: StudySpec, data: DataDescription | None) -> TunerState:
    """The state of the study, which is begun if it has not.

    Raises: UserError if another study lies there, or one of another table.
    """
    from rlhpo_core.execution.beginning import begin_study

    table = None if data is None else data.digest
    if not files.claim(StudyRecord.new(spec, table)):
        files.check_unchanged(spec)
        files.check_table(table)
    if data is not None:
        files.claim_schema(data.schema)
    return begin_study(files, spec)


def proposed(files: StudyFiles, spec: StudySpec, state: TunerState) -> tuple[list[str], str]:
    """As ``propose``, with MORE or OVER."""
    from rlhpo_core.storage import proposals
    from rlhpo_core.tuner import algorithm

    if _more(files, spec, state.history) == OVER:
        return [NOTHING], OVER
    made = proposals.read(files.store, state.round)
    if made is None:
        made = proposals.claim(files.store, state.round, algorithm.propose(state))
    return _handed_out(spec, len(state.history), made), MORE


def made_before(files: StudyFiles, spec: StudySpec, state: Path) -> list[str] | None:
    """As ``propose``, if the round's proposals are in the store and few trials came before it; ``None`` otherwise.

    The trials' files then tell whether the budget is spent. Nothing here takes the import of torch.
    """
    from rlhpo_core import tensor_document
    from rlhpo_core.storage import proposals

    document = tensor_document.glance(state.read_bytes()) if state.is_file() else None
    try:
        round_, known = int(document["round"]), int(document["history"]["trials"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None  # To read it whole says what is wrong with it.
    if known > _FEW or (made := proposals.read(files.store, round_)) is None:
        return None
    history = files.history_of_files()
    earlier = tuple(trial for trial in history.trials if trial.proposal.round < round_)
    if len(earlier) != known:
        return None
    if _more(files, spec, history.model_copy(update={"trials": earlier})) == OVER:
        return [NOTHING]
    return _handed_out(spec, known, made)


def _handed_out(spec: StudySpec, trials: int, made: Sequence[Proposal]) -> list[str]:
    """Of a round's proposals those for which budget is left after so many trials."""
    return [_for_kfp(proposal) for proposal in made[: spec.budget.trials - trials]]


def _for_kfp(proposal: Proposal) -> str:
    """A proposal as JSON in ASCII, and without two braces side by side.

    KFP's database need not hold every character, and two braces begin what Argo takes for a template.
    """
    text = json.dumps(proposal.model_dump(mode="json"), separators=(",", ":"))
    return text.replace("{{", r"\u007b\u007b")


def _more(files: StudyFiles, spec: StudySpec, history: History) -> str:
    """MORE if another round is to follow these trials; OVER if the budget is spent or a stop was asked for."""
    over = files.stop_requested() or spent(spec.budget, history, files.record().seconds) is not None
    return OVER if over else MORE

"""Let the gate decide whether a retuning's winner becomes champion."""

from kfp import dsl
from kfp.dsl import Markdown, Metrics, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retune_decide(
    study: str,
    store: str,
    model_store: str,
    look: str,
    winner: str,
    note: Output[Markdown],
    decision: Output[Metrics],
    table_source: str = "",
):  # type: ignore[no-untyped-def]
    """Let the gate decide whether a retuning's winner becomes champion; promote it, or keep the champion.

    Args:
        study: The study of retune_check.
        store: Where the files of this retuning live.
        model_store: Place of the model, as given to retune_check.
        look: What retune_check has found.
        winner: What register_best has registered; its end is what this step waits for.
        note: The decision and its reason.
        decision: The scores, the gain and its interval.
        table_source: As given to retune_check; the table must be the same.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import retune_steps

    found = retune_steps.decide(study, store, model_store, table_source, look, Path(note.path))
    for name, value in found.items():
        decision.log_metric(name, value)

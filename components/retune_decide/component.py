"""Decide at the gate whether a retuning's winner becomes champion."""

from kfp import dsl
from kfp.dsl import Markdown, Metrics, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retune_decide(
    store: str,
    model_store: str,
    winner: str,
    note: Output[Markdown],
    decision: Output[Metrics],
    table_source: str = "",
    kfp_run: str = "",
):  # type: ignore[no-untyped-def]
    """Decide at the gate whether a retuning's winner becomes champion; promote it, or keep the champion.

    Args:
        store: Where the files of this retuning are, from retune_check.
        model_store: The model's place, as given to retune_check.
        winner: What register_best registered, which this step waits for.
        note: The decision and its reason.
        decision: The scores, the gain and its interval.
        table_source: As given to retune_check. The table must be the same.
        kfp_run: As given to retune_check.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import retuning

    decision.metadata.update(retuning.decide(store, model_store, table_source, Path(note.path), kfp_run))

"""Refit the best trial, score it on the holdout, register it and report."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_best(
    study: str,
    store: str,
    state: Input[Model],
    table: Input[Dataset],
    table_name: str,
    report: Output[HTML],
    note: Output[Markdown],
) -> str:
    """Refit the best trial, score it on the holdout, register it and report; while budget is left, only report.

    Args:
        study: The study file's text, YAML or JSON.
        store: Where the study's files live.
        state: The state after the last round; its end is what this step waits for.
        table: The table of data_prep.
        table_name: The table's file name, whose ending tells its format.
        report: The study on one page, with pictures.
        note: The study in short.

    Returns:
        Name and version of the registered model; empty if none was registered.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    return steps.conclude(study, store, Path(table.path), table_name, Path(report.path), Path(note.path))

"""Refit the best trial, score it on the holdout and register it."""

from kfp import dsl
from kfp.dsl import Dataset, Input

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_best(store: str, table: Input[Dataset], table_name: str) -> str:
    """Refit the best trial, score it on the holdout and register it. Does nothing while budget is left.

    Args:
        store: Where the study's files are, study.yaml among them.
        table: The table from data_prep.
        table_name: The table's file name; its suffix says which format it has.

    Returns:
        Name and version of the registered model; empty if none was registered.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import tuning

    return tuning.conclude(store, Path(table.path), table_name)

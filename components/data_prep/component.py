"""Check a study and its table, and hand out the state from which the study goes on."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def data_prep(
    study: str,
    store: str,
    table: Output[Dataset],
    state: Output[Model],
    table_source: str = "",
    log_trials: bool = True,
) -> NamedTuple("Outputs", run_id=str, table_name=str):  # type: ignore[valid-type]
    """Check a study and its table, and hand out the state from which the study goes on.

    Args:
        study: The study file's text, YAML or JSON.
        store: Where the study's files live: s3://bucket/prefix, or a folder that all steps share.
        table: The table, as it was read.
        state: The tuner's state: new, or where an earlier run of the study has left it.
        table_source: A path or s3:// address that takes the place of data.path in the study.
        log_trials: Whether the steps log trials as they finish; if not, who watches the store does.

    Returns:
        run_id: The study's run in MLflow, to which further steps log; empty if they should not.
        table_name: The table's file name, whose ending tells its format.
    """
    from collections import namedtuple
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    found = steps.prepare(study, store, table_source, Path(table.path), Path(state.path), log_trials)
    table.metadata.update({"rows": found.rows, "digest": found.digest, "file": found.table_name})
    return namedtuple("Outputs", ["run_id", "table_name"])(found.run_id, found.table_name)

"""Check a study and its table, and provide the state from which the study continues."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def data_prep(
    store: str,
    table: Output[Dataset],
    state: Output[Model],
    table_source: str = "",
    log_trials: bool = True,
    kfp_run: str = "",
) -> NamedTuple("Outputs", run_id=str, table_name=str, proposals=list[str], more=str, open=str):  # type: ignore[valid-type]
    """Check a study and its table, and provide the state from which the study continues.

    Args:
        store: Where the study's files are, study.yaml among them: s3://bucket/prefix, or a folder that all steps share.
        table: The table as it was read.
        state: The tuner's state: new, or as an earlier run of the study left it.
        table_source: A path or s3:// address, used in place of data.path in the study.
        log_trials: Whether the steps log finished trials in MLflow; if not, the process that watches the store does.
        kfp_run: This run's id in KFP, for which the study is held until its end; empty if the caller sees to that.

    Returns:
        run_id: The study's run in MLflow, to which later steps log; empty if they should not.
        table_name: The table's file name; its suffix says which format it has.
        proposals: The proposals of the round under way, as agent_proposal returns them.
        more: "yes" if there is something to train, "no" if the budget is spent or a stop was asked for.
        open: "no" if the study is at its end and its winner registered, so that nothing is left to do; else "yes".
    """
    from collections import namedtuple
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import tuning

    found = tuning.prepare(store, table_source, Path(table.path), Path(state.path), log_trials, kfp_run)
    outputs = namedtuple("Outputs", ["run_id", "table_name", "proposals", "more", "open"])
    return outputs(found.run_id, found.table_name, found.proposals, found.more, found.open)

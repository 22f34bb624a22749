"""Train and score one proposal."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluator_training(
    study: str,
    proposal: str,
    table: Input[Dataset],
    table_name: str,
    trial: Output[Artifact],
    metrics: Output[Metrics],
    store: str = "",
    run_id: str = "",
):
    """Train and score one proposal. A failed trial is a result; the task and the pipeline go on.

    Args:
        study: The text of the study file, YAML or JSON.
        proposal: One document from agent_proposal; empty if there is nothing to train.
        table: The table from data_prep.
        table_name: The table's file name; its suffix says which format it has.
        trial: The finished trial as JSON; empty if there was nothing to train.
        metrics: The trial's value and other scores.
        store: Where the study's files are. A trial that exists there is not trained again.
        run_id: The study's run in MLflow; empty to log nothing.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    finished = steps.train(study, store, run_id, proposal, Path(table.path), table_name, Path(trial.path))
    if finished is not None:
        trial.metadata.update({"trial": finished.proposal.number + 1, "status": str(finished.status)})
        if finished.value is not None:
            metrics.log_metric("objective", finished.value)
        for name, value in finished.metrics.items():
            metrics.log_metric(name, value)

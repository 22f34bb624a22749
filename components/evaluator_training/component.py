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
    """Train and score one proposal. A trial that fails is a result: it ends neither the task nor the pipeline.

    Args:
        study: The study file's text, YAML or JSON.
        proposal: One document of agent_proposal; empty if there is nothing to train.
        table: The table of data_prep.
        table_name: The table's file name, whose ending tells its format.
        trial: The finished trial as JSON; empty if there was nothing to train.
        metrics: The trial's value and other scores.
        store: Where the study's files live; a trial that is there already is not trained again.
        run_id: The study's run in MLflow; empty to log nothing.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    found = steps.train(study, store, run_id, proposal, Path(table.path), table_name, Path(trial.path))
    if found is not None:
        trial.metadata.update({"trial": found.proposal.number + 1, "status": str(found.status)})
        if found.value is not None:
            metrics.log_metric("objective", found.value)
        for name, value in found.metrics.items():
            metrics.log_metric(name, value)

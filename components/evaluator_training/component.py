"""Train and score one proposal."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluator_training(
    store: str,
    proposal: str,
    table: Input[Dataset],
    table_name: str,
    trial: Output[Artifact],
    metrics: Output[Metrics],
    run_id: str = "",
):
    """Train and score one proposal. A failed trial is a result; the task and the pipeline go on.

    Args:
        store: Where the study's files are, study.yaml among them. A trial that exists there is not trained again.
        proposal: One document from agent_proposal; empty if there is nothing to train.
        table: The table from data_prep.
        table_name: The table's file name; its suffix says which format it has.
        trial: The finished trial as JSON; empty if there was nothing to train.
        metrics: The trial's number, its value and other scores.
        run_id: The study's run in MLflow; empty to log nothing.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import tuning

    found = tuning.train(store, run_id, proposal, Path(table.path), table_name, Path(trial.path))
    metrics.metadata.update(tuning.scores(found))

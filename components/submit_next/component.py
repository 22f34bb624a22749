"""Start the run that continues a study while budget is left."""

from kfp import dsl
from kfp.dsl import Input, Model

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def submit_next(store: str, start: Input[Model], kfp_run: str, further_runs: int) -> str:
    """Start the run that continues a study, a copy of this one. Does nothing when the budget is spent.

    At most one run follows, however often the step is repeated, and none if this run finished no round.

    Args:
        store: Where the study's files are, study.yaml among them.
        start: The state from data_prep, with which this run began.
        kfp_run: This run's id in KFP.
        further_runs: How many runs may follow this one. The next run gets one fewer.

    Returns:
        The next run's id in KFP; empty if none was started.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    return steps.submit_next(store, Path(start.path), kfp_run, further_runs)

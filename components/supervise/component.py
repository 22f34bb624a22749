"""Look whether a study goes on, and start it again if its run died without sending the next."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def supervise(store: str, schedule: str) -> str:
    """Look whether a study goes on, and start it again if its run died without sending the next.

    For use in a recurring run, which is paused once the study is at its end, was stopped, or is given up.

    Args:
        store: Where the study's files are, study.yaml among them.
        schedule: Name of the recurring run.

    Returns:
        What was found, for a person to read.
    """
    from rlhpo_core.kubeflow.steps import chain

    return chain.supervise(store, schedule)

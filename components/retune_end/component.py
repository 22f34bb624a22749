"""At the end of a retuning's run, also of one that failed: record a failure that nobody has recorded."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retune_end(store: str, kfp_run: str) -> str:
    """At the end of a retuning's run, also of one that failed: record a failure that nobody has recorded.

    If the run came neither to a decision nor to a reason to do nothing, the model's log gets a record, and the alert is
    sent. For use as an exit task (dsl.ExitHandler).

    Args:
        store: The model's place, as given to retune_check.
        kfp_run: This run's id in KFP, as given to retune_check.

    Returns:
        What was recorded; empty if the run had come to its end.
    """
    from rlhpo_core.kubeflow.steps import retuning

    return retuning.end(store, kfp_run)

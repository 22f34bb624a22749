"""Compare the current data of a deployed model with the champion's data, and score the champion on it."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from components import IMAGE

# All outputs but the action are files: KFP's local runner can only branch on a step that returns a single value.


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retune_check(
    store: str,
    note: Output[Markdown],
    tuned_store: dsl.OutputPath(str),  # type: ignore[valid-type]
    table_source: str = "",
    force: bool = False,
    kfp_run: str = "",
) -> str:
    """Compare the current data of a deployed model with the champion's data, and score the champion on it.

    Args:
        store: The model's place: s3://bucket/prefix, or a folder that all steps share. Its study.yaml says how the
            model is tuned, and names the registered model.
        note: A summary of the comparison.
        tuned_store: Where the files of this retuning are: the study as it is to be tuned, and what was found.
        table_source: A path or s3:// address of the current table, in place of data.path in the study.
        force: Whether to tune even if nothing has changed.
        kfp_run: This run's id in KFP, if retune_end follows.

    Returns:
        "tune" if the study should run, else "stop".
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import retuning

    found = retuning.check(store, table_source, force, Path(note.path), kfp_run)
    Path(tuned_store).write_text(found.store, encoding="utf-8")
    return found.action

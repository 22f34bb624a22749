"""Compare the current data of a deployed model with the champion's, and score the champion on it."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from components import IMAGE

# What it hands on beside the action goes through files: KFP's local runner can decide only by a step's single value.


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retune_check(
    study: str,
    store: str,
    note: Output[Markdown],
    tuned_study: dsl.OutputPath(str),  # type: ignore[valid-type]
    tuned_store: dsl.OutputPath(str),  # type: ignore[valid-type]
    look: dsl.OutputPath(str),  # type: ignore[valid-type]
    table_source: str = "",
    force: bool = False,
) -> str:
    """Compare the current data of a deployed model with the champion's, and score the champion on it.

    Args:
        study: The study file's text, YAML or JSON; it names the registered model.
        store: Place of the model: s3://bucket/prefix, or a folder that all steps share.
        note: What was found, in short.
        tuned_study: The study with what it starts from.
        tuned_store: Where the files of this retuning live.
        look: All that was found, as JSON.
        table_source: A path or s3:// address of the current table, in place of data.path in the study.
        force: Whether to tune even if nothing has changed.

    Returns:
        "tune" if there is something to do, else "stop".
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import retune_steps

    found = retune_steps.check(study, store, table_source, force, Path(note.path))
    for path, text in ((tuned_study, found.study), (tuned_store, found.store), (look, found.look)):
        Path(path).write_text(text, encoding="utf-8")
    return found.action

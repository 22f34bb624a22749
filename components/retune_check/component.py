"""Compare the current data of a deployed model with the champion's data, and score the champion on it."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from components import IMAGE

# All outputs but the action are files: KFP's local runner can only branch on a step that returns a single value.


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retune_check(
    study: str,
    store: str,
    note: Output[Markdown],
    tuned_study: dsl.OutputPath(str),  # type: ignore[valid-type]
    tuned_store: dsl.OutputPath(str),  # type: ignore[valid-type]
    findings: dsl.OutputPath(str),  # type: ignore[valid-type]
    table_source: str = "",
    force: bool = False,
) -> str:
    """Compare the current data of a deployed model with the champion's data, and score the champion on it.

    Args:
        study: The text of the study file, YAML or JSON; it names the registered model.
        store: The model's place: s3://bucket/prefix, or a folder that all steps share.
        note: A summary of the comparison.
        tuned_study: The study, completed with what it starts from.
        tuned_store: Where the files of this retuning are.
        findings: The whole comparison as JSON.
        table_source: A path or s3:// address of the current table, in place of data.path in the study.
        force: Whether to tune even if nothing has changed.

    Returns:
        "tune" if the study should run, else "stop".
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import retune_steps

    checked = retune_steps.check(study, store, table_source, force, Path(note.path))
    for path, text in ((tuned_study, checked.study), (tuned_store, checked.store), (findings, checked.findings)):
        Path(path).write_text(text, encoding="utf-8")
    return checked.action

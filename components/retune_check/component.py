"""Compare the current data of a deployed model with the champion's, and score the champion on it."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Markdown, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retune_check(
    study: str,
    store: str,
    note: Output[Markdown],
    table_source: str = "",
    force: bool = False,
) -> NamedTuple("Outputs", Output=str, study=str, store=str, look=str):  # type: ignore[valid-type]
    """Compare the current data of a deployed model with the champion's, and score the champion on it.

    Args:
        study: The study file's text, YAML or JSON; it names the registered model.
        store: Place of the model: s3://bucket/prefix, or a folder that all steps share.
        note: What was found, in short.
        table_source: A path or s3:// address of the current table, in place of data.path in the study.
        force: Whether to tune even if nothing has changed.

    Returns:
        Output: "tune" if there is something to do, else "stop".
        study: The study with what it starts from.
        store: Where the files of this retuning live.
        look: All that was found, as JSON.
    """
    from collections import namedtuple
    from pathlib import Path

    from rlhpo_core import retune_steps

    found = retune_steps.check(study, store, table_source, force, Path(note.path))
    # KFP's local runner decides by no output of another name.
    outputs = namedtuple("Outputs", ["Output", "study", "store", "look"])
    return outputs(found.action, found.study, found.store, found.look)

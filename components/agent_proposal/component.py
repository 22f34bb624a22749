"""Let the agent propose a round's configurations."""

from kfp import dsl
from kfp.dsl import Input, Model

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def agent_proposal(study: str, store: str, state: Input[Model]) -> list[str]:
    """Let the agent propose a round's configurations.

    Args:
        study: The study file's text, YAML or JSON.
        store: Where the study's files live.
        state: The tuner's state.

    Returns:
        One JSON document for each proposal; a single empty text once the study's budget is spent.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    return steps.propose(study, store, Path(state.path))

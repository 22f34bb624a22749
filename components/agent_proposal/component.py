"""Propose the configurations of a round."""

from kfp import dsl
from kfp.dsl import Input, Model

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def agent_proposal(store: str, state: Input[Model]) -> list[str]:
    """Propose the configurations of a round.

    Args:
        store: Where the study's files are, study.yaml among them.
        state: The tuner's state.

    Returns:
        One JSON document per proposal; a single empty string when the study's budget is spent.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import tuning

    return tuning.propose(store, Path(state.path))

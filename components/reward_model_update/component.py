"""Add a round's trials to the history and fit the reward model."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def reward_model_update(
    previous: Input[Model],
    trials: Input[list[Artifact]],
    state: Output[Model],
    metrics: Output[Metrics],
):
    """Add a round's trials to the history and fit the reward model.

    Args:
        previous: The state from which the round was proposed.
        trials: The round's trials, from evaluator_training.
        state: The state with the trials and the fitted model.
        metrics: How well the model predicts held-out trials.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import tuning

    paths = [Path(trial.path) for trial in trials]
    metrics.metadata.update(tuning.fit_reward_model(Path(previous.path), paths, Path(state.path)))

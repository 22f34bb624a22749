"""Add a round's trials to the history and fit the reward model."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def reward_model_update(
    state: Input[Model],
    trials: Input[list[Artifact]],
    updated: Output[Model],
    metrics: Output[Metrics],
):
    """Add a round's trials to the history and fit the reward model.

    Args:
        state: The state from which the round was proposed.
        trials: The round's trials, from evaluator_training.
        updated: The state with the trials and the fitted model.
        metrics: How well the model predicts held-out trials.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    paths = [Path(trial.path) for trial in trials]
    for name, value in steps.fit_reward_model(Path(state.path), paths, Path(updated.path)).items():
        metrics.log_metric(name, value)

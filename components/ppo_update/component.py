"""Update the policy by PPO on real and imagined trials, and end the round."""

from kfp import dsl
from kfp.dsl import Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ppo_update(
    study: str,
    store: str,
    state: Input[Model],
    updated: Output[Model],
    metrics: Output[Metrics],
    run_id: str = "",
):
    """Update the policy by PPO on real and imagined trials, end the round, and save the state.

    Args:
        study: The text of the study file, YAML or JSON.
        store: Where the study's files are.
        state: The state from reward_model_update.
        updated: The state at the start of the next round.
        metrics: The round's summary: best value so far, entropy, KL divergence, number of imagined updates.
        run_id: The study's run in MLflow; empty to log nothing.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow import steps

    summary = steps.update_policy(study, store, run_id, Path(state.path), Path(updated.path))
    for name, value in summary.items():
        metrics.log_metric(name, value)

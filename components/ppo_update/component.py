"""Update the policy by PPO on real and imagined trials, and end the round."""

from kfp import dsl
from kfp.dsl import Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ppo_update(
    store: str,
    previous: Input[Model],
    state: Output[Model],
    metrics: Output[Metrics],
    run_id: str = "",
) -> str:
    """Update the policy by PPO on real and imagined trials, end the round, and save the state.

    Args:
        store: Where the study's files are, study.yaml among them.
        previous: The state from reward_model_update.
        state: The state at the start of the next round.
        metrics: The round's summary: best value so far, entropy, KL divergence, number of imagined updates.
        run_id: The study's run in MLflow; empty to log nothing.

    Returns:
        "yes" if another round is to follow, "no" if the budget is spent or a stop was asked for.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import tuning

    end = tuning.update_policy(store, run_id, Path(previous.path), Path(state.path))
    metrics.metadata.update(end.summary)
    return end.more

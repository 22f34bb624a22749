"""End a round and begin the next: reward_model_update, ppo_update and agent_proposal in one step."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def learn_and_propose(
    store: str,
    previous: Input[Model],
    trials: Input[list[Artifact]],
    state: Output[Model],
    metrics: Output[Metrics],
    run_id: str = "",
) -> NamedTuple("Outputs", proposals=list[str], more=str):  # type: ignore[valid-type]
    """End a round and begin the next: reward_model_update, ppo_update and agent_proposal in one step.

    Args:
        store: Where the study's files are, study.yaml among them.
        previous: The state from which the round was proposed.
        trials: The round's trials, from evaluator_training.
        state: The state at the start of the next round.
        metrics: How well the reward model predicts held-out trials, and the round's summary.
        run_id: The study's run in MLflow; empty to log nothing.

    Returns:
        proposals: One JSON document per proposal of the next round; a single empty string when there is none.
        more: "yes" if there is something to train, "no" if the budget is spent or a stop was asked for.
    """
    from collections import namedtuple
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import tuning

    found = tuning.learn(store, run_id, Path(previous.path), [Path(trial.path) for trial in trials], Path(state.path))
    metrics.metadata.update(found.values)
    return namedtuple("Outputs", ["proposals", "more"])(found.proposals, found.more)

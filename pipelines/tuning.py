"""What the pipelines have in common: a chunk of rounds, with what comes before and after it.

KFP has no loop that carries state, so rounds are unrolled when a pipeline is compiled. Each round stands inside a
condition of the one before it, so once the budget is spent one pod stands for all that is left.
"""

from contextlib import ExitStack
from dataclasses import dataclass

from kfp import dsl
from kfp.dsl import Dataset, Input, Model
from kfp.dsl.base_component import BaseComponent

from components.agent_proposal.component import agent_proposal
from components.data_prep.component import data_prep
from components.evaluator_training.component import evaluator_training
from components.learn_and_propose.component import learn_and_propose
from components.ppo_update.component import ppo_update
from components.register_best.component import register_best
from components.reward_model_update.component import reward_model_update
from pipelines.pods import Late, Pods
from rlhpo_core.execution.engines import Steps
from rlhpo_core.kubeflow.steps.round_under_way import MORE
from rlhpo_core.study.cluster_settings import STANDARD, ClusterSpec

#: Of a run anywhere. How many fit into what Argo holds depends on the trials in each: `pipelines.workflow_size`.
MOST_ROUNDS = 20


@dataclass(frozen=True)
class Shape:
    """What is fixed when a pipeline is compiled.

    Raises: ValueError if a number is out of range.
    """

    rounds: int
    """1 to MOST_ROUNDS."""
    trials_per_round: int
    """As in the study; how many pods a round needs at most. The first rounds may have fewer proposals to loop over."""
    parallelism: int = 0
    """Trials at once; 0 for all of a round."""
    accelerator: bool = False
    """Whether trials, and the winner's refit, ask for the accelerator that ``cluster`` names."""
    cluster: ClusterSpec | None = STANDARD
    """What the pods are given; ``None`` for KFP's local runner, which has no pods."""
    pull_secret: str | None = None
    """As for ``Pods``."""
    steps: Steps = Steps.FIVE
    """How a round is divided. KFP's local runner knows conditions on a step's only output alone: it takes FIVE."""

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise ValueError(
                f"a run holds 1 to {MOST_ROUNDS} rounds, not {self.rounds}; continue the study in a further run"
            )
        if self.trials_per_round < 1 or self.parallelism < 0:
            raise ValueError("a round has at least one trial, and parallelism is 0 (all at once) or more")

    def pods(self, image: Late, config_map: Late, store_secret: Late, mlflow_secret: Late) -> Pods:
        """The pods of such a pipeline."""
        return Pods(image, config_map, store_secret, mlflow_secret, self.cluster, self.accelerator, self.pull_secret)


def build_rounds(shape: Shape) -> BaseComponent:
    """A nested pipeline of rounds: nothing outside may refer to a task inside a condition."""
    at_once = min(shape.parallelism or shape.trials_per_round, shape.trials_per_round)

    @dsl.pipeline(name="rounds")
    def all_rounds(
        store: str,
        run_id: str,
        table_name: str,
        proposals: list,
        more: str,
        table: Input[Dataset],
        state: Input[Model],
        image: str,
        config_map: str,
        store_secret: str,
        mlflow_secret: str,
    ):  # type: ignore[no-untyped-def]
        pods = shape.pods(image, config_map, store_secret, mlflow_secret)
        with ExitStack() as rest:
            for number in range(shape.rounds):
                rest.enter_context(dsl.If(more == MORE, name=f"round {number + 1}"))
                if shape.steps is Steps.FIVE:
                    proposed = agent_proposal(store=store, state=state)
                    pods.place(proposed, "propose")
                    proposals = proposed.output
                with dsl.ParallelFor(proposals, parallelism=at_once) as proposal:
                    training = evaluator_training(
                        store=store, run_id=run_id, proposal=proposal, table=table, table_name=table_name
                    )
                    pods.place(training, "train", trains=True)
                trials = dsl.Collected(training.outputs["trial"])
                if shape.steps is Steps.COMPACT:
                    learnt = learn_and_propose(store=store, run_id=run_id, previous=state, trials=trials)
                    pods.place(learnt, "learn and propose")
                    state, more, proposals = (learnt.outputs[name] for name in ("state", "more", "proposals"))
                else:
                    fitted = reward_model_update(previous=state, trials=trials)
                    pods.place(fitted, "fit reward model")
                    updated = ppo_update(store=store, run_id=run_id, previous=fitted.outputs["state"])
                    pods.place(updated, "update policy")
                    state, more = updated.outputs["state"], updated.outputs["Output"]

    return all_rounds


def prepare(pods: Pods, store: Late, table_source: Late, log_trials: Late | bool = True) -> dsl.PipelineTask:
    """Place the first task of a chunk."""
    kfp_run = dsl.PIPELINE_JOB_ID_PLACEHOLDER if pods.spec is not None else ""
    data = data_prep(store=store, table_source=table_source, log_trials=log_trials, kfp_run=kfp_run)
    return pods.place(data, "prepare data")


def tune(
    rounds: BaseComponent, pods: Pods, store: Late, data: dsl.PipelineTask, registry_secret: Late
) -> dsl.PipelineTask:
    """Place the other tasks of a chunk: the rounds, and what registers the winner; returns the last.

    Args:
        rounds: From ``build_rounds``.
        data: From ``prepare``.
    """
    turns = rounds(
        store=store,
        run_id=data.outputs["run_id"],
        table_name=data.outputs["table_name"],
        proposals=data.outputs["proposals"],
        more=data.outputs["more"],
        table=data.outputs["table"],
        state=data.outputs["state"],
        image=pods.image,
        config_map=pods.config_map,
        store_secret=pods.store_secret,
        mlflow_secret=pods.mlflow_secret,
    )
    best = register_best(store=store, table=data.outputs["table"], table_name=data.outputs["table_name"])
    best.after(turns)
    return pods.place(best, "register best", trains=True, registry_secret=registry_secret)

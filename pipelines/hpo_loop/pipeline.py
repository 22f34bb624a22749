"""The looping pipeline. KFP has no loop that carries state, so rounds are unrolled when it is compiled.

One run holds a chunk of a study; the state lies in the study's store after every round, so the next run goes on from
there. Each round stands inside a condition of the one before it, so once the budget is spent one pod stands for all
that is left. The last step sends the next run while budget is left.
"""

from contextlib import ExitStack

from kfp import dsl
from kfp.dsl import Dataset, Input, Model
from kfp.dsl.base_component import BaseComponent

from components import IMAGE
from components.agent_proposal.component import agent_proposal
from components.data_prep.component import data_prep
from components.evaluator_training.component import evaluator_training
from components.learn_and_propose.component import learn_and_propose
from components.ppo_update.component import ppo_update
from components.register_best.component import register_best
from components.reward_model_update.component import reward_model_update
from components.submit_next.component import submit_next
from pipelines.compiled import lean
from pipelines.pods import Pods, deadline
from rlhpo_core.execution.resources import Steps
from rlhpo_core.kubeflow.steps import MORE
from rlhpo_core.study.cluster_settings import STANDARD, ClusterSpec

#: Of a run anywhere. How many fit into what Argo holds depends on the trials in each: `pipelines.workflow_size`.
MOST_ROUNDS = 20


def build(
    rounds: int,
    trials_per_round: int,
    parallelism: int = 0,
    accelerator: bool = False,
    cluster: ClusterSpec | None = STANDARD,
    pull_secret: str | None = None,
    steps: Steps = Steps.FIVE,
) -> BaseComponent:
    """The pipeline for a chunk of rounds.

    Args:
        rounds: 1 to MOST_ROUNDS.
        trials_per_round: As in the study; how many pods a round needs at most.
        parallelism: Trials at once; 0 for all of a round. KFP fixes it when the pipeline is compiled.
        accelerator: Whether trials, and the winner's refit, ask for the accelerator that ``cluster`` names.
        cluster: What the pods are given. ``None`` for KFP's local runner, which has no pods, and no run sends the next.
        pull_secret: As for ``Pods``.
        steps: How a round is divided. KFP's local runner knows conditions on a step's only output alone: it takes FIVE.

    Raises: ValueError if a number is out of range.
    """
    if not 1 <= rounds <= MOST_ROUNDS:
        raise ValueError(f"a run holds 1 to {MOST_ROUNDS} rounds, not {rounds}; continue the study in a further run")
    if trials_per_round < 1 or parallelism < 0:
        raise ValueError("a round has at least one trial, and parallelism is 0 (all at once) or more")
    at_once = min(parallelism or trials_per_round, trials_per_round)

    # Nothing outside may refer to a task inside a condition, so all rounds are one nested pipeline.
    @dsl.pipeline(name="rounds")
    def all_rounds(
        store: str,
        run_id: str,
        table_name: str,
        proposals: list[str],
        more: str,
        table: Input[Dataset],
        state: Input[Model],
        image: str,
        config_map: str,
        store_secret: str,
        mlflow_secret: str,
    ):  # type: ignore[no-untyped-def]
        pods = Pods(image, config_map, store_secret, mlflow_secret, cluster, accelerator, pull_secret)
        with ExitStack() as rest:
            for number in range(rounds):
                rest.enter_context(dsl.If(more == MORE, name=f"round {number + 1}"))
                if steps is Steps.FIVE:
                    proposed = agent_proposal(store=store, state=state)
                    pods.place(proposed, "propose")
                    proposals = proposed.output
                with dsl.ParallelFor(proposals, parallelism=at_once) as proposal:
                    training = evaluator_training(
                        store=store, run_id=run_id, proposal=proposal, table=table, table_name=table_name
                    )
                    pods.place(training, "train", trains=True)
                trials = dsl.Collected(training.outputs["trial"])
                if steps is Steps.COMPACT:
                    learnt = learn_and_propose(store=store, run_id=run_id, previous=state, trials=trials)
                    pods.place(learnt, "learn and propose")
                    state, more, proposals = (learnt.outputs[name] for name in ("state", "more", "proposals"))
                else:
                    fitted = reward_model_update(previous=state, trials=trials)
                    pods.place(fitted, "fit reward model")
                    updated = ppo_update(store=store, run_id=run_id, previous=fitted.outputs["state"])
                    pods.place(updated, "update policy")
                    state, more = updated.outputs["state"], updated.outputs["Output"]

    @dsl.pipeline(
        name="rlhpo-hpo-loop",
        description=f"{rounds} rounds of a study; continues where the study stands.",
        pipeline_config=deadline(cluster),
    )
    def hpo_loop(
        store: str,
        table_source: str = "",
        image: str = IMAGE,
        config_map: str = "rlhpo-config",
        store_secret: str = "rlhpo-store",
        mlflow_secret: str = "rlhpo-mlflow",
        registry_secret: str = "rlhpo-registry",
        alert_secret: str = "rlhpo-alerts",
        further_runs: int = 0,
        log_trials: bool = True,
    ) -> str:
        """Tune hyperparameters, one chunk of rounds.

        Args:
            store: Where the study's files live, study.yaml among them: s3://bucket/prefix, or a folder that all steps
                share.
            table_source: A path or s3:// address that takes the place of data.path in the study.
            image: The image of all steps.
            config_map: Name of the config map with settings, such as MLFLOW_TRACKING_URI and the S3 endpoint.
            store_secret: Name of the secret with the object store's credentials.
            mlflow_secret: Name of the secret with MLflow's credentials, if it wants any.
            registry_secret: Name of the secret with credentials of MLflow that may write to its registry; the step that
                registers the winner uses them in place of those of mlflow_secret.
            alert_secret: Name of the secret with the webhook's address and the key of its signature, if there is one.
            further_runs: How many runs may follow this one by themselves while budget is left.
            log_trials: Whether the steps log trials to MLflow as they finish. `rlhpo tune` watches the store and does
                so itself, which spares each step the time it takes to import MLflow.
        """
        pods = Pods(image, config_map, store_secret, mlflow_secret, cluster, accelerator, pull_secret)
        kfp_run = dsl.PIPELINE_JOB_ID_PLACEHOLDER if cluster is not None else ""
        data = data_prep(store=store, table_source=table_source, log_trials=log_trials, kfp_run=kfp_run)
        pods.place(data, "prepare data")
        turns = all_rounds(
            store=store,
            run_id=data.outputs["run_id"],
            table_name=data.outputs["table_name"],
            proposals=data.outputs["proposals"],
            more=data.outputs["more"],
            table=data.outputs["table"],
            state=data.outputs["state"],
            image=image,
            config_map=config_map,
            store_secret=store_secret,
            mlflow_secret=mlflow_secret,
        )
        best = register_best(store=store, table=data.outputs["table"], table_name=data.outputs["table_name"])
        best.after(turns)
        pods.place(best, "register best", trains=True, registry_secret=registry_secret)
        if cluster is not None:
            following = submit_next(
                store=store,
                start=data.outputs["state"],
                kfp_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                further_runs=further_runs,
            ).after(best)
            pods.place(following, "submit next", alert_secret=alert_secret, token=True)
            # It sends one run however often it is run.
            following.set_retry(3, backoff_duration="30s")
        return best.outputs["Output"]

    return lean(hpo_loop)

"""The looping pipeline. KFP has no loop that carries state, so rounds are unrolled when it is compiled.

One run holds a chunk of a study; the state lies in the study's store after every round, so the next run goes on from
there. An exit task, which runs also if a step has failed, sends the next run while something is left to do, and then
makes the report.
"""

from contextlib import AbstractContextManager, nullcontext

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components import IMAGE
from components.submit_next.component import submit_next
from pipelines.compiled import lean
from pipelines.pods import KFP_SETTINGS, SETTINGS, Pods
from pipelines.tuning import MOST_ROUNDS as MOST_ROUNDS
from pipelines.tuning import build_rounds, tune
from rlhpo_core.execution.resources import Steps


def build(
    rounds: int,
    trials_per_round: int,
    parallelism: int = 0,
    accelerator: bool = False,
    cluster: bool = True,
    steps: Steps = Steps.FIVE,
) -> BaseComponent:
    """The pipeline for a chunk of rounds.

    The arguments are those of ``build_rounds``; without pods no run sends the next.

    Raises: ValueError if a number is out of range.
    """
    all_rounds = build_rounds(rounds, trials_per_round, parallelism, accelerator, cluster, steps)

    @dsl.pipeline(name="rlhpo-hpo-loop", description=f"{rounds} rounds of a study; continues where the study stands.")
    def hpo_loop(
        store: str,
        table_source: str = "",
        image: str = IMAGE,
        config_map: str = "rlhpo-config",
        store_secret: str = "rlhpo-store",
        mlflow_secret: str = "rlhpo-mlflow",
        registry_secret: str = "rlhpo-registry",
        alert_secret: str = "rlhpo-alerts",
        trial_cpu: str = "1",
        trial_memory: str = "2G",
        trial_node_selector: dict = {},  # noqa: B006  (KFP reads it as the default's JSON)
        trial_tolerations: list = [],  # noqa: B006
        accelerator_type: str = "nvidia.com/gpu",
        accelerator_count: str = "1",
        further_runs: int = 0,
        log_trials: bool = True,
    ):  # type: ignore[no-untyped-def]
        """Tune hyperparameters, one chunk of rounds.

        Args:
            store: Where the study's files live, study.yaml among them: s3://bucket/prefix, or a folder that all steps
                share.
            table_source: A path or s3:// address that takes the place of data.path in the study.
            image: The image of all steps.
            config_map: Name of the config map with MLFLOW_TRACKING_URI and the S3 endpoint.
            store_secret: Name of the secret with the object store's credentials.
            mlflow_secret: Name of the secret with MLflow's credentials, if it wants any.
            registry_secret: Name of the secret with credentials of MLflow that may write to its registry; the step that
                registers the winner uses them in place of those of mlflow_secret.
            alert_secret: Name of the secret with the webhook's address and the key of its signature, if there is one.
            trial_cpu: CPUs of a trial, as request and limit.
            trial_memory: Memory of a trial, as request and limit.
            trial_node_selector: Labels of nodes that may take a trial.
            trial_tolerations: Tolerations of a trial's pod.
            accelerator_type: Resource name; heeded by pipelines compiled with accelerators.
            accelerator_count: How many of them a trial gets.
            further_runs: How many runs may follow this one by themselves while budget is left.
            log_trials: Whether the steps log trials to MLflow as they finish. `rlhpo tune` watches the store and does
                so itself, which spares each step the time it takes to import MLflow.
        """
        pods = Pods(image, config_map, store_secret, mlflow_secret, cluster)
        study: AbstractContextManager[object] = nullcontext()
        if cluster:
            following = submit_next(store=store, kfp_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, further_runs=further_runs)
            pods.place(following, "submit next", settings=(*SETTINGS, *KFP_SETTINGS))
            pods.give_alerts(following, alert_secret)
            pods.give_token(following)
            study = dsl.ExitHandler(following, name="study")
        with study:
            tune(
                all_rounds,
                pods,
                store,
                table_source,
                registry_secret,
                log_trials,
                trial_cpu=trial_cpu,
                trial_memory=trial_memory,
                trial_node_selector=trial_node_selector,
                trial_tolerations=trial_tolerations,
                accelerator_type=accelerator_type,
                accelerator_count=accelerator_count,
            )

    return lean(hpo_loop)

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
from pipelines.compiled import COMPILED_BY, lean
from pipelines.pods import deadline
from pipelines.tuning import Shape, build_rounds, prepare, tune
from rlhpo_core.kubeflow.steps.round_under_way import MORE


def build(shape: Shape) -> BaseComponent:
    """The pipeline for a chunk of rounds; without pods no run sends the next."""
    all_rounds = build_rounds(shape)

    @dsl.pipeline(
        name="rlhpo-hpo-loop",
        description=f"{shape.rounds} rounds of a study; continues where the study stands. {COMPILED_BY}",
        pipeline_config=deadline(shape.cluster),
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
    ):  # type: ignore[no-untyped-def]
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
            further_runs: How many runs may follow this one by themselves while something is left to do.
            log_trials: Whether the steps log trials to MLflow as they finish. `rlhpo tune` watches the store and does
                so itself, which spares each step the time it takes to import MLflow.
        """
        pods = shape.pods(image, config_map, store_secret, mlflow_secret)
        study: AbstractContextManager[object] = nullcontext()
        unfinished: AbstractContextManager[object] = nullcontext()
        if shape.cluster is not None:
            following = submit_next(store=store, kfp_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, further_runs=further_runs)
            pods.place(following, "submit next", alert_secret=alert_secret, token=True)
            study = dsl.ExitHandler(following, name="study")
        with study:
            data = prepare(pods, store, table_source, log_trials)
            if shape.cluster is not None:
                # A schedule goes on after the study's end: such a run must not wait for a trial's resources.
                unfinished = dsl.If(data.outputs["open"] == MORE, name="something to do")
            with unfinished:
                tune(all_rounds, pods, store, data, registry_secret)

    return lean(hpo_loop)

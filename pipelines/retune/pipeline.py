"""The retuning pipeline: look at the data, and, if there is something to do, tune by the looping pipeline and decide.

What is to be tuned is small, so one chunk of rounds holds it. An exit task records what has failed before anything was
decided.
"""

from contextlib import AbstractContextManager, nullcontext

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components import IMAGE
from components.retune_check.component import retune_check
from components.retune_decide.component import retune_decide
from components.retune_end.component import retune_end
from pipelines.compiled import COMPILED_BY, lean
from pipelines.pods import deadline
from pipelines.tuning import Shape, build_rounds, prepare, tune
from rlhpo_core.kubeflow.steps import retuning


def build(shape: Shape) -> BaseComponent:
    """The pipeline for retunings of at most ``shape.rounds`` rounds."""
    all_rounds = build_rounds(shape)

    @dsl.pipeline(
        name="rlhpo-retune",
        description=f"Retune a deployed model in at most {shape.rounds} rounds, and decide. {COMPILED_BY}",
        pipeline_config=deadline(shape.cluster),
    )
    def retune(
        store: str,
        table_source: str = "",
        force: bool = False,
        image: str = IMAGE,
        config_map: str = "rlhpo-config",
        store_secret: str = "rlhpo-store",
        mlflow_secret: str = "rlhpo-mlflow",
        registry_secret: str = "rlhpo-registry",
        alert_secret: str = "rlhpo-alerts",
    ):  # type: ignore[no-untyped-def]
        """Retune a deployed model if its data has changed, and promote the winner only if it is surely better.

        Args:
            store: Place of the model: s3://bucket/prefix, or a folder that all steps share. Its study.yaml names the
                registered model.
            table_source: A path or s3:// address of the current table, in place of data.path in the study.
            force: Whether to tune even if nothing has changed.
            image: The image of all steps.
            config_map: Name of the config map with settings, such as MLFLOW_TRACKING_URI and the S3 endpoint.
            store_secret: Name of the secret with the object store's credentials.
            mlflow_secret: Name of the secret with MLflow's credentials, if it wants any.
            registry_secret: Name of the secret with credentials of MLflow that may write to its registry; the steps
                that register the winner and that move the alias use them in place of those of mlflow_secret.
            alert_secret: Name of the secret with the webhook's address and the key of its signature, if there is one.
        """
        pods = shape.pods(image, config_map, store_secret, mlflow_secret)
        run = ""
        attempt: AbstractContextManager[object] = nullcontext()
        if shape.cluster is not None:
            run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
            ended = retune_end(store=store, kfp_run=run)
            pods.place(ended, "end", alert_secret=alert_secret, token=True)
            attempt = dsl.ExitHandler(ended, name="retuning")
        with attempt:
            checked = retune_check(store=store, table_source=table_source, force=force, kfp_run=run)
            pods.place(checked, "look at the data", alert_secret=alert_secret)
            with dsl.If(checked.outputs["Output"] == retuning.GO, name="something to do"):
                data = prepare(pods, checked.outputs["tuned_store"], table_source)
                best = tune(all_rounds, pods, checked.outputs["tuned_store"], data, registry_secret)
                decided = retune_decide(
                    store=checked.outputs["tuned_store"],
                    model_store=store,
                    winner=best.output,
                    table_source=table_source,
                    kfp_run=run,
                )
                pods.place(decided, "decide", registry_secret=registry_secret, alert_secret=alert_secret)

    return lean(retune)

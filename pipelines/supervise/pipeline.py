"""The pipeline of a recurring run that looks after a study: one small step."""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components import IMAGE
from components.supervise.component import supervise
from pipelines.compiled import COMPILED_BY, lean
from pipelines.pods import Pods
from rlhpo_core.study.cluster_settings import STANDARD, ClusterSpec


def build(cluster: ClusterSpec = STANDARD, pull_secret: str | None = None) -> BaseComponent:
    """The pipeline.

    Args:
        cluster: What the pod is given.
        pull_secret: As for ``Pods``.
    """

    @dsl.pipeline(
        name="rlhpo-supervise",
        description=f"Starts a study's chain of runs again if it is dead. {COMPILED_BY}",
    )
    def look_after(
        store: str,
        schedule: str,
        image: str = IMAGE,
        config_map: str = "rlhpo-config",
        store_secret: str = "rlhpo-store",
        mlflow_secret: str = "rlhpo-mlflow",
        alert_secret: str = "rlhpo-alerts",
    ):  # type: ignore[no-untyped-def]
        """Look whether a study goes on, and start it again if its run died without sending the next.

        Args:
            store: Where the study's files live: s3://bucket/prefix.
            schedule: Name of the recurring run, which is paused once there is nothing left to look after.
            image: The image of the step.
            config_map: Name of the config map with the address of KFP.
            store_secret: Name of the secret with the object store's credentials.
            mlflow_secret: Name of the secret with MLflow's credentials, if it wants any.
            alert_secret: Name of the secret with the webhook's address and the key of its signature, if there is one.
        """
        pods = Pods(image, config_map, store_secret, mlflow_secret, cluster, pull_secret=pull_secret)
        pods.place(supervise(store=store, schedule=schedule), "supervise", alert_secret=alert_secret, token=True)

    return lean(look_after)

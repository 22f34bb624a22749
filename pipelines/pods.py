"""Where and with what the pods of a pipeline run, set by pipeline parameters when a run is started."""

from dataclasses import dataclass

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_channel import PipelineParameterChannel

#: A value that is known when a run is started.
Late = str | PipelineParameterChannel

SETTINGS = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION")
#: What the step that talks to KFP needs as well.
KFP_SETTINGS = ("KF_PIPELINES_ENDPOINT",)
#: What the deciding step writes into its records, if it is known.
AUDIT_SETTINGS = ("RLHPO_IMAGE_DIGEST",)
STORE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
#: Names that alerts.url_env and alerts.secret_env of a study have in a pod; the second is the default.
ALERT_KEYS = ("RLHPO_ALERT_URL", "RLHPO_ALERT_SECRET")
#: Label of every pod with its step's name: manifests/base/registry-guard.yaml lets two steps use the registry's secret.
STEP_LABEL = "rlhpo/step"
#: Label by which Kubeflow gives a pod a token for KFP's API, where KFP has several users.
TOKEN_LABEL = "access-ml-pipeline"
#: What the small steps need: they import torch and MLflow, and train nothing larger than the agent.
SMALL_CPU, SMALL_MEMORY = "1", "2G"


@dataclass(frozen=True)
class Pods:
    """Names of what lies in the namespace, and the image of all steps."""

    image: Late
    config_map: Late
    """Holds SETTINGS."""
    store_secret: Late
    """Holds STORE_KEYS."""
    mlflow_secret: Late
    """Holds MLFLOW_KEYS; may be absent."""
    cluster: bool
    """Whether there are pods at all."""

    def place(
        self,
        task: dsl.PipelineTask,
        step: str,
        cpu: Late = SMALL_CPU,
        memory: Late = SMALL_MEMORY,
        settings: tuple[str, ...] = SETTINGS,
        mlflow_secret: Late | None = None,
    ) -> dsl.PipelineTask:
        """Give a step its image, its share of a node, its settings and credentials; and never take it from the cache:
        what a step does depends on the study's store, too, which KFP's cache does not see.

        Args:
            step: Shown in KFP's pages, and with dashes as the pod's label.
            settings: Keys of the config map.
            mlflow_secret: In place of that of all steps.
        """
        task.set_caching_options(enable_caching=False).set_display_name(step)
        if not self.cluster:
            return task
        # KFP passes parameters that are used for resources alone into a loop only if they are registered.
        late = [value for value in (self.image, cpu, memory) if isinstance(value, PipelineParameterChannel)]
        task.register_pipeline_channels(late)
        task.set_container_image(self.image)
        task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)
        kubernetes.use_config_map_as_env(task, self.config_map, {name: name for name in settings}, optional=True)
        kubernetes.use_secret_as_env(task, self.store_secret, {name: name for name in STORE_KEYS}, optional=True)
        login = mlflow_secret or self.mlflow_secret
        kubernetes.use_secret_as_env(task, login, {name: name for name in MLFLOW_KEYS}, optional=True)
        kubernetes.add_pod_label(task, STEP_LABEL, step.replace(" ", "-"))
        return kubernetes.set_security_context(task, run_as_non_root=True)

    def give_alerts(self, task: dsl.PipelineTask, secret: Late) -> None:
        """Give a step what it needs to send alerts."""
        if self.cluster:
            kubernetes.use_secret_as_env(task, secret, {name: name for name in ALERT_KEYS}, optional=True)

    def give_token(self, task: dsl.PipelineTask) -> None:
        """Let a step talk to KFP, where KFP has several users."""
        if self.cluster:
            kubernetes.add_pod_label(task, TOKEN_LABEL, "true")

"""Where and with what the pods of a pipeline run.

Images and the names of secrets and config maps are parameters of the pipelines, set when a run is started. All else is
what the study's section ``cluster`` says, and part of the compiled pipeline: so every run that follows has it, too.
"""

from dataclasses import dataclass

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_channel import PipelineParameterChannel

from rlhpo_core.kubeflow.pod_settings import MOUNT
from rlhpo_core.study.cluster_settings import ClusterSpec, TolerationSpec

#: A value that is known when a run is started.
Late = str | PipelineParameterChannel

#: Label of every pod with its step's name: manifests/base/registry-guard.yaml lets two steps use the registry's secret.
STEP_LABEL = "rlhpo/step"
#: Label by which Kubeflow gives a pod a token for KFP's API, where KFP has several users.
TOKEN_LABEL = "access-ml-pipeline"
#: Labels by which Kueue queues a pod.
QUEUE_LABEL, PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"


@dataclass(frozen=True)
class Pods:
    """What all pods of a pipeline have in common."""

    image: Late
    config_map: Late
    store_secret: Late
    mlflow_secret: Late
    spec: ClusterSpec | None
    """``None`` for KFP's local runner, which has no pods and knows none of this."""
    accelerator: bool = False
    """Whether trials are trained on accelerators."""
    pull_secret: str | None = None
    """Name of the secret with which the image is pulled; ``None`` if the account of the pods has one, or none is
    needed."""

    def place(
        self,
        task: dsl.PipelineTask,
        step: str,
        *,
        trains: bool = False,
        registry_secret: Late | None = None,
        alert_secret: Late | None = None,
        token: bool = False,
    ) -> dsl.PipelineTask:
        """Give a step its image, its share of a node, its settings and credentials; and never take it from the cache:
        what a step does depends on the study's store, too, which KFP's cache does not see.

        Args:
            step: Shown in KFP's pages, and with dashes as the pod's label.
            trains: Whether it trains a model, as trials and the winner's refit do.
            registry_secret: For a step that writes to the registry: if there is one, it takes the place of
                ``mlflow_secret``.
            alert_secret: For a step that sends alerts.
            token: Whether it talks to KFP.
        """
        task.set_caching_options(enable_caching=False).set_display_name(step)
        if self.spec is None:
            return task
        # KFP passes a parameter that is used for the image alone into a loop only if it is registered.
        if isinstance(self.image, PipelineParameterChannel):
            task.register_pipeline_channels([self.image])
        task.set_container_image(self.image)
        self._resources(task, self.spec, trains)
        kubernetes.use_config_map_as_volume(task, self.config_map, f"{MOUNT}/config", optional=True)
        secrets = {
            "store": self.store_secret,
            "mlflow": self.mlflow_secret,
            "registry": registry_secret,
            "alerts": alert_secret,
        }
        for folder, name in secrets.items():
            if name is not None:
                kubernetes.use_secret_as_volume(task, name, f"{MOUNT}/{folder}", optional=True)
        if self.pull_secret is not None:
            kubernetes.set_image_pull_secrets(task, [self.pull_secret])
        labels = {
            STEP_LABEL: step.replace(" ", "-"),
            TOKEN_LABEL: "true" if token else None,
            QUEUE_LABEL: self.spec.queue,
            PRIORITY_LABEL: self.spec.priority,
        }
        for label, value in labels.items():
            if value is not None:
                kubernetes.add_pod_label(task, label, value)
        return kubernetes.set_security_context(task, run_as_non_root=True)

    def _resources(self, task: dsl.PipelineTask, spec: ClusterSpec, trains: bool) -> None:
        cpu, request = (spec.trial_cpu, spec.trial_cpu) if trains else (spec.step_cpu, spec.step_cpu_request)
        memory = spec.trial_memory if trains else spec.step_memory
        task.set_cpu_request(request).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)
        for label, value in {**spec.node_selector, **(spec.trial_node_selector if trains else {})}.items():
            kubernetes.add_node_selector(task, label, value)
        for toleration in (*spec.tolerations, *(spec.trial_tolerations if trains else ())):
            _tolerate(task, toleration)
        if trains and self.accelerator:
            task.set_accelerator_type(spec.accelerator.type).set_accelerator_limit(spec.accelerator.count)
        if trains and spec.shared_memory is not None:
            kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", spec.shared_memory)
        deadline = spec.trial_deadline if trains else spec.step_deadline
        if deadline is not None:
            kubernetes.set_timeout(task, round(deadline.total_seconds()))


def deadline(spec: ClusterSpec | None) -> dsl.PipelineConfig | None:
    """Of a whole run, as KFP's pipelines take it."""
    if spec is None or spec.run_deadline is None:
        return None
    return dsl.PipelineConfig(active_deadline_seconds=round(spec.run_deadline.total_seconds()))


def _tolerate(task: dsl.PipelineTask, toleration: TolerationSpec) -> None:
    kubernetes.add_toleration(
        task, key=toleration.key, operator=toleration.operator, value=toleration.value, effect=toleration.effect
    )

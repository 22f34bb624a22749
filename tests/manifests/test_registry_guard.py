"""The guard's rule, evaluated on pods: who may use the registry's secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cel
import pytest
import yaml
from google.protobuf import json_format
from kfp.dsl.base_component import BaseComponent

from pipelines.hpo_loop.pipeline import build as build_loop
from pipelines.pods import STEP_LABEL
from pipelines.retune.pipeline import build as build_retune
from pipelines.tuning import Shape
from tests.manifests.rendering import MANIFESTS

POLICY, BINDING = yaml.safe_load_all((MANIFESTS / "base" / "registry-guard.yaml").read_text())
BY_KEY = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "rlhpo-registry", "key": "A"}}}]}
WHOLE = {"envFrom": [{"secretRef": {"name": "rlhpo-registry"}}]}
OTHER = {
    "env": [{"name": "A", "value": "a"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "rlhpo-mlflow"}}}],
    "envFrom": [{"configMapRef": {"name": "rlhpo-registry"}}],
}


def allowed(pod: dict[str, Any], config: dict[str, str] | None = None) -> bool:
    """As the API server would: variables are worked out one after another, and every rule has to hold.

    ``config``: what the namespace's config map holds.
    """
    known: dict[str, Any] = {"object": pod, "params": {} if config is None else {"data": config}, "variables": {}}
    for one in POLICY["spec"]["variables"]:
        known["variables"][one["name"]] = cel.evaluate(one["expression"], known)
    return all(cel.evaluate(one["expression"], known) for one in POLICY["spec"]["validations"])


def pod(labels: dict[str, str] | None = None, account: str | None = None, **spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"metadata": {}, "spec": {"containers": [{"name": "main"}], **spec}}
    if labels is not None:
        found["metadata"]["labels"] = labels
    if account is not None:
        found["spec"]["serviceAccountName"] = account
    return found


USES = [
    {"containers": [{"name": "main", **BY_KEY}]},
    {"containers": [{"name": "main", **WHOLE}]},
    {"containers": [{"name": "main", **OTHER}, {"name": "second", **BY_KEY}]},
    {"initContainers": [{"name": "first", **WHOLE}]},
    {"ephemeralContainers": [{"name": "debug", **BY_KEY}]},
    {"volumes": [{"name": "v", "secret": {"secretName": "rlhpo-registry"}}]},
    {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "rlhpo-registry"}}]}}]},
]


@pytest.mark.parametrize("use", USES)
def test_only_the_steps_that_write_to_the_registry_and_the_registrar_may_use_the_secret(use: dict[str, Any]) -> None:
    assert not allowed(pod(**use))
    assert not allowed(pod({STEP_LABEL: "train"}, "rlhpo-runner", **use))
    assert not allowed(pod({STEP_LABEL: "look-at-the-data"}, "rlhpo-runner", **use))
    assert not allowed(pod({"step": "register-best"}, "default", **use))
    assert allowed(pod({STEP_LABEL: "register-best"}, "rlhpo-runner", **use))
    assert allowed(pod({STEP_LABEL: "decide"}, "rlhpo-runner", **use))
    assert allowed(pod({}, "rlhpo-registrar", **use))


def test_the_secret_is_the_one_that_is_configured() -> None:
    use = {"volumes": [{"name": "v", "secret": {"secretName": "ours"}}]}
    config = {"RLHPO_REGISTRY_SECRET": "ours"}
    assert allowed(pod(**use))
    assert not allowed(pod({STEP_LABEL: "train"}, **use), config)
    assert allowed(pod({STEP_LABEL: "decide"}, **use), config)
    for other in USES:
        assert allowed(pod(**other), config), "another name, another secret"
    assert not allowed(pod(**USES[0]), {"MLFLOW_TRACKING_URI": "http://mlflow"})
    assert POLICY["spec"]["paramKind"] == {"apiVersion": "v1", "kind": "ConfigMap"}
    # Without the config map, which is looked for in the pod's namespace, no pod is let in.
    assert BINDING["spec"]["paramRef"] == {"name": "rlhpo-config", "parameterNotFoundAction": "Deny"}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"containers": [{"name": "main", **OTHER}]},
        {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "rlhpo-mlflow"}}]},
        {"volumes": [{"name": "a", "projected": {}}, {"name": "b", "configMap": {"name": "rlhpo-registry"}}]},
    ],
)
def test_all_others_are_none_of_its_business(spec: dict[str, Any]) -> None:
    assert allowed(pod(**spec))


@pytest.mark.parametrize(("build", "count"), [(build_loop, 7), (build_retune, 9)])
def test_every_step_of_the_pipelines_is_let_in(build: Callable[[Shape], BaseComponent], count: int) -> None:
    pipeline = build(Shape(1, 1))
    inputs = pipeline.pipeline_spec.root.input_definitions.parameters
    default = {name: one.default_value.string_value for name, one in inputs.items()}
    platform = json_format.MessageToDict(pipeline.platform_spec)["platforms"]["kubernetes"]
    steps = list(platform["deploymentSpec"]["executors"].values())
    assert len(steps) == count
    for step in steps:
        names = [default[one["secretNameParameter"]["componentInputParameter"].split("--")[-1]]
                 for one in step["secretAsVolume"]]  # fmt: skip
        volumes = [{"name": name, "secret": {"secretName": name}} for name in names]
        labels = step["podMetadata"]["labels"]
        assert allowed(pod(labels, "rlhpo-runner", volumes=volumes)), labels
        assert allowed(pod({}, "rlhpo-runner", volumes=volumes)) == ("rlhpo-registry" not in names)

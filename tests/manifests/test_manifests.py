"""The manifests: valid for every supported Kubernetes, consistent, and no more powerful than their README says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from components import IMAGE
from pipelines.hpo_loop.pipeline import build
from pipelines.pods import TOKEN_LABEL
from pipelines.tuning import Shape
from rlhpo_core.kubeflow import pod_settings
from rlhpo_core.kubeflow.connection import IN_CLUSTER, TOKEN_FILE
from rlhpo_core.study.spec import load_study
from tests.manifests.rendering import MANIFESTS, RENDERED, files, named, rendered, templates

#: The README's "1.31 or newer".
VERSIONS = [one for one in dict.fromkeys(all_versions()) if tuple(map(int, one.split(".")[:2])) >= (1, 31)]
#: Kinds that belong to Kubeflow; Kubernetes has no schema for them.
FOREIGN = {"PodDefault"}
README = (MANIFESTS / "README.md").read_text()


def test_there_are_schemas_of_several_versions() -> None:
    assert len(VERSIONS) >= 7
    assert VERSIONS[0].startswith("1.31")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_valid(version: str) -> None:
    for where, document in files():
        if document["kind"] not in FOREIGN:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{where}: {error.message}")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_what_kustomize_makes_is_valid(name: str, version: str) -> None:
    for document in rendered(name):
        if document["kind"] not in FOREIGN:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{document['kind']}/{document['metadata']['name']}: {error.message}")


def test_the_validation_can_fail() -> None:
    _, namespace = next(one for one in files() if one[1]["kind"] == "Namespace")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**namespace, "sepc": {}}, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", RENDERED)
def test_pods_meet_the_restricted_standard(name: str) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, and a read-only root and limits beside it."""
    (space,) = named(rendered(name), "Namespace").values()
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    found = list(templates(rendered(name)))
    assert found
    for where, _, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"].get("runAsUser", 1) != 0, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC", "ephemeralContainers"} & pod.keys(), where
        # Tokens of the Kubernetes API are for those who use it.
        assert pod["automountServiceAccountToken"] is False, where
        kinds = {kind for volume in pod.get("volumes", ()) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}, where
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert not {"privileged", "procMount", "runAsUser"} & context.keys(), where
            assert not any("hostPort" in port for port in container.get("ports", ())), where
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), where
            assert re.search(r":[\w.-]+$|@sha256:[0-9a-f]{64}$", container["image"]), f"{where}: {container['image']}"
            assert not container["image"].endswith(":latest"), where


# -- what is referred to is there -------------------------------------------------------------------------------------


def references(where: str, pod: dict[str, Any]) -> Iterator[tuple[str, str, str | None, bool]]:
    """Kind, name and key of all that a pod needs, and whether it may be absent."""
    if "serviceAccountName" in pod:
        yield "ServiceAccount", pod["serviceAccountName"], None, False
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        for one in container.get("envFrom", ()):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in one:
                    yield kind, one[field]["name"], None, one[field].get("optional", False)
        for one in container.get("env", ()):
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if field in one.get("valueFrom", ()):
                    source = one["valueFrom"][field]
                    yield kind, source["name"], source["key"], source.get("optional", False)
    for volume in pod.get("volumes", ()):
        if "configMap" in volume:
            for item in volume["configMap"].get("items", [{"key": None}]):
                optional = volume["configMap"].get("optional", False)
                yield "ConfigMap", volume["configMap"]["name"], item["key"], optional
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], None, volume["secret"].get("optional", False)


def secrets() -> dict[str, set[str]]:
    """Those that secrets.example.yaml lists, with their keys."""
    documents = yaml.safe_load_all((MANIFESTS / "secrets.example.yaml").read_text())
    return {one["metadata"]["name"]: set(one["stringData"]) for one in documents}


@pytest.mark.parametrize("name", RENDERED)
def test_what_pods_refer_to_is_there(name: str) -> None:
    objects = rendered(name)
    there = {(kind, one): set(named(objects, kind)[one].get("data", ())) for kind in ("ConfigMap", "ServiceAccount")
             for one in named(objects, kind)}  # fmt: skip
    there |= {("Secret", one): keys for one, keys in secrets().items()}
    for where, _, pod in templates(objects):
        for kind, one, key, optional in references(where, pod):
            assert (kind, one) in there or optional, f"{where} refers to {kind}/{one}"
            assert key is None or key in there[kind, one], f"{where} refers to {key} of {kind}/{one}"


@pytest.mark.parametrize("name", RENDERED)
def test_all_lies_in_one_namespace_and_belongs_together(name: str) -> None:
    for one in rendered(name):
        assert one["metadata"].get("namespace", "rlhpo") == "rlhpo"
        assert one["metadata"]["labels"]["app.kubernetes.io/name"], one
    for service in named(rendered(name), "Service").values():
        selected = [
            where
            for where, metadata, _ in templates(rendered(name))
            if service["spec"]["selector"].items() <= metadata["labels"].items()
        ]
        assert len(selected) == 1, service["metadata"]["name"]


# -- what the pipeline refers to is there -----------------------------------------------------------------------------


def test_the_pipeline_and_the_manifests_agree_on_names() -> None:
    inputs = build(Shape(1, 1)).pipeline_spec.root.input_definitions.parameters
    default = {name: one.default_value.string_value for name, one in inputs.items()}
    for name in ("store_secret", "mlflow_secret", "registry_secret", "alert_secret"):
        assert default[name] in secrets()
        assert all(map(pod_settings.known, secrets()[default[name]])), "steps read the keys that they know"
    assert default["image"] == IMAGE
    for overlay in RENDERED:
        config = named(rendered(overlay), "ConfigMap")[default["config_map"]]["data"]
        assert {"MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"} <= config.keys()
        assert all(map(pod_settings.known, config))
        assert config["RLHPO_REGISTRY_SECRET"] == default["registry_secret"]
        assert config["KF_PIPELINES_ENDPOINT"] == IN_CLUSTER
    images = {one["image"] for _, _, pod in templates(rendered("test-cluster")) for one in pod["containers"]}
    assert IMAGE in images
    assert not any(one.partition(":")[0] == "rlhpo" and one != IMAGE for one in images)


def test_addresses_in_the_cluster_are_whole() -> None:
    """Where KFP puts a proxy into all pods, what ends in .svc.cluster.local goes past it, and short names do not."""
    objects = rendered("test-cluster")
    (space,) = named(objects, "Namespace")
    config = named(objects, "ConfigMap")["rlhpo-config"]["data"]
    addresses = [urlsplit(value) for value in config.values() if value.startswith("http")]
    assert len(addresses) == 3
    assert all((one.hostname or "").endswith(".svc.cluster.local") for one in addresses)
    ports = {
        (f"{name}.{space}.svc.cluster.local", port["port"])
        for name, service in named(objects, "Service").items()
        for port in service["spec"]["ports"]
    }
    assert [(one.hostname, one.port) in ports for one in addresses].count(True) == 2, "ours; the third is KFP"


@pytest.mark.parametrize("name", RENDERED)
def test_one_image_by_digest_in_all_places(name: str) -> None:
    """As an overlay with ``kustomize edit set image`` gives it: no place is left with another."""
    image = "registry.example.com/team/rlhpo@sha256:" + "5" * 64
    objects = rendered(name, image)
    ours = [
        container["image"]
        for _, _, pod in templates(objects)
        for container in (*pod["containers"], *pod.get("initContainers", ()))
        if "rlhpo" in container["image"]
    ]
    assert len(ours) >= (2 if name in ("test-cluster", "production-with-all") else 1)
    assert set(ours) == {image}
    assert named(objects, "ConfigMap")["rlhpo-config"]["data"]["RLHPO_IMAGE"] == image
    assert not [line for line in yaml.safe_dump_all(objects).splitlines() if "rlhpo:" in line and "image" in line]
    if (jobs := named(objects, "CronJob")) and (job := jobs["rlhpo-retune"]):
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert '--image "$RLHPO_IMAGE"' in container["args"][0]
        (variable,) = [one for one in container["env"] if one["name"] == "RLHPO_IMAGE"]
        assert variable["valueFrom"]["configMapKeyRef"] == {"name": "rlhpo-config", "key": "RLHPO_IMAGE"}


def test_pods_that_talk_to_kfp_get_a_token_where_it_is_looked_for() -> None:
    objects = rendered("production-with-all")
    (given,) = named(objects, "PodDefault").values()
    assert given["spec"]["selector"]["matchLabels"] == {TOKEN_LABEL: "true"}
    assert {one["value"] for one in given["spec"]["env"]} == {str(TOKEN_FILE)}
    (job,) = named(objects, "CronJob").values()
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for spec, mounts in ((given["spec"], given["spec"]["volumeMounts"]), (pod, pod["containers"][0]["volumeMounts"])):
        (volume,) = [one for one in spec["volumes"] if "projected" in one]
        (token,) = [one["serviceAccountToken"] for one in volume["projected"]["sources"]]
        assert token["audience"] == "pipelines.kubeflow.org"
        (mount,) = [one for one in mounts if one["name"] == volume["name"]]
        assert f"{mount['mountPath']}/{token['path']}" == str(TOKEN_FILE)


def test_the_study_that_is_run_again_and_again_can_be_read() -> None:
    spec = load_study(MANIFESTS / "components" / "recurring-retune" / "study.yaml")
    assert spec.budget.trials <= 20 * spec.tuner.trials_per_round, "one run"
    (job,) = named(rendered("production-with-all"), "CronJob").values()
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    accounts = named(rendered("production-with-all"), "ServiceAccount")
    assert re.search(r"--service-account (\S+)", container["args"][0])[1] in accounts


# -- rights -----------------------------------------------------------------------------------------------------------

#: All that any account may do: group, resource, names, verbs.
RIGHTS = {
    "rlhpo-runner": {
        ("argoproj.io", "workflowtaskresults", (), ("create", "patch")),
        ("", "configmaps", ("kfp-launcher",), ("get",)),
        ("", "secrets", ("mlpipeline-minio-artifact",), ("get",)),
        ("", "pods", (), ("get",)),
        ("pipelines.kubeflow.org", "experiments", (), ("get",)),
        ("pipelines.kubeflow.org", "pipelines", (), ("get",)),
        ("pipelines.kubeflow.org", "pipelines/versions", (), ("get",)),
        ("pipelines.kubeflow.org", "runs", (), ("create", "get", "list")),
        ("pipelines.kubeflow.org", "jobs", (), ("disable",)),
    },
    "rlhpo-registrar": {("", "secrets", ("rlhpo-registry",), ("get",))},
    "rlhpo-submitter": {
        ("pipelines.kubeflow.org", "experiments", (), ("create", "get", "list")),
        ("pipelines.kubeflow.org", "pipelines", (), ("create", "get", "list")),
        ("pipelines.kubeflow.org", "pipelines/versions", (), ("create", "get", "list")),
        ("pipelines.kubeflow.org", "runs", (), ("create", "get", "list", "terminate")),
        ("pipelines.kubeflow.org", "jobs", (), ("create", "delete", "disable", "enable", "get", "list")),
    },
}


@pytest.mark.parametrize("name", RENDERED)
def test_accounts_may_do_this_and_nothing_else(name: str) -> None:
    objects = rendered(name)
    assert not named(objects, "ClusterRole")
    assert not named(objects, "ClusterRoleBinding")
    found: dict[str, set[Any]] = {account: set() for account in named(objects, "ServiceAccount")}
    for binding in named(objects, "RoleBinding").values():
        assert binding["roleRef"]["kind"] == "Role"
        for rule in named(objects, "Role")[binding["roleRef"]["name"]]["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            for subject in binding["subjects"]:
                assert subject["kind"] == "ServiceAccount"
                found[subject["name"]] |= {
                    (group, resource, tuple(rule.get("resourceNames", ())), tuple(rule["verbs"]))
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                }
    assert found == RIGHTS
    assert all(f"| `{account}` |" in README for account in found)


# -- network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RENDERED)
def test_nothing_is_reached_but_what_is_allowed(name: str) -> None:
    policies = named(rendered(name), "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy, content in policies.items():
        for rule in (*content["spec"].get("ingress", ()), *content["spec"].get("egress", ())):
            # A rule without peers or ports would open everything.
            assert rule.get("ports"), policy
            assert rule.get("to") or rule.get("from"), policy
    labels = [metadata["labels"] for _, metadata, _ in templates(rendered(name))]
    for content in policies.values():
        wanted = content["spec"]["podSelector"].get("matchLabels")
        assert wanted is None or any(wanted.items() <= one.items() for one in labels), content["metadata"]["name"]

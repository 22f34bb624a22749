"""The compiled pipeline: kept, compared, and read as the backend would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.hpo_loop.pipeline import MOST_ROUNDS, build
from pipelines.pods import KFP_SETTINGS, SETTINGS, STEP_LABEL, TOKEN_LABEL
from pipelines.sizes import ARGO_LIMIT, measure
from rlhpo_core.kubeflow.compiled_pipeline import read_package
from tests.helpers.kfp_checks import pipeline_of

GOLDEN = Path(__file__).parent.parent.parent / "pipelines" / "hpo_loop" / "hpo_loop.yaml"
#: DNS labels, as Kubernetes takes them.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def compiled(path: Path, rounds: int = 2, trials_per_round: int = 3, parallelism: int = 2) -> str:
    compiler.Compiler().compile(build(rounds, trials_per_round, parallelism), str(path / "pipeline.yaml"))
    return (path / "pipeline.yaml").read_text()


def test_the_kept_pipeline_is_what_the_code_compiles_to(tmp_path: Path) -> None:
    """To renew it: python -m pipelines.hpo_loop"""
    assert compiled(tmp_path, rounds=10, trials_per_round=5, parallelism=0) == GOLDEN.read_text()


@pytest.mark.parametrize("sizes", [(0, 1, 0), (MOST_ROUNDS + 1, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_sizes_out_of_range_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"a (run|round) h"):
        build(*sizes)


@pytest.fixture(scope="module")
def spec() -> pipeline_spec_pb2.PipelineSpec:
    """The kept pipeline, parsed strictly: an unknown field is an error."""
    package = read_package(GOLDEN)
    pipeline_of([package["pipeline_spec"], package["platform_spec"]])
    return json_format.ParseDict(package["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())


def dags(spec: pipeline_spec_pb2.PipelineSpec) -> list[tuple[str, Any, Any]]:
    """Every component that is a graph, with its inputs: the root and those below it."""
    inner = [(name, comp.dag, comp.input_definitions) for name, comp in spec.components.items() if comp.HasField("dag")]
    return [("root", spec.root.dag, spec.root.input_definitions), *inner]


def test_names_are_what_kubernetes_and_kfp_take(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    assert NAME.fullmatch(spec.pipeline_info.name)
    for _, dag, _ in dags(spec):
        for name in dag.tasks:
            assert NAME.fullmatch(name)
            assert "-iteration-" not in name, "the local runner takes it for a loop's iteration"


def test_every_reference_leads_somewhere(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    for name, component in spec.components.items():
        assert component.HasField("dag") or component.executor_label in executors, name
    for place, dag, inputs in dags(spec):
        for name, task in dag.tasks.items():
            assert task.component_ref.name in spec.components, name
            for dependency in task.dependent_tasks:
                assert dependency in dag.tasks
            wanted = spec.components[task.component_ref.name].input_definitions
            given = {*task.inputs.parameters, *task.inputs.artifacts, task.parameter_iterator.item_input}
            items = [*wanted.parameters.items(), *wanted.artifacts.items()]
            required = {key for key, item in items if not item.is_optional}
            assert required <= given, f"{place}.{name} lacks {required - given}"
            for kind, known in ((task.inputs.parameters, inputs.parameters), (task.inputs.artifacts, inputs.artifacts)):
                for value in kind.values():
                    check_source(value, known, dag, spec, f"{place}.{name}")


def check_source(value: Any, known: Any, dag: Any, spec: pipeline_spec_pb2.PipelineSpec, where: str) -> None:
    """A value comes from an input of the graph or from an output of a task in it."""
    if getattr(value, "component_input_parameter", "") or getattr(value, "component_input_artifact", ""):
        name = getattr(value, "component_input_parameter", "") or getattr(value, "component_input_artifact", "")
        assert name in known or "-loop-item" in name, f"{where}: no input {name}"
    for attribute in ("task_output_parameter", "task_output_artifact"):
        if hasattr(value, attribute) and value.HasField(attribute):
            source = getattr(value, attribute)
            producer = spec.components[dag.tasks[source.producer_task].component_ref.name].output_definitions
            key = source.output_parameter_key if "parameter" in attribute else source.output_artifact_key
            assert key in (producer.parameters if "parameter" in attribute else producer.artifacts), where


def test_nothing_is_cached(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    leaves = [
        task
        for _, dag, _ in dags(spec)
        for task in dag.tasks.values()
        if not spec.components[task.component_ref.name].HasField("dag")
    ]
    assert leaves
    assert not any(task.caching_options.enable_cache for task in leaves)


def test_steps_install_nothing_and_run_in_our_image(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    for executor in json_format.MessageToDict(spec.deployment_spec)["executors"].values():
        container = executor["container"]
        assert container["image"].startswith("{{$.inputs.parameters[")
        assert not any("pip install" in part for part in container["command"])


def steps_of(text: str) -> dict[str, dict[str, Any]]:
    """What Kubernetes is told of each step, by its pod's label."""
    _, platform = yaml.safe_load_all(text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    return {one["podMetadata"]["labels"][STEP_LABEL]: one for one in executors}


def secrets_of(step: dict[str, Any]) -> set[str]:
    """The parameters of the pipeline that name the step's secrets."""
    return {one["secretNameParameter"]["componentInputParameter"].split("--")[-1] for one in step["secretAsEnv"]}


def test_only_the_registering_step_gets_the_registrys_credentials(tmp_path: Path) -> None:
    found = steps_of(compiled(tmp_path))
    assert found.keys() == {
        "prepare-data",
        "propose",
        "train",
        "fit-reward-model",
        "update-policy",
        "register-best",
        "submit-next",
    }
    for name, step in found.items():
        login = "registry_secret" if name == "register-best" else "mlflow_secret"
        assert secrets_of(step) == {"store_secret", login}, name
        assert step["securityContext"]["runAsNonRoot"]


def test_only_the_last_step_may_talk_to_kfp(tmp_path: Path) -> None:
    found = steps_of(compiled(tmp_path))
    assert [name for name, step in found.items() if TOKEN_LABEL in step["podMetadata"]["labels"]] == ["submit-next"]
    for name, step in found.items():
        variables = {item["envVar"] for one in step["configMapAsEnv"] for item in one["keyToEnv"]}
        assert variables == {*SETTINGS, *(KFP_SETTINGS if name == "submit-next" else ())}


def test_the_run_that_follows_waits_for_all_and_knows_its_own_run(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    task = spec.root.dag.tasks["submit-next"]
    assert "register-best" in task.dependent_tasks
    inputs = json_format.MessageToDict(task.inputs)["parameters"]
    assert inputs["kfp_run"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert inputs["further_runs"] == {"componentInputParameter": "further_runs"}
    assert task.retry_policy.max_retry_count == 3
    assert spec.root.input_definitions.parameters["further_runs"].default_value.number_value == 0
    assert "submit-next" not in build(1, 1, cluster=False).pipeline_spec.root.dag.tasks


def test_the_largest_run_stays_within_what_argo_holds() -> None:
    size = measure(MOST_ROUNDS, 20)
    assert size.yaml_bytes < 2**20
    assert size.workflow_bytes < ARGO_LIMIT


def test_the_sizes_in_the_documentation_are_so() -> None:
    page = (GOLDEN.parent.parent.parent / "docs" / "operations.md").read_text()
    assert f"| 10 | 5 | {measure(10, 5).yaml_bytes:,} |" in page

"""What holds for each of the compiled pipelines, read as the backend would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.hpo_loop.pipeline import build as build_loop
from pipelines.pods import STEP_LABEL
from pipelines.retune.pipeline import build as build_retune
from pipelines.tuning import Shape
from rlhpo_core import __version__
from rlhpo_core.kubeflow.compiled_pipeline import read_package

KEPT = sorted((Path(__file__).parents[2] / "pipelines").glob("*/*.yaml"))
#: DNS labels, as Kubernetes takes them.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@pytest.fixture(scope="module", params=KEPT, ids=lambda path: path.stem)
def spec(request: pytest.FixtureRequest) -> pipeline_spec_pb2.PipelineSpec:
    """A kept pipeline, parsed strictly: an unknown field is an error."""
    package = read_package(request.param)
    json_format.ParseDict(package["platform_spec"], pipeline_spec_pb2.PlatformSpec())
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


def test_a_runs_page_says_which_version_compiled_it(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    """A schedule keeps what it was given, whatever is installed since."""
    assert spec.pipeline_info.description.endswith(f" Compiled by rlhpo {__version__}.")


def test_nothing_of_ours_stands_in_the_environment_of_kfps_launcher(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    """It runs in the same container, and would take our address and keys of S3 for those of its own store."""
    for executor in json_format.MessageToDict(spec.deployment_spec)["executors"].values():
        assert "env" not in executor["container"]


def test_only_what_trains_asks_for_an_accelerator(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    built = {"rlhpo-hpo-loop": build_loop, "rlhpo-retune": build_retune}[spec.pipeline_info.name]
    pipeline = built(Shape(1, 2, accelerator=True))
    executors = json_format.MessageToDict(pipeline.pipeline_spec.deployment_spec)["executors"]
    platform = json_format.MessageToDict(pipeline.platform_spec)["platforms"]["kubernetes"]
    steps = {
        one["podMetadata"]["labels"][STEP_LABEL]: (executors[name]["container"]["resources"], one)
        for name, one in platform["deploymentSpec"]["executors"].items()
    }
    asking = {name for name, (resources, _) in steps.items() if "accelerator" in resources}
    assert asking == {"train", "register-best"}
    assert len(steps) > len(asking)
    for _, step in steps.values():
        assert not {"configMapAsEnv", "secretAsEnv", "fieldPathAsEnv"} & step.keys()


def test_steps_install_nothing_and_run_in_our_image(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    for executor in json_format.MessageToDict(spec.deployment_spec)["executors"].values():
        container = executor["container"]
        assert container["image"].startswith("{{$.inputs.parameters[")
        assert not any("pip install" in part for part in container["command"])

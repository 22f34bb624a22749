"""The compiled pipeline: kept, compared, and read as the backend would."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from benchmarks.pipeline_sizes import ir_bytes, row
from pipelines.compiled import compiled
from pipelines.hpo_loop.pipeline import build
from pipelines.pods import STEP_LABEL, TOKEN_LABEL
from pipelines.tuning import MOST_ROUNDS, Shape
from pipelines.workflow_size import ARGO_LIMIT, most_rounds, spec_bytes, workflow_bytes
from rlhpo_core.execution.engines import Steps
from rlhpo_core.kubeflow.compiled_pipeline import read_package
from tests.helpers.kfp_checks import pipeline_of

GOLDEN = Path(__file__).parent.parent.parent / "pipelines" / "hpo_loop" / "hpo_loop.yaml"


@pytest.mark.parametrize("sizes", [(0, 1, 0), (MOST_ROUNDS + 1, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_sizes_out_of_range_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"a (run|round) h"):
        Shape(*sizes)


@pytest.fixture(scope="module")
def spec() -> pipeline_spec_pb2.PipelineSpec:
    """The kept pipeline, parsed strictly: an unknown field is an error."""
    package = read_package(GOLDEN)
    pipeline_of([package["pipeline_spec"], package["platform_spec"]])
    return json_format.ParseDict(package["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())


def steps_of(text: str) -> dict[str, dict[str, Any]]:
    """What Kubernetes is told of each step, by its pod's label."""
    _, platform = yaml.safe_load_all(text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    return {one["podMetadata"]["labels"][STEP_LABEL]: one for one in executors}


def mounts_of(step: dict[str, Any]) -> dict[str, str]:
    """Where a step has its config map and secrets, and the parameters of the pipeline that name them."""
    found = {}
    for kind, name in (("configMapAsVolume", "configMapNameParameter"), ("secretAsVolume", "secretNameParameter")):
        for one in step[kind]:
            assert one["optional"]
            found[one["mountPath"]] = one[name]["componentInputParameter"].split("--")[-1]
    return found


@pytest.fixture(scope="module", params=Steps)
def steps(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return steps_of(compiled(build(Shape(2, 3, 2, steps=request.param))))


AROUND = {"prepare-data", "train", "register-best", "submit-next"}
ROUND = {
    frozenset({"propose", "fit-reward-model", "update-policy"}),
    frozenset({"learn-and-propose"}),
}


def test_only_the_registering_step_gets_the_registrys_credentials(steps: dict[str, dict[str, Any]]) -> None:
    assert steps.keys() - AROUND in ROUND
    assert steps.keys() >= AROUND
    for name, step in steps.items():
        expected = {
            "/rlhpo/config": "config_map",
            "/rlhpo/store": "store_secret",
            "/rlhpo/mlflow": "mlflow_secret",
        }
        if name == "register-best":
            expected["/rlhpo/registry"] = "registry_secret"
        if name == "submit-next":
            expected["/rlhpo/alerts"] = "alert_secret"
        assert mounts_of(step) == expected, name
        assert step["securityContext"]["runAsNonRoot"]


def test_only_the_last_step_may_talk_to_kfp(steps: dict[str, dict[str, Any]]) -> None:
    assert [name for name, step in steps.items() if TOKEN_LABEL in step["podMetadata"]["labels"]] == ["submit-next"]


def test_nothing_stands_in_the_containers_environment(steps: dict[str, dict[str, Any]]) -> None:
    """KFP's launcher shares it, and KFP's MLflow plugin sets variables there by value."""
    for step in steps.values():
        assert not {"configMapAsEnv", "secretAsEnv", "fieldPathAsEnv"} & step.keys()


def test_the_run_that_follows_is_sent_in_any_case_and_knows_its_own_run(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    task = spec.root.dag.tasks["submit-next"]
    (study,) = task.dependent_tasks
    inside = spec.components[spec.root.dag.tasks[study].component_ref.name].dag.tasks
    (unfinished,) = inside.keys() - {"data-prep"}
    # A run of a study that is at its end asks for no trial's resources.
    assert "parameter_values['pipelinechannel--data-prep-open'] == 'yes'" in inside[unfinished].trigger_policy.condition
    rest = spec.components[inside[unfinished].component_ref.name].dag.tasks
    assert rest.keys() == {"rounds", "register-best"}
    strategies = pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.TriggerStrategy
    assert task.trigger_policy.strategy == strategies.ALL_UPSTREAM_TASKS_COMPLETED
    inputs = json_format.MessageToDict(task.inputs)["parameters"]
    assert inputs["kfp_run"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert inputs["further_runs"] == {"componentInputParameter": "further_runs"}
    assert spec.root.input_definitions.parameters["further_runs"].default_value.number_value == 0
    assert "submit-next" not in build(Shape(1, 1, cluster=None)).pipeline_spec.root.dag.tasks


@pytest.mark.parametrize("steps", Steps)
@pytest.mark.parametrize("trials", [1, 2, 5, 10, 20, 40])
def test_the_rounds_of_a_run_take_no_more_than_half_of_what_argo_holds(trials: int, steps: Steps) -> None:
    rounds = most_rounds(trials, steps=steps)
    assert workflow_bytes(rounds, trials, steps) <= ARGO_LIMIT / 2 < workflow_bytes(rounds + 1, trials, steps)


@pytest.mark.parametrize("retuning", [False, True])
@pytest.mark.parametrize("steps", Steps)
@pytest.mark.parametrize("rounds", [2, 10])
def test_the_formula_gives_the_spec_of_the_compiled_pipeline(rounds: int, steps: Steps, retuning: bool) -> None:
    """The spec that KFP made of the IR was 1.04 times as large and 30 kB; where the IR grows, the formula has to."""
    spec = 1.04 * ir_bytes(rounds, 5, steps, retuning) + 30_000
    assert spec == pytest.approx(spec_bytes(rounds, steps, retuning), rel=0.05)


def test_what_is_written_for_people_only_is_not_sent(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    for name, component in spec.components.items():
        for definitions in (component.input_definitions, component.output_definitions):
            items = [*definitions.parameters.values(), *definitions.artifacts.values()]
            assert not any(item.description for item in items), name
    for executor in json_format.MessageToDict(spec.deployment_spec)["executors"].values():
        source = executor["container"]["command"][-1]
        (function,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        assert ast.get_docstring(function) is None
    assert all(item.description for item in spec.root.input_definitions.parameters.values())


def test_a_run_gets_the_address_of_its_study_and_not_its_text(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    parameters = spec.root.input_definitions.parameters
    assert "store" in parameters
    assert "study" not in parameters


def test_each_round_stands_in_the_condition_of_the_one_before(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    """So one pod stands for all that is left once the budget is spent."""
    dag = spec.components["comp-rounds"].dag
    for number in range(1, most_rounds(5, steps=Steps.COMPACT) + 1):
        (rest,) = [task for task in dag.tasks.values() if task.trigger_policy.condition]
        assert rest.task_info.name == f"round {number}"
        assert "== 'yes'" in rest.trigger_policy.condition
        dag = spec.components[rest.component_ref.name].dag
    assert not any(task.trigger_policy.condition for task in dag.tasks.values())


def test_the_sizes_in_the_documentation_are_so() -> None:
    page = (GOLDEN.parents[2] / "docs" / "operations.md").read_text()
    for steps in Steps:
        for rounds, trials in ((most_rounds(5, steps=steps), 5), (10, 5)):
            assert row(rounds, trials, steps) in page
    assert row(4, 5, Steps.COMPACT, retuning=True) in page

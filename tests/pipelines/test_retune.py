"""The compiled retuning pipeline: kept, compared, and read as the backend would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.retune.pipeline import build
from pipelines.tuning import Shape

PIPELINES = Path(__file__).parents[2] / "pipelines"
GOLDEN = PIPELINES / "retune" / "retune.yaml"


@pytest.fixture(scope="module")
def spec() -> pipeline_spec_pb2.PipelineSpec:
    pipeline, platform = yaml.safe_load_all(GOLDEN.read_text())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    return json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())


def attempt(spec: pipeline_spec_pb2.PipelineSpec) -> dict[str, Any]:
    """The tasks that the exit task waits for."""
    (before,) = spec.root.dag.tasks["retune-end"].dependent_tasks
    return dict(spec.components[spec.root.dag.tasks[before].component_ref.name].dag.tasks)


def test_tuning_and_deciding_wait_for_the_look_at_the_data(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    tasks = attempt(spec)
    (condition,) = [task for task in tasks.values() if task.trigger_policy.condition]
    assert {task.task_info.name for task in tasks.values()} == {"look at the data", condition.task_info.name}
    assert "tune" in condition.trigger_policy.condition
    inner = spec.components[condition.component_ref.name].dag.tasks
    names = {task.task_info.name for task in inner.values()}
    assert names == {"prepare data", "rounds", "register best", "decide"}


def test_the_end_of_a_run_is_looked_at_in_any_case_and_by_the_store_alone(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    task = spec.root.dag.tasks["retune-end"]
    strategies = pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.TriggerStrategy
    assert task.trigger_policy.strategy == strategies.ALL_UPSTREAM_TASKS_COMPLETED
    run = {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    inputs = json_format.MessageToDict(task.inputs)["parameters"]
    assert {name: inputs[name] for name in ("store", "kfp_run")} == {
        "store": {"componentInputParameter": "store"}, "kfp_run": run,
    }  # fmt: skip
    assert not any("taskOutputParameter" in one or "taskFinalStatus" in one for one in inputs.values())
    checked = json_format.MessageToDict(attempt(spec)["retune-check"].inputs)["parameters"]
    assert checked["kfp_run"] == run
    assert "retune-end" not in build(Shape(1, 1, cluster=None)).pipeline_spec.root.dag.tasks, (
        "KFP's local runner has no run to look at"
    )


def test_what_both_pipelines_ask_for_is_the_same(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    """KFP reads parameters from a signature, which has to be written out in each."""
    (other,) = [
        p for p in yaml.safe_load_all((PIPELINES / "hpo_loop" / "hpo_loop.yaml").read_text()) if "pipelineInfo" in p
    ]
    known = other["root"]["inputDefinitions"]["parameters"]
    own = json_format.MessageToDict(spec.root.input_definitions)["parameters"]
    shared = known.keys() & own.keys()
    assert shared == known.keys() - {"further_runs", "log_trials"}
    for name in shared:
        assert own[name] | {"description": ""} == known[name] | {"description": ""}, name

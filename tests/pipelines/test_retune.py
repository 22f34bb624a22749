"""The compiled retuning pipeline: kept, compared, and read as the backend would."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

PIPELINES = Path(__file__).parents[2] / "pipelines"
GOLDEN = PIPELINES / "retune" / "retune.yaml"


@pytest.fixture(scope="module")
def spec() -> pipeline_spec_pb2.PipelineSpec:
    pipeline, platform = yaml.safe_load_all(GOLDEN.read_text())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    return json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())


def test_tuning_and_deciding_wait_for_the_look_at_the_data(spec: pipeline_spec_pb2.PipelineSpec) -> None:
    (condition,) = [task for task in spec.root.dag.tasks.values() if task.trigger_policy.condition]
    assert "tune" in condition.trigger_policy.condition
    inner = spec.components[condition.component_ref.name].dag.tasks
    names = {task.task_info.name for task in inner.values()}
    assert names == {"prepare data", "rounds", "register best", "decide"}


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

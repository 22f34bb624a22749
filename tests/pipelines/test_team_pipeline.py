"""The looping pipeline inside a team's own: one study for each segment, side by side, and a step after all of them.

kubeflow/pipelines#11520, #10050 and #10592 tell of what goes wrong with nested pipelines in a ParallelFor.
"""

from pathlib import Path

import pytest
from google.protobuf import json_format
from kfp import compiler, dsl
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.hpo_loop.pipeline import build
from pipelines.tuning import Shape
from rlhpo_core.kubeflow.compiled_pipeline import read_package
from rlhpo_core.study.cluster_settings import STANDARD, ClusterSpec


@dsl.component(base_image="rlhpo:0.1.0", install_kfp_package=False)
def segments() -> list[dict]:  # type: ignore[type-arg]
    return [{"store": f"s3://studies/{s}", "table": f"s3://tables/{s}.csv"} for s in ("north", "south")]


@dsl.component(base_image="rlhpo:0.1.0", install_kfp_package=False)
def summary(stores: list[dict]) -> str:  # type: ignore[type-arg]
    return " | ".join(one["store"] for one in stores)


@pytest.mark.parametrize("cluster", [STANDARD, None], ids=["pods", "local"])
def test_a_study_for_each_segment_compiles(tmp_path: Path, cluster: ClusterSpec | None) -> None:
    loop = build(Shape(rounds=2, trials_per_round=2, cluster=cluster))

    @dsl.pipeline(name="per-segment")
    def per_segment() -> str:
        found = segments()
        with dsl.ParallelFor(found.output, parallelism=2) as one:
            run = loop(store=one.store, table_source=one.table)
        return summary(stores=found.output).after(run).output

    path = tmp_path / "per_segment.yaml"
    compiler.Compiler().compile(per_segment, str(path))
    spec = pipeline_spec_pb2.PipelineSpec()
    json_format.ParseDict(read_package(path)["pipeline_spec"], spec)
    (fan_out,) = [task for name, task in spec.root.dag.tasks.items() if name.startswith("for-loop")]
    (loop_task,) = spec.components[fan_out.component_ref.name].dag.tasks.values()
    assert sorted(loop_task.inputs.parameters) == ["store", "table_source"]
    assert "summary" in spec.root.dag.tasks

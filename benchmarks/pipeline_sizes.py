"""How large the looping pipeline gets: python -m benchmarks.pipeline_sizes"""

import gzip
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from kfp import compiler

from pipelines.hpo_loop.pipeline import MOST_ROUNDS, build

#: What Argo stores of a pod in a workflow's status before it compresses it: names, inputs, outputs, times, resources.
#: An assumption from Argo's NodeStatus fields, not a measurement.
STATUS_BYTES_PER_POD = 2500
#: KFP runs a driver beside each step and each graph.
PODS_PER_STEP = 2
ARGO_LIMIT = 2**20


@dataclass(frozen=True)
class Size:
    """Of a pipeline, compiled and running."""

    yaml_bytes: int
    """The IR as kept in a file and sent to the API server."""
    gzip_bytes: int
    pods: int
    workflow_bytes: int
    """Estimate: the IR, compressed, and the compressed status of all pods (taken as five to one)."""


def measure(rounds: int, trials_per_round: int) -> Size:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(build(rounds, trials_per_round), str(path))
        data = path.read_bytes()
    # Three steps around the rounds. A round: three steps and its trials, and the graphs of the round and of its loop
    # with one driver each.
    pods = PODS_PER_STEP * 3 + rounds * (PODS_PER_STEP * (3 + trials_per_round) + 2 + trials_per_round)
    zipped = len(gzip.compress(data, mtime=0))
    return Size(len(data), zipped, pods, zipped + pods * STATUS_BYTES_PER_POD // 5)


def main() -> None:
    print(f"kfp {metadata.version('kfp')}, kfp-kubernetes {metadata.version('kfp-kubernetes')}\n")
    print("| rounds | trials a round | IR YAML | a round | compressed | pods | workflow, estimated | share of 1 MiB |")
    print("|---|---|---|---|---|---|---|---|")
    base = measure(1, 5)
    for rounds, trials in ((1, 5), (10, 5), (MOST_ROUNDS, 5), (MOST_ROUNDS, 20)):
        size = measure(rounds, trials)
        each = (size.yaml_bytes - base.yaml_bytes) // (rounds - 1) if rounds > 1 else size.yaml_bytes
        print(
            f"| {rounds} | {trials} | {size.yaml_bytes:,} | {each:,} | {size.gzip_bytes:,} | {size.pods} | "
            f"{size.workflow_bytes:,} | {size.workflow_bytes / ARGO_LIMIT:.0%} |"
        )


if __name__ == "__main__":
    main()

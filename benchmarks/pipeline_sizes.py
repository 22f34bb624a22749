"""How large the looping pipeline gets: python -m benchmarks.pipeline_sizes"""

import argparse
import tempfile
from importlib import metadata
from pathlib import Path

from kfp import compiler

from pipelines.hpo_loop.pipeline import build
from pipelines.workflow_size import ARGO_LIMIT, most_rounds, pods, workflow_bytes

#: Seconds from a step's start to the next one's on the stock Argo of KFP, whatever the step's work, as measured there.
SECONDS_PER_STEP = 20
#: Steps of a round that wait for each other, their graphs included, and steps around the rounds.
IN_SERIES, AROUND = 8.5, 3


def ir_bytes(rounds: int, trials_per_round: int) -> int:
    """Bytes of the compiled pipeline (IR YAML), which is sent to the API server."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(build(rounds, trials_per_round), str(path))
        return path.stat().st_size


def row(rounds: int, trials: int) -> str:
    """One run's row of the table."""
    size = workflow_bytes(rounds, trials)
    minutes = SECONDS_PER_STEP * (AROUND + IN_SERIES * rounds) / 60
    return (
        f"| {trials} | {rounds} | {ir_bytes(rounds, trials):,} | {pods(rounds, trials)} | {size:,} | "
        f"{size / ARGO_LIMIT:.0%} | {minutes:.0f} |"
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"kfp {metadata.version('kfp')}, kfp-kubernetes {metadata.version('kfp-kubernetes')}\n")
    print(
        "| trials a round | rounds in a run | IR YAML, bytes | pods | workflow, bytes | share of 1 MiB "
        "| minutes, at least |"
    )
    print("|---|---|---|---|---|---|---|")
    for trials in (1, 2, 5, 10, 20):
        print(row(most_rounds(trials), trials))
    print(row(10, 5))


if __name__ == "__main__":
    main()

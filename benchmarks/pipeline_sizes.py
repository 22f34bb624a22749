"""How large the looping pipeline gets, in either division of a round into steps: python -m benchmarks.pipeline_sizes"""

import argparse
from importlib import metadata

from pipelines.compiled import compiled
from pipelines.hpo_loop.pipeline import build
from pipelines.tuning import Shape
from pipelines.workflow_size import ARGO_LIMIT, most_rounds, pods, workflow_bytes
from rlhpo_core.execution.resources import Steps

#: Seconds for each pod of those that wait for each other, on the stock Argo of KFP, whatever the pod does: a round of
#: two trials in five steps took 171 s there.
SECONDS_PER_POD = 171 / 11
#: Pods of a round that wait for each other: drivers of its condition, its loop and a trial, and two pods for a step.
IN_SERIES = {Steps.FIVE: 11, Steps.COMPACT: 7}
#: Pods before and after the rounds: the run's own, that of the exit task's group, that of all rounds, and three steps.
AROUND = 9


def ir_bytes(rounds: int, trials_per_round: int, steps: Steps = Steps.FIVE) -> int:
    """Bytes of the compiled pipeline (IR YAML), which is sent to the API server."""
    return len(compiled(build(Shape(rounds, trials_per_round, steps=steps))).encode())


def minutes(rounds: int, steps: Steps) -> float:
    """How long a run takes at least, however quick the training: the sum of what waits for each other."""
    return SECONDS_PER_POD * (AROUND + IN_SERIES[steps] * rounds) / 60


def row(rounds: int, trials: int, steps: Steps) -> str:
    """One run's row of the table."""
    size = workflow_bytes(rounds, trials, steps)
    return (
        f"| {steps} | {trials} | {rounds} | {ir_bytes(rounds, trials, steps):,} | {pods(rounds, trials, steps)} | "
        f"{size:,} | {size / ARGO_LIMIT:.0%} | {minutes(rounds, steps):.0f} |"
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"kfp {metadata.version('kfp')}, kfp-kubernetes {metadata.version('kfp-kubernetes')}\n")
    print(
        "| steps | trials a round | rounds in a run | IR YAML, bytes | pods | workflow, bytes | share of 1 MiB "
        "| minutes, at least |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for steps in (Steps.COMPACT, Steps.FIVE):
        for trials in (1, 2, 5, 10, 20):
            print(row(most_rounds(trials, steps=steps), trials, steps))
        print(row(10, 5, steps))


if __name__ == "__main__":
    main()

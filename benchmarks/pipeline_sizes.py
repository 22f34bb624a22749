"""How large the pipelines get, in either division of a round into steps: python -m benchmarks.pipeline_sizes"""

import argparse
from importlib import metadata

from pipelines.compiled import compiled
from pipelines.hpo_loop import pipeline as hpo_loop
from pipelines.retune import pipeline as retune
from pipelines.tuning import Shape
from pipelines.workflow_size import ARGO_LIMIT, most_rounds, pods, workflow_bytes
from rlhpo_core.execution.engines import Steps

#: Seconds for each pod of those that wait for each other, on the stock Argo of KFP, whatever the pod does: a round of
#: two trials in five steps took 171 s there.
SECONDS_PER_POD = 171 / 11
#: Pods of a round that wait for each other: drivers of its condition, its loop and a trial, and two pods for a step.
IN_SERIES = {Steps.FIVE: 11, Steps.COMPACT: 7}


def ir_bytes(rounds: int, trials_per_round: int, steps: Steps = Steps.FIVE, retuning: bool = False) -> int:
    """Bytes of the compiled pipeline (IR YAML), which is sent to the API server."""
    build = (retune if retuning else hpo_loop).build
    return len(compiled(build(Shape(rounds, trials_per_round, steps=steps))).encode())


def minutes(rounds: int, steps: Steps, retuning: bool = False) -> float:
    """How long a run takes at least, however quick the training: the sum of what waits for each other."""
    # Before and after the rounds all do: the run's own, those of groups, and steps.
    return SECONDS_PER_POD * (pods(0, 0, steps, retuning) + IN_SERIES[steps] * rounds) / 60


def row(rounds: int, trials: int, steps: Steps, retuning: bool = False) -> str:
    """One run's row of the table."""
    size, name = workflow_bytes(rounds, trials, steps, retuning), f"{steps}, retuning" if retuning else steps
    return (
        f"| {name} | {trials} | {rounds} | {ir_bytes(rounds, trials, steps, retuning):,} | "
        f"{pods(rounds, trials, steps, retuning)} | {size:,} | {size / ARGO_LIMIT:.0%} | "
        f"{minutes(rounds, steps, retuning):.0f} |"
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
    print(row(4, 5, Steps.COMPACT, retuning=True))


if __name__ == "__main__":
    main()

"""Networks on images in the paper's sixteen hyperparameters: rlhpo, random search, TPE with a median pruner, and ASHA.

    python -m benchmarks.cnn --images mnist_small.npz,fashion_mnist_small.npz --seeds 3
    python -m benchmarks.cnn --images mnist.npz --most-images 0 --device cuda --minutes 8
    python -m benchmarks.cnn --print

Random search trains its trials to their ends; the others then have as much training time. ASHA is Optuna's successive
halving with random configurations. With --minutes nothing is compared: rlhpo alone trains for so long, on a GPU and
then on the CPU, and what is printed is the trials a minute.

Runs are kept as lines of JSON, one file an arm; those that are there are not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import markdown, traces
from benchmarks.reported import ImageTask, possible, run, run_missing

RESULTS = markdown.RESULTS / "cnn"
ARMS = ("rlhpo+none", "rlhpo+asha", "rlhpo+learned", "random+none", "tpe+median", "random+halving")
#: Whose trials set the time: it must not depend on rlhpo's version.
CLOCK = "random+none"
BASELINES = {arm: CLOCK for arm in ARMS if arm != CLOCK}
NAMES = {
    "rlhpo+none": "rlhpo, no stopping",
    "rlhpo+asha": "rlhpo, asha",
    "rlhpo+learned": "rlhpo, learned",
    "random+none": "random search",
    "tpe+median": "TPE, median pruner",
    "random+halving": "ASHA",
}
#: Errors on the validation and the test images, all images of the set: table 4 of the paper.
PAPER = {"MNIST": (0.0051, 0.0085), "Fashion-MNIST": (0.1065, 0.1075)}
COMMAND = "python -m benchmarks.cnn --images mnist_small.npz,fashion_mnist_small.npz --trials 24 --epochs 8 --seeds 3"


def table(found: Sequence[traces.Trace]) -> str:
    """Mean errors of each arm on each set, with their range over seeds, at a part of the time and at its end."""
    runs: dict[tuple[str, str], list[traces.Trace]] = {}
    for trace in found:
        if trace["improvements"]:
            runs.setdefault((trace["task"], trace["optimiser"]), []).append(trace)
    rows = []
    for task in sorted({task for task, _ in runs}):
        base = {trace["seed"]: trace["seconds"] for trace in runs.get((task, CLOCK), [])}
        for arm in ARMS:
            of_arm = [trace for trace in runs.get((task, arm), []) if trace["seed"] in base]
            if of_arm:
                rows.append([task.partition("/")[2], NAMES[arm], len(of_arm), *_cells(of_arm, base)])
    head = [
        "data", "method", "seeds", "error at a quarter of the time", "at half", "at its end", "holdout error", "trials",
        "stopped", "CPU s of training", "CPU s in all",
    ]  # fmt: skip
    return markdown.table(head, rows)


def _cells(of_arm: Sequence[traces.Trace], base: dict[int, float]) -> list[str]:
    at = [
        [_error(trace, part * base[trace["seed"]]) for trace in of_arm] for part in (0.25, 0.5, 1.0)
    ]  # fmt: skip
    holdout = [trace["holdout"] for trace in of_arm]
    mean = {name: np.mean([trace[name] for trace in of_arm]) for name in ("trained", "stopped", "seconds", "cpu_total")}
    return [
        *(f"{np.mean(errors):.4f}" for errors in at[:2]), _ranged(at[2]), _ranged(holdout), f"{mean['trained']:.0f}",
        f"{mean['stopped']:.0f}", f"{mean['seconds']:.0f}", f"{mean['cpu_total']:.0f}",
    ]  # fmt: skip


def _error(trace: traces.Trace, seconds: float) -> float:
    """The best so far after some training time; that of the first trial if none had ended."""
    reached = [error for at, error in trace["improvements"] if at <= seconds]
    return float(reached[-1] if reached else trace["improvements"][0][1])


def _ranged(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f} ({min(values):.4f}–{max(values):.4f})"


def pages() -> dict[str, str]:
    """The page of docs/measurements."""
    paper = ", ".join(f"{name} {own:.4f} ({test:.4f})" for name, (own, test) in PAPER.items())
    intro = f"""
Networks on MNIST and Fashion-MNIST: 2,500 images of each, drawn by the seed, at most 8 epochs a trial, on one thread.
The 24 trials of random search set the training time; the others have as much. In brackets the range over seeds.
The paper trained on all 60,000 images: validation error (test error)
{paper}. With a twenty-fourth of the images the errors cannot be
compared with these.
"""
    return {
        "cnn.md": markdown.page(
            "Networks on images", intro, "cnn", [RESULTS], COMMAND, [table(traces.load([RESULTS]))]
        )
    }  # fmt: skip


def speed(file: Path, images: int | None, epochs: int, device: str, minutes: float) -> str:
    """How many trials a minute rlhpo trains on a device, and how good the best is by then."""
    task = ImageTask(file, images, epochs, 0, "cuda" if device == "cuda" else "cpu")
    trace = run("rlhpo+none", task, 10**6, 60 * minutes)
    error = f"best error {trace['improvements'][-1][1]:.4f}" if trace["improvements"] else "none ended in time"
    holdout = "" if trace["holdout"] is None else f", holdout {trace['holdout']:.4f}"
    rate = 60 * trace["trained"] / trace["seconds"]
    return f"{task.name}: {rate:.1f} trials a minute ({trace['trained']} in {trace['seconds']:.0f} s), {error}{holdout}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="", help="NPZ files with images, separated by commas")
    parser.add_argument("--most-images", type=int, default=2500, help="0 for all")
    parser.add_argument("--trials", type=int, default=24, help="of random search")
    parser.add_argument("--more", type=int, default=8, help="times as many trials may the others make")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=",".join(ARMS), help=f"some of {', '.join(ARMS)}")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--minutes", type=float, help="only measure how fast trials are, for so long on each device")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    given = parser.parse_args()
    files = [Path(file) for file in given.images.split(",") if file]
    if not given.only_print and not files:
        parser.error("--images: what is there to train on?")
    images = given.most_images or None
    if given.minutes is not None:
        for device in dict.fromkeys([given.device, "cpu"]):
            for file in files:
                print(speed(file, images, given.epochs, device, given.minutes), flush=True)
        return
    if not given.only_print:
        arms = possible(given.arms.split(","), ARMS)
        for seed in range(given.seeds):
            for file in files:
                task = ImageTask(file, images, given.epochs, seed, given.device)
                run_missing(task, arms, BASELINES, given.trials, given.more, given.results)
    print(table(traces.load([given.results])))


if __name__ == "__main__":
    traces.single_threaded()
    main()

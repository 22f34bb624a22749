"""Training routines of users, well-behaved and otherwise, for worker processes to run."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlhpo_core.evaluators.protocol import StopTrial

Report = Callable[[int, float], None]
not_a_function = 3
leaked: list[bytearray] = []


def hill(config: dict[str, Any], report: Report, peak: float) -> dict[str, float]:
    """Highest, 1.0, at x = peak and y = 0.01; studies differ in where their peak is."""
    return {"height": 1 - abs(config["x"] - peak) - 0.2 * abs(math.log10(config["y"]) + 2)}


def act(config: dict[str, Any], report: Report) -> float | dict[str, float]:
    """Does what ``config["act"]`` says."""
    routine: Callable[..., float | dict[str, float]] = globals()[config.pop("act")]
    return routine(report, **config)


def stairs(config: dict[str, Any], report: Report) -> dict[str, float]:
    """Rises to x in three steps."""
    for step in range(1, 4):
        report(step, config["x"] * step / 3)
    return {"score": config["x"], "doubled": 2 * config["x"]}


def length(config: dict[str, Any], report: Report, of: str) -> dict[str, float]:
    """Of a text among the hyperparameters, and of an option."""
    return {"score": float(sum(len(value) for value in config.values() if isinstance(value, str)) + len(of))}


def with_options(config: dict[str, Any], report: Report, weights: list[float], offset: float = 0.0) -> float:
    weights.append(config["x"])
    return sum(weights) + offset


def score(report: Report, x: float) -> dict[str, float]:
    for step in range(3):
        report(step, x * step)
    return {"score": 2 * x, "doubled": np.float32(4 * x), "lost": float("nan")}


def describe_process(report: Report) -> dict[str, float]:
    import torch

    threads = {f"{name}_threads": float(os.environ[f"{name}_NUM_THREADS"]) for name in ("OMP", "MKL", "OPENBLAS")}
    return {"score": 0.0, "pid": float(os.getpid()), "torch_threads": float(torch.get_num_threads()), **threads}


def draw(report: Report, draws: int) -> float:
    """Uses up some random numbers; the score depends on the state of all global generators."""
    import torch

    return sum(random.random() + np.random.random() + torch.rand(()).item() for _ in range(draws))  # noqa: S311


def meet(report: Report, mine: str, other: str) -> float:
    """Ends only if another trial runs at the same time."""
    Path(mine).touch()
    while not Path(other).exists():
        time.sleep(0.01)
    return 1.0


def crash(report: Report) -> float:
    report(1, 0.5)
    raise ArithmeticError("the loss\nexploded")


def crash_oddly(report: Report) -> float:
    raise OSError("cannot read " + os.fsdecode(b"caf\xe9.csv"))


def run_out_of_memory(report: Report) -> float:
    raise MemoryError


def leave(report: Report, code: int) -> float:
    os._exit(code)


def kill_itself(report: Report, number: int) -> float:
    report(1, 0.25)
    os.kill(os.getpid(), number)
    return 0.75


def give_up(report: Report, reports: int) -> float:
    for step in range(reports):
        report(step, step / 2)
    raise StopTrial


def diverge(report: Report, value: str) -> float:
    report(5, 0.5)
    report(10, float(value))
    report(15, 0.25)
    return float(value)


def take_the_pod_down(report: Report, log: str) -> float:
    """As when memory is out: the worker's parent is killed, and the worker with it."""
    with Path(log).open("a") as file:
        file.write("trained\n")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return 0.0


def train_for_ever(report: Report, path: str) -> float:
    try:
        step = 0
        while True:
            report(step := step + 1, 0.5)
            time.sleep(0.01)
    except StopTrial:
        Path(path).write_text("stopped")
        raise


def hang(report: Report, path: str) -> float:
    """Says nothing, neither does the process that it starts; the file gets the ids of both."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).with_suffix(".part").write_text(f"{os.getpid()} {sleeper.pid}")
    Path(path).with_suffix(".part").rename(path)
    report(1, 0.5)
    time.sleep(600)
    return 0.0


def hog(report: Report, megabytes: int) -> float:
    held = []
    for _ in range(megabytes):
        held.append(bytearray(os.urandom(1024)) * 1024)
        time.sleep(0.0005)
    time.sleep(600)
    return float(len(held))


def leak(report: Report, megabytes: int) -> float:
    leaked.append(bytearray(b"x") * megabytes * 2**20)
    time.sleep(0.5)
    return 1.0


def nap(report: Report, x: float) -> float:
    time.sleep(0.3)
    report(1, x)
    return x


def always_crash(config: dict[str, Any], report: Report) -> float:
    return crash(report)


def hang_anyhow(config: dict[str, Any], report: Report) -> float:
    return hang(report, config["path"])


def before_the_storm(config: dict[str, Any], report: Report, folder: str) -> float:
    """Notes that it was trained, and takes the store away: what watches for the file ``away`` is away from now on."""
    with (Path(folder) / "trained").open("a") as file:
        file.write(f"{config['x']}\n")
    (Path(folder) / "away").touch()
    return float(config["x"])


def climb(config: dict[str, Any], report: Report, steps: int = 20) -> float:
    """Nears its end exponentially, how soon depends on y. No model can learn from x how high that is: curves tell."""
    end = 1 - (config["x"] - 0.3) ** 2 - 0.4 * (1000 * config["x"] % 1)
    for step in range(1, steps):
        report(step, end * (1 - math.exp(-step * (0.1 + config["y"]))))
    return end


def climb_regardless(config: dict[str, Any], report: Report) -> float:
    """Takes a request to stop for the end of its training, and returns what it has."""
    try:
        return climb(config, report)
    except StopTrial:
        return 9.0


def wrap_the_signal(config: dict[str, Any], report: Report) -> float:
    try:
        return climb(config, report)
    except StopTrial as signal:
        raise RuntimeError("the training loop was left") from signal

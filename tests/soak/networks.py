"""Kills inside the trainings of networks: each trial goes on from its checkpoint and ends with the same weights.

    python -m tests.soak --networks --runs 50       the kills of seeds 1 to 50
    python -m tests.soak --networks --only 7        one of them again, with its folder kept

Each seed draws one SIGKILL: to the worker process that trains, to the whole ``rlhpo tune``, or to a step of the
pipeline; at a random moment of an epoch, while the checkpoint is written (when half of it is on disk, or just before or
after it takes its place), or when the trial has ended and its checkpoint is removed; with files that have no name until
they are whole, and without, as on NFS. What was killed is started again, as a user would do it, except for a worker,
for which its pool starts another one. Then the run is compared with one that nothing has disturbed: trials, tuner,
winner, and the weights of each trial with its optimiser and its generator, to the last bit. No checkpoint and no
temporary file is left, and no run in MLflow is RUNNING.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhpo_core import atomic_files
from rlhpo_core.evaluators.cnn.parameters import DEFAULTS
from rlhpo_core.evaluators.cnn.training import Training
from tests.helpers.pictures import as_npz
from tests.soak.effects import replace

#: Passes over the images in each trial.
EPOCHS = 6
#: File in a run's folder: what its trainings have come to, a line of JSON each.
NOTES = "trainings"
#: File in a run's folder that says that the kill has come; named as ``effects.Armed`` names its first.
MARK = "fault-0"
#: What ``plan.Setup`` calls the study.
STUDY = "network"
WORKER, TUNE, STEP = "worker", "rlhpo tune", "step"
PLACES = ("in an epoch", "half of a checkpoint", "before its renaming", "after its renaming", "before its removal",
          "after its removal")  # fmt: skip
_REMOVALS = PLACES[-2:]


@dataclass(frozen=True)
class Kill:
    """One kill, as a seed draws it."""

    seed: int
    whom: str
    place: str
    trial: int
    """Which of the trials that complete, counted from 0."""
    epoch: int
    """In which epoch, counted from 1, or at whose checkpoint."""
    share: float
    """Of the epoch's time, at any moment."""
    unnamed: bool
    """Whether files have no name until they are whole."""

    def __str__(self) -> str:
        where = self.place if self.place in _REMOVALS else f"{self.place}, epoch {self.epoch}"
        return f"{self.whom}: {where}, files {'without' if self.unnamed else 'with'} a name until whole"


def draw(seed: int) -> Kill:
    """The kill of a seed."""
    rng = np.random.default_rng([seed, 15])
    whom = str(rng.choice((WORKER, TUNE, STEP)))
    # A worker that dies once its trial has ended is none of the trial's.
    places = PLACES[:-2] if whom == WORKER else PLACES
    weights = np.array([2.0, *[1.0] * (len(places) - 1)])
    place = str(rng.choice(places, p=weights / weights.sum()))
    return Kill(
        seed=seed, whom=whom, place=place, trial=int(rng.integers(5)),
        # Before the first epoch has ended there is nothing to go on from; after the last, nothing is kept.
        epoch=int(rng.integers(2, EPOCHS)), share=float(rng.random()), unnamed=bool(rng.random() < 0.5),
    )  # fmt: skip


def key_of(config: Mapping[str, Any]) -> str:
    """By which a trial is known in another run: its configuration."""
    return json.dumps(dict(sorted(config.items())))


# -- in the processes of a run ----------------------------------------------------------------------------------------


def watch(folder: Path, kill: Kill | None, key: str | None, mark: Path) -> None:
    """From now on, in this process and its workers: note what trainings come to, and kill once.

    Args:
        folder: Of the run.
        key: Of the trial that is to meet the kill.
        mark: The file that says that it has come.
    """
    act = os.getpid()
    now: dict[str, Any] = {"key": None, "epoch": 0, "seconds": 0.05}

    def note(**content: Any) -> None:
        with (folder / NOTES).open("a") as file:
            file.write(json.dumps({"key": now["key"], **content}) + "\n")

    def die() -> None:
        if kill is None or mark.exists():
            return
        mark.touch()
        note(what="kill")
        os.kill(os.getpid() if kill.whom == WORKER else act, signal.SIGKILL)
        # A worker dies with the process that has started it.
        time.sleep(60)

    def comes(place: str) -> bool:
        return kill is not None and not mark.exists() and (kill.place, key, kill.epoch) == (
            place, now["key"], now["epoch"],
        )  # fmt: skip

    begin, run_epoch = Training.__init__, Training.run_epoch

    def begun(self: Any, layers: Any, config: Any, *arguments: Any, **options: Any) -> None:
        begin(self, layers, config, *arguments, **options)
        self.key, self.noted = key_of(config), False

    def noted(self: Any) -> None:
        if os.getpid() == act:
            # The winner's refit.
            run_epoch(self)
            return
        now.update(key=self.key, epoch=self.epoch + 1)
        if not self.noted:
            self.noted = True
            note(what="begin", epoch=self.epoch)
        if comes(PLACES[0]):
            timer = threading.Timer(kill.share * now["seconds"], die)  # type: ignore[union-attr]
            timer.daemon = True
            timer.start()
        clock = time.monotonic()
        run_epoch(self)
        now["seconds"] = time.monotonic() - clock
        if self.epoch == EPOCHS:
            note(what="end", digest=_digest(self.tensors()))

    def of_files(effect: Callable[..., Any], at: int, before: str, after: str) -> Callable[..., Any]:
        def watched(*paths: Any, **options: Any) -> Any:
            path = Path(os.fspath(paths[at]))
            if path.parent.name != "checkpoints" or path.name.startswith("."):
                return effect(*paths, **options)
            removal = before in _REMOVALS
            if removal:
                # In the process that writes the trial's file; its name is all that it knows of the trial.
                now.update(key=_key_on_file(path.parent.parent, path.name), epoch=0 if kill is None else kill.epoch)
            if comes(before):
                die()
            result = effect(*paths, **options)
            if not removal:
                note(what="kept", epoch=now["epoch"])
            if comes(after):
                die()
            return result

        return watched

    flush = atomic_files._flush

    def half(file: Any, data: bytes) -> None:
        if os.getpid() != act and comes(PLACES[1]):
            file.write(data[: len(data) // 2])
            file.flush()
            die()
        flush(file, data)

    replace(Training, __init__=begun, run_epoch=noted)
    replace(
        os, link=of_files(os.link, 1, PLACES[2], PLACES[3]), replace=of_files(os.replace, 1, PLACES[2], PLACES[3]),
        unlink=of_files(os.unlink, 0, *_REMOVALS),
    )  # fmt: skip
    replace(atomic_files, _flush=half)
    if kill is not None and not kill.unnamed:
        replace(atomic_files, _create_unnamed=lambda path, data: False)


def _digest(tensors: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _key_on_file(study: Path, trial_id: str) -> str | None:
    file = study / "trials" / f"{trial_id}.json"
    if not file.exists():
        return None
    return key_of_trial(json.loads(file.read_text())["proposal"]["config"])


def key_of_trial(config: Mapping[str, Any]) -> str:
    """The key of a trial's configuration with all that the network has by default."""
    return key_of({**DEFAULTS, **SETTINGS, **config})


#: What no trial changes: a network of a few hundred weights.
SETTINGS = {"batch_size": 4, "conv1_channels": 6, "conv2_channels": 8, "fc1_nodes": 16, "fc2_nodes": 16}


def spec(folder: Path) -> dict[str, Any]:
    """What the study of a run is about; its images are written there."""
    data = folder / "corners.npz"
    if not data.exists():
        as_npz(data, count=120)
    return {
        "data": {"path": str(data), "holdout": 0.2},
        "evaluator": {"kind": "cnn", "epochs": EPOCHS, "params": SETTINGS},
        "objective": "log_loss",
        "space": {
            "learning_rate": {"type": "float", "low": 0.001, "high": 0.05, "log": True},
            "pool1_type": {"type": "categorical", "choices": ["max", "average"]},
        },
    }


# -- judging -----------------------------------------------------------------------------------------------------------


def notes(folder: Path) -> list[dict[str, Any]]:
    """What the trainings of a run have come to, in order."""
    file = folder / NOTES
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def weights(folder: Path) -> dict[str, list[str]]:
    """Trial to the digests of what its trainings have ended with, each once."""
    found: dict[str, set[str]] = {}
    for line in notes(folder):
        if line["what"] == "end":
            found.setdefault(line["key"], set()).add(line["digest"])
    return {key: sorted(digests) for key, digests in sorted(found.items())}


def judge(lines: Sequence[Mapping[str, Any]], kill: Kill, key: str) -> list[str]:
    """What is wrong with how the trial went on that met the kill.

    Args:
        lines: As ``notes`` has them.
        key: Of the trial.
    """
    mine = [line for line in lines if line["key"] == key]
    places = [i for i, line in enumerate(mine) if line["what"] == "kill"]
    if len(places) != 1:
        return [f"{len(places)} kills"]
    begun = [i for i, line in enumerate(mine) if line["what"] == "begin" and i > places[0]]
    epochs = [mine[i]["epoch"] for i in begun]
    if kill.place in _REMOVALS:
        return [f"it was trained again, from epoch {epochs[0]}"] if begun else []
    # Until the signal has arrived, a worker whose parent is killed may have gone on for a while.
    before = mine[: begun[0]] if begun else mine
    kept = max((line["epoch"] for line in before if line["what"] == "kept"), default=0)
    # At any moment a checkpoint may have been kept and not been noted yet.
    possible = (kept, kept + 1) if kill.place == PLACES[0] else (kept,)
    if kept < 1:
        return ["there was no checkpoint to go on from"]
    if len(epochs) != 1 or epochs[0] not in possible:
        return [f"it went on from epochs {epochs}, and its checkpoint was that of epoch {kept}"]
    return []

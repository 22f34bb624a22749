"""The ways through the product, each as a user would go it who is interrupted: what failed is done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient

from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import retuning, round_under_way, tuning
from rlhpo_core.study.spec import load_study
from tests.helpers.retuned_models import registered_model
from tests.helpers.tables import EXAMPLES
from tests.soak import networks
from tests.soak.plan import SERVER
from tests.soak.run import LOCK_EXPIRY, Run

#: How often something is tried until it is stuck.
_TRIES = 10
#: Trials of each study.
TRIALS = 6
_VERSIONS = 4
_CREDIT = EXAMPLES / "german_credit.csv"


#: Seconds before something is tried again: all faults together have passed before the last one.
_PAUSE = 1.0


class StuckError(Exception):
    """What should go on does not."""


def _tries() -> Iterator[int]:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE)
        yield attempt


def take(run: Run, champion: Path) -> None:
    """Take the run's route to its end.

    Args:
        champion: The folder in which ``train_champion`` was.

    Raises: StuckError if it does not come to a good end though it is tried again and again.
    """
    _ROUTES[run.setup.route](run, champion)


def spec(run: Run) -> dict[str, Any]:
    """The run's study."""
    trained = {
        "function": {
            "evaluator": {
                "kind": "function", "function": "tests.helpers.functions:hill", "options": {"peak": 0.3}
            },
            "objective": {"metric": "height", "direction": "maximize"},
            "space": {
                "x": {"type": "float", "low": 0.0, "high": 1.0},
                "y": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
            },
        },
        "xgboost": {
            "data": {"path": str(_table(run)), "target": "target", "holdout": 0.4},
            "evaluator": {"kind": "xgboost"},
            "objective": "auc",
            "space": {
                "n_estimators": {"type": "int", "low": 2, "high": 12},
                "max_depth": {"type": "int", "low": 1, "high": 3},
                "learning_rate": {"type": "float", "low": 0.05, "high": 0.5, "log": True},
            },
            "registry": {"model": run.name, "store": f"{run.store}/registry", "must_beat_constant": False},
            "gate": {"min_rows": 50, "resamples": 200, "latency_ratio": None, "size_ratio": None, "margin": 0.0},
        },
    }  # fmt: skip
    return {
        "name": "soak",
        "seed": 7,
        "prior": "none",
        **(networks.spec(run.folder) if run.setup.study == networks.STUDY else trained[run.setup.study]),
        "budget": {"trials": TRIALS},
        "tuner": {
            "trials_per_round": 2, "agent": {"nodes": 8},
            "model": {"min_trials": 4, "min_r2": None, "episodes": 8, "max_updates": 2},
        },
        "execution": {"workers": 2, "threads": 1, "drill": [2]},
        "tracking": {"experiment": run.name},
    }  # fmt: skip


def _table(run: Run) -> Path:
    return run.folder / "table.csv"


def _write(run: Run) -> Path:
    """The study's file and its table."""
    pd.read_csv(_CREDIT, nrows=400).to_csv(_table(run), index=False)
    path = run.folder / "soak.yaml"
    path.write_text(yaml.safe_dump(spec(run)))
    return path


# -- a study on this machine -------------------------------------------------------------------------------------------


def _tune(run: Run, champion: Path) -> None:
    study, number = _write(run), 0
    for _ in _tries():
        out = run.runs / f"s{number}"
        if (out / "study.yaml").exists():
            code = run.command("resume", out)
        else:
            # A place in which a process was killed before it had begun a study is not taken again.
            number += out.exists()
            code = run.command("tune", study, "--out", run.runs / f"s{number}")
        if code == 0:
            return
    raise StuckError("neither tune nor resume comes to a good end")


# -- the pipeline ------------------------------------------------------------------------------------------------------


class AnewError(Exception):
    """The pipeline is started anew."""


def _steps(run: Run, champion: Path) -> None:
    study = load_study(_write(run))

    def pipeline(folder: Path) -> None:
        _step(run, lambda: put_study(run.store, study))
        _loop(run, folder, run.store)

    _pipeline(run, pipeline)


def _pipeline(run: Run, pipeline: Callable[[Path], None]) -> None:
    """Run a pipeline, and anew from its first step where that is what the user does after a kill."""
    for attempt in _tries():
        folder = run.folder / f"artifacts-{attempt}"
        folder.mkdir()
        try:
            pipeline(folder)
        except AnewError:
            # The dead run holds the study for a while.
            time.sleep(LOCK_EXPIRY)
            continue
        return
    raise StuckError("the pipeline was started anew too often")


def _step(run: Run, do: Callable[[], Any], *outputs: Path) -> Any:
    """Run a step, as often as it fails; each attempt finds no artifacts of an earlier one."""
    for _ in _tries():
        code, result = run.act(do)
        if code == 0:
            return result
        for output in outputs:
            output.unlink(missing_ok=True)
        if run.killed and run.anew:
            raise AnewError
    raise StuckError("a step fails again and again")


def _loop(run: Run, folder: Path, store: str) -> None:
    table, state, kfp_run = folder / "table", folder / "state-0", f"{run.name}-{folder.name}"
    prepared = _step(run, lambda: asdict(tuning.prepare(store, "", table, state, kfp_run=kfp_run)), table, state)
    run_id, name, round_ = prepared["run_id"], prepared["table_name"], prepared
    number = 0
    while round_["more"] == round_under_way.MORE:
        number += 1
        trials = [folder / f"trial-{number}-{index}" for index in range(len(round_["proposals"]))]
        for proposal, trial in zip(round_["proposals"], trials, strict=True):
            _step(run, lambda: _train(store, run_id, proposal, table, name, trial), trial)  # noqa: B023
        after = folder / f"state-{number}"
        round_ = _step(run, lambda: asdict(tuning.learn(store, run_id, state, trials, after)), after)  # noqa: B023
        state = after
    _step(run, lambda: tuning.conclude(store, table, name))


def _train(store: str, run_id: str, proposal: str, table: Path, name: str, trial: Path) -> bool:
    return tuning.train(store, run_id, proposal, table, name, trial) is not None


# -- models in production ----------------------------------------------------------------------------------------------


def train_champion(run: Run) -> None:
    """Register a model that has learnt nothing, since its labels were shuffled: every later winner is better."""
    study = _write(run)
    table = pd.read_csv(_CREDIT, nrows=400)
    table["target"] = table["target"].sample(frac=1, random_state=1).to_numpy()
    table.to_csv(_table(run), index=False)
    if run.command("tune", study, "--out", run.runs / "champion") != 0:
        raise RuntimeError(f"no champion: see {run.folder / 'log'}")


def _challenge(run: Run, champion: Path, versions: int) -> Path:
    """The study file of a model of its own name, whose versions are all the champion; the first is champion."""
    if run.setup.tracking != SERVER:
        # Its artifacts stay where they are.
        (run.runs / "mlflow.db").write_bytes((champion / "disk/runs/mlflow.db").read_bytes())
    run.direct(lambda: _copy_champion(run, champion.name, versions))
    return _write(run)


def _copy_champion(run: Run, original: str, versions: int) -> None:
    client = MlflowClient()
    version = client.get_model_version(original, "1")
    model_id = client.get_run(version.run_id).outputs.model_outputs[0].model_id
    client.create_registered_model(run.name)
    for _ in range(versions):
        client.create_model_version(run.name, version.source, version.run_id, version.tags, model_id=model_id)
    client.set_registered_model_alias(run.name, "champion", "1")


def _retune(run: Run, champion: Path) -> None:
    study = _challenge(run, champion, 1)
    for attempt in _tries():
        if run.command("retune", study, "--out", run.runs / f"s{attempt}") == 0:
            # What was interrupted before is brought to its end, too; it decides nothing.
            for folder in sorted(run.runs.glob("s*")):
                _resume(run, folder)
            return
    raise StuckError("no retuning comes to a good end")


def _resume(run: Run, folder: Path) -> None:
    if not (folder / "study.yaml").exists():
        return
    for _ in _tries():
        if run.command("resume", folder) == 0:
            return
    raise StuckError(f"{folder.name} cannot be resumed")


def _retuning_pipeline(run: Run, champion: Path) -> None:
    study = load_study(_challenge(run, champion, 1))
    _step(run, lambda: put_study(run.store, study))
    note, decided, folder = run.folder / "check", run.folder / "decision", run.folder / "artifacts"
    folder.mkdir()
    checked = _step(run, lambda: asdict(retuning.check(run.store, "", False, note)), note)
    if checked["action"] != retuning.GO:
        raise StuckError("the pipeline finds nothing to do")
    _loop(run, folder, checked["store"])
    _step(run, lambda: retuning.decide(checked["store"], run.store, "", decided), decided)


def _promote(run: Run, champion: Path) -> None:
    """Promotions and roll-backs by hand; each is repeated until it is through, or done already."""
    _challenge(run, champion, _VERSIONS)
    ledger = ("--store", f"{run.store}/registry")
    for version in ("2", "3"):
        _until(run, "promote", run.name, "--version", version, "--reason", "soak", *ledger)
    _until(run, "rollback", run.name, *ledger)
    _until(run, "promote", run.name, "--version", "4", "--reason", "soak", *ledger)
    _until(run, "audit", run.name, *ledger)


def _until(run: Run, *arguments: str) -> None:
    """Repeat a command until it is through. One that was interrupted after its record must not be done twice."""
    before = run.direct(lambda: _moves(run))
    for _ in _tries():
        if run.command(*arguments) == 0:
            return
        # The dead hold the lock for a while; then the user looks what has become of it, until that can be seen.
        time.sleep(LOCK_EXPIRY)
        if not any(run.command("audit", run.name, *arguments[-2:]) == 0 for _ in _tries()):
            raise StuckError("rlhpo audit fails again and again")
        if run.direct(lambda: _moves(run)) > before:
            return
    raise StuckError(f"rlhpo {arguments[0]} fails again and again")


def _moves(run: Run) -> int:
    model = registered_model(load_study(run.folder / "soak.yaml"))
    return sum(record.moves for record in model.ledger.records())


_ROUTES: dict[str, Callable[[Run, Path], None]] = {
    "tune": _tune, "steps": _steps, "retune": _retune, "retuning pipeline": _retuning_pipeline, "promote": _promote,
}  # fmt: skip

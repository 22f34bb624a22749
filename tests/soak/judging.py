"""What a run has come to, read past all proxies, and how that differs from a run that nothing has disturbed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType

from rlhpo_core.production.ledger import DECISIONS
from rlhpo_core.seeds import derive_seed
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.spec import load_study
from rlhpo_core.tracking.connection import all_runs
from rlhpo_core.tracking.content import RUN_STATUS
from rlhpo_core.tracking.registry import aliases_of_model
from rlhpo_core.trial import Trial
from rlhpo_core.tuner.state import TunerState
from tests.helpers.comparison import comparable
from tests.helpers.retuned_models import registered_model
from tests.soak import networks
from tests.soak.plan import DISK, WEATHER
from tests.soak.run import TRAINED, Run

#: What is wrong with a run, by its kind, which is one of ``results.VERDICTS``.
Faults = dict[str, list[str]]


def facts(run: Run) -> dict[str, Any]:
    """What an undisturbed run of the same study comes to as well; JSON."""
    found: dict[str, Any] = {}
    if run.setup.route in ("tune", "steps", "retuning pipeline"):
        files = _study(run)
        state = files.state()
        found["trials"] = comparable(trial for trial in _trials(files, state) if trial is not None)
        found["tuner"] = _digest(state)
        winner = files.record().winner
        if winner is not None:
            registered = (winner.registered or "").replace(run.name, "model")
            found["winner"] = [winner.holdout, registered, winner.warning]
    if run.setup.study == networks.STUDY:
        found["weights"] = networks.weights(run.folder)
    if run.setup.study == "xgboost":
        records = registered_model(load_study(run.folder / "soak.yaml")).ledger.records()
        outcomes = [record.outcome for record in records if record.outcome != "failed"]
        # After a retuning that was interrupted, another one may find that there is nothing left to do.
        found["outcomes"] = [outcome for outcome in outcomes if outcome != "skipped"]
        found["champion"] = _aliases(run).get("champion")
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def judge(run: Run, expected: Mapping[str, Any], stuck: str | None) -> Faults:
    """What is wrong with a run.

    Args:
        expected: The facts of the undisturbed one.
        stuck: Why it did not come to its end, if it did not.
    """
    bad: Faults = defaultdict(list)
    bad["hung"] += run.hung
    bad["wrong"] += run.crashed
    if stuck is not None:
        bad["hung"].append(stuck)
    else:
        _compare(run.direct(lambda: facts(run)), expected, run, bad)
    for kind, faults in run.direct(lambda: _look_around(run, stuck is not None)).items():
        bad[kind] += faults
    return {kind: faults for kind, faults in bad.items() if faults}


def _compare(found: Mapping[str, Any], expected: Mapping[str, Any], run: Run, bad: Faults) -> None:
    if run.setup.route == "retune":
        # Each retuning is a study of its own, which starts from what the one before has learnt.
        if found["champion"] == "1":
            bad["lost"].append("the champion is still the one that has learnt nothing")
        return
    before = {trial["proposal"]["number"]: trial for trial in expected.get("trials", ())}
    after = {trial["proposal"]["number"]: trial for trial in found.get("trials", ())}
    bad["lost"] += [f"trial {number + 1}" for number in sorted(before.keys() - after.keys())]
    bad["wrong"] += [f"trial {number + 1} should not be" for number in sorted(after.keys() - before.keys())]
    bad["wrong"] += [f"trial {n + 1} differs" for n in sorted(before.keys() & after.keys()) if before[n] != after[n]]
    if len(found.get("trials", ())) != len(after):
        bad["doubled"].append("a trial is twice in the study")
    for name in ("tuner", "winner", "weights", "outcomes", "champion"):
        if found.get(name) != expected.get(name):
            bad["wrong"].append(f"{name}: {found.get(name)} where {expected.get(name)} was expected"[:600])


def _look_around(run: Run, stuck: bool) -> Faults:
    """What is wrong of itself, whatever it is compared with."""
    bad: Faults = defaultdict(list)
    bad["litter"] += [str(path.relative_to(run.folder)) for path in run.disk.rglob(".*") if _is_litter(path)]
    bad["litter"] += [str(path.relative_to(run.folder)) for path in run.disk.rglob("checkpoints/*")]
    if stuck:
        return bad
    if run.setup.route != "promote":
        _check_trainings(run, bad)
        _check_mlflow(run, bad)
    if run.setup.study == "xgboost":
        _check_registry(run, bad)
    return bad


def _is_litter(path: Path) -> bool:
    """Whether a hidden file is one that nobody will remove."""
    # MLflow's own: the lock of its database, and files that it was killed in the middle of copying.
    if path.name == ".mlflow.db.lock" or path.name.startswith(".artifact.uploading.") or not path.is_file():
        return False
    # What a process has left that was killed while it replaced a file, a later replacement in the folder removes.
    replaced = path.with_name(path.name[1:].rpartition(".")[0])
    return not replaced.exists() or replaced.parent.name in ("trials", "state", "audit", "candidates")


def _check_trainings(run: Run, bad: Faults) -> None:
    """A trial whose training no signal could end was trained once."""
    if run.setup.route == "retune":
        return
    trials = _study(run).state().history.trials
    file = run.folder / TRAINED
    trained = Counter(map(int, file.read_text().split())) if file.exists() else Counter()
    seeds = {derive_seed(7, t.proposal.round, "trial", t.proposal.index): t.proposal.number + 1 for t in trials}
    again = {seeds.get(seed, 0): count for seed, count in trained.items() if count > 1}
    kinds = {fault.kind for fault in run.came}
    # A kill may hit each trial that is being trained, and a full disk an artifact.
    allowed = kinds - set(WEATHER) - {DISK} or (DISK in kinds and run.setup.route != "tune")
    if again and not allowed:
        bad["doubled"] += [f"trial {number} was trained {count} times" for number, count in again.items()]
    if max(again.values(), default=0) > 1 + len(run.came):
        bad["doubled"].append(f"more trainings than kills: {again}")


def _check_mlflow(run: Run, bad: Faults) -> None:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(run.name)
    if experiment is None:
        bad["lost"].append("the experiment in MLflow")
        return
    runs = all_runs(client, experiment.experiment_id, "", ViewType.ALL)
    studies = [each for each in runs if each.data.tags.get("rlhpo.run") == "study"]
    for files in _studies(run):
        record, history = files.record(), files.history()
        parents = [parent for parent in studies if parent.data.tags["rlhpo.study_id"] == record.study_id]
        if len(parents) != 1:
            bad["lost" if not parents else "doubled"].append(f"{len(parents)} runs of the study in MLflow")
            continue
        children = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
        _check_study(client, parents[0], children, history.trials, len(files.state().summaries), bad)
    known = {files.record().study_id for files in _studies(run)}
    # A study that was given up before it began left a run behind only if it could not be reached any more.
    bad["doubled"] += [
        "a run of a study that is nowhere" for each in studies if each.data.tags["rlhpo.study_id"] not in known
    ]


def _check_study(
    client: MlflowClient, parent: MlflowRun, children: Sequence[MlflowRun], trials: Sequence[Trial], rounds: int,
    bad: Faults,
) -> None:  # fmt: skip
    if parent.info.status != "FINISHED":
        bad["running" if parent.info.status == "RUNNING" else "wrong"].append(f"the study's run: {parent.info.status}")
    active: dict[str, list[MlflowRun]] = defaultdict(list)
    for child in children:
        if child.info.lifecycle_stage == "active":
            active[child.data.tags.get("rlhpo.trial_id", "")].append(child)
    bad["running"] += [f"run {c.info.run_name}" for each in active.values() for c in each if c.info.status == "RUNNING"]
    bad["wrong"] += [f"a run of trial {name!r}" for name in active.keys() - {trial.trial_id for trial in trials}]
    for trial in trials:
        mine, number = active[trial.trial_id], trial.proposal.number + 1
        if len(mine) != 1:
            bad["doubled" if mine else "lost"].append(f"{len(mine)} runs of trial {number} in MLflow")
            continue
        run = mine[0]
        if run.info.status not in ("RUNNING", RUN_STATUS[trial.status]):
            bad["wrong"].append(f"trial {number} is {run.info.status} in MLflow")
        if run.data.params != {name: str(value) for name, value in trial.config.items()}:
            bad["wrong"].append(f"parameters of trial {number} in MLflow")
        if trial.value is not None and run.data.metrics.get("objective") != trial.value:
            bad["wrong"].append(f"the value of trial {number} in MLflow")
    first = min((trial.proposal.number + 1 for trial in trials if trial.value is not None), default=len(trials) + 1)
    _check_curve(client, parent, "best", range(first, len(trials) + 1), bad)
    _check_curve(client, parent, "round.trials", range(1, rounds + 1), bad)


def _check_curve(client: MlflowClient, parent: MlflowRun, name: str, steps: Collection[int], bad: Faults) -> None:
    points = Counter(point.step for point in client.get_metric_history(parent.info.run_id, name))
    if missing := sorted(set(steps) - points.keys()):
        bad["lost"].append(f"points {missing} of the curve {name}")
    if more := sorted(points.keys() - set(steps)):
        bad["wrong"].append(f"points {more} of the curve {name}")
    if any(count > 1 for count in points.values()):
        bad["doubled"].append(f"points of the curve {name}: {dict(points)}")


def _check_registry(run: Run, bad: Faults) -> None:
    """Ledger, aliases and versions agree, and no version is there or decided about twice."""
    client = MlflowClient()
    records = registered_model(load_study(run.folder / "soak.yaml")).ledger.records()
    if [record.number for record in records] != list(range(1, len(records) + 1)):
        bad["wrong"].append("the ledger has gaps")
    aliases = _aliases(run)
    moves = [record for record in records if record.moves]
    champion = moves[-1].champion if moves else "1"
    if aliases.get("champion") != champion:
        bad["wrong"].append(f"the ledger's champion is {champion}, the registry's {aliases.get('champion')}")
    before = "1"
    for record in moves:
        if record.champion_before not in (before, None):
            bad["wrong"].append(f"record {record.number} follows a champion that never was")
        before = record.champion or before
    judged = Counter(r.challenger for r in records if r.verdict is not None and r.outcome in DECISIONS)
    bad["doubled"] += [f"version {version} was decided {count} times" for version, count in judged.items() if count > 1]
    versions = client.search_model_versions(f"name = '{run.name}'")
    copied = {"tune": 0, "steps": 0}.get(run.setup.route, 1)
    studies = Counter(v.tags.get("rlhpo.study_id") for v in versions if int(v.version) > copied)
    if run.setup.route != "promote":
        bad["doubled"] += [f"{count} versions of {study}" for study, count in studies.items() if count > 1]


def _aliases(run: Run) -> dict[str, str]:
    return aliases_of_model(MlflowClient(), run.name)


def _study(run: Run) -> StudyFiles:
    """The one study of a run."""
    found = _studies(run)
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} studies in {run.folder}")
    return found[0]


def _trials(files: StudyFiles, state: TunerState) -> list[Trial | None]:
    """What is on file of the trials that the tuner has learnt from."""
    return [files.trial(trial.trial_id) for trial in state.history.trials]


def _studies(run: Run) -> list[StudyFiles]:
    """Those that have begun."""
    match run.setup.route:
        case "tune" | "retune":
            return [StudyFiles(open_store(str(file.parent))) for file in sorted(run.runs.glob("s*/study.yaml"))]
        case "steps":
            return [StudyFiles(open_store(run.store))]
    # Where a step that checks was killed, the next one takes another place.
    places = sorted({key.split("/")[1] for key in open_store(run.store).keys("studies/")})
    studies = [StudyFiles(open_store(f"{run.store}/studies/{place}")) for place in places]
    return [files for files in studies if files.store.read("study.json") is not None]


def _digest(state: TunerState) -> str:
    """Of all that the tuner has learnt, to the last bit, without identities and times."""
    digest = hashlib.sha256()
    for name, tensor in state.agent.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    # What was read from a file comes in any order.
    for _, moments in sorted(state.moments.items()):
        for name in sorted(moments):
            digest.update(moments[name].numpy().tobytes())
    digest.update(f"{state.round} {[summary.trials for summary in state.summaries]}".encode())
    return digest.hexdigest()

"""Time of the learning parts on one core, and where a whole study's goes.

    OMP_NUM_THREADS=1 python -m benchmarks.performance
    OMP_NUM_THREADS=1 python -m benchmarks.performance --trials 2000
    OMP_NUM_THREADS=1 python -m benchmarks.performance --start
    OMP_NUM_THREADS=1 python -m benchmarks.performance --steps
    OMP_NUM_THREADS=1 python -m benchmarks.performance --marginal
    OMP_NUM_THREADS=1 python -m benchmarks.performance --study 1000

256 episodes of 14 steps are sampled, then learnt from by one PPO update of 4 epochs; each reward model is fitted to 100
trials. Medians. With ``--trials`` a study of so many trials is made instead, in the default settings, on a function
that costs nothing, and the CPU time of each of the tuner's steps is told by the number of trials so far.

With ``--start`` the CPU time of commands that people wait for is told (user and system, least of STARTS): ``rlhpo
--help`` is to take 0.4 s at most, and ``rlhpo status`` 0.6 s. With ``--steps`` the CPU time of each of the pipeline's
steps is told, each in a process of its own as KFP's local runner has them, with a function that costs nothing: what
a step needs to begin. With ``--study`` so many cheap trials are run by the command line, with MLflow and all, and the
time of the first and of the last 50 trials is told: the last are to take no more than twice as long. With
``--marginal`` two such studies are run, and what a trial more costs is told in CPU seconds of all processes: 0.12 s at
most. Where Optuna is installed, a loop with Optuna and MLflow's own functions is measured beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
import torch

from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import AgentSettings, Kind, PPOSettings, TunerSettings
from rlhpo_core.trial import Config, Proposal, Trial, TrialStatus
from rlhpo_core.tuner import algorithm, ppo, reward_model
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.state import initial_state

EPISODES, STEPS, REPEATS = 256, 14, 21
#: Numbers of trials at which a study's time is told, each the mean of the ROUNDS rounds before: some rounds search the
#: hyperparameters of the Gaussian process, and others do not.
MARKS, ROUNDS = (25, 50, 100, 200, 400, 800, 1200, 1600, 2000), 5


def median(task: Callable[[], object]) -> float:
    """Seconds, after one run to warm up."""
    task()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def space_of(steps: int) -> SearchSpace:
    return SearchSpace.model_validate({f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(steps)})


def height(config: Config) -> float:
    """One hill, and ripples on it."""
    x = np.array([float(value) for value in config.values()])
    return float(-np.square(x - 0.6).sum() + 0.1 * np.cos(9 * x).sum())


def whole_study(trials: int) -> None:
    """Print the CPU seconds a trial of each step."""
    state = initial_state("time", 0, space_of(STEPS), "maximize", TunerSettings())
    spent: list[list[float]] = []
    print(f"{STEPS} hyperparameters, {state.settings.trials_per_round} trials a round; CPU ms a trial\n")
    print("| trials | propose | observe | fit_reward_model | update_policy | all |\n|---|---|---|---|---|---|")
    total = 0.0
    while len(state.history) < trials:
        marks = [time.process_time()]
        proposals = algorithm.propose(state)
        marks.append(time.process_time())
        done = [_done(proposal) for proposal in proposals]
        state = algorithm.observe(state, done)
        marks.append(time.process_time())
        state = algorithm.fit_reward_model(state)
        marks.append(time.process_time())
        state = algorithm.update_policy(state)
        marks.append(time.process_time())
        spent.append((np.diff(marks) / len(done)).tolist())
        total += marks[-1] - marks[0]
        if len(state.history) in MARKS:
            typical = np.mean(np.array(spent[-ROUNDS:]), axis=0) * 1e3
            cells = " | ".join(f"{value:.1f}" for value in [*typical, typical.sum()])
            print(f"| {len(state.history)} | {cells} |", flush=True)
    print(f"\n{total:.0f} CPU s in all")


#: Of each command; of what one takes the least is the command's own, the rest other processes'.
STARTS = 5
#: Commands, and the most CPU seconds that they are to take.
WAITED_FOR = {("--help",): 0.4, ("status",): 0.6, ("tune", "absent.yaml"): 0.6}
_RLHPO = [sys.executable, "-c", "from rlhpo_core.cli.main import main; main()"]
#: Trials at the beginning and at the end of a study that are compared.
ENDS = 50
_CHEAP = """\
def train(config, report):
    x = sum((config[f"x{i}"] - 0.3) ** 2 for i in range(6)) + (config["k"] - 12) ** 2 / 400
    return {"score": -x - (0.1 if config["c"] != "b" else 0)}
"""
_STUDY = """\
name: long
evaluator: {{kind: function, function: "cheap:train"}}
objective: {{metric: score, direction: maximize}}
space:
  x0: {{type: float, low: 0, high: 1}}
  x1: {{type: float, low: 0, high: 1}}
  x2: {{type: float, low: 0, high: 1}}
  x3: {{type: float, low: 0, high: 1}}
  x4: {{type: float, low: 0, high: 1}}
  x5: {{type: float, low: 0, high: 1}}
  k: {{type: int, low: 1, high: 64}}
  c: {{type: categorical, choices: [a, b, c, d]}}
budget: {{trials: {trials}}}
execution: {{workers: 1}}
"""


def starts() -> None:
    """Print the CPU seconds of commands that nobody wants to wait for."""
    with tempfile.TemporaryDirectory() as folder:
        _tune(Path(folder), 3)
        print("| command | CPU s | at most |\n|---|---|---|")
        for arguments, most in WAITED_FOR.items():
            seconds = min(_cpu_seconds(Path(folder), arguments) for _ in range(STARTS))
            print(f"| `rlhpo {' '.join(arguments)}` | {seconds:.2f} | {most:g} |")


def _cpu_seconds(folder: Path, arguments: tuple[str, ...]) -> float:
    return _measured(folder, [*_RLHPO, *arguments], check=False)[0]


def _measured(folder: Path, command: list[str], check: bool = True) -> tuple[float, str]:
    """CPU seconds of a command and of all processes that it has started, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder), check=check, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout.decode()


#: What the steps of a round are called with, here one of one trial.
_STEPS = {
    "prepare": 'prepare("store", "", Path("table"), Path("state"), False).proposals',
    "propose": 'propose("store", Path("state"))',
    "train": 'train("store", "", {proposal!r}, Path("table"), "", Path("trial")) and None',
    "fit_reward_model": 'fit_reward_model(Path("state"), [Path("trial")], Path("fitted"))',
    "update_policy": 'update_policy("store", "", Path("fitted"), Path("state")).more',
    "propose, second round": 'propose("store", Path("state"))',
    "conclude": 'conclude("store", Path("table"), "")',
}
_STEP = (
    "import json, sys\nfrom pathlib import Path\nfrom rlhpo_core.kubeflow.steps import tuning\n"
    "print(json.dumps([tuning.{call}, [name for name in ('torch', 'mlflow') if name in sys.modules]]))"
)


def steps() -> None:
    """Print the CPU seconds of the pipeline's steps, and which of the slow libraries each imports."""
    print("| step | CPU s | imports |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cheap.py").write_text(_CHEAP)
        (folder / "store").mkdir()
        (folder / "store" / "study.yaml").write_text(_STUDY.format(trials=10))
        proposal = ""
        for step, call in _STEPS.items():
            program = _STEP.format(call=call.format(proposal=proposal))
            seconds, printed = _measured(folder, [sys.executable, "-c", program])
            result, imported = json.loads(printed.splitlines()[-1])
            proposal = result[0] if step == "propose" else proposal
            print(f"| {step} | {seconds:.2f} | {', '.join(imported)} |", flush=True)


#: Numbers of trials of two studies, between which a trial's cost is told.
FEWER, MORE = 50, 150
#: A loop as people write it by hand.
_PLAIN = """\
import sys
import mlflow, optuna
from cheap import train
optuna.logging.set_verbosity(optuna.logging.WARNING)
mlflow.set_tracking_uri("sqlite:///plain.db")
mlflow.set_experiment("plain")
def objective(trial):
    config = {f"x{i}": trial.suggest_float(f"x{i}", 0, 1) for i in range(6)}
    config["k"], config["c"] = trial.suggest_int("k", 1, 64), trial.suggest_categorical("c", list("abcd"))
    with mlflow.start_run(nested=True, run_name=f"trial-{trial.number}"):
        mlflow.log_params(config)
        score = train(config, None)["score"]
        mlflow.log_metrics({"score": score})
    return score
with mlflow.start_run():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=int(sys.argv[1]))
    mlflow.log_metric("best", study.best_value)
"""


def marginal() -> None:
    """Print what a trial costs beyond what a study does, in CPU seconds of all processes."""
    loops = {"rlhpo tune": _tune_command}
    if importlib.util.find_spec("optuna") is not None:
        loops["Optuna and MLflow"] = _plain_command
    print(f"| | CPU s, {FEWER} trials | CPU s, {MORE} trials | a trial more |\n|---|---|---|---|")
    for name, command in loops.items():
        spent = []
        for trials in (FEWER, MORE):
            with tempfile.TemporaryDirectory() as folder:
                spent.append(_measured(Path(folder), command(Path(folder), trials))[0])
        more = (spent[1] - spent[0]) / (MORE - FEWER)
        print(f"| {name} | {spent[0]:.1f} | {spent[1]:.1f} | {more:.3f} |", flush=True)


def _plain_command(folder: Path, trials: int) -> list[str]:
    (folder / "cheap.py").write_text(_CHEAP)
    (folder / "plain.py").write_text(_PLAIN)
    return [sys.executable, "plain.py", str(trials)]


def long_study(trials: int) -> None:
    """Print how long the first and the last trials of a study take, all between them included."""
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        marks = _watched(folder, _tune_command(folder, trials))
        whole = time.monotonic() - began
        from rlhpo_core.storage.study_folder import StudyFolder

        done = StudyFolder.open(folder / "runs" / "long").history().trials
    ends = [trial.started_at + trial.seconds for trial in done]
    first, last = ends[ENDS] - ends[0], ends[-1] - ends[-1 - ENDS]
    early, late = _cpu_between(marks, 1, 1 + ENDS), _cpu_between(marks, len(done) - ENDS, len(done))
    print(f"| {len(done)} trials | first {ENDS} | last {ENDS} | last / first | whole study |\n|---|---|---|---|---|")
    print(f"| CPU | {early:.2f} s | {late:.2f} s | {late / early:.2f} | {marks[-1][1]:.0f} s |")
    print(f"| wall time | {first:.1f} s | {last:.1f} s | {last / first:.2f} | {whole:.0f} s |")


def _watched(folder: Path, command: list[str]) -> list[tuple[int, float]]:
    """Numbers of finished trials and the CPU seconds up to then of a study's processes, several times a second."""
    marks = [(0, 0.0)]
    study = psutil.Popen(command, cwd=folder, env=_environment(folder), stdout=subprocess.DEVNULL)
    while study.poll() is None:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            times = [process.cpu_times() for process in (study, *study.children(recursive=True))]
            number = len(os.listdir(folder / "runs" / "long" / "trials"))
            marks.append((number, sum(time.user + time.system for time in times)))
        time.sleep(0.1)
    return marks


def _cpu_between(marks: list[tuple[int, float]], start: int, end: int) -> float:
    """CPU seconds from one number of finished trials to another."""
    # When each number was first seen: what follows the last trial is not a trial's.
    seen = dict(reversed(marks))
    first, last = np.interp([start, end], sorted(seen), sorted(seen.values()))
    return float(last - first)


def _tune(folder: Path, trials: int) -> None:
    _measured(folder, _tune_command(folder, trials))


def _tune_command(folder: Path, trials: int) -> list[str]:
    (folder / "cheap.py").write_text(_CHEAP)
    (folder / "study.yaml").write_text(_STUDY.format(trials=trials))
    return [*_RLHPO, "tune", "study.yaml"]


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    here = os.pathsep.join([str(folder), str(Path(__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])])
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'runs' / 'mlflow.db'}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**kept, **tracking, "PYTHONPATH": here, "RLHPO_ALLOWED_MODULES": "cheap"}


def _done(proposal: Proposal) -> Trial:
    return Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=height(proposal.config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, help="of a whole study, of which the tuner's steps are told")
    parser.add_argument("--start", action="store_true", help="how long commands take to say something")
    parser.add_argument("--steps", action="store_true", help="what each step of the pipeline needs to begin")
    parser.add_argument("--marginal", action="store_true", help="what a cheap trial more costs")
    parser.add_argument("--study", type=int, metavar="TRIALS", help="run a study of cheap trials by the command line")
    given = parser.parse_args()
    if given.start or given.steps or given.marginal or given.study:
        print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread\n")
        if given.start:
            starts()
        if given.steps:
            steps()
        if given.marginal:
            marginal()
        if given.study:
            long_study(given.study)
        return
    torch.set_num_threads(1)
    if given.trials:
        print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread")
        whole_study(given.trials)
        return
    space = space_of(STEPS)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread, median of {REPEATS}\n")
    print(f"| profile | sample {EPISODES} × {STEPS} | PPO update, 4 epochs | both |")
    print("|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(EPISODES, STEPS, generator=generator)
    advantages = torch.randn(EPISODES, generator=generator)
    settings = PPOSettings(epochs=4)
    for profile in ("paper", "extended"):
        agent = Agent(space, AgentSettings.model_validate({"profile": profile}), one_step=False, seed=0)
        optimizer = ppo.make_optimizer(agent, settings)
        rollout = agent.play(noise)
        sample = median(lambda agent=agent: agent.play(noise))  # type: ignore[misc]
        update = median(lambda a=agent, o=optimizer, r=rollout: ppo.update(a, o, r, advantages, settings))  # type: ignore[misc]
        print(f"| {profile} | {sample * 1e3:.0f} ms | {update * 1e3:.0f} ms | {(sample + update) * 1e3:.0f} ms |")
    rng = np.random.default_rng(0)
    features = rng.random((100, STEPS))
    rewards = np.sin(features @ np.arange(STEPS)) + rng.normal(0, 0.1, 100)
    print("\n| reward model | fit to 100 trials |\n|---|---|")
    for kind in get_args(Kind):
        print(
            f"| {kind} | {median(lambda kind=kind: reward_model.fit(kind, features, rewards, seed=0)) * 1e3:.0f} ms |"
        )


if __name__ == "__main__":
    main()

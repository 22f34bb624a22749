"""Warm against cold: OMP_NUM_THREADS=1 python benchmarks/warm_start.py --data DIR [--trials 30] [--seeds 2]

Each table is cut into two months at random. A study of the first month is what came before. On the second month a cold
study and a warm one, which starts from the first month's, spend the same budget; counted are the trials until each
reaches the best value that the cold one finds, "–" if it never does. Scores are of the validation rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from rlhpo_core import drift, tuner
from rlhpo_core.data import load_table
from rlhpo_core.evaluators import build_evaluator
from rlhpo_core.production import RetuneSpec
from rlhpo_core.settings import TunerSettings
from rlhpo_core.study import StudySpec
from rlhpo_core.trial import Proposal, Trial, TrialStatus
from rlhpo_core.tuner import TunerState, initial_state
from rlhpo_core.warm_start import warm_state

TABLES = ("winequality_white", "german_credit", "phoneme", "wilt", "adult")
SPACE = {
    "n_estimators": {"type": "int", "low": 10, "high": 150, "log": True},
    "learning_rate": {"type": "float", "low": 0.01, "high": 0.6, "log": True},
    "max_depth": {"type": "int", "low": 1, "high": 10},
    "min_child_weight": {"type": "float", "low": 0.1, "high": 20.0, "log": True},
    "subsample": {"type": "float", "low": 0.4, "high": 1.0},
    "colsample_bytree": {"type": "float", "low": 0.3, "high": 1.0},
    "reg_lambda": {"type": "float", "low": 0.01, "high": 30.0, "log": True},
}
SETTINGS = TunerSettings.model_validate(
    {"agent": {"profile": "extended"}, "model": {"kind": "gp", "reward": "log_ei"}, "screening": {"candidates": 256}}
)


def spec_of(path: Path, seed: int) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "bench", "seed": seed, "data": {"path": str(path), "target": "target", "task": "classification"},
            "evaluator": {"kind": "xgboost", "report_every": 1000}, "objective": "log_loss", "space": SPACE,
            "tuner": SETTINGS.model_dump(),
        }
    )  # fmt: skip


def run(state: TunerState, spec: StudySpec, trials: int) -> TunerState:
    evaluator = build_evaluator(spec, threads=1)

    def train(proposal: Proposal) -> Trial:
        found = evaluator.evaluate(proposal.config, lambda *_: None)
        return Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=found.value)

    while len(state.history) < trials:
        done = [train(proposal) for proposal in tuner.propose(state)]
        state = tuner.update_policy(tuner.fit_reward_model(tuner.observe(state, done)))
    return state


def reached(state: TunerState, goal: float) -> int | None:
    """Trials until the value is as good as the goal."""
    curve = state.history.best_so_far()
    return next((i for i, best in enumerate(curve, start=1) if best is not None and best <= goal + 1e-12), None)


def months(path: Path, rows: int, folder: Path) -> list[Path]:
    frame = pd.read_csv(path).sample(frac=1, random_state=0)
    counts = frame["target"].value_counts()
    frame = frame[frame["target"].isin(counts[counts >= 30].index)].head(2 * rows)
    half = len(frame) // 2
    paths = []
    for number, part in enumerate((frame.iloc[:half], frame.iloc[half:])):
        paths.append(folder / f"{path.stem}-{number}.csv")
        part.to_csv(paths[-1], index=False)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the tables")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1500, help="of a month, at most")
    given = parser.parse_args()
    torch.set_num_threads(1)
    started, ratios = time.monotonic(), []
    print(f"{given.trials} trials, {given.seeds} seeds, at most {given.rows} rows a month; log-loss\n")
    print("| table | moved | seed | cold's best | by cold after | by warm after | warm's first trial | warm's best |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in TABLES:
            first, second = months(given.data / f"{name}.csv", given.rows, Path(folder))
            before = spec_of(first, 0)
            known = run(initial_state("before", 0, before.space, "minimize", SETTINGS), before, given.trials)
            for seed in range(1, given.seeds + 1):
                spec = spec_of(second, seed)
                assert before.data is not None
                assert spec.data is not None
                then, now = (drift.profile(load_table(data, 0)) for data in (before.data, spec.data))
                moved = drift.compare(then, now, RetuneSpec()).moved
                cold = run(initial_state("cold", seed, spec.space, "minimize", SETTINGS), spec, given.trials)
                start = warm_state(known, "warm", seed, spec.space, "minimize", SETTINGS, moved)
                warm = run(start, spec, given.trials)
                goal, best = cold.history.best(), warm.history.best()
                assert goal is not None
                assert goal.value is not None
                assert best is not None
                by_cold, by_warm = reached(cold, goal.value), reached(warm, goal.value)
                assert by_cold is not None
                ratios.append((by_warm or given.trials + 1) / by_cold)
                print(
                    f"| {name} | {moved:.3f} | {seed} | {goal.value:.4f} | {by_cold} | {by_warm or '–'} | "
                    f"{warm.history.trials[0].value:.4f} | {best.value:.4f} |",
                    flush=True,
                )
    sooner = sum(ratio < 1 for ratio in ratios)
    print(f"\nwarm was sooner in {sooner} of {len(ratios)}; median ratio of trials {statistics.median(ratios):.2f}")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

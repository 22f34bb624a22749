from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from benchmarks import optimisers, portfolio, real, report, retune, sample_efficiency, shipped_prior, traces
from benchmarks.surrogates import SurrogateTask
from rlhpo_core.priors.store import load_prior
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Config, Value
from rlhpo_core.tuner import prior_mapping

SPACE = SearchSpace.model_validate(
    {
        "rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
        "depth": {"type": "int", "low": 1, "high": 15},
        "booster": {"type": "categorical", "choices": ["tree", "dart", "linear"]},
        "drop": {"type": "float", "low": 0.0, "high": 1.0, "when": {"booster": ["dart"]}},
    }
)


@dataclass(frozen=True)
class Bowl:
    """Highest at rate 0.03, depth 8, booster dart, drop 0.2. Refuses what is not in the space."""

    name: str = "bowl"

    @property
    def space(self) -> SearchSpace:
        return SPACE

    def evaluate(self, config: Mapping[str, Value]) -> float:
        SPACE.encode([dict(config)])
        rate, depth, drop = float(config["rate"]), float(config["depth"]), float(config.get("drop", 0.7))
        distance = (math.log10(rate / 0.03) / 3) ** 2 + ((depth - 8) / 14) ** 2 + (drop - 0.2) ** 2
        return 1 - distance


def require(name: str) -> None:
    needed = {"tpe": ["optuna"], "gp": ["optuna"], "cmaes": ["optuna", "cmaes"], "smac": ["smac"], "ax": ["ax"]}
    for module in needed.get(name, []):
        pytest.importorskip(module, reason=f"{name} needs the extra `benchmarks`")


# -- optimisers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trials"), [("random", 14), ("tpe", 14), ("cmaes", 14), ("gp", 12), ("rlhpo", 7), ("rlhpo-sequential", 7)]
)
def test_a_run_stays_in_the_space_and_repeats_itself(name, trials):
    require(name)
    job = traces.Job(name, Bowl(), seed=0, trials=trials)
    first, second = traces.play(job), traces.play(job)
    assert len(first.values) == trials
    assert first.configs == second.configs
    assert len({config["booster"] for config in first.configs}) > 1
    assert all(("drop" in config) == (config["booster"] == "dart") for config in first.configs)
    other = traces.play(traces.Job(name, Bowl(), seed=1, trials=2))
    assert other.configs != first.configs[:2]


def test_smac_takes_conditions():
    require("smac")
    played = traces.play(traces.Job("smac", Bowl(), seed=0, trials=12))
    assert all(("drop" in config) == (config["booster"] == "dart") for config in played.configs)


def test_luck_is_not_shared_between_tasks():
    one, other = (traces.play(traces.Job("random", Bowl(name), seed=0, trials=3)) for name in ("a", "b"))
    assert one.configs != other.configs


@pytest.mark.parametrize("name", ["portfolio", "tpe+portfolio", "gp+portfolio"])
def test_given_configurations_come_first(name):
    require(name.split("+")[0])
    first: tuple[Config, ...] = (
        {"rate": 0.1, "depth": 3, "booster": "tree"},
        {"rate": 0.2, "depth": 9, "booster": "dart", "drop": 0.5},
    )
    played = traces.play(traces.Job(name, Bowl(), seed=0, trials=4, first=first))
    assert tuple(played.configs[:2]) == first


def test_who_cannot_begin_with_given_configurations_says_so():
    with pytest.raises(ValueError, match="can begin with given"):
        traces.play(traces.Job("random", Bowl(), 0, 1, first=({"rate": 0.1, "depth": 3, "booster": "tree"},)))


@pytest.mark.parametrize("name", [*optimisers.PEERS, "rlhpo"])
def test_a_failed_training_is_told_and_left_behind(name):
    require(name)
    optimiser = optimisers.make(name, optimisers.Start(SPACE, 0, 12))
    for trial in range(12):
        config = optimiser.ask()
        optimiser.tell(config, None if trial % 3 == 1 else Bowl().evaluate(config))


def test_traces_pass_over_what_has_failed():
    found = traces.improvements([None, 0.5, None, 0.25, 0.75])
    assert found == [(2, 0.5), (5, 0.75)]
    best = traces.best_so_far({"improvements": found, "trials": 5}, [1, 2, 4, 5, 6])
    np.testing.assert_equal(best, [np.nan, 0.5, 0.5, 0.75, np.nan])
    assert np.isnan(traces.best_so_far({"improvements": [], "trials": 5}, [1, 5])).all()
    earlier = optimisers.Earlier([{"x": 1}, {"x": 2}, {"x": 3}], [None, 0.5, 0.75], None)
    assert earlier.best(3) == [{"x": 3}, {"x": 2}]


def test_an_unknown_optimiser_is_named():
    with pytest.raises(ValueError, match="no optimiser is called 'magic'; there are random, tpe"):
        optimisers.make("magic", optimisers.Start(SPACE, 0, 1))


@pytest.mark.parametrize("file", sorted(optimisers.SETTINGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_settings_files_are_valid(file):
    optimisers.settings_from(file)
    assert f"rlhpo-{file.stem}" in optimisers.names()


def test_rlhpo_learns_round_by_round():
    optimiser = optimisers.make("rlhpo", optimisers.Start(SPACE, 0, 15))
    for _ in range(15):
        config = optimiser.ask()
        optimiser.tell(config, Bowl().evaluate(config))
    assert optimiser.state.round == 7, "five rounds of one trial, and two of five"
    assert len(optimiser.state.history) == 15


def test_retuning_by_hand_begins_with_the_best_of_the_earlier_run():
    require("tpe")
    earlier = traces.Job("tpe", Bowl("earlier"), seed=0, trials=15)
    past = traces.play(earlier)
    played = traces.play(traces.Job("tpe+best", Bowl("later"), seed=0, trials=12, earlier=earlier))
    ranked = [config for _, config in sorted(zip(past.values, past.configs, strict=True), key=lambda pair: -pair[0])]
    assert played.configs[:10] == ranked[:10]


def test_rlhpo_begins_with_what_it_was_given(monkeypatch):
    """Names of the scenario, which the prior that comes with rlhpo knows by XGBoost's own."""
    # How well the policy is imitated in the wider space does not matter here.
    monkeypatch.setattr(prior_mapping, "EPISODES", 128)
    monkeypatch.setattr(prior_mapping, "STEPS", 2)
    shipped = load_prior("xgboost-accuracy")
    definitions = {shipped_prior.BACK.get(name, name): one for name, one in shipped.space.model_dump().items()}
    space = SearchSpace.model_validate(
        {**definitions, "num.impute.selected.cpo": {"type": "categorical", "choices": ["impute.mean", "impute.hist"]}}
    )
    file = Path(str(resources.files("rlhpo_core"))) / "priors" / "builtin" / "xgboost-accuracy.safetensors"
    taught = optimisers.make("rlhpo+prior", optimisers.Start(space, 0, 5, prior=file))
    for _ in range(5):
        taught.tell(taught.ask(), 0.5)
    assert taught.state.prior is not None
    earlier = optimisers.Earlier((), (), taught)
    warm = optimisers.make("rlhpo+warm", optimisers.Start(space, 1, 5, earlier=earlier))
    assert len(warm.state.inherited.trials) == 5


def test_retuning_is_on_the_same_task_with_half_the_data():
    task = SurrogateTask(Path(), "rbv2_xgboost", "3", best=1.0, median=0.5)
    warm = retune.job("rlhpo+warm", task, 0, 100)
    assert warm.earlier is not None
    assert (warm.task, warm.earlier.task.name) == (task, "rbv2_xgboost/3@0.5")
    assert retune.job("tpe", task, 0, 100).earlier is None
    with pytest.raises(ValueError, match=r"write tpe, tpe\+best"):
        retune.job("tpe+hot", task, 0, 100)


# -- traces ----------------------------------------------------------------------------------------------------------


def test_a_trace_gives_the_best_so_far():
    trace = {"improvements": traces.improvements([0.5, 0.4, 0.7, 0.7, 0.9]), "trials": 5}
    assert trace["improvements"] == [(1, 0.5), (3, 0.7), (5, 0.9)]
    assert traces.best_so_far(trace, [1, 2, 3, 4, 5, 6]) == pytest.approx(
        [0.5, 0.5, 0.7, 0.7, 0.9, np.nan], nan_ok=True
    )


def test_only_what_is_missing_is_run_again(tmp_path, capsys):
    jobs = [traces.Job("random", Bowl(name), seed, 5) for name in ("a", "b") for seed in (0, 1)]
    assert traces.run_all(jobs[:3], tmp_path, workers=1) == 0
    before = (tmp_path / "random.jsonl").read_text()
    assert f"numpy {np.__version__}" in (tmp_path / "versions.json").read_text()
    assert [job.key for job in traces.missing(jobs, traces.load([tmp_path]))] == [jobs[3].key]
    assert traces.run_all(jobs, tmp_path, workers=1) == 0
    after = (tmp_path / "random.jsonl").read_text()
    assert after.startswith(before)
    assert len(traces.load([tmp_path])) == 4
    longer = [traces.Job("random", Bowl("a"), 0, 9)]
    assert traces.missing(longer, traces.load([tmp_path])) == longer


def test_a_line_cut_short_is_told_with_its_file(tmp_path):
    (tmp_path / "tpe.jsonl").write_text('{"optimiser": "tpe", "ta')
    with pytest.raises(ValueError, match=r"tpe\.jsonl, line 1"):
        traces.load([tmp_path])


def test_one_failure_does_not_end_the_others(tmp_path, capsys):
    jobs = [traces.Job("magic", Bowl(), 0, 5), traces.Job("random", Bowl(), 0, 5)]
    assert traces.run_all(jobs, tmp_path, workers=1) == 1
    assert "magic on bowl, seed 0, failed" in capsys.readouterr().err
    assert [trace["optimiser"] for trace in traces.load([tmp_path])] == ["random"]


# -- report ----------------------------------------------------------------------------------------------------------


def trace(optimiser: str, task: str, values: list[float], seed: int = 0) -> traces.Trace:
    return {
        "optimiser": optimiser,
        "task": task,
        "seed": seed,
        "trials": len(values),
        "version": "",
        "improvements": traces.improvements(values),
        "cpu_seconds": {"2": 0.5},
    }


REFERENCES = {name: SurrogateTask(Path(), "lcbench", name, best=1.0, median=0.5) for name in ("a", "b")}


def table(*found: traces.Trace) -> report.Table:
    return report.Table.of(found, REFERENCES, ["a", "b"], [1, 2])


def test_regret_is_normalised_and_averaged_over_seeds():
    made = table(trace("x", "a", [0.5, 0.75]), trace("x", "a", [0.75, 1.0], seed=1), trace("x", "b", [1.0, 1.0]))
    assert report.mean_over_seeds(made.regret["x"][:, :, 0]) == pytest.approx([0.75, 0.0])
    assert report.interval(report.mean_over_seeds(made.regret["x"][:, :, 1]), np.mean)[0] == pytest.approx(0.125)


def test_a_tie_is_half_a_win_and_only_common_seeds_count():
    made = table(
        trace("x", "a", [0.5, 0.9]),
        trace("x", "a", [0.1, 0.1], seed=1),
        trace("x", "b", [0.8, 0.8]),
        trace("y", "a", [0.5, 0.8]),
        trace("y", "b", [0.9, 0.9]),
    )
    assert report.wins(made, "x", "y", 0).tolist() == [0.5, 0.0]
    assert report.wins(made, "x", "y", 1).tolist() == [1.0, 0.0]
    assert {name: found.tolist() for name, found in report.ranks(made, ["x", "y"], 0).items()} == {
        "x": [1.5, 2.0],
        "y": [1.5, 1.0],
    }


def test_a_head_start_is_few_trials_against_many():
    made = table(
        *(trace("portfolio", task, [0.9, 0.9]) for task in ("a", "b")),
        *(trace("tpe", task, [0.5, last]) for task, last in (("a", 0.8), ("b", 0.95))),
    )
    assert report.wins(made, "portfolio", "tpe", 0, 1).tolist() == [1.0, 0.0]
    text = report.head_start(made, few=1, many=2)
    assert "| win rate in %, ties ½, after 1 trials against 2 of | tpe |" in text
    assert "| portfolio | 50.0 (0.0–100.0) |" in text
    assert report.head_start(made, few=1, many=3) == ""


def test_tasks_that_random_search_solves_are_told_apart():
    made = table(trace("random", "a", [0.2, 1.0]), trace("random", "b", [0.2, 0.999]))
    assert made.reached.tolist() == [True, False]


def test_an_interval_spans_the_tasks_and_gaps_make_none():
    value, low, high = report.interval(np.array([0.0, 0.0, 1.0, 1.0]), np.mean)
    assert (value, low, high) == (0.5, 0.0, 1.0)
    assert np.isnan(report.interval(np.array([0.0, np.nan]), np.mean)).all()


def test_incomplete_optimisers_are_left_out_and_said_so(tmp_path):
    found = [trace("rlhpo", "a", [0.5, 0.9]), trace("rlhpo", "b", [0.5, 0.7]), trace("tpe", "a", [0.5, 0.9])]
    made = table(*found, trace("random", "a", [0.5, 0.6]), trace("random", "b", [0.5, 0.6]))
    assert made.complete() == ["rlhpo", "random"]
    text = "\n\n".join(report.tables(made))
    assert "tpe: left out, with runs on 1 of 2 tasks" in text
    assert "| win rate of rlhpo in %, ties ½, after | 1 | 2 |" in text
    assert "| random | 50.0 (50.0–50.0) | 100.0 (100.0–100.0) |" in text
    report.plot(made, tmp_path / "plot.png")
    report.plot_at(made, [1, 2], tmp_path / "bars.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("plot.png", "bars.png"))


def test_the_glance_and_the_coverage_tell_of_runs_that_are_shorter():
    found = [trace("long", "a", [0.5, 0.75]), trace("long", "b", [0.5, 1.0]), trace("long", "b", [0.5, 1.0], seed=1)]
    found += [trace("short", task, [1.0]) for task in ("a", "b")]
    glance = report.at_a_glance(table(*found), [1, 2]).splitlines()
    assert glance[2:] == ["| short | 0.000 | – | 0.500 at 2 |", "| long | 1.000 | 0.250 | 0.500 at 2 |"]
    coverage = report.coverage([*found, trace("elsewhere", "c", [1.0])], ["a", "b"]).splitlines()
    assert coverage[2:] == ["| long | 0: 2, 1: 1 | 2 | – |", "| short | 0: 2 | 1 | – |"]


def test_tasks_are_selected_by_a_word():
    tasks = [SurrogateTask(Path(), "lcbench", str(i)) for i in range(101)]
    assert len(sample_efficiency.chosen(tasks, "every5")) == 21
    assert sample_efficiency.chosen(tasks, "2") == tasks[:2]
    assert sample_efficiency.chosen(tasks, "all") == tasks
    with pytest.raises(ValueError, match="write all, every5 or a number"):
        sample_efficiency.chosen(tasks, "some")


# -- portfolio -------------------------------------------------------------------------------------------------------


def test_a_portfolio_begins_with_the_best_on_average_and_then_complements_it():
    regrets = np.array(
        [
            [0.1, 0.0, 0.9, 0.2],
            [0.1, 0.9, 0.0, 0.1],
            [0.1, 0.9, 0.9, 0.1],
        ]
    )
    assert portfolio.greedy(regrets, 3) == [0, 1, 2]
    assert portfolio.greedy(regrets, 9) == [0, 1, 2, 3]


# -- real trainings --------------------------------------------------------------------------------------------------


def test_errors_by_trial_and_by_wall_time():
    found = {"improvements": [(1, 0.5), (3, 0.75)], "trials": 4, "holdout": [0.25, 0.5], "improved_at": [2.0, 6.0]}
    assert real.at_trials(found, "validation", [1, 2, 3, 4]) == [0.5, 0.5, 0.25, 0.25]
    assert real.at_trials(found, "holdout", [2, 3]) == [0.75, 0.5]
    assert real.at_seconds(found, "validation", [1, 2, 7]) == pytest.approx([np.nan, 0.5, 0.25], nan_ok=True)
    assert np.isnan(real.at_trials(found, "validation", [5])).all()


def test_a_real_run_scores_validation_and_holdout(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.random((200, 3))
    rows = [",".join(map(str, [*row, "yes" if row[0] > 0.5 else "no"])) for row in features]
    (tmp_path / "small.csv").write_text("\n".join(["x,y,z,target", *rows]))
    task = real.TableTask(tmp_path, "small", "xgboost-paper", seed=0, timeout=60)
    assert replace(task, timeout=0.0).evaluate({"n_estimators": 50}) is None
    found = real.run(traces.Job("random", task, 0, 3))
    assert found["task"] == "xgboost-paper/small"
    assert len(found["holdout"]) == len(found["improved_at"]) == len(found["improvements"])
    assert found["improvements"][-1][1] > 0.8
    assert found["holdout"][-1] > 0.8
    assert 0 < found["improved_at"][0] <= found["seconds"]
    other = {**found, "optimiser": "tpe"}
    elsewhere = {**found, "task": "xgboost-paper/other"}
    runs = real.comparable([found, other, elsewhere])
    assert [len(of) for of in runs.values()] == [1, 1], "only what both have run"
    last = f"{1 - found['improvements'][-1][1]:.4f}"
    assert real.last_errors(runs, "validation").splitlines()[-1] == f"| tpe | {last} |"
    assert "| mean rank by holdout error after trials |" in "\n".join(real.tables(runs))
    assert "rank" not in "\n".join(real.tables({"tpe": [other]}))
    real.plot(runs, tmp_path / "real.png")
    assert (tmp_path / "real.png").read_bytes().startswith(b"\x89PNG")

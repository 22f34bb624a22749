from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.errors import UserError
from rlhpo_core.strict_yaml import parse_yaml, to_yaml
from rlhpo_core.study.spec import METRICS, StudySpec, dump_study, load_study
from tests.helpers.studies import spaces

MINIMAL: dict[str, Any] = {
    "name": "credit",
    "data": {"path": "table.csv", "target": "default"},
    "evaluator": {"kind": "xgboost"},
    "objective": "auc",
    "space": "xgboost-paper",
}

FULL = """
name: churn-2024.q3
seed: 7
data: {path: data/churn.parquet, target: left, task: classification, validation: 0.25, holdout: 0.1, max_rows: 5000}
evaluator:
  kind: xgboost
  folds: 5
  early_stopping_rounds: 20
  params: {tree_method: hist, max_bin: 128, validate_parameters: true}
objective: {metric: log_loss}
space:
  booster: {type: categorical, choices: [gbtree, dart]}
  eta: {type: float, low: 1e-4, high: 1, log: true}
  rate_drop: {type: float, low: 0, high: 1, when: {booster: dart}}
  depth: {type: int, low: 1, high: 12}
  reg: {type: categorical, choices: [0, 1e-3, "1e-3", "on", true]}
budget: {trials: 40, wall_time: 1h30m, cost: {limit: 12.5, per_trial_hour: 0.4}, patience: 15}
tuner: {mode: mbrl_sdp, trials_per_round: 8, model: {kind: gp, delta: 0.2}, screening: {candidates: 64}}
stopping: {rule: learned, epsilon: 0.1, grace: 20}
execution: {workers: 2, trial_timeout: 15m, trial_memory_mb: 2048}
tracking: {uri: "https://mlflow.example.org", experiment: churn}
registry: {model: churn}
"""


def write(folder: Path, content: dict[str, Any] | str) -> Path:
    path = folder / "study.yaml"
    path.write_text(content if isinstance(content, str) else to_yaml(content), encoding="utf-8")
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (MINIMAL | changes).items() if value is not None}


# -- what is read ----------------------------------------------------------------------------------------------------


def test_a_minimal_study_has_the_default_method_and_known_direction(tmp_path: Path) -> None:
    spec = load_study(write(tmp_path, MINIMAL))
    assert (spec.objective.metric, spec.objective.direction) == ("auc", "maximize")
    assert (spec.tuner.mode, spec.tuner.agent.profile, spec.tuner.model.kind) == ("mbrl_sdp", "extended", "gp")
    assert spec.tuner.screening is not None
    assert spec.prior == "auto"
    assert len(spec.space.steps) == 10
    assert spec.budget.trials == 100


@pytest.mark.parametrize("rule", ["none", "median", "asha", "learned"])
def test_a_rule_of_stopping_may_be_named_alone(tmp_path: Path, rule: str) -> None:
    spec = load_study(write(tmp_path, changed(stopping=rule)))
    assert spec.stopping.rule == rule
    assert spec.stopping == load_study(write(tmp_path, changed(stopping={"rule": rule}))).stopping
    assert load_study(write(tmp_path, MINIMAL)).stopping.rule == "none"


def test_the_papers_profile_can_be_chosen_and_changed_in_part(tmp_path: Path) -> None:
    spec = load_study(write(tmp_path, changed(tuner={"profile": "paper", "model": {"delta": 0.2}})))
    assert (spec.tuner.trials_per_round, spec.tuner.agent.profile, spec.tuner.screening) == (5, "paper", None)
    assert (spec.tuner.model.kind, spec.tuner.model.reward, spec.tuner.model.delta) == ("mlp", "mean", 0.2)
    assert load_study(write(tmp_path, changed(tuner="paper"))).tuner.agent.profile == "paper"


def test_the_table_lies_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    path = write(folder, changed(data={"path": "../tables/a.csv"}))
    assert load_study(path).data.path == tmp_path / "tables" / "a.csv"  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    assert load_study(Path("studies/study.yaml")).data.path == tmp_path / "tables" / "a.csv"  # type: ignore[union-attr]
    absolute = write(folder, changed(data={"path": "/data/a.csv"}))
    assert load_study(absolute).data.path == Path("/data/a.csv")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1h 30m", 5400), ("1.5h", 5400), ("2d", 172800),
        (90, 90), (0.5, 0.5),
    ],
)  # fmt: skip
def test_durations(tmp_path: Path, text: object, seconds: float) -> None:
    spec = load_study(write(tmp_path, changed(budget={"wall_time": text})))
    assert spec.budget.wall_time == timedelta(seconds=seconds)


@pytest.mark.parametrize("metric", METRICS)
def test_the_direction_of_built_in_metrics_is_known(tmp_path: Path, metric: str) -> None:
    for objective in (metric, {"metric": metric}, {"metric": metric, "direction": METRICS[metric]}):
        assert load_study(write(tmp_path, changed(objective=objective))).objective.direction == METRICS[metric]


def test_a_function_may_have_a_metric_of_its_own(tmp_path: Path) -> None:
    content = changed(
        data=None,
        evaluator={"kind": "function", "function": "training.jobs:train", "options": {"epochs": 3}},
        objective={"metric": "latency", "direction": "minimize"},
    )
    spec = load_study(write(tmp_path, content))
    assert spec.objective.direction == "minimize"
    assert spec.data is None


# -- what a user is told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, r"name: .*at least 1 character"),
        ({"name": "a b"}, r"name: 'a b' is not a name; it holds letters, digits"),
        ({"nmae": "x"}, r"nmae: there is no such field"),
        ({"seed": -1}, r"seed: .*at least 0"),
        ({"evaluator": None}, r"evaluator: is missing"),
        ({"evaluator": {"kind": "xgbost"}}, r"evaluator: .*'xgbost'.*'xgboost'"),
        ({"evaluator": {"kind": "xgboost", "folds": 1}}, r"evaluator\.folds: .*at least 2"),
        ({"evaluator": {"kind": "function", "function": "train"}}, r"evaluator\.function: .*module:function"),
        ({"data": None}, r"data: the xgboost evaluator needs a table; add `data: \{path: …, target: …\}`"),
        ({"data": {"path": "a", "validation": 0.6, "holdout": 0.4}}, r"data: validation \+ holdout must leave rows"),
        ({"data": {"path": "a", "taget": "y"}}, r"data\.taget: there is no such field"),
        ({"objective": "acuracy"}, r"objective: unknown metric 'acuracy'; choose one of accuracy, .*direction: m"),
        ({"objective": {"metric": "f7", "direction": "maximize"}}, r"objective\.metric: unknown metric 'f7'; choose"),
        (
            {"objective": {"metric": "rmse", "direction": "maximize"}},
            r"objective\.direction: rmse is better when it is minimized; leave the direction out",
        ),
        ({"objective": {"metric": "auc", "direction": "up"}}, r"objective\.direction: .*maximize, minimize"),
        ({"objective": ["auc"]}, r"objective: .*mapping"),
        ({"space": "xgbost-paper"}, r"no built-in space is called 'xgbost-paper'; did you mean 'xgboost-paper'"),
        ({"space": {"eta": {"type": "float", "low": 1, "high": 0}}}, r"space\.eta: empty range: low \(1.0\) must be"),
        ({"space": {"eta": {"type": "float", "low": 1}}}, r"space\.eta\.high: is missing"),
        ({"budget": {"trials": 0}}, r"budget\.trials: .*at least 1"),
        ({"budget": {"wall_time": "soon"}}, r"budget\.wall_time: 'soon' is not a duration; write for example 90s, 15m"),
        ({"budget": {"wall_time": "90"}}, r"budget\.wall_time: '90' is not a duration"),
        ({"budget": {"wall_time": "1h30"}}, r"budget\.wall_time: '1h30' is not a duration"),
        ({"budget": {"wall_time": ""}}, r"budget\.wall_time: '' is not a duration"),
        ({"budget": {"wall_time": "0s"}}, r"budget\.wall_time: must be longer than 0 seconds"),
        ({"budget": {"wall_time": -5}}, r"budget\.wall_time: must be longer than 0 seconds"),
        ({"budget": {"wall_time": "9999999999d"}}, r"budget\.wall_time: .* leave the limit out"),
        ({"budget": {"cost": {"limit": 3}}}, r"budget\.cost\.per_trial_hour: is missing"),
        ({"tuner": {"mode": "mbrl"}}, r"tuner\.mode: .*mbrl_sdp, rl_sdp, rl_doc, random"),
        ({"tuner": {"model": {"kind": "svm"}}}, r"tuner\.model\.kind: .*mlp, ensemble, gp"),
        ({"tuner": {"model": {"dleta": 1}}}, r"tuner\.model\.dleta: there is no such field"),
        ({"tuner": {"agent": {"layers": 0}}}, r"tuner\.agent\.layers: .*at least 1"),
        ({"tuner": {"ppo": {"clip": 1.0}}}, r"tuner\.ppo\.clip: .*below 1"),
        ({"tuner": {"screening": {"local_share": 2}}}, r"tuner\.screening\.local_share: .*at most 1"),
        ({"stopping": "fast"}, r"stopping: .*none, median, asha, learned"),
        ({"stopping": {"rule": "asha", "min_trials": 3}}, r"stopping\.min_trials: there is no such field"),
        ({"stopping": {"rule": "asha", "reduction": 1}}, r"stopping\.reduction: .*above 1"),
        ({"stopping": {"rule": "learned", "epsilon": 0.5}}, r"stopping\.epsilon: .*below 0.5"),
        ({"execution": {"trial_memory_mb": 1}}, r"execution\.trial_memory_mb: .*256"),
    ],
)
def test_a_wrong_field_is_named_with_what_to_do(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, changed(**changes))
    with pytest.raises(UserError, match=message) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}:\n")


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    content = changed(seed="x", budget={"trials": 0}, tuner={"mode": "no"})
    with pytest.raises(UserError) as caught:
        load_study(write(tmp_path, content))
    assert len(str(caught.value).splitlines()) == 5, "the file, three fields, and where they are described"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "line 2: the name 'name' is given twice"),
        ("budget:\n  trials: 1\n  trials: 2\n", "line 3: the name 'trials' is given twice"),
        ("name: [a\n", "not valid YAML"),
        ("? [a]\n: 1\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("just text", "a study file is a mapping"),
        ("", "a study file is a mapping"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_what_is_no_study_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the study file .*missing\.yaml"):
        load_study(tmp_path / "missing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UserError, match=r"cannot read the study file .*binary\.yaml"):
        load_study(binary)


# -- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_replace_fields_and_keep_their_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    plain = load_study(path)
    budget = {"trials": 5, "cost": {"limit": 1.0}}
    spec = load_study(path, {"seed": 9, "budget": budget, "tuner": {"model": {"delta": 1}}})
    assert spec.seed == 9
    assert (spec.budget.trials, spec.budget.patience, spec.budget.wall_time) == (5, 15, timedelta(minutes=90))
    assert spec.budget.cost is not None
    assert (spec.budget.cost.limit, spec.budget.cost.per_trial_hour) == (1.0, 0.4)
    assert (spec.tuner.model.delta, spec.tuner.model.kind) == (1.0, "gp")
    assert load_study(path) == plain


def test_overrides_may_replace_what_is_no_mapping(tmp_path: Path) -> None:
    path = write(tmp_path, changed())
    changes = {"objective": {"metric": "log_loss"}, "space": {"a": {"type": "bool"}}, "budget": {"trials": 3}}
    spec = load_study(path, changes)
    assert spec.objective.direction == "minimize"
    assert [step.name for step in spec.space.steps] == ["a"]
    assert spec.budget.trials == 3


def test_a_wrong_override_is_reported_like_a_wrong_field(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"budget\.trials"):
        load_study(write(tmp_path, changed()), {"budget": {"trials": -1}})


# -- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [FULL, yaml.safe_dump(MINIMAL)], ids=["full", "minimal"])
def test_a_study_written_and_read_is_the_same(tmp_path: Path, text: str) -> None:
    spec = load_study(write(tmp_path, text))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = load_study(write(elsewhere, dump_study(spec)))
    assert again == spec
    assert dump_study(again) == dump_study(spec)
    assert [type(choice) for choice in _choices(again)] == [type(choice) for choice in _choices(spec)]


def _choices(spec: StudySpec) -> list[object]:
    return [choice for step in spec.space.steps for choice in getattr(step, "choices", ())]


_NUMBERS = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9)
_TEXTS = st.text("0123456789.eE+-onyf: '\"\n#", max_size=6)


@given(
    space=spaces(),
    seed=st.integers(0, 2**63 - 1),
    wall_time=st.none() | st.timedeltas(timedelta(microseconds=1), timedelta(days=10_000)),
    trials=st.integers(1, 10**6),
    delta=st.floats(1e-9, 1e9),
    params=st.dictionaries(st.text("abc_", min_size=1), st.booleans() | _NUMBERS | _TEXTS, max_size=3),
)
def test_any_study_written_and_read_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, params: dict[str, Any], **fields: Any
) -> None:
    spec = StudySpec.model_validate(
        changed(
            data={"path": "/table.csv"},
            space=fields["space"],
            seed=fields["seed"],
            budget={"trials": fields["trials"], "wall_time": fields["wall_time"]},
            tuner={"model": {"delta": fields["delta"]}},
            evaluator={"kind": "xgboost", "params": params},
        )
    )
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(dump_study(spec), encoding="utf-8")
    assert load_study(path) == spec


# -- YAML as people write it -----------------------------------------------------------------------------------------


def test_exponents_are_numbers_and_quoted_ones_text() -> None:
    assert parse_yaml("[1e-3, 1E5, -2.5e3, .5e2, '1e-3', 1e, e3]") == [1e-3, 1e5, -2500.0, 50.0, "1e-3", "1e", "e3"]


def test_merge_keys_share_settings() -> None:
    read = parse_yaml("x: &range {type: float, low: 0, high: 1}\ny:\n  <<: *range\n  high: 2\n")
    assert read["y"] == {"type": "float", "low": 0, "high": 2}

from __future__ import annotations

import io

import pandas as pd

from rlhpo_core.report.trials_csv import trials_csv
from rlhpo_core.space.search_space import SearchSpace
from tests.helpers.reported_studies import history_of, make_spec


def test_each_trial_is_a_row_with_what_it_has() -> None:
    space = SearchSpace.model_validate(
        {
            "layers": {"type": "categorical", "choices": [[64], [64, 32]]},
            "x": {"type": "float", "low": 0, "high": 1, "when": {"layers": [[64]]}},
        }
    )
    spec = make_spec(space)
    outcomes = [
        {"value": 0.1, "metrics": {"auc": 0.25}},
        {"status": "failed", "error": 'a "quoted", line\nMemoryError: too, deep', "started_at": 1e9},
        {"value": 0.1 + 0.2},
    ]
    history = history_of(spec, outcomes)
    table = pd.read_csv(io.StringIO(trials_csv(spec, history)), float_precision="round_trip")
    assert list(table["trial"]) == [1, 2, 3]
    assert list(table["status"]) == ["complete", "failed", "complete"]
    assert table["value"][2] == 0.1 + 0.2, "to the last digit"
    assert list(table["best_so_far"]) == [0.1, 0.1, 0.1 + 0.2]
    assert table["metric.auc"][0] == 0.25
    assert table["why"][1] == "MemoryError: too, deep"
    assert table["started"][1] == "2001-09-09T01:46:40Z"
    for trial, layers, x in zip(history.trials, table["layers"], table["x"], strict=True):
        assert layers == str(list(trial.config["layers"]))  # type: ignore[arg-type]
        assert pd.isna(x) == ("x" not in trial.config)

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.report import figures as drawing
from rlhpo_core.report.figures import CAPTIONS, figures
from rlhpo_core.report.page import html_report, study_note
from rlhpo_core.report.sensitivity import analyse
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import History
from tests.helpers.reported_studies import Study, check_pngs, history_of, line_space, make_spec, scored
from tests.helpers.studies import RICH_SPACE


def test_a_study_of_many_trials_has_every_picture(pngs: dict[str, bytes]) -> None:
    assert list(pngs) == list(CAPTIONS)
    check_pngs(pngs)


def test_pictures_drawn_in_threads_are_the_same(study: Study, pngs: dict[str, bytes]) -> None:
    sensitivity = analyse(*study[:2])
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: figures(*study, sensitivity), range(2))
    assert first == second == pngs


@pytest.mark.parametrize(
    ("space", "direction"),
    [
        (RICH_SPACE, "maximize"),
        (line_space(1), "minimize"),
        pytest.param(RICH_SPACE, "minimize", marks=pytest.mark.e2e),
    ],
    ids=["rich-max", "line-min", "rich-min"],
)
@pytest.mark.parametrize(
    "outcomes",
    [
        [{"value": 0.5}],
        [{"value": 0.5, "curve": ((1, 0.5),)}] * 2,
        [{"value": 0.0}] * 12,
        [{"value": float(i), "curve": ((0, 1.0), (5, 2.0))} for i in range(12)],
        [{"status": "failed", "error": "no"}],
        [{"status": "failed"}, {"status": "infeasible", "error": "NaN"}] * 6,
        [
            {"status": "pruned", "stop": {"reason": "it gave up"}},
            {"status": "pruned", "stop": {"reason": "it is poor", "step": 1, "value": 1.0}, "curve": ((1, 1.0),)},
        ],
        [{"value": 1e308 * (-1) ** i, "curve": ((1, -1e308), (2, 1e308))} for i in range(12)],
        [{"value": 1.0 + 1e-15 * i} for i in range(12)],
        [{"value": 1e300 if i == 3 else i / 10} for i in range(20)],
        [{"value": 1e-300 * i} for i in range(20)],
    ],
    ids=["one", "two", "equal", "plain", "one failed", "all failed", "pruned", "huge", "close", "outlier", "tiny"],
)
def test_no_outcome_breaks_a_picture(space: SearchSpace, direction: str, outcomes: list[dict[str, Any]]) -> None:
    spec = make_spec(space, direction)
    history = history_of(spec, outcomes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sensitivity = analyse(spec, history)
        pngs = figures(spec, history, (), sensitivity)
    check_pngs(pngs)
    assert "progress.png" in pngs
    assert ("curves.png" in pngs) == any("curve" in outcome for outcome in outcomes)
    assert "predicted_vs_real.png" not in pngs
    assert "learning.png" not in pngs
    assert study_note(spec, history, (), sensitivity=sensitivity)
    assert html_report(spec, history, (), pngs)


def test_nothing_is_drawn_of_nothing() -> None:
    spec = make_spec(RICH_SPACE)
    empty = History(direction="maximize")
    assert figures(spec, empty, ()) == {}
    assert "none: no trial has completed" in study_note(spec, empty, ())
    assert "a-study" in html_report(spec, empty, (), {})


def test_names_that_look_like_formulas_or_never_end_are_drawn_literally() -> None:
    space = {
        "$\\frac{$": {"type": "float", "low": 1e-3, "high": 1, "log": True},
        "a\nb" * 50: {"type": "categorical", "choices": ["$x^$", "y" * 200, *(str(i) for i in range(40))]},
        "n": {"type": "int", "low": 1, "high": 2},
    }
    spec = make_spec(SearchSpace.model_validate(space), objective={"metric": "$_{", "direction": "maximize"})
    check_pngs(figures(spec, history_of(spec, [{"value": float(i % 7)} for i in range(20)]), ()))


def test_progress_shows_the_bulk_and_names_the_best() -> None:
    for sign, direction in [(1.0, "maximize"), (-1.0, "minimize")]:
        spec = make_spec(line_space(2), direction)
        values = [sign * v for v in [0.1, 0.3, -1e9, 0.2, 0.4, 0.25, 0.35]]
        outcomes = [*({"value": v} for v in values), {"status": "failed"}]
        (ax,) = drawing._progress(spec, history_of(spec, outcomes)).axes
        low, high = ax.get_ylim()
        assert low < min(sign * 0.1, sign * 0.4)
        assert high > max(sign * 0.1, sign * 0.4)
        assert high - low < 1
        assert f"{sign * 0.4:.5g}, trial 5" in [text.get_text() for text in ax.texts]
        assert "no improvement in the 3 trials since" in ax.get_title("left")
        _, labels = ax.get_legend_handles_labels()
        assert labels == ["complete (6)", "complete, off the scale (1)", "failed (1)", "best so far"]


def test_predictions_are_judged_in_the_units_of_the_objective() -> None:
    spec = make_spec(line_space(2), "minimize")
    history = history_of(spec, [{"value": 0.1 * i} for i in range(8)])
    trials = []
    for trial in history.trials:
        right = trial.proposal.model_copy(update={"predicted": -(trial.value or 0.0), "predicted_std": 0.1})
        trials.append(trial.model_copy(update={"proposal": right}))
    figure = drawing._predicted_vs_real(spec, History(direction="minimize", trials=tuple(trials)))
    assert figure is not None
    assert figure.axes[0].get_title("left") == "Predicted before each trial: R² 1.00, rank correlation 1.00"


def test_importances_by_a_poor_model_are_said_to_be_poor() -> None:
    noise = iter(np.random.default_rng(0).normal(size=120))
    spec, history = scored(line_space(2), lambda config: 2 * config["x0"] + next(noise), 60)
    sensitivity = analyse(spec, history)
    assert sensitivity is not None
    assert 0 < sensitivity.r2 < drawing.POOR_R2
    figure = drawing._importance(spec, sensitivity)
    assert figure is not None
    assert any("POOR" in text.get_text() for text in figure.axes[0].texts)


def test_what_trials_have_to_beat_is_a_line() -> None:
    spec = make_spec(line_space(1))
    history = history_of(spec, [{"value": 0.1 * i} for i in range(5)])
    baseline = Baseline(metric="score", constant=0.5, answer="always 'a $x$'", defaults=-60.0, library="XGBoost")
    (axes,) = drawing._progress(spec, history, baseline).axes
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["always 'a \\$x\\$': 0.5"] == [0.5, 0.5]
    assert lines["XGBoost as it comes: -60, off the scale"] == []
    low, high = axes.get_ylim()
    assert -1 < low < 0.5 < high
    check_pngs({"progress.png": figures(spec, history, (), None, baseline)["progress.png"]})
    # Where no trial has a score there is nothing to compare with.
    failed = history_of(spec, [{"status": "failed"}])
    (axes,) = drawing._progress(spec, failed, baseline).axes
    assert not axes.get_lines()

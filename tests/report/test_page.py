from __future__ import annotations

import io
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rlhpo_core.report import figures as drawing
from rlhpo_core.report import plotting
from rlhpo_core.report.figures import CAPTIONS, figures
from rlhpo_core.report.page import Ending, html_report, study_note
from rlhpo_core.report.parallel_coordinates import parallel_coordinates
from rlhpo_core.report.sensitivity import MIN_TRIALS, analyse, importance
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Proposal, RoundSummary, Trial, TrialStatus
from rlhpo_core.tuner import algorithm
from tests.helpers.studies import RICH_SPACE, random_actions

Study = tuple[StudySpec, History, tuple[RoundSummary, ...]]


def make_spec(space: SearchSpace, direction: str = "maximize", **fields: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "a-study",
            "seed": 5,
            "evaluator": {"kind": "function", "function": "module:function"},
            "objective": {"metric": "score", "direction": direction},
            "space": space.model_dump(),
            **fields,
        }
    )


def line_space(count: int) -> SearchSpace:
    return SearchSpace.model_validate({f"x{i}": {"type": "float", "low": 0, "high": 1} for i in range(count)})


def trials_of(spec: StudySpec, outcomes: list[dict[str, Any]]) -> History:
    """A history of random proposals with the given outcomes; without a status, complete."""
    configs = spec.space.decode(random_actions(spec.space, max(len(outcomes), 1)))
    actions = spec.space.encode(configs)
    trials = []
    for i, outcome in enumerate(outcomes):
        row = tuple(None if math.isnan(a) else float(a) for a in actions[i])
        proposal = Proposal(trial_id=f"t{i}", number=i, round=i // 5, index=i % 5, config=configs[i], actions=row)
        trials.append(Trial(proposal=proposal, **{"status": TrialStatus.COMPLETE, "seconds": 1.0, **outcome}))
    return History(direction=spec.objective.direction, trials=tuple(trials))


def tuned(direction: str, rounds: int = 7) -> Study:
    """The tuner at work on a conditional space in which trials fail, score NaN, are pruned or diverge."""
    spec = make_spec(RICH_SPACE, direction, budget={"trials": 60, "cost": {"limit": 9, "per_trial_hour": 36}})
    sign = 1.0 if direction == "maximize" else -1.0
    state = algorithm.initial_state("id", spec.seed, spec.space, spec.objective.direction, spec.tuner)
    for _ in range(rounds):
        trials = []
        for proposal in algorithm.propose(state):
            number = proposal.number
            value = sign * (0.9 - abs(proposal.config["depth"] - 6) / 20 - (1e9 if number == 12 else 0))  # type: ignore[operator]
            curve = tuple((step, value - sign * math.exp(-step / 3)) for step in range(1, 6))
            outcome: dict[str, Any] = {"status": TrialStatus.COMPLETE, "value": value, "curve": curve}
            if number % 9 == 3:
                outcome = {"status": TrialStatus.FAILED, "error": "Traceback:\n  line 1\nMemoryError: too deep"}
            elif number % 9 == 5:
                outcome = {"status": TrialStatus.INFEASIBLE, "error": "the score is NaN"}
            elif number % 9 == 7:
                outcome["status"] = TrialStatus.PRUNED
            trials.append(Trial(proposal=proposal, started_at=1e9 + 7.0 * number, seconds=20.0, **outcome))
        state = algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, trials)))
    return spec, state.history, state.summaries


@pytest.fixture(scope="module", params=["maximize", "minimize"])
def study(request: pytest.FixtureRequest) -> Study:
    return tuned(request.param)


@pytest.fixture(scope="module")
def pngs(study: Study) -> dict[str, bytes]:
    return figures(*study)


def check_pngs(pngs: dict[str, bytes]) -> None:
    for name, png in pngs.items():
        image = Image.open(io.BytesIO(png))
        assert image.format == "PNG"
        assert 700 <= image.width <= 3000, name
        assert 400 <= image.height <= 1500, name
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20, f"{name} is blank"


# -- figures ---------------------------------------------------------------------------------------------------------


def test_a_study_of_many_trials_has_every_picture(pngs: dict[str, bytes]) -> None:
    assert list(pngs) == list(CAPTIONS)
    check_pngs(pngs)


def test_pictures_drawn_in_threads_are_the_same(study: Study, pngs: dict[str, bytes]) -> None:
    found = analyse(*study[:2])
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: figures(*study, found), range(2))
    assert first == second == pngs


@pytest.mark.parametrize(
    ("space", "direction"),
    [(RICH_SPACE, "maximize"), (RICH_SPACE, "minimize"), (line_space(1), "minimize")],
    ids=["rich-max", "rich-min", "line-min"],
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
        [{"status": "pruned"}, {"status": "pruned", "value": 1.0, "curve": ((1, 1.0),)}],
        [{"value": 1e308 * (-1) ** i, "curve": ((1, -1e308), (2, 1e308))} for i in range(12)],
        [{"value": 1.0 + 1e-15 * i} for i in range(12)],
        [{"value": 1e300 if i == 3 else i / 10} for i in range(20)],
        [{"value": 1e-300 * i} for i in range(20)],
    ],
    ids=["one", "two", "equal", "plain", "one failed", "all failed", "pruned", "huge", "close", "outlier", "tiny"],
)
def test_no_outcome_breaks_a_picture(space: SearchSpace, direction: str, outcomes: list[dict[str, Any]]) -> None:
    spec = make_spec(space, direction)
    history = trials_of(spec, outcomes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = analyse(spec, history)
        pngs = figures(spec, history, (), found)
    check_pngs(pngs)
    assert "progress.png" in pngs
    assert ("curves.png" in pngs) == any("curve" in outcome for outcome in outcomes)
    assert "predicted_vs_real.png" not in pngs
    assert "learning.png" not in pngs
    assert study_note(spec, history, (), sensitivity=found)
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
    check_pngs(figures(spec, trials_of(spec, [{"value": float(i % 7)} for i in range(20)]), ()))


def test_a_hyperparameter_that_no_trial_has_leaves_an_empty_picture() -> None:
    space = {
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "rare": {"type": "float", "low": 1e-3, "high": 1, "log": True, "when": {"kind": "b"}},
        "x": {"type": "float", "low": 0, "high": 1},
    }
    spec = make_spec(SearchSpace.model_validate(space))
    history = trials_of(spec, [{"value": float(i % 7)} for i in range(40)])
    without = tuple(trial for trial in history.trials if trial.proposal.config["kind"] == "a")
    assert len(without) >= 10
    drawn = figures(spec, history.model_copy(update={"trials": without}), ())
    assert "slices.png" in drawn
    check_pngs(drawn)


def test_progress_shows_the_bulk_and_names_the_best() -> None:
    for sign, direction in [(1.0, "maximize"), (-1.0, "minimize")]:
        spec = make_spec(line_space(2), direction)
        values = [sign * v for v in [0.1, 0.3, -1e9, 0.2, 0.4, 0.25, 0.35]]
        outcomes = [*({"value": v} for v in values), {"status": "failed"}]
        (ax,) = drawing._progress(spec, trials_of(spec, outcomes)).axes
        low, high = ax.get_ylim()
        assert low < min(sign * 0.1, sign * 0.4)
        assert high > max(sign * 0.1, sign * 0.4)
        assert high - low < 1
        assert f"{sign * 0.4:.5g}, trial 5" in [text.get_text() for text in ax.texts]
        assert "no improvement in the 3 trials since" in ax.get_title("left")
        _, labels = ax.get_legend_handles_labels()
        assert labels == ["complete (6)", "complete, off the scale (1)", "failed (1)", "best so far"]


def test_parallel_coordinates_has_an_axis_for_each_hyperparameter_but_no_more_than_fit() -> None:
    for count in (3, 40):
        spec = make_spec(line_space(count))
        history = trials_of(spec, [{"value": t.config["x2"]} for t in trials_of(spec, [{"value": 0.0}] * 40).trials])
        found = analyse(spec, history)
        figure = parallel_coordinates(spec, history, found)
        assert figure is not None
        names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert len(names) == min(count, plotting.MAX_AXES) + 1
        assert "x2" in names
        assert names[-1] == "score"


def test_predictions_are_judged_in_the_units_of_the_objective() -> None:
    spec = make_spec(line_space(2), "minimize")
    history = trials_of(spec, [{"value": 0.1 * i} for i in range(8)])
    trials = []
    for trial in history.trials:
        right = trial.proposal.model_copy(update={"predicted": -(trial.value or 0.0), "predicted_std": 0.1})
        trials.append(trial.model_copy(update={"proposal": right}))
    figure = drawing._predicted_vs_real(spec, History(direction="minimize", trials=tuple(trials)))
    assert figure is not None
    assert figure.axes[0].get_title("left") == "Predicted before each trial: R² 1.00, rank correlation 1.00"


@given(st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=30), st.sampled_from(["maximize", "minimize"]))
def test_the_shown_range_is_finite_and_holds_the_better_half(values: list[float], direction: Any) -> None:
    low, high = plotting.shown_range(plotting.drawable(values), direction)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    ranked = sorted(np.clip(values, -1e300, 1e300), reverse=direction == "maximize")
    assert all(low <= value <= high for value in ranked[: (len(ranked) + 1) // 2])


# -- importance ------------------------------------------------------------------------------------------------------


def scored(
    space: SearchSpace, function: Any, count: int = 60, direction: str = "maximize"
) -> tuple[StudySpec, History]:
    spec = make_spec(space, direction)
    blank = trials_of(spec, [{"value": 0.0}] * count)
    return spec, trials_of(spec, [{"value": float(function(trial.config))} for trial in blank.trials])


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_of_an_additive_function_is_each_terms_share_of_the_variance(direction: str) -> None:
    found = importance(*scored(line_space(4), lambda c: 100 + 2 * c["x0"] + c["x1"], direction=direction))
    assert [i.name for i in found[:2]] == ["x0", "x1"]
    for i, share in zip(found, [0.8, 0.2, 0.0, 0.0], strict=True):
        assert i.first == pytest.approx(share, abs=0.03)
        assert i.total == pytest.approx(share, abs=0.03)


def test_importance_tells_an_interaction_from_an_effect() -> None:
    # Zero mean in each factor: all variance lies in the product, none in x0 or x1 alone.
    found = importance(*scored(line_space(3), lambda c: (c["x0"] - 0.5) * (c["x1"] - 0.5), count=120))
    assert {i.name for i in found[:2]} == {"x0", "x1"}
    for i in found[:2]:
        assert i.first < 0.1
        assert i.total > 0.9


def test_importance_reaches_through_conditions_and_choices() -> None:
    spec, history = scored(RICH_SPACE, lambda c: 3 * (c["booster"] == "dart") + c.get("rate_drop", 0), count=150)
    found = {i.name: i for i in importance(spec, history)}
    # Var[3·D + D·r] with P(D) = 1/3 and r uniform: 2.722 from D, 0.028 from r given D.
    assert found["booster"].total > 0.9
    assert found["depth"].total < 0.03
    assert set(found) == {step.name for step in RICH_SPACE.steps}


def test_importance_is_the_same_each_time_and_says_how_good_its_model_is() -> None:
    spec, history = scored(line_space(2), lambda c: c["x0"])
    found = analyse(spec, history)
    assert found is not None
    assert found == analyse(spec, history)
    assert found.r2 > 0.95
    noise = np.random.default_rng(0).normal(size=60)
    poor = analyse(spec, trials_of(spec, [{"value": float(v)} for v in noise]))
    assert poor is not None
    assert poor.r2 < drawing.POOR_R2
    figure = drawing._importance(spec, poor)
    assert figure is not None
    assert any("POOR" in text.get_text() for text in figure.axes[0].texts)


def test_importance_needs_enough_trials_that_differ() -> None:
    spec, history = scored(line_space(2), lambda c: c["x0"], count=MIN_TRIALS - 1)
    assert importance(spec, history) == []
    assert importance(*scored(line_space(2), lambda c: 1.0)) == []


# -- documents -------------------------------------------------------------------------------------------------------


def test_the_note_holds_the_facts(study: Study) -> None:
    spec, history, summaries = study
    best = history.best()
    assert best is not None
    ending = Ending(reason="wall time used up", seconds=3725, holdout={"auc": 0.87654321}, registered="churn version 3")
    note = study_note(spec, history, summaries, ending)
    facts = [
        "# a-study",
        f"score {best.value:.6g} in trial {best.proposal.number + 1}",
        f"{len(history)} of 60 trials",
        "wall time 1 h 2 min",
        f"cost {36 * 20 * len(history) / 3600:.4g} of 9",
        "wall time used up",
        "| auc | 0.876543 |",
        "churn version 3",
        "| 4 | failed | MemoryError: too deep |",
        "| 4 | infeasible | the score is NaN |",
        f"| depth | {best.config['depth']} |",
        "Sobol",
        "seed 5",
        "on held-out trials",
    ]
    for fact in facts:
        assert fact in note
    assert "| one\\_drop |" in note


def test_the_note_fits_into_a_tag_of_mlflow() -> None:
    space = {f"hyperparameter_{i}_of_many": {"type": "float", "low": 0, "high": 1} for i in range(300)}
    spec = make_spec(SearchSpace.model_validate(space))
    outcomes = [{"status": "failed", "error": f"{i}" + "*" * 5000} for i in range(9)] + [{"value": 1.0}]
    note = study_note(spec, trials_of(spec, outcomes), ())
    assert len(note) < 8000
    assert "and 260 more" in note
    assert "other causes" in note


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hostile_text_stays_text() -> None:
    attack = "<script src='http://evil.example/x.js'>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    space = SearchSpace.model_validate({attack: {"type": "categorical", "choices": [attack, "b|c\nd"]}})
    spec = make_spec(space, objective={"metric": attack, "direction": "maximize"}).model_copy(update={"name": attack})
    errors = [{"status": "failed", "error": f"Traceback\n{attack}"}, {"status": "failed", "error": attack}]
    history = trials_of(spec, [{"value": 1.0}, *errors])
    page = html_report(spec, history, (), {attack: b"png"}, Ending(registered=attack, reason=attack))
    parsed = Page(page)
    assert not parsed.tags & {"script", "link", "iframe", "a"}
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert attack in parsed.texts
    note = study_note(spec, history, (), Ending(registered=attack, holdout={attack: 1.0}))
    assert "<" not in note
    for line in note.splitlines():
        assert line.replace("\\|", "").count("|") in (0, 3, 4)


def test_the_page_needs_nothing_outside_itself(study: Study, pngs: dict[str, bytes]) -> None:
    page = Page(html_report(*study, pngs, Ending(holdout={"auc": 0.5})))
    sources = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action")]
    assert len(sources) == len(CAPTIONS)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any("://" in value for _, value in page.attributes)
    text = "\n".join(page.texts)
    for caption in CAPTIONS.values():
        assert caption in text
    assert text.count("MemoryError: too deep") >= 4
    assert "holdout auc" in text

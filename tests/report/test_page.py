from __future__ import annotations

from rlhpo_core.report.figures import CAPTIONS
from rlhpo_core.report.page import Ending, html_report, study_note
from rlhpo_core.report.sensitivity import analyse
from rlhpo_core.space.search_space import SearchSpace
from tests.helpers.html_page import Page
from tests.helpers.reported_studies import Study, history_of, line_space, make_spec


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


def test_stopped_trials_are_told_with_their_reasons(study: Study) -> None:
    spec, history, summaries = study
    saved = "4 trials stopped early; saved about 0.0 s, had each taken as long as the 23 complete ones on average"
    assert f"| stopped early | {saved} |" in study_note(spec, history, summaries)
    page = html_report(spec, history, summaries, {})
    assert saved in page
    assert page.count("at step 3: it is poor") == 4


def test_the_note_fits_into_a_tag_of_mlflow() -> None:
    space = {f"hyperparameter_{i}_of_many": {"type": "float", "low": 0, "high": 1} for i in range(300)}
    spec = make_spec(SearchSpace.model_validate(space))
    outcomes = [{"status": "failed", "error": f"{i}" + "*" * 5000} for i in range(9)] + [{"value": 1.0}]
    note = study_note(spec, history_of(spec, outcomes), ())
    assert len(note) < 8000
    assert "and 260 more" in note
    assert "other causes" in note


def test_hostile_text_stays_text() -> None:
    attack = "<script src='http://evil.example/x.js'>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    space = SearchSpace.model_validate({attack: {"type": "categorical", "choices": [attack, "b|c\nd"]}})
    spec = make_spec(space, objective={"metric": attack, "direction": "maximize"}).model_copy(update={"name": attack})
    errors = [{"status": "failed", "error": f"Traceback\n{attack}"}, {"status": "failed", "error": attack}]
    history = history_of(spec, [{"value": 1.0}, *errors])
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


def test_what_came_of_it_stands_in_the_first_three_lines() -> None:
    spec = make_spec(line_space(2))
    history = history_of(spec, [{"value": 0.5}, {"value": 0.75}])

    def head(ending: Ending) -> str:
        return "\n".join(study_note(spec, history, (), ending).splitlines()[:3])

    assert "**Decision:** promoted: surely better" in head(Ending(decision="promoted: surely better"))
    told = head(Ending(holdout={"score": 0.7}, registered="churn version 3"))
    assert "**Best score 0.75** in trial 2 of 2, 0.7 on the holdout, registered as churn version 3." in told
    assert "No trial of 0 has a score yet" in study_note(spec, history_of(spec, []), ())


def test_where_the_time_went() -> None:
    spec = make_spec(line_space(2))
    # Two at a time from 0 to 10, a pause, and one from 20 to 25.
    outcomes = [{"value": 0.5, "started_at": at, "seconds": took} for at, took in ((100, 10), (100, 8), (120, 5))]
    page = html_report(spec, history_of(spec, outcomes), (), {}, Ending(seconds=30.0))
    assert "15.0 s (50 %) in trials, 1.5 at a time; 15.0 s between them" in page
    assert "the longest trial, 1, took 10.0 s" in page


def test_importances_of_noise_are_held_back() -> None:
    spec = make_spec(line_space(3))
    noise = [0.9, 0.1, 0.6, 0.4, 0.8, 0.3, 0.7, 0.2, 0.5, 0.45, 0.55, 0.15, 0.85, 0.35, 0.65, 0.25] * 2
    history = history_of(spec, [{"value": value} for value in noise])
    assert analyse(spec, history) is None
    assert "Held back: the trials' scores differ by no more than noise" in study_note(spec, history, ())

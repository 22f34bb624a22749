"""docs/measurements is what the committed results say, and the pages quote it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks import gate_error, markdown, measurements, paper_tables, warm_start

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def contents() -> dict[Path, str]:
    return measurements.contents()


def test_the_files_are_what_the_command_writes(contents):
    assert measurements.outdated(contents) == []
    by_hand = {DOCS / "measurements" / name for name in measurements.BY_HAND}
    assert set((DOCS / "measurements").iterdir()) == contents.keys() | by_hand


def test_changed_and_missing_files_are_outdated(tmp_path):
    (tmp_path / "same.md").write_text("a")
    (tmp_path / "changed.md").write_text("b")
    made = {tmp_path / "same.md": "a", tmp_path / "changed.md": "B", tmp_path / "missing.md": "c"}
    assert measurements.outdated(made) == [tmp_path / "changed.md", tmp_path / "missing.md"]


@pytest.mark.parametrize("changed", [True, False])
def test_the_check_writes_nothing_and_fails_if_a_file_differs(changed, tmp_path, monkeypatch, capsys):
    (tmp_path / "real.md").write_text("old")
    monkeypatch.setattr(measurements, "contents", lambda: {tmp_path / "real.md": "new" if changed else "old"})
    monkeypatch.setattr(sys, "argv", ["measurements", "--check"])
    with pytest.raises(SystemExit) as ended:
        measurements.main()
    assert ended.value.code == changed
    assert ("real.md" in capsys.readouterr().out) == changed
    assert (tmp_path / "real.md").read_text() == "old"


@pytest.mark.parametrize("page", ["benchmarks.md", "retuning.md", "algorithm.md"])
def test_the_measured_table_of_a_page_is_a_quotation(page, contents):
    """One table has the head of a measured one; all of its rows are measured ones, too."""
    by_hand = [(DOCS / "measurements" / name).read_text(encoding="utf-8") for name in measurements.BY_HAND]
    known = {line for text in (*contents.values(), *by_hand) for line in text.splitlines()}
    tables = re.findall(r"^\|.*\n\|[-|]+\n(?:\|.*\n?)+", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    quoted = [table.splitlines() for table in tables if table.splitlines()[0] in known]
    assert len(quoted) == 1
    assert set(quoted[0]) - known == set()


def test_a_table_and_a_page_in_markdown(tmp_path):
    assert markdown.table(["a", 1], [["b", "–"]]) == "| a | 1 |\n|---|---|\n| b | – |"
    markdown.note_versions(tmp_path)
    once = (tmp_path / "versions.json").read_text()
    markdown.note_versions(tmp_path)
    assert (tmp_path / "versions.json").read_text() == once, "the same versions are noted once"
    page = markdown.page("Title", "Intro.", "real", [tmp_path, tmp_path], "command", ["one", "", "two"])
    assert page.endswith("\n\none\n\ntwo\n")
    assert page.count("numpy ") == 1


# -- what the tables count -------------------------------------------------------------------------------------------


def test_promotions_without_a_true_gain_are_counted_apart():
    runs = [
        {"null": {m: {"true": true, "promoted": [passed] * 4} for m in gate_error.SCORES}, "seed": 0, "rows": 9}
        for true, passed in ((0.1, True), (-0.1, True), (-0.1, False), (0.0, True))
    ]
    first = gate_error.null_rows(runs)[0]
    assert first[-2].startswith("3 of 4: 75.0 %")
    assert first[-1].startswith("2 of 4: 50.0 %")


def test_a_warm_start_that_never_gets_there_needs_more_than_the_budget():
    run = {"table": "wilt", "way": "newer", "seed": 0, "trials": 3, "rows": 5, "moved": 0.1}
    runs = [
        run | {"cold": [0.5, 0.4, 0.4], "warm": [0.6, 0.5, 0.5]},
        run | {"cold": [0.5, 0.4, 0.4], "warm": [0.4, 0.3, 0.3]},
    ]
    assert [warm_start.trials_needed(each) for each in runs] == [(2, None), (2, 1)]
    assert warm_start.sums(runs).startswith(
        "Warm reaches cold's best sooner in 1 of 2, as soon in 0, later or never in 1"
    )
    assert warm_start.ahead(runs).splitlines()[-1].startswith("| warm is ahead | 1 of 2 | ")


def test_wins_are_of_seeds_that_all_modes_have():
    errors = {"mbrl_sdp": 0.1, "rl_sdp": 0.2, "rl_doc": 0.1, "random": 0.05}
    runs = [
        {"suite": "modes", "table": "car", "seed": 0, "mode": mode, "holdout_error": error}
        for mode, error in errors.items()
    ]
    lonely = {"suite": "modes", "table": "car", "seed": 1, "mode": "mbrl_sdp", "holdout_error": 0.0}
    assert paper_tables.wins_table([*runs, lonely], "holdout").splitlines()[2:] == [
        "| rl_sdp, holdout | 1 | 0 | 0 |",
        "| rl_doc, holdout | 0 | 1 | 0 |",
        "| random, holdout | 0 | 0 | 1 |",
    ]

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.report.markdown import escaped, table


def test_text_is_shown_literally_on_one_line() -> None:
    assert escaped("a|b\n *c* <d> `e` & [f](g) ~h~ #1 \\") == (
        "a\\|b \\*c\\* &lt;d&gt; \\`e\\` &amp; \\[f\\](g) \\~h\\~ \\#1 \\\\"
    )


def test_a_table_has_a_header_a_rule_and_its_rows() -> None:
    assert table(("name", ""), [("max_depth", "3"), ("x", "")]) == "\n".join(
        ["| name |  |", "| --- | --- |", "| max\\_depth | 3 |", "| x |  |"]
    )


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=4))
def test_no_text_adds_a_cell_or_a_line(rows: list[tuple[str, str, str]]) -> None:
    lines = table(("a", "b", "c"), rows).split("\n")
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 4
        assert "<" not in line

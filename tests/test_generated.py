"""Files that a command makes are what it would make now."""

from __future__ import annotations

import re
from importlib import import_module, util
from pathlib import Path

import pytest

from tools import generated

MAKEFILE = (generated.ROOT / "Makefile").read_text()
(LISTED,) = re.findall(r"^GENERATORS := (.+)$", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("module", [module for module in LISTED.split() if not module.startswith("benchmarks.")])
def test_generated_files_are_up_to_date(module: str) -> None:
    """To renew them: make generate. tests/benchmarks compares what benchmarks write."""
    package = util.find_spec(module).submodule_search_locations  # type: ignore[union-attr]
    contents = import_module(f"{module}.__main__" if package else module).contents
    generated.main("", contents, ["--check"])


@pytest.mark.parametrize("kept", ["one\nthree\n", "one\ntwo", "", None])
def test_a_file_that_is_out_of_date_is_found(kept: str | None, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    if kept is not None:
        path.write_text(kept)
    with pytest.raises(SystemExit, match=r"page\.md"):
        generated.main("", lambda: {path: "one\ntwo\n"}, ["--check"])
    assert (path.read_text() if path.exists() else None) == kept
    generated.main("", lambda: {path: "one\ntwo\n"}, [])
    assert path.read_text() == "one\ntwo\n"
    generated.main("", lambda: {path: "one\ntwo\n"}, ["--check"])

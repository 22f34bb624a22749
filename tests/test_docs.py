"""What the documentation says about fields, files and commands is so."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from rlhpo_core import __version__
from rlhpo_core.evaluators.cnn import parameters as network
from rlhpo_core.evaluators.known_parameters import Known
from rlhpo_core.evaluators.xgboost import parameters as xgboost
from rlhpo_core.study.evaluator_specs import SPEC_CLASSES
from rlhpo_core.study.spec import StudySpec, load_study
from tests.helpers import documentation

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.yaml"))
GUIDE = (ROOT / "docs" / "guide.md").read_text()


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Names of all settings, the last part of each path."""
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        models = [kind for kind in kinds if issubclass(kind, BaseModel)]
        if models and name not in ("space", "objective"):
            for inner in models:
                yield from fields(inner, name)
        else:
            yield name


def test_the_guide_names_every_setting() -> None:
    names = {*fields(StudySpec), *(name for spec in SPEC_CLASSES for name in fields(spec))} - {
        "limit",
        "per_trial_hour",
    }
    assert {name for name in names if not re.search(rf"\b{name}\b", GUIDE)} == set()


@pytest.mark.parametrize("library", [xgboost.KNOWN, network.KNOWN], ids=["xgboost", "network"])
def test_the_guide_names_every_hyperparameter(library: Mapping[str, Known]) -> None:
    assert {name for name in library if f"`{name}`" not in GUIDE} == set()


@pytest.mark.parametrize("page", documentation.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_sound(page: Path) -> None:
    """Its commands parse, its links and images lead somewhere, and what it names in code exists."""
    checks = (
        documentation.wrong_commands,
        documentation.broken_links,
        documentation.missing_files,
        documentation.wrong_blocks,
    )
    assert [mistake for check in checks for mistake in check(page)] == []


@pytest.mark.parametrize("page", documentation.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_cells_of_tables_are_short(page: Path) -> None:
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert [cell for row in rows for cell in row.split("|") if len(cell) > 200] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


def block(*lines: str) -> str:
    return "\n".join(["```", *lines, "```"])


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (block("rlhpo tone study.yaml"), "no command tone"),
        (block("rlhpo tune"), "Missing argument"),
        (block("rlhpo tune study.yaml --trails 5"), "No such option"),
        (block("rlhpo tune study.yaml --trials many"), "Invalid value"),
        (block("cd /srv && .venv/bin/rlhpo tune study.yaml --engine slurm > log 2>&1"), "Invalid value"),
        (block("30 2 * * 1  rlhpo prior learn"), "no command learn"),
        (block("rlhpo tune 'study.yaml"), "No closing quotation"),
        (block("make tests"), "no target tests"),
        (block("make run DATA=mine.yaml"), "no variable DATA"),
        (block("python -m benchmarks.reals"), "no module benchmarks.reals"),
        (block("python -m benchmarks.real --date DIR"), "unrecognized arguments"),
        (block("python -m benchmarks.warm_start \\", "    --seeds several"), "invalid int value"),
        (block("python examples/7.py"), "no examples/7.py"),
        (block("OMP_NUM_THREADS=1 pytest tests/test_nothing.py"), "no tests/test_nothing.py"),
        (block("rlpho tune study.yaml"), "no program"),
        ("Call `rlhpo tune STUDY.yaml --trails N`.", "no option --trails"),
        ("Call `rlhpo prior learn`.", "no command learn"),
        ("Call `make tests`.", "no target tests"),
        ("Call `python -m components --verify`.", "no option --verify"),
        ("See [the guide](docs/guides.md).", "docs/guides.md leads nowhere"),
        ("See [the guide](docs/guide.md#instal).", "#instal leads nowhere"),
        ("![A picture](docs/images/none.png)", "none.png leads nowhere"),
        ("See [below](#below).", "#below leads nowhere"),
        ("It is in `rlhpo_core/tuner.py`.", "no rlhpo_core/tuner.py"),
        ("It is `rlhpo_core.seeds.derive`.", "no rlhpo_core.seeds.derive"),
        ("```python\ndef f(:\n```", "python does not parse"),
        ("```yaml\na: {b\n```", "yaml does not parse"),
    ],
)
def test_a_mistake_is_found(text: str, mistake: str, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    page = tmp_path / "page.md"
    page.write_text(text + "\n")
    with pytest.raises(AssertionError, match=re.escape(mistake)):
        test_a_page_is_sound(page)


def test_what_is_right_is_not_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page: `code`, and more\n\n# Again\n\n# Again\n\n"
        "See [the top](#a-page-code-and-more), [twice](#again-1), [elsewhere](https://example.com/nothing).\n\n"
        "`rlhpo tune …`, `rlhpo prior train | evaluate`, `rlhpo`, `make run STUDY=x`, `docs/images/NAME.png`\n\n"
        + block("(cd x && rlhpo --help) | kubectl  # a comment", "rlhpo tune x.yaml --trials 5", "kubectl get pods")
        + "\n\n```text\nnot a command\n```\n"
    )
    test_a_page_is_sound(page)


@pytest.mark.parametrize("study", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_numbered_by_their_first_line(study: Path) -> None:
    load_study(study)
    number = study.stem.split("-")[0]
    assert study.read_text().startswith(f"# {int(number)}. ")


def test_each_example_has_its_line_in_the_index() -> None:
    index = (ROOT / "examples" / "README.md").read_text()
    assert [path.name for path in EXAMPLES if f"]({path.name})" not in index] == []

"""What the documentation says about fields and files is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from rlhpo_core.evaluators.xgboost.parameters import KNOWN
from rlhpo_core.study.spec import FunctionSpec, StudySpec, XGBoostSpec, load_study

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
    names = {*fields(StudySpec), *fields(XGBoostSpec), *fields(FunctionSpec)} - {"limit", "per_trial_hour"}
    assert {name for name in names if not re.search(rf"\b{name}\b", GUIDE)} == set()


def test_the_guide_names_every_hyperparameter_of_xgboost() -> None:
    assert {name for name in KNOWN if f"`{name}`" not in GUIDE} == set()


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("study", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_numbered_by_their_first_line(study: Path) -> None:
    load_study(study)
    number = study.stem.split("-")[0]
    assert study.read_text().startswith(f"# {int(number)}. ")


def test_each_example_has_its_line_in_the_index() -> None:
    index = (ROOT / "examples" / "README.md").read_text()
    assert [path.name for path in EXAMPLES if f"]({path.name})" not in index] == []

"""What the documentation says about fields and files is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from rlhpo_core.evaluators.xgboost.parameters import KNOWN
from rlhpo_core.priors.store import builtin_names, load_prior
from rlhpo_core.study.spec import FunctionSpec, StudySpec, XGBoostSpec, load_study
from rlhpo_core.tuner.prior import describe

ROOT = Path(__file__).parent.parent
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


@pytest.mark.parametrize("study", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_valid(study: Path) -> None:
    assert load_study(study).name == study.stem


@pytest.mark.parametrize("name", builtin_names())
def test_the_card_of_a_prior_is_what_the_command_shows(name: str) -> None:
    shown = (ROOT / "docs" / f"prior-{name}.md").read_text()
    assert shown == describe(load_prior(name)), f"rlhpo prior show {name} > docs/prior-{name}.md"

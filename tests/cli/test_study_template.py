"""The study file that ``rlhpo init`` writes fits its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rlhpo_core.cli.study_template import study_file
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.space.search_space import builtin_space
from rlhpo_core.study.evaluator_specs import SPEC_CLASSES, CNNSpec
from rlhpo_core.study.spec import DataSpec, StudySpec, load_study
from tests.helpers.pictures import SMALL, as_folder, as_npz, as_parquet

EXAMPLES = Path(__file__).parents[2] / "examples"


def written(data: Path, target: str | None, folder: Path) -> StudySpec:
    (folder / "study.yaml").write_text(study_file(DataSpec(path=data, target=target), folder).text)
    return load_study(folder / "study.yaml")


def test_a_first_study_file_fits_its_table(tmp_path: Path) -> None:
    spec = written(EXAMPLES / "data" / "german_credit.csv", "target", tmp_path)
    assert spec.data is not None
    assert spec.data.path == (EXAMPLES / "data" / "german_credit.csv").resolve()
    assert spec.objective.metric == "accuracy"
    assert spec.registry.model == "german_credit"
    assert spec.space == load_study(EXAMPLES / "01-first-study.yaml").space


def test_a_rare_class_asks_for_balanced_accuracy(tmp_path: Path) -> None:
    assert written(EXAMPLES / "data" / "car.csv", "target", tmp_path).objective.metric == "balanced_accuracy"


def test_a_number_is_regressed_on(tmp_path: Path) -> None:
    spec = written(EXAMPLES / "data" / "winequality_white.csv", "alcohol", tmp_path)
    assert spec.data is not None
    assert (spec.data.task, spec.objective.metric) == ("regression", "rmse")


def test_awkward_names_survive(tmp_path: Path) -> None:
    table = (EXAMPLES / "data" / "car.csv").read_text().replace("target", "class: yes/no #1", 1)
    data = tmp_path / "my cars (2024): new.csv"
    data.write_text(table)
    spec = written(data, "class: yes/no #1", tmp_path)
    assert spec.data is not None
    assert spec.data.target == "class: yes/no #1"
    assert spec.data.path == data.resolve()
    assert yaml.safe_load((tmp_path / "study.yaml").read_text())["name"] == "my-cars-2024-new"


def test_without_a_target_the_columns_are_listed(tmp_path: Path) -> None:
    first = study_file(DataSpec(path=EXAMPLES / "data" / "car.csv"), tmp_path)
    assert first.problems[0].startswith("--target: which column is to be predicted?")
    assert "buying, maint, doors" in first.problems[0]


def test_rows_that_end_in_a_delimiter_are_refused(tmp_path: Path) -> None:
    """Values would slide to the left, under the names of other columns."""
    data = tmp_path / "table.csv"
    data.write_text(
        "churned,months,paid,plan\n" + "no,56,1118.46,plus,\nyes,53,1028.23,basic,\nyes,56,9.5,plus,\n" * 20
    )
    with pytest.raises(UserError, match=r"row 1 has 5 fields and the header 4.*'no,56,1118\.46,plus,'"):
        study_file(DataSpec(path=data, target="churned"), tmp_path)
    data.write_text(data.read_text().replace(",\n", "\n"))
    spec = written(data, "churned", tmp_path)
    assert spec.data is not None
    assert spec.data.task == "classification"


@pytest.mark.parametrize("form", [as_npz, as_folder, as_parquet])
def test_images_get_a_network(form: Callable[[Path], Path], tmp_path: Path) -> None:
    data = form(
        tmp_path / ("corners.parquet" if form is as_parquet else "corners.npz" if form is as_npz else "corners")
    )
    spec = written(data, "corner" if form is as_parquet else None, tmp_path)
    assert (spec.evaluator.kind, spec.name, spec.space) == ("cnn", "corners", builtin_space("cnn"))
    assert spec.objective.metric == "accuracy"
    evaluator = build_evaluator(spec.model_copy(update={"evaluator": CNNSpec(kind="cnn", epochs=1)}), threads=1)
    evaluator.check_space(spec.space)
    assert evaluator.evaluate(SMALL, lambda step, value: None).value > 0


def test_what_is_written_of_a_kind_is_what_it_reads(tmp_path: Path) -> None:
    for kind in SPEC_CLASSES:
        assert bool(kind.template) == (kind.reads is not None)
    table = written(EXAMPLES / "data" / "german_credit.csv", "target", tmp_path)
    assert (table.evaluator.kind, table.evaluator.reads) == ("xgboost", "table")

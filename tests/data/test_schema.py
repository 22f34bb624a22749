"""What a table is known to hold: as a file, and in words."""

from __future__ import annotations

from rlhpo_core.data.schema import ColumnSchema, SchemaChange, TableSchema, few_rows, listed_rows


def test_a_schema_is_read_back_as_it_was_written() -> None:
    columns = {"age": ColumnSchema(kind="number"), "plan": ColumnSchema(kind="category", categories=("a", "007"))}
    for classes in ((), ("no", "yes"), (0, 1), (False, True), (0.5, 1.5)):
        task = "classification" if classes else "regression"
        schema = TableSchema(task=task, classes=classes, columns=columns)
        again = TableSchema.model_validate_json(schema.model_dump_json())
        assert again == schema
        assert list(map(type, again.classes)) == list(map(type, classes)), "1 is neither 1.0 nor true"


def test_changes_are_told_with_the_first_rows() -> None:
    change = SchemaChange(
        column="plan", change="has new categories", values=("gold",), rows=few_rows(range(2, 10)), count=8
    )
    assert change.text == "column 'plan' has new categories 'gold' in rows 3, 4, 5, 6, 7 and 3 more"
    assert SchemaChange(column="plan", change="is new").text == "column 'plan' is new"
    assert listed_rows((4,), 1) == "row 4"

"""The study file's JSON Schema, by which editors complete and check it: from the classes, with their docstrings.

It knows the names and types of fields, and what may stand in a field in short (``objective: accuracy``). What needs
more than one field, or the data, is checked when a study is read.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from rlhpo_core.space.parameters import Parameter
from rlhpo_core.space.search_space import builtin_names
from rlhpo_core.study.spec import METRICS, StudySpec

#: Names the schema's language.
_DIALECT = "http://json-schema.org/draft-07/schema#"
_REFERENCE = "#/$defs/{model}"
_NUMBERS_TOO = ("trial_cpu", "step_cpu", "step_cpu_request", "trial_memory", "step_memory", "shared_memory")


def study_schema() -> dict[str, Any]:
    """The schema, as JSON has it."""
    schema = StudySpec.model_json_schema(ref_template=_REFERENCE)
    hyperparameters = TypeAdapter(Parameter).json_schema(ref_template=_REFERENCE)
    definitions = schema["$defs"]
    definitions.update(hyperparameters.pop("$defs"))
    definitions.pop("SearchSpace", None)
    for model in _models(StudySpec) | _models(Parameter):
        _describe(schema if model is StudySpec else definitions.get(model.__name__, {}), model)
    for name in ("Float", "Int", "Categorical", "Bool", "Fixed"):
        _without_name(definitions[name])
    properties = schema["properties"]
    properties["space"] = {
        "description": properties["space"].get("description", ""),
        "anyOf": [
            {"type": "string", "enum": builtin_names()},
            {"type": "object", "minProperties": 1, "additionalProperties": hyperparameters},
        ],
    }
    metrics = {"type": "string", "enum": list(METRICS)}
    _in_short(properties, "objective", metrics)
    _in_short(properties, "stopping", {"type": "string", "enum": ["none", "median", "asha", "learned"]})
    _in_short(properties, "tuner", {"type": "string", "enum": ["paper"]})
    _in_short(properties, "warm_start", {"type": "string"})
    for name in _NUMBERS_TOO:
        _also_a_number(definitions["ClusterSpec"]["properties"][name])
    return {"$schema": _DIALECT, **schema, "title": "A study of rlhpo"}


def _in_short(properties: dict[str, Any], name: str, short: dict[str, Any]) -> None:
    """Let a field be written in short, too."""
    field = dict(properties[name])
    kept = {key: field.pop(key) for key in ("description", "default", "title") if key in field}
    properties[name] = {**kept, "anyOf": [short, *field.get("anyOf", [field])]}


def _also_a_number(field: dict[str, Any]) -> None:
    """YAML has 2 and 0.5 without quotes for numbers."""
    text = {key: field.pop(key) for key in ("type", "pattern") if key in field}
    field["anyOf"] = [*([text] if text else []), *field.get("anyOf", []), {"type": "number"}]


def _without_name(definition: dict[str, Any]) -> None:
    """The name of a hyperparameter is its key. A condition's single value stands without a list."""
    definition["properties"].pop("name")
    definition["required"] = [
        "type",
        *(name for name in definition.get("required", ()) if name not in ("name", "type")),
    ]
    definition["properties"]["when"] = {"type": "object", "description": "Active only if each parent has such a value."}


def _models(annotation: Any) -> set[type[BaseModel]]:
    """The records that an annotation is made of, and those in their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [_models(field.annotation) for field in annotation.model_fields.values()]
        return {annotation}.union(*inner)
    return set().union(*map(_models, get_args(annotation)))


def _describe(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """Give each field of a record the sentence that follows it in the code."""
    for base in reversed(model.__mro__):
        for name, text in _sentences(getattr(sys.modules[base.__module__], "__file__", None), base.__name__).items():
            if name in definition.get("properties", {}):
                definition["properties"][name]["description"] = text


def _sentences(file: str | None, name: str) -> dict[str, str]:
    return _all_sentences(file).get(name, {}) if file and file.endswith(".py") and "rlhpo_core" in file else {}


@cache
def _all_sentences(file: str) -> dict[str, dict[str, str]]:
    """By class and field, of a module's file."""
    with open(file, encoding="utf-8") as source:
        tree = ast.parse(source.read())
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                field.target.id: inspect.cleandoc(after.value.value).replace("\n", " ").replace("``", "`")
                for field, after in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            }
    return found

"""The one exception that means "the user can mend this"; every entry point prints it without a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class UserError(Exception):
    """Something outside rlhpo is wrong (a study file, a table, a server). The message says what to do about it."""

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed a little later; ``retries`` waits for that."""
        return False


class Outage(UserError):  # noqa: N818  (what happened, in the voice of the other signals)
    """Something outside rlhpo does not work just now: a server that is away or overloaded, a disk that is full."""

    @property
    def passing(self) -> bool:
        """True."""
        return True


#: Begins what is said of a field that nobody knows.
NO_FIELD = "there is no such field"


def describe(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """One line per problem, each starting with the dotted name of the field, in the order of the fields.

    Args:
        model: What was validated. With it, names of fields that are not known are compared with those that are, and the
            kinds of which a field takes one (``evaluator.kind``) are left out of its name.
    """
    lines: dict[str, None] = {}
    for problem in error.errors(include_url=False):
        place, known, inner = _place(problem["loc"], model)
        message = in_words(problem, known, inner)
        # Of a value that fits none of several types there is a problem for each.
        lines[f"{place}: {message}" if place else message] = None
    return "\n".join(lines)


def in_words(problem: Mapping[str, Any], known: Iterable[str] = (), inner: Iterable[str] = ()) -> str:
    """What pydantic has found wrong with a field, in the words of somebody who has written a file.

    Args:
        problem: One of ``ValidationError.errors()``.
        known: Names of the fields that are there, beside the one that is meant.
        inner: Names of the fields in it.
    """
    kind, value, context = str(problem["type"]), problem.get("input"), problem.get("ctx") or {}
    shown = _shown(value)
    if kind == "extra_forbidden":
        return NO_FIELD + suggestion(str(problem["loc"][-1]), known)
    if kind == "missing":
        return "is missing"
    if kind in ("union_tag_invalid", "literal_error", "enum"):
        choices = [
            text.strip("' ") for text in re.split(", | or ", str(context.get("expected_tags") or context["expected"]))
        ]
        given = context.get("tag", value)
        meant = _SYNONYMS.get(str(given).lower())
        close = f"; did you mean {meant!r}?" if meant in choices else suggestion(str(given), choices, listing=False)
        return f"{_shown(given)} is none of {', '.join(choices)}{close}"
    if kind == "union_tag_not_found":
        name = str(context["discriminator"]).strip("'")
        return f"does not say which kind it is; write {{{name}: …}}, as docs/guide.md has it"
    if kind.endswith(("_type", "_parsing")) and problem["loc"][-1:] and problem["loc"][-1] in _TYPES:
        return f"{shown} is no single value; write a number, text, true or false"
    if kind.startswith(_MAPPING):
        return f"{shown} is no mapping; write {{{next(iter(inner), 'name')}: …}}"
    for kinds, words in _WANTED:
        if kind.startswith(kinds):
            return f"{shown} is {words}"
    if kind == "string_pattern_mismatch":
        return f"{shown} is not of the form that it needs" + _FORMS.get(context["pattern"], "")
    if kind in _BOUNDS:
        return f"{_BOUNDS[kind]} {next(iter(context.values()))}, and not {shown}"
    if kind in ("string_too_long", "string_too_short"):
        words, limit = ("at most", "max_length") if kind == "string_too_long" else ("at least", "min_length")
        count = context[limit]
        return f"{shown} has {len(str(value))} characters, and not {words} {count} character{'' if count == 1 else 's'}"
    if kind == "too_short" and context.get("actual_length") == 0:
        return "is empty; it needs at least one entry"
    return str(problem["msg"]).removeprefix("Value error, ")


def suggestion(name: str, known: Iterable[str], listing: bool = True) -> str:
    """``; did you mean 'trials'?``, or, if nothing is close, which names there are (unless ``listing`` is false)."""
    names = list(known)
    if close := difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(names)}" if names and listing else ""


#: What is said of values of a wrong type, by the beginning of pydantic's name for it.
_WANTED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("int_from_float", "int_parsing", "int_type"), "not a whole number"),
    (("float_parsing", "float_type", "decimal"), "not a number"),
    (("finite_number",), "not a finite number"),
    (("bool_",), "neither true nor false"),
    (("string_type", "string_sub_type"), "not text; put it in quotes, if it is meant as text"),
    (("tuple_type", "list_type", "set_type", "iterable_type"), "no list; write [a, b]"),
    (("path_type",), "not a path"),
    (("time_delta",), "not a duration; write for example 90s, 15m, 2h or 1h30m"),
)
#: Other words for a choice, whose letters are nearer to another one.
_SYNONYMS = {"gpu": "cuda"}
_MAPPING = ("model_type", "model_attributes_type", "dict_type", "mapping_type", "dataclass_type")
_BOUNDS = {
    "greater_than": "must be above",
    "greater_than_equal": "must be at least",
    "less_than": "must be below",
    "less_than_equal": "must be at most",
}
#: Examples for texts of a certain form, by its pattern.
_FORMS = {
    r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$": "; write module:function",
    r"^(\d+(\.\d+)?|\d+m)$": "; write for example 2, 0.5 or 500m",
    r"^[1-9]\d*([KMGT]i?)?$": "; write for example 8G or 512Mi",
    r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$": ": letters, digits, '.', '_' and '-', 63 at most",
    r"^https?://[^\s/\"']+[^\s\"']*$": "; write http://… or https://…",
    r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$": "; write for example nvidia.com/gpu",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _place(loc: Iterable[int | str], model: type[BaseModel] | None) -> tuple[str, list[str], list[str]]:
    """The dotted name of a field without the kinds of unions in it, the fields beside it, and those in it."""
    kept: list[str] = []
    here: list[Any] = [] if model is None else [model]
    siblings: list[str] = []
    for part in loc:
        # Several classes: the members of a union.
        models = [kind for kind in here if hasattr(kind, "model_fields")]
        fields = {name: field for kind in models for name, field in kind.model_fields.items()}
        if len(models) > 1 and (part not in fields or any(_is_kind(kind, part) for kind in models)):
            # The kind of a union, which nobody has written there.
            here = [kind for kind in models if _is_kind(kind, part)] or here
            continue
        if kept and part in _TYPES and not fields:
            continue
        siblings = list(fields)
        kept.append(str(part))
        here = _inside(fields[str(part)].annotation) if str(part) in fields else here if isinstance(part, int) else []
    inner = [name for kind in here if hasattr(kind, "model_fields") for name in kind.model_fields]
    return ".".join(kept), siblings, inner


#: Pydantic's names for the members of unions of plain types.
_TYPES = ("bool", "int", "float", "str", "tuple", "none")


def _inside(annotation: Any) -> list[Any]:
    """The classes that an annotation is made of."""
    arguments = get_args(annotation)
    return [annotation] if not arguments else [kind for argument in arguments for kind in _inside(argument)]


def _is_kind(model: Any, tag: object) -> bool:
    return any(tag in get_args(field.annotation) for field in model.model_fields.values())

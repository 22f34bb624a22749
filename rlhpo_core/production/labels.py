"""Classes of a label: which of a table's a model knows, and which look like known ones that are written otherwise.

A class that is written otherwise than in training (``yes``, now ``YES``) is one that the model gives no probability, so
that it seems to be wrong in every row. What looks alike is decided by form alone: case, blanks, quotes, brackets,
separators, the spelling of a number, and, of two classes, the words for true and false.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from decimal import Decimal

_TRUE, _FALSE = frozenset({"true", "yes", "y", "t", "on", "1"}), frozenset({"false", "no", "n", "f", "off", "0"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?")
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_ALWAYS = re.compile(r"[\s'\"`\u2018-\u201f()\[\]{}]+")
#: Between digits they are part of a number, a date or a range.
_SEPARATORS = re.compile(r"(?<!\d)[.,;:_/\\]+|[.,;:_/\\]+(?!\d)")
#: Between letters; at an end it is a sign, as in ``A-``.
_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=\w)|(?<=\w)-(?=[^\W\d])")


def renamed(known: Collection[str], current: Sequence[str]) -> dict[str, str]:
    """Classes of a table that a model does not know, to the one that it knows and that looks the same.

    Args:
        known: The model's classes.
        current: The table's classes.
    """
    truths = len(known) <= 2 and len(current) <= 2 and all(_truth(label) is not None for label in (*known, *current))
    alike = {_truth(label) if truths else canonical(label): label for label in known}
    forms = {label: _truth(label) if truths else canonical(label) for label in current if label not in known}
    return {label: alike[form] for label, form in forms.items() if form in alike}


def canonical(label: str) -> str:
    """A label without what systems write differently: the same for labels that look the same."""
    text = _DASHES.sub("-", unicodedata.normalize("NFKC", label).casefold().strip())
    if _NUMBER.fullmatch(text):
        number = Decimal(text)
        digits = f"{number:f}" if number else "0"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    for pattern in (_ALWAYS, _SEPARATORS, _HYPHEN):
        text = pattern.sub("", text)
    return text or label


def _truth(label: str) -> bool | None:
    """``None`` if it is no word for true or false."""
    form = canonical(label)
    return True if form in _TRUE else False if form in _FALSE else None

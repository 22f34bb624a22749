"""YAML as people write it: read strictly, so that nothing a user wrote is silently dropped."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from rlhpo_core.errors import UserError

_MERGE = "tag:yaml.org,2002:merge"
#: YAML 1.1 takes 1e-3 for text, people and YAML 1.2 for a number.
_EXPONENT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


class _Loader(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one of the same name; in a search space that loses a parameter."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As the base class does it. Raises: UserError, with the line, if a key is given twice."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True) if key_node.tag != _MERGE else None
            if key is None or not isinstance(key, Hashable):
                continue  # the base class merges, or refuses
            if key in seen:
                raise UserError(f"line {key_node.start_mark.line + 1}: the name {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what _Loader would not read back as text, and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: what occurs twice is written twice."""
        return True


_Loader.add_implicit_resolver(*_EXPONENT)
_Dumper.add_implicit_resolver(*_EXPONENT)


def parse_yaml(text: str) -> Any:
    """YAML (JSON is a part of it) to plain data; a key given twice is an error.

    Raises: UserError, with the line.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"not valid YAML: {error}") from error


def to_yaml(data: Any) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)

"""What objects may be called, in a folder and in S3 alike."""

from __future__ import annotations

import re

from rlhpo_core.errors import UserError

# Neither control characters nor what stands for bytes of a file's name that are no UTF-8.
_PART = re.compile(r"[^./\\\x00-\x1f\x7f\ud800-\udfff][^/\\\x00-\x1f\x7f\ud800-\udfff]*")


def is_key(key: str) -> bool:
    """Whether something can be stored under it everywhere."""
    return all(_PART.fullmatch(part) and len(part.encode()) <= 200 for part in key.split("/"))


def checked(key: str) -> str:
    """The key. Raises: UserError if nothing can be stored under it."""
    if not is_key(key):
        raise UserError(
            f"nothing can be stored under {key!r}; between its slashes must be 1 to 200 characters, the first no dot, "
            "and no backslash"
        )
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix. Raises: UserError if no key begins so."""
    folder, slash, start = prefix.rpartition("/")
    if (slash and not is_key(folder)) or (start and not is_key(start)):
        raise UserError(f"{prefix!r} begins no name that something can be stored under")
    return prefix

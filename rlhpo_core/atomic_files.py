"""Files that are there whole or not at all: a reader, or a crash, sees the old content or the new one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Names of temporary files.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write next to ``path``, flush to disk, and rename over it."""
    with _temporary(path, data) as temporary:
        temporary.replace(path)


def create_atomically(path: Path, data: bytes) -> bool:
    """Write next to ``path``, flush to disk, and link to it. Of several at once, one wins.

    Returns: whether the file is now there with this data; ``False`` if there was one already, which is left as it is.
    """
    with _temporary(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS repeats a request whose answer was lost, and then finds the link that it has made itself.
            return temporary.stat().st_nlink > 1
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote. Nobody may be writing there now."""
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A hidden file with the data, on disk, which is gone afterwards unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)

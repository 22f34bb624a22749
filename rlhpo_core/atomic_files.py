"""Files that are there whole or not at all: a reader, or a crash, sees the old content or the new one.

Where the file system knows files without a name (Linux, but not NFS), a file gets its name once all of it is on disk,
and a process that is killed leaves nothing behind. Elsewhere, and for a moment while a file is replaced, there is a
hidden file beside it; if a process was killed then, a later replacement in the folder clears it away.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

#: Names of temporary files.
_TEMPORARY = re.compile(r"\..+\.rlhpo-[0-9a-f]{16}")
#: Seconds after which a temporary file belongs to no living process.
_ABANDONED = 600.0


def write_atomically(path: Path, data: bytes) -> None:
    """Write without a name or next to ``path``, flush to disk, and rename over it."""
    if not path.exists() and create_atomically(path, data):
        return
    with _temporary(path, data) as temporary:
        temporary.replace(path)
    for other in path.parent.glob(".*"):
        with suppress(FileNotFoundError):
            if _TEMPORARY.fullmatch(other.name) and time.time() - other.stat().st_mtime > _ABANDONED:
                other.unlink()


def create_atomically(path: Path, data: bytes) -> bool:
    """Write without a name or next to ``path``, flush to disk, and link to it. Of several at once, one wins.

    Returns: whether the file is now there with this data; ``False`` if there was one already, which is left as it is.
    """
    try:
        if _create_unnamed(path, data):
            return True
    except FileExistsError:
        return False
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


def _create_unnamed(path: Path, data: bytes) -> bool:
    """Make a file that has no name until it is whole; false where the system has no such files.

    Raises: FileExistsError if there is a file of that name.
    """
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        file = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError:
        return False  # Systems differ in how they refuse; what is wrong otherwise, the way with a name will meet.
    with os.fdopen(file, "wb") as unnamed:
        _flush(unnamed, data)
        try:
            # By the folder's descriptor: without one, os.link makes a link to the link that /proc has.
            links = os.open("/proc/self/fd", os.O_RDONLY)
            try:
                os.link(str(file), path, src_dir_fd=links)
            finally:
                os.close(links)
        except FileExistsError:
            raise
        except OSError:
            return False
    return True


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A hidden file with the data, on disk, which is gone afterwards unless it was renamed."""
    temporary = path.with_name(f".{path.name}.rlhpo-{secrets.token_hex(8)}")
    try:
        if not _create_unnamed(temporary, data):
            with temporary.open("xb") as file:
                _flush(file, data)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _flush(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())

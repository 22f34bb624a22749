"""Objects by key, in a folder or in S3: where a study's files and what several processes agree on are kept.

For small objects, which are read and written whole. An object is replaced in one step, and ``create`` is the one
operation that settles who was first. In a folder it rests on hard links; in S3 on conditional writes
(``If-None-Match: *``), as AWS S3 and SeaweedFS have them. A server that does not know the condition may ignore it and
overwrite, such as ``rclone serve s3``: ``check_conditional_writes`` finds that out.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from rlhpo_core import addresses
from rlhpo_core.atomic_files import create_atomically, write_atomically
from rlhpo_core.errors import Outage, UserError
from rlhpo_core.retries import wait_out
from rlhpo_core.storage.keys import checked, checked_prefix, is_key
from rlhpo_core.storage.s3_store import S3Store, parts_of

#: Numbers of errors of a file system that may pass, or be mended by someone while a study waits.
_MENDABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY,
    errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENODEV, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.EREMOTEIO,
}  # fmt: skip

T = TypeVar("T")


class Store(Protocol):
    """Bytes by key.

    A key is one or more parts with ``/`` between them. No part is empty, starts with a dot or is longer than 200 bytes;
    none holds a backslash or control characters. A key that is also a folder of others (``a`` and ``a/b``) cannot be
    written everywhere.

    Every method raises ``UserError`` on what is no key, and if the store cannot be reached or refuses. Faults that pass
    are waited out as ``retries`` has it; those that last raise ``Outage``.
    """

    @property
    def uri(self) -> str:
        """What ``open_store`` takes to open it again."""

    def read(self, key: str) -> bytes | None:
        """The whole object; ``None`` if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Replace the object in one step, or make it."""

    def create(self, key: str, data: bytes) -> bool:
        """Make the object if there is none. Of several at once, one gets ``True`` and the others ``False``.

        After a ``UserError`` (an outage, say) the object may or may not have been made.
        """

    def delete(self, key: str) -> None:
        """Remove the object if there is one."""

    def keys(self, prefix: str = "") -> list[str]:
        """Those that start with the prefix (which may end inside a part), sorted."""


def open_store(uri: str) -> Store:
    """A folder (a path or ``file:///…``; made when first written) or ``s3://bucket/prefix``.

    Raises: UserError if the URI is neither, or if S3 cannot be set up. Nothing is asked of the server yet.
    """
    if not uri:
        raise UserError("the store has no name; write a path, file:///… or s3://bucket/prefix")
    try:
        address = addresses.as_store(uri)
    except ValueError as error:
        raise UserError(f"the store {uri}: {error}") from error
    if address.startswith("s3://"):
        return S3Store(*parts_of(address.removeprefix("s3://")))
    if address.startswith("file:"):
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UserError(f"{uri} names no folder of this machine; write file:/// and the whole path")
        return FolderStore(Path(unquote(parts.path)))
    return FolderStore(Path(address))


def sure_of(store: Store) -> None:
    """``check_conditional_writes``, once for each place in S3 in this process: before something rests on a lock there.

    Raises: UserError as that does.
    """
    if not isinstance(store, S3Store):
        return
    place = (store.uri, str(store.client.meta.endpoint_url))
    if place not in _SURE_OF:
        check_conditional_writes(store)
        _SURE_OF.add(place)


#: Places that have been checked, with the server's address.
_SURE_OF: set[tuple[str, str]] = set()


def check_conditional_writes(store: Store) -> None:
    """Make an object twice, read it, and remove it.

    Raises: UserError if the store made it twice, or gives back something else than was written.
    """
    key = f"probe-{secrets.token_hex(8)}"
    try:
        made = store.create(key, b"first")
        if made and (read := store.read(key)) != b"first":
            raise UserError(
                f"{store.uri} gives back {read!r:.100} where b'first' was written: the server does not know how "
                "uploads are framed (aws-chunked); unset AWS_REQUEST_CHECKSUM_CALCULATION, or take another server"
            )
        if not made or store.create(key, b"second"):
            raise UserError(
                f"{store.uri} overwrites objects that were to be made only if they did not exist (it ignores "
                "If-None-Match), so it cannot keep two processes apart; take one that heeds it, such as AWS S3"
            )
    finally:
        store.delete(key)


@dataclass(frozen=True)
class FolderStore:
    """Objects as files below a folder; hidden files are none. Its file system must know hard links."""

    root: Path

    @property
    def uri(self) -> str:
        """The folder's path, as it was given."""
        return str(self.root)

    def read(self, key: str) -> bytes | None:
        """The file's content; ``None`` if there is no such file. Raises: UserError if it cannot be read."""

        def read(path: Path) -> bytes | None:
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

        return self._use("read", key, read)

    def write(self, key: str, data: bytes) -> None:
        """Replace the file in one step, by renaming. Raises: UserError if it cannot be written."""

        def write(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)

        self._use("write", key, write)

    def create(self, key: str, data: bytes) -> bool:
        """Make the file if there is none, by a hard link. Raises: UserError if it cannot be written."""

        def create(path: Path) -> bool:
            path.parent.mkdir(parents=True, exist_ok=True)
            return create_atomically(path, data)

        return self._use("write", key, create)

    def delete(self, key: str) -> None:
        """Remove the file if there is one. Raises: UserError if it cannot be removed."""

        def remove(path: Path) -> None:
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()

        self._use("remove", key, remove)

    def keys(self, prefix: str = "") -> list[str]:
        """Files below the folder whose keys start with the prefix, sorted. Raises: UserError if it cannot be listed."""
        folder, _, _ = checked_prefix(prefix).rpartition("/")
        keys = []
        for parent, _, names in os.walk(self.root / folder, onerror=_unless_gone):
            above = Path(parent).relative_to(self.root)
            keys += [key for name in names if is_key(key := (above / name).as_posix()) and key.startswith(prefix)]
        return sorted(keys)

    def _use(self, verb: str, key: str, use: Callable[[Path], T]) -> T:
        """What ``use`` makes of the key's file. Raises: UserError if it cannot be used."""
        path = self.root / checked(key)

        def attempt() -> T:
            try:
                return use(path)
            except OSError as error:
                kind = Outage if error.errno in _MENDABLE else UserError
                raise kind(f"cannot {verb} {path}: {error}") from error

        return wait_out(f"{verb} {key}", attempt)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise UserError(f"cannot list {error.filename}: {error}") from error

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhpo_core.atomic_files import create_atomically, write_atomically


@pytest.fixture(params=["files without a name", "named files only"], autouse=True)
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file system: NFS does not know files without a name."""
    if request.param == "named files only":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without a name")


def test_a_file_is_replaced_whole_and_readable_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "file"
    previous = os.umask(0o027)
    try:
        for content in (b"first, and long", b"second"):
            write_atomically(path, content)
            assert path.read_bytes() == content
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """One that opened the file before it was replaced goes on reading the old one."""
    path = tmp_path / "file"
    write_atomically(path, b"a" * 100_000)
    with path.open("rb") as reader:
        start = reader.read(10)
        write_atomically(path, b"b" * 100_000)
        assert start + reader.read() == b"a" * 100_000
    assert path.read_bytes() == b"b" * 100_000


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert create_atomically(path, b"first")
    assert not create_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_who_created_a_file_knows_it_though_the_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS: the link is made, and the repeated request says that there was one already."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert create_atomically(tmp_path / "file", b"first")
    assert not create_atomically(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


@pytest.mark.parametrize("operation", [write_atomically, create_atomically])
def test_a_full_disk_leaves_nothing_behind(
    operation: Callable[[Path, bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        operation(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("operation", ["create_atomically", "write_atomically"])
def test_a_process_that_is_killed_before_a_file_has_its_name_leaves_nothing_behind(
    operation: str, tmp_path: Path
) -> None:
    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("the hidden file would stay")
    code = (
        "import os, signal, sys; from pathlib import Path; from rlhpo_core import atomic_files\n"
        "os.link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"atomic_files.{operation}(Path(sys.argv[1]), b'content')"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_a_replacement_clears_away_what_earlier_ones_have_left(tmp_path: Path) -> None:
    path, old, new = (
        tmp_path / "file",
        [tmp_path / f".{name}.rlhpo-{'a' * 16}" for name in ("file", "other")],
        tmp_path / (f".file.rlhpo-{'b' * 16}"),
    )
    foreign = tmp_path / f".file.{'a' * 16}"
    write_atomically(path, b"first")
    for each in (*old, new, foreign):
        each.write_bytes(b"half")
        os.utime(each, (0, 0))
    new.touch()
    write_atomically(path, b"second")
    assert sorted(tmp_path.iterdir()) == sorted([path, new, foreign]), "the new one may be being written"

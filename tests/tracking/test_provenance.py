from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

import pytest

from rlhpo_core.tracking import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHPO_CODE_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert provenance.code_commit() is None
    git(tmp_path, "init", "--quiet")
    assert provenance.code_commit() is None, "nothing is committed yet"
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "first")
    assert provenance.code_commit() == git(tmp_path, "rev-parse", "HEAD")


def test_an_image_says_which_commit_and_digest_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_CODE_COMMIT", "c" * 40)
    monkeypatch.setenv("RLHPO_IMAGE_DIGEST", "")
    assert provenance.code_commit() == "c" * 40
    assert provenance.image_digest() is None
    monkeypatch.setenv("RLHPO_IMAGE_DIGEST", "sha256:1")
    record = provenance.circumstances()
    assert (record["code_commit"], record["image_digest"]) == ("c" * 40, "sha256:1")
    assert record["by"] == provenance.author()


def test_an_account_need_not_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert provenance.user() == "unknown"
    assert provenance.author().startswith("unknown@")


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHPO_CODE_COMMIT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_commit() is None

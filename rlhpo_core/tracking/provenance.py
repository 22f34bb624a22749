"""Where a record comes from: who made it, when, with which code and image."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from typing import Any


def user() -> str:
    """The account that this process runs under."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"


def author() -> str:
    """Who acts: account and machine."""
    return f"{user()}@{socket.gethostname()}"


def circumstances() -> dict[str, Any]:
    """When, by whom and with what a record is made: ``at`` (Unix time in seconds), ``by``, and commit and image."""
    return {"at": time.time(), "by": author(), "code_commit": code_commit(), "image_digest": image_digest()}


def code_commit() -> str | None:
    """``RLHPO_CODE_COMMIT``, which images set, else the commit of the Git checkout that holds the working directory.

    ``None`` if there is neither.
    """
    if given := os.environ.get("RLHPO_CODE_COMMIT"):
        return given
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() or None if head.returncode == 0 else None


def image_digest() -> str | None:
    """``RLHPO_IMAGE_DIGEST``, or ``None``: a container cannot see the digest of its own image."""
    return os.environ.get("RLHPO_IMAGE_DIGEST") or None

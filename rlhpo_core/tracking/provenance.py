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
    """What a record made now says of when, by whom and with what."""
    return {"at": time.time(), "by": author(), "code_commit": code_commit(), "image_digest": image_digest()}


def code_commit() -> str | None:
    """Of the working folder's checkout; ``RLHPO_CODE_COMMIT`` says so where there is none, as in an image."""
    if given := os.environ.get("RLHPO_CODE_COMMIT"):
        return given
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def image_digest() -> str | None:
    """``RLHPO_IMAGE_DIGEST``: a container cannot see the digest of its own image."""
    return os.environ.get("RLHPO_IMAGE_DIGEST") or None

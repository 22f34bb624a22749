"""Alerts about retunings to a webhook: JSON by POST, repeated on failure, signed.

The signature is ``sha256=`` and the hexadecimal HMAC-SHA256, under the shared key, of the timestamp's text, a full
stop, and the body. The receiver computes it anew, compares, and refuses what is older than a few minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from rlhpo_core import __version__
from rlhpo_core.study.production_settings import Alert, AlertsSpec

SIGNATURE, TIMESTAMP, DELIVERY = "X-Rlhpo-Signature", "X-Rlhpo-Timestamp", "X-Rlhpo-Delivery"
#: Seconds before the second, third, … attempt.
DELAYS = (1.0, 4.0, 15.0)
_TIMEOUT = 10.0


def send(
    spec: AlertsSpec,
    alert: Alert,
    content: Mapping[str, Any],
    warn: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Post an alert to the webhook, if the study has one and wants this alert.

    A webhook that cannot be reached, or that refuses, leads to a warning and not to an error: the alert reports what
    has been done already.

    Args:
        content: What is posted besides the alert's name; has to be JSON.
        warn: Takes the text of the warning; the address, which may be a secret, is not in it.
        sleep: Waits so many seconds before the next attempt.

    Returns: Whether the webhook has answered with success.
    """
    url = spec.url or (os.environ.get(spec.url_env) if spec.url_env else None)
    if not url or alert not in spec.events:
        return False
    if not url.startswith(("http://", "https://")):
        warn("alert not sent: the address must start with http:// or https://")
        return False
    moment = str(int(time.time()))
    body = json.dumps({"event": alert, "rlhpo": __version__, **content}).encode()
    headers = {
        "Content-Type": "application/json", "User-Agent": f"rlhpo/{__version__}", TIMESTAMP: moment,
        # The same for every attempt, so that a receiver can tell a repetition.
        DELIVERY: hashlib.sha256(moment.encode() + body).hexdigest()[:16],
    }  # fmt: skip
    if secret := os.environ.get(spec.secret_env):
        headers[SIGNATURE] = signature(secret, moment, body)
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310  (the scheme is checked above)
    problem = ""
    for delay in (0.0, *DELAYS):
        if delay:
            sleep(delay)
        problem = _post(request)
        if not problem:
            return True
        if problem.startswith("HTTP 4") and problem not in ("HTTP 408", "HTTP 429"):
            break
    warn(f"alert {alert!r} not sent: {problem}")
    return False


def signature(secret: str, moment: str, body: bytes) -> str:
    """The value of the header X-Rlhpo-Signature.

    Args:
        moment: The header X-Rlhpo-Timestamp: Unix time in whole seconds, as text.
    """
    return "sha256=" + hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def _post(request: urllib.request.Request) -> str:
    """What went wrong; empty if the webhook answered with success."""
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310  (the scheme is checked above)
            return ""
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError as error:
        # Not the address: it may be a secret.
        return f"{type(error).__name__}: {getattr(error, 'reason', error)}"
    except (http.client.HTTPException, ValueError) as error:
        # An answer that is no HTTP, or an address that is none: the text may hold it.
        return type(error).__name__

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from typing import Any

import pytest

from rlhpo_core.production.alerts import DELAYS, send
from rlhpo_core.study.production_settings import Alert, AlertsSpec
from tests.helpers.webhooks import Hook


def tell(hook: Hook, alert: Alert = "promoted", **changes: Any) -> tuple[bool, list[str], list[float]]:
    warnings: list[str] = []
    slept: list[float] = []
    spec = AlertsSpec(**{"url": hook.url, **changes})
    heard = send(spec, alert, {"model": "wine", "reason": "better"}, warnings.append, slept.append)
    return heard, warnings, slept


def test_the_webhook_hears_what_happened_and_can_check_who_says_so(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_ALERT_SECRET", "s3cret")
    assert tell(hook) == (True, [], [])
    ((headers, body),) = hook.heard
    assert json.loads(body).items() >= {"event": "promoted", "model": "wine", "reason": "better"}.items()
    signed = headers["X-Rlhpo-Timestamp"].encode() + b"." + body
    assert headers["X-Rlhpo-Signature"] == "sha256=" + hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert headers["Content-Type"] == "application/json"
    assert b"s3cret" not in body


def test_it_is_told_again_until_it_has_heard(hook: Hook) -> None:
    hook.statuses = [500, 429, 503]
    assert tell(hook) == (True, [], [1.0, 4.0, 15.0])
    assert len({headers["X-Rlhpo-Delivery"] for headers, _ in hook.heard}) == 1, "a repetition can be told"
    assert "X-Rlhpo-Signature" not in hook.heard[0][0]


def test_a_webhook_that_refuses_or_is_away_is_warned_of_and_changes_nothing(hook: Hook) -> None:
    hook.statuses = [404] * 5
    heard, warnings, slept = tell(hook)
    assert (heard, slept) == (False, [])
    assert warnings == ["alert 'promoted' not sent: HTTP 404"]
    hook.statuses = [500] * 5
    assert tell(hook)[:2] == (False, ["alert 'promoted' not sent: HTTP 500"])
    heard, warnings, slept = tell(hook, url="http://127.0.0.1:9/hook?key=hidden")
    assert (heard, len(slept)) == (False, 3)
    assert "refused" in warnings[0]
    assert "hidden" not in warnings[0], "the address may be a secret"


def test_only_wanted_events_are_sent(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tell(hook, "kept")[0] is False
    assert tell(hook, "kept", events=["kept"])[0] is True
    assert tell(hook, url=None)[0] is False
    monkeypatch.setenv("HOOK", hook.url)
    assert tell(hook, url=None, url_env="HOOK")[0] is True
    assert len(hook.heard) == 2
    monkeypatch.setenv("HOOK", "file:///etc/passwd")
    assert tell(hook, url=None, url_env="HOOK")[1] == [
        "alert not sent: the address must start with http:// or https://"
    ]


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 two-hundred\r\n\r\n", b""])
def test_what_answers_no_http_is_warned_of(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in (0.0, *DELAYS):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        warned: list[str] = []
        spec = AlertsSpec(url=f"http://127.0.0.1:{server.getsockname()[1]}/")
        assert not send(spec, "promoted", {}, warned.append, lambda seconds: None)
        thread.join()
    (warning,) = warned
    assert "not sent" in warning

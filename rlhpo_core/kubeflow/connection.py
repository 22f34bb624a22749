"""The way to a Kubeflow Pipelines server: where it is, who asks, and what its refusals mean.

The requests are those of ``kfp_server_api``, which is generated from the server's own definition. ``kfp.Client`` is
built upon it as well, but waits without bounds, prints, writes into the home folder, and never ends its waiting for a
run that was canceled.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlhpo_core import __version__
from rlhpo_core.errors import UserError

#: The API server's address for pods of a cluster with Kubeflow in its usual namespace.
IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
#: Where the kubelet keeps a token for the audience pipelines.kubeflow.org, if the pod asks for one.
TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_HOST_VARIABLES = ("KFP_API_HOST", "KF_PIPELINES_ENDPOINT")
#: Seconds to wait for a connection, and for an answer.
_CONTACT, _PATIENCE = 5.0, 60.0
_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"


class ServerError(UserError):
    """The server refused or did not answer. ``status`` is HTTP's, 0 without an answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status in (0, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Server:
    """A KFP API server, and how to be let in."""

    host: str
    """Base URL without a slash at its end, such as https://kubeflow.example.com/pipeline."""
    origin: str
    """Where the host comes from, and so where it is mended."""
    namespace: str | None
    """The profile's namespace; a server for a single user ignores it."""
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Read at each request, since the kubelet renews it; used if there is no ``token``."""
    ca_cert: Path | None = None
    verify_ssl: bool = True
    ui: str | None = None
    """Base URL of the pages for people; ``None`` if it is not known."""
    timeout: float = _PATIENCE
    """Seconds to wait for an answer."""

    @classmethod
    def of(
        cls,
        host: str | None = None,
        namespace: str | None = None,
        token: str | None = None,
        *,
        ca_cert: Path | None = None,
        verify_ssl: bool = True,
        ui: str | None = None,
        timeout: float = _PATIENCE,
    ) -> Server:
        """What is given, else what the environment says, else what holds for a pod in the cluster.

        Args:
            host: Else ``KFP_API_HOST`` or ``KF_PIPELINES_ENDPOINT``.
            namespace: Else ``RLHPO_KFP_NAMESPACE``.
            token: Else ``RLHPO_KFP_TOKEN``, or a service account's token in the file that
                ``KF_PIPELINES_SA_TOKEN_PATH`` names.
            ca_cert: PEM file of the authority that has signed the server's certificate.
            ui: Base URL of the pages for people; else ``KF_PIPELINES_UI_ENDPOINT``.
            timeout: Seconds to wait for an answer.

        Raises: UserError if there is no host, or if an address, a token or a file cannot be right.
        """
        address, origin = _host(host)
        token = (token or os.environ.get("RLHPO_KFP_TOKEN") or "").strip() or None
        if token is not None:
            _checked_token(token, "RLHPO_KFP_TOKEN or the option for it")
        named_file = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
        file = Path(named_file) if named_file else TOKEN_FILE if TOKEN_FILE.exists() else None
        if ca_cert is not None and not ca_cert.is_file():
            raise UserError(f"there is no certificate file {ca_cert}; give the PEM file of the authority")
        pages = ui or os.environ.get("KF_PIPELINES_UI_ENDPOINT") or (None if origin == "the cluster" else address)
        return cls(
            host=address,
            origin=origin,
            namespace=namespace or os.environ.get("RLHPO_KFP_NAMESPACE") or _pod_namespace(),
            token=token,
            token_file=None if token is not None else file,
            ca_cert=ca_cert,
            verify_ssl=verify_ssl,
            ui=None if pages is None else _address(pages, "the address of KFP's pages"),
            timeout=timeout,
        )

    def page(self, path: str) -> str | None:
        """The address of a page for people, such as ``runs/details/ID``."""
        return None if self.ui is None else f"{self.ui}/#/{path}"

    def bearer(self) -> str | None:
        """The token as it is now. Raises: UserError if its file cannot be read."""
        if self.token is not None or self.token_file is None:
            return self.token
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read the token file {self.token_file}: {type(error).__name__}\n"
                "Mount a service account token there, set KF_PIPELINES_SA_TOKEN_PATH, or give a token in "
                "RLHPO_KFP_TOKEN."
            ) from error
        return _checked_token(token, str(self.token_file))


def call(server: Server, operation: str, /, *arguments: Any, **options: Any) -> Any:
    """One request within the server's timeout; the answer as its model.

    Args:
        operation: As a method of ``kfp_server_api`` is called, such as ``run_service_get_run``.

    Raises: ServerError if the server refuses or does not answer; UserError if the token cannot be read.
    """
    import kfp_server_api

    subject, is_service, verb = operation.partition("_service_")
    service = subject.title().replace("_", "") if is_service else "PipelineUpload"
    with _client(server) as client, _explained(server, changes=not verb.startswith(("get_", "list_"))):
        method = getattr(getattr(kfp_server_api, f"{service}ServiceApi")(client), operation)
        answer = method(*arguments, **options, _request_timeout=(min(_CONTACT, server.timeout), server.timeout))
        # A login page comes with status 200 as well, and would be taken for an answer without content.
        kind = client.last_response.getheader("content-type") or "nothing"
        if "json" not in kind:
            raise ServerError(f"{_where(server)} answers with {kind}, not as KFP does.\n{_advice(server)}", 200)
        return answer


@contextmanager
def _client(server: Server) -> Iterator[Any]:
    import kfp_server_api
    import urllib3

    configuration = kfp_server_api.Configuration(host=server.host)
    configuration.verify_ssl = server.verify_ssl
    configuration.ssl_ca_cert = None if server.ca_cert is None else str(server.ca_cert)
    # Nothing is sent twice, and no token goes where a redirection leads.
    configuration.retries = urllib3.Retry(0, raise_on_redirect=False)
    if (token := server.bearer()) is not None:
        configuration.api_key["authorization"] = token
        configuration.api_key_prefix["authorization"] = "Bearer"
    with kfp_server_api.ApiClient(configuration) as client:
        client.user_agent = f"rlhpo/{__version__}"
        try:
            yield client
        finally:
            client.rest_client.pool_manager.clear()


@contextmanager
def _explained(server: Server, changes: bool) -> Iterator[None]:
    """Turns what the generated client raises into a ServerError. ``changes``: the request is not only for reading."""
    import kfp_server_api
    import urllib3

    doubt = "\nIt may have been carried out all the same: look before you repeat it." if changes else ""
    try:
        yield
    except kfp_server_api.ApiException as error:
        status = int(error.status or 0)
        raise ServerError(_refusal(server, status, _said(server, error)), status) from None
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.SSLError):
            message = f"{_where(server)} cannot be trusted: {_short(reason)}\nGive the authority's file with --ca-cert."
            raise ServerError(message, 495) from None
        if isinstance(reason, urllib3.exceptions.ReadTimeoutError | urllib3.exceptions.ProtocolError):
            what = (
                f"did not answer within {server.timeout:g} seconds"
                if isinstance(reason, urllib3.exceptions.ReadTimeoutError)
                else "broke off"
            )
            raise ServerError(f"{_where(server)} {what}.{doubt}", 0) from None
        raise ServerError(f"{_where(server)} cannot be reached: {_short(reason)}\n{_advice(server)}", 0) from None


def _refusal(server: Server, status: int, said: str) -> str:
    where = _where(server)
    if status == 401 or 300 <= status < 400:
        why = f"does not accept {_credentials(server)}" if status == 401 else "sends to another page, maybe to log in"
        return (
            f"{where} {why}{said}\nGive a valid token in RLHPO_KFP_TOKEN; in a pod, mount a service account token for "
            f"the audience pipelines.kubeflow.org at {TOKEN_FILE}."
            + ("" if status == 401 else "\nIf the address is wrong: " + _advice(server))
        )
    if status == 403:
        return (
            f"{where} denies access{said}\nAsk for the role kubeflow-edit in the namespace "
            f"{server.namespace or '(none given)'}, or give another --namespace."
        )
    if status >= 500 or status == 429:
        return f"{where} failed (status {status}){said}\nTry again later; the log of ml-pipeline knows more."
    if status == 404 and not said:
        return f"{where} has no such page.\n{_advice(server)}"
    if status in (400, 404) and server.namespace is None and "namespace" in said:
        return f"{where} refused{said}\nThis server has several users: give a --namespace."
    return f"{where} refused{said or f' with status {status}'}"


def _said(server: Server, error: Any) -> str:
    """What the server gives as the reason, with a colon before it; nothing if it does not speak as KFP does."""
    try:
        body = json.loads(error.body or "")
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    text = str(body.get("message") or body.get("error_message") or body.get("error") or "")
    token = server.bearer()
    text = text.replace(token, "***") if token else text
    return f": {text[:1000]}" if text else ""


def _where(server: Server) -> str:
    return f"KFP at {server.host} (from {server.origin})"


def _credentials(server: Server) -> str:
    if server.token is not None:
        return "the token that was given"
    return "a request without a token" if server.token_file is None else f"the token in {server.token_file}"


def _advice(server: Server) -> str:
    if server.origin == "the cluster":
        return "If KFP lies in another namespace than kubeflow, set KFP_API_HOST."
    return f"Correct {server.origin}, or open a way to the server: {_FORWARD}, then http://localhost:8080"


def _short(reason: object) -> str:
    """The heart of urllib3's messages, which name objects and addresses."""
    match = re.search(r"\[Errno -?\d+\] ([^'\"()\[]+)|certificate verify failed: ([^(]+)|(timed out)", str(reason))
    return next(filter(None, match.groups())).strip() if match else str(reason).splitlines()[0][:300]


def _host(option: str | None) -> tuple[str, str]:
    if option:
        return _address(option, "--host"), "--host"
    for name in _HOST_VARIABLES:
        if os.environ.get(name):
            return _address(os.environ[name], name), name
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return IN_CLUSTER, "the cluster"
    raise UserError(
        f"which KFP server? Give --host or set {_HOST_VARIABLES[0]}, such as https://kubeflow.example.com/pipeline; "
        f"or open a way to it: {_FORWARD}, then --host http://localhost:8080"
    )


def _address(text: str, origin: str) -> str:
    """A base URL; what a browser shows after # is dropped, and https is understood as in KFP's own client."""
    text = text.strip().partition("#")[0]
    parts = urlsplit(text if "://" in text else f"https://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UserError(f"{origin} is not the address of a server: {text.partition('?')[0]!r}")
    if parts.username is not None:
        raise UserError(f"{origin}: put no name or password into the address; give a token in RLHPO_KFP_TOKEN")
    return parts.geturl().rstrip("/")


def _checked_token(token: str, origin: str) -> str:
    """Python's own error for such a header would print the token. Raises: UserError."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"what is in {origin} is not a token: it is empty, or has spaces or line breaks in it")
    return token


def _pod_namespace() -> str | None:
    try:
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None

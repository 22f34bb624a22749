"""The connection to MLflow: which server or database it is, and errors that say within seconds why it fails."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

import sqlalchemy
from filelock import FileLock
from google.protobuf.json_format import ParseError
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import SQLAlchemyError

from rlhpo_core import proxies
from rlhpo_core.errors import Outage, UserError
from rlhpo_core.retries import wait_out
from rlhpo_core.study.spec import TrackingSpec
from rlhpo_core.tracking.address import is_server, redacted, tracking_uri
from rlhpo_core.tracking.client import checked

#: Seconds to wait for an answer at first contact.
CONTACT = 5
#: Seconds to wait for an answer of a server that is known to be there.
PATIENCE = 20

#: Statuses of refusals in MLflow's own JSON that pass; 500 is what a server says whose database is away.
_OVERLOADED = (429, 500, 502, 503, 504)
#: Of a proxy's refusal of a request for its size.
_TOO_LARGE = 413
#: Seconds to wait for another process that sets up a database, which takes minutes on a busy machine. One that dies
#: lets the others on.
_SETTING_UP = 600
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class TooLarge(UserError):  # noqa: N818  (what happened, in the voice of the other signals)
    """What stands before MLflow takes no request of such a size. Waiting does not mend it; all else may go on."""


T = TypeVar("T")

# A database's error that MLflow raises it prints as well, with its traceback; we say it in a sentence.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Connection:
    """MLflow at one URI. Every request ends within seconds, and its failure is a UserError that says what to do."""

    uri: str
    """A server's address or a database's, as MLflow takes it; it may hold a password."""
    origin: str
    """Where the URI comes from, and so where to correct it."""

    @classmethod
    def of(cls, spec: TrackingSpec, store: Path) -> Connection:
        """The connection of a study; nothing is contacted yet.

        Args:
            store: folder of studies, which holds the database if no URI is given
        """
        uri = tracking_uri(spec, store)
        if spec.uri:
            return cls(uri, "tracking.uri in the study file")
        return cls(uri, "MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "the default")

    @contextmanager
    def open(self, timeout: int = PATIENCE) -> Iterator[None]:
        """A context in which requests to MLflow are bounded.

        MLflow's own defaults wait for minutes. It takes these bounds from the environment only, which is restored
        afterwards; a value that the user has set stays in force.

        Args:
            timeout: seconds that each request waits for an answer

        Raises: UserError if MLflow cannot be reached or refuses.
        """
        bounds = {
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            # As in object_store: MLflow writes files to S3 itself.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        added = {name: value for name, value in bounds.items() if name not in os.environ}
        os.environ.update(added)
        try:
            yield
        except (MlflowException, ParseError, OSError, ImportError, SQLAlchemyError, *_storage_errors()) as error:
            if (refused := _refused_for_size(error)) is not None:
                raise TooLarge(self._explain_size(refused)) from error
            raise (Outage if _passing(error) else UserError)(self._explain(error)) from error
        finally:
            for name in added:
                os.environ.pop(name, None)

    @contextmanager
    def client(self) -> Iterator[MlflowClient]:
        """A context with a client, once MLflow has answered within ``CONTACT`` seconds.

        Raises: UserError if MLflow cannot be reached or refuses.
        """
        client = self.contact(lambda client: client)
        with self.open():
            yield client

    def new_client(self) -> MlflowClient:
        """A client; nothing is asked of MLflow yet."""
        client = MlflowClient(tracking_uri=self.uri)
        return checked(client, self.foreign) if is_server(self.uri) else client

    def foreign(self) -> Outage:
        """The error for an answer that is not MLflow's."""
        return Outage(
            f"what answers at {redacted(self.uri)} (from {self.origin}){proxies.through(self.uri)} is not MLflow, or "
            "has not done what was asked.\nCheck what stands between: a proxy, or a page to log in."
        )

    def contact(self, ask: Callable[[MlflowClient], T]) -> T:
        """What ``ask`` makes of a client, at first contact: it is waited for as ``retries`` has it.

        Args:
            ask: One short question, which MLflow answers within ``CONTACT`` seconds if it is there.

        Raises: UserError if MLflow cannot be reached or refuses.
        """

        def attempt() -> T:
            with self.open(timeout=CONTACT):
                self.probe()
                return ask(self.new_client())

        return wait_out("reach MLflow", attempt)

    def patient(self, client: MlflowClient) -> MlflowClient:
        """A client each of whose requests is repeated while it meets a fault that passes, as ``retries`` has it.

        It raises what MLflow refuses as MLflow does; a fault that lasts, as a UserError.
        """
        return cast(MlflowClient, _PatientClient(self, client))

    def probe(self) -> None:
        """Reach a database once, where MLflow itself would try for two minutes; nothing is done for a server.

        Raises: OSError, ImportError, SQLAlchemyError or MlflowException if it cannot be reached; inside ``open`` they
        become UserError.
        """
        if re.split(r"[:+]", self.uri, maxsplit=1)[0] not in ("sqlite", *_PORTS):
            return
        url = sqlalchemy.make_url(self.uri)
        if url.host is not None:
            port = url.port or _PORTS[url.get_backend_name()]
            socket.create_connection((url.host, port), timeout=CONTACT).close()
        elif url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(url)
        try:
            sqlalchemy.inspect(engine)
        finally:
            engine.dispose()
        if url.get_backend_name() == "sqlite" and url.database:
            # MLflow makes its tables at first use, and fails if two processes do so at once.
            database = Path(url.database)
            with FileLock(database.with_name(f".{database.name}.lock"), timeout=_SETTING_UP):
                MlflowClient(tracking_uri=self.uri).search_experiments(max_results=1)

    def check_files(self, experiment: Experiment) -> None:
        """See to it that this process can write the files of an experiment, which clients do themselves unless the
        server passes them on.

        Raises: UserError if a package or a setting is missing, or if a folder cannot be written.
        """
        if (obstacle := _obstacle(str(experiment.artifact_location))) is not None:
            raise UserError(
                f"the experiment {experiment.name!r} of {self._where()} keeps its files at "
                f"{redacted(str(experiment.artifact_location))}, which cannot be written from here: {obstacle}, or "
                "choose another experiment (in a study file tracking.experiment). Where the server passes files on "
                "(mlflow server --serve-artifacts --artifacts-destination …), its new experiments need nothing here"
            )

    @property
    def shown(self) -> str:
        """The address for a person to read, without its password."""
        return redacted(self.uri)

    def check(self, experiment: str, registry: bool = False) -> None:
        """Ask whether MLflow is there and a study can be logged to it.

        Args:
            experiment: Its name; it need not be there yet.
            registry: Whether models are to be registered.

        Raises: UserError if it is not.
        """

        def ask(client: MlflowClient) -> None:
            found = client.get_experiment_by_name(experiment)
            if found is not None:
                self.experiment(client, experiment)
                self.check_files(found)
            if registry:
                client.search_registered_models(max_results=1)

        self.contact(ask)

    def artifact_location(self) -> str | None:
        """URI of the folder for artifacts next to an SQLite database; ``None`` where the server chooses."""
        if not self.uri.startswith("sqlite:"):
            return None
        database = sqlalchemy.make_url(self.uri).database
        return (Path(database).resolve().parent / "mlartifacts").as_uri() if database else None

    def experiment(self, client: MlflowClient, name: str) -> str:
        """The id of the experiment of that name, created if there is none. Raises: UserError if it was deleted."""
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(client.create_experiment(name, artifact_location=self.artifact_location()))
            except MlflowException as error:
                # Another study that started at the same moment may have created it.
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise error
        if experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"the MLflow experiment {name!r} is deleted; restore it with `mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}`, or choose another name (in a study file as "
                "tracking.experiment)"
            )
        return str(experiment.experiment_id)

    def _explain_size(self, what: str) -> str:
        return (
            f"what stands before {self._where()} does not take {what} (status {_TOO_LARGE}). Raise its limit for the "
            "size of a request: of nginx client_max_body_size, which is 1 MB unless it is set, of an ingress the "
            "annotation nginx.ingress.kubernetes.io/proxy-body-size"
        )

    def _where(self) -> str:
        return f"MLflow at {redacted(self.uri)} (from {self.origin}){proxies.through(self.uri)}"

    def _explain(self, error: BaseException) -> str:
        where = self._where()
        reason = str(error).replace(self.uri.rstrip("/"), redacted(self.uri))
        code = error.error_code if isinstance(error, MlflowException) else ""
        response = _response(error)
        if (response is not None and response.status_code in (401, 403)) or code in (
            "UNAUTHENTICATED",
            "PERMISSION_DENIED",
            "CUSTOMER_UNAUTHORIZED",
        ):
            return (
                f"{where} denies access: {reason[:500]}\nSet MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN, for an account that may write there, or ask whoever runs the server."
            )
        if "CERTIFICATE_VERIFY_FAILED" in reason or "invalid path: " in reason:
            return (
                f"{where}: the server's certificate is not trusted. Set MLFLOW_TRACKING_SERVER_CERT_PATH (or "
                "REQUESTS_CA_BUNDLE) to a file with the certificate of the authority that has signed it"
            )
        if isinstance(error, MlflowException) and not isinstance(error.__cause__ or error.__context__, OSError):
            # MLflow's own refusals come as JSON, and not as a bare status.
            doubt = "\nIs that the address of an MLflow server?" if "failed with error code" in reason else ""
            return f"{where} refused: {reason[:1000]}{doubt}"
        if isinstance(error, ParseError):
            return f"{where} answers, but not as MLflow does: {reason[:500]}\nCheck what stands between."
        if isinstance(error, ImportError):
            return f"{where} needs a package that is not installed: {reason}"
        cause = re.search(r"\[Errno -?\d+\] ([^'\"()\[]+)|(timed out)", reason)
        short = (cause.group(1) or cause.group(2)).strip() if cause else reason.splitlines()[0][:500]
        advice = {
            "MLFLOW_TRACKING_URI": "Start the server, correct the variable, or unset it to log into a local file.",
            "the default": "Repair or move the file, choose another folder, or set MLFLOW_TRACKING_URI.",
        }.get(self.origin, f"Start the server, or correct {self.origin}; without it a local file is used.")
        return f"{where} cannot be reached: {short}\n{advice}"


class _PatientClient:
    """What ``Connection.patient`` returns."""

    def __init__(self, connection: Connection, client: MlflowClient) -> None:
        self._connection, self._client = connection, client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @wraps(method)
        def request(*args: Any, **kwargs: Any) -> Any:
            return wait_out("ask MLflow", lambda: self._attempt(method, *args, **kwargs))

        return request if callable(method) else method

    def _attempt(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            if not _passing(error):
                raise
            with self._connection.open():
                raise


#: Clients of stores, by the scheme of their addresses: a module, and the package that has it.
_CLIENTS = {
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasb": ("azure.storage.blob", "azure-storage-blob azure-identity"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob azure-identity"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake azure-identity"),
    "s3": ("boto3", "boto3"),
}


def _obstacle(location: str) -> str | None:
    """Why files cannot be written at an artifact location, and what to do; ``None`` if nothing is known against it."""
    scheme, separator, _ = location.partition(":/")
    if not separator or scheme == "file":
        return _obstacle_of_folder(Path(unquote(urlsplit(location).path) if separator else location))
    if scheme not in _CLIENTS:
        return None
    module, package = _CLIENTS[scheme]
    if not _there(module):
        return f"this environment lacks a client for it; install it (pip install {package})"
    return _obstacle_of_google() if scheme == "gs" else None


def _obstacle_of_google() -> str | None:
    """Without credentials MLflow would ask as nobody, and be refused at the first file."""
    auth, errors = import_module("google.auth"), import_module("google.auth.exceptions")
    # How long it asks whether this is a machine of Google's; read when that module is first imported.
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    try:
        auth.default()
    except errors.GoogleAuthError:
        return "nothing says who asks; set GOOGLE_APPLICATION_CREDENTIALS, or give this machine or pod an account"
    return None


def _obstacle_of_folder(folder: Path) -> str | None:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder; mend the place"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written; mend its rights"


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def all_runs(client: MlflowClient, experiment_id: str, wanted: str, view: str = ViewType.ACTIVE_ONLY) -> list[Run]:
    """The runs of an experiment that fulfil a condition, however many there are.

    Args:
        wanted: filter as MLflow's ``search_runs`` takes it
        view: which of ACTIVE_ONLY, DELETED_ONLY and ALL runs

    Raises: MlflowException as ``search_runs`` does; inside ``Connection.open`` it becomes UserError.
    """
    runs, token = [], None
    while True:
        page = client.search_runs([experiment_id], wanted, view, max_results=500, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _refused_for_size(error: BaseException) -> str | None:
    """What was refused, for a person to read, if it was too large for what stands between; else ``None``."""
    if (response := _response(error)) is not None:
        if response.status_code != _TOO_LARGE:
            return None
        sent = response.request
        size = int(sent.headers.get("Content-Length", 0))
        return f"{unquote(urlsplit(sent.url or '').path).rsplit('/', 1)[-1]} of {size / 1e6:.1f} MB"
    if isinstance(error, MlflowException) and f"failed with error code {_TOO_LARGE}" in str(error):
        return "a request of this size"
    cause = error.__cause__ or error.__context__
    return None if cause is None else _refused_for_size(cause)


def _response(error: BaseException) -> Any:
    """The answer behind an exception of requests, which MLflow lets through where it sends files; else ``None``."""
    return getattr(error, "response", None) if isinstance(error, OSError) else None


def _passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: no answer, an overloaded server, a busy or full database."""
    if _refused_for_size(error) is not None:
        return False
    if isinstance(error, ParseError):
        # What came was JSON, but not MLflow's: a proxy speaks in its place just now.
        return True
    if isinstance(error, SQLAlchemyError):
        return any(text in str(error) for text in ("database is locked", "database or disk is full"))
    if isinstance(error, MlflowException):
        cause = error.__cause__ or error.__context__
        # A status without MLflow's own JSON comes from what stands before the server.
        status = re.search(r"failed with error code (\d+)", str(error))
        return (
            (status is not None and int(status.group(1)) in _OVERLOADED)
            or (status is None and isinstance(error, RestException) and error.get_http_status_code() in _OVERLOADED)
            or (cause is not None and not isinstance(cause, MlflowException) and _passing(cause))
        )
    if (response := _response(error)) is not None:
        return response.status_code in _OVERLOADED
    # What requests raises is an OSError, too; of an address that makes no sense, a ValueError as well.
    lasting = (ValueError, FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
    distrust = "CERTIFICATE_VERIFY_FAILED" in str(error)
    return isinstance(error, OSError) and not isinstance(error, lasting) and not distrust


#: Modules with the exceptions of stores' clients, which MLflow passes on where clients write files themselves.
_STORAGE_ERRORS = {
    "boto3.exceptions": ("Boto3Error",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "google.auth.exceptions": ("GoogleAuthError",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "azure.core.exceptions": ("AzureError",),
}


@cache
def _storage_errors() -> tuple[type[Exception], ...]:
    """Those of the clients that are installed."""
    there = (name for name in _STORAGE_ERRORS if _there(name))
    return tuple(getattr(import_module(name), error) for name in there for error in _STORAGE_ERRORS[name])

"""What the commands share: the console, exit codes, places, and the declarations of their options."""

from __future__ import annotations

import codecs
import inspect
import io
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_type_hints

import typer
from rich.console import Console

from rlhpo_core import addresses
from rlhpo_core.atomic_files import create_atomically, write_atomically
from rlhpo_core.errors import UserError, describe
from rlhpo_core.execution.engines import Engine

# KFP is slow to import: only the commands that need it do.
if TYPE_CHECKING:
    from rlhpo_core.kubeflow.connection import Server
    from rlhpo_core.study.spec import TrackingSpec

#: Exit code of a study that was interrupted, as shells have it for Ctrl-C.
INTERRUPTED = 130
#: Where studies are kept unless another folder is named, with the local MLflow database and the audit logs.
RUNS = Path("runs")

#: Columns where there is no terminal.
_UNBOUNDED = 1000


def _console(stream: TextIO, stderr: bool = False) -> Console:
    """A console that folds no line where no terminal bounds it: in a pipe or a file a line is a line."""
    bounded = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, highlight=False, width=None if bounded else _UNBOUNDED, soft_wrap=not bounded)


console = _console(sys.stdout)
errors = _console(sys.stderr, stderr=True)

#: What stands for characters that a terminal does not know; "?" for all others.
_PLAIN = {
    "✓": "+", "✗": "x", "–": "-", "—": "-", "…": "...", "²": "2", "×": "x", "·": ".", "→": "->", "≤": "<=", "≥": ">=",
}  # fmt: skip


def print_what_can_be_printed() -> None:
    """Have output that is no UTF-8 take what comes nearest to a character that it does not know, and not fail at it."""
    codecs.register_error("rlhpo-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="rlhpo-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    unknown = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in unknown), error.end


# -- a study -----------------------------------------------------------------------------------------------------------

StudyFile = Annotated[
    Path, typer.Argument(metavar="STUDY.yaml", help="What to tune, on what data, within what budget.")
]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The study's folder, such as runs/NAME.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where to keep the study. Default: runs/NAME, or runs/NAME-2, …")
]
Trials = Annotated[int | None, typer.Option(min=1, help="Trials in all; overrides budget.trials.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Trials at once; overrides execution.workers.")]
StudyTracking = Annotated[str | None, typer.Option(metavar="URI", help="MLflow; overrides tracking.uri.")]
EngineOption = Annotated[
    Engine,
    typer.Option(help="What runs the loop: this process, or the looping pipeline by KFP's local runner. Same trials."),
]

# -- MLflow and files --------------------------------------------------------------------------------------------------

Tracking = Annotated[
    str | None,
    typer.Option(metavar="URI", help="MLflow; default: MLFLOW_TRACKING_URI, else the database in runs/."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if there is one.")]


def overrides(
    seed: int | None = None,
    trials: int | None = None,
    workers: int | None = None,
    tracking_uri: str | None = None,
    table: Path | None = None,
) -> dict[str, Any]:
    """The options that were given, as fields of a study file."""
    given: dict[str, Any] = {
        "seed": seed,
        "budget": None if trials is None else {"trials": trials},
        "execution": None if workers is None else {"workers": workers},
        "tracking": None if tracking_uri is None else {"uri": tracking_uri},
        "data": None if table is None else {"path": _place(table)},
    }
    return {name: value for name, value in given.items() if value is not None}


def _place(table: Path) -> str:
    """Relative to where the command runs, unlike paths in a study file. A path has taken a slash from an address."""
    text = str(table)
    return addresses.BEGIN.sub(r"\1://", text) if addresses.BEGIN.match(text) else str(table.resolve())


def tracking(uri: str | None) -> TrackingSpec:
    """What ``--tracking-uri`` says. Raises: UserError if it is no address."""
    from pydantic import ValidationError

    from rlhpo_core.study.spec import TrackingSpec

    try:
        return TrackingSpec(uri=uri)
    except ValidationError as error:
        raise UserError(f"--tracking-{describe(error)}") from error


def seconds(text: str, option: str) -> float:
    """A duration as study files have it (90s, 15m, 2h, 7d). Raises: UserError, naming the option, if it is none."""
    from pydantic import TypeAdapter, ValidationError

    from rlhpo_core.study.durations import Duration

    try:
        return TypeAdapter(Duration).validate_python(text).total_seconds()
    except ValidationError as error:
        raise UserError(f"{option}: {describe(error)}") from error


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write a file that a command was asked for. Raises: UserError if there is one and ``force`` was not given."""
    _no_folder(path)
    try:
        if force:
            write_atomically(path, data)
        elif not create_atomically(path, data):
            raise occupied(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def _no_folder(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it, such as {path / 'FILE'}")


def check_free_or(path: Path, beginning: str, what: str) -> None:
    """See to it that an earlier file of this kind is replaced, but not a table that was named by mistake.

    Args:
        beginning: Of such a file, in small letters.
        what: Such a file is called.

    Raises: UserError if something else is there.
    """
    _no_folder(path)
    try:
        with path.open("rb") as file:
            ours = file.read(100).lstrip().lower().startswith(beginning.encode())
    except FileNotFoundError:
        return
    except OSError:
        ours = False
    if not ours:
        raise UserError(f"{path} exists and is no {what}; choose another file")


def occupied(place: object) -> UserError:
    """What is said of an ``--out`` that is taken."""
    return UserError(f"{place} exists; choose another --out, or overwrite it with --force")


# -- a cluster ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerOptions:
    """Which KFP server is meant, and who asks."""

    host: Annotated[
        str | None, typer.Option(help="KFP's API server; default: KFP_API_HOST, else that of the cluster.")
    ] = None
    namespace: Annotated[str | None, typer.Option(help="The profile's namespace; default: RLHPO_KFP_NAMESPACE.")] = None
    token: Annotated[str | None, typer.Option(help="Default: RLHPO_KFP_TOKEN, else the service account's token.")] = (
        None
    )
    ca_cert: Annotated[
        Path | None, typer.Option(help="Certificate of the server's authority, if it is not a public one.")
    ] = None

    def server(self) -> Server:
        """Raises: UserError as ``Server.of`` does."""
        from rlhpo_core.kubeflow.connection import Server

        return Server.of(self.host, self.namespace, self.token, ca_cert=self.ca_cert)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer in which each parameter that is a dataclass of options stands for all of its fields.

    Typer has no groups of options. The result's signature has the fields in place of the dataclass; when it is called,
    the dataclass is made of them.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if (group := groups.get(parameter.name)) is not None:
            parameters += _fields(group)
        else:
            kept = parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            parameters.append(kept)

    @wraps(command)
    def call(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _fields(group: type[Any]) -> list[inspect.Parameter]:
    """A dataclass's fields as parameters."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]

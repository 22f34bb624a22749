"""Options that commands share: as groups, with what is given going before what a study file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from rlhpo_core.cli.options import ServerOptions, grouped, overrides, write_file
from rlhpo_core.errors import UserError


@dataclass(frozen=True)
class Place:
    """Two options, one of them without a default."""

    street: Annotated[str, typer.Option(help="Where it is.")]
    number: Annotated[int, typer.Option(min=1)] = 7


def command(heard: list[object]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @grouped
    def visit(who: Annotated[str, typer.Argument()], place: Place, server: ServerOptions, late: bool = False) -> None:
        """Pay a visit."""
        heard.extend([who, place, server, late])

    return app


def test_a_group_stands_for_its_fields() -> None:
    heard: list[object] = []
    arguments = ["ada", "--street", "Hill", "--late", "--token", "t", "--ca-cert", "ca.pem"]
    result = CliRunner().invoke(command(heard), arguments)
    assert result.exit_code == 0, result.output
    assert heard == ["ada", Place("Hill", 7), ServerOptions(token="t", ca_cert=Path("ca.pem")), True]


def test_a_groups_fields_are_checked_and_explained_as_other_options_are() -> None:
    app = command([])
    assert "Missing option '--street'" in CliRunner().invoke(app, ["ada"]).output
    assert "--number" in CliRunner().invoke(app, ["ada", "--street", "Hill", "--number", "0"]).output
    output = CliRunner().invoke(app, ["--help"], terminal_width=120).output
    assert "Pay a visit." in output
    assert "Where it is." in output
    assert "[default: 7]" in output
    assert "--place" not in output


def test_only_what_was_given_changes_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert overrides() == {}
    assert overrides(table=Path("s3://bucket/t.csv")) == {"data": {"path": "s3://bucket/t.csv"}}
    assert overrides(seed=0, table=Path("t.csv")) == {"seed": 0, "data": {"path": str(tmp_path / "t.csv")}}
    assert overrides(trials=3, workers=2, tracking_uri="http://here") == {
        "budget": {"trials": 3}, "execution": {"workers": 2}, "tracking": {"uri": "http://here"},
    }  # fmt: skip


def test_a_server_has_to_be_named_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KFP_API_HOST", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="which KFP server"):
        ServerOptions().server()
    server = ServerOptions(host="http://here:8080", namespace="team").server()
    assert (server.host, server.namespace) == ("http://here:8080", "team")


def test_a_file_is_overwritten_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    write_file(path, b"mine", force=False)
    with pytest.raises(UserError, match=r"study\.yaml exists; choose another --out, or overwrite it with --force"):
        write_file(path, b"another", force=False)
    assert path.read_bytes() == b"mine"
    write_file(path, b"another", force=True)
    assert path.read_bytes() == b"another"
    with pytest.raises(UserError, match="cannot write"):
        write_file(path / "below.yaml", b"", force=True)

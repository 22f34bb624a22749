"""Checks of what Markdown pages say: commands that parse, links that lead somewhere, names of files that exist.

Each check is a function from a page to the mistakes in it. Nothing that a page names is run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pkgutil
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import util
from itertools import groupby
from pathlib import Path
from unittest import mock

import typer
import yaml
from typer.core import TyperCommand, TyperGroup

from rlhpo_core.cli.main import app

ROOT = Path(__file__).parents[2]
#: Programs whose commands cannot be checked here, and words of the shell.
OTHER_PROGRAMS = {"cd", "curl", "docker", "export", "kubectl", "kustomize", "mlflow", "pip", "source"}
_OURS = ("benchmarks", "components", "docs", "examples", "manifests", "pipelines", "rlhpo_core", "tests", "tools")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CRON = re.compile(r"^([\d*/,-]+ +){5}")


def pages() -> list[Path]:
    """All Markdown pages of the repository."""
    folders = [ROOT / name for name in _OURS if (ROOT / name).is_dir()]
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


# -- links ------------------------------------------------------------------------------------------------------------


def broken_links(page: Path) -> list[str]:
    """Relative links and images that lead to no file, or to no heading of a page."""
    prose = _SPAN.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))
    relative = [link for link in _LINK.findall(prose) if not re.match(r"[a-z]+:", link)]
    return [f"the link {link} leads nowhere" for link in relative if not _leads_somewhere(page, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    """Names of a page's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    slugs = sorted(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain)
    return {
        slug if number == 0 else f"{slug}-{number}" for slug, same in groupby(slugs) for number, _ in enumerate(same)
    }


# -- names in code ----------------------------------------------------------------------------------------------------


def missing_files(page: Path) -> list[str]:
    """Paths and modules of this repository, in code within sentences, that do not exist. NAME stands for any name."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    spans = [span for span in _SPAN.findall(prose) if not re.search(r"\bNAME\b", span)]
    paths = [span for span in spans if re.fullmatch(rf"({'|'.join(_OURS)})/[\w./-]*", span)]
    modules = [span for span in spans if re.fullmatch(r"(benchmarks|rlhpo_core|tests|tools)(\.\w+)+", span)]
    found = [f"there is no {path}" for path in paths if not any((top / path).exists() for top in (ROOT, page.parent))]
    return found + [f"there is no {module}" for module in modules if not _resolves(module)]


def _resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def wrong_blocks(page: Path) -> list[str]:
    """Blocks of Python and YAML that do not parse."""
    found = []
    for _, language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        try:
            if language == "python":
                compile(text, str(page), "exec")
            elif language == "yaml":
                yaml.safe_load(text)
        except (SyntaxError, yaml.YAMLError) as error:
            found.append(f"a block of {language} does not parse: {error}")
    return found


# -- commands ---------------------------------------------------------------------------------------------------------


def wrong_commands(page: Path) -> list[str]:
    """Commands that could not be run as they stand: no such program, target, module, script, option or value.

    Blocks without a language hold commands, one a line, and are checked in full. In sentences, arguments may be left
    out; there, subcommands and options are checked.
    """
    text = page.read_text(encoding="utf-8")
    found = []
    for _, language, block in _FENCE.findall(text):
        if language == "":
            lines = re.sub(r" *\\\n *", " ", block).splitlines()
            found += [problem for line in lines for problem in _problems(line, complete=True)]
    for span in _SPAN.findall(_FENCE.sub("", text)):
        command = " ".join(span.split())
        if re.match(r"([A-Z_]+=\S+ )*(rlhpo|make|python3?|pytest)( |$)", command):
            found += _problems(command, complete=False)
    return found


def _problems(line: str, complete: bool) -> Iterator[str]:
    try:
        commands = list(_simple_commands(_CRON.sub("", line.strip())))
    except ValueError as error:
        yield f"`{line.strip()}`: {error}"
        return
    for words in commands if complete else commands[:1]:  # a sentence may list alternatives: prior train | evaluate
        try:
            _check(words, complete)
        except ValueError as error:
            yield f"`{line.strip()}`: {error}"


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The commands that a line of shell joins by ``&&``, ``|`` or ``;``, without redirections and variables."""
    lexer = shlex.shlex(re.sub(r"\d?>&\d", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    tokens = iter([*lexer, ";"])
    for token in tokens:
        if re.fullmatch(r"[&|;()]+", token):
            if words:
                yield words
            words = []
        elif re.fullmatch(r"[<>]+", token):
            next(tokens)  # the file
        elif words or not re.match(r"[A-Z_]+=", token):
            words.append(token)


def _check(words: Sequence[str], complete: bool) -> None:
    """Raises: ValueError if this is not a command that could be run."""
    program, arguments = Path(words[0]).name, list(words[1:])
    if program == "rlhpo":
        _check_rlhpo(arguments, complete)
    elif program == "make":
        _check_make(arguments)
    elif program in ("python", "python3"):
        _check_python(arguments, complete)
    elif program == "pytest":
        _check_paths(arguments)
    elif program not in OTHER_PROGRAMS:
        raise ValueError(f"{program} is no program that is known here")


def _check_rlhpo(arguments: list[str], complete: bool) -> None:
    command = typer.main.get_command(app)
    name = "rlhpo"
    while isinstance(command, TyperGroup):
        if not arguments:
            return
        subcommand, *arguments = arguments
        if subcommand.startswith("-"):
            _check_options([subcommand], _options(command))
            return
        if subcommand not in command.commands:
            raise ValueError(f"{name} has no command {subcommand}")
        name, command = f"{name} {subcommand}", command.commands[subcommand]
    if not complete:
        _check_options(arguments, _options(command))
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            command.make_context(name, arguments)
    except typer.Exit:  # --help and --version
        return
    except Exception as error:
        # Typer has a Click of its own; what all errors of use have in common there is this method.
        if not hasattr(error, "format_message"):
            raise
        raise ValueError(error.format_message()) from error


def _options(command: TyperCommand | TyperGroup) -> set[str]:
    """Names of a command's options; those for help are among them."""
    context = typer.Context(command)
    return {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}


def _check_options(arguments: Sequence[str], known: set[str]) -> None:
    for argument in arguments:
        if re.match(r"--?[A-Za-z]", argument) and argument.split("=")[0] not in known:
            raise ValueError(f"there is no option {argument}")


def _check_make(arguments: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):(?!=)", makefile, re.MULTILINE))
    variables = set(re.findall(r"^(?:export )?(\w+) \?=", makefile, re.MULTILINE))
    for argument in arguments:
        name, assigned, _ = argument.partition("=")
        if name not in (variables if assigned else targets):
            raise ValueError(f"the Makefile has no {'variable' if assigned else 'target'} {name}")


def _check_paths(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not argument.startswith("-") and not (ROOT / argument.split("::")[0]).exists():
            raise ValueError(f"there is no {argument}")


def _check_python(arguments: list[str], complete: bool) -> None:
    if not arguments:
        return
    if arguments[0] == "-m":
        module, *rest = arguments[1:]
        if module == "pytest":
            _check_paths(rest)
            return
        if not module.startswith(_OURS):
            return
        try:
            spec = util.find_spec(module)
            if spec is not None and spec.submodule_search_locations:
                spec = util.find_spec(f"{module}.__main__")
        except ImportError:
            spec = None
        if spec is None or spec.origin is None:
            raise ValueError(f"there is no module {module} that can be run")
        path = Path(spec.origin)
    else:
        module, rest, path = "", arguments[1:], ROOT / arguments[0]
        if not path.is_file():
            raise ValueError(f"there is no {arguments[0]}")
    parser = _parser(module, path)
    if parser is None:
        return
    if not complete:
        _check_options(rest, set(parser._option_string_actions))
        return
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            parser.parse_args(rest)
    except SystemExit as end:
        if end.code:
            raise ValueError(message.getvalue().strip().splitlines()[-1]) from end


class _Parsing(BaseException):
    """Carries the parser out of a program that is about to parse its command line."""


@cache
def _parser(module: str, path: Path) -> argparse.ArgumentParser | None:
    """The parser of a module or, if that is empty, of a script: it is run to where it parses, no further.

    ``None`` for a program without one, which is not run.
    """
    if not re.search(r"\.parse_args\(|generated\.main\(|parsed\(", path.read_text(encoding="utf-8")):
        return None

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Parsing(parser)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(sys, "argv", [str(path)]),
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),  # that the module may be imported already
    ):
        try:
            if module:
                runpy.run_module(module, run_name="__main__")
            else:
                runpy.run_path(str(path), run_name="__main__")
        except _Parsing as reached:
            (parser,) = reached.args
            assert isinstance(parser, argparse.ArgumentParser)
            return parser
    raise AssertionError(f"{path} does not parse its command line")

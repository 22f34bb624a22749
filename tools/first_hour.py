"""The first hour with rlhpo: a wheel in an empty folder, a table as it comes, a served prediction; each command is run.

    python -m tools.first_hour

writes docs/first-hour.md with what the commands have printed here. ``tests/e2e/test_first_hour.py`` runs them anew, and
sees to it that the page still has them and what they must say. It takes minutes, so ``make generate`` leaves it out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np

from tools import generated

PAGE = generated.ROOT / "docs" / "first-hour.md"
#: What a wheel is made of.
_SOURCES = (
    "rlhpo_core", "components", "pipelines", "examples", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md",
    "LICENSE",
)  # fmt: skip
_PORT = 5001
_SECONDS = 600
#: Variables of this environment that somebody who has just installed rlhpo does not have.
_NOT_A_USERS = ("MLFLOW_", "RLHPO_", "AWS_", "COLUMNS")
#: Of the page's sentences, in characters.
_WIDTH = 120
#: Lines of output that the page shows.
_MOST_LINES = 60


@dataclass(frozen=True)
class Step:
    """A command, and what it must say."""

    about: str
    """Why one gives it; begins its paragraph."""
    command: str
    says: tuple[str, ...] = ()
    serves: bool = False
    """Whether it runs on while those after it are given."""


STEPS = (
    Step(
        "**What have I got?** Nothing is trained yet. `rlhpo init` reads the table, and writes a study file with "
        "comments and a schema by which an editor completes and checks it.",
        "rlhpo init --data orders.csv --target returned",
        ("classification", "wrote study.yaml"),
    ),
    Step(
        "**Is anything wrong?** All of it is said at once.",
        "rlhpo check study.yaml",
        ("orders.csv can be read", "nothing is wrong"),
    ),
    Step(
        "**Tune.** Ten trials here; the study file says fifty.",
        "rlhpo tune study.yaml --trials 10",
        ("all 10 trials done", "holdout", "registered orders version 1", "time "),
    ),
    Step("**What came of it?**", "rlhpo status", ("finished", "10/10", "orders version 1")),
    Step(
        "**Look closer:** a page with charts, and the trials as a table.",
        "rlhpo report runs/orders --html charts.html --csv trials.csv",
        ("report: charts.html", "trials: trials.csv"),
    ),
    Step(
        "**In MLflow.** Without `--print` this serves the pages. The address opens on the study; the tab *Training "
        "runs* has all of them.",
        "rlhpo ui --print",
        ("workflowType=machine_learning", "runs/orders"),
    ),
    Step(
        "**Serve it.** The champion is served by MLflow; neither rlhpo nor torch is needed where it runs.",
        f"MLFLOW_TRACKING_URI=sqlite:///runs/mlflow.db mlflow models serve --model-uri models:/orders@champion "
        f"--env-manager local --port {_PORT}",
        serves=True,
    ),
    Step(
        "**Ask it**, with a raw row of the table.",
        f"curl --silent http://127.0.0.1:{_PORT}/invocations --header 'Content-Type: application/json' --data "
        '\'{"dataframe_records": [{"ordered": "2026-11-02", "zip": "01067", "size": "M", "price": "€1,079.90", '
        '"shop": "Nord, Ost", "days": 12, "currency": "EUR"}]}\'',
        ("prediction", "probability_"),
    ),
)


def messy_table(rows: int = 400) -> str:
    """A table as it comes from an export: money, dates, codes of digits, spellings, blanks, a column of one value."""
    rng = np.random.default_rng(3)
    lines = ["order,ordered,zip,size,price,shop,days,currency,returned"]
    for number in range(rows):
        size = rng.choice(["S", "M", "L", "XL", ""], p=[0.25, 0.3, 0.25, 0.15, 0.05])
        price = round(float(rng.gamma(4, 120)), 2)
        days, code = int(rng.integers(1, 30)), int(rng.choice([1067, 4109, 10115, 20095, 80331]))
        shop = rng.choice(['"Nord, Ost"', "Süd", "West", "west "])
        odds = 1 / (1 + np.exp(-(0.15 * (days - 15) + (price - 480) / 360 + (size == "XL"))))
        answer = rng.choice(["yes", "Yes"] if rng.random() < odds else ["no", "no "])
        shown = "" if rng.random() < 0.06 else f'"€{price:,.2f}"'
        day = np.datetime64("2026-01-01") + int(rng.integers(0, 300))
        lines.append(f"A-{number:05d},{day},{code:05d},{size},{shown},{shop},{days},EUR,{answer}")
    return "\n".join(lines) + "\n"


def install(folder: Path) -> dict[str, str]:
    """Build a wheel of this checkout and install it alone into a folder; its dependencies are this environment's.

    Returns: the environment in which its commands are found.
    """
    source, place = folder / "source", folder / "installed"
    source.mkdir(parents=True)
    leave = shutil.ignore_patterns("__pycache__", "*.pyc", "runs", "build", "*.egg-info")
    for name in _SOURCES:
        original = generated.ROOT / name
        if original.is_dir():
            shutil.copytree(original, source / name, ignore=leave)
        else:
            shutil.copy(original, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("rlhpo-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True, cwd=folder)
    shutil.rmtree(source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_A_USERS)}
    programs = os.pathsep.join([str(place / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **kept, "PATH": programs, "PYTHONPATH": str(place), "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def carried_out(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Step, str]]:
    """Each step with what it has printed.

    Args:
        folder: Empty; the table is put into it, as a user would have it there.

    Raises: RuntimeError if a command fails, or does not say what it must.
    """
    (folder / "orders.csv").write_text(messy_table(), encoding="utf-8")
    with _Servers(folder, environment) as servers:
        for step in STEPS:
            if step.serves:
                servers.start(step.command)
                yield step, ""
                continue
            run = subprocess.run(
                ["bash", "-c", step.command], cwd=folder, env=dict(environment), capture_output=True, text=True,
                timeout=_SECONDS, check=False,
            )  # fmt: skip
            said = run.stdout + run.stderr
            missing = [text for text in step.says if text not in said]
            if run.returncode != 0 or missing:
                raise RuntimeError(f"{step.command}: exit code {run.returncode}, without {missing}:\n{said}")
            yield step, said


class _Servers:
    """What runs on while other commands are given; all of it is ended at the end."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, dict(environment)
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> _Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)

    def start(self, command: str) -> None:
        """Raises: RuntimeError if it does not answer in time."""
        with (self._folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=self._folder, env=self._environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._running.append(process)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/ping", timeout=2):
                    return
            except OSError:
                time.sleep(0.5)
        raise RuntimeError(f"{command} does not answer:\n{(self._folder / 'server.log').read_text()}")


@contextmanager
def empty_folder() -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty folder, and the environment of a fresh installation, which lies elsewhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        environment = install(folder / "wheel")
        (folder / "work").mkdir()
        yield folder / "work", environment


def page() -> str:
    """The page, with what the commands print now."""
    parts = [_HEAD]
    with empty_folder() as (folder, environment):
        for step, said in carried_out(folder, environment):
            parts.append(f"{fill(step.about, _WIDTH)}\n\n```\n{step.command}\n```")
            if said:
                parts.append(f"```text\n{_shown(said, folder)}\n```")
    return "\n\n".join([*parts, _TAIL]) + "\n"


def _shown(said: str, folder: Path) -> str:
    """Without colours, and without what is of this machine alone; long outputs are cut in their middle."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", said).replace(f"{folder}/", "").replace(str(folder), ".")
    lines = [line.rstrip() for line in text.strip().splitlines()]
    if len(lines) > _MOST_LINES:
        half = _MOST_LINES // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} more lines", *lines[-half:]]
    return "\n".join(lines)


_HEAD = """\
# The first hour

From an installed wheel and an empty folder with a table in it, to a prediction that is served. The table is an export
as they come: money, dates, codes of digits, spellings, blanks, a column of one value. Every command below was run as it
stands, and what it printed stands under it; `tests/e2e/test_first_hour.py` runs them anew. Times are of a machine that
had much else to do."""
_TAIL = """\
**Next:** [retune it when the data has changed](retuning.md), [run it on a cluster](operations.md), [what is said of
wrong inputs](wrong-inputs.md), or [your own code in the pipeline](own-code.md)."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

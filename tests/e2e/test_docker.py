"""The looping pipeline in containers of the image: ``make e2e-docker``.

KFP's DockerRunner starts one for each step, as an unprivileged user with a read-only root. MLflow's server on
PostgreSQL and an S3 server run beside them; nothing but these two connects one chunk of the study with the next.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.storage.s3_store import S3Store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec, load_study
from tests.helpers.command_line import ROOT
from tests.helpers.comparison import comparable
from tests.helpers.docker_engine import Engine, NoEngineError
from tests.helpers.servers import MlflowServer, PostgresServer, S3Server

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(3600)]

USER = "65532:65532"
TRIALS, EACH = 7, 3
FAILING = 2


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if not os.environ.get("RLHPO_E2E_DOCKER"):
        pytest.skip("takes minutes: make e2e-docker runs it")
    try:
        engine = Engine()
        engine.start()
    except NoEngineError as error:
        pytest.skip(str(error))
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    try:
        return engine.build()
    except NoEngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def s3(place: Path) -> Iterator[S3Server]:
    (place / "s3").mkdir()
    server = S3Server(place / "s3")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mlflow(place: Path, s3: S3Server) -> Iterator[MlflowServer]:
    for name in ("postgres", "mlflow"):
        (place / name).mkdir()
    try:
        database = PostgresServer(place / "postgres")
    except RuntimeError as error:
        pytest.skip(str(error))
    database.start()
    server = MlflowServer(place / "mlflow", database.uri, f"s3://{s3.bucket}/mlflow", **s3.environment())
    try:
        server.start()
        yield server
    finally:
        server.stop()
        database.stop()


def test_the_image_is_what_it_should_be(engine: Engine, image: str) -> None:
    size = int(engine.run("image", "inspect", "--format", "{{.Size}}", image))
    print(f"\nimage {image}: {size / 1e9:.2f} GB")
    closed = ["run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", image]
    assert engine.run(*closed, "rlhpo", "--version").split()[-1] == image.partition(":")[2]
    assert engine.run(*closed, "python3", "-c", "import os; print(os.getuid())").strip() == "65532"
    engine.run(*closed, "touch", "/opt/rlhpo/file", code=1)
    for tool in ("gcc", "make", "git"):
        engine.run(*closed, "sh", "-c", f"command -v {tool}", code=127)
    engine.run(*closed, "python3", "-c", "import pip", code=1)
    labels = engine.run("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f'"org.opencontainers.image.revision":"{commit.stdout.strip()}"' in labels


def test_a_study_in_containers_has_the_trials_of_one_without(
    engine: Engine, image: str, s3: S3Server, mlflow: MlflowServer, place: Path
) -> None:
    study = yaml.safe_load((ROOT / "examples" / "05-pipeline.yaml").read_text())
    study |= {
        "budget": {"trials": TRIALS},
        "execution": {"drill": [FAILING], "threads": 1},
        "tuner": {"trials_per_round": EACH},
    }
    study["data"]["path"] = str(ROOT / "examples" / "data" / "car.csv")
    (place / "05-pipeline.yaml").write_text(yaml.safe_dump(study))
    spec = load_study(place / "05-pipeline.yaml")
    here = StudyFolder.create(place / "here", spec, StudyRecord.new(spec))
    with TrialPool(spec, 1, 1) as pool:
        run(here, spec, pool, [])

    s3.client().upload_file(str(ROOT / "examples" / "data" / "car.csv"), s3.bucket, "tables/car.csv")
    there = StudyFiles(S3Store(s3.bucket, "loop", s3.client()))
    there.write_spec(spec)
    # The second run finds what the first has left in S3, and ends the study.
    for rounds, trials in ((2, 2 * EACH), (1, TRIALS)):
        environment = s3.environment() | {"MLFLOW_TRACKING_URI": mlflow.url, "OMP_NUM_THREADS": "1"}
        start(engine, place, f"s3://{s3.bucket}", rounds, environment)
        assert len(there.history().trials) == trials
    assert found(there, spec) == found(here, spec)
    assert [trial.status for trial in there.history().trials].count("failed") == 1

    client = MlflowClient(mlflow.url)
    (experiment,) = [one.experiment_id for one in client.search_experiments() if one.name == "rlhpo"]
    runs = client.search_runs([experiment], f"tags.`rlhpo.study_id` = '{there.record().study_id}'")
    (parent,) = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(int(one.data.tags["rlhpo.trial"]) for one in children) == list(range(1, TRIALS + 1))
    assert [one.data.tags["rlhpo.trial"] for one in children if one.info.status == "FAILED"] == [str(FAILING)]
    assert parent.info.status == "FINISHED"
    (version,) = client.search_model_versions("name = 'car'")
    # The model passed through the server into S3, and comes back from there.
    assert client.list_artifacts(parent.info.run_id)
    objects = s3.client().list_objects_v2(Bucket=s3.bucket, Prefix="mlflow/")["Contents"]
    assert any("ubj" in one["Key"] or "json" in one["Key"] for one in objects)
    assert version.run_id


def found(files: StudyFiles, spec: StudySpec) -> list[dict[str, Any]]:
    """The study's trials, without the errors' texts, which name paths of the machine."""
    return [{**one, "error": None} for one in comparable(files.whole_history().trials)]


def start(engine: Engine, place: Path, bucket: str, rounds: int, environment: dict[str, str]) -> None:
    """A run of the pipeline in a process of its own, which KFP takes over. Its output is kept."""
    root = place / f"artifacts-{rounds}"
    root.mkdir()
    root.chmod(0o777)
    program = f"""
import json, os, sys
from kfp import local
from pipelines.hpo_loop.pipeline import build
from pipelines.tuning import Shape
# What KFP makes for the containers has to be theirs, too.
os.umask(0)
local.init(
    local.DockerRunner(
        network_mode="host",
        user="{USER}",
        read_only=True,
        tmpfs={{"/tmp": "size=1g"}},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        environment=json.loads(sys.argv[1]),
    ),
    pipeline_root={str(root)!r},
    raise_on_error=True,
)
pipeline = build(Shape({rounds}, {EACH}, cluster=None))
pipeline(store="{bucket}/loop", table_source="{bucket}/tables/car.csv")
"""
    log = place / f"run-{rounds}.log"
    with log.open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(environment)],
            env={**os.environ, "DOCKER_HOST": engine.host, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    shutil.copy(log, ROOT / "build")
    assert done.returncode == 0, log.read_text()[-6000:]


def test_code_of_ones_own_runs_in_an_image_of_five_lines(engine: Engine, image: str, place: Path) -> None:
    """The page's package, study and Dockerfile, as they stand."""
    page = (ROOT / "docs" / "own-code.md").read_text()
    blocks = {language: text for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)}
    lines = blocks["text"].splitlines()
    assert len(lines) == 5
    folder = place / "own"
    (folder / "my_training").mkdir(parents=True)
    (folder / "my_training" / "__init__.py").touch()
    (folder / "my_training" / "train.py").write_text(blocks["python"])
    (folder / "study.yaml").write_text(blocks["yaml"] + "budget: {trials: 2}\n")
    (folder / "Dockerfile").write_text("\n".join([f"FROM {image}", *lines[1:]]) + "\n")
    engine.run("build", "--tag", "rlhpo-own:test", str(folder))
    volume = f"--volume={folder / 'study.yaml'}:/tmp/study.yaml:ro"
    closed = [
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
        volume,
        "rlhpo-own:test",
    ]
    assert "nothing is wrong" in engine.run(*closed, "rlhpo", "check", "/tmp/study.yaml")
    assert "all 2 trials done" in engine.run(*closed, "rlhpo", "tune", "/tmp/study.yaml", "--out", "/tmp/mine")

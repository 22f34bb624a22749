"""``rlhpo submit | schedule | unschedule | compile`` against a KFP server on loopback."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipelines.workflow_size import most_rounds
from rlhpo_core.cli.cluster import commands as cluster
from rlhpo_core.cli.main import app
from rlhpo_core.errors import UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.execution.engines import Steps
from rlhpo_core.kubeflow import client, next_run
from rlhpo_core.kubeflow.compiled_pipeline import read_package
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.storage import lease
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import StudySpec, load_study
from rlhpo_core.tracking.tracker import StudyTracker
from tests.helpers.kfp_server import KfpServer
from tests.helpers.mlflow_store import new_store
from tests.helpers.pictures import as_folder
from tests.helpers.servers import shared_s3_server
from tests.helpers.stepwise import DATA, study

NIGHTLY = "0 30 2 * * *"
TABLE = ("--table", "s3://bucket/table.csv")


@pytest.fixture(scope="module", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Compiling a pipeline takes seconds, so that of the same study and options is compiled once."""
    kept: dict[tuple[str, int, bool, Steps, str | None], bytes] = {}
    compile_pipeline = cluster._compile

    def compile_once(
        spec: StudySpec, rounds: int, folder: Path, retune: bool, steps: Steps, pull_secret: str | None = None
    ) -> Path:
        key = (spec.model_dump_json(), rounds, retune, steps, pull_secret)
        if key not in kept:
            kept[key] = compile_pipeline(spec, rounds, folder, retune, steps, pull_secret).read_bytes()
        path = folder / "pipeline.yaml"
        path.write_bytes(kept[key])
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "_compile", compile_once)
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Seven trials, three a round: three rounds."""
    path = tmp_path / "study.yaml"
    path.write_text(study())
    return path


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place that this machine and the pods can reach."""
    server = shared_s3_server()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket}/{tmp_path.name}"


def rounds_of(run: dict[str, Any]) -> int:
    """How many rounds a run's pipeline has."""
    components = run["pipeline_spec"]["pipeline_spec"]["components"].values()
    tasks = [task for component in components for task in component.get("dag", {}).get("tasks", {}).values()]
    return len([task for task in tasks if task["taskInfo"]["name"].startswith("round ")])


def rlhpo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_study_is_sent_as_a_chain_of_runs(backend: KfpServer, file: Path, store: str) -> None:
    done = rlhpo(
        "submit",
        file,
        *("--store", store, "--table", "s3://bucket/table.csv", "--rounds", "2"),
        *("--image", "registry.example.com/rlhpo:2", "--experiment", "tuning", "--service-account", "rlhpo-runner"),
    )
    assert done.exit_code == 0, done.output
    (run,) = backend.runs.values()
    assert f"run {run['run_id']}  {backend.url}/#/runs/details/{run['run_id']}" in done.output
    assert "up to 1 more follow by themselves" in done.output
    parameters = run["runtime_config"]["parameters"]
    assert StudyFiles(open_store(store)).spec() == load_study(file)
    assert parameters == {
        "store": store,
        "table_source": "s3://bucket/table.csv",
        "image": "registry.example.com/rlhpo:2",
        "further_runs": 3,
    }
    assert run["service_account"] == "rlhpo-runner"
    assert rounds_of(run) == 2
    assert "comp-learn-and-propose" in run["pipeline_spec"]["pipeline_spec"]["components"]
    (experiment,) = backend.experiments.values()
    assert (experiment["display_name"], experiment["namespace"]) == ("tuning", "team")


@pytest.mark.parametrize(
    ("arguments", "further"), [(["--no-continue", "--rounds", "1"], 0), (["--rounds", "3"], 1), ([], 1)]
)
def test_a_run_that_may_do_alone_is_followed_only_if_it_fails(
    backend: KfpServer, file: Path, arguments: list[str], further: int, store: str
) -> None:
    done = rlhpo("submit", file, "--store", store, *TABLE, *arguments)
    assert done.exit_code == 0, done.output
    assert "follow" not in done.output
    (run,) = backend.runs.values()
    assert run["runtime_config"]["parameters"]["further_runs"] == further
    assert next_run.send_next(Server.of(), StudyFiles(open_store(store)), run["run_id"], 0).run_id == ""


def test_a_study_can_be_supervised(backend: KfpServer, file: Path, store: str) -> None:
    for _ in range(2):
        done = rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "1", "--supervise")
        assert done.exit_code == 0, done.exception
    (one,) = backend.recurring_runs.values()
    assert (one["display_name"], one["status"]) == ("stepwise-supervisor", "ENABLED")
    assert one["runtime_config"]["parameters"] == {"store": store, "schedule": "stepwise-supervisor"}
    refused = rlhpo("submit", file, "--store", store, *TABLE, "--no-continue", "--supervise")
    assert "--supervise: looks after a chain of runs" in str(refused.exception)


def test_the_pipeline_can_be_kept_as_a_version(backend: KfpServer, file: Path, store: str) -> None:
    options = ["--store", store, *TABLE, "--rounds", "1", "--pipeline-version"]
    assert rlhpo("submit", file, *options, "v1").exit_code == 0
    assert rlhpo("schedule", file, *options, "v2", "--cron", NIGHTLY).exit_code == 0
    names = {one["name"]: one["pipeline_id"] for one in backend.pipelines.values()}
    assert [name.rpartition("-")[0] for name in names] == ["rlhpo-hpo", "rlhpo-hpo-loop"]
    ids = {one["name"]: version for version, one in backend.versions.items()}
    (run,), (recurring,) = backend.runs.values(), backend.recurring_runs.values()
    assert run["pipeline_version_reference"]["pipeline_version_id"] == ids["v1"]
    assert recurring["pipeline_version_reference"] == {"pipeline_id": backend.versions[ids["v2"]]["pipeline_id"]}
    assert rlhpo("submit", file, *options, "v1").exit_code == 0, "the same content"
    other = rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "2", "--pipeline-version", "v1")
    assert other.exit_code == 1
    assert "has a version 'v1' with another content; choose another name" in str(other.exception)


def test_a_round_of_five_steps_is_there_for_who_asks(backend: KfpServer, file: Path, store: str) -> None:
    assert rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "1", "--steps", "five").exit_code == 0
    (run,) = backend.runs.values()
    assert "comp-ppo-update" in run["pipeline_spec"]["pipeline_spec"]["components"]


def test_waiting_tells_how_the_run_ended(backend: KfpServer, file: Path, store: str) -> None:
    for state, code in (("SUCCEEDED", 0), ("FAILED", 1)):
        backend.states = [state]
        done = rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "1", "--wait")
        assert done.exit_code == code, done.output
        assert f"stepwise: {state}" in done.output
    assert re.search(r"(?s)ended as FAILED\nits page says why: http://.*/runs/details/", str(done.exception))


def test_a_run_that_is_terminated_in_kfps_pages_ends_the_waiting_with_words(
    backend: KfpServer, file: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pods are killed before they can say anything: who waits ends the study's run in MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path))
    trackers: list[StudyTracker] = []

    def meanwhile(seconds: float) -> None:
        """A step begins the study, somebody presses the button, and KFP takes its time."""
        (run,) = backend.runs.values()
        if run["state"] == "PENDING":
            files, spec = StudyFiles(open_store(store)), load_study(file)
            files.claim(StudyRecord(study_id="stepwise-1"))
            begin_study(files, spec)
            trackers.append(StudyTracker.open(spec, "stepwise-1", tmp_path))
            with lease.held_by_run(files.store, run["run_id"]):
                pass
            client.terminate(Server.of(), run["run_id"])
        else:
            backend.set_state(run["run_id"], "CANCELED")

    monkeypatch.setattr(client.time, "sleep", meanwhile)
    done = rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "2", "--wait")
    assert done.exit_code == 1
    said = [line for line in done.output.splitlines() if line.startswith("stepwise: ")]
    assert said == ["stepwise: PENDING", "stepwise: CANCELING", "stepwise: CANCELED"]
    (run_id,) = backend.runs
    assert f"run {run_id} ended as CANCELED" in str(done.exception)
    (tracker,) = trackers
    assert tracker.client.get_run(tracker.run_id).info.status == "KILLED"
    assert lease.refused(open_store(store)) is None
    # Nothing follows, and whoever submits again begins a new chain with the same study.
    assert next_run.supervise(Server.of(), StudyFiles(open_store(store))) == (True, f"run {run_id} was stopped")
    assert rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "2").exit_code == 0


def test_programs_get_json(backend: KfpServer, file: Path, store: str) -> None:
    backend.states = ["SUCCEEDED"]
    done = rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "2", "--wait", "--json")
    (run,) = backend.runs.values()
    sent = json.loads(done.stdout)
    assert (sent["run"], sent["state"], sent["further_runs"]) == (run["run_id"], "SUCCEEDED", 1)
    assert sent["created"].endswith("+00:00")
    refused = rlhpo("submit", file, "--store", store, *TABLE, "--timeout", "soon", "--wait")
    assert "--timeout: 'soon' is not a duration" in str(refused.exception)
    assert len(backend.runs) == 1


def test_a_schedule_runs_one_at_a_time_and_makes_up_for_nothing(backend: KfpServer, file: Path, store: str) -> None:
    done = rlhpo("schedule", file, "--store", store, *TABLE, "--rounds", "1", "--cron", NIGHTLY)
    assert done.exit_code == 0, done.output
    assert f"schedule stepwise: {NIGHTLY} (UTC" in done.output
    (one,) = backend.recurring_runs.values()
    assert one["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert (one["max_concurrency"], one["no_catchup"]) == ("1", True)
    assert "further_runs" not in one["runtime_config"]["parameters"], "the next one comes by the clock"
    assert "UTC" in done.output
    wrong = rlhpo("schedule", file, "--store", store, *TABLE, "--rounds", "1", "--cron", "30 2 * * *")
    assert wrong.exit_code == 1
    assert "Did you mean '0 30 2 * * *'" in str(wrong.exception)


def test_a_schedule_under_way_is_not_replaced_unless_one_says_how(backend: KfpServer, file: Path, store: str) -> None:
    arguments = ["schedule", file, "--store", store, *TABLE, "--rounds", "1", "--cron", NIGHTLY]
    assert rlhpo(*arguments).exit_code == 0
    (first,) = backend.recurring_runs
    run = backend.tick(first)
    assert run is not None
    refused = rlhpo(*arguments)
    assert "--under-way wait to let it end first" in str(refused.exception)
    assert list(backend.recurring_runs) == [first]
    backend.states = ["CANCELING", "FAILED"]
    done = rlhpo(*arguments, "--under-way", "stop")
    assert f"stopping run {run['run_id']}" in done.output, done.exception
    assert backend.orphans == set()
    (second,) = backend.recurring_runs
    assert second != first
    assert "schedule stepwise is removed" in rlhpo("unschedule", "stepwise").output
    assert backend.recurring_runs == {}


def test_options_go_before_the_environment(backend: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_API_HOST", "http://nonesuch.invalid")
    monkeypatch.setenv("RLHPO_KFP_NAMESPACE", "another")
    monkeypatch.setenv("RLHPO_KFP_TOKEN", "wrong")
    done = rlhpo("runs", "--host", backend.url, "--namespace", "team", "--token", "mine")
    assert "no runs" in done.output, done.exception


def test_a_run_that_is_too_long_is_refused(backend: KfpServer, tmp_path: Path, store: str) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(study(trials=99))
    done = rlhpo("submit", path, "--store", store, *TABLE, "--rounds", "21")
    assert done.exit_code == 1
    assert "--rounds: a run holds at most 20 rounds of 3 trials" in str(done.exception)
    path.write_text(study(trials=400, tuner={"trials_per_round": 100}))
    done = rlhpo("submit", path, "--store", store, *TABLE)
    assert "tuner.trials_per_round: a round of 100 trials takes more than half" in str(done.exception)
    assert backend.runs == {}


def test_without_rounds_a_run_takes_half_of_what_argo_holds(backend: KfpServer, tmp_path: Path, store: str) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(study(trials=75))
    assert "up to 2 more follow" in rlhpo("submit", path, "--store", store, *TABLE).output
    (run,) = backend.runs.values()
    assert rounds_of(run) == most_rounds(3, steps=Steps.COMPACT)


def test_retunings_are_runs_of_a_pipeline_of_their_own(
    backend: KfpServer, file: Path, tmp_path: Path, store: str
) -> None:
    for command in (["submit"], ["schedule", "--cron", NIGHTLY]):
        done = rlhpo(*command, file, "--store", store, *TABLE, "--retune")
        assert done.exit_code == 0, done.exception
    (run,), (recurring,) = backend.runs.values(), backend.recurring_runs.values()
    assert recurring["display_name"] == "stepwise-retune"
    (version,) = backend.versions.values()
    assert recurring["pipeline_version_reference"] == {"pipeline_id": version["pipeline_id"]}
    for one in (run, recurring):
        sent = one.get("pipeline_spec") or version["pipeline_spec"]
        assert sent["pipeline_spec"]["pipelineInfo"]["name"] == "rlhpo-retune"
        assert one["runtime_config"]["parameters"].keys() == {"store", "table_source"}
    path = tmp_path / "other.yaml"
    path.write_text(study(trials=99))
    refused = rlhpo("submit", path, "--store", store, *TABLE, "--retune")
    assert "a retuning is one run of at most 20 rounds; these are 33" in str(refused.exception)
    path.write_text(study(registry={}))
    refused = rlhpo("submit", path, "--store", store, *TABLE, "--retune")
    assert "registry.model: a retuning needs the name" in str(refused.exception)


def test_pods_are_not_sent_a_file_of_this_machine(backend: KfpServer, tmp_path: Path, store: str) -> None:
    path = tmp_path / "away.yaml"
    path.write_text(study(prior=str(tmp_path / "team.safetensors")))
    refused = rlhpo("submit", path, "--store", store, *TABLE, "--rounds", "1")
    assert refused.exit_code == 1
    assert "prior: the pods cannot read" in str(refused.exception)
    assert "put it where they can" in str(refused.exception)
    assert backend.runs == {}


@pytest.mark.parametrize(
    ("fields", "options", "said"),
    [
        ({}, ["--store", "runs/x", *TABLE], "--store: the pods share no folder with this machine"),
        ({}, ["--store", "/mnt/pvc/x", *TABLE], "so /mnt/pvc/x is out of their reach"),
        ({}, ["--store", "s3://b/it"], r"--table: the pods cannot read .*german_credit\.csv; put it into"),
        ({}, ["--store", "s3://b/it", "--table", "https://x/car.csv"], "the pods cannot read https://x/car.csv"),
        ({}, ["--store", "s3://b/it", "--table", "car.csv"], "or let --upload put it beside the study"),
        ({}, ["--store", "s3://b/it", "--upload", *TABLE], "leave out --table, or --upload"),
        ({"registry": {"store": "ledger"}}, ["--store", "s3://b/it", *TABLE], "registry.store: the pods share no"),
        ({"warm_start": "runs/a"}, ["--store", "s3://b/it", *TABLE], "warm_start: the pods cannot read .*runs/a"),
    ],
)
def test_what_only_this_machine_has_is_refused_before_anything_is_sent(
    backend: KfpServer, tmp_path: Path, fields: dict[str, Any], options: list[str], said: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(study(**fields))
    for command in (["submit"], ["schedule", "--cron", NIGHTLY]):
        refused = rlhpo(*command, path, *options, "--rounds", "1")
        assert re.search(said, str(refused.exception)), refused.exception
    assert (backend.runs, backend.recurring_runs, backend.pipelines) == ({}, {}, {})


def test_a_table_is_put_beside_the_study(backend: KfpServer, file: Path, store: str) -> None:
    for _ in range(2):
        assert rlhpo("submit", file, "--store", store, "--upload", "--rounds", "1").exit_code == 0
    (source,) = {run["runtime_config"]["parameters"]["table_source"] for run in backend.runs.values()}
    place, name = source.rsplit("/", 1)
    assert place == f"{store}/tables"
    assert re.fullmatch(r"[0-9a-f]{12}-german_credit\.csv", name)
    assert open_store(place).read(name) == DATA.read_bytes()


def test_a_table_that_lies_in_an_object_store_needs_no_option(backend: KfpServer, tmp_path: Path, store: str) -> None:
    path = tmp_path / "far.yaml"
    path.write_text(study(data={"path": "s3://bucket/customers.parquet", "target": "target"}))
    done = rlhpo("submit", path, "--store", store, "--rounds", "1")
    assert done.exit_code == 0, done.output
    (run,) = backend.runs.values()
    assert run["runtime_config"]["parameters"]["table_source"] == "s3://bucket/customers.parquet"
    kept = StudyFiles(open_store(store)).spec().data
    assert kept is not None
    assert kept.address == "s3://bucket/customers.parquet"


def test_a_folder_of_images_is_put_there_as_one_file(tmp_path: Path) -> None:
    place = f"file://{tmp_path}/store/tables"
    first, second = (cluster._uploaded(str(as_folder(tmp_path / "corners")), place) for _ in range(2))
    assert first == second
    assert re.fullmatch(rf"{place}/[0-9a-f]{{12}}-corners\.zip", first)
    with pytest.raises(UserError, match="cannot read the table"):
        cluster._uploaded(str(tmp_path / "absent.csv"), place)


def test_a_pipeline_is_compiled_into_a_file(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "pipeline.yaml"
    assert "wrote" in rlhpo("compile", file, "--rounds", "1", "--out", out).output
    assert read_package(out)["pipeline_spec"]["pipelineInfo"]["name"] == "rlhpo-hpo-loop"
    assert "overwrite it with --force" in str(rlhpo("compile", file, "--rounds", "1", "--out", out).exception)


# -- what pods are given ----------------------------------------------------------------------------------------------


def executors(run: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Of each step: its container, and what Kubernetes is told of its pod."""
    package = run["pipeline_spec"]
    platform = package["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        pod["podMetadata"]["labels"]["rlhpo/step"]: (
            package["pipeline_spec"]["deploymentSpec"]["executors"][name]["container"],
            pod,
        )
        for name, pod in platform.items()
    }


def test_a_study_says_what_its_pods_are_given(backend: KfpServer, tmp_path: Path, store: str) -> None:
    path = tmp_path / "study.yaml"
    cluster_section = {
        "trial_cpu": 2, "trial_memory": "4Gi", "step_memory": "1Gi",
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "trial_node_selector": {"pool": "ml"}, "queue": "team", "priority": "low", "shared_memory": "1Gi",
        "trial_deadline": "2h", "run_deadline": "1d", "accelerator": {"type": "amd.com/gpu", "count": 2},
    }  # fmt: skip
    path.write_text(study(cluster=cluster_section, execution={"device": "cuda"}))
    done = rlhpo(
        "submit", path, "--store", store, *TABLE, "--rounds", "1", "--set", "trial_memory=8G",
        "--set", "pull_secret=registry-key", "--set", "store_secret=ours", "--set", "node_selector={zone: a}",
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    (run,) = backend.runs.values()
    assert run["runtime_config"]["parameters"]["store_secret"] == "ours"
    platform = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    assert platform["pipelineConfig"] == {"activeDeadlineSeconds": 86400}
    steps = executors(run)
    for name, (container, pod) in steps.items():
        trains = name in ("train", "register-best")
        resources = container["resources"]
        assert resources["resourceMemoryLimit"] == ("8G" if trains else "1Gi"), name
        assert resources["resourceCpuRequest"] == ("2" if trains else "250m")
        assert ("accelerator" in resources) == trains
        assert pod["nodeSelector"]["labels"] == ({"zone": "a", "pool": "ml"} if trains else {"zone": "a"})
        assert [one["key"] for one in pod["tolerations"]] == ["spot"]
        assert pod["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
        assert pod["podMetadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low"
        assert [one["secretName"] for one in pod["imagePullSecret"]] == ["registry-key"]
        assert pod.get("activeDeadlineSeconds") == ("7200" if trains else None)
        # 64 MB of it is what a container has otherwise: too little for the workers of a data loader.
        shared = [(one["mountPath"], one["medium"], one["sizeLimit"]) for one in pod.get("emptyDirMounts", ())]
        assert shared == ([("/dev/shm", "Memory", "1Gi")] if trains else [])
    accelerator = steps["train"][0]["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("amd.com/gpu", "2")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("trial_memory", "write NAME=VALUE; the names are trial_cpu, trial_memory"),
        ("trail_memory=8G", "--set trail_memory=8G: write NAME=VALUE"),
        ("trial_memory=much", "cluster.trial_memory"),
        ("trial_cpu=[1]", "cluster.trial_cpu"),
        ("queue=a b", "cluster.queue"),
        ("store_secret=with.dot", "without a dot"),
        ("store_secret=", "small letters, digits and dashes"),
        ("store_secret=rlhpo-mlflow", "a pod cannot mount rlhpo-mlflow twice"),
        ("registry_secret=rlhpo-mlflow", "a pod cannot mount rlhpo-mlflow twice"),
    ],
)
def test_settings_that_pods_could_not_have_are_refused(
    backend: KfpServer, file: Path, setting: str, said: str, store: str
) -> None:
    refused = rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "1", "--set", setting)
    assert said in str(refused.exception)
    assert backend.runs == {}


def test_a_study_file_chooses_no_credentials(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    for name in ("store_secret", "pull_secret", "config_map"):
        path.write_text(study(cluster={name: "theirs"}))
        assert f"cluster.{name}" in str(rlhpo("compile", path, "--rounds", "1").exception)


def test_a_schedule_and_a_supervisor_have_the_same(backend: KfpServer, tmp_path: Path, store: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(study(cluster={"tolerations": [{"key": "spot", "operator": "Exists"}]}))
    options = ["--store", store, *TABLE, "--rounds", "1", "--set", "step_memory=3G", "--set", "pull_secret=ours"]
    assert rlhpo("submit", path, *options, "--supervise").exit_code == 0
    assert rlhpo("schedule", path, *options, "--cron", NIGHTLY).exit_code == 0
    (run,) = backend.runs.values()
    versions = [one["pipeline_spec"] for one in backend.versions.values()]
    supervisor, scheduled = sorted(versions, key=lambda one: len(str(one)))
    assert executors({"pipeline_spec": scheduled}) == executors(run)
    ((container, pod),) = executors({"pipeline_spec": supervisor}).values()
    assert container["resources"]["resourceMemoryLimit"] == "3G"
    assert [one["key"] for one in pod["tolerations"]] == ["spot"]
    assert [one["secretName"] for one in pod["imagePullSecret"]] == ["ours"]
    assert not {"configMapAsEnv", "secretAsEnv", "fieldPathAsEnv"} & pod.keys()


def test_the_recurring_retuning_sends_the_image_of_its_overlay(
    backend: KfpServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's own words, as its shell reads them, twice."""
    place = Path(__file__).parents[2] / "manifests" / "components" / "recurring-retune"
    job = yaml.safe_load((place / "retune.yaml").read_text())
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    image = "registry.example.com/team/rlhpo@sha256:" + "5" * 64
    given = {"RLHPO_IMAGE": image, "RLHPO_STORE": store, "TABLE": "s3://bucket/car.csv", "RLHPO_KFP_NAMESPACE": "team"}
    assert given.keys() == {one["name"] for one in container["env"]}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert container["command"] == ["sh", "-c"]
    words = [os.path.expandvars(word) for word in shlex.split(container["args"][0])]
    assert words[:4] == ["exec", "rlhpo", "submit", "/study/study.yaml"]
    # Another image by default would show that the words name it.
    monkeypatch.delenv("RLHPO_IMAGE")
    for _ in range(2):
        done = rlhpo("submit", place / "study.yaml", *words[4:])
        assert done.exit_code == 0, done.exception
    assert [run["runtime_config"]["parameters"]["image"] for run in backend.runs.values()] == [image] * 2


def test_the_image_of_the_cluster_is_that_of_its_runs(
    backend: KfpServer, file: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """As the recurring retuning has it, from the config map."""
    monkeypatch.setenv("RLHPO_IMAGE", "registry.example.com/rlhpo@sha256:1")
    assert rlhpo("submit", file, "--store", store, *TABLE, "--rounds", "1").exit_code == 0
    (run,) = backend.runs.values()
    assert run["runtime_config"]["parameters"]["image"] == "registry.example.com/rlhpo@sha256:1"


def test_the_first_trials_of_a_study_in_the_defaults_are_rounds_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(study(trials=9, tuner={}))
    assert cluster._rounds_of_run(load_study(path), None, False, Steps.COMPACT) == 6, "five of one, one of four"

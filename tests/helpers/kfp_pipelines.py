"""Small pipelines, and requests with what the tests do not care about filled in."""

# KFP reads the annotations themselves, so they are not put off here.
from pathlib import Path
from typing import Any

from kfp import dsl, kubernetes

from rlhpo_core.kubeflow import client, schedules
from rlhpo_core.kubeflow.client import PipelineVersion, RunInfo
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.schedules import ScheduleInfo

NIGHTLY = "0 30 2 * * *"
#: A program that retunes by KFP's local runner; its arguments are a study file, the model's place, and KFP's folder.
RETUNING = """
import sys
from pathlib import Path
from kfp import local
from pipelines.retune.pipeline import build
from pipelines.tuning import Shape
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.study.spec import load_study

study, store, root = sys.argv[1:]
put_study(store, load_study(Path(study)))
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
build(Shape(1, 2, cluster=None))(store=store)
"""


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def _step(text: str, count: int) -> str:
    return text * count


@dsl.pipeline(name="inner")
def _inner(text: str) -> str:
    return _step(text=text, count=2).output


@dsl.pipeline(name="hello")
def hello(text: str, count: int = 3, options: dict = {}, rate: float = 0.5) -> None:  # noqa: B006
    first = _step(text=text, count=count)
    _inner(text=first.output)


@dsl.pipeline(name="inner-uncached")
def _inner_uncached(text: str) -> None:
    _step(text=text, count=2).set_caching_options(False)


@dsl.pipeline(name="with-secret")
def with_secret(text: str = "hello") -> None:
    _inner_uncached(text=text)
    task = _step(text=text, count=1).set_caching_options(False)
    kubernetes.use_secret_as_env(task, "store", {"key": "AWS_SECRET_ACCESS_KEY"})


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def _look(store: str) -> None:
    print(store)


@dsl.pipeline(name="of-a-store")
def of_a_store(store: str) -> None:
    """It has the store of a study, as ours do."""
    _look(store=store)


def submit(server: Server, package: Path | PipelineVersion, name: str = "one", **options: Any) -> RunInfo:
    given: dict[str, Any] = {"parameters": {"text": "a"}, "experiment": "tuning"} | options
    return client.submit(server, package, name, **given)


def schedule(server: Server, package: Path, name: str = "nightly", **options: Any) -> ScheduleInfo:
    given: dict[str, Any] = {"parameters": {"text": "a"}, "experiment": "tuning", "cron": NIGHTLY} | options
    return schedules.schedule(server, package, "hello", name, **given)


def cached_steps(spec: dict[str, Any]) -> list[bool]:
    """Of each task of the pipeline and of those that it nests: whether it may take its result from the cache."""
    pipeline = spec.get("pipeline_spec", spec)
    dags = [part["dag"] for part in (pipeline["root"], *pipeline["components"].values()) if "dag" in part]
    return [bool(task.get("cachingOptions", {}).get("enableCache")) for dag in dags for task in dag["tasks"].values()]

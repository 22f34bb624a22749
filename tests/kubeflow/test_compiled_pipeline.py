"""A compiled pipeline as data: read, checked, and sent without caching."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.compiled_pipeline import caches, read_package, uncached
from rlhpo_core.kubeflow.connection import Server
from tests.helpers.kfp_pipelines import cached_steps, submit
from tests.helpers.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("no_kfp_settings")


def test_no_step_is_cached_unless_asked_for_not_even_in_a_nested_pipeline(
    backend: KfpServer, server: Server, package: Path
) -> None:
    assert cached_steps(read_package(package)) == [True, True, True]
    submit(server, package, "fresh")
    submit(server, package, "cached", cache=True)
    sent = {run["display_name"]: run["pipeline_spec"] for run in backend.runs.values()}
    assert cached_steps(sent["fresh"]) == [False, False, False]
    assert cached_steps(sent["cached"]) == [True, True, True]
    assert caches(read_package(package))
    assert not caches(uncached(read_package(package)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not a compiled pipeline"),
        ("", "0 documents"),
        ("- 1", "not a compiled pipeline"),
        ("root: {dag: {tusks: {}}}", 'no field named "tusks"'),
        ("pipelineInfo: {name: x}", "it has no root"),
        ("apiVersion: argoproj.io/v1alpha1", "not a compiled pipeline"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused_here(
    backend: KfpServer, server: Server, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    for send in (lambda: submit(server, path), lambda: client.upload(server, path, "p", "v")):
        with pytest.raises(UserError, match=said):
            send()
    assert backend.requests == []


def test_a_missing_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        submit(server, tmp_path / "nonesuch.yaml")

"""A compiled pipeline as data."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from rlhpo_core.errors import UserError

_AGAIN = "compile it again with `kfp dsl compile`, or with python -m pipelines.hpo_loop"


def read_package(path: Path) -> dict[str, Any]:
    """A compiled pipeline as ``{"pipeline_spec": …}``, with ``"platform_spec"`` if it says anything of Kubernetes.

    Raises: UserError if it is not one.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except OSError as error:
        raise UserError(f"cannot read the pipeline {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a compiled pipeline (YAML): {error}; {_AGAIN}") from error
    kinds = {"pipeline_spec": pipeline_spec_pb2.PipelineSpec, "platform_spec": pipeline_spec_pb2.PlatformSpec}
    if not 1 <= len(documents) <= len(kinds):
        raise UserError(f"{path} is not a compiled pipeline: it has {len(documents)} documents; {_AGAIN}")
    package = dict(zip(kinds, documents, strict=False))
    for kind, document in package.items():
        try:
            json_format.ParseDict(document, kinds[kind]())
        except (json_format.ParseError, AttributeError, TypeError) as error:
            raise UserError(f"{path} is not a compiled pipeline: {error}; {_AGAIN}") from error
    if not package["pipeline_spec"].get("root"):
        raise UserError(f"{path} is not a compiled pipeline: it has no root; {_AGAIN}")
    return package


def caches(package: dict[str, Any]) -> bool:
    """Whether any step may take its result from the cache. Loops and nested pipelines are no steps: they have none."""
    components = package.get("pipeline_spec", package).get("components", {})
    return any(
        task.get("cachingOptions", {}).get("enableCache")
        for task in _tasks(package)
        if "dag" not in components.get(task["componentRef"]["name"], {})
    )


def uncached(package: dict[str, Any]) -> dict[str, Any]:
    """A copy in which no step takes its result from the cache.

    The SDK's own switch reaches the outermost pipeline only, not the steps of nested ones.
    """
    package = copy.deepcopy(package)
    for task in _tasks(package):
        task["cachingOptions"] = {}
    return package


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two packages say the same, whatever the order of their keys and however their numbers are written."""
    return digest(one) == digest(other)


def digest(package: dict[str, Any]) -> str:
    """Of a package's content: 64 hexadecimal digits, the same for all that say the same."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    found = hashlib.sha256()
    kinds = (("pipeline_spec", pipeline_spec_pb2.PipelineSpec), ("platform_spec", pipeline_spec_pb2.PlatformSpec))
    for name, kind in kinds:
        part = package.get(name, package if name == "pipeline_spec" else {})
        # By way of the message, in which 1 and 1.0 are one number and what is empty is not there.
        message = json_format.MessageToDict(json_format.ParseDict(part, kind()))
        found.update(json.dumps(message, sort_keys=True).encode())
    return found.hexdigest()


def _tasks(package: dict[str, Any]) -> list[dict[str, Any]]:
    """The tasks of the pipeline and of all that it nests."""
    pipeline = package.get("pipeline_spec", package)
    dags = [component.get("dag", {}) for component in (pipeline["root"], *pipeline.get("components", {}).values())]
    return [task for dag in dags for task in dag.get("tasks", {}).values()]

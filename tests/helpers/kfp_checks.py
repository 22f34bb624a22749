"""What the test server for Kubeflow Pipelines accepts: requests that fit the generated models, runnable pipelines."""

from __future__ import annotations

import base64
import email.parser
import email.policy
import json
import re
from collections.abc import Callable
from typing import Any

import kfp_server_api
from dateutil.parser import isoparse
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

_MAX_PAGE = 200
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
#: A parameter's type in the pipeline's specification, and what JSON must have for it.
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "NUMBER_DOUBLE": ("double or integer", lambda value: type(value) in (int, float)),
    "NUMBER_INTEGER": ("double or integer", lambda value: type(value) in (int, float)),
    "STRING": ("string", lambda value: isinstance(value, str)),
    "BOOLEAN": ("bool", lambda value: isinstance(value, bool)),
    "LIST": ("list", lambda value: isinstance(value, list)),
    "STRUCT": ("struct", lambda value: isinstance(value, dict)),
}
_PLAIN: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "object": lambda value: True,
}


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def parsed(body: bytes, model: str) -> dict[str, Any]:
    """A request's body. Raises: RefusedError if it is not what the generated model describes."""
    try:
        data = json.loads(body, parse_constant=lambda name: refuse(400, f"proto: invalid value {name}"))
    except ValueError as error:
        raise RefusedError(400, f"proto: syntax error: {error}") from error
    check_fits(data, model, model)
    assert isinstance(data, dict)
    return data


def check_fits(value: Any, kind: str, where: str) -> None:
    if value is None:
        return
    if kind in _PLAIN:
        # JSON has int64 as text; the parser of protobuf takes numbers for it, too.
        fits = _PLAIN[kind](value) or (where.endswith("max_concurrency") and isinstance(value, int))
    elif kind == "datetime":
        fits = isinstance(value, str) and isoparse(value) is not None
    elif match := re.fullmatch(r"list\[(.*)\]", kind):
        fits = isinstance(value, list)
        for index, one in enumerate(value if fits else []):
            check_fits(one, match[1], f"{where}[{index}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        fits = isinstance(value, dict)
        for name, one in (value if fits else {}).items():
            check_fits(one, match[1], f"{where}.{name}")
    else:
        model = getattr(kfp_server_api, kind)
        if hasattr(model, "allowable_values"):
            fits = value in model.allowable_values
        else:
            fits = isinstance(value, dict)
            fields = {model.attribute_map[name]: field for name, field in model.openapi_types.items()}
            for name, one in (value if fits else {}).items():
                check_fits(one, fields.get(name) or refuse(400, f'proto: unknown field "{name}"'), f"{where}.{name}")
    if not fits:
        raise RefusedError(400, f"proto: invalid value for {where}: {value!r} is not {kind}")


def pipeline_of(documents: list[Any]) -> dict[str, Any]:
    """As it is kept. Raises: RefusedError if the backend could not make a workflow of it."""
    kinds = (pipeline_spec_pb2.PipelineSpec, pipeline_spec_pb2.PlatformSpec)
    messages = []
    try:
        for document, kind in zip(documents, kinds, strict=False):
            messages.append(json_format.ParseDict(document, kind()))
    except (json_format.ParseError, AttributeError, TypeError) as error:
        raise RefusedError(400, f"invalid v2 pipeline spec: {error}") from error
    if not messages:
        raise RefusedError(400, "no pipeline spec is provided")
    spec = messages[0]
    if spec.schema_version != "2.1.0":
        raise RefusedError(400, f"KFP only supports schema version 2.1.0, not {spec.schema_version!r}")
    if not _NAME.search(spec.pipeline_info.name):
        raise RefusedError(400, "invalid v2 pipeline spec: name should consist of lower case alphanumeric characters")
    if not spec.root.dag.tasks:
        raise RefusedError(400, "invalid v2 pipeline spec: root component is empty")
    executors = json_format.MessageToDict(spec.deployment_spec).get("executors", {})
    for component in (spec.root, *spec.components.values()):
        for task in component.dag.tasks.values():
            if task.component_ref.name not in spec.components:
                raise RefusedError(400, f"Failed to compile job: no component {task.component_ref.name!r}")
        if component.executor_label and component.executor_label not in executors:
            raise RefusedError(400, f"Failed to compile job: no executor {component.executor_label!r}")
    if len(documents) == 1:
        return dict(documents[0])
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def check_parameters(root: dict[str, Any], given: dict[str, Any]) -> None:
    declared = root.get("inputDefinitions", {}).get("parameters", {})
    for name, parameter in declared.items():
        if name not in given:
            if not parameter.get("isOptional") and parameter.get("defaultValue") is None:
                raise RefusedError(
                    400, f"parameter {name} is not optional, yet has neither default value nor user provided value"
                )
            continue
        kind, fits = _TYPES[parameter["parameterType"]]
        if not fits(given[name]):
            raise RefusedError(400, f"input parameter {name} requires type {kind}, but the value is not of it")
    if extra := [name for name in given if name not in declared]:
        raise RefusedError(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")


def page_of(member: str, rows: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """One page, with the token of the next. Raises: RefusedError if a token comes with another order or filter."""
    criteria = [query.get("sort_by", ""), query.get("filter", "")]
    start = 0
    if query.get("page_token"):
        start, *before = json.loads(base64.b64decode(query["page_token"]))
        if before != criteria:
            raise RefusedError(400, "page token does not match the supplied sort by and/or filtering criteria")
    if criteria[1]:
        # Protobuf's JSON: enums as names or numbers, fields in snake or camel case.
        for predicate in json.loads(criteria[1]).get("predicates", []):
            if predicate.get("operation") not in ("EQUALS", 1) or predicate.get("key") != "display_name":
                raise RefusedError(400, f"failed to parse valid filter from {criteria[1]!r}")
            wanted = predicate.get("string_value", predicate.get("stringValue"))
            rows = [row for row in rows if row["display_name"] == wanted]
    column, _, order = (criteria[0] or "created_at").partition(" ")
    if column not in ("created_at", "display_name", "name") or order not in ("", "asc", "desc"):
        raise RefusedError(400, f"Invalid sorting field: {criteria[0]!r}")
    rows = sorted(rows, key=lambda row: str(row[column]), reverse=order == "desc")
    size = min(int(query.get("page_size") or 20), _MAX_PAGE)
    found: dict[str, Any] = {"total_size": len(rows)}
    if page := rows[start : start + size]:
        found[member] = page
    if start + size < len(rows):
        token = json.dumps([start + size, *criteria])
        found["next_page_token"] = base64.b64encode(token.encode()).decode()
    return found


def uploaded(body: bytes, kind: str) -> bytes:
    """What is uploaded as ``uploadfile`` in a multipart form."""
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body
    )
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return bytes(part.get_payload(decode=True))
    raise RefusedError(400, "Failed to read pipeline from file")


def refuse(status: int, message: str) -> Any:
    raise RefusedError(status, message)

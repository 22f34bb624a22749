"""Pipelines as KFP's backend reads them."""

import ast
import tempfile
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from rlhpo_core import __version__

#: In each pipeline's description: a schedule keeps what it was given, whatever is installed since.
COMPILED_BY = f"Compiled by rlhpo {__version__}."


def compiled(pipeline: BaseComponent) -> str:
    """The pipeline's IR (the compiler's intermediate representation) as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_text(encoding="utf-8")


def lean(pipeline: BaseComponent) -> BaseComponent:
    """The pipeline without what is written for people only, which Argo would keep once for each pod of a run.

    Descriptions of the steps' inputs and outputs, and the docstrings in their source, go; who uses a component by
    itself has them. The pipeline's own description and those of its parameters stay.
    """
    spec = pipeline.pipeline_spec
    for component in spec.components.values():
        for definitions in (component.input_definitions, component.output_definitions):
            for described in (*definitions.parameters.values(), *definitions.artifacts.values()):
                described.description = ""
    for executor in spec.deployment_spec["executors"].values():
        command = executor["container"]["command"]
        command[len(command) - 1] = without_docstrings(command[len(command) - 1])
    return pipeline


def without_docstrings(source: str) -> str:
    """Python source without the docstrings of its functions."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            documentation = node.body[0]
            for number in range(documentation.lineno - 1, documentation.end_lineno or documentation.lineno):
                lines[number] = ""
    return "\n".join(line for line in lines if line.strip()) + "\n"

"""Pipelines as KFP's backend reads them."""

import tempfile
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent


def compiled(pipeline: BaseComponent) -> str:
    """The pipeline's IR (the compiler's intermediate representation) as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_text(encoding="utf-8")

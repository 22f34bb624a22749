"""The kept pipeline, compiled from the code: python -m pipelines.retune [--check]"""

from pathlib import Path

from pipelines.compiled import compiled
from pipelines.retune.pipeline import build
from pipelines.tuning import Shape
from pipelines.workflow_size import most_rounds
from rlhpo_core.execution.engines import Steps
from tools import generated


def contents() -> dict[Path, str]:
    """The text of the compiled pipeline, by its path."""
    rounds = most_rounds(5, steps=Steps.COMPACT)
    return {Path(__file__).with_name("retune.yaml"): compiled(build(Shape(rounds, 5, steps=Steps.COMPACT)))}


if __name__ == "__main__":
    generated.main(__doc__ or "", contents)

"""The kept pipeline, compiled from the code: python -m pipelines.hpo_loop [--check]"""

from pathlib import Path

from pipelines.compiled import compiled
from pipelines.hpo_loop.pipeline import build
from pipelines.workflow_size import most_rounds
from tools import generated


def contents() -> dict[Path, str]:
    """The text of the compiled pipeline, by its path."""
    return {Path(__file__).with_name("hpo_loop.yaml"): compiled(build(rounds=most_rounds(5), trials_per_round=5))}


if __name__ == "__main__":
    generated.main(__doc__ or "", contents)

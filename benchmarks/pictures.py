"""The pictures of docs/measurements, from the committed results: python -m benchmarks.pictures

They are kept and not compared: how a library draws text is no property of a result.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import real, retune, sample_efficiency, transfer

FOLDER = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    for script in (sample_efficiency, transfer, retune, real):
        script.pictures(FOLDER)


if __name__ == "__main__":
    main()

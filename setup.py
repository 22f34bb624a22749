"""What pyproject.toml cannot say: the wheel carries the pipelines, their components and the examples, as files."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: Folders that lie beside the package in a checkout, and in it in a wheel (``rlhpo_core.cli.checkout`` finds both).
SHIPPED = ("components", "pipelines", "examples")
ROOT = Path(__file__).resolve().parent


class BuildWithShipped(build_py):
    """Copies the folders into ``rlhpo_core/shipped``; an editable installation has them in its checkout."""

    def run(self) -> None:
        """As setuptools does it, and the folders."""
        super().run()
        if self.editable_mode:
            return
        leave = shutil.ignore_patterns("__pycache__", "*.pyc", "runs")
        for name in SHIPPED:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name,
                    Path(self.build_lib) / "rlhpo_core" / "shipped" / name,
                    ignore=leave,
                    dirs_exist_ok=True,
                )


setup(cmdclass={"build_py": BuildWithShipped})

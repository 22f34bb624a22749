"""What holds for every file, and what ruff has no rule for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.packages import FULL

ROOT = Path(__file__).parent.parent
CORE = ROOT / "rlhpo_core"
SOURCES = [
    path
    for folder in ("benchmarks", "components", "pipelines", "rlhpo_core", "tests", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
#: Decorators of methods that nobody calls by name, or that an implementation documents.
_NOT_CALLED = re.compile(r"field_validator|model_validator|field_serializer|model_serializer|overload|\.setter")


def without_docstring(tree: ast.Module, name: str) -> Iterator[str]:
    """The public definitions of a module, itself included, that have no docstring."""
    if not ast.get_docstring(tree):
        yield name
    yield from _undocumented(tree, name)


def _undocumented(node: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, Definition) and _is_public(child):
            if not ast.get_docstring(child):
                yield f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, f"{name}.{child.name}")


def _is_public(node: Definition) -> bool:
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    return not node.name.startswith("_") and not _NOT_CALLED.search(decorators)


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Dotted names of the modules that are, or may be, imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", sorted({path.relative_to(CORE).parts[0] for path in CORE.rglob("*.py")}))
def test_everything_public_has_a_docstring(package: str) -> None:
    path = CORE / package
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    missing = [name for file in files for name in without_docstring(ast.parse(file.read_text()), names[file])]
    assert not missing, "without a docstring:\n" + "\n".join(missing)


def test_a_missing_docstring_is_noticed() -> None:
    module = '''
from typing import overload
class Public:
    """Yes."""
    def method(self): ...
    @property
    def shown(self): ...
    @field_validator("x")
    def checks(cls): ...
    @overload
    def stub(self): ...
    def _own(self): ...
    def __len__(self): ...
class _Private:
    def method(self): ...
def function():
    """Yes."""
    def inner(): ...
async def task(): ...
'''
    assert list(without_docstring(ast.parse(module), "m")) == ["m", "m.Public.method", "m.Public.shown", "m.task"]


def test_no_folder_holds_more_modules_than_one_can_look_over() -> None:
    sizes = {
        str(folder.relative_to(ROOT)): len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        for folder in {path.parent for path in CORE.rglob("*.py")}
    }
    assert {folder: size for folder, size in sizes.items() if size > FULL} == {}


def test_no_test_module_imports_from_another() -> None:
    borrowed = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in SOURCES
        for name in imported_modules(ast.parse(path.read_text()))
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ]
    assert not borrowed, "what tests share belongs into tests/helpers:\n" + "\n".join(borrowed)


def test_imports_stand_in_order_everywhere() -> None:
    unordered = [str(path.relative_to(ROOT)) for path in SOURCES if re.search(r"# isort: ?skip", path.read_text())]
    assert not unordered

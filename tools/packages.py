"""The packages of rlhpo_core, their layers and sizes: ``python -m tools.packages``.

Layers come from import-linter's contract in pyproject.toml, imports from grimp, its library. The exit status is 1 if a
package imports upwards, packages or modules import each other in a circle, a folder is too full, or a package has no
layer. ``--write`` puts the picture of the layers into CONTRIBUTING.md, ``--check`` says whether it is there already.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BEGIN = "<!-- begin: written by python -m tools.packages --write -->"
END = "<!-- end -->"
#: Modules in one folder, besides its ``__init__``.
FULL = 14

_NO_CODE = {
    tokenize.COMMENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER, tokenize.INDENT, tokenize.NEWLINE,
    tokenize.NL,
}  # fmt: skip

Layers = Sequence[Sequence[str]]
"""Names of the packages, and of modules beside them, of each layer; the uppermost first."""


@dataclass(frozen=True)
class Package:
    """A package of a root package, or a module that stands beside its packages."""

    name: str
    modules: int
    """Files, ``__init__`` included."""
    lines: int
    code: int
    """Lines without blank ones, comments and docstrings."""
    imports: tuple[str, ...]
    """The other packages that it imports from."""


# -- what there is ---------------------------------------------------------------------------------------------------


def contract(pyproject: str, root: str) -> Layers:
    """The layers of a root package, by the text of pyproject.toml. Raises: KeyError if it has none."""
    for entry in tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]:
        if entry["type"] == "layers" and entry["containers"] == [root]:
            return [re.split(r"\s*\|\s*", layer) for layer in entry["layers"]]
    raise KeyError(f"no contract of layers for {root}")


def packages(graph: grimp.ImportGraph, folder: Path) -> list[Package]:
    """Everything directly below the root package in ``folder``, by name."""
    root, imports = folder.name, sorted(set(_imports(graph, folder.name)))
    described = []
    for name in sorted(child.removeprefix(f"{root}.") for child in graph.find_children(root)):
        files = sorted((folder / name).rglob("*.py")) or [folder / f"{name}.py"]
        texts = [file.read_text() for file in files]
        described.append(
            Package(
                name,
                modules=len(files),
                lines=sum(len(text.splitlines()) for text in texts),
                code=sum(code_lines(text) for text in texts),
                imports=tuple(sorted({below for above, below, *_ in imports if above == name})),
            )
        )
    return described


def code_lines(text: str) -> int:
    """Lines of a module that hold code: no blank lines, comments or strings that only document."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def _imports(graph: grimp.ImportGraph, ancestor: str) -> Iterator[tuple[str, str, str, str]]:
    """Imports between different children of a package: both children's names, importing and imported module."""
    below = graph.find_descendants(ancestor)
    for importer in below:
        for imported in graph.find_modules_directly_imported_by(importer) & below:
            children = [module.removeprefix(f"{ancestor}.").split(".")[0] for module in (importer, imported)]
            if children[0] != children[1]:
                yield children[0], children[1], importer, imported


# -- what is wrong with it -------------------------------------------------------------------------------------------


def faults(graph: grimp.ImportGraph, root: str, layers: Layers) -> list[str]:
    """What breaks the rules, a line each; empty if all is well."""
    return [*_unplaced(graph, root, layers), *_upward(graph, root, layers), *_circles(graph), *_too_full(graph)]


def folders(graph: grimp.ImportGraph) -> dict[str, int]:
    """Number of modules directly in each package, besides its ``__init__`` and packages in it."""
    children = {module: graph.find_children(module) for module in graph.modules}
    return {
        package: sum(not children[module] for module in modules) for package, modules in children.items() if modules
    }


def _unplaced(graph: grimp.ImportGraph, root: str, layers: Layers) -> list[str]:
    placed = {name for layer in layers for name in layer}
    there = {child.removeprefix(f"{root}.") for child in graph.find_children(root)}
    return [
        *(f"{root}.{name} has no layer in pyproject.toml" for name in sorted(there - placed)),
        *(f"{root}.{name} has a layer in pyproject.toml, but is not there" for name in sorted(placed - there)),
    ]


def _upward(graph: grimp.ImportGraph, root: str, layers: Layers) -> list[str]:
    depth = {name: number for number, layer in enumerate(layers) for name in layer}
    return [
        f"{importer} imports {imported}: {below} is {'beside' if depth[above] == depth[below] else 'above'} {above}"
        for above, below, importer, imported in sorted(_imports(graph, root))
        if above in depth and below in depth and depth[below] <= depth[above]
    ]


def _circles(graph: grimp.ImportGraph) -> list[str]:
    lines = []
    for package in sorted(folders(graph)):
        imports: dict[str, set[str]] = {}
        for above, below, *_ in _imports(graph, package):
            imports.setdefault(above, set()).add(below)
        try:
            TopologicalSorter(imports).prepare()
        except CycleError as error:
            # It lists each after what imports it.
            lines.append(f"a circle in {package}: " + " imports ".join(reversed(error.args[1])))
    return lines


def _too_full(graph: grimp.ImportGraph) -> list[str]:
    return [
        f"{package} holds {count} modules; split it: at most {FULL}"
        for package, count in sorted(folders(graph).items())
        if count > FULL
    ]


# -- how it is shown -------------------------------------------------------------------------------------------------


def tree(described: Sequence[Package], layers: Layers) -> str:
    """A line for each package, the uppermost layer first, and their sum."""
    known = {package.name: package for package in described}
    lines = [f"{'layer':>5}  {'package':14}{'modules':>7}{'lines':>8}{'code':>8}  imports"]
    for height, layer in _from_the_top(layers):
        for name in layer:
            if name in known:
                package, number = known[name], height if name == layer[0] else ""
                lines.append(
                    f"{number:>5}  {name:14}{package.modules:>7}{package.lines:>8}{package.code:>8}  "
                    + (", ".join(package.imports) or "-")
                )
    modules, total, code = (sum(getattr(p, field) for p in described) for field in ("modules", "lines", "code"))
    return "\n".join([*lines, f"{'':5}  {'together':14}{modules:>7}{total:>8}{code:>8}"])


def picture(folder: Path, layers: Layers) -> str:
    """The layers with the first line of each package's docstring, as a block of Markdown."""
    width = max(len(name) for layer in layers for name in layer)
    lines = []
    for height, layer in _from_the_top(layers):
        for name in layer:
            number = height if name == layer[0] else ""
            lines.append(f"{number:>2}  {name:{width}}  {_purpose(folder, name)}")
    return "\n".join(["```", *lines, "```"])


def _from_the_top(layers: Layers) -> Iterator[tuple[int, Sequence[str]]]:
    """Layers are numbered from the lowest, 1."""
    return zip(range(len(layers), 0, -1), layers, strict=True)


def _purpose(folder: Path, name: str) -> str:
    package = folder / name / "__init__.py"
    text = (package if package.exists() else folder / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].replace("``", "`")


def with_block(page: str, block: str) -> str:
    """The page with the block between its markers. Raises: ValueError if it has no markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no block between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tree, or write or check the picture; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.packages", description=__doc__.partition("\n")[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help="put the picture of the layers into CONTRIBUTING.md")
    choice.add_argument("--check", action="store_true", help="say whether the picture in CONTRIBUTING.md is up to date")
    options = parser.parse_args(arguments)
    folder = ROOT / "rlhpo_core"
    layers = contract((ROOT / "pyproject.toml").read_text(), folder.name)
    if options.write or options.check:
        page = CONTRIBUTING.read_text()
        current = with_block(page, picture(folder, layers))
        if options.write:
            CONTRIBUTING.write_text(current)
        elif page != current:
            print("CONTRIBUTING.md shows other layers than pyproject.toml: python -m tools.packages --write")
            return 1
        return 0
    graph = grimp.build_graph(folder.name, cache_dir=None)
    print(tree(packages(graph, folder), layers))
    wrong = faults(graph, folder.name, layers)
    sizes = folders(graph)
    fullest = max(sizes, key=lambda package: sizes[package])
    print(f"\nFullest folder: {fullest} with {sizes[fullest]} modules (at most {FULL}).")
    print("\n".join(wrong) or "No upward import, no circle.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

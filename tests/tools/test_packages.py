from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path

import grimp
import pytest

from tools import packages

ROOT = Path(__file__).parent.parent.parent

CONTRACT = """
[tool.importlinter]
root_package = "shop"

[[tool.importlinter.contracts]]
name = "order"
type = "layers"
containers = ["shop"]
exhaustive = true
layers = ["counter", "stock | prices", "money"]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in good order: counter above stock and prices, and money, a module, below."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "shop"
    write(folder, "__init__", "")
    write(folder, "counter/__init__", '"""Where people pay.\n\nAnd more."""')
    write(folder, "counter/till", "from shop.prices import listed\nfrom shop.stock import shelf\n")
    write(folder, "stock/__init__", '"""What there is, by ``shelf``."""')
    write(folder, "stock/shelf", "import shop.money\n")
    write(folder, "stock/box", "from shop.stock.shelf import x\n")
    write(folder, "prices/__init__", '"""What it costs."""')
    write(folder, "prices/listed", "from shop import money\n")
    write(folder, "money", '"""Sums of money."""\n')
    return folder


def write(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def faults(folder: Path, contract: str = CONTRACT) -> list[str]:
    graph = grimp.build_graph("shop", cache_dir=None)
    return packages.faults(graph, "shop", packages.contract(contract, "shop"))


def test_good_order_has_no_faults(shop: Path) -> None:
    assert faults(shop) == []


def test_an_import_upwards_is_named(shop: Path) -> None:
    write(shop, "money", "def pay():\n    from shop.counter import till\n")
    assert "shop.money imports shop.counter.till: counter is above money" in faults(shop)


def test_packages_of_one_layer_do_not_import_each_other(shop: Path) -> None:
    write(shop, "prices/listed", "from shop.stock import shelf\n")
    assert faults(shop) == ["shop.prices.listed imports shop.stock.shelf: stock is beside prices"]


def test_a_circle_of_modules_is_named(shop: Path) -> None:
    write(shop, "stock/shelf", "from shop.stock import box\n")
    (line,) = faults(shop)
    assert line in {
        "a circle in shop.stock: box imports shelf imports box",
        "a circle in shop.stock: shelf imports box imports shelf",
    }


def test_a_circle_is_told_in_the_direction_of_its_imports(shop: Path) -> None:
    imports = {"a": "b", "b": "c", "c": "a"}
    for module, imported in imports.items():
        write(shop, f"stock/{module}", f"from shop.stock import {imported}\n")
    (line,) = faults(shop)
    names = line.removeprefix("a circle in shop.stock: ").split(" imports ")
    assert len(names) == 4
    assert all(imports[above] == below for above, below in pairwise(names))


def test_a_folder_that_is_too_full_is_named(shop: Path) -> None:
    for number in range(packages.FULL - 2):
        write(shop, f"stock/m{number}", "")
    assert faults(shop) == []
    write(shop, "stock/one_more", "")
    assert faults(shop) == [f"shop.stock holds {packages.FULL + 1} modules; split it: at most {packages.FULL}"]


def test_every_package_has_a_layer_and_every_layer_its_packages(shop: Path) -> None:
    contract = CONTRACT.replace(', "money"]', ', "coins"]')
    assert faults(shop, contract) == [
        "shop.money has no layer in pyproject.toml",
        "shop.coins has a layer in pyproject.toml, but is not there",
    ]


def test_a_package_that_the_contracts_do_not_know() -> None:
    with pytest.raises(KeyError, match="no contract of layers for market"):
        packages.contract(CONTRACT, "market")


def test_the_tree_counts_and_says_who_imports_whom(shop: Path) -> None:
    graph, layers = grimp.build_graph("shop", cache_dir=None), packages.contract(CONTRACT, "shop")
    described = packages.packages(graph, shop)
    counter = next(package for package in described if package.name == "counter")
    assert counter == packages.Package("counter", modules=2, lines=5, code=2, imports=("prices", "stock"))
    rows = [line.split() for line in packages.tree(described, layers).splitlines()]
    assert [row[:2] for row in rows[1:5]] == [["3", "counter"], ["2", "stock"], ["prices", "2"], ["1", "money"]]
    assert rows[-1][:2] == ["together", "8"]


def test_lines_of_code_are_those_that_do_something() -> None:
    text = '''
    """Module."""

    import os  # a comment

    # Another comment.
    LIMIT = 3
    """How many."""


    def text() -> str:
        """Docstring
        of two lines."""
        return """of
        two"""
    '''
    assert packages.code_lines(textwrap.dedent(text)) == 5


def test_the_picture_shows_each_layer_with_the_purpose_of_its_packages(shop: Path) -> None:
    assert packages.picture(shop, packages.contract(CONTRACT, "shop")).splitlines() == [
        "```text",
        " 3  counter  Where people pay.",
        " 2  stock    What there is, by `shelf`.",
        "    prices   What it costs.",
        " 1  money    Sums of money.",
        "```",
    ]


def test_a_block_takes_the_place_of_the_old_one() -> None:
    page = f"above\n{packages.BEGIN}\nold\n{packages.END}\nbelow\n"
    assert packages.with_block(page, "new") == f"above\n{packages.BEGIN}\nnew\n{packages.END}\nbelow\n"
    with pytest.raises(ValueError, match="no block"):
        packages.with_block("above\nbelow\n", "new")


def test_the_tree_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert packages.main([]) == 0, capsys.readouterr().out

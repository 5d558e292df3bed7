"""The house: which room may import which, and that a room is entered by its one door, its package.

A room is a package, or a module that stands for itself (`verification.files`, `verification.testing`). ALLOWED says
what each knows of, floor by floor; a room may import those that it names and nothing else. Between rooms an import
names the package, never a module within it, so that what a room offers is what its __init__.pyi lists.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("theory", "integrators", "verification", "reports")

_BELOW = "theory integrators verification.verdicts verification.targets"
ALLOWED = {
    "theory": "",
    "integrators.kernels": "",
    "integrators": "theory integrators.kernels",
    "integrators.unmodified": "theory integrators",
    "verification": "",
    "verification.data": "",
    "verification.files": "",
    "verification.verdicts": "theory",
    "verification.time_limit": "verification.verdicts",
    "verification.targets": "theory integrators integrators.kernels verification.verdicts verification.data",
    "verification.exact": f"{_BELOW} integrators.kernels verification.data verification.time_limit",
    "verification.sampled": f"{_BELOW} verification.exact verification.files",
    "verification.blackbox": f"{_BELOW} verification.exact verification.files",
    "verification.unmodified": f"{_BELOW} integrators.unmodified verification.exact verification.blackbox "
    "verification.time_limit",
    "verification.stability": f"{_BELOW} integrators.kernels verification.exact verification.blackbox",
    "verification.advice": f"{_BELOW} verification.files verification.exact verification.stability "
    "verification.cifar10.model verification.cifar10.study",
    "verification.cifar10": "",
    "verification.cifar10.model": "theory verification.targets verification.files",
    "verification.cifar10.study": f"{_BELOW} verification.exact verification.sampled verification.cifar10.model "
    "verification.data verification.files",
    "verification.testing": "theory integrators integrators.unmodified verification.verdicts verification.exact "
    "verification.blackbox verification.unmodified verification.time_limit",
    "reports.figures": "theory integrators",
    "reports.pages": f"{_BELOW} verification.files verification.exact verification.sampled verification.blackbox "
    "verification.stability verification.cifar10.model verification.cifar10.study verification.unmodified "
    "verification.advice reports.figures",
    "reports.commands": "theory integrators integrators.kernels verification.files verification.time_limit "
    "verification.targets verification.exact verification.advice verification.sampled verification.blackbox "
    "verification.cifar10.model verification.cifar10.study verification.unmodified integrators.unmodified "
    "reports.pages",
    "reports": "verification.testing",
}
# Shelves of modules, each entered by itself.
OPEN = ("theory", "integrators")


class Import(NamedTuple):
    """A name that a module takes from another room: where it is imported, its room, the module it is taken from."""

    importer: str
    room: str
    module: str
    name: str


def room_of(dotted: str) -> str:
    """The innermost room that a module or name stands in."""
    parts = dotted.split(".")
    return next(name for k in range(len(parts), 0, -1) if (name := ".".join(parts[:k])) in ALLOWED)


def imports_of(dotted: str, text: str, is_package: bool = False) -> Iterator[Import]:
    """What a module of this project imports from other rooms."""
    package = dotted.split(".") if is_package else dotted.split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("weakorder") for alias in node.names), f"{dotted}: import it by from"
        if not isinstance(node, ast.ImportFrom) or (node.level == 0 and not str(node.module).startswith("weakorder")):
            continue
        named = node.module.split(".") if node.module else []
        module = ".".join([*package[: len(package) + 1 - node.level], *named] if node.level else named[1:])
        for alias in node.names:
            whole = f"{module}.{alias.name}"
            room = room_of(whole if whole in ALLOWED else module)
            if room != room_of(dotted):
                yield Import(dotted, room, whole if whole in ALLOWED else module, alias.name)


@functools.cache
def all_imports() -> tuple[Import, ...]:
    """Those of the whole package; scripts that make data files are run by hand, and import as they like."""
    found: list[Import] = []
    for path in (path for top in TOPS for path in (ROOT / top).rglob("*.py")):
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if not path.name.startswith("make_"):
            found += imports_of(dotted.removesuffix(".__init__"), path.read_text(), path.name == "__init__.py")
    return tuple(found)


def test_the_table_has_no_circle() -> None:
    """Rooms can be listed so that each names only those before it."""
    left = {room: set(names.split()) for room, names in ALLOWED.items()}
    while left:
        free = [room for room, names in left.items() if not names & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


def test_every_room_imports_what_the_table_allows_and_nothing_else() -> None:
    assert [found for found in all_imports() if found.room not in ALLOWED[room_of(found.importer)].split()] == []


def test_the_table_allows_nothing_that_is_not_used() -> None:
    used = {(room_of(found.importer), found.room) for found in all_imports()}
    assert {(room, name) for room, names in ALLOWED.items() for name in names.split()} - used == set()


def test_a_room_is_entered_by_its_package() -> None:
    assert [found for found in all_imports() if found.room not in OPEN and found.module != found.room] == []


def test_the_reader_of_imports_sees_every_kind() -> None:
    text = (
        "from ..sampled import x\nfrom ..sampled.distances import y\nfrom .. import data\nfrom . import order\n"
        "def f():\n    from ...reports.pages import z\n    from weakorder.verification.exact import order\n"
        "    from weakorder.verification.stability import growth\n"
    )
    assert {tuple(found)[1:] for found in imports_of("verification.exact.moments", text)} == {
        ("verification.sampled", "verification.sampled", "x"),
        ("verification.sampled", "verification.sampled.distances", "y"),
        ("verification.data", "verification.data", "data"),
        ("reports.pages", "reports.pages", "z"),
        ("verification.stability", "verification.stability", "growth"),
    }
    with pytest.raises(AssertionError, match="by from"):
        list(imports_of("theory.model", "import weakorder.reports"))


STUBS = sorted(stub for top in TOPS for stub in (ROOT / top).rglob("__init__.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.parent.name)
def test_what_a_room_offers_exists(stub: Path) -> None:
    room = import_module("weakorder." + ".".join(stub.parent.relative_to(ROOT).parts))
    for node in ast.parse(stub.read_text()).body:
        assert isinstance(node, ast.ImportFrom)
        assert all(getattr(room, alias.name) is not None for alias in node.names)

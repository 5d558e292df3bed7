"""The pages of the Python API, written before each build into reference/api/: one of each room, and of each module of
the rooms that are shelves.

A room offers what its __init__.pyi lists (lazily imported, so that Python itself does not say), `theory` and
`integrators` their modules. A constant's page says what the comment above it says.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType

from docstrings import plain
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
SHELVES = ("theory", "integrators")
ROOMS = (
    "integrators.kernels",
    "integrators.unmodified",
    "verification.verdicts",
    "verification.targets",
    "verification.exact",
    "verification.sampled",
    "verification.blackbox",
    "verification.unmodified",
    "verification.stability",
    "verification.advice",
    "verification.cifar10.model",
    "verification.cifar10.study",
    "reports.figures",
    "reports.pages",
)
ALONE = ("verification.testing", "verification.files", "verification.time_limit", "reports.pytest_plugin")


def offered(room: str) -> list[tuple[str, str]]:
    """What a room's __init__.pyi lists: (module, name), in its order."""
    stub = ROOT.joinpath(*room.split("."), "__init__.pyi")
    nodes = (node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom))
    return [(f"weakorder.{room}.{node.module}", alias.name) for node in nodes for alias in node.names]


def comment_above(module: ModuleType, name: str) -> str:
    """The comment on the lines above a constant, or behind it; "" if there is none."""
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            first = node.lineno - 1
            while first > 0 and lines[first - 1].startswith("#"):
                first -= 1
            above = [line.lstrip("# ") for line in lines[first : node.lineno - 1]]
            behind = lines[node.end_lineno - 1][node.end_col_offset :].strip() if not above else ""
            return " ".join([*above, behind.lstrip("# ")]).strip()
    return ""


def _heading(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _shelf_page(name: str) -> str:
    return f"{_heading(name)}.. automodule:: weakorder.{name}\n   :members:\n   :ignore-module-all:\n"


def _entry(room: str, source: str, name: str) -> str:
    """The directive of what a room offers under a name."""
    module = import_module(source)
    value = getattr(module, name)
    if inspect.isclass(value):
        return f".. autoclass:: weakorder.{room}.{name}\n   :members:\n\n"
    if inspect.isroutine(value):
        return f".. autofunction:: weakorder.{room}.{name}\n\n"
    said = plain(comment_above(module, name))
    return f".. py:data:: weakorder.{room}.{name}\n\n   {said}\n\n"


def _room_page(room: str) -> str:
    entries = "".join(_entry(room, source, name) for source, name in offered(room))
    return f"{_heading(room)}.. automodule:: weakorder.{room}\n\n{entries}"


def _modules_of(shelf: str) -> list[str]:
    paths = sorted((ROOT / shelf).glob("*.py"))
    return [f"{shelf}.{path.stem}" for path in paths if not path.stem.startswith(("_", "make_"))]


def write_pages(app: Sphinx) -> None:
    """Write the pages that are missing or stale, and drop those of what is gone."""
    folder = Path(app.srcdir) / "reference" / "api"
    folder.mkdir(parents=True, exist_ok=True)
    shelved = [module for shelf in SHELVES for module in _modules_of(shelf)]
    pages = {name: _shelf_page(name) for name in (*shelved, *ALONE)} | {room: _room_page(room) for room in ROOMS}
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before they are looked for."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""This project's docstrings and help texts are plain text: here they become reStructuredText that reads the same.

A paragraph stays one; what is indented, or set in columns, keeps its lines; `code` is code; nothing else is markup.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx

_COLUMNS = re.compile(r"\S {2,}\S")


def plain(text: str) -> str:
    """Words with `code` among them, as reStructuredText."""
    if text.count("`") % 2:
        return _escaped(text)
    parts = re.split(r"`+([^`]+)`+", text)
    for i in range(1, len(parts), 2):  # code is set off from what it touches, which markup asks for
        before = r"\ " if re.search(r"\w$", parts[i - 1]) else ""
        behind = r"\ " if re.match(r"[\w\[({]", parts[i + 1]) else ""
        parts[i] = f"{before}``{parts[i].strip()}``{behind}"
    return "".join(part if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _escaped(text: str) -> str:
    """Bold words stay bold."""
    parts = re.split(r"((?<!\S)\*\*(?=\S)[^*]+(?<=\S)\*\*(?!\w))", text)
    return "".join(part if i % 2 else _literal(part) for i, part in enumerate(parts))


def _literal(text: str) -> str:
    return re.sub(r"(?<=\w)_(?!\w)", r"\_", re.sub(r"([\\*|`])", r"\\\1", text))


def _paragraph(lines: list[str]) -> list[str]:
    if lines[0].startswith("- "):
        return plain("\n".join(lines)).split("\n")
    kept = next((i for i, line in enumerate(lines) if line.startswith(" ") or _COLUMNS.search(line)), len(lines))
    words = plain("\n".join(lines[:kept])).split("\n") if kept else []
    if kept == len(lines):
        return words
    return [*words, "", "::", "", *(f"    {line}" for line in lines[kept:])]


def restructured(lines: list[str]) -> list[str]:
    """A docstring's lines, dedented, as reStructuredText's."""
    found: list[str] = []
    for blank, block in groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            found += [*_paragraph(list(block)), ""]
    return found


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured(lines)


def _help(app: Sphinx, context: Any, lines: list[str]) -> None:
    lines[:] = [line if line.lstrip().startswith(("..", ":")) else _escaped(line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Hear of every docstring and help text."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx_click")
    app.connect("autodoc-process-docstring", _docstring)
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", _help)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

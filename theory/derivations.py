"""What ships with the package: the built-in declarations and everything derived from them, in one text file.

The first line of data/derivations.jsonl declares the built-in diffusions and splittings in text, and names the version
of the sources (theory.declarations and what it is written in) that it was made from. Every other line is one answer,
under the digest of its question: the flow of a part, the map or the order of a word (theory.cache). Questions hold
declarations, not names, so that a question about other parts, or about a changed declaration, has another digest and is
never answered from here. `python -m weakorder.integrators.make_derivations` writes the file; a test derives its entries
again and names those that are stale.
"""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "data" / "derivations.jsonl"
_SOURCES = ("parameters.py", "symbols.py", "declarations.py")
_PREFIX, _DIGITS = '{"key": "', 32


def digest(question: Iterable[Any]) -> str:
    """The name of a question: that of its JSON."""
    return hashlib.sha256(json.dumps(list(question)).encode()).hexdigest()[:_DIGITS]


def version() -> str | None:
    """The version of the declarations' sources, comments and layout aside; None where they are not at hand."""
    try:
        sources = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in _SOURCES]
    except OSError:
        return None
    return hashlib.sha256("\n".join(map(_bare, sources)).encode()).hexdigest()


def _bare(source: str) -> str:
    """Python text without comments, docstrings and white space."""
    kept, before = [], tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL):
            continue
        if not (token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT)):
            kept.append(token.string)
        before = token.type
    return "".join("".join(kept).split())


@cache
def _lines() -> tuple[str, dict[str, str]]:
    """The first line, and the others by their digest; empty where there is no file yet."""
    try:
        first, *rest = FILE.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "{}", {}
    start = len(_PREFIX)
    return first, {line[start : start + _DIGITS]: line for line in rest}


@cache
def declared() -> dict[str, Any]:
    """The built-in diffusions and splittings in text, as theory.declarations describes them; from the file, or, where
    its sources have changed since, by sympy."""
    shipped = json.loads(_lines()[0])
    if shipped and version() in (None, shipped["version"]):
        return shipped["declared"]
    from .declarations import describe

    return describe()


def known(question: Iterable[Any]) -> Any:
    """The answer that ships with the package, or None."""
    found = entry(digest(question))
    return None if found is None else found["answer"]


def entry(key: str) -> dict[str, Any] | None:
    """The line under a digest: its key, what it is an answer to, in words, and the answer; None if there is none."""
    line = _lines()[1].get(key)
    return None if line is None else json.loads(line)


def keys() -> set[str]:
    """The digests of everything that ships."""
    return set(_lines()[1])

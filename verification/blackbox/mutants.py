"""The library of mutants: samplers as people break them, read from the patches in `data/mutants.md`.

The file says what was broken and where, as a patch; here are what its clues mean, and its reader. A clue names what the
checks must point at: an entry of the drift, the score's gain or the noise, the score's time, the number of evaluations,
the order, or the reason of a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .mutation import MODELS, Mutant

LIBRARY = Path(__file__).parents[1] / "data" / "mutants.md"

# What the checks say, as regular expressions. An entry is named as in "drift xm", of x by m, "gain xm", of x from the
# score's s_m, and "noise xm", the covariance of the noise of x and m.
_ENTRIES = {
    "drift": "(drift|propagator) of {} (by|from) {}",
    "gain": r"gain( \d+)? of {} from s_{}",
    "noise": "noise covariance of {} and {}",
}
CLUES = {f"{name} {i}{j}": pattern.format(i, j) for name, pattern in _ENTRIES.items() for i in "xm" for j in "xm"} | {
    "time": r"the score's time|score \d+ is conditioned at",
    "consistent": "the limit h -> 0 stays",
    "nfe": "^NFE: ",
    "order": "order .* expected",
    "law": "the law moves|wrong law|is now",
    "not affine": "not an affine map",
    "batch": "several entries share|mixes the entries of a batch",
    "float32": "float32",
    "draws": "draws .* times",
}

_SECTION = re.compile(r"^## (?P<base>\w+)\n\n```diff\n(?P<patches>.*?)^```$", re.MULTILINE | re.DOTALL)


class LibraryError(ValueError):
    """A library that cannot be read; the message shows the line."""


def read_library(text: str) -> tuple[Mutant, ...]:
    """The mutants of a library in the format of `data/mutants.md`. Raises LibraryError."""
    return tuple(
        _mutant(section["base"], patch)
        for section in _SECTION.finditer(text)
        for patch in re.split(r"^(?=@@ (?!and$))", section["patches"], flags=re.MULTILINE)
        if patch.strip()
    )


def _mutant(base: str, patch: str) -> Mutant:
    header, *lines = patch.rstrip("\n").split("\n")
    fields = header.removeprefix("@@ ").split(" | ", 2)
    if len(fields) != 3:
        raise LibraryError(f"{header!r} is not of the form '@@ name | what was broken | clue'")
    name, fault, clue = fields
    constant = clue.endswith(", constant")
    clue = clue.removesuffix(", constant")
    equivalent = clue == "equivalent"
    return Mutant(
        name=f"{base}: {name}",
        base=base,
        edits=tuple(_edits(lines)),
        fault=fault,
        clue="" if equivalent else CLUES.get(clue, clue),
        models=("constant",) if constant else tuple(MODELS),
        equivalent=equivalent,
    )


def _edits(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(old, new) of each place that a patch changes, as whole lines."""
    old, new = "", ""
    for line in [*lines, "@@ and"]:
        mark, content = line[:2], line[2:] + "\n"
        if line == "@@ and":
            yield old, new
            old, new = "", ""
        elif mark not in ("- ", "+ ", "  "):
            raise LibraryError(f"the patch line {line!r} begins with neither '- ' nor '+ ' nor two spaces")
        else:
            old += content if mark != "+ " else ""
            new += content if mark != "- " else ""


MUTANTS = read_library(LIBRARY.read_text(encoding="utf-8"))

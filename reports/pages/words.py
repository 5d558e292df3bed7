"""Which word each sampler of a library is: `python -m weakorder.reports.pages.words docs/gallery/words.md` writes the
table between two marks (`make words`), and a test fails when the committed one is stale.

A sampler stands as it ships on its own grid, and on Karras' where it has that; with settings that choose another
method on its own grid. What is said of it is `weakorder identify`'s answer, without digits.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...integrators.blackbox import BlackBoxError
from ...verification.blackbox import Likeness
from ...verification.unmodified import SURVEYS, Configuration, identify
from .orders import with_table

_IN_STEPS, _OLDER = re.compile(r" in (all steps|steps? [0-9, to]+)$"), re.compile("the weight of the answer .*")
_SIZE = re.compile(r" \(to [^)]*\)")
_LEVELS = "sigma / alpha that the network is told"
BEGIN, END = "<!-- words: begin -->", "<!-- words: end -->"


class Row(NamedTuple):
    """A sampler of a library on one of its grids."""

    name: str
    grid: str
    configuration: Configuration


def rows_of(configuration: Configuration) -> list[Row]:
    """Its rows: as it ships its own grid and Karras', else the first of them."""
    grids = [grid for grid in configuration.grids() if grid in ("default", "karras")]
    said = " ".join([configuration.name, *(f"{key}={value}" for key, value in configuration.settings)])
    return [Row(said, grid, configuration) for grid in (grids[:1] if configuration.settings else grids)]


def which(row: Row) -> str:
    """The word that it is, or why it is none, in Markdown."""
    try:
        found = identify(row.configuration.grids()[row.grid])
    except (BlackBoxError, ValueError) as error:
        return f"none: {str(error).partition(':')[0]}"
    same = [likeness for likeness in found if likeness.is_same]
    if same:
        return f"**{_called(same)}**"
    nearest = found[0]
    if nearest.scheme.name == nearest.scheme.word and _IN_STEPS.search(nearest.differs[0]):
        return "none: no word with a name is nearest"  # of others several may be as near, and rounding decides
    differs = _differs(nearest)
    return (
        f"none: {differs}" if differs.startswith("it is ") else f"none: nearest is {_called([nearest])}, but {differs}"
    )


def _called(same: Iterable[Likeness]) -> str:
    """The names that it has in the catalogue, or else what it is."""
    schemes = [likeness.scheme for likeness in same]
    names = [scheme.name for scheme in schemes if scheme.name != scheme.word]
    return ", ".join(names) if names else str(next(iter(same)))


def _differs(nearest: Likeness) -> str:
    """What differs, without numbers: they change with the number of steps."""
    first = nearest.differs[0]
    if not _IN_STEPS.search(first):  # a fault that has a name
        return "sigma / alpha that the network is told is not its input's" if _LEVELS in first else _SIZE.sub("", first)
    names = [_OLDER.sub("the weights of older answers", line.rpartition(" is ")[0]) for line in nearest.differs]
    *several, last = dict.fromkeys(names)
    return f"{', '.join(several)} and {last} differ" if several else f"{last} differs"


def markdown(library: str, configurations: Iterable[Configuration] | None = None) -> str:
    """The table of a library's samplers, those of its survey unless others are given."""
    lines = [f"| {library} | grid | word |", "| --- | --- | --- |"]
    for configuration in SURVEYS[library] if configurations is None else configurations:
        lines += [f"| `{row.name}` | {row.grid} | {which(row)} |" for row in rows_of(configuration)]
    return "\n".join(lines)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(), "\n\n".join(map(markdown, SURVEYS)), (BEGIN, END)))

"""What was known of libraries' samplers before, and what is measured here:
`python -m weakorder.reports.pages.known docs/gallery/known.md` writes both tables between their marks (`make known`),
and a test fails when the committed ones are stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...verification.unmodified import KNOWN, SIZED, Known, Size, Sized, filled, slopes_of
from .orders import with_table

ORDERS, SIZES = ((f"<!-- known {name}: begin -->", f"<!-- known {name}: end -->") for name in ("orders", "sizes"))
# The prototype's slopes have one or two digits behind the point.
_AGREES = 0.05


def row_of(known: Known) -> str:
    """Its row of the table of orders, measured."""
    found = slopes_of(known)
    seen = np.flatnonzero(np.isfinite(found.together))
    last = int(seen[-1])
    alone = found.alone[last][np.isfinite(found.alone[last])]
    before = f"{', '.join(map(_slope, found.together))} from {found.steps[0]:.0f} on"
    agrees = abs(found.together[last] - known.prototype) <= _AGREES
    why = "agrees" if agrees else filled(known, found)
    cells = (
        known.said,
        known.grid,
        f"{known.prototype:g}",
        f"{found.together[last]:.2f}",
        f"{found.steps[last]:.0f} to {found.steps[last + 1]:.0f}",
        f"{alone.min():.2f} to {alone.max():.2f}",
        before,
        why,
    )
    return f"| {' | '.join(cells)} |"


def _slope(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def orders(known: Iterable[Known] = KNOWN) -> str:
    """The table of orders."""
    head = "| sampler | grid | prototype | here | at steps | by target | at doubling steps | why they differ |"
    return "\n".join([head, "| --- | --- | ---: | ---: | --- | --- | --- | --- |", *map(row_of, known)])


def sizes(sized: Iterable[Sized] = SIZED) -> str:
    """The table of sizes."""
    lines = ["| what | prototype | here (by target) | why they differ |", "| --- | --- | --- | --- |"]
    lines += [f"| {one.said} | {one.prototype} | {'; '.join(map(_size, one.measure()))} | {one.why} |" for one in sized]
    return "\n".join(lines)


def _size(size: Size) -> str:
    return f"{size.together:.2g} ({size.least:.2g} to {size.largest:.2g})"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(with_table(path.read_text(), orders(), ORDERS), sizes(), SIZES))

"""What rounding the network's products does to a scheme's law: a cell in a lower precision beside its twin in float32.

Both cells have the same starts, the same Brownian motion and one reference, so that their weak errors d' and d
(cifar10.study.statistics) are means of rows D'_j and D_j that belong together, in the same units, and

    c = d' - d = mean over j of D'_j - D_j = E f(rounded) - E f(float32)

is what rounding changes of the expectations, with a small covariance: the discretisation is the same. |c|, its noise
removed, is the `change` of a quantity; as E d' = E d + E c, the sizes of the two weak errors differ by |E c| at most.
The `share` |c| / |d|, known about as well as its denominator, says which is the larger part at this budget: below 1
the discretisation, above it rounding. With the steps d tends to 0, and c to what rounding changes of the exact
dynamics, which need not be 0: in the end a share grows with the budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from ...verdicts import Norm
from .statistics import QUANTITIES, CellStatistics, WeakError

Results = dict[str, Any]


def changes(rounded: CellStatistics, full: CellStatistics) -> dict[str, Results]:
    """|c| of each quantity in the units of weak errors: `statistics.WeakError.as_dict`, and `share`, None where the
    weak error in float32 is not above its noise; nothing if either cell diverged.

    Raises ValueError if the cells have different numbers of samples.
    """
    if rounded.samples != full.samples:
        raise ValueError(f"cells of {rounded.samples} and {full.samples} samples: give both the same number")
    if rounded.diverged or full.diverged:
        return {}
    found = {}
    for quantity in QUANTITIES:
        error = full.weak[quantity]
        rows = rounded.rows[quantity].astype(float) - full.rows[quantity]
        change = WeakError(Norm.of(rows), error.size)
        share = change.norm.value / error.norm.value if error.norm.is_sure else None
        found[quantity] = change.as_dict() | {"share": share}
    return found


def summarise(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Results]:
    """By precision, over cells as (scheme's name, results): `seconds`, the time all took over that of their twins, and
    by quantity how many `cells` there are, of how many the change is `sure`, how many of those have a share (their weak
    error is, too), and what it is in the middle and at most, `at` which scheme and budget."""
    by_precision: dict[str, list[tuple[str, Mapping[str, Any], Results]]] = {}
    for name, entry in entries:
        for precision, twin in (entry["precisions"] or {}).items():
            by_precision.setdefault(precision, []).append((name, entry, twin))
    found = {}
    for precision, cells in by_precision.items():
        took = [sum(cell["seconds"] for *_, cell in cells), sum(entry["seconds"] for _, entry, _ in cells)]
        found[precision] = {
            "seconds": took[0] / took[1] if took[1] > 0 else None,
            "diverged": [[name, entry["nfe"]] for name, entry, twin in cells if twin["diverged"] > entry["diverged"]],
            "quantities": {quantity: _over_cells(cells, quantity) for quantity in QUANTITIES},
        }
    return found


def _over_cells(cells: Iterable[tuple[str, Mapping[str, Any], Results]], quantity: str) -> Results:
    changed = [(name, entry["nfe"], twin["change"][quantity]) for name, entry, twin in cells if twin["change"]]
    sure = [found for found in changed if found[2]["sure"]]
    shares = [(change["share"], [name, nfe]) for name, nfe, change in sure if change["share"] is not None]
    largest, at = max(shares, default=(None, None))
    middle = median(share for share, _ in shares) if shares else None
    return {
        "cells": len(changed),
        "sure": len(sure),
        "shares": len(shares),
        "middle": middle,
        "largest": largest,
        "at": at,
    }

"""Weak errors as ratios to those of one scheme of the study at the same budget: how much nearer, at equal cost.

Of a quantity let d = |mean of D_j| be a cell's weak error and d_0 = |mean of E_j| that of the scheme compared with,
both from the same sample numbers (cifar10.study.statistics). Then R = d / d_0, and to first order

    Var R = (s^2 - 2 R c + R^2 s_0^2) / d_0^2,     c = Cov(D_j . D / d, E_j . E / d_0) / n,

s and s_0 their standard errors, D and E the means: what the samples have in common does not blur the ratio. A ratio is
sure where both errors are above their noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...verdicts import Array
from .comparison import PUBLISHED_FID
from .statistics import QUANTITIES, CellStatistics


def compared_with(names: Sequence[str], wanted: str | None = None) -> str:
    """The scheme, of those of the study, that errors are ratios to: the one `wanted`; else that of the least published
    FID; else the first. Raises ValueError where none has the wanted name."""
    if wanted is not None:
        if wanted not in names:
            raise ValueError(f"against {wanted!r}: no scheme of the study; choose one of {', '.join(names)}")
        return wanted
    published = {name: fid for (name, _), fid in sorted(PUBLISHED_FID.items(), key=lambda entry: -entry[1])}
    return min(names, key=lambda name: published.get(name, math.inf))


def ratios(cell: CellStatistics, against: CellStatistics) -> dict[str, dict[str, Any]]:
    """By quantity `value`, `standard_error` and whether it is `sure`; of no quantity whose divisor is 0, and of none if
    either cell diverged. Raises ValueError if the cells have different numbers of samples."""
    if cell.samples != against.samples:
        raise ValueError(f"cells of {cell.samples} and {against.samples} samples: give both the same number")
    found = {}
    for quantity in QUANTITIES if not (cell.diverged or against.diverged) else ():
        own, other = cell.weak[quantity].norm, against.weak[quantity].norm
        if not other.value > 0:
            continue
        ratio = own.value / other.value
        first, second = (_along(of.rows[quantity].astype(float)) for of in (cell, against))
        common = float(first @ second) / (len(first) - 1) / len(first)
        square = own.standard_error**2 - 2 * ratio * common + (ratio * other.standard_error) ** 2
        error = math.sqrt(max(square, 0.0)) / other.value if cell is not against else 0.0
        found[quantity] = {"value": ratio, "standard_error": error, "sure": own.is_sure and other.is_sure}
    return found


def _along(rows: Array) -> Array:
    """Rows (n, F) less their mean, along it (n,)."""
    mean = rows.mean(0)
    return (rows - mean) @ (mean / (math.sqrt(float(mean @ mean)) or 1.0))

"""Time grids: where the steps in tau = T - t begin and end, from the prior (tau = 0) to the cut-off (tau = T - t_end).

uniform     tau_i = tau_N i / N
quadratic   tau_i = tau_N (1 - (1 - i/N)^2), fine near the data (arXiv 2310.07894, section 5)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..theory.model import SMALLEST_TIME, Parameters


def _uniform(steps: int) -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, steps + 1)


def _quadratic(steps: int) -> NDArray[np.float64]:
    return 1 - (1 - np.linspace(0.0, 1.0, steps + 1)) ** 2


MOST_STEPS = 10_000_000
GRIDS = {"uniform": _uniform, "quadratic": _quadratic}


def time_grid(name: str, steps: int, params: Parameters, t_end: float | None = None) -> NDArray[np.float64]:
    """The `steps` + 1 times tau of the grid `name`, increasing from 0 to T - t_end (default: the cut-off eps); float64.

    Raises ValueError on an unknown grid, fewer than 1 step, or t_end outside (0, T).
    """
    if name not in GRIDS:
        raise ValueError(f"grid {name!r} is unknown; choose one of {', '.join(GRIDS)}")
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps = {steps}: a run has at least 1 step, and at most {MOST_STEPS}; 50 is usual")
    t_end = params.eps if t_end is None else t_end
    if not SMALLEST_TIME <= t_end < params.T:
        raise ValueError(f"t_end = {t_end:g} is outside [{SMALLEST_TIME:g}, {params.T:g}); stop between data and prior")
    return (params.T - t_end) * GRIDS[name](steps)


def check_grid(taus: ArrayLike, params: Parameters) -> NDArray[np.float64]:
    """`taus` as float64 (steps + 1,). Raises ValueError unless it increases strictly, by at least a step, in [0, T)."""
    taus = np.asarray(taus, dtype=float)
    if taus.ndim != 1 or taus.size < 2:
        raise ValueError(f"a grid of shape {taus.shape} has no step; give at least 2 times tau on one axis")
    if (stuck := np.flatnonzero(~(np.diff(taus) > 0))).size:
        i = int(stuck[0])
        raise ValueError(f"tau_{i + 1} = {taus[i + 1]:g} after tau_{i} = {taus[i]:g}: a grid must increase strictly")
    if not (taus[0] >= 0 and taus[-1] < params.T):
        raise ValueError(f"the grid runs from {taus[0]:g} to {taus[-1]:g}; it must stay within [0, {params.T:g})")
    return taus

"""`growth.growth_bound` compiled by numba, for scans that ask for it hundreds of times.

The same recursion, target by target: numpy's one is a loop in Python over the steps.
"""

# pyright: reportIndexIssue=false
from __future__ import annotations

import numpy as np

from ...integrators.kernels import compiled
from ..verdicts import Array


@compiled
def _largest(steps, result):
    """The largest eigenvalue of W over the steps (2, 2, N, V), of each target (V,)."""
    for v in range(result.size):
        xx, xm, mm, largest = 1.0, 0.0, 1.0, 1.0
        for k in range(steps.shape[2]):
            a, b, c, d = steps[0, 0, k, v], steps[0, 1, k, v], steps[1, 0, k, v], steps[1, 1, k, v]
            t00, t01, t10, t11 = a * xx + b * xm, a * xm + b * mm, c * xx + d * xm, c * xm + d * mm
            xx, xm, mm = t00 * a + t01 * b, t00 * c + t01 * d, t10 * c + t11 * d
            mean, half = (xx + mm) / 2, (xx - mm) / 2
            apart = np.hypot(half, xm)
            high, low = max(mean + apart, 1.0), max(mean - apart, 1.0)
            slope = (high - low) / (2 * apart) if apart > 0 else 0.0
            shift = low - slope * (mean - apart)
            xx, xm, mm = slope * xx + shift, slope * xm, slope * mm + shift
            if np.isnan(high):
                largest = np.inf
            elif high > largest:
                largest = high
        result[v] = largest


def growth_bound(steps: Array) -> Array:
    """As `growth.growth_bound`, of steps (d, d, N, V)."""
    if len(steps) > 2:
        return np.full(steps.shape[3], np.inf)
    largest = np.empty(steps.shape[3])
    _largest(np.ascontiguousarray(steps), largest)
    return np.sqrt(largest)

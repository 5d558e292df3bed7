"""`growth.growth_bound` and `growth.transient_growth` compiled by numba, for scans that ask for them hundreds of times.

The bound is the same recursion, target by target: numpy's one is a loop in Python over the steps.

The growth is over N^2 / 2 intervals, most of which need not be looked at. Starts are taken from the last one back. What
a unit of u_j has become at k, C_u in the state and C_q in what is remembered, makes of u_l at any l >= k at most

    |C_u| g(k) + |C_q| g_q(k),     g, g_q the most that a unit of u_k, or of what is remembered at k, makes of any u_l,

and bounds on these are what later starts leave behind. A start is given up once that is no more than what was found.
Where steps contract this is soon; a flow keeps its perturbations, and is gone through to the end.
"""

# pyright: reportIndexIssue=false
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


@compiled
def _norm(matrix, first, last):
    """The norm of the rows first, ..., last - 1 of a matrix: of two columns exactly for two rows, else Frobenius's."""
    if matrix.shape[1] == 2 and last - first == 2:
        a, b, c, d = matrix[first, 0], matrix[first, 1], matrix[first + 1, 0], matrix[first + 1, 1]
        return (np.hypot(a + d, b - c) + np.hypot(a - d, b + c)) / 2
    return np.sqrt((matrix[first:last] ** 2).sum())


@compiled
def _intervals(steps, least, growth, first, last):
    """Of each target (V,) of steps (V, N, d, d): the largest growth that exceeds `least`, and its interval."""
    V, N, d = steps.shape[:3]
    state, remembered = np.empty(N + 1), np.empty(N + 1)  # g and g_q
    column, moved = np.empty((d, 2)), np.empty((d, 2))
    for v in range(V):
        best = least
        state[N], remembered[N] = 1.0, 0.0
        for j in range(N - 1, -1, -1):
            step = steps[v, j]
            remembered[j] = 0.0
            if d > 2:
                here, kept = _norm(step[:, 2:], 0, 2), _norm(step[:, 2:], 2, d)
                remembered[j] = here * state[j + 1] + kept * remembered[j + 1]
            column[:] = 0.0
            column[0, 0] = column[1, 1] = 1.0
            most = 1.0
            for k in range(j, N):
                step = steps[v, k]
                for i in range(d):
                    a, b = 0.0, 0.0
                    for c in range(d):
                        a += step[i, c] * column[c, 0]
                        b += step[i, c] * column[c, 1]
                    moved[i, 0], moved[i, 1] = a, b
                column, moved = moved, column
                norm = _norm(column, 0, 2)
                if not np.isfinite(norm):
                    norm = np.inf
                most = max(most, norm)
                if norm > best:
                    best = growth[v] = norm
                    first[v], last[v] = j, k + 1
                ahead = norm * state[k + 1]
                if d > 2:
                    ahead += _norm(column, 2, d) * remembered[k + 1]
                if ahead <= best:  # False for nan
                    most = max(most, ahead)
                    break
                if norm == np.inf:
                    break
            state[j] = most


def transient_growth(steps: Array, least: float = 1.0) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """As `growth.transient_growth`, of steps (d, d, N, V); where no interval exceeds `least` >= 1, `least` and the
    empty interval."""
    V = steps.shape[3]
    growth, first, last = np.full(V, float(least)), np.zeros(V, dtype=np.int64), np.zeros(V, dtype=np.int64)
    _intervals(np.ascontiguousarray(np.moveaxis(steps, (0, 1), (-2, -1)).swapaxes(0, 1)), least, growth, first, last)
    return growth, first, last


def grows_beyond(steps: Array, factor: float) -> bool:
    """As `growth.grows_beyond`."""
    return bool((transient_growth(steps, factor)[0] > factor).any())

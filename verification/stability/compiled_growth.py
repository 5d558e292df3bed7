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


@compiled
def _eigen(a, vectors):
    """A symmetric matrix made diagonal in place, and its eigenvectors in columns: Jacobi's rotations."""
    n = len(a)
    vectors[:] = np.eye(n)
    for _ in range(50):
        apart = 0.0
        for p in range(n - 1):
            for q in range(p + 1, n):
                apart = max(apart, abs(a[p, q]) / np.sqrt(abs(a[p, p] * a[q, q])) if a[p, q] != 0 else 0.0)
        if not apart > 1e-17:
            return
        for p in range(n - 1):
            for q in range(p + 1, n):
                if a[p, q] == 0:
                    continue
                half = (a[q, q] - a[p, p]) / (2 * a[p, q])
                tangent = (1.0 if half >= 0 else -1.0) / (abs(half) + np.hypot(half, 1.0))
                cosine = 1 / np.hypot(tangent, 1.0)
                sine = tangent * cosine
                for k in range(n):
                    a[k, p], a[k, q] = cosine * a[k, p] - sine * a[k, q], sine * a[k, p] + cosine * a[k, q]
                for k in range(n):
                    a[p, k], a[q, k] = cosine * a[p, k] - sine * a[q, k], sine * a[p, k] + cosine * a[q, k]
                    vectors[k, p], vectors[k, q] = (
                        cosine * vectors[k, p] - sine * vectors[k, q],
                        sine * vectors[k, p] + cosine * vectors[k, q],
                    )
                a[p, q] = a[q, p] = 0.0


@compiled
def _largest_of_any(steps, result):
    """The same of steps (n, n, N, V)."""
    n, N, V = steps.shape[0], steps.shape[2], steps.shape[3]
    W, X, vectors = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for v in range(V):
        W[:] = np.eye(n)
        largest = 1.0
        for k in range(N):
            step = np.ascontiguousarray(steps[:, :, k, v])
            for i in range(n):
                for j in range(i + 1):
                    total = 0.0
                    for p in range(n):
                        for q in range(n):
                            total += step[i, p] * W[p, q] * step[j, q]
                    X[i, j] = X[j, i] = total
            if not np.isfinite(X).all():
                largest = np.inf
                break
            _eigen(X, vectors)
            W[:] = 0.0
            for e in range(n):
                value = max(X[e, e], 1.0)
                largest = max(largest, value)
                for i in range(n):
                    for j in range(n):
                        W[i, j] += value * vectors[i, e] * vectors[j, e]
        result[v] = largest


def growth_bound(steps: Array, size: int | None = None) -> Array:
    """As `growth.growth_bound`, of steps (d, d, N, V)."""
    if size not in (None, len(steps)):
        return np.full(steps.shape[3], np.inf)
    largest = np.empty(steps.shape[3])
    (_largest if len(steps) == 2 else _largest_of_any)(np.ascontiguousarray(steps), largest)
    return np.sqrt(largest)


@compiled
def _norm(matrix, first, last):
    """The norm of the rows first, ..., last - 1 of a matrix: of two columns exactly for two rows, else Frobenius's."""
    if matrix.shape[1] == 2 and last - first == 2:
        a, b, c, d = matrix[first, 0], matrix[first, 1], matrix[first + 1, 0], matrix[first + 1, 1]
        return (np.hypot(a + d, b - c) + np.hypot(a - d, b + c)) / 2
    return np.sqrt((matrix[first:last] ** 2).sum())


@compiled
def _norm_of_state(column, square, vectors):
    """The norm of the first n of the rows of a matrix of n columns, exactly; square and vectors: room, (n, n)."""
    n = column.shape[1]
    if n == 1:
        return abs(column[0, 0])
    scale = np.abs(column[:n]).max()
    if not 0 < scale < np.inf:
        return scale
    for i in range(n):
        for j in range(n):
            total = 0.0
            for k in range(n):
                total += (column[k, i] / scale) * (column[k, j] / scale)
            square[i, j] = total
    _eigen(square, vectors)
    return scale * np.sqrt(np.diag(square).max())


@compiled
def _moved(step, column, moved):
    """step times column."""
    d, n = column.shape
    for i in range(d):
        for j in range(n):
            total = 0.0
            for c in range(d):
                total += step[i, c] * column[c, j]
            moved[i, j] = total


@compiled
def _intervals(steps, n, least, growth, first, last):
    """Of each target (V,) of steps (V, N, d, d), the first n components the state: the largest growth that exceeds
    `least`, and its interval."""
    V, N, d = steps.shape[:3]
    state, remembered = np.empty(N + 1), np.empty(N + 1)  # g and g_q
    column, moved = np.empty((d, n)), np.empty((d, n))
    square, vectors = np.empty((n, n)), np.empty((n, n))
    for v in range(V):
        best = least
        state[N], remembered[N] = 1.0, 0.0
        for j in range(N - 1, -1, -1):
            step = steps[v, j]
            remembered[j] = 0.0
            if d > n:
                here, kept = _norm(step[:, n:], 0, n), _norm(step[:, n:], n, d)
                remembered[j] = here * state[j + 1] + kept * remembered[j + 1]
            column[:] = 0.0
            for i in range(n):
                column[i, i] = 1.0
            most = 1.0
            for k in range(j, N):
                step = steps[v, k]
                if n == 2:  # here, since a call would cost a quarter of the work
                    for i in range(d):
                        a, b = 0.0, 0.0
                        for c in range(d):
                            a += step[i, c] * column[c, 0]
                            b += step[i, c] * column[c, 1]
                        moved[i, 0], moved[i, 1] = a, b
                else:
                    _moved(step, column, moved)
                column, moved = moved, column
                norm = _norm(column, 0, 2) if n == 2 else _norm_of_state(column, square, vectors)
                if not np.isfinite(norm):
                    norm = np.inf
                most = max(most, norm)
                if norm > best:
                    best = growth[v] = norm
                    first[v], last[v] = j, k + 1
                ahead = norm * state[k + 1]
                if d > n:
                    ahead += _norm(column, n, d) * remembered[k + 1]
                if ahead <= best:  # False for nan
                    most = max(most, ahead)
                    break
                if norm == np.inf:
                    break
            state[j] = most


def transient_growth(
    steps: Array, least: float = 1.0, size: int | None = None
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """As `growth.transient_growth`, of steps (d, d, N, V); where no interval exceeds `least` >= 1, `least` and the
    empty interval."""
    V = steps.shape[3]
    growth, first, last = np.full(V, float(least)), np.zeros(V, dtype=np.int64), np.zeros(V, dtype=np.int64)
    targets = np.ascontiguousarray(np.moveaxis(steps, (0, 1), (-2, -1)).swapaxes(0, 1))
    _intervals(targets, size or len(steps), least, growth, first, last)
    return growth, first, last


def grows_beyond(steps: Array, factor: float, size: int | None = None) -> bool:
    """As `growth.grows_beyond`."""
    return bool((transient_growth(steps, factor, size)[0] > factor).any())

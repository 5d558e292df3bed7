"""Distances of two laws from samples of both, squared.

Both are 0 for equal laws on average, so that estimates can be negative. The energy distance has no bias; the sliced
one is of the expected order statistics of half the rows: below W2^2, and nearer to it the more rows there are.

    energy   2 E|X - Y| - E|X - X'| - E|Y - Y'|. Different rows are independent, so the mean over i != j of
             h_ij = |x_i - y_j| + |x_j - y_i| - |x_i - x_j| - |y_i - y_j| is unbiased although x_i and y_i may be
             coupled, and it is small where x_i is near y_i. Its variance by Hoeffding's two terms,
             (4 (n - 2) zeta_1 + 2 zeta_2) / (n (n - 1)), the second being all there is for equal laws; zeta_1 is not
             taken below 0, which then states an error up to 30% too large.
    sliced   W2^2 of projections to fixed directions, on average. With sorted projections of independent halves A and B
    Wasser-  of the rows, the mean over places i and directions of (x_i^A - y_i^A)(x_i^B - y_i^B), which is half of
    stein    W(x^A, y^B) + W(x^B, y^A) - W(x^A, x^B) - W(y^A, y^B). Its expectation is the mean of (E x_i - E y_i)^2:
             the distance of the expected order statistics of n // 2 rows, and 0 for equal laws. (If only
             W(y^A, y^B) were subtracted, a smaller spread of x would lower it at first order, where W2^2 is of second.)
             Error by the jackknife over pairs of rows, one in each half.

Of one pair of sets with its error (`energy_distance`, `sliced_wasserstein`), and of many small blocks, whose scatter is
the error (`block_distances`).

Sources: Szekely and Rizzo, J. Stat. Plan. Inference 143 (2013); Hoeffding, Ann. Math. Stat. 19 (1948).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from ...integrators.noise import START, normal_pairs
from ..verdicts import Array, Estimate

DISTANCES = ("energy", "sliced Wasserstein")
DIRECTIONS, GROUPS = 128, 32  # of the sliced distance, and of its jackknife
BLOCK_DIRECTIONS = 16  # a block is small, and there are many
SEED = 0x63696661723130  # test functions must not be made of the numbers that samples are made of
_CHUNK = 256  # rows whose pairs are looked at at once


def block_distances(x: Array, y: Array) -> Array:
    """The energy and the sliced Wasserstein distance of blocks x and y (blocks, n, size), n >= 2: (blocks, 2).
    Blocks of few rows show little but means: of n = 4, a third of a difference in scale.

    Rows are independent, or x_i and y_i coupled. What overflows is inf or nan.
    """
    n = x.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        h = _contrasts(x, y, x, y)
        h[:, np.arange(n), np.arange(n)] = 0.0  # a row is not independent of itself
        apart = np.sort(_halves(x, BLOCK_DIRECTIONS), axis=1) - np.sort(_halves(y, BLOCK_DIRECTIONS), axis=1)
        return np.stack([h.sum((1, 2)) / (n * (n - 1)), apart.prod(2).mean((1, 2))], axis=1)


def energy_distance(x: Array, y: Array) -> Estimate:
    """The energy distance of coupled rows (n, size), n >= 5, as a U-statistic over pairs i != j."""
    n = len(x)
    total, squares = np.zeros(n), 0.0
    for first in range(0, n, _CHUNK):
        some = np.arange(first, min(first + _CHUNK, n))
        h = _contrasts(x[some], y[some], x, y)
        h[np.arange(len(some)), some] = 0.0  # a row is not independent of itself
        total[some] = h.sum(1)
        squares += float((h**2).sum())
    rows = total / (n - 1)
    value = float(rows.mean())
    # Moments of the rows and of all pairs in terms of zeta_1 = Var E[h | row] and zeta_2 = Var h, solved for these.
    pairs = max(squares / (n * (n - 1)) - value**2, 0.0)
    single = max(((n - 1) ** 2 / (n - 2) * float(rows.var(ddof=1)) - pairs) / (n - 4), 0.0)
    return Estimate(value, math.sqrt((4 * (n - 2) * single + 2 * pairs) / (n * (n - 1))))


def _contrasts(x: Array, y: Array, others_x: Array, others_y: Array) -> Array:
    """h_ij of rows i of x and y (..., k, size) and rows j of the others (..., n, size): (..., k, n)."""
    return _lengths(x, others_y) + _lengths(y, others_x) - _lengths(x, others_x) - _lengths(y, others_y)


def _lengths(a: Array, b: Array) -> Array:
    """|a_i - b_j|."""
    lengths = (a**2).sum(-1)[..., :, None] + (b**2).sum(-1)[..., None, :]
    lengths -= 2 * a @ b.swapaxes(-1, -2)
    np.maximum(lengths, 0.0, out=lengths)  # rounding
    return np.sqrt(lengths, out=lengths)


def sliced_wasserstein(x: Array, y: Array) -> Estimate:
    """The squared sliced Wasserstein distance of coupled rows (n, size), n >= 4, as above, and its error by the
    jackknife; of an odd number of rows the last is left."""
    m = len(x) // 2
    halves = np.stack([_halves(rows, DIRECTIONS) for rows in (x, y)])
    order = halves.argsort(axis=1)
    group = np.arange(m) * min(GROUPS, m) // m
    groups, keys = group[-1] + 1, group[order]
    ordered = np.take_along_axis(halves, order, axis=1).transpose(0, 2, 3, 1)
    keys = keys.transpose(0, 2, 3, 1)

    def without(g: int) -> float:
        """The product's mean; a group is taken out of sorted rows, which stay sorted."""
        kept = ordered[keys != g].reshape(2, 2, -1)
        first, second = kept[0] - kept[1]
        return float(first @ second) / len(first)

    left_out = np.array([without(g) for g in range(groups)])
    return Estimate(without(-1), math.sqrt((groups - 1) / groups * float(((left_out - left_out.mean()) ** 2).sum())))


def _halves(rows: Array, count: int) -> Array:
    """Projections of rows (..., n, size) in two halves, (..., n // 2, 2, count); of an odd number the last is left."""
    m = rows.shape[-2] // 2
    return (rows[..., : 2 * m, :] @ directions(rows.shape[-1], count)).reshape(*rows.shape[:-2], m, 2, count)


@cache
def directions(size: int, count: int = DIRECTIONS) -> Array:
    """(size, count), fixed, of length 1."""
    normals = normal_pairs(SEED, torch.arange(count), START + 1, (size,))[:, 0].numpy()
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True)).T

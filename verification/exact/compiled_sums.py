"""`exponential_sums` compiled by numba: the powers of a block of points, and their products, stay in a cache."""

# pyright: reportIndexIssue=false
from __future__ import annotations

import numpy as np

from ...integrators.kernels import compiled, compiled_sum
from ..verdicts import Array

_BLOCK = 256  # points whose powers are a few hundred KB
_TILE = 4  # rows and columns that are multiplied at once: 16 sums and their factors fill a processor's registers


@compiled
def _powers(cosines, sines, real, imag):
    """z^n of z = cosines + i sines (J,), for n < count: real and imag (count, J). Each is the product of its halves,
    z^(n // 2) z^(n - n // 2): log2(count) roundings."""
    count, points = real.shape
    for j in range(points):
        real[0, j], imag[0, j] = 1.0, 0.0
    if count > 1:
        for j in range(points):
            real[1, j], imag[1, j] = cosines[j], sines[j]
    for n in range(2, count):
        a, b, c, d = real[n // 2], imag[n // 2], real[n - n // 2], imag[n - n // 2]
        x, y = real[n], imag[n]
        for j in range(points):
            x[j] = a[j] * c[j] - b[j] * d[j]
            y[j] = a[j] * d[j] + b[j] * c[j]


@compiled
def _weighted(table, weights):
    for row in range(table.shape[0]):
        for j in range(weights.size):
            table[row, j] *= weights[j]


@compiled_sum
def _add_products(left, right, points, sums):
    """sums += left right^T over the first `points` columns; the numbers of rows are multiples of the tile."""
    for r in range(0, left.shape[0], 4):
        x0, x1, x2, x3 = left[r], left[r + 1], left[r + 2], left[r + 3]
        for c in range(0, right.shape[0], 4):
            y0, y1, y2, y3 = right[c], right[c + 1], right[c + 2], right[c + 3]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = 0.0
            for j in range(points):
                a0, a1, a2, a3, b0, b1, b2, b3 = x0[j], x1[j], x2[j], x3[j], y0[j], y1[j], y2[j], y3[j]
                s00, s01, s02, s03 = s00 + a0 * b0, s01 + a0 * b1, s02 + a0 * b2, s03 + a0 * b3
                s10, s11, s12, s13 = s10 + a1 * b0, s11 + a1 * b1, s12 + a1 * b2, s13 + a1 * b3
                s20, s21, s22, s23 = s20 + a2 * b0, s21 + a2 * b1, s22 + a2 * b2, s23 + a2 * b3
                s30, s31, s32, s33 = s30 + a3 * b0, s31 + a3 * b1, s32 + a3 * b2, s33 + a3 * b3
            for k, found in enumerate(
                ((s00, s01, s02, s03), (s10, s11, s12, s13), (s20, s21, s22, s23), (s30, s31, s32, s33))
            ):
                for n, one in enumerate(found):
                    sums[r + k, c + n] += one


@compiled
def _sums(cosines, sines, weights, rows, columns, left, right, sums):
    points, block = weights.size, left.shape[1]
    for begin in range(0, points, block):
        end = min(begin + block, points)
        width = end - begin
        _powers(cosines[0, begin:end], sines[0, begin:end], left[:rows, :width], left[rows : 2 * rows, :width])
        _powers(
            cosines[1, begin:end], sines[1, begin:end], right[:columns, :width], right[columns : 2 * columns, :width]
        )
        _weighted(right[: 2 * columns, :width], weights[begin:end])
        _add_products(left, right, width, sums)


def exponential_sums(cosines: Array, sines: Array, weights: Array, rows: int, columns: int) -> Array:
    """See `exponential_sums.exponential_sums`; of cos and sin of the phases (2, J)."""
    left, right = (np.zeros((_whole(2 * count), _BLOCK)) for count in (rows, columns))
    sums = np.zeros((len(left), len(right)))
    _sums(cosines, sines, weights, rows, columns, left, right, sums)
    return sums[: 2 * rows, : 2 * columns]


def _whole(count: int) -> int:
    return -(-count // _TILE) * _TILE

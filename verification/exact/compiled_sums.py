"""`exponential_sums` compiled by numba: points are spread on a fine grid, and one FFT gives all frequencies.

The nonuniform FFT of type 1 (Dutt and Rokhlin 1993, doi 10.1137/0914081) with the kernel of FINUFFT (Barnett, Magland
and af Klinteberg 2019, doi 10.1137/18M120885X). With n > 2 (2 rows - 1) nodes of the fine grid on the first axis, a
kernel K of `WIDTH` nodes, and the same on the second axis,

    b[l, m] = sum_j w_j K(l - n phi_j / 2 pi) K(m - ...),   K(x) = exp(beta (sqrt(1 - (2 x / WIDTH)^2) - 1)),
    sum_j w_j exp(i (p phi_j + q psi_j)) = sum_lm b[l, m] exp(2 pi i (p l / n + ...)) / (K^(p / n) K^(...)),

K^ the kernel's Fourier transform, where the fine grid confuses no frequencies: of those that it does, at n - p and
farther, K^ is 1e-15 of that at p. So the sums are right to some 1e-14 of sum |w_j|, where frequencies are dropped below
1e-13 (exact.lattice). The kernel is evaluated as a polynomial between any two nodes, right to rounding.
"""

# pyright: reportIndexIssue=false
from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...integrators.kernels import compiled_sum
from ..verdicts import Array

WIDTH = 16
_BETA = 2.3 * WIDTH
_DEGREE = 16
_BLOCK = 64  # points whose kernels stay in a cache


def _kernel(x: Array) -> Array:
    return np.exp(_BETA * (np.sqrt(np.maximum(1 - (2 * x / WIDTH) ** 2, 0)) - 1))


@cache
def _pieces() -> Array:
    """K(k - WIDTH / 2 + (1 + z) / 2), -1 <= z <= 1, as polynomials in z, the highest power first: (powers, WIDTH)."""
    nodes = np.cos(math.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))
    values = _kernel(np.arange(WIDTH) - WIDTH / 2 + (1 + nodes[:, None]) / 2)
    chebyshev = np.polynomial.chebyshev.chebfit(nodes, values, _DEGREE)
    return np.array([np.polynomial.chebyshev.cheb2poly(series)[::-1] for series in chebyshev.T]).T.copy()


@cache
def _transform(count: int, n: int) -> NDArray[np.complex128]:
    """1 / K^(p / n), p < count, with the phase of a grid that begins WIDTH / 2 nodes below 0."""
    nodes, mass = np.polynomial.legendre.leggauss(4 * WIDTH)
    p = np.arange(count)
    waves = np.cos(2 * math.pi / n * p[:, None] * nodes * WIDTH / 2)
    phase: NDArray[np.complex128] = np.exp(-1j * math.pi * WIDTH * p / n)  # type: ignore[assignment]
    return phase / (waves @ (mass * WIDTH / 2 * _kernel(nodes * WIDTH / 2)))


@compiled_sum
def _pieces_at(turns, n, pieces, first, z, kernel):
    """The first node (J,) and the kernel's values (WIDTH, J) of points at `turns` (J,), in whole turns."""
    for j in range(turns.size):
        place = (turns[j] - np.floor(turns[j])) * n
        node = np.ceil(place)
        first[j] = np.uintp(node)
        z[j] = 2 * (node - place) - 1
    for k in range(WIDTH):
        c0, c1, c2, c3, c4, c5, c6, c7, c8 = (
            pieces[0, k],
            pieces[1, k],
            pieces[2, k],
            pieces[3, k],
            pieces[4, k],
            pieces[5, k],
            pieces[6, k],
            pieces[7, k],
            pieces[8, k],
        )
        c9, c10, c11, c12, c13, c14, c15, c16 = (
            pieces[9, k],
            pieces[10, k],
            pieces[11, k],
            pieces[12, k],
            pieces[13, k],
            pieces[14, k],
            pieces[15, k],
            pieces[16, k],
        )
        for j in range(_BLOCK):
            x = z[j]
            high = (((((((c0 * x + c1) * x + c2) * x + c3) * x + c4) * x + c5) * x + c6) * x + c7) * x + c8
            low = (((((((high * x + c9) * x + c10) * x + c11) * x + c12) * x + c13) * x + c14) * x + c15) * x + c16
            kernel[k, j] = low


@compiled_sum
def _spread(turns, weights, pieces, rows, columns, grid):
    """Add points (2, J) of weights (J,) to the grid (rows + WIDTH, columns + WIDTH), flat, whose first nodes are at
    -WIDTH / 2."""
    first, second = np.empty(_BLOCK, np.uintp), np.empty(_BLOCK, np.uintp)
    left, right, z = np.empty((WIDTH, _BLOCK)), np.empty((WIDTH, _BLOCK)), np.zeros(_BLOCK)
    stride = np.uintp(columns + WIDTH)
    line = np.empty(WIDTH)
    for begin in range(0, weights.size, _BLOCK):
        size = min(_BLOCK, weights.size - begin)
        _pieces_at(turns[0, begin : begin + size], rows, pieces, first, z, left)
        _pieces_at(turns[1, begin : begin + size], columns, pieces, second, z, right)
        for j in range(np.uintp(size)):
            weight = weights[begin + j]
            for k in range(WIDTH):
                line[k] = right[k, j] * weight
            place = first[j] * stride + second[j]
            for i in range(WIDTH):
                value = left[i, j]
                for k in range(np.uintp(WIDTH)):
                    grid[place + k] += value * line[k]
                place += stride


def exponential_sums(phases: Array, weights: Array, rows: int, columns: int) -> NDArray[np.complex128]:
    """See `exponential_sums.exponential_sums`."""
    from scipy.fft import next_fast_len

    sizes = [next_fast_len(max(4 * count, 2 * WIDTH), real=True) for count in (rows, columns)]
    n, m = (int(size or 0) for size in sizes)  # a stub says it may be None
    grid = np.zeros((n + WIDTH, m + WIDTH))
    _spread(phases / (2 * math.pi), weights, _pieces(), n, m, grid.reshape(-1))
    grid[:WIDTH] += grid[n:]
    grid[:, :WIDTH] += grid[:, m:]
    found = np.conj(np.fft.rfft2(grid[:n, :m])[:, :columns])
    first = _transform(rows, n)
    scale = np.concatenate([first, np.conj(first[:0:-1])])
    chosen = np.concatenate([found[:rows], found[n - rows + 1 :]])
    return chosen * scale[:, None] * _transform(columns, m)

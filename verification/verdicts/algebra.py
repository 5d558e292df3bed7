"""Algebra of 2x2 and other small matrices on batches, components first: matrices (d, d, ...), vectors (d, ...), the
batch behind and broadcast.

Thousands of data variances go through every step of every scheme; theory.components says why they come last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...theory.components import matmul as matmul

Array = NDArray[np.float64]


def matvec(a: Array, v: Array) -> Array:
    """a v."""
    product = np.empty((len(a), *np.broadcast_shapes(a.shape[2:], v.shape[1:])))
    for i in range(len(a)):
        np.multiply(a[i, 0], v[0], out=product[i])
        for k in range(1, len(v)):
            product[i] += a[i, k] * v[k]
    return product


def transpose(a: Array) -> Array:
    """a^T."""
    return np.swapaxes(a, 0, 1)


def congruence(a: Array, q: Array) -> Array:
    """a q a^T for symmetric q; exactly symmetric."""
    left = matmul(a, q)
    product = np.empty(left.shape)
    for i in range(len(a)):
        for j in range(i, len(a)):
            np.multiply(left[i, 0], a[j, 0], out=product[i, j])
            for k in range(1, a.shape[1]):
                product[i, j] += left[i, k] * a[j, k]
            product[j, i] = product[i, j]
    return product


def determinant(a: Array) -> Array:
    """det a."""
    return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]


def full_determinant(a: Array) -> Array:
    """det a of the entries as they stand, to two roundings of itself however ill-conditioned a is: what the products
    were rounded by is added (Dekker 1971). Three times the work of `determinant`."""
    (first, low), (second, other) = _two_product(a[0, 0], a[1, 1]), _two_product(a[0, 1], a[1, 0])
    return (first - second) + (low - other)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a b, and what it was rounded by, as exact as the sum of both: Veltkamp's splitting in halves of 26 bits."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _halves(a: Array) -> tuple[Array, Array]:
    scaled = a * (2.0**27 + 1)
    high = scaled - (scaled - a)
    return high, a - high


def inverse(a: Array) -> Array:
    """a^-1."""
    result, scale = np.empty(a.shape), 1 / determinant(a)
    np.multiply(a[1, 1], scale, out=result[0, 0])
    np.multiply(a[0, 0], scale, out=result[1, 1])
    np.multiply(a[0, 1], -scale, out=result[0, 1])
    np.multiply(a[1, 0], -scale, out=result[1, 0])
    return result


def sqrtm(a: Array) -> Array:
    """The symmetric square root of positive semi-definite a: (a + d 1) / sqrt(tr a + 2 d), d^2 = det a."""
    d = np.sqrt(np.maximum(determinant(a), 0))
    unit = np.eye(2).reshape((2, 2) + (1,) * (a.ndim - 2))
    return (a + d * unit) / np.sqrt(a[0, 0] + a[1, 1] + 2 * d)


def components_first(a: Array) -> Array:
    """(..., 2, 2) to (2, 2, ..., 1): from the layout of theory's flows, with an axis for the batch of targets."""
    return np.moveaxis(a, (-2, -1), (0, 1))[..., None]

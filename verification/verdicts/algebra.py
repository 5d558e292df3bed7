"""Algebra of small matrices on batches, components first: matrices (d, d, ...), vectors (d, ...), the batch behind and
broadcast. Of 1x1 and 2x2 all is written out; larger ones go through numpy's.

Thousands of data variances go through every step of every scheme; theory.components says why they come last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...theory.components import matmul as matmul

Array = NDArray[np.float64]


def matvec(a: Array, v: Array) -> Array:
    """a v."""
    return np.einsum("ik...,k...->i...", a, v)


def transpose(a: Array) -> Array:
    """a^T."""
    return np.swapaxes(a, 0, 1)


def congruence(a: Array, q: Array) -> Array:
    """a q a^T for symmetric q; exactly symmetric."""
    product = np.einsum("ik...,jk...->ij...", matmul(a, q), a)
    for i in range(len(a)):
        for j in range(i + 1, len(a)):
            product[j, i] = product[i, j]
    return product


def _last(a: Array) -> Array:
    """(d, d, ...) to (..., d, d)."""
    return np.moveaxis(a, (0, 1), (-2, -1))


def _first(a: Array) -> Array:
    return np.moveaxis(a, (-2, -1), (0, 1))


def determinant(a: Array) -> Array:
    """det a."""
    if len(a) != 2:
        return a[0, 0] if len(a) == 1 else np.linalg.det(_last(a))
    return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]


def full_determinant(a: Array) -> Array:
    """det a of the entries as they stand, to two roundings of itself however ill-conditioned a is: what the products
    were rounded by is added (Dekker 1971). Three times the work of `determinant`, which it is of other than 2x2."""
    if len(a) != 2:
        return determinant(a)
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
    if len(a) != 2:
        return 1 / a if len(a) == 1 else _first(np.asarray(np.linalg.inv(_last(a)), dtype=float))
    result, scale = np.empty(a.shape), 1 / determinant(a)
    np.multiply(a[1, 1], scale, out=result[0, 0])
    np.multiply(a[0, 0], scale, out=result[1, 1])
    np.multiply(a[0, 1], -scale, out=result[0, 1])
    np.multiply(a[1, 0], -scale, out=result[1, 0])
    return result


def least_eigenvalue(a: Array) -> Array:
    """The least eigenvalue of symmetric positive semi-definite a, of 2x2 without cancellation."""
    if len(a) != 2:
        return a[0, 0] if len(a) == 1 else np.asarray(np.linalg.eigvalsh(_last(a))[..., 0], dtype=float)
    half, det = (a[0, 0] + a[1, 1]) / 2, np.maximum(determinant(a), 0)
    return det / (half + np.sqrt(np.maximum(half**2 - det, 0)))


def spectral_radius(a: Array) -> Array:
    """The largest |eigenvalue| of a; inf where a is not finite."""
    if len(a) == 1:
        return np.nan_to_num(np.abs(a[0, 0]), nan=np.inf, posinf=np.inf)
    if len(a) > 2:
        rows, finite = _finite(a)
        return np.where(finite, np.abs(np.linalg.eigvals(rows)).max(-1), np.inf)
    half, det = (a[0, 0] + a[1, 1]) / 2, determinant(a)
    # (a - d)^2 / 4 + b c: the discriminant without the cancellation of half^2 - det
    square = (a[0, 0] - a[1, 1]) ** 2 / 4 + a[0, 1] * a[1, 0]
    real = np.abs(half) + np.sqrt(np.maximum(square, 0))
    return np.where(square >= 0, real, np.sqrt(np.maximum(det, 0)))


def spectral_norm(a: Array) -> Array:
    """The largest singular value of a; of other than 2x2 inf where a is not finite."""
    if len(a) == 1:
        return spectral_radius(a)
    if len(a) > 2:
        rows, finite = _finite(a)
        return np.where(finite, np.linalg.svd(rows, compute_uv=False).max(-1), np.inf)
    a, b, c, d = a[0, 0], a[0, 1], a[1, 0], a[1, 1]
    return (np.sqrt((a + d) ** 2 + (b - c) ** 2) + np.sqrt((a - d) ** 2 + (b + c) ** 2)) / 2


def raised(a: Array) -> tuple[Array, Array]:
    """Symmetric a with its eigenvalues raised to at least 1, the matrix function max(a, 1), and the largest of them;
    of more than 2x2 inf, and a unit matrix, where a is not finite."""
    size = len(a)
    if size == 1:
        return np.maximum(a, 1), np.maximum(a[0, 0], 1)
    if size == 2:
        unit = np.eye(2).reshape((2, 2) + (1,) * (a.ndim - 2))
        mean, apart = (a[0, 0] + a[1, 1]) / 2, np.hypot((a[0, 0] - a[1, 1]) / 2, a[0, 1])
        high, low = np.maximum(mean + apart, 1), np.maximum(mean - apart, 1)
        # low + (high - low) (a - (mean - apart)) / (2 apart)
        slope = np.divide(high - low, 2 * apart, out=np.zeros_like(apart), where=apart > 0)
        return slope * a + (low - slope * (mean - apart)) * unit, high
    rows, finite = _finite(a)
    values, vectors = np.linalg.eigh(np.where(finite[..., None, None], rows, np.eye(size)))
    values = np.maximum(values, 1)
    result = _first((vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2))
    return result, np.where(finite, values[..., -1], np.inf)


def _finite(a: Array) -> tuple[Array, NDArray[np.bool_]]:
    """a as (..., d, d), 0 where an entry is not finite, and where all are."""
    rows = _last(a)
    finite = np.asarray(np.isfinite(rows).all((-2, -1)))
    return np.where(finite[..., None, None], rows, 0.0), finite


def centred_wasserstein(first: Array, second: Array) -> Array:
    """The squared 2-Wasserstein distance of N(0, A) and N(0, B), positive definite, without a difference of like sizes.

    T = B^-1/2 Y B^-1/2 with Y^2 = B^1/2 A B^1/2 maps the second to the first, and the distance is |B^-1/2 (Y - B)|^2,
    where X = Y - B solves Y X + X B = B^1/2 (A - B) B^1/2.
    """
    A, B = _last(first), _last(second)
    b, V = np.linalg.eigh(B)
    b = np.maximum(b, 0)
    root = (V * np.sqrt(b)[..., None, :]) @ np.swapaxes(V, -1, -2)
    squares, U = np.linalg.eigh(root @ A @ root)
    y = np.sqrt(np.maximum(squares, 0))
    F = np.swapaxes(U, -1, -2) @ root @ (A - B) @ root @ V
    X = np.swapaxes(V, -1, -2) @ U @ (F / (y[..., :, None] + b[..., None, :]))  # in B's eigenvectors on both sides
    return (X**2 / b[..., :, None]).sum((-2, -1))


def sqrtm(a: Array) -> Array:
    """The symmetric square root of positive semi-definite a: (a + d 1) / sqrt(tr a + 2 d), d^2 = det a, of 2x2."""
    if len(a) == 1:
        return np.sqrt(np.maximum(a, 0))
    if len(a) > 2:
        values, vectors = np.linalg.eigh(_last(a))
        return _first((vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2))
    d = np.sqrt(np.maximum(determinant(a), 0))
    unit = np.eye(2).reshape((2, 2) + (1,) * (a.ndim - 2))
    return (a + d * unit) / np.sqrt(a[0, 0] + a[1, 1] + 2 * d)


def components_first(a: Array) -> Array:
    """(..., d, d) to (d, d, ..., 1): from the layout of theory's flows, with an axis for the batch of targets."""
    return np.moveaxis(a, (-2, -1), (0, 1))[..., None]

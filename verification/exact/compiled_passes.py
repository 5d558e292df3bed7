"""The passes over a law's points (exact.passes), compiled by numba: each reads them once and keeps nothing between."""

# pyright: reportIndexIssue=false
from __future__ import annotations

import math

import numpy as np

from ...integrators.kernels import compiled_sum
from ..verdicts import Array


@compiled_sum
def _move(points, score, P, K, moved, sizes):
    """g and the size of its terms; the sum of |g|."""
    p00, p01, p10, p11 = P[0, 0], P[0, 1], P[1, 0], P[1, 1]
    k00, k01, k10, k11 = K[0, 0], K[0, 1], K[1, 0], K[1, 1]
    a00, a01, a10, a11 = abs(p00), abs(p01), abs(p10), abs(p11)
    b00, b01, b10, b11 = abs(k00), abs(k01), abs(k10), abs(k11)
    total = 0.0
    for j in range(points.shape[1]):
        x, m, s, r = points[0, j], points[1, j], score[0, j], score[1, j]
        first, second = p00 * x + p01 * m + (k00 * s + k01 * r), p10 * x + p11 * m + (k10 * s + k11 * r)
        x, m, s, r = abs(x), abs(m), abs(s), abs(r)
        moved[0, j], moved[1, j] = first, second
        sizes[0, j] = a00 * x + a01 * m + (b00 * s + b01 * r) + abs(first)
        sizes[1, j] = a10 * x + a11 * m + (b10 * s + b11 * r) + abs(second)
        total += abs(first) + abs(second)
    return total


@compiled_sum
def _see(points, weights, origin, matrix, seen):
    """v = matrix (u - origin), and the sums of w v_x v_x, w v_x v_m and w v_m v_m."""
    x, m = origin[0], origin[1]
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    xx, xm, mm = 0.0, 0.0, 0.0
    for j in range(weights.size):
        first, second = points[0, j] - x, points[1, j] - m
        first, second = a * first + b * second, c * first + d * second
        seen[0, j], seen[1, j] = first, second
        xx += weights[j] * first * first
        xm += weights[j] * first * second
        mm += weights[j] * second * second
    return xx, xm, mm


@compiled_sum
def _mean_length(matrix, sizes, weights):
    a, b, c, d = abs(matrix[0, 0]), abs(matrix[0, 1]), abs(matrix[1, 0]), abs(matrix[1, 1])
    total, mass = 0.0, 0.0
    for j in range(weights.size):
        first, second = a * sizes[0, j] + b * sizes[1, j], c * sizes[0, j] + d * sizes[1, j]
        weight = abs(weights[j])
        total += weight * np.sqrt(first * first + second * second)
        mass += weight
    return total / mass


def move(points: Array, score: Array, P: Array, K: Array) -> tuple[Array, Array, bool]:
    """See `passes.Passes`."""
    moved, sizes = np.empty(points.shape), np.empty(points.shape)
    return moved, sizes, math.isfinite(_move(points, score, P, K, moved, sizes))


def see(points: Array, weights: Array, origin: Array, matrix: Array) -> tuple[Array, Array]:
    """See `passes.Passes`."""
    seen = np.empty(points.shape)
    xx, xm, mm = _see(points, weights, origin, matrix, seen)
    return seen, np.array([[xx, xm], [xm, mm]])


def mean_length(matrix: Array, sizes: Array, weights: Array) -> float:
    """See `passes.Passes`."""
    return _mean_length(matrix, sizes, weights)

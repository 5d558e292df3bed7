"""Exact moments of long runs on many targets, compiled by numba: a target's mean and covariance stay in registers.

The same recursion as exact.moments, to rounding, in some ten nanoseconds a step and target: the law of the data at the
score's time, its inverse, the segment with the score put in, and the image of mean and covariance, with nothing
written in between. Numbers from elsewhere are arguments: compiled code is kept on disk and goes by this file alone.
"""

# pyright: reportIndexIssue=false
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...integrators.compiled import Run, Segment
from ...integrators.kernels import compiled
from ...theory.flows import exact_flow
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array, components_first, congruence, matvec


@compiled
def _advance(segments, data_mean, data_variance, law):
    """The law (5, V), mean x and m, covariance xx, xm and mm, after the segments (n, 19)."""
    for v in range(data_mean.size):
        mu, s2 = data_mean[v], data_variance[v]
        x, m, xx, xm, mm = law[0, v], law[1, v], law[2, v], law[3, v], law[4, v]
        for n in range(segments.shape[0]):
            p00, p01, p10, p11, k00, k01, k10, k11, q00, q01, q11 = segments[n, :11]
            mean_x, mean_m, e00, e01, e11, d00, d01, d11 = segments[n, 11:]
            c00, c01, c11 = e00 * s2 + d00, e01 * s2 + d01, e11 * s2 + d11
            scale = 1 / (c00 * c11 - c01 * c01)
            l00, l01, l11 = c11 * scale, -c01 * scale, c00 * scale
            g00, g01 = k00 * l00 + k01 * l01, k00 * l01 + k01 * l11
            g10, g11 = k10 * l00 + k11 * l01, k10 * l01 + k11 * l11
            r00, r01, r10, r11 = p00 - g00, p01 - g01, p10 - g10, p11 - g11
            a, b = mean_x * mu, mean_m * mu
            x, m = r00 * x + r01 * m + (g00 * a + g01 * b), r10 * x + r11 * m + (g10 * a + g11 * b)
            t00, t01 = r00 * xx + r01 * xm, r00 * xm + r01 * mm
            t10, t11 = r10 * xx + r11 * xm, r10 * xm + r11 * mm
            xx = t00 * r00 + t01 * r01 + q00
            xm = t00 * r10 + t01 * r11 + q01
            mm = t10 * r10 + t11 * r11 + q11
        law[0, v], law[1, v], law[2, v], law[3, v], law[4, v] = x, m, xx, xm, mm


def advance(run: Run, target: GaussianTarget, law: GaussianLaw) -> GaussianLaw:
    """The law after a whole run on Gaussian data: mean (2, V), cov (2, 2, V)."""
    P, _, Q = (components_first(entry) for entry in run.prologue)
    mean, cov = matvec(P, law.mean), congruence(P, law.cov) + Q
    moved = np.array([mean[0], mean[1], cov[0, 0], cov[0, 1], cov[1, 1]])
    _advance(_segments(run, target), target.mean, target.variance, moved)
    return GaussianLaw(moved[:2], moved[[[2, 3], [3, 4]]])


_ROWS, _COLUMNS = np.array([0, 0, 1]), np.array([0, 1, 1])  # of xx, xm and mm


def _segments(run: Run, target: GaussianTarget) -> Array:
    """Of each update P and K by rows, Q as xx, xm and mm, and what makes the data's law there: (updates, 19)."""
    times, (P, K, Q), _ = run.updates
    return np.concatenate(
        [P.reshape(-1, 4), K.reshape(-1, 4), Q[:, _ROWS, _COLUMNS], _laws(target, np.asarray(times))], axis=1
    )


def _laws(target: GaussianTarget, times: Array) -> Array:
    """What the law of the data at the times (n,) has of the data's mean (2) and of its variance (3: xx, xm, mm), and
    what is added to that (3): (n, 8)."""
    values = target.params.values()
    A, _, B = exact_flow(target.diffusion.forward)(target.params.theta(times, times), values)
    (momentum,) = target.diffusion.data_variances(values)
    i, j = _ROWS, _COLUMNS
    return np.concatenate(
        [A[:, :, 0], A[:, i, 0] * A[:, j, 0], A[:, i, 1] * A[:, j, 1] * momentum + B[:, i, j]], axis=1
    )


# --- What becomes of a perturbation -----------------------------------------------------------------------------------


@compiled
def _follow(flows, laws, variance, matrix):
    """R <- (P - K Lambda) R of every step and target: flows (n, 8), laws (n, 8), R (2, 2, n, V)."""
    for n in range(flows.shape[0]):
        p00, p01, p10, p11, k00, k01, k10, k11 = flows[n]
        _, _, e00, e01, e11, d00, d01, d11 = laws[n]
        row00, row01, row10, row11 = matrix[0, 0, n], matrix[0, 1, n], matrix[1, 0, n], matrix[1, 1, n]
        for v in range(variance.size):
            s2 = variance[v]
            c00, c01, c11 = e00 * s2 + d00, e01 * s2 + d01, e11 * s2 + d11
            scale = 1 / (c00 * c11 - c01 * c01)
            l00, l01, l11 = c11 * scale, -c01 * scale, c00 * scale
            r00, r01 = p00 - (k00 * l00 + k01 * l01), p01 - (k00 * l01 + k01 * l11)
            r10, r11 = p10 - (k10 * l00 + k11 * l01), p11 - (k10 * l01 + k11 * l11)
            a, b, c, d = row00[v], row01[v], row10[v], row11[v]
            row00[v], row01[v] = r00 * a + r01 * c, r00 * b + r01 * d
            row10[v], row11[v] = r10 * a + r11 * c, r10 * b + r11 * d


def step_matrices(segments: Sequence[Segment], target: GaussianTarget) -> Array:
    """As `moments.step_matrices`: R of all steps, (2, 2, steps, V), of the segments of one step."""
    first = np.moveaxis(segments[0].flow.propagator, 0, -1)[..., None]
    matrix = np.broadcast_to(first, (*first.shape[:3], target.variance.size)).copy()
    for segment in segments[1:]:
        P, K, _ = segment.flow
        flows = np.concatenate([P.reshape(-1, 4), K.reshape(-1, 4)], axis=1)
        _follow(flows, _laws(target, np.asarray(segment.time)), target.variance, matrix)
    return matrix


@compiled
def _in_law_units(laws, variance, matrix, scaled):
    """L_(k+1)^-1 R_k L_k with L the lower Cholesky factors of the laws (n + 1, 8): R and result (2, 2, n, V)."""
    for n in range(matrix.shape[2]):
        _, _, e00, e01, e11, d00, d01, d11 = laws[n]
        _, _, f00, f01, f11, g00, g01, g11 = laws[n + 1]
        for v in range(variance.size):
            s2 = variance[v]
            x = np.sqrt(e00 * s2 + d00)
            y = (e01 * s2 + d01) / x
            z = np.sqrt(max(e11 * s2 + d11 - y * y, 0.0))
            a = np.sqrt(f00 * s2 + g00)
            b = (f01 * s2 + g01) / a
            c = np.sqrt(max(f11 * s2 + g11 - b * b, 0.0))
            r00, r01, r10, r11 = matrix[0, 0, n, v], matrix[0, 1, n, v], matrix[1, 0, n, v], matrix[1, 1, n, v]
            t00, t01, t10, t11 = r00 * x + r01 * y, r01 * z, r10 * x + r11 * y, r11 * z
            top, beside = t00 / a, t01 / a
            scaled[0, 0, n, v], scaled[0, 1, n, v] = top, beside
            scaled[1, 0, n, v], scaled[1, 1, n, v] = (t10 - b * top) / c, (t11 - b * beside) / c


def law_units(matrix: Array, target: GaussianTarget, times: Array) -> Array:
    """As `stability.growth.in_law_units`, of R (2, 2, n, V) between the times (n + 1,)."""
    scaled = np.empty(matrix.shape)
    _in_law_units(_laws(target, times), target.variance, np.ascontiguousarray(matrix), scaled)
    return scaled

"""The Frechet distance of two sets of images: the squared 2-Wasserstein distance of the Gaussians fitted to them,

    d(1, 2) = |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^1/2),

on pixels or on features of a network (on Inception's it is the FID). With any factors C = F^T F, F (rank, dim), the
eigenvalues of C_1 C_2 are the squares of the singular values of F_1 F_2^T, so no matrix larger than the factors and no
square root of a matrix without symmetry is needed; from n samples F is the centred samples / sqrt(n - 1), and n may be
far smaller than dim. The covariance term is the distance of the factors up to a rotation (Bhatia, Jain and Lim 2019):

    F_1 F_2^T = U S V^T,     tr(C_1 + C_2 - 2 (C_1 C_2)^1/2) = |F_1|^2 + |F_2|^2 - 2 tr S = |F_2 - V U^T F_1|^2.

The last form is a sum of squares: it cannot be negative, and close sets keep the digits that the difference loses.

What few samples do. The distance of n samples from their own law is not 0: for Gaussian samples, n much larger than
dim, and the law's eigenvalues l_i, it is about

    bias = (1/n) [sum_i l_i + 1/2 sum_ij l_i l_j / (l_i + l_j) + 1/4 sum_i l_i],

which grows with the square of the number of dimensions that matter; it depends on the law, so two sets are not compared
by their distances at a small n (Chong and Forsyth 2020): of 64 real images, blurring brings the pixels *closer* to the
data, by having less variance to scatter. For n below dim it no longer falls as 1/n.

The excess d(samples, data) - d(reference, data) of two coupled sets, of which row j comes from the same start and
noise, is free of most of the scatter, and of the bias as far as both sets vary alike. Where the samples are s times
the reference, its leading term at s near 1 is (s - 1) times the whole bias of the reference, while the true distance is
of second order: few samples that lost contrast or detail seem *nearer* to the data than the reference. So neither the
distances nor the excess rank anything below `ENOUGH` samples for each dimension; energy and spectral distances do
(sampled.distances, cifar10.study.statistics), which have no such bias.

The excess's standard error is the jackknife's over rows (Efron and Stein 1981: on average not too small). Without row i
the centred Gram matrix loses one dyad; with G = (centred samples) F^T = U S V^T, S without zeros, and c = n / (n - 1),

    tr (G_i^T G_i)^1/2 - tr S = (1/pi) int_0^oo log(1 - c sum_k U_ik^2 s_k^2 / (s_k^2 + t^2)) dt,

because pi sqrt(a) = int_0^oo log(1 + a / t^2) dt and det(A - c z z^T) = det A (1 - c z^T A^-1 z). So all n distances
with a row left out cost one decomposition and a matrix product. (The derivative by the weight of a row, cheaper still,
gives half the standard error where n is far below dim; a bootstrap's repeated rows change the rank.)

Sources: Dowson and Landau, J. Multivariate Anal. 12 (1982); Heusel et al., arXiv 1706.08500; Bhatia, Jain and Lim,
Expo. Math. 37 (2019); Chong and Forsyth, arXiv 1911.07023; Efron and Stein, Ann. Statist. 9 (1981).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...verdicts import Array, Estimate

ENOUGH = 10  # samples for each dimension, from which on a distance's bias leaves it something to say

_ROWS = 8192  # samples that are made float64 at once
# The trapezoid rule in log t: the integrand is analytic for |Im log t| < pi/2, so the error is about exp(-pi^2 / step),
# 2e-11; what lies outside the range is exp(-reach) of a singular value, 2e-9.
_STEP, _REACH = 0.4, 20.0


@dataclass(frozen=True, eq=False)
class Moments:
    """A mean (dim,) and a covariance C = F^T F by its `factor` F (rank, dim), both float64.

    Raises ValueError if the shapes do not fit or a number is not finite.
    """

    mean: Array
    factor: Array

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.factor.ndim != 2 or self.factor.shape[1:] != self.mean.shape:
            raise ValueError(f"a mean {self.mean.shape} and a factor {self.factor.shape}: give (dim,) and (rank, dim)")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.factor).all()):
            raise ValueError("moments that are not finite have no distance; leave out samples that diverged")

    @staticmethod
    def of_samples(samples: ArrayLike) -> Moments:
        """Of samples (n, ...), n >= 2, flattened to (n, dim); the covariance has the divisor n - 1.

        The factor has min(n, dim) rows: more samples are reduced by QR factorisations, block after block, which lose
        nothing to the squares that a covariance is made of.
        """
        rows = _rows(samples, 2)
        mean = rows.mean(0, dtype=np.float64)
        factor: Array = np.empty((0, len(mean)))
        block = max(_ROWS, 4 * len(mean))
        for start in range(0, len(rows), block):
            factor = np.concatenate((factor, rows[start : start + block] - mean))
            if len(factor) > len(mean):
                factor = np.asarray(np.linalg.qr(factor, "r"))
        return Moments(mean, factor / math.sqrt(len(rows) - 1))

    @staticmethod
    def of_covariance(mean: ArrayLike, cov: ArrayLike) -> Moments:
        """Of a mean (dim,) and a covariance (dim, dim), by its eigenvectors.

        Raises ValueError if it is not symmetric, or has an eigenvalue further below 0 than rounding explains.
        """
        mean, cov = np.asarray(mean, float), np.asarray(cov, float)
        if cov.shape != (*mean.shape, *mean.shape) or mean.ndim != 1 or not np.isfinite(cov).all():
            raise ValueError(f"a covariance {cov.shape} for a mean {mean.shape}: give (dim, dim), finite, and (dim,)")
        rounding = 1e-6 * np.abs(cov).max(initial=0.0)  # a float32 sum of 50,000 terms
        if (difference := np.abs(cov - cov.T).max(initial=0.0)) > rounding:
            raise ValueError(f"the covariance is not symmetric: entries differ by {difference:.3g}; give C = C^T")
        values, vectors = np.linalg.eigh((cov + cov.T) / 2)
        if values.min(initial=0.0) < -rounding * len(mean):
            raise ValueError(f"the covariance has the eigenvalue {values.min():.3g}; a covariance's are >= 0")
        return Moments(mean, np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)


def frechet_distance(a: Moments, b: Moments) -> float:
    """d(a, b) >= 0, in the squared units of the samples. Raises ValueError if the dimensions differ."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"{len(a.mean)} and {len(b.mean)} dimensions have no distance; compare the same features")
    short, long = sorted((a.factor, b.factor), key=len)
    u, _, vt = np.linalg.svd(short @ long.T, full_matrices=False)
    apart = long - vt.T @ (u.T @ short)
    return float(((a.mean - b.mean) ** 2).sum() + (apart**2).sum())


def leave_one_out(samples: ArrayLike, data: Moments) -> Array:
    """d of the samples (n, ...), n >= 3, to the data with each of them left out: (n,), in the samples' order."""
    rows = _rows(samples, 3)
    n, mean = len(rows), rows.mean(0, dtype=np.float64)
    if mean.shape != data.mean.shape:
        raise ValueError(f"{len(mean)} and {len(data.mean)} dimensions have no distance; compare the same features")
    centred = rows - mean
    squares, c = (centred**2).sum(1), n / (n - 1)
    means = ((mean - data.mean - centred / (n - 1)) ** 2).sum(1)
    trace = (squares.sum() - c * squares) / (n - 2) + (data.factor**2).sum()

    u, s, _ = np.linalg.svd(centred @ data.factor.T, full_matrices=False)
    kept = s > max(n, len(mean)) * np.finfo(float).eps * s.max(initial=0.0)
    u2, s = u[:, kept] ** 2, s[kept]
    if not len(s):
        return means + trace
    # The logarithm of 1 - w, from whichever of the two is not close to 1.
    t = np.exp(np.arange(math.log(s[-1]) - _REACH, math.log(s[0]) + _REACH, _STEP))
    w = c * u2 @ (1 / (1 + (t / s[:, None]) ** 2))
    rest = np.maximum(1 - c * u2.sum(1), 0.0)[:, None] + c * u2 @ (1 / (1 + (s[:, None] / t) ** 2))
    log = np.where(w < 0.5, np.log1p(-np.minimum(w, 0.5)), np.log(rest))
    nuclear = s.sum() + _STEP / math.pi * (log @ t)
    return means + trace - 2 * nuclear / math.sqrt(n - 2)


def excess_distance(samples: ArrayLike, reference: ArrayLike, data: Moments) -> Estimate:
    """d(samples, data) - d(reference, data) of coupled sets (n, ...), n >= 3, with the jackknife's standard error.

    Row j of both comes from the same start and noise; different rows are independent. The error is that of its scatter:
    of few samples its bias may be many times as large (above). Raises ValueError on sets of different shapes.
    """
    if np.shape(samples) != np.shape(reference):
        raise ValueError(f"samples {np.shape(samples)}, reference {np.shape(reference)}: coupled sets have one shape")
    without = leave_one_out(samples, data) - leave_one_out(reference, data)
    value = frechet_distance(Moments.of_samples(samples), data)
    value -= frechet_distance(Moments.of_samples(reference), data)
    return Estimate(value, float(math.sqrt((len(without) - 1) * without.var())))


def _rows(samples: ArrayLike, least: int) -> NDArray[np.floating]:
    """Samples as rows (n, dim), their dtype kept."""
    rows = np.asarray(samples)
    if rows.ndim < 2 or len(rows) < least or not rows.size or rows.dtype.kind not in "fiu":
        raise ValueError(f"samples are {rows.dtype} {rows.shape}: give numbers (n, ...), n >= {least}")
    return rows.reshape(len(rows), -1)

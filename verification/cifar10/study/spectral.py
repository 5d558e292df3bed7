"""The Frechet distance of two laws of images that look the same in every place: what exact moments predict, measured.

Of n images in 3,072 dimensions, n far below, the Frechet distance of the fitted Gaussians is the samples' own scatter
(cifar10.study.frechet). But statistics of natural images hardly change with place and direction. Then Fourier
modes are uncorrelated, and their power depends on the wavenumber's length alone: after an orthonormal mix of the
channels (their sum, which is the brightness, and two differences, which are colours) the covariance is diagonal, with
p_cr on the ring r of channel c (cifar10.study.rings), and

    d(x, y) = |mu_x - mu_y|^2 + sum_cr n_r (sqrt(p^x_cr) - sqrt(p^y_cr))^2,     n_r wavenumbers in ring r,

the same sum over modes as exact.spectrum's prediction has over eigenvalues of the data's covariance. Each p is a
mean over a ring and all rows, and well known from few of them. What is left out is what correlations of modes and the
directions of wavenumbers add.

The first term is a U-statistic over pairs of rows. The second, of estimated powers, is biased by O(1/n), which the
jackknife removes; its standard error is the jackknife's too. Rows are coupled, and so are left out together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ...verdicts import Array, Estimate
from .rings import rings


def spectral_distance(x: NDArray[Any], y: NDArray[Any]) -> Estimate:
    """d of images x and y (n, channels, side, side), n >= 3, coupled row by row, different rows independent; in the
    squared units of the images, summed over pixels. Unbiased to O(1/n^2), so it may be negative for equal laws."""
    n = len(x)
    difference = (x.astype(float) - y).reshape(n, -1)
    total, squares = difference.sum(0), (difference**2).sum(1)
    pairs = float(total @ total) - squares.sum()
    means = (pairs - 2 * (difference @ total) + 2 * squares) / ((n - 1) * (n - 2))
    shape, without = _shape(x, y)
    value = pairs / (n * (n - 1)) + n * shape - (n - 1) * float(without.mean())
    spread = means + without
    return Estimate(value, math.sqrt((n - 1) / n * float(((spread - spread.mean()) ** 2).sum())))


def _shape(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, Array]:
    """The second term of all rows, and with each of them left out (n,)."""
    n, counts = len(x), rings(x.shape[2]).counts
    sums, left = [], []
    for images in (x, y):
        power = _powers(images.astype(float))  # (n, channels, rings), about the mean of all rows
        total = power.sum(0)
        sums.append(total / (n - 1))
        # without row j the mean moves by (row - mean) / (n - 1), and the sum of squares by n / (n - 1) of the row's
        left.append((total - power * (n / (n - 1))) / (n - 2))
    both = (np.sqrt(np.maximum(entries, 0.0)) for entries in sums)
    each = (np.sqrt(np.maximum(entries, 0.0)) for entries in left)
    (a, b), (c, d) = both, each
    return float((counts * (a - b) ** 2).sum()), (counts * (c - d) ** 2).sum((1, 2))


def _powers(images: Array) -> Array:
    """|FFT2|^2 / side^2 of the mixed channels less their mean over rows, averaged over each ring."""
    n, channels, side = images.shape[:3]
    mix = np.asarray(fft.dct(np.eye(channels), axis=0, norm="ortho"))  # rows: the sum, then differences
    centred = np.einsum("ij,njab->niab", mix, images - images.mean(0))
    modes = np.abs(np.asarray(fft.fft2(centred))) ** 2 / side**2
    return modes.reshape(n, channels, -1) @ rings(side).average

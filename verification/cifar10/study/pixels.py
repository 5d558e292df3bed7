"""The first two moments of a user's images: their pixels' moments, and their spectrum for exact predictions.

With n images as rows z in R^dim, mean mu and covariance C = (1/n) sum (z - mu)(z - mu)^T = V diag(s2) V^T, both are
read off one decomposition: the spectrum is (s2, |V^T mu|) (exact.spectrum), and the factor of the moments
diag(s) V^T sqrt(n / (n - 1)).
Where n <= dim it is the singular value decomposition of the centred rows, which has the eigenvalues that are not 0
and no more; in all other directions the variance is 0, and the mean's part there is one coordinate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...exact import Spectrum
from ...verdicts import Array
from ..model import to_unit
from .frechet import Moments

_ROWS = 2048  # images that are made float64 at once


class PixelLaw(NamedTuple):
    """Of images in [-1, 1]."""

    moments: Moments
    spectrum: Spectrum


def pixel_law(images: NDArray[np.uint8]) -> PixelLaw:
    """The moments of uint8 images (n, channels, side, side), n >= 2, and their spectrum; 5 minutes for side 64 where
    images are more than the 12,288 pixels. Raises ValueError on fewer images, or without pixels."""
    n, dim = len(images), math.prod(images.shape[1:])
    if n < 2 or not dim:
        raise ValueError(f"images {images.shape}: give (n, channels, side, side), n >= 2")
    mean = np.asarray(sum(_rows(images, first).sum(0) for first in range(0, n, _ROWS)) / n)
    values, vectors = (_few if n <= dim else _many)(images, mean)
    values = np.maximum(values, 0.0)
    along = vectors @ mean
    rest = math.sqrt(max(float(mean @ mean - along @ along), 0.0)) if len(values) < dim else 0.0
    variances, means = np.zeros((2, dim))
    variances[: len(values)], means[: len(values)] = values, np.abs(along)
    if len(values) < dim:
        means[len(values)] = rest
    factor = np.sqrt(values * (n / (n - 1)))[:, None] * vectors
    return PixelLaw(Moments(mean, factor), Spectrum(variances, means, n))


def _rows(images: NDArray[np.uint8], first: int) -> Array:
    return to_unit(images[first : first + _ROWS]).numpy().reshape(-1, math.prod(images.shape[1:]))


def _few(images: NDArray[np.uint8], mean: Array) -> tuple[Array, Array]:
    """Eigenvalues (k,), descending, and orthonormal rows (k, dim), of at most as many images as pixels; k < n."""
    centred = np.concatenate([_rows(images, first) for first in range(0, len(images), _ROWS)]) - mean
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * max(centred.shape) * np.finfo(float).eps
    return singular[kept] ** 2 / len(images), vectors[kept]


def _many(images: NDArray[np.uint8], mean: Array) -> tuple[Array, Array]:
    """The same of more images than pixels; k = dim."""
    cov = np.zeros((len(mean), len(mean)))
    for first in range(0, len(images), _ROWS):
        centred = _rows(images, first) - mean
        cov += centred.T @ centred
    ascending, vectors = np.linalg.eigh(cov / len(images))
    return ascending[::-1], vectors.T[::-1]

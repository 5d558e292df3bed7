"""What a coupled pair of image sets says: weak errors, distances of laws, the strong error, each with its error bar.

Images x (of a scheme) and y (of the reference) are n rows of (channels, side, side). Row j of both has the same start
and the same Brownian motion; different rows are independent. A weak error is E f(x) - E f(y), and its estimate is

    d = mean over j of D_j,     D_j = f(x_j) - f(y_j) (F,),     Cov d = Cov D / n,

with a small covariance where the runs are close. A quantity is a set of functionals, each in a unit of its own, and
its weak error is the root mean square over the set, the noise removed (`estimates.Norm`):

    mean              x, each pixel of each channel; units of data, where white is 1 and black -1
    spectrum          p_cr, the covariance's power in channel c at wavenumbers k with round(|k|) = r, over the
                      reference's: all rings count alike, whatever their power
    higher moments    averages over the image of x^3, x^4 and of (dx)^2, (dx)^4, dx the differences of neighbours along
                      rows and columns (what an eye sees as sharpness and edges), over powers of the reference's
                      standard deviations of x and dx
    Fourier features  cos(omega.x + phase) for fixed omega (`waves`)

`relative` is the error over the quantity's own size: the pixels' standard deviation under the reference, 1, the root
mean square of the reference's moments, and that of a cosine, sqrt(1/2). Units c come from the reference's rows and have
errors of their own: to first order E d / c is a mean of rows

    D_j / c - (d / c) (c_j / c - 1),    c_j what row j adds to c (of a power of it, as often),

and these are the rows that error bars come from: of a power ratio, x's power less the ratio times y's. Without the
second part they are 1.4 times too small where the sets are not coupled and the error is as large as the unit.

The spectrum. With xbar the mean of the n rows, |FFT2(x_jc - xbar_c)|^2 n / (n - 1) / side^2, averaged over j and the
ring, is an unbiased estimate of the covariance's power p_cr, and each set is centred by its own mean (with the
reference's mean for both, row j would meet itself in it, and a scheme that loses the coupling would seem to have more
power: the bias is 2 / n of it, as large as the noise of a ring of a hundred wavenumbers). The rows' scatter misses what
the means add to the variance, 1/n of it. The rings are r = 0 .. side/2, and one more for all that is further out: the
corners, at their mean wavenumber. By Parseval, the sum over rings of (wavenumbers in the ring) p_cr is side^2 times the
mean variance of a pixel; white noise of variance 1 has power 1 in every ring.

Distances of the two laws are those of sampled.distances, whose rows are the images (coupled row by row), and the
spectral Frechet distance, of the Gaussians with the laws' means and powers (cifar10.study.spectral): what is
predicted.

More rows than `MOST_ROWS` are averaged with their neighbours first (a mean of rows is a row); distances, which cost
n^2, are of the first `DISTANCE_ROWS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from ....integrators.noise import START, normal_pairs
from ...sampled import SEED, distances, energy_distance, sliced_wasserstein
from ...verdicts import Array, Estimate, Norm
from .cells import TOO_LARGE, is_bounded
from .rings import rings
from .spectral import spectral_distance

QUANTITIES = ("mean", "spectrum", "higher moments", "Fourier features")
DISTANCES = (*distances.DISTANCES, "spectral Fréchet")
MOMENTS = ("x^3", "x^4", "(dx)^2 along rows", "(dx)^2 along columns", "(dx)^4 along rows", "(dx)^4 along columns")

MOST_ROWS = 512  # of D: enough for its covariance, and 6 MB for 3,072 functionals
DISTANCE_ROWS = 4096
FEWEST_FOR_DISTANCES = 8
_CHUNK = 256  # images made float64 at once

# omega.x has these standard deviations, about, on natural images: pixels in [-1, 1] have this variance, and power falls
# like (1 + |k|^2)^-STEEPNESS (van der Schaaf and van Hateren 1996: amplitudes like 1 / k; small images blur, too).
FEATURES, DEVIATIONS = 66, (0.5, 1.0, 2.0)
PIXEL_VARIANCE, STEEPNESS = 0.25, 1.5


@dataclass(frozen=True)
class WeakError:
    """The error of one quantity: `norm` in its units, and the quantity's `size` under the reference."""

    norm: Norm
    size: float

    @property
    def relative(self) -> float:
        """The error over the quantity's size."""
        return self.norm.value / self.size

    def as_dict(self) -> dict[str, Any]:
        """For JSON. sure: whether it stands above 4 standard errors of noise."""
        return {**self.norm._asdict(), "relative": self.relative, "sure": self.norm.is_sure}


@dataclass(frozen=True)
class Power:
    """Radially averaged power of the covariance: wavenumber (rings,); ratio to the reference's with its standard error
    (channels, rings)."""

    wavenumber: Array
    ratio: Array
    standard_error: Array


@dataclass(frozen=True, eq=False)
class CellStatistics:
    """What `samples` coupled pairs say. A cell that `diverged` has None and empty mappings.

    rows: per quantity D (at most `MOST_ROWS`, F) in the quantity's units over sqrt(F), float32, so that the norm of
    their mean is the weak error; equal places are equal sample numbers in all cells with as many samples.
    distance_samples: how many rows the distances are of.
    """

    samples: int
    weak: Mapping[str, WeakError] = field(default_factory=dict)
    rows: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    power: Power | None = None
    moments: Mapping[str, Estimate] = field(default_factory=dict)
    strong: Estimate | None = None
    distances: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether an image was not finite, or beyond `sampling.TOO_LARGE`."""
        return self.strong is None

    @property
    def distance_samples(self) -> int:
        """How many rows the distances are of."""
        return min(self.samples, DISTANCE_ROWS)

    def as_dict(self, slopes: Mapping[str, float | None] | None = None) -> dict[str, Any]:
        """For JSON; slopes: of each quantity, from the cell before. None stands for what does not exist."""
        missing = dict.fromkeys((*Norm._fields, "relative")) | {"sure": False}
        none = dict.fromkeys(Estimate._fields)
        weak = {name: self.weak[name].as_dict() if name in self.weak else missing for name in QUANTITIES}
        return {
            "diverged": self.diverged,
            "weak": {name: entry | {"slope": (slopes or {}).get(name)} for name, entry in weak.items()},
            "power": None if self.power is None else {k: v.tolist() for k, v in vars(self.power).items()},
            "moments": {name: entry._asdict() for name, entry in self.moments.items()},
            "strong": none if self.strong is None else self.strong._asdict(),
            "distances": {
                name: self.distances[name]._asdict() if name in self.distances else none for name in DISTANCES
            },
            "distance_samples": self.distance_samples,
        }


def compare_images(x: ArrayLike, y: ArrayLike) -> CellStatistics:
    """The statistics of images x against those of the reference, y: (n, channels, side, side), n >= 2, coupled row by
    row, in units where data are in [-1, 1].

    Raises ValueError if the shapes are others, or the reference diverged.
    """
    x, y = np.asarray(x), np.asarray(y)
    found = compare_functionals(x, y)
    if found.diverged or len(x) < FEWEST_FOR_DISTANCES:
        return found
    return replace(found, distances=_distances(x[:DISTANCE_ROWS], y[:DISTANCE_ROWS]))


def compare_functionals(x: ArrayLike, y: ArrayLike) -> CellStatistics:
    """As `compare_images`, without distances, which take most of its time."""
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape or x.ndim != 4 or x.shape[2] != x.shape[3] or len(x) < 2:
        raise ValueError(
            f"images {x.shape} and {y.shape}: give two sets (n, channels, side, side) of one shape, n >= 2"
        )
    if not is_bounded(y):
        raise ValueError(f"the reference is not finite, or beyond {TOO_LARGE:g}; refine it, or choose another")
    n = len(x)
    if not is_bounded(x):
        return CellStatistics(n)
    parts = _row_means(x, y)
    power_x, power_y = (parts[side, "spectrum"].mean(0) for side in (0, 1))
    moments_y = parts[1, "higher moments"].mean(0)
    average = rings(x.shape[2]).counts / x.shape[2] ** 2
    variances = power_y.reshape(x.shape[1], -1) @ average
    units = {name: _Units.known(D.shape[1:]) for (side, name), D in parts.items() if side == 0}
    units["spectrum"] = _Units.of(parts[1, "spectrum"])
    units["higher moments"] = _moment_units(
        parts[1, "spectrum"].reshape(-1, len(variances), len(average)) @ average,
        parts[1, "higher moments"].reshape(-1, len(variances), len(MOMENTS)),
    )
    sizes = {
        "mean": math.sqrt(float(variances.mean())) or 1.0,
        "spectrum": 1.0,
        "higher moments": _root_mean_square(moments_y / units["higher moments"].size) or 1.0,
        "Fourier features": math.sqrt(0.5),
    }
    rows = {name: parts[0, name] - parts[1, name] for name in QUANTITIES}
    scaled = {name: (units[name].rows(D) / math.sqrt(D.shape[1])).astype(np.float32) for name, D in rows.items()}
    ratio = power_x / _positive(power_y)
    deviations = (parts[0, "spectrum"] - ratio * parts[1, "spectrum"]) / _positive(power_y)
    squares = parts[0, "squares"][:, 0]
    return CellStatistics(
        samples=n,
        weak={name: WeakError(Norm.of(D), sizes[name]) for name, D in scaled.items()},
        rows=scaled,
        power=Power(
            rings(x.shape[2]).wavenumber,
            ratio.reshape(x.shape[1], -1),
            standard_error(deviations).reshape(x.shape[1], -1),
        ),
        moments=_named_moments(rows["higher moments"], x.shape[1]),
        strong=_strong(squares),
    )


# --- Means of rows ----------------------------------------------------------------------------------------------------


def standard_error(rows: Array) -> Array:
    """Of the mean of rows (n, ...)."""
    return rows.std(0, ddof=1) / math.sqrt(len(rows))


def _row_means(x: NDArray[Any], y: NDArray[Any]) -> dict[tuple[int, str], Array]:
    """The functionals of x (0) and y (1), a row for each sample, or each block of neighbours if there are more than
    `MOST_ROWS`: blocks differ by one sample at most, and their means are counted alike, which keeps E exact."""
    n, block = len(x), math.ceil(len(x) / MOST_ROWS)
    edges = np.linspace(0, n, math.ceil(n / block) + 1).astype(int)
    means = [images.mean(0, dtype=np.float64) for images in (x, y)]
    found: dict[tuple[int, str], list[Array]] = {}
    stride = max(1, _CHUNK // block)
    for first in range(0, len(edges) - 1, stride):
        chunk = edges[first : first + stride + 1]
        pair = [images[chunk[0] : chunk[-1]].astype(float) for images in (x, y)]
        squares = ((pair[0] - pair[1]) ** 2).mean((1, 2, 3))[:, None]
        for side, (images, mean) in enumerate(zip(pair, means, strict=True)):
            values = _functionals(images, mean, n) | {"squares": squares}
            for name, rows in values.items():
                sums = np.add.reduceat(rows, chunk[:-1] - chunk[0], axis=0)
                found.setdefault((side, name), []).append(sums / np.diff(chunk)[:, None])
    return {key: np.concatenate(chunks) for key, chunks in found.items()}


def _functionals(images: Array, mean: Array, samples: int) -> dict[str, Array]:
    """All functionals of images (n, channels, side, side): {quantity: (n, F)}. mean: of the set of all `samples`."""
    n, channels, side = images.shape[:3]
    omega, phase = waves(channels, side)
    across, down = np.diff(images, axis=3) ** 2, np.diff(images, axis=2) ** 2
    square = images**2
    averages = [v.mean((2, 3)) for v in (square * images, square**2, across, down, across**2, down**2)]
    power = np.abs(np.asarray(fft.fft2(images - mean))) ** 2 * (samples / (samples - 1) / side**2)
    return {
        "mean": images.reshape(n, -1),
        "spectrum": (power.reshape(n, channels, -1) @ rings(side).average).reshape(n, -1),
        "higher moments": np.stack(averages, axis=2).reshape(n, -1),
        "Fourier features": np.cos(images.reshape(n, -1) @ omega.T + phase),
    }


@cache
def waves(channels: int, side: int) -> tuple[Array, Array]:
    """omega (FEATURES, channels side^2) and phases (FEATURES,), fixed.

    omega is white noise, or in Fourier space white noise over sqrt(p(k)), p the power of natural images: omega.x then
    weighs coarse and fine structure by its power, or alike. Its length makes the variance of omega.x, on average
    sum_k |omega_k|^2 p(k) / side^2, that of `DEVIATIONS` for p(k) ~ (1 + |k|^2)^-STEEPNESS of mean `PIXEL_VARIANCE`.
    """
    numbers = normal_pairs(SEED, torch.arange(FEATURES), START, (channels * side**2 + 1,)).numpy()
    fields = numbers[:, 0, :-1].reshape(FEATURES, channels, side, side)
    phase = np.arctan2(numbers[:, 0, -1], numbers[:, 1, -1])
    k = fft.fftfreq(side) * side
    natural = (1 + k[:, None] ** 2 + k**2) ** -STEEPNESS
    natural *= PIXEL_VARIANCE / natural.mean()
    kind = np.arange(FEATURES)
    deviation = np.array(DEVIATIONS)[kind % len(DEVIATIONS)]
    whitened = (kind // len(DEVIATIONS) % 2 == 1)[:, None, None, None]
    spectrum = np.asarray(fft.fft2(fields)) * np.where(whitened, 1 / np.sqrt(natural), 1.0)
    gain = np.where(whitened, 1 / natural, 1.0)
    variance = channels * (gain * natural).sum((1, 2, 3))
    omega = np.real(np.asarray(fft.ifft2(spectrum))) * (deviation / np.sqrt(variance))[:, None, None, None]
    return omega.reshape(FEATURES, -1), phase


class _Units(NamedTuple):
    """Units of functionals, size (F,), and what each row of the reference adds to them, relative (n, F) with mean 0."""

    size: Array
    scatter: Array | float

    @classmethod
    def known(cls, shape: tuple[int, ...]) -> _Units:
        """Units that are 1."""
        return cls(np.ones(shape), 0.0)

    @classmethod
    def of(cls, rows: Array, power: Array | float = 1.0) -> _Units:
        """A power of the mean of rows (n, F); 1 where that is 0."""
        mean = rows.mean(0)
        return cls(_positive(mean**power), np.where(mean > 0, power * (rows / _positive(mean) - 1), 0.0))

    def rows(self, differences: Array) -> Array:
        """The rows of the error in these units."""
        return (differences - differences.mean(0) * self.scatter) / self.size


def _moment_units(variances: Array, moments: Array) -> _Units:
    """Powers of the standard deviations of x and of dx, from the rows of the reference's variances (n, channels) and
    moments (n, channels, 6)."""
    across, down = moments[:, :, 2], moments[:, :, 3]
    rows = np.stack([variances, variances, across, down, across, down], axis=2)
    return _Units.of(rows.reshape(len(rows), -1), np.tile([1.5, 2, 1, 1, 2, 2], moments.shape[1]))


def _named_moments(rows: Array, channels: int) -> dict[str, Estimate]:
    names = ("red", "green", "blue") if channels == 3 else tuple(f"channel {c + 1}" for c in range(channels))
    labels = [f"{moment}, {name}" for name in names for moment in MOMENTS]
    return dict(zip(labels, map(Estimate, rows.mean(0).tolist(), standard_error(rows).tolist()), strict=True))


def _strong(squares: Array) -> Estimate:
    """The root of a mean square, by the delta method; of equal sets 0 +- 0."""
    value = math.sqrt(float(squares.mean()))
    return Estimate(value, float(standard_error(squares)) / (2 * value) if value > 0 else 0.0)


def _positive(values: Array) -> Array:
    """Units: 1 where there is nothing to measure in."""
    return np.where(values > 0, values, 1.0)


def _root_mean_square(values: Array) -> float:
    return math.sqrt(float((values**2).mean()))


# --- Distances --------------------------------------------------------------------------------------------------------


def _distances(x: NDArray[Any], y: NDArray[Any]) -> dict[str, Estimate]:
    """All, of images of one shape."""
    first, second = (images.reshape(len(images), -1).astype(float) for images in (x, y))
    found = energy_distance(first, second), sliced_wasserstein(first, second), spectral_distance(x, y)
    return dict(zip(DISTANCES, found, strict=True))

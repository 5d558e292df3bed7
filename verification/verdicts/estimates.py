"""Means of samples and their sizes, with error bars that a suite can rely on.

A vector of means d estimates E D from n independent rows D_j, or from the means of blocks of them, with covariance
Cov d = Cov D / n. The size of such a vector (`Norm`) has the noise of every component in it, so that is removed:

    value           sqrt(w), w = |d|^2 - tr Cov d, 0 if noise is all there is: E |d|^2 = |E D|^2 + tr Cov d
    standard error  half the length of what sqrt makes of w +- sd(w), where for normal rows with C = Cov d, mu = E D,

                        Var w = 4 mu.C mu + 2 tr C^2 n / (n - 1),

                    the second part from the noise by itself, and from the estimate of its trace. Far above the noise
                    this is the error along the vector, sqrt(mu.C mu) / |mu|, at most 6% less than the true one below
                    it, and a fifth more where noise is all there is
    noise           sqrt(tr Cov d)

and it is sure if it stands above `SURE` times its noise. A comparison with an exact answer is at z standard errors, the
z of `ALARM_RATE`, the false alarms of the whole suite, divided by its number of comparisons (`threshold`): 6.5, and
more where the standard error itself is known from few rows, 9.7 for 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .algebra import Array

SURE = 4.0

# One false alarm in a million for the whole suite. It makes at most this many comparisons: 12 schemes of the catalogue
# and as many controls on 5 targets, each with 6 orders and up to 50 limits, and as many again in tests.
ALARM_RATE, COMPARISONS = 1e-6, 2 * 24 * 5 * 56


def threshold(comparisons: int = COMPARISONS, rate: float = ALARM_RATE, rows: int | None = None) -> float:
    """z such that none of `comparisons` numbers exceeds z in size, but with probability `rate` (Bonferroni): normal
    ones, or (rows) means of so many normal rows over the standard errors that these rows show, Student's."""
    from scipy.special import ndtri, stdtrit  # half a second, which exact studies need not wait

    tail = rate / (2 * comparisons)
    return float(-ndtri(tail) if rows is None else -stdtrit(max(rows - 1, 1), tail))


class Estimate(NamedTuple):
    """A number estimated from samples, and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class BlockMeans:
    """Means over blocks of `size` paths, (blocks, columns), float64, and what they cost in seconds."""

    values: Array
    size: int
    seconds: float = 0.0

    @property
    def paths(self) -> int:
        """How many paths went in."""
        return len(self.values) * self.size

    @cached_property
    def mean(self) -> Array:
        """(columns,)."""
        return self.values.mean(0)

    @cached_property
    def cov(self) -> Array:
        """The covariance of one path's values, (columns, columns), from that of the blocks."""
        return np.atleast_2d(np.cov(self.values, rowvar=False)) * self.size

    @property
    def standard_error(self) -> Array:
        """Of the mean, (columns,)."""
        return np.sqrt(np.diag(self.cov) / self.paths)

    def take(self, columns: Any, offset: Array | float = 0.0) -> BlockMeans:
        """Some columns, less an offset."""
        return replace(self, values=self.values[:, columns] - offset)


class Norm(NamedTuple):
    """The size of a vector of means: `value` without the bias of its noise, its standard error, and the size of the
    noise itself."""

    value: float
    standard_error: float
    noise: float

    @property
    def is_sure(self) -> bool:
        """Whether it stands above `SURE` times its noise, and is finite."""
        return self.value > SURE * self.noise

    @classmethod
    def of(cls, rows: ArrayLike) -> Norm:
        """Of the mean of independent rows (n, F), n at least 2: paths, or means of blocks of equally many.

        The trace of the mean's covariance, its form along the mean and the trace of its square follow from the rows: no
        F x F matrix is formed.
        """
        rows = np.asarray(rows, dtype=float)
        n, mean = len(rows), rows.mean(0)
        centred = rows - mean
        noise = math.sqrt(float((centred**2).sum()) / (n - 1) / n)
        square = float(mean @ mean) - noise**2
        along = float(((centred @ mean) ** 2).sum()) / ((n - 1) * n)  # mu.C mu + tr C^2, on average
        itself = _square_trace(centred, noise)
        chance = 2 * itself * n / (n - 1)
        deviation = math.sqrt(max(4 * (along - itself) + chance, chance))
        square = max(square, 0.0)
        low = math.sqrt(max(square - deviation, 0.0))
        return cls(math.sqrt(square), (math.sqrt(square + deviation) - low) / 2, noise)


def _square_trace(centred: Array, noise: float) -> float:
    """tr C^2 of the covariance C of a mean, from its centred rows (n, F), without bias for normal rows; between its
    bounds noise^4 / F and noise^4, which is taken where rows are too few to tell."""
    n, functionals = centred.shape
    if n < 4:
        return noise**4
    gram = centred @ centred.T if n < functionals else centred.T @ centred
    raw = float((gram**2).sum()) / ((n - 1) * n) ** 2
    square = (n - 1) ** 2 / ((n + 1) * (n - 2)) * (raw - noise**4 / (n - 1))
    return min(max(square, noise**4 / functionals), noise**4)

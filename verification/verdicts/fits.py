"""The order of errors at increasing numbers of steps N, with an interval: of exact errors, and of sampled ones.

With h = span / N, an error C h^p (1 + O(h)) has local slopes s_k = log(e_k / e_k+1) / log r, r = N_k+1 / N_k, that
tend to p, and their distance to p falls at least like 1/r from level to level (it halves with every doubling).

Of exact errors (`fit_order`), from the finest four levels:

    estimate   s_k + (s_k - s_k-1) / (r - 1) (the O(h) term removed)
    interval   +- max(|s_k - s_k-1|, |s_k-1 - s_k-2| / r) / (r - 1), which covers what is left if the slopes converge
    so;
               unbounded if they do not: if |s_k - s_k-1| > `CONTRACTION` |s_k-1 - s_k-2| + `STEADY`; noise of known
               size in the errors is allowed for, and widens the interval

Slopes may go on moving though the order is plain, where an error changes its sign with h or falls faster than is
asked. Then e(h) / h^p tells it (`error_constant`): if that tends to a limit, 0 or not, the order is p or more.

Of sampled errors (`sampled_fit`), from three or more levels and resamples of them: a weighted regression through the
last three, four, ... levels, or the slope of the last two, whichever is known best. Its interval is +- (z standard
errors, by bootstrap, z = `estimates.threshold`) + what a change of the slopes leaves (`window_fit`): the largest change
to the last slope within the window, and no less than what the change just before it would have become by then. So
slopes that go and come back, or agree by chance after they moved, conclude nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .algebra import Array
from .estimates import Norm, threshold
from .extrapolation import extrapolate, magnification

# Weak orders are integers: an interval that stays within a quarter of one tells it from its neighbour.
MARGIN = 0.25
# The differences of the slopes of C h^p (1 + O(h)) halve; noise in settled slopes is far below the second number.
CONTRACTION, STEADY = 0.75, 0.005
# A constant e / h^p is known to this part of its largest value at the finest four levels. Of an order that is lower by
# `MARGIN` it grows by 19% with every doubling, and no column of its extrapolation agrees with the next to less.
KNOWN = 0.05
BOOTSTRAPS = 400


@dataclass(frozen=True)
class Fit:
    """The order of one quantity's error: estimate, interval (low, high), and the coarsest and finest steps used."""

    order: float
    low: float
    high: float
    steps: tuple[int, int]

    def __str__(self) -> str:
        interval = (
            f"in [{self.low:.2f}, {self.high:.2f}]" if math.isfinite(self.high) else "(its slopes have not settled)"
        )
        return f"{round(self.order, 2) + 0.0:.2f} {interval}"

    @property
    def is_settled(self) -> bool:
        """Whether it is known to within `MARGIN`."""
        return self.high - self.low <= 2 * MARGIN

    def reaches(self, expected: int) -> bool:
        """Whether all of the interval is above the expected order less `MARGIN`."""
        return self.low >= expected - MARGIN

    def misses(self, expected: int) -> bool:
        """Whether it is settled, and all of it below that: slopes that still move say nothing against an order."""
        return self.is_settled and self.high < expected - MARGIN


def lowest(fits: Mapping[str, Fit], *preferred: Collection[str]) -> Fit | None:
    """The lowest order, as the weak order is that of the worst quantity: of the first set of `preferred` quantities
    that has any, else of all."""
    chosen = next(filter(None, preferred), fits)
    return min((fits[quantity] for quantity in chosen), key=lambda fit: fit.order, default=None)


# --- Of exact errors --------------------------------------------------------------------------------------------------


def fit_order(steps: Array, errors: Array, noise: Array | float = 0.0) -> Fit | None:
    """The order of errors (levels,) from the finest four neighbouring levels that are not nan; None without four.

    The slope of the finest pair is extrapolated once more, as slopes of C h^p (1 + O(h)) converge with the ratio of the
    levels; the half width of the interval is what that changes. It is infinite where the slopes do not settle. noise:
    by how much neighbouring numbers of steps scatter (levels,), which moves slopes and says nothing of the order.
    """
    used = _finest_four(errors)
    if used is None:
        return None
    gaps = np.log(steps[used[1:]] / steps[used[:-1]])
    before, middle, last = np.log(errors[used[:-1]] / errors[used[1:]]) / gaps
    part = (np.broadcast_to(noise, errors.shape) / np.abs(errors))[used]
    free = float(((part[:-1] + part[1:]) / gaps).max())
    ratio = steps[used[-1]] / steps[used[-2]]
    order = float(last + (last - middle) / (ratio - 1))
    half_width = float(max(abs(last - middle), abs(middle - before) / ratio) / (ratio - 1)) + free
    if abs(last - middle) > CONTRACTION * abs(middle - before) + STEADY + 2 * free:
        half_width = math.inf
    return Fit(order, order - half_width, order + half_width, (int(steps[used[0]]), int(steps[used[-1]])))


class Constant(NamedTuple):
    """The limit of e(h) / h^p as h -> 0, its uncertainty, and the largest size at the levels it comes from; falls:
    whether it falls from level to level, and goes on falling if its slope changes once more as it last did."""

    value: float
    uncertainty: float
    largest: float
    falls: bool = False

    @property
    def is_known(self) -> bool:
        """Whether there is a limit: then the order is p, or higher where it is 0."""
        return self.falls or self.uncertainty <= KNOWN * self.largest


def error_constant(steps: Array, errors: Array, order: int, noise: Array | float = 0.0) -> Constant | None:
    """The constant at `order` of errors (levels,), signed or sizes, from the finest four neighbouring levels that are
    not nan; None without four. noise: as in `fit_order`."""
    used = _finest_four(errors)
    if used is None:
        return None
    arguments = 1 / steps[used]
    values = errors[used] / arguments**order
    limit, moved = extrapolate(arguments, [np.array([value]) for value in values])
    free = float((np.broadcast_to(noise, errors.shape)[used] / arguments**order).max())
    uncertainty = max(moved, magnification(arguments) * free)
    sizes = np.abs(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.log(sizes[:-1] / sizes[1:])
    falls = bool(np.append(slopes, 2 * slopes[-1] - slopes[-2]).min() > 0 and sizes[-1] > 2 * free)
    return Constant(float(limit[0]), uncertainty, float(sizes.max()), falls)


def _finest_four(errors: Array) -> NDArray[np.intp] | None:
    """The places of the finest four levels that are not nan, if they are neighbours."""
    good = np.flatnonzero(np.isfinite(errors))
    return None if len(good) < 4 or good[-1] - good[-4] != 3 else good[-4:]


# --- Of sampled errors ------------------------------------------------------------------------------------------------


def last_run(sure: Sequence[bool]) -> slice:
    """The neighbouring levels that stand out from their noise, up to the finest such; empty if there is none."""
    stop = len(sure)
    while stop and not sure[stop - 1]:
        stop -= 1
    start = stop
    while start and sure[start - 1]:
        start -= 1
    return slice(start, stop)


def resampled_norms(rows: Array, count: int = BOOTSTRAPS, seed: int = 0) -> tuple[Norm, Array]:
    """The norm of the mean of rows (n, F), and its square in `count` resamples of the rows, free of noise (count,).

    Equal n, count and seed give the same resamples of row numbers: those of coupled sets belong together.
    """
    norm = Norm.of(rows)
    means = _weights(len(rows), count, seed) @ rows
    # a resample's mean has the noise of the rows and, once more, that of the resampling
    return norm, (means**2).sum(1) - (2 - 1 / len(rows)) * norm.noise**2


@lru_cache(maxsize=1)
def _weights(n: int, count: int, seed: int) -> Array:
    """Of n rows in `count` resamples, (count, n), with sum 1."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), count) / n


def sampled_fit(steps: ArrayLike, norms: Array, resampled: Array, *shifted: Array, rows: int) -> Fit:
    """The order from log norms (k,) of the errors at 3 or more levels, and from resamples of them (k, n), which were
    of `rows` rows, the fewest of all levels.

    shifted: log norms (k,) with a known source of error added to each level; what that changes widens the interval.
    """
    logs, used = np.log(steps), np.asarray(steps)
    windows = [(first, False) for first in range(len(logs) - 3, -1, -1)]
    windows.append((len(logs) - 3, True))
    found, z = [], threshold(rows=rows)
    for first, last_slope in windows:
        fits = [
            window_fit(logs[first:], n[first:], resampled[first:], z, last_slope, _change_before(logs, n, first))
            for n in (norms, *shifted)
        ]
        estimate = fits[0][0]
        half = max(half for _, half in fits) + max(abs(other - estimate) for other, _ in fits)
        found.append((half, estimate, int(used[first])))
    half, order, first = min(found)
    return Fit(order, order - half, order + half, (first, int(used[-1])))


def _change_before(logs: Array, norms: Array, first: int) -> float:
    """How much the slope changes from the levels first - 1 and first to the next two; 0 if there is no such level."""
    if first == 0:
        return 0.0
    slopes = -np.diff(norms[first - 1 : first + 2]) / np.diff(logs[first - 1 : first + 2])
    return float(abs(slopes[1] - slopes[0]))


def window_fit(
    logs: Array, norms: Array, resampled: Array, z: float, last_slope: bool = False, before: float = 0.0
) -> tuple[float, float]:
    """The order from log N and log norms at 3 or more levels (k,), and from resamples of the latter (k, n): estimate
    and half-width of its interval.

    The estimate is the weighted regression's slope (or that of the last two levels); noise is z times its
    bootstrap standard error. What is systematic follows from the change of the slopes over the window: for slopes
    p + a r^-j, which tend to p, an estimate is off by a multiple of their change, which is known. before: the change of
    the slope that led to the window's first; for such slopes those within it add up to `before` (1/r + 1/r^2 + ...).
    """
    variances = resampled.var(axis=1) + np.finfo(float).tiny
    used = np.arange(len(logs)) >= (len(logs) - 2 if last_slope else 0)
    centred = (logs - np.average(logs[used], weights=1 / variances[used])) * used / variances
    slope = -centred / (centred @ logs)  # order = slope @ norms
    gaps = np.diff(logs)
    slopes = -np.diff(norms) / gaps
    decay = np.exp(-(logs[:-1] - logs[0]))
    bent = -np.concatenate([[0.0], np.cumsum(decay * gaps)])  # log norms whose slopes are r^-j
    factor = abs(slope @ bent) / (decay[0] - decay[-1])
    change = max(float(np.abs(slopes - slopes[-1]).max()), before * float(decay[1:].sum()))
    noise = z * float((slope @ resampled).std())
    return float(slope @ norms), noise + float(factor * change)

"""The course of errors that are known exactly: where they follow an order, and where more steps do not help.

Errors C h^p (1 + O(h)) have slopes that tend to p and change less and less. A sampler that does not converge shows
itself otherwise, and no number of steps makes it follow:

    is the same    over the finest three levels it does not change at all: no number of steps does anything
    stagnates      over the finest three levels the error falls by less than order `MARGIN` would make it
    grows          it rises there by more than that
    goes up and    it does one of these, and its slopes have both signs: the error depends on what N is, not on how
    down with N    large (times from a table, integer strides)

Levels that a fit leaves out need not be asymptotic, but where slopes are off by more than `DEPARTS` of an order, the
sampler does something else there, or is far too coarse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .algebra import Array
from .fits import MARGIN, Fit

# The same: no farther apart than rounding of a few steps would make them, of which another number of steps has many.
SAME = 1e-9
# Slopes of the schemes of the catalogue at 25 to 200 steps are off by 0.6 at most.
DEPARTS = 0.75


class Stall(NamedTuple):
    """Errors that do not fall: how, between which numbers of steps, with which order; and the last number of steps up
    to which they fell as expected, None if there is none."""

    how: str
    steps: tuple[int, int]
    order: float
    claimed: tuple[int, int] | None

    def __str__(self) -> str:
        order = "" if self.is_the_same else f" (order {self.order + 0.0:.2f})"
        return f"{self.how} from {self.steps[0]} to {self.steps[1]} steps{order}"

    @property
    def is_the_same(self) -> bool:
        """Whether errors do not change at all."""
        return self.how == "is the same"

    @property
    def as_claimed(self) -> str:
        """Up to where the sampler is as claimed."""
        if self.claimed is None:
            return "over no three levels it falls as claimed"
        return f"it is as claimed from {self.claimed[0]} to {self.claimed[1]} steps only"


def slopes_of(steps: Array, errors: Array) -> Array:
    """Local orders log(e_k / e_k+1) / log(N_k+1 / N_k), (levels - 1,); nan where an error is."""
    return np.log(errors[:-1] / errors[1:]) / np.log(steps[1:] / steps[:-1])


def is_the_same(errors: Array) -> bool:
    """Whether errors (levels, ...) do not change over the finest three levels."""
    last = errors[-3:]
    return len(last) == 3 and bool(np.abs(last - last[-1]).max() <= SAME * np.abs(last[-1]).max())


def stall_of(steps: Array, errors: Array, expected: int) -> Stall | None:
    """Whether errors (levels,) fail to fall over the finest three levels; nan, as below rounding, is not known, and
    then nothing is said."""
    last, slopes = slice(-3, None), slopes_of(steps, errors)
    if len(steps) < 3 or not np.isfinite(errors[last]).all() or not (errors[last] > 0).all():
        return None
    order = float(np.log(errors[-3] / errors[-1]) / np.log(steps[-1] / steps[-3]))
    if order >= MARGIN:
        return None
    # an error that changes its sign with h may dip and rise again, and falls all the same over four levels
    if len(steps) > 3 and np.log(errors[-4] / errors[-1]) / np.log(steps[-1] / steps[-4]) >= expected / 2:
        return None
    # how far back it goes on like this
    start = len(steps) - 3
    if same := is_the_same(errors):
        start = int(np.flatnonzero(np.abs(errors - errors[-1]) <= SAME * errors[-1])[0])
    while not same and start and np.isfinite(slopes[start - 1]) and abs(slopes[start - 1]) < expected - MARGIN:
        start -= 1
    part = slopes[start:]
    both = part.max() > MARGIN and part.min() < -MARGIN
    how = "is the same" if same else "goes up and down" if both else "grows" if order < -MARGIN else "stagnates"
    order = float(np.log(errors[start] / errors[-1]) / np.log(steps[-1] / steps[start]))
    return Stall(how, (int(steps[start]), int(steps[-1])), order, claimed_range(steps, errors, expected))


def claimed_range(steps: Array, errors: Array, expected: int) -> tuple[int, int] | None:
    """The last run of three or more levels over which errors fell with at least the expected order less a half."""
    good = slopes_of(steps, errors) >= expected - 0.5
    stop = len(good)
    while stop:
        while stop and not good[stop - 1]:
            stop -= 1
        start = stop
        while start and good[start - 1]:
            start -= 1
        if stop - start >= 2:
            return int(steps[start]), int(steps[stop])
        stop = start
    return None


def departing(steps: Array, errors: Array, fit: Fit) -> tuple[int, float] | None:
    """Of the levels coarser than a fit's, the finest that departs from it: its number of steps, and the slope from
    there to the next; None if all follow."""
    slopes = slopes_of(steps, errors)
    coarse = np.flatnonzero((steps[:-1] < fit.steps[0]) & (np.abs(slopes - fit.order) > DEPARTS))
    return None if len(coarse) == 0 else (int(steps[coarse[-1]]), float(slopes[coarse[-1]]))


def zigzags(steps: Array, errors: Array) -> bool:
    """Whether the last slopes swing to and fro by as much as before and more than `MARGIN`: then the error is no smooth
    function of h in this range, and finer levels need not be smoother."""
    slopes = slopes_of(steps, errors)
    slopes = slopes[np.isfinite(slopes)]
    if len(slopes) < 4:
        return False
    before, change = np.diff(slopes)[-2:]
    return bool(before * change < 0 and abs(change) > MARGIN and abs(change) >= 0.75 * abs(before))

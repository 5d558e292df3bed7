"""The short runs that a black box is judged by: where they begin, how long they are, and their rates' limits.

Of a run of length h (blackbox.anatomy) the rates (P - I) / h, sum_k K_k / h, Q / h and b / h are extrapolated to h = 0
(Richardson), with an uncertainty: what the extrapolation moves by, and rounding. A step remembers nothing: one step is
a run. Of what keeps state the rates are those of the later steps of a longer run, beyond a shorter one with steps of
the same size. What the limits should be is blackbox.consistency's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from ...theory.model import Parameters
from ..targets import point
from ..verdicts import Array, extrapolate, magnification
from .anatomy import Anatomy, Dissection

# Where the limits are taken, and the lengths h of the runs; from the last of them Richardson reaches about 1e-10.
TIMES = (0.1, 0.4, 0.7, 0.95)
LENGTHS = tuple(2.0**-k for k in range(6, 12))
# Further times, off any grid that people use, the first close to the start, and as many more down to the cut-off,
# looked at with fewer lengths.
BETWEEN = (0.0047, 0.0313, 0.1973, 0.3137, 0.5093, 0.6171, 0.7917, 0.8671)
LATE, LAST = 0.1, 1.5  # from this t on, down to so many cut-offs
FEWER = 4
# The steps of the runs of what keeps state, a shorter and a longer one.
STEPS = (4, 8)
# Rounding of (P - I) / h: a few units of 2^-53, over the shortest h, magnified by the extrapolation.
MAGNIFICATION = magnification(LENGTHS)


class Spot(NamedTuple):
    """Short runs from one time: of the lengths (n,), and as many shorter ones with steps of the same size, of a step
    that remembers nothing none."""

    tau: float
    lengths: tuple[float, ...]
    runs: tuple[Anatomy, ...]
    shorter: tuple[Anatomy, ...] = ()

    def rates(self, measured: Mapping[str, Array] | None = None) -> dict[str, tuple[Array, Array]]:
        """The limits of the rates, each with the uncertainties of its entries; measured: what float32
        makes of each, by default what it makes of the largest."""
        spans = np.array([run.taus[-1] - run.taus[0] for run in self.runs])
        if self.shorter:
            spans = spans - [run.taus[-1] - run.taus[0] for run in self.shorter]
        # a few units of 2^-53 in every part, over the shortest length, magnified by the extrapolation
        least, most = (x / spans[-1] for x in (16 * 2.0**-53, max(run.rounding for run in self.runs)))
        limits = {}
        for name, of in RATES.items():
            values = np.array(self.over_time(of))
            limit, unsure = extrapolate(self.lengths, values)
            floor = np.full(limit.shape, MAGNIFICATION * (least + most))
            if measured is not None:
                each = [extrapolate(self.lengths, values[(slice(None), *place)]) for place in np.ndindex(limit.shape)]
                limit, unsure = (np.array(x).reshape(limit.shape) for x in zip(*each, strict=True))
                floor = MAGNIFICATION * (least + measured[name])
            limits[name] = limit, np.maximum(unsure, floor)
        return limits

    def over_time(self, part: Callable[[Anatomy], Array]) -> list[Array]:
        """A part of the runs over what they last; of the later steps alone, where there are shorter runs."""
        values, spans = [part(run) for run in self.runs], [run.taus[-1] - run.taus[0] for run in self.runs]
        if self.shorter:
            values = [value - part(run) for value, run in zip(values, self.shorter, strict=True)]
            spans = [span - run.taus[-1] + run.taus[0] for span, run in zip(spans, self.shorter, strict=True)]
        return [value / span for value, span in zip(values, spans, strict=True)]


RATES: dict[str, Callable[[Anatomy], Array]] = {
    "drift": lambda run: run.moved,
    "gain": lambda run: run.gains.sum(0),
    "noise": lambda run: run.noise_cov,
    "offset": lambda run: run.offset,
}


def times_of(params: Parameters) -> dict[float, tuple[float, ...]]:
    """Where short runs begin, in order, with their lengths; the last ones stop short of the cut-off."""
    late = np.geomspace(LATE, LAST * params.eps, 7)[1:] if LAST * params.eps < LATE else ()
    found = dict.fromkeys(TIMES, LENGTHS)
    for t in (*(params.T - tau for tau in BETWEEN), *late):
        if t > params.eps:
            longest = min(2.0**-8, (t - params.eps) / 4)
            found[params.T - float(t)] = tuple(longest * 2.0**-k for k in range(FEWER))
    return dict(sorted(found.items()))


def look(
    anatomy: Dissection, params: Parameters, counts: tuple[int, ...], at: Collection[float] | None = None
) -> list[Spot]:
    """The short runs at all times, or at some; counts: of their steps."""

    # a run of several steps costs as many, and three lengths tell a factor
    most = None if counts == (1,) else 3
    lengths = {tau: h if h == LENGTHS else h[:most] for tau, h in times_of(params).items() if at is None or tau in at}
    grids = {
        tau: [[tau + h / counts[-1] * np.arange(count + 1.0) for h in every] for count in counts[::-1]]
        for tau, every in lengths.items()
    }
    # networks that predict eps take the kernel there
    point(params, anatomy.diffusion).keep(
        [params.T - tau for each in grids.values() for runs in each for run in runs for tau in run]
    )
    return [Spot(tau, lengths[tau], *(tuple(map(anatomy, runs)) for runs in each)) for tau, each in grids.items()]

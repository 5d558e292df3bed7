"""The times at which a black box asks for its score, and the grid that they may lie on.

A score is asked for at t = T - tau - c h. Discrete networks know a table of times: what is asked for then lies on a
grid, whatever the step size, and a sampler is what it claims to be down to steps as short as that grid's. Such times
are found and named, and short runs are looked at as if times were not rounded. Where the steps follow the rounded times
too, as with integer timesteps, they are looked at on the grid itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ...theory.model import Parameters
from ..verdicts import Array
from .anatomy import Anatomy, Dissection
from .short_runs import LENGTHS, STEPS, Spot, times_of

# Off by more than float32, a score's time is rounded if all lie on a grid of at most so many times.
_TIME, _FINEST = 4 * 2.0**-24, 20_000
# Steps of short runs on the grid, in its spacings, and the least of these that a limit takes; times a little late,
# and steps a little long, so that those rounded down are not a spacing less.
_SPACINGS, _FEWEST, _LATE = (8, 4, 2, 1), 3, 1e-9
# Rounded down or up, times are off by half of the most on average; rounded to nearest, by what chance leaves.
_BIASED = 0.25


class Grid(NamedTuple):
    """Times start + (1 - start) j / spacings."""

    name: str
    start: float
    spacings: int

    @property
    def spacing(self) -> float:
        """Between neighbours."""
        return (1 - self.start) / self.spacings

    def look(self, anatomy: Dissection, params: Parameters, counts: Sequence[int]) -> list[Spot]:
        """Short runs whose times all lie on the grid, as `consistency.look`; where they are too long, there is none."""
        spots = []
        for tau in times_of(params):
            place = round((params.T - tau - self.start) / self.spacing)
            t = self.start + place * self.spacing
            steps = [m for m in _SPACINGS if counts[-1] * m * self.spacing <= (t - params.eps) / 2]
            if len(steps) < _FEWEST:
                continue
            begin = params.T - t - _LATE
            runs = [
                tuple(anatomy(begin + m * self.spacing * (1 + _LATE) * np.arange(n + 1.0)) for m in steps)
                for n in counts[::-1]
            ]
            spots.append(Spot(begin, tuple(counts[-1] * m * self.spacing for m in steps), *runs))
        return spots


class Clock(NamedTuple):
    """Rounded times: the name of what they are rounded to, the grid if they lie on one, by how much they are off at
    most and on average, and c of t = T - tau - c h by evaluations of a run and number."""

    name: str
    grid: Grid | None
    largest: float
    average: float
    places: dict[tuple[int, int], float]

    def __str__(self) -> str:
        return (
            f"rounds the times of its scores to {self.name}: they are off by up to {self.largest:.1e}, whatever the "
            "step size"
        )

    def unrounded(self, spots: Sequence[Spot], T: float) -> list[Spot]:
        """The short runs as if their scores' times were not rounded."""
        return [
            spot._replace(
                runs=tuple(self._exact(run, T) for run in spot.runs),
                shorter=tuple(self._exact(run, T) for run in spot.shorter),
            )
            for spot in spots
        ]

    def _exact(self, run: Anatomy, T: float) -> Anatomy:
        h = run.taus[-1] - run.taus[0]
        places = self.places
        times = (
            T - run.taus[0] - places[run.nfe, k] * h if (run.nfe, k) in places else t for k, t in enumerate(run.times)
        )
        return replace(run, times=tuple(times))


def clock_of(spots: Sequence[Spot], params: Parameters) -> Clock | None:
    """How the times of the scores are rounded; None if they are not, or no grid is found."""
    asked = [
        (run.nfe, k, params.T - run.taus[0] - t, run.taus[-1] - run.taus[0])
        for spot in spots
        for run in (*spot.runs, *spot.shorter)
        for k, t in enumerate(run.times)
    ]
    # c of t = T - tau - c h, from runs that are long beside what is rounded: a part of a step
    parts = 12 if not spots[0].shorter else 2 * STEPS[-1]
    places: dict[tuple[int, int], list[float]] = {}
    for nfe, k, back, h in asked:
        if h >= 0.9 * LENGTHS[0]:
            places.setdefault((nfe, k), []).append(back / h)
    c = {key: round(float(np.median(values)) * parts) / parts for key, values in places.items()}
    off = [c[nfe, k] * h - back for nfe, k, back, h in asked if (nfe, k) in c]
    largest = max(map(abs, off), default=0.0)
    if largest <= _TIME:
        return None
    times = np.unique([t for spot in spots for run in spot.runs for t in run.times])
    average = float(np.mean(off))
    average = average if abs(average) > _BIASED * largest else 0.0
    for start, name in ((0.0, "1/{}"), (params.eps, "one of {} times")):
        if (count := _count(times, start, largest)) is not None:
            named = name.format(count + (start > 0))
            return Clock(named, Grid(named, start, count), largest, average, c)
    for digits, name in ((8, "bfloat16"), (11, "half precision")):
        mantissa = np.frexp(times)[0] * 2.0**digits
        if largest <= 2.0**-digits and np.abs(mantissa - np.round(mantissa)).max() <= 1e-6:
            return Clock(name, None, largest, average, c)
    return None


def _count(times: Array, start: float, off: float) -> int | None:
    """The least number of spacings from `start` to 1 such that all times lie between them, none of which is `off` by
    more than one."""
    counts = np.arange(2, min(_FINEST, int(1.01 / off) + 1))
    scaled = (times - start)[:, None] / (1 - start) * counts
    fits = (np.abs(scaled - np.round(scaled)) <= 2.0**-22 * counts).all(0)
    return int(counts[fits.argmax()]) if fits.any() else None

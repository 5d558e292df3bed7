"""What a run's noise levels say: whether its grid is smooth in log sigma, where it stops, and whether inputs are there.

A method's order shows on grids whose steps in log sigma become small in proportion to 1/N. On one that is uniform in t
they do not near t = 0: the largest falls like N^-1/2 or not at all, and the last level moves with N. But above some
sigma they do, and there the order of the same run shows (`reach`).

Another question is asked of point data, x_0 = 1. There every right answer is the point, so that mean and standard
deviation of an input are the alpha and sigma that it has. Where its first departure from what the network is told is
to another level of the same path (`told`), the level is wrong, and not the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...integrators.blackbox import BlackBoxError
from ...integrators.unmodified import Unmodified
from ..verdicts import MARGIN, Array, Finding, Kind, Weight
from .laws import Data, laws_along
from .transcript import Transcript

# Steps in log sigma are equal to what rounding of times leaves; a grid of another clock differs by some tenths.
_EQUAL = 1e-3
# A last sigma that differs by so much is another one.
_MOVES = 1.1
# An order needs so many steps above a level on the coarsest grid.
_LEAST_STEPS = 4
# Within a step, from an exact state, Euler's method leaves h^2.
_OF_STAGES = 2
# Inputs are where they are told to, to rounding; on the path, to this part of what they are off by.
_AT_ITS_LEVEL, _ON_PATH = 1e-7, 1e-2
# Rows that rounding of a time and another reading of a table, its product and its integral, leave: half of one each.
_READ = 1.5


def log_ratios(run: Transcript) -> Array:
    """log(sigma / alpha) at each evaluation, (N,): inf where there is noise alone, -inf where there is none."""
    with np.errstate(divide="ignore"):
        return np.array([np.log(at.sigma) - np.log(at.alpha) for at in run.levels])


def places(run: Transcript) -> tuple[Array, Array]:
    """The levels of a run that fall, each once, and the last evaluation at each: log(sigma / alpha) and places (n,)."""
    found: list[tuple[float, int]] = []
    for place, ratio in enumerate(log_ratios(run)):
        while found and found[-1][0] <= ratio + _EQUAL**2:
            found.pop()
        if ratio > -np.inf:
            found.append((float(ratio), place))
    return np.array([ratio for ratio, _ in found]), np.array([place for _, place in found], dtype=int)


def _log_sigma(ratios: Array) -> Array:
    """Of states of variance 1, for data of variance 1: the logarithm of sigma / alpha where that is small."""
    return -np.log1p(np.exp(-2 * ratios)) / 2


def largest_step(run: Transcript, down_to: float = -math.inf) -> float:
    """In log sigma, of those that end at no lower log(sigma / alpha); nan where there is none."""
    ratios = places(run)[0]
    steps = -np.diff(_log_sigma(ratios))[ratios[1:] >= down_to - _EQUAL**2]
    return float(steps.max()) if len(steps) else math.nan


def shrink(steps: Array, largest: Array) -> bool:
    """Whether largest steps (levels,) become small in proportion to 1/N."""
    order = np.log(largest[0] / largest[-1]) / np.log(steps[-1] / steps[0])
    return bool(order >= 1 - MARGIN)


def moves(sigma: Array) -> bool:
    """Whether the last level's sigma / alpha (levels,) moves with N."""
    return bool(max(sigma[0], sigma[-1]) > _MOVES * min(sigma[0], sigma[-1]))


def has_equal_steps(run: Transcript) -> bool:
    """Whether all steps in log sigma are equal; not known of fewer than three."""
    ratios = places(run)[0]
    steps = -np.diff(ratios[np.isfinite(ratios)])
    return len(steps) > 2 and bool(np.ptp(steps) <= _EQUAL * steps.max())


def looks_back(run: Transcript) -> bool:
    """Whether old answers have weights of their own at new levels, beside what is left of them in the state there.
    False of several evaluations a step, whose stages cannot be told from a memory here."""
    at = places(run)[1]
    if len(at) < _LEAST_STEPS or not has_one_stage(run):
        return False
    k = int(at[len(at) // 2])  # starts and ends may look back less
    before, after = (np.append(run.gains[row, :k], run.start[row]) for row in (k, k + 1))
    kept = before @ after / (before @ before)
    return bool(np.abs(after - kept * before).max() > _EQUAL**2 * np.abs(after).max())


def has_one_stage(run: Transcript) -> bool:
    """Whether it asks once a step, but for some more at its start and end."""
    return len(places(run)[1]) == run.nfe <= 1.2 * run.steps + 2


class Reach(NamedTuple):
    """Down to which log(sigma / alpha) a grid's steps become small, and the w2 errors there (levels,)."""

    down_to: float
    errors: Array

    @property
    def sigma(self) -> float:
        """sigma / alpha there."""
        return math.exp(self.down_to)


def reach(sampler: Unmodified, runs: Sequence[Transcript], data: Data, expected: int) -> Reach | None:
    """The lowest level of the coarsest run above which the steps of all runs become small, with the errors of the same
    runs there, between two evaluations by their logarithms; None where there is none, and where the stages of a step,
    of order 2 at best, may be taken for states of a higher one."""
    if expected > _OF_STAGES and not has_one_stage(runs[0]):
        return None
    steps = np.array([run.steps for run in runs], dtype=float)
    for level in places(runs[0])[0][::-1]:
        largest = np.array([largest_step(run, level) for run in runs])
        few = int((places(runs[0])[0] >= level).sum()) <= _LEAST_STEPS
        if few or not np.isfinite(largest).all():
            return None
        if shrink(steps, largest):
            return Reach(float(level), np.array([_w2_at(sampler, run, data, float(level)) for run in runs]))
    return None


def _w2_at(sampler: Unmodified, run: Transcript, data: Data, level: float) -> float:
    ratios, at = places(run)
    after = min(int(np.searchsorted(-ratios, -level - _EQUAL**2)), len(ratios) - 1)
    near = (after,) if abs(ratios[after] - level) < _EQUAL**2 else (max(after - 1, 0), after)
    logs = []
    for place in near:
        (mean, variance), (exact, total) = laws_along(sampler, run, data, int(at[place]))
        error = np.hypot((mean - exact), np.sqrt(variance) - np.sqrt(total)) / np.sqrt(total)
        with np.errstate(divide="ignore"):
            logs.append(float(np.log(np.sqrt(np.mean(error**2)))))
    x, *ends = _log_sigma(np.array([level, *ratios[list(near)]]))
    part = 0.0 if len(near) == 1 else (ends[0] - x) / (ends[0] - ends[1])
    return math.exp(logs[0] + part * (logs[-1] - logs[0])) if np.isfinite(logs).all() else math.nan


# --- Of what the network is told --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """Where an input first is at another level of the path than the network is told: its evaluation, from 1; by which
    part sigma / alpha is off; in_rows: the same in rows, where times are numbers of rows, else inf."""

    evaluation: int
    off: float
    in_rows: float

    @property
    def is_of_rows(self) -> bool:
        """Whether a time that is rounded to its row, or another reading of the same table, explains it."""
        return self.in_rows <= _READ

    def __str__(self) -> str:
        return f"sigma / alpha is off by {abs(self.off):.1e} of itself at evaluation {self.evaluation}"


def told(sampler: Unmodified, run: Transcript) -> Told | None:
    """The first input of a run that is at another level than the network is told, None where there is none, or its
    departure is to no level of the path."""
    point = Data(np.ones(1), np.zeros(1))
    for k, at in enumerate(run.levels):
        (mean, variance), _ = laws_along(sampler, run, point, k)
        alpha, sigma = float(mean[0]) / at.scale, math.sqrt(max(float(variance[0]), 0.0)) / at.scale
        if not (alpha > 0 and sigma > 0 and at.alpha > 0 and at.sigma > 0 and math.isfinite(alpha * sigma)):
            continue
        off = math.log(at.sigma / at.alpha) - math.log(sigma / alpha)
        apart = max(abs(alpha - at.alpha), abs(sigma - at.sigma))
        if max(abs(off), apart) <= _AT_ITS_LEVEL:
            continue
        # paths that preserve variance, and those that mix: alpha^2 + sigma^2 and alpha + sigma are 1
        kept = [abs(sum(x**p for x in (alpha, sigma)) - 1) for p in (1, 2) if _keeps(run, p)]
        on_path = bool(kept) and min(kept) <= _ON_PATH * abs(off)
        row = _row(sampler, run, k)
        return Told(k + 1, math.expm1(off), abs(off) / row if row else math.inf) if on_path else None
    return None


def _keeps(run: Transcript, power: int) -> bool:
    return all(abs(at.alpha**power + at.sigma**power - 1) < _AT_ITS_LEVEL for at in run.levels)


def _row(sampler: Unmodified, run: Transcript, k: int) -> float:
    """The size of a row in log(sigma / alpha) where times are numbers of rows, else 0."""
    time, level = run.times[k], sampler.prepare(run.steps, True).level
    if any(t != round(t) for t in run.times) or max(run.times) <= 1:
        return 0.0
    before = level(max(time - 1, 0.0))
    return abs(math.log(run.levels[k].sigma / run.levels[k].alpha) - math.log(before.sigma / before.alpha))


def mean_finding(text: str, levels: Told | None, instead: str) -> Finding:
    """Of a mean that is off by more than rounding, as `text` says, with its cause as far as it is known; instead: what
    else may have been meant to be declared, "" for nothing."""
    text += ", and exact in a right sampler"
    if levels is None:
        text += (
            ": most often the network is told another noise level than its input has, or --diffusion, --predicts or "
            "--time is not what it was trained for; a step that is not exact without a network has it, too"
        )
        return Finding(text, Weight.NOTES, Kind.LIMIT)
    if not levels.is_of_rows:
        text += f": the network is told another noise level than its input has ({levels})"
        return Finding(text, Weight.FORBIDS, Kind.LIMIT)
    text += (
        f": {levels}, by {levels.in_rows:.2g} rows, which is what times rounded to rows, or another table than the "
        "network was trained on, leave"
    )
    return Finding(f"{text}; {instead}" if instead else text, Weight.FORBIDS, Kind.LIMIT)


def equal_steps_finding(called: str) -> Finding:
    """Of a memory that is looked at on a grid with equal steps alone, so called."""
    text = (
        f"it looks back, and all its steps in log sigma are equal on {called}, the only one: how it weighs others was "
        "not tried; run it on a grid where they differ, such as Karras', and `weakorder identify` there, which "
        "compares its weights"
    )
    return Finding(text, Weight.FORBIDS, Kind.RANGE)


# --- All of it --------------------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """What the levels of a sampler's runs say. largest: the largest step in log sigma of the coarsest run and of the
    finest; reach: where the grid is not smooth, down to where it is; rows: of the table that is judged on, and of the
    one that ships, 0 where there is none; hides: whether a memory is looked at with equal steps alone; rounding: of
    states, relative."""

    is_smooth: bool = True
    largest: tuple[float, float] = (math.nan, math.nan)
    reach: Reach | None = None
    told: Told | None = None
    rows: tuple[int, int] = (0, 0)
    hides: bool = False
    rounding: float = 0.0


NOTHING = Grid()


def grid_of(sampler: Unmodified, runs: Sequence[Transcript], data: Data, expected: int) -> Grid:
    """Of runs with increasing numbers of steps. Raises BlackBoxError where a run has nothing of its start."""
    if not runs:
        return NOTHING
    if not any(run.start.any() for run in runs):
        raise BlackBoxError(
            "its result does not depend on the start x that it is given: it draws one of its own; begin with x, which "
            "is drawn at the first time that the network is asked for"
        )
    steps = np.array([run.steps for run in runs], dtype=float)
    largest = np.array([largest_step(run) for run in runs])
    is_smooth = len(runs) < 2 or not np.isfinite(largest).all() or shrink(steps, largest)
    judged, shipped = (getattr(sampler.prepare(runs[0].steps, exact), "rows", 0) for exact in (True, False))
    return Grid(
        is_smooth,
        (float(largest[0]), float(largest[-1])),
        None if is_smooth else reach(sampler, runs, data, expected),
        told(sampler, runs[0]),
        (int(judged), int(shipped)),
        all(has_equal_steps(run) for run in runs) and looks_back(runs[-1]),
        max(run.rounding for run in runs),
    )

"""How few steps a sampler can take on a grid before a perturbation grows (verification.stability).

Stability is not monotone in the number of steps N, so the fewest is defined from above: the least N such that N and
every larger number that was looked at are stable. What is looked at: a ladder down from the bound, each rung 1.25 times
below the one before, bisection between the last rung that holds and the first that fails, and then every number from
the answer up to 1.25 times it. The search is on eigenvalues spread over the spectrum; a run of N steps on all of them
confirms it.

With fewer and fewer steps growth comes first, from steps that contract less, or expand more, than the law does, and
unstable steps follow; both numbers are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ...integrators.grids import time_grid
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ...theory.scheme import Scheme
from ...theory.showing import Shown
from ..exact import Spectrum, cifar10_spectrum
from ..targets import GaussianTarget
from ..verdicts import Array, spectral_norm, spectral_radius
from .growth import (
    EXCESS,
    FACTOR,
    Growth,
    StepRadius,
    dynamics,
    fastest,
    grows_beyond,
    growth_bound,
    in_law_units,
    trajectory_maps,
    worst_growth,
    worst_step,
)

if TYPE_CHECKING:  # torch takes seconds to import, and only black boxes need it
    from ...integrators.blackbox import Sampler

# The largest number of steps that is looked at; probing a black box takes milliseconds a step.
BOUND, BLACK_BOX_BOUND = 500, 256
# Eigenvalues that scans look at, evenly spaced in log; the ratio of the rungs of a scan's ladder, which is also how far
# above the answer every number of steps is looked at.
_THIN, _RATIO = 48, 1.25


@dataclass(frozen=True)
class LeastSteps(Shown):
    """How few steps a sampler can take on a grid.

    steps: the least N such that N and every larger number that was looked at have growth <= `factor`; None if `bound`
    steps have not. breaks: the run of N - 1 steps, the first that fails (None if N = 1 or there is no N); holds: that
    of N steps (of `bound` steps if there is no N). steady: the same least number for the weaker demand that no step be
    unstable; unstable: the step of largest excess at `steady` - 1 steps.
    What was looked at: a ladder of ratio 1.25 up to `bound`, bisection between its rungs and, from N up to `dense`,
    every number of steps, on some 48 eigenvalues spread over the spectrum; N and N - 1 on the whole of it, `steady` on
    the 48 alone, without the dense look. (A black box is not looked at densely either: dense = N.)
    """

    grid: str
    steps: int | None
    breaks: Growth | None
    holds: Growth
    steady: int | None
    unstable: StepRadius | None
    factor: float
    bound: int
    dense: int


def least_steps(
    sampler: Scheme | Sampler,
    params: Parameters,
    grid: str,
    factor: float = FACTOR,
    bound: int = BOUND,
    data: Spectrum | None = None,
    named: Diffusion = PSLD_DIFFUSION,
) -> LeastSteps:
    """The fewest steps on `grid` that are stable on every eigenvalue of `data` (default CIFAR-10's); see `LeastSteps`.

    factor > 1: the growth allowed; bound: the most steps looked at; named: the diffusion of a black box. Raises
    ValueError on a bad factor, bound or grid, and as probing does.
    """
    data = data or cifar10_spectrum()
    scan = _Scan(sampler, params, grid, factor, bound, data, named)
    steady = scan.least(scan.has_no_unstable_step)
    unstable = worst_step(sampler, scan.target, scan.taus(steady - 1)) if steady and steady > 1 else None
    found = scan.least(scan.grows_little)

    def run(steps: int) -> Growth:
        return worst_growth(sampler, params, scan.taus(steps), data, named)

    while found is not None:
        dense = min(bound, int(_RATIO * found)) if isinstance(sampler, Scheme) else found
        if bad := [steps for steps in range(found, dense + 1) if not scan.grows_little(steps)]:
            found = bad[-1] + 1 if bad[-1] < bound else None
            continue
        holds = run(found)
        if holds.growth <= factor:
            breaks = None if found == 1 else run(found - 1)
            return LeastSteps(grid, found, breaks, holds, steady, unstable, factor, bound, dense)
        found = found + 1 if found < bound else None  # an eigenvalue that the scan left out
    return LeastSteps(grid, None, None, run(bound), steady, unstable, factor, bound, bound)


def scan_steps(
    sampler: Scheme | Sampler,
    params: Parameters,
    grid: str,
    factor: float = FACTOR,
    bound: int = BOUND,
    data: Spectrum | None = None,
) -> int | None:
    """`LeastSteps.steps` without the dense look and without the eigenvalues between the 48: for tables of many."""
    scan = _Scan(sampler, params, grid, factor, bound, data or cifar10_spectrum())
    return scan.least(scan.grows_little)


class _Scan:
    """Whether numbers of steps are stable, on eigenvalues spread over the spectrum."""

    def __init__(
        self,
        sampler: Scheme | Sampler,
        params: Parameters,
        grid: str,
        factor: float,
        bound: int,
        data: Spectrum,
        named: Diffusion = PSLD_DIFFUSION,
    ) -> None:
        if not factor > 1:
            raise ValueError(f"factor = {factor:g}: the exact dynamics have growth 1; allow more than that")
        if bound < 2:
            raise ValueError(f"bound = {bound}: look at 2 steps or more")
        self.sampler, self.params, self.grid, self.factor, self.bound = sampler, params, grid, factor, bound
        diffusion = dynamics(sampler, params, named).diffusion
        self.size = diffusion.size
        self.target = GaussianTarget.of(0.0, thinned(data.variances), diffusion, params)
        self.bound_of, self.grows_beyond = fastest(growth_bound), fastest(grows_beyond)
        self.maps = lru_cache(maxsize=32)(lambda steps: trajectory_maps(sampler, self.target, self.taus(steps)))

    def taus(self, steps: int) -> Array:
        """The grid of so many steps."""
        return time_grid(self.grid, steps, self.params)

    def grows_little(self, steps: int) -> bool:
        """Whether the growth is at most the factor."""
        taus = self.taus(steps)
        scaled = in_law_units(self.maps(steps), self.target, taus)
        # One step that grows too much decides at once; then the bound; then every interval.
        if not (spectral_norm(scaled[: self.size, : self.size]) <= self.factor).all():
            return False
        left = scaled[..., self.bound_of(scaled, self.size) > self.factor]
        return not left.size or not self.grows_beyond(left, self.factor, self.size)

    def has_no_unstable_step(self, steps: int) -> bool:
        """Whether no step's radius exceeds that of the dynamics by more than `EXCESS`."""
        if (spectral_radius(self.maps(steps)) <= EXCESS).all():
            return True
        return worst_step(self.sampler, self.target, self.taus(steps)).excess <= EXCESS

    def least(self, stable: Callable[[int], bool]) -> int | None:
        """The least number above which no rung of the ladder fails, by bisection below the last that does."""
        rungs = [self.bound]
        while rungs[-1] > 1:
            rungs.append(min(rungs[-1] - 1, int(rungs[-1] / _RATIO)))
        high = None
        low = 0
        for rung in rungs:
            if not stable(rung):
                low = rung
                break
            high = rung
        if high is None:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if stable(middle) else (middle, high)
        return high


def thinned(variances: Array, count: int = _THIN) -> Array:
    """At most `count` of the variances, those nearest to an even spacing in log, the extremes among them."""
    ordered = np.unique(variances)
    positive = np.maximum(ordered, np.finfo(float).tiny)
    wanted = np.geomspace(positive[0], positive[-1], count)
    return ordered[np.unique(np.abs(np.log(wanted[:, None] / positive)).argmin(1))]

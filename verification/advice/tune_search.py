"""The minimisation: least squares within bounds, and Newton's method where few variables are left to settle.

A problem's residuals are those of the run (tune_derivatives), in units in which the first point has the sum 1, and, one
for each of some eigenvalues, the `weight` times the log of what its growth exceeds the limit by. Gauss and Newton's
steps (scipy.optimize.least_squares) are right to first order where the residuals are small or nearly linear; where
they are not, as at the optimum of a single eigenvalue that no setting meets, Newton's method on the gradient goes on:
its Hessian is a difference of gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..exact import Spectrum
from ..verdicts import Array
from .tune_derivatives import Sketch, ending, residuals, sketch
from .tune_growth import log_growth, log_growth_slope
from .tune_settings import Variables

# The weights of growth beyond the limit, in order, and by how much the search stays below it.
WEIGHTS, MARGIN = (3.0, 30.0, 1000.0), 1e-3
# Starts that end within this share of the best value agree with it.
AGREE = 1e-6
# Evaluations that every start is given at first, how many of the best go on, and those that these are given.
_FIRST_EVALUATIONS, _GO_ON, _MOST_EVALUATIONS = 10, 2, 40
# The share of the value, and of the vector, by which Gauss and Newton's steps must still change it to go on.
_SETTLED = 1e-8
# Of Newton's method: so many variables at most, steps, the Hessian's differences, the longest step, the least curvature
# beside the largest one that is believed, and the step at which it ends.
_FEW, _NEWTON_STEPS, _DIFFERENCE, _LONGEST, _CURVED, _SHORT = 8, 10, 1e-4, 0.3, 1e-7, 1e-11
# What values are known to, relative: the flows of schemes that hold another quantity than the score to 1e-13 each.
_ROUNDING = 1e-11


class Searched(NamedTuple):
    """The best vector, the weight of growth that it was found with, whether it is stable at the eigenvalues that were
    looked at, and how many of the best starts, followed to their ends, agree with it."""

    x: Array
    weight: float
    is_stable: bool
    agreeing: int
    followed: int


@dataclass(frozen=True)
class Problem:
    """The settings of `scheme` that `variables` free, on `data`. grown: the variances whose growth is limited; unit:
    what residuals are divided by."""

    scheme: Scheme
    params: Parameters
    data: Sketch
    variables: Variables
    grown: Array
    limit: float
    unit: float = 1.0

    @classmethod
    def on(
        cls,
        scheme: Scheme,
        params: Parameters,
        data: Spectrum,
        bins: int,
        variables: Variables,
        grown: Array,
        limit: float,
    ) -> Problem:
        """The problem on a sketch of the data, in units of its base's residuals."""
        problem = cls(scheme, params, sketch(data, bins), variables, grown, limit)
        start = problem._of_run(variables.vector(variables.base))
        largest = float(np.sqrt((start**2).sum()))
        size = float(np.sqrt(data.variances.sum() + (data.mean**2).sum()))
        return replace(problem, unit=max(largest, 1e-9 * size) if np.isfinite(largest) else size)

    def _of_run(self, x: Array) -> Array:
        settings = self.variables.settings(x)
        scheme, params, taus = settings.applied(self.scheme, self.params)
        return residuals(scheme, self.data, params, taus, settings.denoise) / self.unit

    def excess(self, x: Array) -> Array:
        """The log of growth over the limit, less the margin, at each of the variances: > 0 where too large."""
        if not np.isfinite(self.limit):
            return np.full(1, -np.inf)
        scheme, params, taus = self.variables.settings(x).applied(self.scheme, self.params)
        return log_growth(scheme, self.grown, params, taus) - np.log(self.limit) + MARGIN

    def residuals(self, x: Array, weight: float) -> Array:
        """All residuals, (2 V + eigenvalues,)."""
        return np.append(self._of_run(x), weight * np.maximum(self.excess(x), 0.0))

    def jacobian(self, x: Array, weight: float) -> Array:
        """Their derivatives, (2 V + eigenvalues, n)."""
        return self._both(x, weight)[1]

    def _both(self, x: Array, weight: float) -> tuple[Array, Array]:
        settings = self.variables.settings(x)
        scheme, params, taus = settings.applied(self.scheme, self.params)
        by_x, by_scale = self.variables.slopes(x, params.T)
        end = ending(scheme, self.data, params, taus, settings.denoise)
        values = [end.residuals / self.unit]
        slopes = [(end.by_tau @ by_x + np.outer(end.by_scale, by_scale)) / self.unit]
        excess = self.excess(x)
        values.append(weight * np.maximum(excess, 0.0))
        rows = np.zeros((len(excess), len(x)))
        if (over := np.flatnonzero(excess > 0)).size:
            rows[over] = weight * log_growth_slope(scheme, self.grown[over], params, taus)[1] @ by_x
        slopes.append(rows)
        return np.concatenate(values), np.concatenate(slopes)

    def value(self, x: Array, weight: float = WEIGHTS[0]) -> float:
        """The sum of the squares of the residuals."""
        found = self.residuals(x, weight)
        return float(found @ found)

    def gradient(self, x: Array, weight: float) -> Array:
        """Its gradient, (n,)."""
        values, slopes = self._both(x, weight)
        return 2 * values @ slopes

    def descended(self, x: Array, weight: float, evaluations: int = _MOST_EVALUATIONS) -> Array:
        """Where Gauss and Newton's steps lead from x, within the bounds."""
        if not x.size or not np.isfinite(self.value(x, weight)):
            return x
        from scipy.optimize import least_squares

        with np.errstate(over="ignore", invalid="ignore"):
            found = least_squares(
                self.residuals,
                x,
                self.jacobian,  # pyright: ignore[reportArgumentType] - or its name, the stub says
                (self.variables.low, self.variables.high),
                x_scale="jac",
                ftol=_SETTLED,
                xtol=_SETTLED,
                gtol=_SETTLED,
                max_nfev=evaluations,
                kwargs={"weight": weight},
            )
        return found.x if self.value(found.x, weight) <= self.value(x, weight) else x

    def settled(self, x: Array, weight: float) -> Array:
        """Where Newton's method leads from x, within the bounds."""
        low, high = self.variables.low, self.variables.high
        for _ in range(_NEWTON_STEPS):
            gradient = self.gradient(x, weight)
            stuck = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
            free = np.flatnonzero(~stuck)
            if not free.size or not np.isfinite(gradient).all():
                return x
            step = np.zeros_like(x)
            step[free] = self._newton_step(x, weight, gradient, free)
            before, length = self.value(x, weight), 1.0
            while length > 1e-3:
                there = np.clip(x + length * step, low, high)
                if self.value(there, weight) <= before * (1 + _ROUNDING):
                    break
                length /= 2
            else:
                return x
            change, x = np.abs(there - x).max(), there
            if change < _SHORT:
                return x
        return x

    def _newton_step(self, x: Array, weight: float, gradient: Array, free: NDArray[np.int64]) -> Array:
        columns = []
        for place in free:
            ends = []
            for sign in (-1, 1):
                there = x.copy()
                there[place] += sign * _DIFFERENCE
                ends.append(self.gradient(there, weight)[free])
            columns.append((ends[1] - ends[0]) / (2 * _DIFFERENCE))
        hessian = np.stack(columns)
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        curved = np.maximum(np.abs(values), _CURVED * max(np.abs(values).max(), 1e-300))
        step = -vectors @ ((vectors.T @ gradient[free]) / curved)
        return step * min(1.0, _LONGEST / max(np.abs(step).max(), 1e-300))


def search(problem: Problem, starts: Sequence[Array]) -> Searched:
    """The best of where the starts lead. All are followed a short way, and the best of them to their ends; the weight
    of growth is raised until one is within the limit.

    Raises ValueError if every start overflows.
    """
    points = [x for x in starts if np.isfinite(problem.value(x))]
    if not points:
        raise ValueError(f"{problem.scheme.name!r} overflows from every start; give more evaluations")
    weight, is_stable, stable = WEIGHTS[0], False, list[Array]()
    points = [problem.descended(x, weight, _FIRST_EVALUATIONS) for x in points]
    points = sorted(points, key=lambda x: problem.value(x, weight))[:_GO_ON]
    for weight in WEIGHTS:
        points = [problem.descended(x, weight) for x in points]
        if 0 < len(problem.variables.names) <= _FEW:
            best = min(range(len(points)), key=lambda i: problem.value(points[i], weight))
            points[best] = problem.settled(points[best], weight)
        stable = [x for x in points if (problem.excess(x) <= MARGIN).all()]
        if is_stable := bool(stable):
            break
    values = [problem.value(x, weight) for x in points]
    chosen = min(stable, key=lambda x: problem.value(x, weight)) if stable else points[int(np.argmin(values))]
    best_value = problem.value(chosen, weight)
    agreeing = sum(abs(value - best_value) <= AGREE * best_value + 1e-15 for value in values)
    return Searched(chosen, weight, is_stable, agreeing, len(values))

"""The study of an unmodified sampler: does it converge to the law it should, how fast, and what does its end add.

At doubling numbers of steps N a run is read off (unmodified.transcript) and put on Gaussian data (unmodified.laws). It
starts from the exact law, so what it makes of it at the last state that the network saw is the method's error alone:

    mean       |mean - exact mean| in standard deviations. From an exact start a right sampler has none at all,
               whatever N: the answers of the network move the mean with the law. One that asks the network at
               another noise level than its input has shows it (noise_levels.told), as does a wrong declaration, and a
               right solver whose steps are not exact without a network
    variance   |variance / exact variance - 1|
    w2         the 2-Wasserstein distance in standard deviations, which has both

root mean square over the targets. The order is that of w2. Two grids are looked at, the sampler's own and one that is
smooth in log sigma (Karras et al. 2022, equation 5): on a grid uniform in t the steps in log sigma do not become small
near t = 0, where orders are lost that a method has; and some faults hide on an exponential grid. Where its own grid is
the only one and is not smooth, the order is taken at the lowest sigma above which it is. The end, a step to no
noise at all, is no step of a method but a denoiser, and has a line of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...integrators.blackbox import BlackBoxError, NotFinite
from ...integrators.unmodified import Unmodified
from ..time_limit import ENOUGH, completed
from ..verdicts import Array, Finding, Fit, Kind, Weight, slopes_of, stall_of
from .grids import STEPS, StudyOnGrids, asked_of, called, order_finding, order_of, shown
from .laws import Data, Law, laws_of
from .noise_levels import NOTHING, Grid, grid_of, mean_finding, moves
from .transcript import Transcript, transcribe

# Images in [-1, 1] have pixels of variance 0.25; eigenvalues of their covariance are smaller and larger.
TARGETS = Data(np.array([0.0, 0.5, 0.0, -1.0, 0.0, 1.0]), np.array([0.04, 0.04, 0.25, 0.25, 1.0, 4.0]))
# A run is affine to float64's digits; laws are sums over its evaluations.
FLOOR = 1e-11
# Integer timesteps of tables of 6,400 and 640,000 rows left mean errors below 1e-7; they move variances by some ten
# times the mean's.
_ROUNDED_TIMES, BESIDE = 1e-5, 30
# What the shipped constants and table make of an error is said where it is so many times the method's own.
_SEEN = 1.5
# A mean of rounded states is off by some roundings.
_ROUNDINGS = 16
_STOPPED = "it was not run with more"
QUANTITIES = ("w2", "variance", "mean", "gain")
_COLUMNS = (*QUANTITIES, "final", "denoised", "floor")
NOT_FINITE: dict[str, float] = {str(name): math.nan for name in _COLUMNS}


@dataclass(frozen=True)
class GridStudy:
    """A sampler on one grid: steps, nfe and draws (levels,); errors by quantity (levels,), against the exact law at the
    last network state, nan where a level overflowed; final (levels,): the variance's error of what is returned, against
    the data's; denoised (levels,), against the denoiser's of the exact law there; floor (levels,): what the denoiser of
    an exact law has; sigma (levels,): sigma / alpha of the last network state. refused: levels that could not be
    read off, with the reason. decides: whether its order does; where there are several, the sampler's own decides
    convergence alone; layout: what its levels say; instead: what else may have been meant to be declared."""

    name: str
    grid: str
    expected: int
    steps: Array
    nfe: Array
    draws: Array
    errors: dict[str, Array]
    final: Array
    denoised: Array
    floor: Array
    sigma: Array
    shipped: float = 0.0
    is_stochastic: bool = False
    refused: str = ""
    decides: bool = True
    layout: Grid = NOTHING
    instead: str = ""

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """The orders of the quantities that have one, of levels above their floors."""
        found = {}
        for name in ("w2", "variance", "mean"):
            fit = order_of(self.steps, self.seen(name))
            if fit is not None:
                found[name] = fit
        return found

    @property
    def fit(self) -> Fit | None:
        """The order of w2, at the level down to which it shows."""
        return self.fits.get("w2") if self._above is None else self._above

    @cached_property
    def _above(self) -> Fit | None:
        """The order down to where a grid is smooth that is the only one, where on all of it it is not what is claimed;
        else None."""
        whole = self.fits.get("w2")
        if not self.decides or (whole is not None and whole.is_settled and whole.reaches(self.expected)):
            return None
        return self._down_to

    @cached_property
    def _down_to(self) -> Fit | None:
        """The order down to where the grid is smooth, None where there is no such part."""
        part = self.layout.reach
        return None if part is None else order_of(self.steps, np.where(part.errors > FLOOR, part.errors, np.nan))

    def above_floor(self) -> Array:
        """The w2 errors (levels,) that its order is told by, nan below rounding."""
        return self.seen("w2")

    def seen(self, name: str) -> Array:
        """Errors (levels,), nan below what times rounded to rows of a table leave."""
        errors, mean = self.errors[name], self.errors["mean"]
        floor = np.full(len(errors), FLOOR)
        if name != "mean":
            floor = np.maximum(floor, np.where(mean < _ROUNDED_TIMES, BESIDE * mean, 0))
        elif (mean[np.isfinite(mean)] < _ROUNDED_TIMES).all():
            floor[:] = _ROUNDED_TIMES
        return np.where(errors > floor, errors, np.nan)

    @property
    def is_exact(self) -> bool:
        """Whether no error stands above rounding."""
        return bool(np.isfinite(self.errors["w2"]).all() and not np.isfinite(self.seen("w2")).any())

    def findings(self) -> list[Finding]:
        """What is known of it on this grid."""
        where = f"on {self.called}"
        if not np.isfinite(self.errors["w2"]).all():
            bad = int(self.steps[~np.isfinite(self.errors["w2"])][0])
            text = f"its result is not finite at {bad} steps {where}"
            return [Finding(text, Weight.REFUTES, Kind.LEVELS), *self._noted()]
        if self.is_exact:
            return [Finding(f"exact to round-off {where}", Weight.SUPPORTS, Kind.ORDER), *self._noted()]
        return [*self._of_order(where), *self._noted()]

    def _of_order(self, where: str) -> list[Finding]:
        whole, stalled = self.fits.get("w2"), self._stalled()
        first = order_finding(where, self.expected, whole, stalled, self.decides)
        if self._is_of_rows and first.weight is Weight.REFUTES:
            return [replace(first, weight=Weight.FORBIDS, kind=Kind.LIMIT)]
        if " stagnates" in stalled and self._falls_above:
            text = f"{first.text}; its last sigma moves with N, and down to a fixed one the error falls"
            return [replace(first, text=text, weight=Weight.FORBIDS, kind=Kind.LIMIT)]
        if stalled or whole is None or self.layout.is_smooth or not self.decides or first.weight is Weight.SUPPORTS:
            return [first]
        if self._above is not None:
            return [order_finding(self._down, self.expected, self._above, "", decides=True)]
        return [Finding(f"{first.text}, and {self.uneven}", Weight.FORBIDS, Kind.ORDER)]

    @property
    def _down(self) -> str:
        sigma = math.nan if self.layout.reach is None else self.layout.reach.sigma
        return f"on {self.called} down to sigma = {sigma:.3g}"

    @property
    def uneven(self) -> str:
        """How its steps are not smooth in log sigma."""
        few, many = self.layout.largest
        return (
            f"its steps in log sigma do not shrink as 1/N (the largest is {few:.2g} at {int(self.steps[0])} and "
            f"{many:.2g} at {int(self.steps[-1])} steps), as on a grid that is uniform in t"
        )

    def beside(self) -> list[str]:
        """What goes with any verdict: of an order that does not decide, and where one was taken."""
        if self._above is not None and not self._stalled():
            whole = self.fits.get("w2")
            said = "too few levels" if whole is None else shown(whole)
            return [f"measured {self._down}: below that {self.uneven}, and on all of it no order is told ({said})"]
        if self.decides or self.is_exact or not np.isfinite(self.errors["w2"]).all():
            return []
        return [f.text for f in self._of_order(f"on {self.called}") if f.weight is Weight.NOTES]

    @property
    def _falls_above(self) -> bool:
        """Whether errors at a last sigma that moves, which are of another law each, fall down to a fixed one."""
        fit = self._down_to
        if fit is None or self._mean_is_off or not moves(self.sigma):
            return False
        return fit.is_settled and fit.reaches(self.expected)

    @property
    def _is_of_rows(self) -> bool:
        """Whether the mean is off as times of whole rows, or another table, make it."""
        levels = self.layout.told
        return self._mean_is_off and levels is not None and levels.is_of_rows

    @property
    def _mean_is_off(self) -> bool:
        mean = self.errors["mean"]
        return bool(np.isfinite(mean).all() and mean[-1] > max(_ROUNDED_TIMES, _ROUNDINGS * self.layout.rounding))

    @property
    def keeps_its_start(self) -> bool:
        """Whether more or less of the start is left than the reverse SDE leaves, and more steps do not change it."""
        gain = self.errors["gain"]
        return self.is_stochastic and len(gain) > 1 and bool(gain[-1] > 1e-3 and gain[-1] > gain[-2] / 1.2)

    def _stalled(self) -> str:
        """Which error does not fall, in a sentence; "" if both do."""
        for name, what in (("w2", "the error"), ("mean", "the error of the mean")):
            stall = stall_of(self.steps, self.seen(name), self.expected)
            if stall is not None:
                return f"{what} {stall}; {stall.as_claimed}"
        return ""

    @property
    def called(self) -> str:
        """The grid, in words."""
        return called(self.grid)

    def _noted(self) -> list[Finding]:
        found = []
        if self._mean_is_off:
            text = (
                f"the mean is off by {self.errors['mean'][-1]:.1e} sd at {int(self.steps[-1])} steps on {self.called}"
            )
            found.append(mean_finding(text, self.layout.told, self.instead))
        if self.refused:
            found.append(Finding(self.refused, Weight.NOTES, Kind.LEVELS))
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        columns = {"steps": self.steps, "nfe": self.nfe, "draws": self.draws, "sigma": self.sigma}
        columns |= {**self.errors, "final": self.final, "denoised": self.denoised, "floor": self.floor}
        columns["slope"] = np.concatenate([[np.nan], slopes_of(self.steps, self.seen("w2"))])
        levels = [dict(zip(columns, map(float, level), strict=True)) for level in zip(*columns.values(), strict=True)]
        fits = {name: [fit.order, fit.low, fit.high] for name, fit in self.fits.items()}
        answer = {"grid": self.grid, "fits": fits, "levels": levels, "shipped": self.shipped}
        above, part = self._above, self.layout.reach
        down = None
        if above is not None and part is not None:
            down = {"sigma": part.sigma, "order": above.order, "low": above.low, "high": above.high}
        return answer | {"smooth": self.layout.is_smooth, "down_to": down}


class UnmodifiedStudy(StudyOnGrids[GridStudy]):
    """A sampler on its grids, on Gaussian data, and the verdict on it."""

    network = ", affine"

    def said(self) -> Iterable[str]:
        """What was said of the sampler, and what its end, its constants and its noise add."""
        yield from self.notes
        other = list[str]()
        for study in self.grids:
            if study.shipped > _SEEN * max(study.errors["w2"][-1], _ROUNDED_TIMES):
                yield (
                    f"as shipped, in float32 and with its table, the w2 error is {study.shipped:.1e} at "
                    f"{int(study.steps[-1])} steps on {study.called}"
                )
            if study.keeps_its_start:
                other.append(study.called)
        if other:
            yield (
                f"another amount of noise than the reverse SDE's on {' and '.join(other)}: the start is forgotten at "
                "another rate"
            )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What its end makes of the law, beside what stands under every table."""
        found = list(super().remarks)
        for study in self.grids:
            last, end, (first, sigma) = int(study.steps[-1]), study.final[-1], study.sigma[[0, -1]]
            if moves(study.sigma):
                found.append(
                    f"errors are those at a last sigma that moves with N on {study.called}: {first:.3g} at "
                    f"{int(study.steps[0])} and {sigma:.3g} at {last} steps"
                )
            if np.isfinite(end):
                found.append(
                    f"the end, on {study.called}: from sigma = {sigma:.3g} to none, the variance is off by {end:.2g} "
                    f"at {last} steps; of the exact law a denoiser leaves {study.floor[-1]:.2g}"
                )
        return tuple(found)


def study_unmodified(
    samplers: dict[str, Unmodified],
    expected: int | None = None,
    steps: Sequence[int] = STEPS,
    data: Data = TARGETS,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> UnmodifiedStudy:
    """The study of a sampler on one grid or more: `samplers` by the names of the grids, its own first.

    expected: the order to hold it to; default what is claimed, or 1. Raises BlackBoxError if it cannot be read off,
    ValueError on bad levels.
    """
    order, grids = asked_of(samplers, expected, steps)
    found = tuple(_on_grid(*asked, order, steps, data, progress) for asked in grids)
    first = next(iter(samplers.values()))
    return UnmodifiedStudy(first.name, order, first.predicts, found, first.said)


def _on_grid(
    sampler: Unmodified,
    grid: str,
    decides: bool,
    order: int,
    steps: Sequence[int],
    data: Data,
    progress: Callable[[Sequence[int]], Iterable[int]],
) -> GridStudy:
    refused = ""

    def at(count: int) -> tuple[Transcript | None, Mapping[str, float]] | None:
        nonlocal refused
        if refused.endswith(_STOPPED):
            return None
        try:
            run = transcribe(sampler, count)
            return run, errors_of(sampler, run, data)
        except NotFinite as error:
            refused = refused or f"in a run of {count} steps {error}"  # the first, which the verdict names
            return None, NOT_FINITE
        except BlackBoxError as error:
            if list(steps).index(count) < ENOUGH:
                raise BlackBoxError(f"in a run of {count} steps: {error}") from error
            refused = f"{count} steps: {error}; {_STOPPED}"
            return None

    done = {count: found for count, found in completed(at, steps, progress).items() if found is not None}
    study = grid_study(sampler, grid, decides, order, done, data)
    shipped = shipped_error(sampler, int(study.steps[-1]), data)
    return replace(study, shipped=shipped, refused=refused)


def grid_study(
    sampler: Unmodified,
    grid: str,
    decides: bool,
    order: int,
    done: Mapping[int, tuple[Transcript | None, Mapping[str, float]]],
    data: Data = TARGETS,
) -> GridStudy:
    """The study of the runs that were done, by numbers of steps, with `errors_of` each; None and nan where one
    overflowed."""
    runs, rows = [run for run, _ in done.values()], [row for _, row in done.values()]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = [run for run in runs if run is not None]
    return GridStudy(
        sampler.name,
        grid,
        order,
        np.array(list(done), dtype=float),
        np.array([math.nan if run is None else run.nfe for run in runs]),
        np.array([math.nan if run is None else run.draws for run in runs]),
        {name: columns[name] for name in QUANTITIES},
        columns["final"],
        columns["denoised"],
        columns["floor"],
        np.array([math.nan if run is None else run.levels[-1].sigma / run.levels[-1].alpha for run in runs]),
        is_stochastic=any(run.is_stochastic for run in known),
        decides=decides,
        layout=grid_of(sampler, known, data, order) if len(known) == len(runs) else NOTHING,
        instead=sampler.instead,
    )


def errors_of(sampler: Unmodified, run: Transcript, data: Data) -> dict[str, float]:
    """The errors of a run, root mean square over the targets; nan where it overflowed."""
    found = laws_of(sampler, run, data)
    with np.errstate(all="ignore"):
        last, exact = found.last, found.exact
        sd = np.sqrt(exact.variance)
        mean = np.abs(last.mean - exact.mean) / sd
        values = (
            np.hypot(mean, np.sqrt(last.variance) / sd - 1),
            last.variance / exact.variance - 1,
            mean,
            last.gain - exact.gain,
            _variance(found.final, found.data),
            _variance(found.final, found.denoised),
            _variance(found.denoised, found.data),
        )
        rms = [float(np.sqrt(np.mean(value**2))) for value in values]
    return {name: value if np.isfinite(value) else np.nan for name, value in zip(_COLUMNS, rms, strict=True)}


def _variance(law: Law, other: Law) -> Array:
    return law.variance / other.variance - 1


def shipped_error(sampler: Unmodified, steps: int, data: Data) -> float:
    """The w2 error of the sampler as it ships, constants in float32 and times from its own table; 0 if it cannot be
    read off so, or takes no so many steps."""
    try:
        return errors_of(sampler, transcribe(sampler, steps, exact=False), data)["w2"]
    except ValueError:
        return 0.0

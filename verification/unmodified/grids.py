"""What is asked of an unmodified sampler on each of its grids, whatever the data, and how the answers make a verdict.

A sampler is studied on its own grid and on one that is smooth in log sigma, where it has one
(`configurations.samplers_of`). The smooth one decides the order, and the sampler's own whether errors fall; where there
is one grid, it decides both. What the errors are on a grid is another's to say: on Gaussian data (unmodified.study), on
a mixture (unmodified.mixture).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from ...integrators.unmodified import Unmodified
from ..exact import check_levels
from ..verdicts import Array, Evidence, Finding, Fit, Judged, Kind, Weight, fit_order, order_entry, slopes_of

STEPS = (20, 40, 80, 160, 320)


def called(grid: str) -> str:
    """A grid, in words."""
    return "its default grid" if grid == "default" else f"the {grid} grid"


def order_of(steps: Array, errors: Array) -> Fit | None:
    """The order of errors (levels,) from the finest four, as `fit_order`. Where slopes do not settle as those of
    C h^p (1 + O(h)) do, as on grids that are not smooth, and at starts and ends of another order, the interval is what
    the last three slopes span, and what extrapolating them changes."""
    fit = fit_order(steps, errors)
    if fit is None or math.isfinite(fit.low):
        return fit
    slopes = slopes_of(steps, errors)[np.isin(steps[1:], steps[(steps > fit.steps[0]) & (steps <= fit.steps[1])])]
    half = float(np.ptp(slopes) + abs(slopes[-1] - slopes[-2]))
    return Fit(fit.order, fit.order - half, fit.order + half, fit.steps)


def order_finding(
    grid: str, expected: int, fit: Fit | None, stalled: str, decides: bool, floor: str = "rounding"
) -> Finding:
    """What a grid's errors say of the order. stalled: which of them does not fall, "" if all do; floor: what too few
    levels stand above, where there is no fit."""
    where = f"on {called(grid)}"
    if stalled:
        return Finding(f"does not converge {where}: {stalled}", Weight.REFUTES, Kind.ORDER)
    if fit is None:
        return Finding(f"fewer than four levels stand above {floor} {where}", Weight.FORBIDS, Kind.ORDER)
    if fit.misses(expected):
        text = f"the order is {fit} {where} from {fit.steps[0]} to {fit.steps[1]} steps, expected {expected}"
        return Finding(text, Weight.REFUTES if decides else Weight.NOTES, Kind.ORDER)
    if fit.is_settled and fit.reaches(expected):
        return Finding(f"order {fit.order:.2f} {where}", Weight.SUPPORTS, Kind.ORDER)
    text = f"the order is not settled {where} ({fit})"
    return Finding(text, Weight.FORBIDS if decides else Weight.NOTES, Kind.ORDER)


class OnGrid(Protocol):
    """A sampler on one grid: the steps (levels,) that were done, whether the order there decides, and what is known."""

    @property
    def grid(self) -> str: ...
    @property
    def steps(self) -> Array: ...
    @property
    def decides(self) -> bool: ...
    @property
    def fit(self) -> Fit | None: ...
    def findings(self) -> list[Finding]: ...
    def as_dict(self) -> dict[str, Any]: ...


G = TypeVar("G", bound=OnGrid)


@dataclass(frozen=True, eq=False)
class StudyOnGrids(Judged, Generic[G]):
    """A sampler on its grids, and the verdict on it. expected: the order it is held to; predicts: what its network
    answers; notes: what was said of the sampler."""

    name: str
    expected: int
    predicts: str
    grids: tuple[G, ...]
    notes: tuple[str, ...] = ()
    network: ClassVar[str]

    def said(self) -> Iterable[str]:
        """What should be known beside the verdict."""
        yield from self.notes

    @property
    def order(self) -> Fit | None:
        """The lowest order on the grids that decide."""
        fits = [study.fit for study in self.grids if study.decides and study.fit is not None]
        return min(fits, key=lambda fit: fit.order, default=None)

    @property
    def evidence(self) -> Evidence:
        """Of every grid, and what was said."""
        findings = [finding for study in self.grids for finding in study.findings()]
        findings += [Finding(note, Weight.NOTES, Kind.RANGE) for note in dict.fromkeys(self.said())]
        grids = " and ".join(called(study.grid) for study in self.grids)
        covered = (f"a network that predicts {self.predicts}{self.network}; {grids}",)
        advice = f"the slopes still move: run up to about {2 * max(int(study.steps[-1]) for study in self.grids)} steps"
        return Evidence(self.expected, None, tuple(findings), self.order, covered=covered, advice=advice)

    @property
    def steps(self) -> Array:
        """The levels that were done on every grid."""
        return min((study.steps for study in self.grids), key=len)

    @property
    def problems(self) -> tuple[str, ...]:
        """What makes it fail, whatever its errors are: nothing is known of it."""
        return ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        answer: dict[str, Any] = {"sampler": self.name, "expected": self.expected, "predicts": self.predicts}
        answer["grids"] = [study.as_dict() for study in self.grids]
        answer["order"] = order_entry(self.order, self.expected, None)
        return answer | {"verdict": str(self.verdict), "reason": self.reason, "warnings": list(self.warnings)}


def asked_of(
    samplers: dict[str, Unmodified], expected: int | None, steps: Sequence[int]
) -> tuple[int, list[tuple[Unmodified, str, bool]]]:
    """The order to hold a sampler to, by default what is claimed, or 1; and it with the name of each grid, and whether
    its order there decides. Raises ValueError on bad levels."""
    check_levels(steps)
    first = next(iter(samplers.values()))
    order = first.order or 1 if expected is None else expected
    several = len(samplers) > 1
    return order, [(sampler, grid, not several or grid != "default") for grid, sampler in samplers.items()]

"""What is asked of an unmodified sampler on each of its grids, whatever the data, and how the answers make a verdict.

A sampler is studied on its own grid and on one that is smooth in log sigma, where it has one
(`configurations.samplers_of`).
The smooth one decides the order, and the sampler's own whether errors fall. Where there is one grid, it decides both,
but for an order below the claim on a grid that is not smooth (unmodified.noise_levels), which may be the grid's doing.
What the errors are on a grid is another's to say: on Gaussian data (unmodified.study), on a mixture
(unmodified.mixture).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from ...integrators.unmodified import Unmodified
from ..exact import check_levels
from ..verdicts import MARGIN, Array, Evidence, Finding, Fit, Judged, Kind, Weight, fit_order, order_entry, slopes_of
from .noise_levels import Grid, equal_steps_finding

STEPS = (20, 40, 80, 160, 320)
# An interval of an order, above which it says nothing.
WIDEST = 1.0
# Numbers of steps that end alike for solvers of two and of three evaluations a step are multiples of this.
_SHARED = 6
# Where steps are of fewer rows than this, that they are whole rows is seen in slopes.
_PER_ROW = 8


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


def shown(fit: Fit) -> str:
    """An order with its interval; of one that is wider than `WIDEST`, no number."""
    return str(fit) if fit.high - fit.low <= WIDEST else "its slopes have not settled"


def falls_short(fit: Fit, expected: int) -> bool:
    """Whether an order is below the expected one: settled and less by a quarter, or, as slopes that still move may go
    on, all of an interval that is known at all less by a half."""
    narrow = fit.high - fit.low <= WIDEST
    return fit.misses(expected) or (narrow and fit.high < expected - 2 * MARGIN)


def order_finding(
    where: str, expected: int, fit: Fit | None, stalled: str, decides: bool, floor: str = "rounding"
) -> Finding:
    """What a grid's errors say of the order. where: "on its default grid"; stalled: which of them does not fall, "" if
    all do; floor: what too few levels stand above, where there is no fit."""
    if stalled:
        return Finding(f"does not converge {where}: {stalled}", Weight.REFUTES, Kind.ORDER)
    if fit is None:
        return Finding(f"fewer than four levels stand above {floor} {where}", Weight.FORBIDS, Kind.ORDER)
    if falls_short(fit, expected):
        text = f"the order is {fit} {where} from {fit.steps[0]} to {fit.steps[1]} steps, expected {expected}"
        return Finding(text, Weight.REFUTES if decides else Weight.NOTES, Kind.ORDER)
    if fit.is_settled and fit.reaches(expected):
        return Finding(f"order {fit.order:.2f} {where}", Weight.SUPPORTS, Kind.ORDER)
    text = f"the order is not settled {where} ({shown(fit)})"
    return Finding(text, Weight.FORBIDS if decides else Weight.NOTES, Kind.ORDER)


class OnGrid(Protocol):
    """A sampler on one grid: the steps (levels,) that were done, whether the order there decides, errors (levels,), nan
    below their floor, what is known, and of it what the verdict should say, whatever it is."""

    @property
    def grid(self) -> str: ...
    @property
    def steps(self) -> Array: ...
    @property
    def decides(self) -> bool: ...
    @property
    def fit(self) -> Fit | None: ...
    @property
    def layout(self) -> Grid: ...
    def above_floor(self) -> Array: ...
    def findings(self) -> list[Finding]: ...
    def beside(self) -> list[str]: ...
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
        judged = [study for study in self.grids if study.decides or study.layout.is_smooth]
        if judged and all(study.layout.hides for study in judged):
            findings.append(equal_steps_finding(called(judged[0].grid)))
        findings += [Finding(note, Weight.NOTES, Kind.RANGE) for note in dict.fromkeys(self.said())]
        grids = " and ".join(called(study.grid) for study in self.grids)
        covered = (f"a network that predicts {self.predicts}{self.network}; {grids}",)
        known = tuple(said for study in self.grids for said in study.beside())
        advice = "; ".join(dict.fromkeys(filter(None, map(self._advice, self.grids))))
        return Evidence(self.expected, None, tuple(findings), self.order, known, covered, advice=advice)

    def _advice(self, study: G) -> str:
        """What would settle a grid's order, "" where it is settled, or need not be."""
        if not any(f.weight is Weight.FORBIDS and f.kind is Kind.ORDER for f in study.findings()):
            return ""
        finest, seen = int(study.steps[-1]), np.isfinite(study.above_floor())
        if not seen.all():
            first = int(np.argmin(seen))
            last, hidden = int(study.steps[max(first - 1, 0)]), int(study.steps[first])
            return f"more steps do not help, whose error rounding hides from {hidden} on: run up to {last}"
        turns = np.diff(slopes_of(study.steps, study.above_floor()))[-2:]
        if len(turns) == 2 and turns[0] * turns[1] < 0 and np.abs(turns).min() > 2 * MARGIN:
            multiples = ",".join(str(2 * _SHARED * 2**k) for k in range(len(study.steps)))
            return (
                f"its error goes up and down with N: give numbers of steps with the same divisors, --steps {multiples}"
            )
        judged, shipped = study.layout.rows
        if judged and judged == shipped and finest * _PER_ROW >= judged:
            return (
                f"its path is a table of {judged:,} rows, which limits refinement: give table_of(refined(alpha_bar, "
                "64000)) of theory.paths, the same curve, and take its rows"
            )
        if not study.layout.is_smooth and study.decides and study.layout.reach is None:
            return (
                "its times would settle it, chosen with steps in log sigma that shrink as 1/N, as Karras' are; or "
                "`weakorder identify`, which says which word it is, whose order is proven"
            )
        return f"the slopes still move: run up to about {2 * finest} steps"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is no warning, and stands under the table: on which table it is judged."""
        tables = dict.fromkeys(study.layout.rows for study in self.grids)
        return tuple(
            f"judged on the same schedule with {judged:,} rows; as shipped {shipped:,}"
            for judged, shipped in tables
            if judged != shipped
        )

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
        answer |= {"verdict": str(self.verdict), "reason": self.reason, "warnings": list(self.warnings)}
        return answer | {"remarks": list(self.remarks)}


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

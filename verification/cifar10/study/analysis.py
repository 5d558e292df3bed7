"""What the cells of a scheme add up to: its weak order on a network, with the verdict.

The cells at N_1 < N_2 < ... steps have weak errors d_l against one reference of N_ref steps: means of rows D_l
(cifar10.study.statistics), the same samples, on the same Brownian motion, at all levels. So resamples are taken
of all levels alike, and what the levels have in common does not blur the slopes. Of the reference's scheme at its
finest level, with error d and R = N_ref / N, the reference's own error is about, at order p,

    b = d R^-p / (1 - R^-p)                                                             (`systematic`),

and the true weak error of a level d_l + b. A level is fitted if its norm is above `SURE` standard errors of noise and
above `SURE` |b|. The order is `fits.sampled_fit`'s through three or more neighbouring levels up to the finest of
these; to the half width of its interval comes what adding b to every level changes.

    FAIL          not consistent, or proven lower; or, where no proof contradicts it, the finest level diverges, or an
                  order from `CONCLUSIVE` or more levels lies below the expected one by more than `MARGIN`
    PASS          from `CONCLUSIVE` or more levels a quantity has its order above the expected one less `MARGIN` and
                  within +- `MARGIN`, not above the proven one by more than `MARGIN`; and no quantity has it below
    INCONCLUSIVE  otherwise, with what it would take

Three levels have two slopes, which may agree by chance before either is asymptotic: they give an order with an
interval, but conclude nothing. Nor does an order above the proven one: there the leading term does not lead yet. A
limit, as in monte_carlo, is not judged: the exact law of a network's dynamics is not known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ....theory.model import Parameters
from ....theory.scheme import Scheme
from ...verdicts import (
    MARGIN,
    SURE,
    Array,
    Evidence,
    Finding,
    Fit,
    Judged,
    Kind,
    Norm,
    Weight,
    claim_of,
    last_run,
    lowest,
    order_entry,
    resampled_norms,
    sampled_fit,
)
from .statistics import QUANTITIES, CellStatistics

CONCLUSIVE = 4  # levels


class Level(NamedTuple):
    """A cell: the steps of a run and what its images say."""

    steps: int
    statistics: CellStatistics


@dataclass(frozen=True)
class Reference:
    """The fine run: its scheme and steps, and that scheme's own cell at the largest budget, if it has one."""

    scheme: Scheme
    steps: int
    finest: Level | None = None

    def own_error(self, quantity: str, fallback: Level) -> Array:
        """Rows (n, F) whose mean is b, the reference's weak error, from its scheme's finest cell. Without one, from
        that of the scheme under study: no worse than if the reference were as bad at equal steps."""
        usable = self.finest is not None and not self.finest.statistics.diverged
        level = self.finest if self.finest is not None and usable else fallback
        part = (level.steps / self.steps) ** (self.scheme.order or 1)
        return level.statistics.rows[quantity].astype(float) * (part / (1 - part))


@dataclass(frozen=True, eq=False)
class SchemeVerdict(Judged):
    """The weak order of one scheme from its cells, and the verdict.

    levels: by budget of evaluations, increasing. problems, proven: `verdict.Claim`.
    """

    name: str
    expected: int
    proven: int | None
    problems: tuple[str, ...]
    levels: Mapping[int, Level]
    reference: Reference

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError(f"scheme {self.name!r} has no cell; give at least one budget that buys a step")
        steps = [level.steps for level in self.levels.values()]
        if list(self.levels) != sorted(self.levels) or steps != sorted(steps):
            raise ValueError(f"budgets {list(self.levels)} with steps {steps}: give them in increasing order")
        cells = [*self.levels.values(), *([] if self.reference.finest is None else [self.reference.finest])]
        if (most := max(level.steps for level in cells)) >= self.reference.steps:
            raise ValueError(f"the reference has {self.reference.steps} steps, a cell {most}; it must have more")
        if len(samples := {level.statistics.samples for level in cells}) > 1:
            raise ValueError(
                f"cells of {self.name!r} or its reference have {sorted(samples)} samples; give each the same"
            )

    @cached_property
    def distinct(self) -> dict[int, Level]:
        """The levels with more steps than the one before: neighbouring budgets may buy the same steps."""
        steps = [0, *(level.steps for level in self.levels.values())]
        return {
            nfe: level for (nfe, level), before in zip(self.levels.items(), steps, strict=False) if level.steps > before
        }

    @property
    def diverged(self) -> bool:
        """Whether the finest level did."""
        return self._finest.statistics.diverged

    @cached_property
    def systematic(self) -> dict[str, float]:
        """|b| of each quantity, in its units: its noise removed, or the noise where that is all there is."""
        if self.diverged:
            return {}
        norms = {q: Norm.of(self.reference.own_error(q, self._finest)) for q in QUANTITIES}
        return {q: max(norm.value, norm.noise) for q, norm in norms.items()}

    @cached_property
    def usable(self) -> dict[str, tuple[int, ...]]:
        """Of each quantity, the neighbouring budgets that are fitted, up to the finest such."""
        found = {}
        for quantity in self.systematic:
            stands = [self._stands_out(level, quantity) for level in self.distinct.values()]
            found[quantity] = tuple(self.distinct)[last_run(stands)]
        return found

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """The orders of the quantities with three usable levels."""
        return {q: self._fit(q, budgets) for q, budgets in self.usable.items() if len(budgets) >= 3}

    @property
    def slopes(self) -> dict[int, dict[str, float | None]]:
        """log(d_l / d_l+1) / log(N_l+1 / N_l) at the budget of l + 1, by quantity; None where a level is not sure."""
        found: dict[int, dict[str, float | None]] = {nfe: dict.fromkeys(QUANTITIES) for nfe in self.levels}
        for (_, coarse), (nfe, fine) in itertools.pairwise(self.distinct.items()):
            for quantity in QUANTITIES:
                pair = [level.statistics.weak.get(quantity) for level in (coarse, fine)]
                norms = [weak.norm for weak in pair if weak is not None and weak.norm.is_sure]
                if len(norms) == 2:
                    ratio = math.log(norms[0].value / norms[1].value)
                    found[nfe][quantity] = ratio / math.log(fine.steps / coarse.steps)
        return found

    @cached_property
    def ordered(self) -> tuple[str, ...]:
        """The quantities whose order is known within `MARGIN`, and is the expected one, or higher as far as proven."""
        most = math.inf if self.proven is None else self.proven + MARGIN
        return tuple(
            q for q, fit in self.fits.items() if fit.reaches(self.expected) and fit.order <= most and fit.is_settled
        )

    @property
    def concluded(self) -> tuple[str, ...]:
        """Of these, the ones fitted to enough levels."""
        return tuple(q for q in self.ordered if len(self.usable[q]) >= CONCLUSIVE)

    @property
    def low(self) -> tuple[str, ...]:
        """The quantities whose interval, from enough levels, lies below the expected order."""
        return tuple(
            q for q, fit in self.fits.items() if fit.misses(self.expected) and len(self.usable[q]) >= CONCLUSIVE
        )

    @property
    def measured(self) -> Fit | None:
        """The lowest order of the concluded quantities, or of those that have one."""
        return lowest(self.fits, self.concluded, self.ordered)

    @property
    def evidence(self) -> Evidence:
        """By the rules above."""
        findings = [Finding(problem, Weight.REFUTES, Kind.PREMISE) for problem in self.problems]
        if self.diverged:
            text = f"diverges at {list(self.levels)[-1]} evaluations"
            findings.append(Finding(text, Weight.OPPOSES, Kind.LEVELS))
            excuse = f"too stiff for so few steps, {self._doubled}"
            return Evidence(self.expected, self.proven, tuple(findings), excuse=excuse)
        for quantity in self.low:
            text = f"the order of the {quantity} is {self.fits[quantity]}, expected {self.expected}"
            findings.append(Finding(text, Weight.OPPOSES, Kind.ORDER))
        findings += [Finding(f"the {q} has its order", Weight.SUPPORTS, Kind.ORDER) for q in self.concluded]
        unresolved = [q for q in QUANTITIES if q not in self.concluded]
        return Evidence(
            self.expected,
            self.proven,
            tuple(findings),
            self.measured,
            (f"not resolved: {', '.join(unresolved)}",) if unresolved else (),
            excuse=f"these budgets are not asymptotic yet, {self._doubled}",
            advice="" if self.concluded else self._takes(),
        )

    @property
    def _doubled(self) -> str:
        return f"add a budget of about {2 * list(self.distinct)[-1]} evaluations"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "order": order_entry(self.measured, self.expected, self.proven),
            "fits": {q: asdict(fit) for q, fit in self.fits.items()},
            "systematic": self.systematic,
        }

    @property
    def _finest(self) -> Level:
        return list(self.levels.values())[-1]

    def _stands_out(self, level: Level, quantity: str) -> bool:
        weak = level.statistics.weak.get(quantity)
        return weak is not None and weak.norm.is_sure and weak.norm.value > SURE * self.systematic[quantity]

    def _fit(self, quantity: str, budgets: Sequence[int]) -> Fit:
        used = [self.levels[nfe] for nfe in budgets]
        rows = [level.statistics.rows[quantity].astype(float) for level in used]
        bias = self.reference.own_error(quantity, self._finest)
        norms, resampled = _log_norms(rows)
        shifted, _ = _log_norms([D + bias for D in rows])
        return sampled_fit([level.steps for level in used], norms, resampled, shifted, rows=len(rows[0]))

    def _takes(self) -> str:
        """What would settle it: more samples, or more evaluations."""
        budgets, samples, doubled = list(self.distinct), self._finest.statistics.samples, self._doubled
        if len(alive := self._alive) < 3:
            what = f", and it diverges at {budgets[-len(alive) - 1]}" if len(alive) < len(budgets) else ""
            return f"an order takes 3 neighbouring budgets, a verdict on it {CONCLUSIVE}{what}: {doubled}"
        if not self.fits:
            wanted = self._samples_for_three()
            if wanted is None:
                return f"errors are not told from noise with {samples} samples: take many more, or add smaller budgets"
            if wanted > samples:
                return f"3 neighbouring budgets stand above their noise with about {wanted} samples (now {samples})"
            return (
                f"errors do not stand {SURE:g} times above the reference's own ({max(self.systematic.values()):.1e} at "
                "most): take a finer one"
            )
        if self.ordered or all(len(self.usable[q]) < CONCLUSIVE for q in self.fits):
            return f"{CONCLUSIVE - 1} levels have 2 slopes, which may agree by chance: {doubled}"
        most = math.inf if self.proven is None else self.proven + MARGIN
        if all(fit.order > most for fit in self.fits.values()):
            return f"errors fall faster than the proven order, so the leading term does not lead yet: {doubled}"
        return f"the slopes still move, or are not known well enough: {doubled}, or take more than {samples} samples"

    @property
    def _alive(self) -> list[Level]:
        """The levels from the last divergence on."""
        alive = itertools.takewhile(lambda level: not level.statistics.diverged, reversed(list(self.distinct.values())))
        return list(alive)[::-1]

    def _samples_for_three(self) -> int | None:
        """Samples at which the noise, which falls like their root, leaves 3 neighbouring levels of some quantity sure;
        None if an error is all noise."""
        found = []
        for quantity in QUANTITIES:
            norms = [level.statistics.weak[quantity].norm for level in self._alive]
            ratios = [SURE * norm.noise / norm.value if norm.value > 0 else math.inf for norm in norms]
            found += [max(three) for three in zip(ratios, ratios[1:], ratios[2:], strict=False)]
        ratio = min(found, default=math.inf)
        return math.ceil(self._finest.statistics.samples * max(ratio, 1.0) ** 2) if math.isfinite(ratio) else None


def judge(
    scheme: Scheme,
    params: Parameters,
    levels: Mapping[int, Level],
    reference: Reference,
    expected: int | None = None,
    graded: bool = False,
) -> SchemeVerdict:
    """The verdict on a scheme from its cells by budget of evaluations; expected: default the scheme's own order, or 1;
    graded: whether the grid is (integrators.grids).

    Raises ValueError without a cell, if the levels do not increase, or differ in their samples, or reach the
    reference's steps.
    """
    claim = claim_of(scheme, params, expected, graded)
    return SchemeVerdict(scheme.name, *claim, levels=dict(sorted(levels.items())), reference=reference)


def _log_norms(levels: Sequence[Array]) -> tuple[Array, Array]:
    """log norms (levels,) and those of resamples (levels, count), which all levels have in common but for the rounding
    of rows to float32: nothing is known better."""
    tiny = np.finfo(float).tiny
    found = [resampled_norms(rows) for rows in levels]
    logs = np.log([max(norm.value, tiny) for norm, _ in found])
    resampled = np.stack([np.log(np.maximum(squares, tiny)) / 2 for _, squares in found])
    return logs, resampled + np.finfo(np.float32).eps * np.random.default_rng(0).standard_normal(resampled.shape)

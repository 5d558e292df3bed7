"""Coupled Monte Carlo: the order and the limit of a scheme on any target with a known score, by sampling, judged.

The estimates are those of sampled.multilevel: weak errors, the orders of the coupled differences, and limits, all
with error bars. The verdict on them:

    FAIL         not consistent or proven lower; or, where no proof contradicts it, a run diverges at the finest level,
                 an order lies below the expected one by more than `MARGIN`, or some limit is off by more than
                 z standard errors + systematic (z = `estimates.threshold`)
    PASS         a quantity has its order above the expected one less `MARGIN`, within +- `MARGIN`, and its limits are
                 known to `LIMIT_SHARE` of its coarsest error; no quantity contradicts it
    INCONCLUSIVE otherwise, with the paths and seconds that a conclusion would take

One quantity is enough to pass, where exact.order asks for all: what a budget does not resolve says nothing. A
proof of the expected order outranks what sampling says: it is then in dispute (verdicts.evidence), an outcome with its
own sentence, for the error of a limit is an estimate and the score may not be the target's.

How many paths: a pilot measures variances; then every level gets the paths that bring its norm to the wanted relative
accuracy, for as many quantities as the budget allows, cheapest first. Costs are counted in score evaluations, so the
plan does not depend on how fast the machine is. Results are kept batch by batch in a checkpoint
(sampled.coupled_levels), and a study that is stopped and resumed ends in the same bits.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...integrators.coupling import couple
from ...integrators.grids import is_graded, time_grid
from ...theory.scheme import Scheme
from ..exact import MIN_RATIO, T_END, check_diffusion
from ..verdicts import (
    Array,
    BlockMeans,
    Evidence,
    Finding,
    Fit,
    Judged,
    Kind,
    Verdict,
    Weight,
    claim_of,
    lowest,
    order_entry,
)
from .coupled_levels import BATCH_ENTRIES, BLOCKS, FORMAT, Experiment, Progress, Store
from .distances import DISTANCES
from .functionals import Functionals
from .multilevel import LIMIT_SHARE, Limit, MultilevelEstimates, reference_share, telescope

if TYPE_CHECKING:
    from ..targets import Target

Run = tuple[Scheme, Array]  # a scheme on its times
STEPS = (50, 100, 200, 400, 800)
ACCURACY = 0.03
# Score evaluations times coordinates that a study may spend unless told otherwise: about a minute.
BUDGET = 2e8
PILOT_BATCHES = 2
# A pilot may see a difference too small or too large by chance; no round multiplies a level's paths by more than this.
GROWTH = 4
# Paths grow like its inverse square: beyond this nobody has them.
FINEST_ACCURACY = 1e-9
# While the verdict is open and the budget lasts, up to so many times the wanted accuracy.
FINEST = 4


@dataclass(frozen=True, kw_only=True)
class MonteCarloStudy(MultilevelEstimates, Judged):
    """The estimates of a scheme on a target, and the verdict on them.

    h (L + 1,): mean step sizes; proven, problems: `verdict.Claim`; complete: whether time was left to sample all that
    was planned.
    """

    name: str
    target: str
    proven: int | None
    problems: tuple[str, ...]
    h: Array
    complete: bool = True

    @property
    def diverged(self) -> bool:
        """Whether the finest level overflowed."""
        return not np.isfinite(self.level(len(self.steps) - 1).mean).all()

    @cached_property
    def ordered(self) -> tuple[str, ...]:
        """The quantities whose order is known within `MARGIN` and is the expected one, or higher."""
        return tuple(q for q, fit in self.fits.items() if fit.reaches(self.expected) and fit.is_settled)

    @cached_property
    def concluded(self) -> tuple[str, ...]:
        """Of these, the quantities whose limits are known to `LIMIT_SHARE` of their error at the coarsest level."""
        z, found = self.z, []
        for quantity in self.ordered:
            columns = self.columns(quantity)
            limits = [self.limits[k] for k in columns]
            widest = max(z * limit.standard_error + limit.systematic for limit in limits)
            if widest <= LIMIT_SHARE * float(np.linalg.norm(self.multilevel(0)[0][columns])):
                found.append(quantity)
        return tuple(found)

    @property
    def wrong_limits(self) -> tuple[Limit, ...]:
        """Limits that are not 0 within z standard errors and the systematic uncertainty."""
        return tuple(b for b in self.limits if abs(b.bias) > self._width(b))

    @property
    def measured(self) -> Fit | None:
        """The lowest order of the concluded quantities, or of those that have one."""
        return lowest(self.fits, self.concluded, self.ordered)

    @property
    def evidence(self) -> Evidence:
        """By the rules above."""
        findings = [Finding(problem, Weight.REFUTES, Kind.PREMISE) for problem in self.problems]
        if self.diverged:
            findings.append(Finding(f"diverges at {int(self.steps[-1])} steps", Weight.OPPOSES, Kind.LEVELS))
            excuse = "the dynamics are too stiff for so few steps, or the score is not that of the target"
            return Evidence(self.expected, self.proven, tuple(findings), excuse=excuse)
        limits, low = self.wrong_limits, [q for q, fit in self.fits.items() if fit.misses(self.expected)]
        if limits:
            worst = self._limit_sentence(max(limits, key=lambda b: abs(b.bias) / self._width(b)))
            findings.append(Finding(f"converges to a wrong law: {worst}", Weight.OPPOSES, Kind.LIMIT))
        for quantity in low:
            text = f"the order of the {quantity} differences is {self.fits[quantity]}, expected {self.expected}"
            findings.append(Finding(text, Weight.OPPOSES, Kind.ORDER))
        findings += [
            Finding(f"the {q} differences are as expected", Weight.SUPPORTS, Kind.ORDER) for q in self.concluded
        ]
        known = [] if limits else [self._limit_sentence(self.worst_limit)]
        if unresolved := [q for q in self.norms if q not in self.concluded]:
            known.append(f"not resolved: {', '.join(unresolved)}")
        return Evidence(
            self.expected,
            self.proven,
            tuple(findings),
            self.measured,
            tuple(known),
            excuse="the levels are not asymptotic yet, or the score is not that of the target",
            advice="" if self.concluded else self._conclusion(),
        )

    def _width(self, limit: Limit) -> float:
        """How far a limit may be off by chance and by what is left out of it."""
        return self.z * limit.standard_error + limit.systematic

    def _limit_sentence(self, limit: Limit) -> str:
        return f"as h -> 0 E {limit.name} is off by {limit.bias:+.2e} +- {self._width(limit):.1e}"

    def _conclusion(self) -> str:
        costs = {q: self.conclusion(q) for q in self.norms}
        quantity, (paths, evaluations, seconds) = min(costs.items(), key=lambda item: item[1][1])
        if not math.isfinite(evaluations):
            return "no difference stands above its noise: use fewer steps, or a larger budget"
        if self.ordered and evaluations <= self.spent:
            names = ", ".join(self.ordered)
            return f"the limits of {names} are not known to {LIMIT_SHARE:g} of the error at {int(self.steps[0])} steps"
        if evaluations <= self.spent and self.fits:
            return (
                f"the slopes still move: use more than {int(self.steps[-1])} steps, or --accuracy {self.accuracy / 2:g}"
            )
        return (
            f"{self.accuracy:.2g} of the {quantity} differences takes {paths:.1e} paths, {evaluations:.1e} score "
            f"evaluations, about {seconds:.0f} s (spent: {self.spent:.1e})"
        )

    def as_dict(self) -> dict[str, Any]:
        """The study for JSON. nan stands for what does not exist."""
        levels = []
        for level, steps in enumerate(self.steps.astype(int).tolist()):
            how, value, error, systematic = self.weak_error(level)
            entry: dict[str, Any] = {"steps": steps, "h": float(self.h[level]), "estimate": how}
            entry["error"] = float(np.linalg.norm(value[self.columns("covariance")]))
            functions = zip(self.names, value.tolist(), error.tolist(), systematic.tolist(), strict=True)
            entry["weak_errors"] = {n: {"value": v, "standard_error": s, "systematic": b} for n, v, s, b in functions}
            if level < len(self.coupled):
                slopes = {q: self.slopes(q) for q in self.norms}
                entry["paths"] = self.coupled[level].paths
                entry["differences"] = {q: n[level]._asdict() for q, n in self.norms.items()}
                entry["slopes"] = {q: float(s[level - 1]) if level else math.nan for q, s in slopes.items()}
                entry["slope"] = entry["slopes"]["covariance"]
                entry["strong_error"] = float(self.strong_errors[level])
                distance = self.differences[level].take(slice(len(self.names), None))
                entry["distances"] = {
                    n: {"difference": v, "standard_error": s}
                    for n, v, s in zip(DISTANCES, distance.mean.tolist(), distance.standard_error.tolist(), strict=True)
                }
            levels.append(entry)
        costs = [self.cost(q, level) for q in self.norms for level in range(len(self.steps))]
        return {
            "verdict": str(self.verdict),
            "state": str(self.state),
            "reason": self.reason,
            "target": self.target,
            "order": order_entry(self.measured, self.expected, self.proven),
            "fits": {q: asdict(fit) for q, fit in self.fits.items()},
            "limits": [limit._asdict() for limit in self.limits],
            "levels": levels,
            "costs": [cost._asdict() | {"ratio": cost.ratio, "method": cost.method} for cost in costs],
            "accuracy": self.accuracy,
            "threshold": self.z,
            "spent": {"evaluations": self.spent, "seconds": self.spent * self.pace},
        }


# --- Running a study --------------------------------------------------------------------------------------------------


def study_target(
    scheme: Scheme,
    target: Target,
    *,
    steps: Sequence[int] = STEPS,
    expected: int | None = None,
    t_end: float = T_END,
    grid: str = "uniform",
    accuracy: float = ACCURACY,
    evaluations: float | None = None,
    seconds: float = math.inf,
    seed: int = 0,
    reference: Scheme | None = None,
    refinement: int = 16,
    checkpoint: Path | None = None,
    device: str = "cpu",
    progress: Callable[[Progress], None] = lambda _: None,
) -> MonteCarloStudy:
    """The weak order and limit of a scheme on a target with a known score, by coupled Monte Carlo.

    steps: the levels N_0 < N_1 < ... in one ratio, 4 or more. expected: the order to hold it to; default the scheme's
    own, or 1. accuracy: wanted, relative, of every level's difference; finer while the verdict is open. evaluations:
    the most score evaluations to spend (default `BUDGET` over the target's coordinates), beyond the pilot's; seconds:
    when to stop, with what there is by then. reference: run at `refinement` times the last level's steps on the same
    Brownian motion (default: extrapolation). checkpoint: a file that keeps what was sampled; the same study goes on
    from it, with another accuracy or budget too. device: torch's name of where states live; the last bits are its own.
    Raises ValueError on bad input.
    """
    params = target.params
    check_diffusion(scheme, target.diffusion)
    _check(steps, accuracy, evaluations, seconds)
    claim = claim_of(scheme, params, expected, is_graded(grid))
    functionals = Functionals(target, t_end)
    runs = [(scheme, time_grid(grid, count, params, t_end)) for count in steps]
    fine = None if reference is None else (reference, time_grid(grid, refinement * steps[-1], params, t_end))
    experiments = [
        Experiment(target, functionals, couple(group, params), seed, stream, torch.device(device))
        for stream, group in enumerate(_groups(runs, fine))
    ]
    per_path = np.array([experiment.evaluations for experiment in experiments], dtype=float)
    plain_costs = np.array([scheme.nfe_per_step * count for count in steps], dtype=float)

    def study(samples: list[BlockMeans], complete: bool) -> MonteCarloStudy:
        return MonteCarloStudy(
            name=scheme.name,
            target=target.name,
            expected=claim.expected,
            proven=claim.proven,
            problems=claim.problems,
            steps=np.asarray(steps, dtype=float),
            h=(params.T - t_end) / np.asarray(steps, dtype=float),
            names=functionals.names,
            quantities=functionals.quantities,
            exact=functionals.expectations,
            coupled=tuple(samples[: len(steps) - 1]),
            plain={0: samples[-1]},
            reference=None if reference is None else samples[-2],
            weights=telescope(len(steps), steps[1] / steps[0], claim.expected, scheme, reference, refinement),
            share=reference_share(scheme, reference, refinement),
            evaluations=(np.maximum(plain_costs, 1), np.maximum(per_path[:-1], 1)),
            accuracy=accuracy,
            complete=complete,
        )

    budget = BUDGET / math.prod(target.event) if evaluations is None else evaluations
    plan = (list(steps), t_end, grid, seed, str(reference), refinement)
    description = _description(scheme, target, functionals, plan, torch.device(device).type)
    store = Store(experiments, description, checkpoint, time.monotonic() + seconds, progress)
    return _sampled(store, study, budget, np.array([experiment.paths for experiment in experiments]))


def _sampled(
    store: Store, study: Callable[[list[BlockMeans], bool], MonteCarloStudy], budget: float, batch: Array
) -> MonteCarloStudy:
    """Sample in rounds, until what is wanted is known, the budget is spent or the store's time is up; batch: paths.

    study: what the samples say, and whether they are complete.
    """
    counts, aim = np.full(len(batch), PILOT_BATCHES), math.inf
    while True:
        complete = store.fill(counts)
        found = study(store.samples(counts if complete else None), complete)
        if not complete:
            return found
        aim = min(aim, found.accuracy)
        batches = _plan(replace(found, accuracy=aim), budget, batch, counts)
        if (batches > counts).any():
            counts = np.maximum(counts, batches)
        elif found.verdict is Verdict.INCONCLUSIVE and aim > found.accuracy / FINEST:
            aim /= math.sqrt(2)
        else:
            store.save()
            return found


def _groups(runs: Sequence[Run], fine: Run | None) -> list[tuple[Run, ...]]:
    """The runs on one Brownian motion: neighbouring levels, the last and the reference, and the first by itself."""
    return [*itertools.pairwise(runs), *([] if fine is None else [(runs[-1], fine)]), (runs[0],)]


def _description(scheme: Scheme, target: Target, functionals: Functionals, plan: tuple[Any, ...], kind: str) -> str:
    """All that samples depend on: those of a checkpoint with another description are another study's.

    plan: the levels, where they end, and their noise; kind: of device, whose last bits are its own.
    """
    description = [str(scheme), scheme.splitting.name, scheme.flow, scheme.lambda_s, target.name, target.event]
    description += [list(map(float, target.weights[:2])), functionals.expectations.tolist(), asdict(target.params)]
    description += [*plan, BATCH_ENTRIES, BLOCKS, FORMAT, *scheme.held_key]
    return json.dumps(description if kind == "cpu" else [*description, kind])


def _check(steps: Sequence[int], accuracy: float, evaluations: float | None, seconds: float) -> None:
    """Raises ValueError on levels, an accuracy or a budget that make no study."""
    ratios = {later / earlier for earlier, later in itertools.pairwise(steps) if earlier > 0}
    if len(steps) < 4 or steps[0] < 1 or len(ratios) != 1 or min(ratios) < MIN_RATIO:
        raise ValueError(f"levels {list(steps)}: give 4 or more numbers of steps in one ratio: 50 100 200 400")
    if not FINEST_ACCURACY <= accuracy < 1:
        raise ValueError(
            f"accuracy = {accuracy:g} is not between {FINEST_ACCURACY:g} and 1; 0.02 is 2% of the differences"
        )
    for name, value in (("evaluations", evaluations), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} = {value:g}: a budget is positive; leave it out for the usual one")


def _plan(study: MonteCarloStudy, budget: float, batch: Array, counts: Array) -> Array:
    """How many batches each experiment should have: those of the cheapest quantities that the budget allows."""
    per_path = np.append(study.evaluations[1], study.evaluations[0][0])
    paths = counts * batch
    wanted = sorted(study.wanted.values(), key=lambda n: float(n @ per_path))
    goal = np.zeros(len(counts))
    for needed in wanted:
        more = np.maximum(goal, needed)
        if not float(more @ per_path) <= budget:
            if not goal.any() and np.isfinite(more).all():  # nothing is affordable: as far as the budget goes
                goal = more * budget / float(more @ per_path)
            break
        goal = more
    if not goal.any():  # nothing stands out yet: grow until something does
        goal = paths * GROWTH
    if float(np.maximum(goal, paths) @ per_path) > budget * (1 + 1e-9) and not (goal <= paths).all():
        room = budget - float(paths @ per_path)
        extra = np.maximum(goal - paths, 0)
        goal = paths + extra * max(0.0, room) / float(extra @ per_path)
    return np.minimum(np.ceil(goal / batch), counts * GROWTH).astype(int)

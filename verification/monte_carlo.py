"""Coupled Monte Carlo: the weak error, its order and its limit for any target with a known score, by sampling.

A scheme is run at N_0 < N_1 < ... < N_L steps from the exact law at t = T to t_end. Its weak error on a test function f
(verification.functionals) is e_l = E f(u_l) - E f(u), and two estimates of it are measured:

    plain        p_l = mean of f(u_l) - E f, with E f known exactly             variance Var f
    coupled      d_l = mean of f(u_l) - f(u_l+1), both runs on one Brownian     variance O(h^2): the two paths are
                 motion (integrators.coupling)                                  O(h) apart (the strong error)

    multilevel   e_l = d_l + d_l+1 + ... + d_L-1 + e_L,    e_L = (weights that remove two powers of h) d_L-1, d_L-2

The weights solve e_L = a d_L-1 + b d_L-2 for errors C_1 h^p + C_2 h^(p+1) (Richardson); how much the second one changes
e_L is kept as `systematic`. Against a reference (another scheme on the same Brownian motion, with many more steps),
e_L = d_ref / (1 - R^-p), R times more steps, or d_ref itself if its order is higher.

Since d_l = C h_l^p (1 - r^-p) + ..., the order is that of the coupled differences, which need no exact law; the limit,
whether the scheme converges to the *right* law, is p_0 - e_0: plain against multilevel at the coarsest level. The
functions of one quantity (mean, covariance, third, ...) are taken together: the norm of their differences, the squared
standard errors removed from its square. All statistics are of means over blocks of paths.

    fitted       a level counts if the norm is above `SURE` standard errors
    order        the slope through the last two, three, ... fitted levels, the one that is known best, +- (z standard
                 errors, by bootstrap over blocks) + what a change of the slopes leaves (`window_fit`)
    FAIL         not consistent or proven lower; or a run diverges at the finest level; or, where no proof contradicts
                 it, an order lies below the expected one by more than `MARGIN`, or some limit is off by more than
                 z standard errors + systematic
    PASS         a quantity has its order above the expected one less `MARGIN`, within +- `MARGIN`, and its limits are
                 known to `LIMIT_SHARE` of its coarsest error; no quantity contradicts it
    INCONCLUSIVE otherwise, with the paths and seconds that a conclusion would take

z is that of `ALARM_RATE`, the false alarms of the whole suite, divided by its number of comparisons (`threshold`).

How many paths: a pilot measures variances; then every level gets the paths that bring its norm to the wanted relative
accuracy, for as many quantities as the budget allows, cheapest first. Costs are counted in score evaluations, so the
plan does not depend on how fast the machine is. Every path is a function of the seed and its number, results are kept
batch by batch in a checkpoint, and a study that is stopped and resumed ends in the same bits.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from scipy.stats import t as student_t

from ..integrators.compiled import Segment
from ..integrators.coupling import CoupledRun, Coupling, couple, sample_coupled
from ..integrators.grids import time_grid
from ..integrators.threads import one_thread
from ..theory.flows import Flow
from ..theory.scheme import Scheme
from .algebra import Array
from .files import write_atomically
from .functionals import DISTANCES, Functionals, batch_distances
from .gaussian import GaussianLaw, GaussianTarget
from .moments import closed_map, starting_law
from .order import MARGIN, MIN_RATIO, T_END, Fit, Verdict, judged

if TYPE_CHECKING:
    from .targets import Target

STEPS = (50, 100, 200, 400, 800)
ACCURACY = 0.03
COST_ACCURACY = 0.01
SURE = 4.0
LIMIT_SHARE = 0.25

# One false alarm in a million for the whole suite. It makes at most this many comparisons: 12 schemes of the catalogue
# and as many controls on 5 targets, each with 6 orders and up to 50 limits, and as many again in tests.
ALARM_RATE, COMPARISONS = 1e-6, 2 * 24 * 5 * 56

# Score evaluations times coordinates that a study may spend unless told otherwise: about a minute.
BUDGET = 2e8
PILOT_BATCHES = 2
BLOCKS = 16  # in a batch
BOOTSTRAPS = 400
# A pilot may see a difference too small or too large by chance; no round multiplies a level's paths by more than this.
GROWTH = 4
# Paths grow like its inverse square: beyond this nobody has them.
FINEST_ACCURACY = 1e-9
# While the verdict is open and the budget lasts, up to so many times the wanted accuracy.
FINEST = 4
_BATCH_ENTRIES = 1 << 14  # of states in a batch: small enough for a processor's cache
_DISTANCE_PATHS = 128  # of a block: distances of n states cost n^2
_OVERFLOW = 1e30  # fourth powers of states 3e7 of the prior's deviations away: the run has overflowed, or will
_CHECKPOINT_SECONDS = 5.0
_STREAM = 40  # bits of a path's number; the rest of a sample's number is its stream


def threshold(comparisons: int = COMPARISONS, rate: float = ALARM_RATE) -> float:
    """z such that none of `comparisons` normal numbers exceeds z in size, but with probability `rate` (Bonferroni)."""
    return float(norm.isf(rate / (2 * comparisons)))


@dataclass(frozen=True)
class BlockMeans:
    """Means over blocks of `size` paths, (blocks, columns), float64, and what they cost in seconds."""

    values: Array
    size: int
    seconds: float = 0.0

    @property
    def paths(self) -> int:
        """How many paths went in."""
        return len(self.values) * self.size

    @cached_property
    def mean(self) -> Array:
        """(columns,)."""
        return self.values.mean(0)

    @cached_property
    def cov(self) -> Array:
        """The covariance of one path's values, (columns, columns), from that of the blocks."""
        return np.atleast_2d(np.cov(self.values, rowvar=False)) * self.size

    @property
    def standard_error(self) -> Array:
        """Of the mean, (columns,)."""
        return np.sqrt(np.diag(self.cov) / self.paths)

    def bootstrap(self, count: int, seed: int) -> Array:
        """Means of `count` resamples of the blocks, (count, columns)."""
        weights = np.random.default_rng(seed).multinomial(
            len(self.values), np.full(len(self.values), 1 / len(self.values)), count
        )
        return weights @ self.values / len(self.values)

    def take(self, columns: Any, offset: Array | float = 0.0) -> BlockMeans:
        """Some columns, less an offset."""
        return replace(self, values=self.values[:, columns] - offset)


@dataclass(frozen=True)
class Experiment:
    """One or two runs on one Brownian motion, from exact draws of the target at the first grid time.

    A batch's values (BLOCKS, columns) are a function of the seed, the stream and the batch's number: per run the test
    functions and, if there are two, the distances of its batch, then the squared distance of the two paths.
    """

    target: Target
    functionals: Functionals
    coupling: Coupling
    seed: int
    stream: int

    @property
    def block(self) -> int:
        """Paths in a block."""
        return min(512, max(4, _BATCH_ENTRIES // (2 * math.prod(self.target.event) * BLOCKS)))

    @property
    def paths(self) -> int:
        """Paths in a batch."""
        return BLOCKS * self.block

    @property
    def evaluations(self) -> int:
        """Score evaluations of a path."""
        return self.coupling.evaluations

    def batch(self, number: int) -> Array:
        """Simulate batch `number`; a run that overflowed has nan."""
        # States that fit a cache: a second thread would wait more than it works.
        small = 2 * math.prod(self.target.event) * self.paths <= _BATCH_ENTRIES
        with one_thread() if small else nullcontext():
            return self._simulate(number)

    def _simulate(self, number: int) -> Array:
        first = number * self.paths + torch.arange(self.paths)
        own, *others = (first + (4 * self.stream + role << _STREAM) for role in range(3))
        target, functions = self.target, self.functionals
        last = sample_coupled(
            self.coupling, target.score, target.sample(target.params.T, own, self.seed), own, self.seed
        )
        columns = [self._means(functions.values(state)) for state in last]
        if len(last) > 1:
            exact = [self._batches(target.sample(functions.t, numbers, self.seed)) for numbers in others]
            distances = [batch_distances(self._batches(state), *exact) for state in last]
            squares = (functions.scaled(last[0]) - functions.scaled(last[-1])).square().sum(1).mean(1)
            columns = [torch.cat(pair, dim=1) for pair in zip(columns, distances, strict=True)]
            columns.append(self._means(squares[:, None]))
        return torch.cat([torch.where((c.abs() < _OVERFLOW).all(), c, math.nan) for c in columns], dim=1).numpy()

    def _means(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(0, (BLOCKS, self.block)).mean(1)

    def _batches(self, u: torch.Tensor) -> torch.Tensor:
        """The states that distances are taken of, (BLOCKS, at most `_DISTANCE_PATHS`, size); 0 after an overflow."""
        scaled = torch.nan_to_num(self.functionals.scaled(u), 0.0, 0.0, 0.0)
        return scaled.flatten(1).unflatten(0, (BLOCKS, self.block))[:, :_DISTANCE_PATHS]


# --- The study --------------------------------------------------------------------------------------------------------


class Norm(NamedTuple):
    """The size of a vector of means: `value` without the bias of its noise, its standard error along the vector, and
    the size of the noise itself."""

    value: float
    standard_error: float
    noise: float

    @property
    def is_sure(self) -> bool:
        """Whether it stands above `SURE` standard errors, and is finite."""
        return self.value > SURE * self.noise

    @classmethod
    def of(cls, rows: ArrayLike) -> Norm:
        """Of the mean of independent rows (n, F), n at least 2: paths, or means of blocks of equally many.

        The trace of the mean's covariance and its form along the mean follow from the rows: no F x F matrix is formed.
        """
        rows = np.asarray(rows, dtype=float)
        n, mean = len(rows), rows.mean(0)
        centred = rows - mean
        noise = math.sqrt(float((centred**2).sum()) / (n - 1) / n)
        size = float(np.linalg.norm(mean))
        along = float(np.linalg.norm(centred @ mean)) / math.sqrt((n - 1) * n) / size if size > 0 else noise
        return cls(math.sqrt(max(size**2 - noise**2, 0.0)), along, noise)


class Limit(NamedTuple):
    """What a test function's error tends to as h -> 0: `bias` with its standard error, and how far the extrapolation
    may be off."""

    name: str
    bias: float
    standard_error: float
    systematic: float


def window_fit(logs: Array, norms: Array, resampled: Array, last_slope: bool = False) -> tuple[float, float]:
    """The order from log N and log norms at 3 or more levels (k,), and from resamples of the latter (k, n): estimate
    and half-width of its interval.

    The estimate is the weighted regression's slope (or that of the last two levels); noise is `threshold` times its
    bootstrap standard error. What is systematic follows from the change of the slopes over the window: for slopes
    p + a r^-j, which tend to p, an estimate is off by a multiple of their change, which is known.
    """
    variances = resampled.var(axis=1) + np.finfo(float).tiny
    used = np.arange(len(logs)) >= (len(logs) - 2 if last_slope else 0)
    centred = (logs - np.average(logs[used], weights=1 / variances[used])) * used / variances
    slope = -centred / (centred @ logs)  # order = slope @ norms
    gaps = np.diff(logs)
    slopes = -np.diff(norms) / gaps
    decay = np.exp(-(logs[:-1] - logs[0]))
    bent = -np.concatenate([[0.0], np.cumsum(decay * gaps)])  # log norms whose slopes are r^-j
    factor = abs(slope @ bent) / (decay[0] - decay[-1])
    noise = threshold() * float((slope @ resampled).std())
    return float(slope @ norms), noise + float(factor * abs(slopes[-1] - slopes[0]))


class Cost(NamedTuple):
    """What 1% of one quantity's weak error at `steps` costs (a standard error of that size): paths and score
    evaluations, plain and multilevel with the best division of the paths, and the seconds of the cheaper one."""

    quantity: str
    steps: int
    plain_paths: float
    plain_evaluations: float
    coupled_paths: float
    coupled_evaluations: float
    seconds: float

    @property
    def ratio(self) -> float:
        """How many times cheaper multilevel is."""
        return self.plain_evaluations / self.coupled_evaluations

    @property
    def method(self) -> str:
        """The cheaper one, "plain" or "multilevel"."""
        return "multilevel" if self.ratio > 1 else "plain"


@dataclass(frozen=True)
class MonteCarloStudy:
    """What was sampled, and what follows. Levels run from coarse to fine.

    steps (L + 1,); h: mean step sizes; coupled: the L pairs of neighbouring levels (coarse run, fine run, squared
    distance); plain: {level: sample}; reference: the finest level and the reference run; weights (L + 1, samples): the
    weak errors as combinations of the differences, of the reference if there is one last; evaluations: of a path, per
    level plain, and per difference; exact (F,): E f.
    """

    name: str
    target: str
    expected: int
    proven: int | None
    problems: tuple[str, ...]
    steps: Array
    h: Array
    names: tuple[str, ...]
    quantities: tuple[str, ...]
    exact: Array
    coupled: tuple[BlockMeans, ...]
    plain: dict[int, BlockMeans]
    reference: BlockMeans | None
    weights: Array
    evaluations: tuple[Array, Array]
    accuracy: float = ACCURACY
    complete: bool = True

    # --- Estimates ----------------------------------------------------------------------------------------------------

    @cached_property
    def differences(self) -> tuple[BlockMeans, ...]:
        """d_l of every test function and distance, coarse less fine, then of the reference if there is one."""
        pairs = (*self.coupled, *([] if self.reference is None else [self.reference]))
        width = len(self.names) + len(DISTANCES)
        return tuple(replace(p, values=p.values[:, :width] - p.values[:, width : 2 * width]) for p in pairs)

    def level(self, level: int) -> BlockMeans:
        """p_l of every test function: the level's own sample, or the coarse runs (of the last level, the fine runs) of
        a pair."""
        width = len(self.names) + len(DISTANCES)
        functions = slice(0, len(self.names))
        if level in self.plain:
            return self.plain[level].take(functions, self.exact)
        if level == len(self.steps) - 1:
            return self.coupled[-1].take(slice(width, width + len(self.names)), self.exact)
        return self.coupled[level].take(functions, self.exact)

    def columns(self, quantity: str) -> NDArray[np.intp]:
        """The test functions of a quantity."""
        return np.flatnonzero(np.array(self.quantities) == quantity)

    @property
    def strong_errors(self) -> Array:
        """Root mean square distance of the coupled paths per level (L,), in the prior's standard deviations."""
        return np.array([math.sqrt(max(p.mean[-1], 0)) for p in self.coupled])

    def multilevel(self, level: int) -> tuple[Array, Array, Array]:
        """e_l of every test function, its standard error, and its systematic uncertainty: (F,) each."""
        functions = slice(0, len(self.names))
        means = np.stack([d.mean[functions] for d in self.differences])
        errors = np.stack([d.standard_error[functions] for d in self.differences])
        return self.weights[level] @ means, np.sqrt(self.weights[level] ** 2 @ errors**2), self._systematic

    @cached_property
    def _systematic(self) -> Array:
        """How much the second Richardson weight changes e_L; nothing is extrapolated from a reference."""
        functions = slice(0, len(self.names))
        if self.reference is not None:
            return np.zeros(len(self.names))
        ratio = self.steps[-1] / self.steps[-2]
        once = self.differences[-1].mean[functions] / (ratio**self.expected - 1)
        twice = self.weights[-1] @ np.stack([d.mean[functions] for d in self.differences])
        return np.abs(once - twice)

    def weak_error(self, level: int) -> tuple[str, Array, Array, Array]:
        """The better estimate of e_l: how ("plain" or "multilevel"), and e_l, standard error and systematic (F,)."""
        plain = self.level(level)
        estimate = self.multilevel(level)
        if level in self.plain and np.median(plain.standard_error) < np.median(estimate[1]):
            return "plain", plain.mean, plain.standard_error, np.zeros(len(self.names))
        return "multilevel", *estimate

    @cached_property
    def norms(self) -> dict[str, tuple[Norm, ...]]:
        """The norms of the coupled differences, per quantity."""
        return {
            quantity: tuple(
                Norm.of(d.take(self.columns(quantity)).values) for d in self.differences[: len(self.coupled)]
            )
            for quantity in dict.fromkeys(self.quantities)
        }

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """The orders of the quantities that have three neighbouring fitted levels, up to the finest fitted one."""
        fits = {quantity: self._fit(quantity) for quantity in self.norms}
        return {quantity: fit for quantity, fit in fits.items() if fit is not None}

    def slopes(self, quantity: str) -> Array:
        """log(d_l / d_l+1) / log(N_l+1 / N_l), (L - 1,), nan where a level is not fitted."""
        values = np.array([n.value if n.is_sure else math.nan for n in self.norms[quantity]])
        return np.log(values[:-1] / values[1:]) / np.log(self.steps[1:-1] / self.steps[:-2])

    def _fit(self, quantity: str) -> Fit | None:
        sure = np.array([n.is_sure for n in self.norms[quantity]])
        if not sure.any():
            return None
        last = int(np.flatnonzero(sure)[-1])
        first = last - int(np.argmin(sure[last::-1])) + 1 if not sure[: last + 1].all() else 0
        if last - first < 2:
            return None
        logs = np.log(self.steps[first : last + 1])
        norms = [self.norms[quantity][level].value for level in range(first, last + 1)]
        resampled = []
        for level in range(first, last + 1):
            sample = self.differences[level].take(self.columns(quantity))
            squares = (sample.bootstrap(BOOTSTRAPS, level) ** 2).sum(1) - 2 * Norm.of(sample.values).noise ** 2
            resampled.append(np.log(np.maximum(squares, np.finfo(float).tiny)) / 2)
        found = [
            window_fit(logs[-count:], np.log(norms)[-count:], np.stack(resampled)[-count:])
            for count in range(3, len(norms) + 1)
        ]
        found.append(window_fit(logs[-3:], np.log(norms)[-3:], np.stack(resampled)[-3:], last_slope=True))
        order, half = min(found, key=lambda estimate: estimate[1])
        return Fit(order, order - half, order + half, (int(self.steps[first]), int(self.steps[last])))

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """p_0 - e_0 of every test function: 0 for a scheme that converges to the exact law."""
        plain = self.level(0)
        value, error, systematic = self.multilevel(0)
        bias, noise = plain.mean - value, np.hypot(plain.standard_error, error)
        return tuple(
            Limit(*entry) for entry in zip(self.names, bias.tolist(), noise.tolist(), systematic.tolist(), strict=True)
        )

    @cached_property
    def worst_limit(self) -> Limit:
        """The limit that is farthest out, in its uncertainty."""
        z = threshold()
        return max(self.limits, key=lambda b: abs(b.bias) / max(z * b.standard_error + b.systematic, 1e-300))

    # --- Costs --------------------------------------------------------------------------------------------------------

    def cost(self, quantity: str, level: int) -> Cost:
        """What 1% of the quantity's weak error at a level costs, from the measured variances."""
        columns = self.columns(quantity)
        error = self.weak_error(level)[1][columns]
        size = float(np.linalg.norm(error))
        direction = error / size if size > 0 else np.full(len(columns), math.nan)

        def variance(sample: BlockMeans) -> float:
            return float(direction @ sample.take(columns).cov @ direction)

        wanted = (COST_ACCURACY * size) ** 2
        plain_paths = variance(self.level(level)) / wanted
        used = [
            (abs(w), variance(d), c)
            for w, d, c in zip(self.weights[level], self.differences, self.evaluations[1], strict=True)
            if w
        ]
        root = sum(w * math.sqrt(v * c) for w, v, c in used)
        plain, coupled = plain_paths * self.evaluations[0][level], root**2 / wanted
        paths = sum(w * math.sqrt(v / c) for w, v, c in used) * root / wanted
        return Cost(
            quantity, int(self.steps[level]), plain_paths, plain, paths, coupled, min(plain, coupled) * self.pace
        )

    @property
    def pace(self) -> float:
        """Measured seconds for a score evaluation of one path."""
        samples = [*zip(self.differences, self.evaluations[1], strict=True)]
        samples += [(sample, self.evaluations[0][level]) for level, sample in self.plain.items()]
        return sum(s.seconds for s, _ in samples) / sum(s.paths * c for s, c in samples)

    @cached_property
    def wanted(self) -> dict[str, Array]:
        """Paths per difference that bring each quantity to the wanted accuracy, then those of the plain sample of the
        coarsest level that its limit needs; inf where a difference does not stand out from its noise."""
        return {quantity: self._wanted(quantity) for quantity in self.norms}

    def _wanted(self, quantity: str) -> Array:
        columns, found = self.columns(quantity), []
        for sample in self.differences:
            size = Norm.of(sample.take(columns).values)
            sure = size.value > size.noise
            ratio = size.standard_error / (self.accuracy * size.value) if sure else math.inf
            found.append(sample.paths * ratio**2)
        plain, size = self.level(0), float(np.linalg.norm(self.multilevel(0)[0][columns]))
        # Half of what `concluded` allows; the differences have the other half.
        needed = threshold() * float(plain.standard_error[columns].max()) / (LIMIT_SHARE / 2 * size)
        found.append(plain.paths * needed**2)
        return np.array(found)

    @property
    def spent(self) -> float:
        """Score evaluations that the samples took."""
        plain = sum(sample.paths * self.evaluations[0][level] for level, sample in self.plain.items())
        return plain + sum(d.paths * c for d, c in zip(self.differences, self.evaluations[1], strict=True))

    def conclusion(self, quantity: str) -> tuple[float, float, float]:
        """Paths, score evaluations and seconds that bring a quantity to the wanted accuracy."""
        paths = self.wanted[quantity]
        evaluations = float(paths @ np.append(self.evaluations[1], self.evaluations[0][0]))
        return float(paths.sum()), evaluations, evaluations * self.pace

    # --- Verdict ------------------------------------------------------------------------------------------------------

    @property
    def diverged(self) -> bool:
        """Whether the finest level overflowed."""
        return not np.isfinite(self.coupled[-1].mean).all()

    @cached_property
    def ordered(self) -> tuple[str, ...]:
        """The quantities whose order is known within `MARGIN` and is the expected one, or higher."""
        bound = self.expected - MARGIN
        return tuple(q for q, fit in self.fits.items() if fit.low >= bound and fit.high - fit.low <= 2 * MARGIN)

    @cached_property
    def concluded(self) -> tuple[str, ...]:
        """Of these, the quantities whose limits are known to `LIMIT_SHARE` of their error at the coarsest level."""
        z, found = threshold(), []
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
        z = threshold()
        return tuple(b for b in self.limits if abs(b.bias) > z * b.standard_error + b.systematic)

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE, by the rules above."""
        if self.problems or self.diverged:
            return Verdict.FAIL
        low = any(fit.high < self.expected - MARGIN for fit in self.fits.values())
        if low or self.wrong_limits:
            return Verdict.FAIL if self.proven is None else Verdict.INCONCLUSIVE
        if self.concluded:
            return Verdict.PASS
        return Verdict.INCONCLUSIVE

    @property
    def measured(self) -> Fit | None:
        """The lowest order of the concluded quantities, or of those that have one."""
        fits = [self.fits[q] for q in self.concluded or self.ordered] or list(self.fits.values())
        return min(fits, key=lambda fit: fit.order, default=None)

    @property
    def reason(self) -> str:
        """The verdict in a sentence, with what a conclusion costs."""
        if self.problems:
            return "; ".join(self.problems)
        if self.diverged:
            return f"diverges at {int(self.steps[-1])} steps"
        z, worst = threshold(), self.worst_limit
        uncertain = z * worst.standard_error + worst.systematic
        if self.wrong_limits and self.proven is None:
            return f"converges to a wrong law: as h -> 0 E {worst.name} is off by {worst.bias:+.2e} +- {uncertain:.1e}"
        parts = []
        if self.measured is not None:
            proven = "" if self.proven is None else f"proven {self.proven}, "
            fit = self.measured
            parts.append(
                f"measured order {fit.order:.2f} in [{fit.low:.2f}, {fit.high:.2f}], {proven}expected {self.expected}"
            )
        parts.append(f"as h -> 0 E {worst.name} is off by {worst.bias:+.1e} +- {uncertain:.1e}")
        if self.wrong_limits:
            parts[-1] += (
                ", against the proof: the levels are not asymptotic yet, or the score is not that of the target"
            )
        if unresolved := [q for q in self.norms if q not in self.concluded]:
            parts.append(f"not resolved: {', '.join(unresolved)}")
        if self.verdict is Verdict.INCONCLUSIVE:
            parts.append(self._conclusion())
        return "; ".join(parts)

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
        measured = self.measured
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
            "reason": self.reason,
            "target": self.target,
            "order": {
                "expected": self.expected,
                "proven": self.proven,
                "measured": None if measured is None else measured.order,
                "ci": None if measured is None else [measured.low, measured.high],
            },
            "fits": {q: asdict(fit) for q, fit in self.fits.items()},
            "limits": [limit._asdict() for limit in self.limits],
            "levels": levels,
            "costs": [cost._asdict() | {"ratio": cost.ratio, "method": cost.method} for cost in costs],
            "accuracy": self.accuracy,
            "threshold": threshold(),
            "spent": {"evaluations": self.spent, "seconds": self.spent * self.pace},
        }


# --- Running a study --------------------------------------------------------------------------------------------------


class Progress(NamedTuple):
    """How far a study is: score evaluations done and planned (so far), and the seconds that are left at its pace."""

    done: float
    planned: float
    seconds_left: float


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
    progress: Callable[[Progress], None] = lambda _: None,
) -> MonteCarloStudy:
    """The weak order and limit of a scheme on a target with a known score, by coupled Monte Carlo.

    steps: the levels N_0 < N_1 < ... in one ratio, 4 or more. expected: the order to hold it to; default the scheme's
    own, or 1. accuracy: wanted, relative, of every level's difference; finer while the verdict is open. evaluations:
    the most score evaluations to spend (default `BUDGET` over the target's coordinates), beyond the pilot's; seconds:
    when to stop, with what there is by then. reference: run at `refinement` times the last level's steps on the same
    Brownian motion (default: extrapolation). checkpoint: a file that keeps what was sampled; the same study goes on
    from it, with another accuracy or budget too. Raises ValueError on bad input.
    """
    params = target.params
    if scheme.splitting.diffusion != target.diffusion:
        raise ValueError(
            f"scheme {scheme.name!r} moves under {scheme.splitting.diffusion.name!r} and the target under "
            f"{target.diffusion.name!r}; give the target the scheme's diffusion"
        )
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
    order = expected if expected is not None else scheme.order or 1
    runs = [(scheme, time_grid(grid, count, params, t_end)) for count in steps]
    pairs = [(runs[i], runs[i + 1]) for i in range(len(steps) - 1)]
    if reference is not None:
        pairs.append((runs[-1], (reference, time_grid(grid, refinement * steps[-1], params, t_end))))
    functionals = Functionals(target, t_end)
    groups = [*pairs, (runs[0],)]
    experiments = [
        Experiment(target, functionals, couple(group, params), seed, stream) for stream, group in enumerate(groups)
    ]
    problems, proven = judged(scheme, params, order)
    per_path = np.array([experiment.evaluations for experiment in experiments], dtype=float)
    plain_costs = np.array([scheme.nfe_per_step * count for count in steps], dtype=float)

    def study(samples: list[BlockMeans], complete: bool) -> MonteCarloStudy:
        return MonteCarloStudy(
            name=scheme.name,
            target=target.name,
            expected=order,
            proven=proven,
            problems=problems,
            steps=np.asarray(steps, dtype=float),
            h=(params.T - t_end) / np.asarray(steps, dtype=float),
            names=functionals.names,
            quantities=functionals.quantities,
            exact=functionals.expectations,
            coupled=tuple(samples[: len(steps) - 1]),
            plain={0: samples[-1]},
            reference=None if reference is None else samples[-2],
            weights=_telescope(len(steps), steps[1] / steps[0], order, reference, refinement),
            evaluations=(np.maximum(plain_costs, 1), np.maximum(per_path[:-1], 1)),
            accuracy=accuracy,
            complete=complete,
        )

    budget = BUDGET / math.prod(target.event) if evaluations is None else evaluations
    description = [str(scheme), scheme.splitting.name, scheme.flow, scheme.lambda_s, target.name, target.event]
    description += [
        list(map(float, target.weights[:2])),
        functionals.expectations.tolist(),
        asdict(params),
        list(steps),
    ]
    description += [t_end, grid, seed, str(reference), refinement, _BATCH_ENTRIES, BLOCKS]
    store = _Store(experiments, json.dumps(description), checkpoint, time.monotonic() + seconds, progress)
    counts, aim = np.full(len(experiments), PILOT_BATCHES), accuracy
    while True:
        complete = store.fill(counts)
        found = study(store.samples(counts if complete else None), complete)
        if not complete:
            return found
        batches = _plan(replace(found, accuracy=aim), budget, np.array([e.paths for e in experiments]), counts)
        if (batches > counts).any():
            counts = np.maximum(counts, batches)
        elif found.verdict is Verdict.INCONCLUSIVE and aim > accuracy / FINEST:
            aim /= math.sqrt(2)
        else:
            store.save()
            return found


def _telescope(levels: int, ratio: float, order: int, reference: Scheme | None, refinement: int) -> Array:
    """The weak errors of all levels as combinations of the differences (levels, samples); see the module."""
    pairs = levels - 1
    last = np.zeros(pairs + (reference is not None))
    if reference is None:
        powers = np.array([ratio**order, ratio ** (order + 1)])
        last[pairs - 2 :] = np.linalg.solve(np.stack([powers, np.ones(2)], axis=1), 1 / (powers - 1))
    else:
        higher = (reference.order or 1) > order
        last[-1] = 1 if higher else 1 / (1 - float(refinement) ** -order)
    weights = np.tile(last, (levels, 1))
    for level in range(pairs):
        weights[level, level:pairs] += 1
    return weights


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


class _Store:
    """The batches of all experiments, in memory and in a checkpoint file."""

    def __init__(
        self,
        experiments: list[Experiment],
        description: str,
        path: Path | None,
        deadline: float,
        progress: Callable[[Progress], None],
    ) -> None:
        self.experiments, self.path, self.deadline, self.progress = experiments, path, deadline, progress
        self.key = hashlib.sha256(description.encode()).hexdigest()
        self.batches: list[list[Array]] = [[] for _ in experiments]
        self.seconds = np.zeros(len(experiments))
        self.saved = time.monotonic()
        if path is not None and path.exists():
            self._load(path)

    def samples(self, counts: Array | None) -> list[BlockMeans]:
        """The first `counts` batches of every experiment, or all."""
        chosen = [len(b) for b in self.batches] if counts is None else counts
        return [
            BlockMeans(np.concatenate(batches[:count]), experiment.block, seconds * count / len(batches))
            for experiment, batches, count, seconds in zip(
                self.experiments, self.batches, chosen, self.seconds, strict=True
            )
        ]

    def fill(self, counts: Array) -> bool:
        """Simulate until every experiment has its batches; False if time ran out before (after one batch of each)."""
        missing = [max(0, int(count) - len(batches)) for count, batches in zip(counts, self.batches, strict=True)]
        costs = np.array([e.paths * max(1, e.evaluations) for e in self.experiments], dtype=float)
        planned, left, begun = float(counts @ costs), float(np.array(missing) @ costs), time.monotonic()
        done_here = 0.0
        # One batch of everything first, so that a study that is stopped has something to say.
        order = [k for k, batches in enumerate(self.batches) if not batches]
        order += [k for k, count in enumerate(missing) for _ in range(count - (not self.batches[k]))]
        for k in order:
            if time.monotonic() > self.deadline and all(self.batches):
                self.save()
                return False
            started = time.perf_counter()
            self.batches[k].append(self.experiments[k].batch(len(self.batches[k])))
            self.seconds[k] += time.perf_counter() - started
            done_here += costs[k]
            pace = (time.monotonic() - begun) / done_here
            self.progress(Progress(planned - left + done_here, planned, pace * (left - done_here)))
            if time.monotonic() - self.saved > _CHECKPOINT_SECONDS:
                self.save()
        return True

    def save(self) -> None:
        """Write the checkpoint, whole or not at all. Raises OSError."""
        if self.path is None:
            return
        arrays: dict[str, Any] = {
            f"batches_{k}": np.stack(batches) for k, batches in enumerate(self.batches) if batches
        }
        content = io.BytesIO()
        np.savez(content, key=np.array(self.key), seconds=self.seconds, **arrays)
        write_atomically(self.path, content.getvalue())
        self.saved = time.monotonic()

    def _load(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file) as found:
                if str(found["key"]) != self.key:
                    raise ValueError(f"checkpoint {str(path)!r} is of another study; give another file, or remove it")
                self.seconds = found["seconds"]
                for k, batches in enumerate(self.batches):
                    if f"batches_{k}" in found:
                        batches.extend(found[f"batches_{k}"])
        except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"checkpoint {str(path)!r} cannot be read ({error}); remove it to start anew") from error


# --- On Gaussian data, exactly ----------------------------------------------------------------------------------------


def exact_coupled_moments(coupling: Coupling, target: GaussianTarget, start: str = "exact") -> GaussianLaw:
    """Mean (2 runs, V) and covariance (2 runs, 2 runs, V) of the last states of all runs together, on Gaussian data.

    With the target's affine score every run is a linear image of its first state and of the common normals,
    u = R u_0 + b + sum_c G_c z_c, so the joint covariance is R cov_0 R^T + sum_c G_c G_c^T: the variance of a coupled
    difference without a sample, and the oracle of every estimate above. start: "exact" or "prior", at t = T.
    """
    law = starting_law(target, 0.0, start)
    images = [_linear_image(coupled, coupling, target) for coupled in coupling.runs]
    R, b, G = (np.concatenate(entries) for entries in zip(*images, strict=True))
    mean = np.einsum("ijv,jv->iv", R, law.mean) + b
    cov = np.einsum("ijv,jkv,lkv->ilv", R, law.cov, R) + np.einsum("icv,jcv->ijv", G, G)
    return GaussianLaw(mean, cov)


def _linear_image(coupled: CoupledRun, coupling: Coupling, target: GaussianTarget) -> tuple[Array, Array, Array]:
    """R (2, 2, V), b (2, V) and G (2, columns width, V) of one run."""
    size = target.mean.size
    prologue = Segment(None, Flow(*(entry[None] for entry in coupled.run.prologue)))
    maps = [closed_map(prologue, target), closed_map(coupled.run.updates, target)]
    matrix, offset = (
        np.concatenate([np.broadcast_to(m[i], (*m[i].shape[:-1], size)) for m in maps], axis=-2) for i in (0, 1)
    )
    later = np.broadcast_to(np.eye(2)[..., None], (2, 2, size))
    suffix = np.empty_like(matrix)  # what carries the end of a segment to the end of the run
    total = np.zeros((2, size))
    for k in reversed(range(matrix.shape[2])):
        suffix[:, :, k] = later
        total = total + np.einsum("ijv,jv->iv", later, offset[:, k])
        later = np.einsum("ijv,jkv->ikv", later, matrix[:, :, k])
    G = np.zeros((coupling.columns, 2, coupling.width, size))
    np.add.at(G, coupled.column, np.einsum("ijnv,njw->niwv", suffix[:, :, coupled.segment], coupled.image))
    return later, total, G.transpose(1, 0, 2, 3).reshape(2, -1, size)


class SecondMoment(NamedTuple):
    """Of f = x^2 at neighbouring levels N and r N, exactly: E f(u_N) - E f(u_rN), its variance, and Var f(u_N)."""

    difference: float
    coupled_variance: float
    plain_variance: float


def exact_second_moment(scheme: Scheme, target: GaussianTarget, coarse: Array, fine: Array) -> SecondMoment:
    """Of x^2 for one Gaussian target, over the grids `coarse` and `fine`; products of Gaussians by Isserlis."""
    mean, cov = (
        entry[::2][..., 0]
        for entry in exact_coupled_moments(couple([(scheme, coarse), (scheme, fine)], target.params), target)
    )
    cov = cov[:, ::2]
    squares = 2 * cov**2 + 4 * np.outer(mean, mean) * cov  # Cov(x_i^2, x_j^2)
    difference = float(mean[0] ** 2 + cov[0, 0] - mean[1] ** 2 - cov[1, 1])
    return SecondMoment(difference, float(squares[0, 0] + squares[1, 1] - 2 * squares[0, 1]), float(squares[0, 0]))


class Calibration(NamedTuple):
    """How many of `repetitions` 95% intervals held the exact answer."""

    repetitions: int
    contained: int
    paths: int

    @property
    def coverage(self) -> float:
        """As a fraction; its standard error is 0.005 for 2,000 repetitions."""
        return self.contained / self.repetitions


def calibrate(
    scheme: Scheme,
    target: Target,
    law: GaussianTarget,
    steps: int = 25,
    repetitions: int = 2000,
    paths: int = 512,
    t_end: float = T_END,
    seed: int = 0,
) -> Calibration:
    """Repeat the coupled estimate of E x^2 at `steps` less at 2 `steps`, each time with `paths` new paths, and count
    the 95% intervals (Student's) that hold the exact difference. `law` is the target, one-dimensional and Gaussian,
    whose moments are exact."""
    coarse, fine = (time_grid("uniform", count, target.params, t_end) for count in (steps, 2 * steps))
    coupling = couple([(scheme, coarse), (scheme, fine)], target.params)
    exact = exact_second_moment(scheme, law, coarse, fine).difference
    quantile = float(student_t.ppf(0.975, paths - 1))
    contained = 0
    with one_thread():
        for first in range(0, repetitions * paths, chunk := max(1, _BATCH_ENTRIES // paths) * paths):
            numbers = torch.arange(first, min(first + chunk, repetitions * paths))
            u = target.sample(target.params.T, numbers, seed)
            squares = [state[:, 0, 0].square() for state in sample_coupled(coupling, target.score, u, numbers, seed)]
            values = (squares[0] - squares[1]).unflatten(0, (-1, paths)).numpy()
            half = quantile * values.std(1, ddof=1) / math.sqrt(paths)
            contained += int((np.abs(values.mean(1) - exact) <= half).sum())
    return Calibration(repetitions, contained, paths)

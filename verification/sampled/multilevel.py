"""Weak errors from coupled levels: plain, coupled and multilevel estimates, their orders, limits and costs.

A scheme is run at N_0 < N_1 < ... < N_L steps from the exact law at t = T to t_end. Its weak error on a test function f
(sampled.functionals) is e_l = E f(u_l) - E f(u), and two estimates of it are measured:

    plain        p_l = mean of f(u_l) - E f, with E f known exactly             variance Var f
    coupled      d_l = mean of f(u_l) - f(u_l+1), both runs on one Brownian     variance O(h^2): the two paths are
                 motion (integrators.coupling)                                  O(h) apart (the strong error)

    multilevel   e_l = d_l + d_l+1 + ... + d_L-1 + e_L,    e_L = (weights that remove two powers of h) d_L-1, d_L-2

The weights solve e_L = a d_L-1 + b d_L-2 for errors C_1 h^p + C_2 h^(p+1) (Richardson); how much the second one changes
e_L is kept as `systematic`. Against a reference (on the same Brownian motion, with R times more steps) of the same
scheme, e_L = d_ref / (1 - R^-p); of another scheme, whose error constant is another, e_L = d_ref, and what the
reference would be off by with the same constant, |d_ref| R^-p / (1 - R^-p) at its own order p, is `systematic`.

Since d_l = C h_l^p (1 - r^-p) + ..., the order is that of the coupled differences, which need no exact law; the limit,
whether the scheme converges to the *right* law, is p_0 - e_0: plain against multilevel at the coarsest level. The
functions of one quantity (mean, covariance, third, ...) are taken together: the norm of their differences
(`estimates.Norm`). All statistics are of means over blocks of paths. A level is fitted if the norm is sure, and the
order is that of `fits.sampled_fit` through three or more neighbouring fitted levels, resampled block by block: paths of
different levels are independent, so each level has resamples of its own.

Costs are counted in score evaluations. With the weights w_l, variances v_l and evaluations c_l of a path, a variance V
of sum_l w_l d_l takes n_l = (|w_l| / V) sqrt(v_l / c_l) sum_k |w_k| sqrt(v_k c_k) paths and the square of that sum over
V evaluations, the fewest; the plain estimate takes Var f / V times the evaluations of a path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...theory.scheme import Scheme
from ..verdicts import Array, BlockMeans, Fit, Norm, last_run, resampled_norms, sampled_fit, threshold
from .distances import DISTANCES

COST_ACCURACY = 0.01
LIMIT_SHARE = 0.25


class Limit(NamedTuple):
    """What a test function's error tends to as h -> 0: `bias` with its standard error, and how far the extrapolation
    may be off."""

    name: str
    bias: float
    standard_error: float
    systematic: float


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


@dataclass(frozen=True, kw_only=True)
class MultilevelEstimates:
    """What was sampled, and what follows. Levels run from coarse to fine.

    expected: the order p; steps (L + 1,); coupled: the L pairs of neighbouring levels (coarse run, fine run, squared
    distance); plain: {level: sample}; reference: the finest level and the reference run; weights (L + 1, samples): the
    weak errors as combinations of the differences, of the reference if there is one last (`telescope`); evaluations: of
    a path, per level plain, and per difference; names, quantities, exact (F,): of the test functions, and E f;
    accuracy: wanted, relative, of every difference; share: `reference_share`.
    """

    expected: int
    steps: Array
    names: tuple[str, ...]
    quantities: tuple[str, ...]
    exact: Array
    coupled: tuple[BlockMeans, ...]
    plain: dict[int, BlockMeans]
    reference: BlockMeans | None
    weights: Array
    evaluations: tuple[Array, Array]
    accuracy: float
    share: float = 0.0

    @cached_property
    def differences(self) -> tuple[BlockMeans, ...]:
        """d_l of every test function and distance, coarse less fine, then of the reference if there is one."""
        pairs = (*self.coupled, *([] if self.reference is None else [self.reference]))
        width = len(self.names) + len(DISTANCES)
        return tuple(replace(p, values=p.values[:, :width] - p.values[:, width : 2 * width]) for p in pairs)

    @property
    def rows(self) -> int:
        """The fewest blocks that a standard error is known from."""
        return min(len(sample.values) for sample in (*self.differences, *self.plain.values()))

    @property
    def z(self) -> float:
        """How many standard errors a deviation must have (`threshold`)."""
        return threshold(rows=self.rows)

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
        """How much the second Richardson weight changes e_L; what another scheme's reference may be off by."""
        functions = slice(0, len(self.names))
        if self.reference is not None:
            return self.share * np.abs(self.differences[-1].mean[functions])
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
        fitted = last_run([norm.is_sure for norm in self.norms[quantity]])
        levels = range(fitted.start, fitted.stop)
        if len(levels) < 3:
            return None
        resampled = []
        for level in levels:
            sample = self.differences[level].take(self.columns(quantity))
            _, squares = resampled_norms(sample.values, seed=level)
            resampled.append(np.log(np.maximum(squares, np.finfo(float).tiny)) / 2)
        norms = np.log([norm.value for norm in self.norms[quantity][fitted]])
        return sampled_fit(self.steps[fitted], norms, np.stack(resampled), rows=self.rows)

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
        z = self.z
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
        needed = self.z * float(plain.standard_error[columns].max()) / (LIMIT_SHARE / 2 * size)
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


def reference_share(scheme: Scheme, reference: Scheme | None, refinement: int) -> float:
    """How much of d_ref a reference with `refinement` times the steps may be off by: 0 without one, or where it is the
    scheme itself, whose error is then known."""
    if reference is None or reference == scheme:
        return 0.0
    part = float(refinement) ** -(reference.order or 1)
    return part / (1 - part)


def telescope(
    levels: int, ratio: float, order: int, scheme: Scheme, reference: Scheme | None, refinement: int
) -> Array:
    """The weak errors of all levels as combinations of the differences (levels, samples)."""
    pairs = levels - 1
    last = np.zeros(pairs + (reference is not None))
    if reference is None:
        powers = np.array([ratio**order, ratio ** (order + 1)])
        last[pairs - 2 :] = np.linalg.solve(np.stack([powers, np.ones(2)], axis=1), 1 / (powers - 1))
    else:
        last[-1] = 1 / (1 - float(refinement) ** -order) if reference == scheme else 1
    weights = np.tile(last, (levels, 1))
    for level in range(pairs):
        weights[level, level:pairs] += 1
    return weights

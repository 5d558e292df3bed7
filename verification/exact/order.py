"""The measured weak order and the verdict on it.

A sampler is run at doubling numbers of steps N on a spread of Gaussian targets; its moments are exact, so its errors

    mean        |mean_N - mean|                         covariance   ||cov_N - cov||_F
    w2          the 2-Wasserstein distance of the two Gaussians

(root mean square over the targets, in units of the prior's standard deviations) hold no Monte Carlo noise. Each has an
order with an interval from its local slopes (`fits.fit_order`), h = (T - t_end) / N; a range that is not asymptotic yet
shows as a wide interval. Rules of the verdict:

    FAIL           the scheme is not consistent, or its proven order (theory.weak_order) is below the expected one, or
                   it diverges at the finest level, or, where no proof contradicts it, some interval lies below the
                   expected order by more than `MARGIN`, or its moments, extrapolated to h = 0, are not the exact ones
    PASS           every interval lies above the expected order less `MARGIN`, and is not wider than +- `MARGIN`, and
                   the error of the finest level is below the size of the law itself
    INCONCLUSIVE   otherwise, with the number of steps that would settle it

Slopes are never taken in absolute value; levels at round-off are not fitted. Slopes see a bias only once it is as
large as the error of the finest level; the signed errors, extrapolated to h = 0 (Richardson), see one of 1e-8.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...integrators.grids import time_grid
from ...theory.model import Diffusion, Parameters
from ...theory.scheme import Scheme
from ..targets import GaussianLaw, GaussianTarget
from ..time_limit import completed
from ..verdicts import (
    MARGIN,
    Array,
    Fit,
    Verdict,
    claim_of,
    congruence,
    extrapolate,
    fit_order,
    inverse,
    lowest,
    magnification,
    matmul,
    order_entry,
    order_sentence,
    sqrtm,
    weigh,
)
from .moments import Moments, exact_moments

# Levels closer than this leave slopes to round-off and extrapolate far.
MIN_RATIO = 1.5
# A limit is biased if it is off by this many times its uncertainty, and by more than constants rounded to float32 leave
# (some dozen roundings of 2^-24); below that it is a warning, if it is more than float64 constants leave.
SURE, CONSTANTS_IN_FLOAT32, CONSTANTS_IN_FLOAT64 = 4, 1e-6, 1e-10
# Errors below this, in units of the law's own size, are sums of a few thousand float64 roundings.
ROUND_OFF = 1e-12

# What a study runs unless told otherwise. Down to the cut-off t = eps the orders are the same, but the asymptotic range
# begins at many more steps; at t = 0.1 it begins at about 100.
STEPS = tuple(25 * 2**k for k in range(9))
VARIANCES = (0.04, 0.25, 1.0, 4.0)
MEANS = (0.0, 1.0)
T_END = 0.1

MAX_ORDER = 10
QUANTITIES = ("mean", "covariance", "w2")


@dataclass(frozen=True)
class Limit:
    """The moment that is farthest from the exact one as h -> 0: `bias` +- `uncertainty`, relative to the law's size."""

    moment: str
    bias: float
    uncertainty: float

    @property
    def is_biased(self) -> bool:
        """Whether the limit differs from the exact law by more than its uncertainty and the rounding of constants."""
        return abs(self.bias) > max(SURE * self.uncertainty, CONSTANTS_IN_FLOAT32)

    @property
    def is_rounded(self) -> bool:
        """Whether it differs, but by no more than constants or times in float32 would make it."""
        return not self.is_biased and abs(self.bias) > max(SURE * self.uncertainty, CONSTANTS_IN_FLOAT64)

    def __str__(self) -> str:
        return f"as h -> 0 the {self.moment} is off by {self.bias:+.2e} +- {self.uncertainty:.0e} of the law's size"


@dataclass(frozen=True)
class OrderStudy:
    """Errors against steps, and what follows. All arrays run over the levels, coarse to fine.

    steps, nfe: (levels,); h: the mean step size; errors: {quantity: (levels,)}, nan where the run diverged; sizes: of
    the exact law per quantity, which round-off is measured in; expected: the order the scheme is held to; problems:
    what makes it fail outright; proven: the order that holds for every score, None if none was proven; limit: what the
    moments converge to, None if that could not be extrapolated; hints: what may explain a failure; notes: what else to
    warn of; rounding (levels,): by how much a black box departed from an affine map, by rounding to float32.
    """

    name: str
    expected: int
    steps: Array
    nfe: Array
    h: Array
    errors: dict[str, Array]
    sizes: dict[str, float]
    problems: tuple[str, ...] = ()
    proven: int | None = None
    limit: Limit | None = None
    rounding: Array | None = None
    hints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def floor(self) -> Array:
        """Relative errors that are rounding, (levels,)."""
        return ROUND_OFF + (0 if self.rounding is None else self.rounding) * np.ones(len(self.steps))

    @property
    def fitted(self) -> dict[str, NDArray[np.bool_]]:
        """Per quantity, which levels stand above round-off (and did not diverge)."""
        return {name: np.isfinite(e) & (e > self.floor * self.sizes[name]) for name, e in self.errors.items()}

    def slopes(self, quantity: str = "w2") -> Array:
        """Local orders log(e_k / e_k+1) / log(N_k+1 / N_k) between neighbouring levels (levels - 1,); nan if
        unfitted."""
        e = np.where(self.fitted[quantity], self.errors[quantity], np.nan)
        return np.log(e[:-1] / e[1:]) / np.log(self.steps[1:] / self.steps[:-1])

    def constants(self, quantity: str = "w2") -> Array:
        """Error constants e(h) / h^p at the expected order p, (levels,)."""
        return self.errors[quantity] / self.h**self.expected

    def fit(self, quantity: str) -> Fit | None:
        """The order from the finest four neighbouring levels above round-off; None if there are not four."""
        return fit_order(self.steps, np.where(self.fitted[quantity], self.errors[quantity], np.nan))

    @property
    def fits(self) -> dict[str, Fit]:
        """The fits of the quantities that have one."""
        fits = {name: self.fit(name) for name in QUANTITIES}
        return {name: fit for name, fit in fits.items() if fit is not None}

    def vanishes(self, quantity: str) -> bool:
        """Whether the error is at round-off at the two finest levels: no order can be fitted, and none is missed."""
        return bool(np.all(self.errors[quantity][-2:] <= (self.floor * self.sizes[quantity])[-2:]))

    @property
    def measured(self) -> Fit | None:
        """The lowest fitted order: the weak order is that of the worst quantity."""
        return lowest(self.fits)

    @property
    def diverged(self) -> bool:
        """Whether the finest level overflowed."""
        return not all(np.isfinite(e[-1]) for e in self.errors.values())

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE, by the rules above."""
        if self.problems or self.diverged:
            return Verdict.FAIL
        fits = self.fits
        against = any(fit.misses(self.expected) for fit in fits.values())
        against |= self.limit is not None and self.limit.is_biased
        ordered = all(
            fits[name].reaches(self.expected) and fits[name].is_settled if name in fits else self.vanishes(name)
            for name in QUANTITIES
        )
        small = bool(self.errors["w2"][-1] <= self.sizes["w2"])
        return weigh(against, ordered and small, self.expected, self.proven)

    @property
    def reason(self) -> str:
        """The verdict in a sentence, with the budget that would settle an inconclusive one."""
        if self.verdict is Verdict.PASS or not self.hints:
            return self._outcome
        return f"{self._outcome}; {'; '.join(self.hints)}"

    @property
    def _outcome(self) -> str:
        if self.problems:
            return "; ".join(self.problems)
        if self.diverged:
            return f"diverges at {int(self.steps[-1])} steps"
        if all(map(self.vanishes, QUANTITIES)):
            return "exact to round-off"
        if self.limit is not None and self.limit.is_biased and self.proven is None:
            return f"converges to a wrong law: {self.limit}"
        if self.measured is None:
            return "fewer than four levels stand above round-off without diverging; use other step counts"
        text = order_sentence(self.measured, self.expected, self.proven)
        if self.errors["w2"][-1] > self.sizes["w2"]:
            text += f"; the error at {int(self.steps[-1])} steps is as large as the law itself: run more steps"
        elif self.verdict is Verdict.INCONCLUSIVE:
            widest = min(max((fit.high - fit.low) / 2 for fit in self.fits.values()), 8 * MARGIN)
            # an asymptotic interval halves with each doubling
            doublings = max(1, math.ceil(math.log2(max(widest, MARGIN) / MARGIN)))
            text += f"; the slopes still move: run up to about {int(self.steps[-1]) * 2**doublings} steps"
        return text

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does not change the verdict, but should be known: rounding to float32, with its measured size."""
        found = list(self.notes)
        if self.rounding is not None and self.rounding.any():
            found.append(
                f"rounds to float32: over a run it departs by up to {self.rounding.max():.1e} of the law's size from a "
                "float64 sampler; errors below that are not fitted"
            )
        if self.limit is not None and self.limit.is_rounded:
            found.append(f"{self.limit}: constants or times rounded to float32 would do that")
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """The study for JSON: verdict, reason, order, fits, and a dict per level. nan stands for what does not
        exist."""
        slopes = [math.nan, *self.slopes().tolist()]
        columns = {
            "steps": self.steps.astype(int).tolist(),
            "nfe": self.nfe.astype(int).tolist(),
            "h": self.h.tolist(),
            "error": self.errors["w2"].tolist(),
            "slope": slopes,
            "constant": self.constants().tolist(),
            "mean_error": self.errors["mean"].tolist(),
            "cov_error": self.errors["covariance"].tolist(),
        }
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "order": order_entry(self.measured, self.expected, self.proven),
            "fits": {name: asdict(fit) for name, fit in self.fits.items()},
            "limit": None if self.limit is None else asdict(self.limit),
            "levels": [dict(zip(columns, level, strict=True)) for level in zip(*columns.values(), strict=True)],
        }


def wasserstein(computed: GaussianLaw, exact: GaussianLaw) -> Array:
    """The 2-Wasserstein distance of Gaussians (batch,): its square is |mean difference|^2 + ||(R - C) C^-1/2||_F^2,
    with C the exact covariance and R = (C^1/2 C_N C^1/2)^1/2. Small distances keep the digits that the trace formula
    loses."""
    root = sqrtm(exact.cov)
    transport = matmul(sqrtm(congruence(root, computed.cov)) - exact.cov, inverse(root))
    return np.sqrt(((computed.mean - exact.mean) ** 2).sum(0) + (transport**2).sum((0, 1)))


def measure(
    name: str,
    run: Callable[[int], Moments],
    expected: int,
    steps: Sequence[int],
    time_span: float,
    unit: Array,
    problems: tuple[str, ...] = (),
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> OrderStudy:
    """Run a sampler at every level and collect its errors; `run(N)` gives its moments after N steps.

    unit (2,): the standard deviations of x and m that errors are measured in. Under a time limit (`time_limit`) the
    study has the levels that were done. Raises ValueError unless there are at least four increasing levels.
    """
    check_levels(steps)
    if not 1 <= expected <= MAX_ORDER or expected != int(expected):
        raise ValueError(f"order {expected} is no weak order to expect; it is an integer from 1 to {MAX_ORDER}")
    errors: dict[str, list[float]] = {quantity: [] for quantity in QUANTITIES}
    nfe: list[int] = []
    sizes: dict[str, float] = {}
    runs: list[Moments] = []
    done = completed(run, steps, progress)
    steps = list(done)
    for moments in done.values():
        for quantity, value in errors_of(moments.computed, moments.exact, unit).items():
            errors[quantity].append(value if math.isfinite(value) else math.nan)
        exact = GaussianLaw(
            moments.exact.mean / unit[:, None], congruence(np.diag(1 / unit)[..., None], moments.exact.cov)
        )
        mean, cov = (max(1.0, float(np.abs(entry).max())) for entry in exact)
        sizes = {"mean": mean, "covariance": cov, "w2": max(mean, math.sqrt(cov))}
        nfe.append(moments.nfe)
        runs.append(moments)
    return OrderStudy(
        name,
        expected,
        np.asarray(steps, dtype=float),
        np.asarray(nfe, dtype=float),
        time_span / np.asarray(steps, dtype=float),
        {quantity: np.asarray(values) for quantity, values in errors.items()},
        sizes,
        problems,
        limit=_limit(np.asarray(steps, dtype=float), runs, unit),
        rounding=np.array([moments.rounding for moments in runs]),
    )


def _signed_errors(moments: Moments, unit: Array) -> Array:
    """Computed minus exact, relative to the exact law's size: five moments, mean x and m, covariance xx, xm and mm, of
    each target, (5, V)."""
    (mean, cov), (exact_mean, exact_cov) = moments.computed, moments.exact
    i, j = np.array([0, 0, 1]), np.array([0, 1, 1])
    mean_size = np.maximum(unit[:, None], np.abs(exact_mean))
    variance = np.maximum(exact_cov[[0, 1], [0, 1]], mean_size**2)
    with np.errstate(over="ignore", invalid="ignore"):
        first = (mean - exact_mean) / mean_size
        second = (cov - exact_cov)[i, j] / np.sqrt(variance[i] * variance[j])
    return np.concatenate([first, second])


def _limit(steps: Array, runs: Sequence[Moments], unit: Array) -> Limit | None:
    """The signed errors (levels, 5, V), extrapolated to 1/N = 0 from the finest levels: a step's error is smooth in h,
    so errors are power series in 1/N. None with fewer than four finite levels."""
    signed = [_signed_errors(moments, unit) for moments in runs]
    usable = list(itertools.takewhile(lambda errors: np.isfinite(errors).all(), signed[::-1]))[::-1]
    if len(usable) < 4:
        return None
    arguments = 1 / steps[-len(usable) :]
    best, uncertainty = extrapolate(arguments, usable)
    rounding = max(ROUND_OFF, *(moments.rounding for moments in runs))
    uncertainty = max(uncertainty, magnification(arguments) * rounding)
    moment, place = np.unravel_index(int(np.abs(best).argmax()), best.shape)
    name = ("mean of x", "mean of m", "variance of x", "covariance of x and m", "variance of m")[int(moment)]
    exact = runs[-1].exact
    law = f"exact law: mean {exact.mean[0, place]:.2g}, variance {exact.cov[0, 0, place]:.2g} of x"
    return Limit(f"{name} ({law})", float(best[moment, place]), uncertainty)


def check_levels(steps: Sequence[int]) -> None:
    """Raises ValueError unless `steps` are four or more increasing numbers, far enough apart for slopes."""
    ratios = [later / earlier for earlier, later in itertools.pairwise(steps) if earlier > 0]
    if len(steps) < 4 or steps[0] < 1 or min(ratios) < MIN_RATIO:
        raise ValueError(
            f"levels {list(steps)}: an order needs 4 or more increasing numbers of steps, each at least {MIN_RATIO} "
            "times the one before: 50 100 200 400"
        )


def errors_of(computed: GaussianLaw, exact: GaussianLaw, unit: Array) -> dict[str, float]:
    """The errors of a batch of laws by quantity, root mean square over the batch, in the units (2,) of x and m."""
    scale = np.diag(1 / unit)[..., None]
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged level becomes nan and is reported as such
        first, second = (GaussianLaw(law.mean / unit[:, None], congruence(scale, law.cov)) for law in (computed, exact))
        squares = {
            "mean": ((first.mean - second.mean) ** 2).sum(0),
            "covariance": ((first.cov - second.cov) ** 2).sum((0, 1)),
            "w2": wasserstein(first, second) ** 2,
        }
        return {quantity: float(np.sqrt(square.mean())) for quantity, square in squares.items()}


def gaussian_targets(
    diffusion: Diffusion, params: Parameters, variances: Sequence[float] = VARIANCES, means: Sequence[float] = MEANS
) -> GaussianTarget:
    """Every mean with every variance, as one batch."""
    pairs = [(mean, variance) for mean in means for variance in variances]
    mean, variance = np.array(pairs, dtype=float).T
    return GaussianTarget(mean, variance, diffusion, params)


def study_order(
    scheme: Scheme,
    params: Parameters,
    expected: int | None = None,
    steps: Sequence[int] = STEPS,
    target: GaussianTarget | None = None,
    t_end: float = T_END,
    grid: str = "uniform",
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> OrderStudy:
    """The order study of a scheme by exact moments, from the exact law at t = T to t = t_end.

    expected: the order to hold it to; default the scheme's own, or 1 if it claims none. Raises ValueError on bad input.
    """
    target = target or gaussian_targets(scheme.splitting.diffusion, params)

    def run(count: int) -> Moments:
        return exact_moments(scheme, target, time_grid(grid, count, params, t_end))

    unit = np.sqrt(scheme.splitting.diffusion.variances(params.values())[1:])
    claim = claim_of(scheme, params, expected)
    study = measure(scheme.name, run, claim.expected, steps, params.T - t_end, unit, claim.problems, progress)
    return replace(study, proven=claim.proven)

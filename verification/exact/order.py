"""The measured weak order and the verdict on it.

A sampler is run at doubling numbers of steps N on a spread of Gaussian targets; its moments are exact, so its errors in
mean, covariance and W2 (exact.errors) hold no Monte Carlo noise. Each has an order with an interval from its local
slopes (`fits.fit_order`), h = (T - t_end) / N; a range that is not asymptotic yet shows as a wide interval. What a
study finds, and how much each finding says, stands in exact.order_evidence; how findings make a verdict, in
verdicts.evidence.

Slopes are never taken in absolute value; levels at rounding are not fitted. Slopes see a bias only once it is as
large as the error of the finest level; the signed errors, extrapolated to h = 0 (Richardson), see one of 1e-8.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...integrators.grids import is_graded, time_grid
from ...theory.model import Diffusion, Parameters
from ...theory.scheme import Scheme
from ..targets import GaussianLaw, GaussianTarget
from ..time_limit import completed
from ..verdicts import (
    Array,
    Constant,
    Evidence,
    Finding,
    Fit,
    Judged,
    Kind,
    claim_of,
    error_constant,
    findings_of,
    fit_order,
    is_the_same,
    lowest,
    order_entry,
    slopes_of,
)
from .errors import (
    QUANTITIES,
    ROUND_OFF,
    Limit,
    departure,
    errors_of,
    limit_of,
    relative,
    rounding_errors,
    signed_errors,
    sizes_of,
    stiffness,
)
from .moments import Moments, exact_moments, rounding_bound
from .order_evidence import evidence_of

# Levels closer than this leave slopes to round-off and extrapolate far.
MIN_RATIO = 1.5
# W2 is judged if no covariance is off by more than this part of itself: beyond that it is a square root.
SMOOTH = 1.0
# A limit's rounding stands this many times below the errors that are fitted; and so many times what errors scatter by,
# so that it moves no slope by more than 0.14.
CLEAR, CLEAR_OF_SCATTER = 4, 16

# What a study runs unless told otherwise. Down to the cut-off t = eps the orders are the same, but the asymptotic range
# begins at many more steps; at t = 0.1 it begins at about 100.
STEPS = tuple(25 * 2**k for k in range(9))
VARIANCES = (0.04, 0.25, 1.0, 4.0)
MEANS = (0.0, 1.0)
T_END = 0.1

MAX_ORDER = 10


@dataclass(frozen=True, eq=False)
class OrderStudy(Judged):
    """Errors against steps, and what follows. All arrays run over the levels, coarse to fine.

    steps, nfe: (levels,); h: the mean step size; errors: {quantity: (levels,)}, nan where the run diverged; sizes: of
    the exact law per quantity; rounding (levels,): by how much a black box departed from an affine map, by rounding to
    float32, relative to the law; floors: {quantity: (levels,)}, what float64 may leave of errors; signed (levels,
    moments, V) and its rounding: `errors.signed_errors`; smooth (levels,): where W2 is a smooth function of the error;
    stiff: h times the fastest rate at the finest level, 0 if it is not known; exact: the law at the end.

    expected: the order the sampler is held to; proven: the order that holds for every score, None if none was proven;
    problems: what makes it fail outright; hints: what forbids a PASS; notes: what to warn of; findings: more of them,
    as values; covered: what the study tried; scatter: {quantity: (levels,)}, by how much the errors of neighbouring
    numbers of steps scatter, where rounding makes them.
    """

    name: str
    expected: int
    steps: Array
    nfe: Array
    h: Array
    errors: dict[str, Array]
    sizes: dict[str, float]
    rounding: Array
    floors: dict[str, Array]
    signed: Array
    signed_rounding: Array
    smooth: NDArray[np.bool_]
    exact: GaussianLaw
    stiff: float = 0.0
    problems: tuple[str | Finding, ...] = ()
    proven: int | None = None
    hints: tuple[str | Finding, ...] = ()
    notes: tuple[str | Finding, ...] = ()
    findings: tuple[Finding, ...] = ()
    covered: tuple[str, ...] = ()
    scatter: dict[str, Array] = field(default_factory=dict)

    # --- Which levels say what ---

    @cached_property
    def told(self) -> tuple[Finding, ...]:
        """What was found before the errors were looked at."""
        return (*findings_of(self.problems, self.hints, self.notes), *self.findings)

    @cached_property
    def is_single(self) -> bool:
        """Whether rounding was measured, of states to float32, or of constants or times by what it leaves of limits or
        by how errors scatter."""
        return bool(self.rounding.any()) or bool(self.scatter) or (self.limit is not None and self.limit.is_rounded)

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """The levels that say something of the sampler: with steps no shorter than known rounding leaves
        undisturbed."""
        rounded = [finding for finding in self.told if finding.kind is Kind.ROUNDING]
        return self.h >= (1 - 1e-9) * max((finding.shortest for finding in rounded), default=0.0)

    @cached_property
    def fitted(self) -> dict[str, NDArray[np.bool_]]:
        """Per quantity, which levels stand above rounding (and did not diverge)."""
        return {name: np.isfinite(e) & (e > self.floor(name)) for name, e in self.errors.items()}

    def floor(self, quantity: str, clear: float = CLEAR_OF_SCATTER) -> Array:
        """The error that is rounding, (levels,); clear: how many times above its scatter an error must stand."""
        left = CLEAR * abs(self.limit.bias) if self.limit is not None and self.limit.is_rounded else 0.0
        floor = self.floors[quantity] + self.sizes[quantity] * (ROUND_OFF + self.rounding + left)
        return floor + clear * self.scatter.get(quantity, 0.0)

    def seen(self, quantity: str) -> Array:
        """The errors that say something of a quantity's order, (levels,); nan for the others."""
        judged = self.fitted[quantity] & self.kept & (quantity != "w2" or self.is_smooth)
        return np.where(judged, self.errors[quantity], np.nan)

    @property
    def is_smooth(self) -> bool:
        """Whether W2 is a smooth function of the error at the finest level kept."""
        return bool(self.smooth[self.kept][-1:].all())

    def vanishes(self, quantity: str) -> bool:
        """Whether the error is at rounding at the two finest levels kept: no order can be fitted."""
        below = self.errors[quantity] <= self.floor(quantity)
        return bool(below[self.kept][-2:].all())

    # --- Orders and limits ---

    def slopes(self, quantity: str = "w2") -> Array:
        """Local orders log(e_k / e_k+1) / log(N_k+1 / N_k) between neighbouring levels (levels - 1,); nan if
        unfitted."""
        return slopes_of(self.steps, np.where(self.fitted[quantity], self.errors[quantity], np.nan))

    def constants(self, quantity: str = "w2") -> Array:
        """Error constants e(h) / h^p at the expected order p, (levels,)."""
        return self.errors[quantity] / self.h**self.expected

    def fit(self, quantity: str) -> Fit | None:
        """The order from the finest four neighbouring levels that say something; None if there are not four."""
        return fit_order(self.steps, self.seen(quantity), self.scatter.get(quantity, 0.0))

    def constant(self, quantity: str) -> Constant | None:
        """What e / h^p tends to, from the same levels."""
        return error_constant(self.steps, self.seen(quantity), self.expected, self.scatter.get(quantity, 0.0))

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """The fits of the quantities that have one."""
        fits = {name: self.fit(name) for name in QUANTITIES}
        return {name: fit for name, fit in fits.items() if fit is not None}

    @property
    def measured(self) -> Fit | None:
        """The lowest order that is settled below the expected one, else that is settled, else of all: the weak order is
        that of the worst quantity."""
        missed = [name for name, fit in self.fits.items() if fit.misses(self.expected)]
        return lowest(self.fits, missed, [name for name, fit in self.fits.items() if fit.is_settled])

    @cached_property
    def limit(self) -> Limit | None:
        """What the moments converge to; None if that could not be extrapolated."""
        kept = np.flatnonzero(self.kept)
        signed, rounding = ([values[k] for k in kept] for values in (self.signed, self.signed_rounding))
        return limit_of(self.steps[kept], signed, rounding, self.exact)

    @property
    def is_the_same(self) -> bool:
        """Whether the law at the finest three levels kept is one, as of a sampler that makes steps of its own."""
        return self.limit is not None and self.limit.is_biased and is_the_same(self.signed[self.kept])

    @property
    def diverged(self) -> bool:
        """Whether the finest level overflowed."""
        return not all(np.isfinite(e[-1]) for e in self.errors.values())

    # --- The verdict ---

    @property
    def evidence(self) -> Evidence:
        """What all evidence adds up to."""
        return evidence_of(self)

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
            "state": str(self.state),
            "reason": self.reason,
            "order": order_entry(self.measured, self.expected, self.proven),
            "fits": {name: asdict(fit) for name, fit in self.fits.items()},
            "limit": None if self.limit is None else asdict(self.limit),
            "levels": [dict(zip(columns, level, strict=True)) for level in zip(*columns.values(), strict=True)],
        }


def measure(
    name: str,
    run: Callable[[int], Moments],
    expected: int,
    steps: Sequence[int],
    time_span: float,
    unit: Array,
    problems: tuple[str | Finding, ...] = (),
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    bound: Callable[[int], GaussianLaw] | None = None,
    stiff: Callable[[int], float] | None = None,
) -> OrderStudy:
    """Run a sampler at every level and collect its errors; `run(N)` gives its moments after N steps, bound(N) what
    float64 may have moved them by, default nothing but `errors.ROUND_OFF`, and stiff(N) h times the fastest rate.

    unit (n,): the standard deviations of the components that errors are measured in. Under a time limit (`time_limit`)
    the study has the levels that were done. Raises ValueError unless there are at least four increasing levels."""
    check_levels(steps)
    if not 1 <= expected <= MAX_ORDER or expected != int(expected):
        raise ValueError(f"order {expected} is no weak order to expect; it is an integer from 1 to {MAX_ORDER}")
    done = completed(run, steps, progress)
    steps, runs = list(done), list(done.values())
    exact = runs[-1].exact
    nothing = GaussianLaw(np.zeros_like(exact.mean), np.zeros_like(exact.cov))
    bounds = [nothing if bound is None else bound(count) for count in steps]
    errors = [errors_of(moments.computed, moments.exact, unit) for moments in runs]
    floors = [rounding_errors(entry, exact, unit) for entry in bounds]
    levels = np.asarray(steps, dtype=float)
    rounding = np.array([moments.rounding for moments in runs])
    finite = [{q: value if math.isfinite(value) else math.nan for q, value in entry.items()} for entry in errors]
    return OrderStudy(
        name,
        expected,
        levels,
        np.array([moments.nfe for moments in runs], dtype=float),
        time_span / levels,
        {quantity: np.array([entry[quantity] for entry in finite]) for quantity in QUANTITIES},
        sizes_of(exact, unit),
        rounding,
        {quantity: np.array([entry[quantity] for entry in floors]) for quantity in QUANTITIES},
        np.array([signed_errors(moments.computed, moments.exact, unit) for moments in runs]),
        np.array([relative(entry, exact, unit) for entry in bounds]) + (ROUND_OFF + rounding)[:, None, None],
        np.array([departure(moments.computed, moments.exact, unit) <= SMOOTH for moments in runs]),
        exact,
        0.0 if stiff is None else stiff(steps[-1]),
        problems,
    )


def check_levels(steps: Sequence[int]) -> None:
    """Raises ValueError unless `steps` are four or more increasing numbers, far enough apart for slopes."""
    ratios = [later / earlier for earlier, later in itertools.pairwise(steps) if earlier > 0]
    if len(steps) < 4 or steps[0] < 1 or min(ratios) < MIN_RATIO:
        raise ValueError(
            f"levels {list(steps)}: an order needs 4 or more increasing numbers of steps, each at least {MIN_RATIO} "
            "times the one before: 50 100 200 400"
        )


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

    def grid_of(count: int) -> Array:
        return time_grid(grid, count, params, t_end)

    unit = np.sqrt(scheme.splitting.diffusion.prior_variances(params.values()))
    claim = claim_of(scheme, params, expected, is_graded(grid))
    study = measure(
        scheme.name,
        lambda count: exact_moments(scheme, target, grid_of(count)),
        claim.expected,
        steps,
        params.T - t_end,
        unit,
        claim.problems,
        progress,
        lambda count: rounding_bound(scheme, target, grid_of(count)),
        lambda count: stiffness(scheme.splitting.whole, target, grid_of(count)),
    )
    return replace(study, proven=claim.proven, covered=covered_by(params, t_end, claim.proven is not None))


def covered_by(params: Parameters, t_end: float, any_score: bool) -> tuple[str, ...]:
    """What an order study tries: the times, and the scores."""
    scores = "any score by proof, measured on affine ones" if any_score else "affine scores"
    return (f"t from {params.T:g} to {t_end:g}", scores)

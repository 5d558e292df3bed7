"""Which settings a scheme should be run with at a budget of evaluations: those of the smallest exact distance.

For a Gaussian with the data's mean and covariance the Frechet distance of what a run delivers to the data is known
exactly (exact.spectrum), with its derivatives by all that can be set (tune_settings, tune_derivatives). So it is
minimised by Gauss and Newton's method within bounds, from many starts, first on a coarse sketch of the spectrum, then
on a fine one, on which distances are right to some 1e-4; what is then said of the settings is of the whole spectrum.

    one exponent   from the best of a lattice of lambda_s, eps and rho, and from the published settings
    free grid      from that optimum, from the uniform and the quadratic grid, and from smooth distortions of it

each with and without the denoising step. Stability is a constraint: a perturbation must grow by no more than
`stability.FACTOR` along the run (stability.growth), since a network's errors are such perturbations. Its excess over
that, in log, is one more residual for each of some eigenvalues, with weights that grow until it is gone; whether it is
gone is then asked of the whole spectrum. Where nothing that was found meets the limit (schemes that look back grow by
tens, from states that their old answers do not know), a perturbation must grow by no more than under the published
settings.

What the optimum is worth is said with it: the distance that an exact sampler would have with the same cut-off and
denoising step (`floor`), and how far the run is from that sampler's law (`from_exact`). A distance to the data rewards
errors that cancel each other, which they need not do for other data or for a network's score. The worst of that is
left out: a run of few steps ends too narrow, and noise that a large cut-off leaves would widen it, eigenvalue by
eigenvalue, so a cut-off is looked at only where an exact sampler would lose next to nothing by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..exact import Spectrum, denoised, exact_moments
from ..stability import FACTOR, Growth, thinned, worst_growth
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array
from .tune_search import Problem, Searched, search
from .tune_settings import CUTOFFS, Settings, Variables, power_fractions, steps_for, untuned

# What an exact sampler may lose by a cut-off, of the published run's distance, and how many cut-offs are tried.
CANCELLED, _CUTOFF_POINTS = 0.01, 48
# Bins of the sketches, and eigenvalues whose growth is held to the limit while searching.
BINS, FINE_BINS, GROWN = 64, 512, 24
# The lattice of starts, and how many of its points are gone on from.
_SCALES, _CUTOFFS, _EXPONENTS = (0.85, 1.0, 1.2), (2e-4, 1e-3, 4e-3, 0.016), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
_FROM_LATTICE = 4
# Distortions of a grid: its log steps get these amounts of the first Legendre polynomials of s.
_DISTORTIONS = ((0.5, 0.0, 0.0), (-0.5, 0.3, 0.0), (0.0, -0.5, 0.3), (0.2, 0.5, -0.3))
# Evaluations of the search on the fine sketch.
_FINE_EVALUATIONS = 4
# How much nearer the limit is taken at each further attempt, where the whole spectrum grows by more than the sketch.
_TIGHTER, _ATTEMPTS = 0.985, 3


@dataclass(frozen=True)
class Measured:
    """A run on the whole spectrum: its squared 2-Wasserstein distance to the data, `from_exact` to the law that an
    exact sampler ends at with the same cut-off and denoising step, that law's own to the data (`floor`), and growth."""

    settings: Settings
    nfe: int
    distance: float
    from_exact: float
    floor: float
    growth: Growth

    @property
    def cancels(self) -> bool:
        """Whether the run is nearer to the data than an exact sampler would be: its errors cancel that one's."""
        return self.distance < self.floor


@dataclass(frozen=True)
class Optimum:
    """The best settings found: measured; whether the growth is within the limit, and the `limit` that was kept to: the
    one asked for, or the published run's growth; of how many starts, how many were followed to their ends and how many
    of those ended there, to 1e-6 of the distance; the names of what stands at a bound of the search."""

    measured: Measured
    is_stable: bool
    limit: float
    starts: int
    followed: int
    agreeing: int
    at_bounds: tuple[str, ...]


@dataclass(frozen=True)
class Tuned:
    """A scheme at a budget: as published, with one exponent, with a free grid (None where that was not asked for, or
    has nothing to set), and the distance that a free choice of growth would reach (None where growth is no hindrance).
    """

    scheme: Scheme
    budget: int
    denoise: bool
    family: Optimum
    free: Optimum | None
    unlimited: float | None

    @property
    def best(self) -> Optimum:
        """The nearer of the two that is stable, else that of less growth."""
        found = [optimum for optimum in (self.family, self.free) if optimum is not None]
        return min(found, key=rank)


def check_growth(limit: float) -> None:
    """Raises ValueError unless a run may have that growth."""
    if not limit > 1:
        raise ValueError(f"growth = {limit:g}: the exact dynamics have growth 1; allow more than that")


def rank(optimum: Optimum) -> tuple[int, float]:
    """Those within the limit by distance, then those within the published run's growth, then others by growth."""
    measured = optimum.measured
    if measured.growth.growth > optimum.limit:
        return 2, measured.growth.growth
    return 0 if optimum.is_stable else 1, measured.distance


def measure(scheme: Scheme, params: Parameters, data: Spectrum, settings: Settings) -> Measured:
    """A run with these settings on all eigenvalues of the `data`."""
    scheme, params, taus = settings.applied(scheme, params)
    target = GaussianTarget(data.mean, data.variances, scheme.splitting.diffusion, params)
    moments = exact_moments(scheme, target, taus, "prior", settings.denoise)
    exact = exact_law(scheme, params, data, settings.denoise)
    return Measured(
        settings,
        moments.nfe,
        data.distance(moments.computed),
        exact.distance(moments.computed),
        data.distance(GaussianLaw(exact.mean[None], exact.variances[None, None])),
        worst_growth(scheme, params, taus, data),
    )


def exact_law(scheme: Scheme, params: Parameters, data: Spectrum, denoise: bool) -> Spectrum:
    """The positions that an exact sampler ends at, with the parameters' cut-off and the scheme's denoising step."""
    target = GaussianTarget(data.mean, data.variances, scheme.splitting.diffusion, params)
    law = denoised(target, scheme, params) if denoise else target.law(params.eps)
    return Spectrum(np.maximum(law.cov[0, 0], 0.0), law.mean[0], data.images)


def longest_cutoff(scheme: Scheme, params: Parameters, data: Spectrum, budget: int, denoise: bool) -> float:
    """The largest cut-off that is looked at: that at which an exact sampler is `CANCELLED` of the published run's
    distance away from the data, or the published one. What a run would gain beyond are errors that cancel that law's.
    """
    settings = untuned(scheme, params, budget)
    run, own, taus = settings.applied(scheme, params)
    target = GaussianTarget(data.mean, data.variances, scheme.splitting.diffusion, params)
    published = data.distance(exact_moments(run, target, taus, "prior", True).computed)
    longest = params.eps
    for eps in np.geomspace(params.eps, max(CUTOFFS[1], params.eps), _CUTOFF_POINTS)[1:].tolist():
        law = exact_law(scheme, replace(own, eps=eps), data, denoise)
        if not data.distance(GaussianLaw(law.mean[None], law.variances[None, None])) <= CANCELLED * published:
            break
        longest = eps
    return longest


def tuned(
    scheme: Scheme,
    params: Parameters,
    data: Spectrum,
    budget: int,
    denoise: bool = True,
    free_grid: bool = True,
    kept: Collection[str] = (),
    limit: float = FACTOR,
) -> Tuned:
    """The best settings of a scheme at `budget` evaluations on a spectrum, with or without the denoising step.

    free_grid: whether to free the grid's times too. kept: names of `TUNABLE` that stay as published; limit > 1: of the
    growth. Raises ValueError where the budget buys no step, on a limit of 1 or less, and on sub-flows or dynamics whose
    steps cannot be compiled.
    """
    check_growth(limit)
    base = untuned(scheme, params, budget)
    if (steps := steps_for(scheme, budget, denoise)) < 1:
        raise ValueError(f"nfe = {budget}: no step of {scheme.name!r} is left beside the denoising step; give more")
    base = replace(base, denoise=denoise, fractions=tuple(power_fractions(steps, 2.0).tolist()))
    longest = longest_cutoff(scheme, params, data, budget, denoise)
    published = measure(scheme, params, data, untuned(scheme, params, budget)).growth.growth

    def within(variables: Variables, starts: list[Settings] | None = None) -> Optimum:
        first = Search(scheme, params, data, limit, variables)
        found = first.best(starts or first.lattice())
        if found.is_stable or published <= limit:
            return found
        second = Search(scheme, params, data, published, variables)
        return replace(second.best(starts or second.lattice()), is_stable=False)

    found, free = within(Variables(scheme, base, False, kept, longest)), None
    if free_grid and "grid" not in kept and steps > 1:
        start = found.measured.settings
        free = within(Variables(scheme, start, True, kept, longest), _grids(start))
    unlimited = None
    if max(found.measured.growth.growth, free.measured.growth.growth if free else 1.0) > 0.98 * limit:
        best = min((one for one in (found, free) if one is not None), key=rank)
        variables = Variables(scheme, best.measured.settings, best is free, kept, longest)
        without = Search(scheme, params, data, np.inf, variables)
        unlimited = without.best([best.measured.settings]).measured.distance
    return Tuned(scheme, budget, denoise, found, free, unlimited)


def _grids(start: Settings) -> list[Settings]:
    """Where a search for free times begins: the settings, their distortions, the uniform and the quadratic grid."""
    found = [start]
    h, s = np.diff(start.fractions), (np.arange(start.steps) + 0.5) / start.steps
    for amounts in _DISTORTIONS:
        bent = h * np.exp(np.polynomial.legendre.legval(2 * s - 1, [0.0, *amounts]))
        fractions = np.append(0.0, np.cumsum(bent / bent.sum()))
        fractions[-1] = 1.0
        found.append(replace(start, fractions=tuple(fractions.tolist()), rho=None))
    for rho in (1.0, 2.0):
        found.append(replace(start, fractions=tuple(power_fractions(start.steps, rho).tolist()), rho=rho))
    return found


class Search:
    """The search over some variables: on a coarse sketch from many starts, then on a fine one."""

    def __init__(self, scheme: Scheme, params: Parameters, data: Spectrum, limit: float, variables: Variables) -> None:
        self.scheme, self.params, self.data, self.limit, self.variables = scheme, params, data, limit, variables
        self.grown = thinned(data.variances, GROWN)

    def problem(self, bins: int, limit: float) -> Problem:
        """On a sketch of so many bins."""
        return Problem.on(self.scheme, self.params, self.data, bins, self.variables, self.grown, limit)

    def lattice(self) -> list[Settings]:
        """The best points of the lattice, no two of them neighbours, and the published settings."""
        problem, base = self.problem(BINS, self.limit), self.variables.base
        names = self.variables.names
        axes: list[Sequence[float]] = [
            _SCALES if "lambda_s" in names else (base.lambda_s,),
            _CUTOFFS if "eps" in names else (base.eps,),
            _EXPONENTS if "rho" in names else (base.rho or 2.0,),
        ]
        values: dict[tuple[int, ...], float] = {}
        points: dict[tuple[int, ...], Settings] = {}
        for place in itertools.product(*(range(len(axis)) for axis in axes)):
            scale, eps, rho = (axis[i] for axis, i in zip(axes, place, strict=True))
            fractions = tuple(power_fractions(base.steps, rho).tolist())
            points[place] = replace(base, lambda_s=scale, eps=eps, fractions=fractions, rho=rho)
            values[place] = problem.value(self.variables.vector(points[place]))
        chosen: list[tuple[int, ...]] = []
        for place in sorted(points, key=lambda at: values[at]):
            far = all(max(abs(a - b) for a, b in zip(place, other, strict=True)) > 1 for other in chosen)
            if far and np.isfinite(values[place]) and len(chosen) < _FROM_LATTICE:
                chosen.append(place)
        return [*(points[place] for place in chosen), base]

    def best(self, starts: Sequence[Settings]) -> Optimum:
        """The best that is found from all starts. Raises ValueError if every one overflows."""
        limit, attempts = self.limit, 0
        while True:
            problem = self.problem(BINS, limit)
            searched = search(problem, [self.variables.vector(start) for start in starts])
            x = self._refined(searched, limit)
            measured = measure(self.scheme, self.params, self.data, self.variables.settings(x))
            excess, attempts = measured.growth.growth / self.limit, attempts + 1
            if excess <= 1 or not searched.is_stable or attempts == _ATTEMPTS:
                break
            limit *= _TIGHTER / excess  # an eigenvalue that was not looked at grows by more
        return Optimum(
            measured,
            bool(excess <= 1),
            self.limit,
            len(starts),
            searched.followed,
            searched.agreeing,
            self.variables.at_bounds(x),
        )

    def _refined(self, searched: Searched, limit: float) -> Array:
        """The optimum on the coarse sketch, moved to that on the fine one, where that is another."""
        if len(self.data.variances) <= BINS:
            return searched.x
        return self.problem(FINE_BINS, limit).descended(searched.x, searched.weight, _FINE_EVALUATIONS)

"""The order of an unmodified sampler where the network is not affine: on a mixture of two Gaussians on a line.

On Gaussian data a sampler may show more than it has: the answers are affine, and the error terms that are not vanish
(Heun's method of Karras et al. 2022, algorithm 2, with alpha = 1/2 shows order 3 there, and has 2). So the same runs
are made of data 0.4 N(-1, 0.2) + 0.6 N(1, 0.05), whose exact network is known, E[x_0 | x_t] by Tweedie's formula from
the score (targets.mixture). From the exact law at the sampler's first noise level the weak errors of some test
functions (exact.observables) at the last state that the network sees,

    E f(v) - E f exactly there,      v = y / (scale (alpha^2 + sigma^2)^(1/2)),

are computed without sampling, and every number comes with how well it is known:

    no noise    the nodes of a lattice under the start's density are moved through the sampler itself, as one batch
    noise       the run is taken as a chain (unmodified.chain) and its law carried on a lattice from one evaluation to
                the next (exact.lattice)

Both are refined until no answer moves (exact.noise_free). The error of a run is the root mean square over the test
functions, each in its standard deviation under the exact law, and its order is judged as on Gaussian data
(unmodified.study): on a grid that is smooth in log sigma it decides, on the sampler's own whether errors fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...integrators.blackbox import BlackBoxError, NotFinite
from ...integrators.threads import one_thread
from ...integrators.unmodified import Unmodified
from ...theory.model import DIFFUSIONS
from ...theory.parameters import SMALLEST_TIME, Parameters
from ...theory.paths import Level
from ..blackbox import one_time
from ..exact import (
    Cloud,
    NoiseFreeErrors,
    Observable,
    Resolution,
    carry,
    expectation,
    observables_of,
    refined,
    resolutions_on,
)
from ..targets import MixtureTarget, make_target
from ..time_limit import completed
from ..verdicts import Array, Finding, Fit, Kind, Weight, slopes_of, stall_of
from .chain import chain_of
from .grids import STEPS, StudyOnGrids, asked_of, called, order_finding, order_of
from .noise_levels import NOTHING, Grid
from .study import NOT_FINITE, TARGETS, GridStudy, errors_of, grid_study, study_unmodified
from .transcript import Transcript, transcribe

ACCURACY = 1e-7
# A level counts where its error is this many times what it is known to.
_CLEAR = 30
# A Gaussian order that is higher than the mixture's by this is said.
_FLATTERED = 0.5


@lru_cache(maxsize=1)
def the_mixture() -> MixtureTarget:
    """The data, under vp with int beta as its time: t = log(1 + sigma^2 / alpha^2)."""
    target = make_target(
        "mixture", Parameters(beta_min=1.0, beta_max=1.0, eps=SMALLEST_TIME), 1, None, DIFFUSIONS["vp"]
    )
    assert isinstance(target, MixtureTarget)
    return target


def predicted(at: Level, z: Array) -> Array:
    """E[x_0 | alpha x_0 + sigma eps = z] of states z (J,): (v + sigma_v^2 score(v)) / alpha_v on vp."""
    target = the_mixture()
    if at.alpha == 0:
        return np.full_like(z, target.data_mean[0])
    unit = math.hypot(at.alpha, at.sigma)
    score = target.score(torch.from_numpy(z[:, None] / unit), _time(at))[:, 0].numpy()
    return (z / unit + (at.sigma / unit) ** 2 * score) * unit / at.alpha


def answered(sampler: Unmodified, at: Level, y: Array) -> Array:
    """What the exact network answers to states y (J,) of a level."""
    of_state, of_data = sampler.prediction(at)
    z = y / at.scale
    return of_state * z + of_data * predicted(at, z)


def law_at(at: Level) -> list[Cloud]:
    """The law of scale (alpha x_0 + sigma eps)."""
    unit = at.scale * math.hypot(at.alpha, at.sigma)
    if at.alpha == 0:
        return [Cloud(np.zeros((1, 1)), np.ones(1), np.full((1, 1), unit**2))]
    components = zip(*(np.asarray(a) for a in the_mixture().components(_time(at))), strict=True)
    return [Cloud(unit * mean, np.array([w]), unit**2 * cov[:, 0, :, 0]) for w, mean, cov in components]


def _time(at: Level) -> float:
    return math.log1p((at.sigma / at.alpha) ** 2)


# --- One run ----------------------------------------------------------------------------------------------------------


@one_thread()
def moved_through(sampler: Unmodified, run: Transcript, points: Array) -> Array:
    """The last states that the network sees of a run without noise that starts at points (J,): the sampler itself is
    called, once, on all of them."""
    prepared, seen = sampler.prepare(run.steps, True), list[Tensor]()
    size = math.prod(sampler.event)
    rows = -(-len(points) // size)
    x = torch.from_numpy(np.resize(points, rows * size).reshape(rows, *sampler.event))

    def network(y: Tensor, time: float | Tensor) -> Tensor:
        seen[:] = [y.detach().clone()]
        flat = y.detach().double().reshape(-1).numpy()
        answer = answered(sampler, prepared.level(one_time(time)), flat)
        return torch.from_numpy(answer).reshape(y.shape).to(y.dtype)

    prepared.run(network, x)
    return seen[0].double().reshape(-1).numpy()[: len(points)]


def law_of(sampler: Unmodified, run: Transcript) -> tuple[int, Callable[[Resolution], Cloud]]:
    """The dimensions of the lattices that a run's last law takes, and it at a resolution. Raises BlackBoxError where no
    lattice holds it."""
    start = law_at(run.begin)
    if not run.is_stochastic:
        return 1, _moved_laws(sampler, run, start).__getitem__
    chain = chain_of(sampler, run)

    def carried(resolution: Resolution) -> Cloud:
        moves = chain.moves(lambda k, y: answered(sampler, run.levels[k], y), resolution)
        return carry(chain.begin(start), moves, resolution)

    return chain.dimensions, carried


def _moved_laws(sampler: Unmodified, run: Transcript, start: Sequence[Cloud]) -> dict[Resolution, Cloud]:
    """The last law of a run without noise, at every resolution of a line: most runs are asked for nearly all of them,
    and one call of the sampler costs less than one for each."""
    laws = {resolution: carry(start, (), resolution) for resolution in resolutions_on(1)}
    moved = moved_through(sampler, run, np.concatenate([cloud.points[0] for cloud in laws.values()]))
    ends = np.split(moved, np.cumsum([cloud.weights.size for cloud in laws.values()])[:-1])
    return {
        resolution: cloud._replace(points=end[None])
        for (resolution, cloud), end in zip(laws.items(), ends, strict=True)
    }


def mixture_errors(
    sampler: Unmodified, run: Transcript, observables: Sequence[Observable], accuracy: float = ACCURACY
) -> NoiseFreeErrors:
    """The weak errors of a run at the last state that the network sees, and how well they are known. Raises
    BlackBoxError where no lattice holds its laws."""
    at = run.levels[-1]
    unit = at.scale * math.hypot(at.alpha, at.sigma)
    exact, estimate = expectation(observables, the_mixture(), _time(at))
    dimensions, law = law_of(sampler, run)

    def in_units(resolution: Resolution) -> Cloud:
        cloud = law(resolution)
        return cloud._replace(points=cloud.points[:1] / unit)

    found = refined(in_units, resolutions_on(dimensions), observables, estimate, accuracy)
    names = tuple(observable.name for observable in observables)
    return NoiseFreeErrors(
        sampler.name,
        names,
        run.steps,
        run.nfe,
        found.computed,
        exact,
        found.moved + estimate,
        found.nodes,
        found.problem,
    )


def spreads(observables: Sequence[Observable], at: Level) -> Array:
    """The standard deviations of the test functions under the exact law of a level, (F,)."""
    squares = [Observable(f"({f.name})^2", lambda x, f=f: f.function(x) ** 2, 1) for f in observables]
    (mean, _), (square, _) = (expectation(group, the_mixture(), _time(at)) for group in (observables, squares))
    return np.sqrt(square - mean**2)


# --- The study --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MixtureGrid:
    """A sampler on one grid. steps (levels,); runs: the weak errors of each level, None where its result is not finite;
    sizes (levels,): the error of each level, and known (levels,), what it is known to; gaussian (levels,): the w2 error
    on the Gaussian targets of the study. decides: as in `GridStudy`; on_gaussian: the same runs there, None if they
    were not looked at."""

    grid: str
    expected: int
    steps: Array
    runs: tuple[NoiseFreeErrors | None, ...]
    sizes: Array
    known: Array
    gaussian: Array
    decides: bool = True
    on_gaussian: GridStudy | None = None

    @property
    def layout(self) -> Grid:
        """What its levels say."""
        return NOTHING if self.on_gaussian is None else self.on_gaussian.layout

    def above_floor(self) -> Array:
        """As `seen`."""
        return self.seen

    def beside(self) -> list[str]:
        """What goes with any verdict: of an order that does not decide."""
        where = f"on {called(self.grid)}"
        return [f.text for f in self._of_order(where) if f.weight is Weight.NOTES and not self.decides]

    @property
    def seen(self) -> Array:
        """The errors (levels,) that stand above what they are known to, else nan."""
        return np.where(self.sizes > _CLEAR * self.known, self.sizes, np.nan)

    @property
    def fit(self) -> Fit | None:
        """The order."""
        return order_of(self.steps, self.seen)

    @property
    def flat(self) -> Fit | None:
        """The order that Gaussian data show."""
        return order_of(self.steps, self.gaussian)

    @property
    def is_flattered(self) -> bool:
        """Whether Gaussian data show a higher order; slopes that still move on either say nothing."""
        fit, flat = self.fit, self.flat
        if fit is None or flat is None or not (fit.is_settled and flat.is_settled):
            return False
        return bool(flat.order > fit.order + _FLATTERED)

    def findings(self) -> list[Finding]:
        """What is known of it on this grid."""
        where = f"on {called(self.grid)}"
        if None in self.runs:
            bad = int(self.steps[self.runs.index(None)])
            return [Finding(f"its result is not finite at {bad} steps {where}", Weight.REFUTES, Kind.LEVELS)]
        problems = [f"{run.steps} steps {where}: {run.problem}" for run in self.runs if run is not None and run.problem]
        found = [Finding(problem, Weight.NOTES, Kind.LEVELS) for problem in problems]
        found += self._of_order(where)
        if self.on_gaussian is not None:  # what is exact there holds for the sampler, whatever the target
            against = [f for f in self.on_gaussian.findings() if f.weight is Weight.REFUTES or f.kind is Kind.LIMIT]
            found += [replace(f, text=f"on Gaussian data {f.text}") for f in against]
        fit = self.fit
        flat = self.flat
        if fit is not None and flat is not None and self.is_flattered:
            text = f"Gaussian data flatter {where}: they show order {flat.order:.2f}, and the mixture {fit.order:.2f}"
            found.append(Finding(text, Weight.NOTES, Kind.ORDER))
        return found

    def _of_order(self, where: str) -> list[Finding]:
        stall = stall_of(self.steps, self.seen, self.expected)
        stalled = "" if stall is None else f"the error {stall}; {stall.as_claimed}"
        found = order_finding(where, self.expected, self.fit, stalled, self.decides, "what they are known to")
        if self.on_gaussian is None or stalled or found.weight is not Weight.REFUTES or self.layout.is_smooth:
            return [found]
        text = f"{found.text}, and {self.on_gaussian.uneven}"
        return [replace(found, text=text, weight=Weight.FORBIDS)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; nan stands for what does not exist."""
        slopes = np.concatenate([[np.nan], slopes_of(self.steps, self.seen)])
        flat = np.concatenate([[np.nan], slopes_of(self.steps, self.gaussian)])
        levels = []
        for k, run in enumerate(self.runs):
            entry = {"steps": int(self.steps[k]), "nfe": math.nan if run is None else run.nfe}
            entry |= {"error": float(self.sizes[k]), "known": float(self.known[k]), "slope": float(slopes[k])}
            entry |= {"gaussian": float(self.gaussian[k]), "gaussian_slope": float(flat[k])}
            errors = [] if run is None else zip(run.names, run.errors.tolist(), run.estimates.tolist(), strict=True)
            entry["weak_errors"] = {name: {"value": value, "estimate": estimate} for name, value, estimate in errors}
            levels.append(entry | {"problem": "" if run is None else run.problem})
        fit = self.fit
        return {"grid": self.grid, "fit": None if fit is None else [fit.order, fit.low, fit.high], "levels": levels}


class MixtureStudy(StudyOnGrids[MixtureGrid]):
    """A sampler on its grids, on the mixture, and the verdict on it."""

    network = " of a mixture, not affine"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"target": "mixture"} | super().as_dict()


def study_on_mixture(
    samplers: dict[str, Unmodified],
    expected: int | None = None,
    steps: Sequence[int] = STEPS,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> MixtureStudy:
    """The study of a sampler on one grid or more, as `study_unmodified`, on the mixture.

    Raises BlackBoxError if it cannot be read off, and where no lattice holds its laws, ValueError on bad levels.
    """
    order, grids = asked_of(samplers, expected, steps)
    found = tuple(_on_grid(*asked, order, steps, progress) for asked in grids)
    first = next(iter(samplers.values()))
    return MixtureStudy(first.name, order, first.predicts, found, first.said)


def _on_grid(
    sampler: Unmodified,
    grid: str,
    decides: bool,
    order: int,
    steps: Sequence[int],
    progress: Callable[[Sequence[int]], Iterable[int]],
) -> MixtureGrid:
    observables = observables_of(1)

    def at(count: int) -> tuple[NoiseFreeErrors | None, float, float, Transcript | None, Mapping[str, float]]:
        try:
            run = transcribe(sampler, count)
        except NotFinite:
            return None, math.nan, math.nan, None, NOT_FINITE
        except BlackBoxError as error:
            raise BlackBoxError(f"in a run of {count} steps: {error}") from error
        found, scale = mixture_errors(sampler, run, observables), spreads(observables, run.levels[-1])
        size, known = (float(np.sqrt(np.mean((e / scale) ** 2))) for e in (found.errors, found.estimates))
        return found, size, known, run, errors_of(sampler, run, TARGETS)

    done = completed(at, steps, progress)
    gaussian = grid_study(sampler, grid, decides, order, {count: found[3:] for count, found in done.items()})
    runs, sizes, known, *_ = zip(*done.values(), strict=True)
    errors = gaussian.errors["w2"]
    return MixtureGrid(grid, order, gaussian.steps, runs, np.array(sizes), np.array(known), errors, decides, gaussian)


# What a sampler with a grid of its own is put on, and what studies it there.
STUDIES = {"gaussian": study_unmodified, "mixture": study_on_mixture}

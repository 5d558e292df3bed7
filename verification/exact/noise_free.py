"""Weak errors without sampling: on a one-dimensional mixture the law of a sampler is computed, and its order follows.

The law after the last step is points u_j with weights w_j, carried on lattices (exact.lattice). The weak error
of a test function f is

    E f(u_N) - E f(u),      E f(u_N) = sum_j w_j f(u_j),

the exact E f by Gauss-Hermite quadrature in the mixture's components. A run is repeated at finer resolutions until its
answers move by less than the accuracy asked for. The last movement, the error of the coarser run, is the estimate that
every number comes with.

Orders are fitted by `fits.fit_order`, to each function by itself, with two differences from exact.order: the
errors are signed, so that one which changes its sign with h is not fitted across the change; and a level is fitted only
where the error stands well above its estimate. Where the slopes of a function do not settle, as where its error changes
its sign with h, the limit of e(h) / h^p tells (`fits.error_constant`). PASS takes some order settled, that of every
function as expected or higher, but of those whose error vanishes within its estimate, and a limit of every error that
is 0 within its uncertainty.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...integrators.grids import check_grid, is_graded, time_grid
from ...theory.scheme import Scheme
from ..time_limit import completed
from ..verdicts import (
    Array,
    Evidence,
    Finding,
    Fit,
    Judged,
    Kind,
    Weight,
    claim_of,
    error_constant,
    extrapolate,
    fit_order,
    lowest,
    magnification,
    order_entry,
)
from .errors import CERTAIN, SURE, stiffness
from .lattice import Cloud, Resolution, carried_law, dimensions_of, resolutions_of
from .moments import check_diffusion
from .observables import Observable, expectation, observables_of
from .order import T_END
from .order_evidence import RESOLVED, WIDE
from .refinement import refined

if TYPE_CHECKING:  # torch takes seconds to import
    from ..targets import MixtureTarget

STEPS = (25, 50, 100, 200, 400)
LINE_STEPS = (*STEPS, 800, 1600)  # of laws on a line, which cost little
ACCURACY = 1e-7
Carrier = Callable[[Scheme, "MixtureTarget", Array, Resolution], Cloud]


def keep_laws() -> Carrier:
    """`carried_law`, each law computed once; what it raises is not kept."""
    kept: dict[tuple[Scheme, MixtureTarget, bytes, Resolution], Cloud] = {}

    def carry(scheme: Scheme, target: MixtureTarget, taus: Array, resolution: Resolution) -> Cloud:
        key = (scheme, target, taus.tobytes(), resolution)
        if key not in kept:
            kept[key] = carried_law(scheme, target, taus, resolution)
        return kept[key]

    return carry


# --- Weak errors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseFreeErrors:
    """E f(u_N) of one run and the exact E f, for the test functions `names` (F,), all arrays (F,), float64.

    estimates: of the absolute error of `computed` - `exact`: how far the last refinement moved it (inf where there was
    no second resolution to compare with). nodes: of the finest resolution's last law. problem: why the accuracy asked
    for was not reached, empty if it was; `computed` may be nan then.
    """

    name: str
    names: tuple[str, ...]
    steps: int
    nfe: int
    computed: Array
    exact: Array
    estimates: Array
    nodes: int
    problem: str = ""

    @property
    def errors(self) -> Array:
        """The weak errors E f(u_N) - E f, signed."""
        return self.computed - self.exact


def noise_free_errors(
    scheme: Scheme,
    target: MixtureTarget,
    taus: Array,
    observables: Sequence[Observable] | None = None,
    accuracy: float = ACCURACY,
    carry: Carrier = carried_law,
) -> NoiseFreeErrors:
    """The weak errors of `scheme` on a one-dimensional mixture after the steps of the grid `taus` (steps + 1,).

    From the exact law at the grid's first time; refined until no answer moves by more than `accuracy`, absolutely.
    observables: default, all of OBSERVABLES that a state has components for. carry: makes the laws; one that keeps them
    serves several sets of test functions.

    Raises ValueError on a target of other dimension or diffusion, a law that lattices cannot carry (`check_carried`), a
    sub-flow that is not frozen, a bad grid, no observable or one of more components than a state has, or an accuracy
    below 1e-10, which float64 cannot prove.
    """
    if target.event != (1,):
        raise ValueError(
            f"target of event shape {target.event}: a law is computed for one data dimension, (1,); sample the others "
            "(--method monte-carlo)"
        )
    check_diffusion(scheme, target.diffusion)
    size = target.diffusion.size
    observables = observables_of(size) if observables is None else observables
    if not observables:
        raise ValueError("no test function; give at least one Observable")
    for observable in observables:
        if observable.components > size:
            raise ValueError(
                f"test function {observable.name!r} is of {observable.components} components, and a state of "
                f"{target.diffusion.name!r} has {size}; give Observable(..., components={size}) of these alone"
            )
    if not accuracy >= 1e-10:
        raise ValueError(f"accuracy = {accuracy:g}: an answer can be proved to 1e-10 or more in float64")
    taus = check_grid(taus, target.params)
    exact, estimate = expectation(observables, target, target.params.T - float(taus[-1]))
    law = lambda resolution: carry(scheme, target, taus, resolution)  # noqa: E731
    found = refined(law, resolutions_of(scheme), observables, estimate, accuracy)
    return NoiseFreeErrors(
        scheme.name,
        tuple(observable.name for observable in observables),
        len(taus) - 1,
        scheme.nfe_per_step * (len(taus) - 1),
        found.computed,
        exact,
        found.moved + estimate,
        found.nodes,
        found.problem,
    )


# --- The order --------------------------------------------------------------------------------------------------------

# A level is fitted where its error is this many times its estimate: a slope is then right to 0.01 or so.
_CLEAR = 100


@dataclass(frozen=True, eq=False)
class NoiseFreeStudy(Judged):
    """The weak errors of a scheme at increasing numbers of steps, their orders and limits. `levels`: coarse to fine.

    expected: the order the scheme is held to; problems: what makes it fail outright; proven: the order that holds for
    every score, None if none was proven; stiff: h times the fastest rate of any component at the finest level, 0 if it
    is not known; t_start: where runs begin, span their length.
    """

    name: str
    expected: int
    span: float
    levels: tuple[NoiseFreeErrors, ...]
    problems: tuple[str, ...] = ()
    proven: int | None = None
    stiff: float = 0.0
    t_start: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """The test functions (F,)."""
        return self.levels[0].names

    @property
    def steps(self) -> Array:
        """(levels,)."""
        return np.array([level.steps for level in self.levels], dtype=float)

    @property
    def errors(self) -> dict[str, Array]:
        """The signed weak errors of every test function, (levels,)."""
        return dict(zip(self.names, np.array([level.errors for level in self.levels]).T, strict=True))

    @property
    def estimates(self) -> dict[str, Array]:
        """How well each of `errors` is known."""
        return dict(zip(self.names, np.array([level.estimates for level in self.levels]).T, strict=True))

    def fit(self, name: str) -> Fit | None:
        """The order of one test function's error by `fits.fit_order`; None without four neighbouring
        levels that are resolved, well above their estimates and of one sign."""
        errors = np.where(np.isfinite(self.errors[name]), self.errors[name], np.nan)
        clear = np.abs(errors) > _CLEAR * self.estimates[name]
        # An error that changes its sign with h is not yet C h^p: coarser levels of the other sign are left out.
        return fit_order(self.steps, np.where(clear & (np.sign(errors) == np.sign(errors[-1])), np.abs(errors), np.nan))

    @property
    def fits(self) -> dict[str, Fit]:
        """The fits of the test functions that have one."""
        fits = {name: self.fit(name) for name in self.names}
        return {name: fit for name, fit in fits.items() if fit is not None}

    @property
    def settled(self) -> dict[str, Fit]:
        """The fits that are known to a quarter of an order."""
        return {name: fit for name, fit in self.fits.items() if fit.is_settled}

    @cached_property
    def open(self) -> tuple[str, ...]:
        """The test functions of which nothing is known: no settled order, no limit of e / h^p, and not known to be 0
        either."""
        return tuple(name for name in self.names if name not in self.settled and not self._is_told(name))

    def _is_told(self, name: str) -> bool:
        errors, estimates = self.errors[name], self.estimates[name]
        constant = error_constant(self.steps, errors, self.expected, estimates)
        return (constant is not None and constant.is_known) or bool((np.abs(errors) <= estimates).all())

    @property
    def measured(self) -> Fit | None:
        """The lowest settled order, else the lowest fitted one: the weak order is that of the worst test function."""
        return lowest(self.fits, self.settled)

    @property
    def limit(self) -> tuple[str, float, float] | None:
        """What the errors tend to as h -> 0: the function whose limit is farthest from 0 in units of its uncertainty,
        the limit and that. None with an unresolved level."""
        if not all(np.isfinite(level.errors).all() and not level.problem for level in self.levels):
            return None
        values, moved = extrapolate(1 / self.steps, [level.errors for level in self.levels])
        known = np.max([level.estimates for level in self.levels], axis=0)
        uncertainties = np.maximum(moved, magnification(1 / self.steps) * known)
        worst = int(np.abs(values / uncertainties).argmax())
        return self.names[worst], float(values[worst]), float(uncertainties[worst])

    @property
    def evidence(self) -> Evidence:
        """What all evidence adds up to. Errors are exact and the scheme's own, as in order_evidence."""
        findings = [Finding(problem, Weight.REFUTES, Kind.PREMISE) for problem in self.problems]
        for level in self.levels:
            if level.problem:
                findings.append(Finding(f"{level.steps} steps: {level.problem}", Weight.FORBIDS, Kind.LEVELS))
        findings += [*self._limits(), *self._orders()]
        if self.open:
            text = f"not settled at {int(self.steps[-1])} steps: {', '.join(self.open)}"
            findings.append(Finding(text, Weight.FORBIDS, Kind.ORDER))
        covered = (f"t from {self.t_start:g} to {self.t_start - self.span:g}, a score that is not affine",)
        return Evidence(
            self.expected,
            self.proven,
            tuple(findings),
            self.measured,
            covered=covered,
            advice="" if not self.open else f"run up to about {2 * int(self.steps[-1])} steps",
        )

    def _limits(self) -> list[Finding]:
        name, value, uncertainty = self.limit or ("", 0.0, 1.0)
        if abs(value) <= SURE * uncertainty:
            return []
        weight = Weight.REFUTES if abs(value) > CERTAIN * uncertainty and self.is_resolved else Weight.OPPOSES
        text = f"as h -> 0 the error of E {name} tends to {value:+.2e} +- {uncertainty:.0e}, not to 0"
        return [Finding(text, weight, Kind.LIMIT)]

    def _orders(self) -> list[Finding]:
        found = []
        for name, fit in self.settled.items():
            text = f"the order of the error of E {name} is {fit} from {fit.steps[0]} to {fit.steps[1]} steps, "
            weight = Weight.OPPOSES
            if fit.misses(self.expected) and self.is_resolved and fit.steps[1] >= WIDE * fit.steps[0]:
                weight = Weight.REFUTES
            elif fit.reaches(self.expected):
                weight = Weight.SUPPORTS
            elif not fit.misses(self.expected):
                weight = Weight.FORBIDS
            found.append(Finding(text + f"expected {self.expected}", weight, Kind.ORDER))
        return found

    @property
    def is_resolved(self) -> bool:
        """Whether the finest level resolves the dynamics."""
        return self.stiff <= RESOLVED

    def as_dict(self) -> dict[str, Any]:
        """The study for JSON. nan stands for what does not exist."""
        limit = self.limit
        slopes = [np.full(len(self.names), math.nan)]
        for coarse, fine in itertools.pairwise(self.levels):
            ratios = np.divide(coarse.errors, fine.errors, out=np.full(len(self.names), np.nan), where=fine.errors != 0)
            ratios[~(ratios > 0)] = np.nan
            slopes.append(np.log(ratios) / math.log(fine.steps / coarse.steps))
        place = self.names.index("x^2") if "x^2" in self.names else 0
        return {
            "verdict": str(self.verdict),
            "state": str(self.state),
            "reason": self.reason,
            "order": order_entry(self.measured, self.expected, self.proven),
            "fits": {name: asdict(fit) for name, fit in self.fits.items()},
            "limit": None if limit is None else dict(zip(("function", "value", "uncertainty"), limit, strict=True)),
            "levels": [
                {
                    "steps": level.steps,
                    "nfe": level.nfe,
                    "function": self.names[place],
                    "error": float(level.errors[place]),
                    "estimate": float(level.estimates[place]),
                    "slope": float(slope[place]),
                    "weak_errors": {
                        name: {"value": float(value), "estimate": float(estimate), "slope": float(order)}
                        for name, value, estimate, order in zip(
                            self.names, level.errors, level.estimates, slope, strict=True
                        )
                    },
                    "problem": level.problem,
                }
                for level, slope in zip(self.levels, slopes, strict=True)
            ],
        }


def steps_of(scheme: Scheme) -> tuple[int, ...]:
    """The numbers of steps of a study of the scheme."""
    return LINE_STEPS if dimensions_of(scheme) == 1 else STEPS


def study_noise_free(
    scheme: Scheme,
    target: MixtureTarget,
    steps: Sequence[int] | None = None,
    observables: Sequence[Observable] | None = None,
    t_end: float = T_END,
    grid: str = "uniform",
    accuracy: float = ACCURACY,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    expected: int | None = None,
    carry: Carrier = carried_law,
) -> NoiseFreeStudy:
    """The weak errors of `scheme` on a one-dimensional mixture from t = T to t_end at every number of steps.

    steps: default `steps_of`; progress wraps them, to show how many are done; expected: the order to hold it to,
    default the scheme's own, or 1; carry: as for `noise_free_errors`. Raises ValueError as `noise_free_errors` does,
    and without steps.
    """
    steps = steps_of(scheme) if steps is None else steps
    if not steps:
        raise ValueError("no numbers of steps; give at least one, and four for an order")
    params = target.params
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges says so in its level's problem
        done = completed(
            lambda count: noise_free_errors(
                scheme, target, time_grid(grid, count, params, t_end), observables, accuracy, carry
            ),
            steps,
            progress,
        )
    levels = tuple(done.values())
    claim = claim_of(scheme, params, expected, is_graded(grid))
    finest = time_grid(grid, steps[-1], params, t_end)
    stiff = stiffness(scheme.splitting.whole, target.gaussians, finest)
    span = params.T - t_end
    return NoiseFreeStudy(scheme.name, claim.expected, span, levels, claim.problems, claim.proven, stiff, params.T)

"""Weak errors without sampling: for one data dimension the law of a sampler on a nonlinear target is computed.

Phase space (x, m) is then a plane. Between evaluations of the score a scheme is a segment u <- P u + K s(u, t) + xi,
xi ~ N(0, Q) (integrators.compiled), so a segment moves the points of a law by g(u) = P u + K s(u, t) and, if it has
noise, spreads them: the next density is

    q'(y) = int q(u) N(y; g(u), Q) du,      its Fourier transform
    phi'(k) = exp(-k.Q k / 2) int q(u) exp(-i k.g(u)) du.

The start is p_T, a mixture of Gaussians; the score of a mixture is analytic, and Gaussian noise keeps a density so,
with Gaussian tails. For such functions the trapezoid rule on a lattice is exact but for the content of the integrand
beyond the lattice's frequency, which falls exponentially with the number of nodes (Trefethen and Weideman 2014, doi
10.1137/130932132). So both integrals are plain sums, with no interpolation:

    law       points u_j, the nodes of a lattice, with weights w_j = q(u_j) |cell|, carried along by g
    spreading phi'(k) = exp(-k.Q k / 2) sum_j w_j exp(-i k.g(u_j)) on a lattice of frequencies (two matrix products),
              then one FFT gives q' at the nodes of a new lattice
    answer    E f(u_N) = sum_j w_j f(u_j)

Points without noise are carried on, without a new lattice, until noise spreads them; for a deterministic scheme that is
to the end. Each lattice is laid in the frame of its own law: origin and axes from the mean and the Cholesky factor of
the covariance, its box around all points with the reach of their noise, and its frequencies as far as phi' goes. So a
law that shrinks, turns, splits in two or spreads without bound under an unstable scheme always fits its lattice.

Nothing depends on a guess: a `Resolution` says below which size weights and frequencies are dropped and by how much the
nodes are closer than the density needs, and a run is repeated at finer ones until its answers move by less than the
accuracy asked for. The last movement, the error of the coarser run, is the estimate that every number comes with. A
law that no lattice resolves (a deterministic step that folds the plane, a law that overflows) is reported so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from ..integrators.compiled import compile_run, noise_factor
from ..integrators.grids import check_grid, time_grid
from ..integrators.threads import one_thread
from ..theory.scheme import Scheme
from .algebra import Array
from .extrapolation import extrapolate
from .order import MARGIN, SURE, T_END, Fit, Verdict, fit_order, judged

if TYPE_CHECKING:  # torch takes seconds to import
    from .mixture import MixtureTarget

STEPS = (25, 50, 100, 200, 400)
ACCURACY = 1e-7


# --- Test functions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Observable:
    """A test function f: `function` maps x and m, float64 arrays of one shape, to f(x, m) of that shape.

    It should be smooth, ideally entire, on the scale of the law's modes, and grow like a polynomial; what it costs if
    it is not shows in the estimates.
    """

    name: str
    function: Callable[[Array, Array], Array]


OBSERVABLES = (
    Observable("x", lambda x, _: x),
    Observable("x^2", lambda x, _: x**2),
    Observable("x^3", lambda x, _: x**3),
    Observable("x^4", lambda x, _: x**4),
    Observable("m", lambda _, m: m),
    Observable("x m", lambda x, m: x * m),
    Observable("m^2", lambda _, m: m**2),
    Observable("cos 2x", lambda x, _: np.cos(2 * x)),
    Observable("mode x > 0", lambda x, _: ndtr(x / 0.25)),
)

# Gauss-Hermite nodes a coordinate: exact for polynomials, and far more than cosines and smooth steps need. The smaller
# rule measures the larger one's error, for functions that need more.
_NODES, _FEWER_NODES = 96, 64


def expectation(observables: Sequence[Observable], target: MixtureTarget, t: float) -> tuple[Array, Array]:
    """The exact E f under p_t, (F,), and an estimate of its error, (F,): Gauss-Hermite quadrature in each component."""
    weights, means, covs = (np.asarray(a) for a in target.components(t))

    def quadrature(count: int) -> Array:
        nodes, mass = np.polynomial.hermite_e.hermegauss(count)
        grid = np.stack(np.meshgrid(nodes, nodes)).reshape(2, -1)
        mass = np.outer(mass, mass).ravel() / (2 * math.pi)
        pairs = zip(weights, means[:, :, 0], noise_factor(covs[:, :, 0, :, 0]), strict=True)
        averages = [w * _averages(observables, mean[:, None] + L @ grid, mass) for w, mean, L in pairs]
        return np.sum(averages, axis=0)

    exact = quadrature(_NODES)
    return exact, np.abs(exact - quadrature(_FEWER_NODES))


def _averages(observables: Sequence[Observable], points: Array, weights: Array) -> Array:
    """sum_j w_j f(u_j) for every test function, (F,)."""
    return np.array([weights @ observable.function(*points) for observable in observables])


# --- The law on a lattice ---------------------------------------------------------------------------------------------


class Cloud(NamedTuple):
    """The law sum_j w_j N(points_j, noise_cov): points (2, J), weights (J,), noise_cov (2, 2)."""

    points: Array
    weights: Array
    noise_cov: Array


@dataclass(frozen=True)
class Resolution:
    """How finely a law is represented.

    tail: weights below this, relative to the largest, are dropped. oversampling: nodes of a lattice, relative to the
    fewest that hold the density's frequencies; the integrand q(u) exp(-i k.g(u)) needs twice as many if g is nearly the
    identity.
    """

    tail: float
    oversampling: float

    @property
    def spectrum(self) -> float:
        """The size of phi below which frequencies are dropped. The ripples that this leaves in the weights are some
        hundred times smaller beside the largest weight, the sum of all frequencies: below `tail`, so that they are
        dropped and no box grows around them."""
        return 10 * self.tail


# Every level has a third more nodes on each axis than the one before. Weights of 1e-15 are rounding.
RESOLUTIONS = tuple(Resolution(max(1e-12 * 10.0**-level, 1e-14), 1.75 * (4 / 3) ** level) for level in range(7))
MOST_NODES = 1 << 18
# Points whose exponentials are computed at once: they stay in a processor's cache.
_BLOCK = 1 << 12


class Unresolved(Exception):
    """A law that no lattice holds; the message says why."""


class TooCoarse(Unresolved):
    """A law that this resolution does not hold, and a finer one may."""


def _spread(clouds: Sequence[Cloud], band: Array, limit: Array, resolution: Resolution) -> tuple[Cloud, Array]:
    """The law of `clouds` as the nodes of one lattice with their weights, and its band.

    band (2,): where the search for the largest frequencies begins, in the law's own frame; limit (2,): how far the
    points tell frequencies apart. Raises Unresolved.
    """
    mass = sum(cloud.weights.sum() for cloud in clouds)
    mean = np.sum([cloud.points @ cloud.weights for cloud in clouds], axis=0) / mass
    centred = [cloud._replace(points=cloud.points - mean[:, None]) for cloud in clouds]
    covs = [(c.points * c.weights) @ c.points.T + c.weights.sum() * c.noise_cov for c in centred]
    cov = np.sum(covs, axis=0) / mass
    try:
        root = np.linalg.cholesky(cov)
    except np.linalg.LinAlgError as error:
        raise Unresolved("its covariance is not positive: the law overflowed or collapsed") from error
    inverse = np.linalg.inv(root)
    framed = [Cloud(inverse @ c.points, c.weights, inverse @ c.noise_cov @ inverse.T) for c in centred]
    low, width = _box(framed, resolution)
    while True:
        counts = np.ceil(band * width / (2 * math.pi)).astype(int)
        nodes = np.ceil(2 * resolution.oversampling * counts).astype(int) + 2
        if not nodes.prod() <= MOST_NODES:
            raise Unresolved(f"a lattice of {nodes[0]} x {nodes[1]} nodes would be needed, more than {MOST_NODES}")
        phi = np.sum([_coefficients(cloud, low, width, counts) for cloud in framed], axis=0)
        size = np.abs(phi)
        sizes = (np.maximum(size[: counts[0] + 1].max(1), size[np.r_[0, -1 : -counts[0] - 1 : -1]].max(1)), size.max(0))
        cut = np.array([profile[-1] > resolution.spectrum for profile in sizes])
        if not cut.any():
            break
        if (cut & (band >= limit)).any():
            raise TooCoarse("its points are too far apart for the frequencies that the score's nonlinearity adds")
        band = np.where(cut, np.minimum(1.25 * band, limit), band)
    spectrum = np.zeros((nodes[0], nodes[1] // 2 + 1), dtype=complex)
    spectrum[: counts[0] + 1, : counts[1] + 1] = phi[: counts[0] + 1]
    spectrum[-counts[0] :, : counts[1] + 1] = phi[counts[0] + 1 :]
    weights = np.fft.irfft2(spectrum, s=tuple(nodes))
    kept = np.nonzero(np.abs(weights) > resolution.tail * np.abs(weights).max())
    steps = width / nodes
    points = root @ np.stack([low[a] + steps[a] * kept[a] for a in range(2)]) + mean[:, None]
    used = np.array([np.flatnonzero(profile > resolution.spectrum)[-1] for profile in sizes])
    return Cloud(points, weights[kept], np.zeros((2, 2))), (1.05 * used + 1) * 2 * math.pi / width


def _box(clouds: Sequence[Cloud], resolution: Resolution) -> tuple[Array, Array]:
    """The lower corner (2,) and widths (2,) of a box around every point, with its noise as far as the tail's weight."""
    least = resolution.tail * max(np.abs(cloud.weights).max() for cloud in clouds)
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for points, weights, noise_cov in clouds:
        deviations = np.sqrt(2 * np.log(np.maximum(np.abs(weights) / least, 1)))
        reach = np.sqrt(np.diagonal(noise_cov))[:, None] * deviations
        low = np.minimum(low, (points - reach).min(1))
        high = np.maximum(high, (points + reach).max(1))
    margin = 0.01 * (high - low)
    return low - margin, high - low + 2 * margin


def _coefficients(cloud: Cloud, low: Array, width: Array, counts: Array) -> Array:
    """phi at the frequencies 2 pi n / width: n_1 = 0 .. counts_1, -counts_1 .. -1 in rows, n_2 = 0 .. counts_2."""
    import torch

    rows, columns = (int(count) + 1 for count in counts)
    products = np.zeros((2 * rows, 2 * columns))
    for first in range(0, cloud.weights.size, _BLOCK):
        block = slice(first, first + _BLOCK)
        phases = -2 * math.pi * (cloud.points[:, block] - low[:, None]) / width[:, None]
        one, two = (_powers(np.exp(1j * phase), count) for phase, count in zip(phases, (rows, columns), strict=True))
        one *= cloud.weights[block]
        left, right = (torch.from_numpy(np.concatenate([z.real, z.imag])) for z in (one, two))
        products += (left @ right.T).numpy()
    (cc, cs), (sc, ss) = (np.hsplit(half, 2) for half in np.vsplit(products, 2))
    positive, negative = cc - ss + 1j * (sc + cs), cc + ss + 1j * (cs - sc)
    k = [2 * math.pi / width[a] * np.arange(counts[a] + 1) for a in range(2)]
    k1 = np.concatenate([k[0], -k[0][:0:-1]])[:, None]
    (q_xx, q_xm), (_, q_mm) = cloud.noise_cov
    damping = np.exp(-(q_xx * k1**2 + 2 * q_xm * k1 * k[1] + q_mm * k[1] ** 2) / 2)
    return damping * np.concatenate([positive, negative[:0:-1]])


def _powers(z: Array, count: int) -> Array:
    """z^0 .. z^(count - 1), (count, J), by doubling: log2(count) roundings in each."""
    powers = np.empty((count, z.size), dtype=complex)
    powers[0] = 1
    done = 1
    while done < count:
        more = min(done, count - done)
        leap = z if done == 1 else powers[done - 1] * z
        np.multiply(powers[:more], leap, out=powers[done : done + more])
        done += more
    return powers


# --- A run ------------------------------------------------------------------------------------------------------------


@one_thread()
def carried_law(scheme: Scheme, target: MixtureTarget, taus: Array, resolution: Resolution) -> Cloud:
    """The law of `scheme` after the steps of the grid `taus` (steps + 1,) from p_t at its first time, as points with
    weights. Raises Unresolved."""
    run = compile_run(scheme, taus, target.params)
    P, _, Q = run.prologue
    components = zip(*(np.asarray(a) for a in target.components(target.params.T - float(taus[0]))), strict=True)
    start = [Cloud(P @ mean, np.array([w]), P @ cov[:, 0, :, 0] @ P.T + Q) for w, mean, cov in components]
    cloud, band = _spread(start, np.full(2, 8.0), np.full(2, np.inf), resolution)
    times, flows = run.updates
    for t, P, K, Q in zip(() if times is None else times.tolist(), *flows, strict=True):
        moved = P @ cloud.points + K @ _score(target, cloud.points, t)
        if not np.isfinite(moved).all():
            raise Unresolved(f"the run overflowed at t = {t:.3g}")
        cloud = Cloud(moved, cloud.weights, Q)
        if Q.any():
            # What the nodes tell apart, less what the density itself fills.
            cloud, band = _spread([cloud], band, (2 * resolution.oversampling - 1) * band, resolution)
    return cloud


def _score(target: MixtureTarget, points: Array, t: float) -> Array:
    """s(u, t) of points (2, J)."""
    import torch

    u = torch.from_numpy(np.ascontiguousarray(points.T))[..., None]
    return target.score(u, t)[..., 0].numpy().T


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
    observables: Sequence[Observable] = OBSERVABLES,
    accuracy: float = ACCURACY,
) -> NoiseFreeErrors:
    """The weak errors of `scheme` on a one-dimensional mixture after the steps of the grid `taus` (steps + 1,).

    From the exact law at the grid's first time; refined until no answer moves by more than `accuracy`, absolutely.

    Raises ValueError on a target of other dimension or diffusion, a sub-flow that is not frozen, a bad grid, no
    observable, or an accuracy below 1e-10, which float64 cannot prove.
    """
    if target.event != (1,):
        raise ValueError(f"target of event shape {target.event}: a law is computed for one data dimension, (1,)")
    if scheme.splitting.diffusion != target.diffusion:
        raise ValueError(
            f"scheme {scheme.name!r} moves under {scheme.splitting.diffusion.name!r} and the target under "
            f"{target.diffusion.name!r}; give the target the scheme's diffusion"
        )
    if not observables:
        raise ValueError("no test function; give at least one Observable")
    if not accuracy >= 1e-10:
        raise ValueError(f"accuracy = {accuracy:g}: an answer can be proved to 1e-10 or more in float64")
    taus = check_grid(taus, target.params)
    exact, estimate = expectation(observables, target, target.params.T - float(taus[-1]))
    computed, moved, nodes, problem = np.full(exact.shape, np.nan), np.full(exact.shape, np.inf), 0, ""
    for resolution in RESOLUTIONS:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported as such
                cloud = carried_law(scheme, target, taus, resolution)
        except TooCoarse as failure:
            problem = f"not resolved: {failure}"
            continue
        except Unresolved as failure:
            problem = f"not resolved: {failure}"
            break
        before, computed, nodes = computed, _averages(observables, *cloud[:2]), cloud.weights.size
        moved = np.where(np.isnan(before), np.inf, np.abs(computed - before))
        worst = float((moved + estimate).max())
        problem = f"not resolved to {accuracy:g}: the last refinement moved an answer by {worst:.1e}"
        if worst <= accuracy:
            problem = ""
            break
    return NoiseFreeErrors(
        scheme.name,
        tuple(observable.name for observable in observables),
        len(taus) - 1,
        scheme.nfe_per_step * (len(taus) - 1),
        computed,
        exact,
        moved + estimate,
        nodes,
        problem,
    )


# --- The order --------------------------------------------------------------------------------------------------------

# A level is fitted where its error is this many times its estimate: a slope is then right to 0.01 or so.
_CLEAR = 100


@dataclass(frozen=True)
class NoiseFreeStudy:
    """The weak errors of a scheme at increasing numbers of steps, their orders and limits. `levels`: coarse to fine.

    expected: the order the scheme is held to; problems: what makes it fail outright; proven: the order that holds for
    every score, None if none was proven.
    """

    name: str
    expected: int
    span: float
    levels: tuple[NoiseFreeErrors, ...]
    problems: tuple[str, ...] = ()
    proven: int | None = None

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
        """The order of one test function's error by the rule of verification.order; None without four neighbouring
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
        return {name: fit for name, fit in self.fits.items() if fit.high - fit.low <= 2 * MARGIN}

    @property
    def measured(self) -> Fit | None:
        """The lowest settled order, else the lowest fitted one: the weak order is that of the worst test function."""
        return min((self.settled or self.fits).values(), key=lambda fit: fit.order, default=None)

    @property
    def limit(self) -> tuple[str, float, float] | None:
        """What the errors tend to as h -> 0: the function whose limit is farthest from 0 in units of its uncertainty,
        the limit and that. None with an unresolved level."""
        if not all(np.isfinite(level.errors).all() and not level.problem for level in self.levels):
            return None
        values, moved = extrapolate(1 / self.steps, [level.errors for level in self.levels])
        # extrapolation magnifies what the errors are known to by less than 9
        uncertainties = np.maximum(moved, 9 * np.max([level.estimates for level in self.levels], axis=0))
        worst = int(np.abs(values / uncertainties).argmax())
        return self.names[worst], float(values[worst]), float(uncertainties[worst])

    @property
    def verdict(self) -> Verdict:
        """PASS where some orders are settled, all of those are as expected, and no error tends to anything but 0."""
        bound = self.expected - MARGIN
        wrong = any(fit.high < bound for fit in self.fits.values())
        biased = self.limit is not None and abs(self.limit[1]) > SURE * self.limit[2]
        if self.problems:
            return Verdict.FAIL
        if wrong or biased:
            # A proof that the order is met outranks slopes and limits: they are not asymptotic yet.
            return Verdict.FAIL if self.proven is None or self.proven < self.expected else Verdict.INCONCLUSIVE
        passing = self.settled and all(fit.low > bound for fit in self.settled.values())
        return Verdict.PASS if passing and self.limit is not None else Verdict.INCONCLUSIVE

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if self.problems:
            return "; ".join(self.problems)
        if unresolved := [f"{level.steps} steps: {level.problem}" for level in self.levels if level.problem]:
            return "; ".join(unresolved)
        name, value, uncertainty = self.limit or ("", 0.0, 1.0)
        parts = []
        if abs(value) > SURE * uncertainty:
            parts.append(f"as h -> 0 the error of E {name} tends to {value:+.2e} +- {uncertainty:.0e}, not to 0")
        if (fit := self.measured) is not None:
            parts.append(f"measured order {fit.order:.2f} in [{fit.low:.2f}, {fit.high:.2f}]")
        if self.proven is not None:
            parts.append(f"proven {self.proven}")
        parts.append(f"expected {self.expected}")
        if moving := [name for name in self.names if name not in self.settled]:
            parts.append(f"not settled at {int(self.steps[-1])} steps: {', '.join(moving)}")
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The study for JSON. nan stands for what does not exist."""
        fit, limit = self.measured, self.limit
        slopes = [np.full(len(self.names), math.nan)]
        for coarse, fine in itertools.pairwise(self.levels):
            ratios = np.divide(coarse.errors, fine.errors, out=np.full(len(self.names), np.nan), where=fine.errors != 0)
            ratios[~(ratios > 0)] = np.nan
            slopes.append(np.log(ratios) / math.log(fine.steps / coarse.steps))
        place = self.names.index("x^2") if "x^2" in self.names else 0
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "order": {
                "expected": self.expected,
                "proven": self.proven,
                "measured": None if fit is None else fit.order,
                "ci": None if fit is None else [fit.low, fit.high],
            },
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


def study_noise_free(
    scheme: Scheme,
    target: MixtureTarget,
    steps: Sequence[int] = STEPS,
    observables: Sequence[Observable] = OBSERVABLES,
    t_end: float = T_END,
    grid: str = "uniform",
    accuracy: float = ACCURACY,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    expected: int | None = None,
) -> NoiseFreeStudy:
    """The weak errors of `scheme` on a one-dimensional mixture from t = T to t_end at every number of steps.

    progress wraps the numbers of steps, to show how many are done; expected: the order to hold it to, default the
    scheme's own, or 1. Raises ValueError as `noise_free_errors` does, and
    without steps.
    """
    if not steps:
        raise ValueError("no numbers of steps; give at least one, and four for an order")
    params = target.params
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges says so in its level's problem
        levels = tuple(
            noise_free_errors(scheme, target, time_grid(grid, count, params, t_end), observables, accuracy)
            for count in progress(steps)
        )
    order = expected if expected is not None else scheme.order or 1
    return NoiseFreeStudy(scheme.name, order, params.T - t_end, levels, *judged(scheme, params, order))

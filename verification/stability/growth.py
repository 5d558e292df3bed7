"""Stability on real grids: how a perturbation grows along the trajectory, and which step makes it grow.

One step. theory.stability stops the clock; here the same test equation is a Gaussian target whose law stands still
(`FrozenTarget`), so that every sampler, word or black box, runs on it as it is, and the frozen dynamics themselves are
the word `S F` with the true flow. A step's rho(R) is compared with max(1, rho(E)), E that of the dynamics.

The trajectory. Neighbouring maps do not commute and are not normal, and p_t moves, so radii decide nothing; norms do.
Let Sigma_k be the covariance of p_t at the k-th time of the grid, and measure a perturbation in the law's own standard
deviations: step k is S_k = Sigma_(k+1)^(-1/2) R_k Sigma_k^(1/2), and

    growth = max over all intervals j <= k of |S_(k-1) ... S_j|_2    (1 for the empty interval).

The exact dynamics V carry p_t along, V Sigma_j V^T + Q = Sigma_k with Q >= 0, so V Sigma_j V^T <= Sigma_k: the
reverse SDE is a contraction in these units over every interval, its flow (Q = 0) an isometry, and the growth of the
exact dynamics is exactly 1, whatever the data. A run is called stable if its growth is at most `FACTOR` = 2: no
perturbation, of any eigendirection, made at any time, is ever more than twice as large beside the law as the exact
dynamics would let it be. (A consistent scheme has growth 1 + O(h), so no smaller factor than some constant above 1 is
met by all; a finite final variance is not enough: it can follow a growth by orders of magnitude.) Errors, rounding and
the network's included, travel by the same maps, and the covariance is sum_k Phi_k Q_k Phi_k^T with Phi_k a product of
them: growth bounds mean and mean square alike.

A scheme that looks back on k evaluations moves (u, q_2, ..., q_k) (exact.moments). A step is judged by rho of this
companion map, and a run by what becomes of the state where the state is perturbed, whatever the memory does on the way:
the (u, u) block of the products, in the law's units. So what is perturbed is a state that the old answers do not know,
and they are extrapolated as if it had come about within a step: with data held, a displacement of the data's own width
then grows as h and as that width, 50-fold at 49 steps near t = 0.006 on CIFAR-10's Gaussian and on a network alike. A
run that begins with it does not grow (tests/verification/stability/test_held_stability.py).

The maximum over the N^2 / 2 intervals is bounded in one sweep: W_k >= Phi Phi^T for every product that ends at k is
kept by W_(k+1) = the smallest ellipse around S W S^T and the unit circle, that is S W S^T with its eigenvalues raised
to at least 1. Where the bound does not settle the question, all intervals are computed.

What breaks. A step is called unstable if rho(R) > `EXCESS` max(1, rho(E)), with `EXCESS` = 1.1: where the dynamics
neither grow nor decay a consistent step exceeds them by O(h^2), which is inaccuracy. The step of largest excess in the
worst interval names the cause: growth, flip or rotation, after the Jury condition that R violates most; or accuracy,
where no step is unstable: the steps contract less, or expand more, than the law does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...integrators.compiled import noise_factor
from ...integrators.grids import check_grid
from ...theory.jury import lyapunov_weights
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ...theory.scheme import Scheme, check_holds_score
from ...theory.splitting import Part, Splitting, whole_of
from ..exact import AffineMap, Spectrum, cifar10_spectrum, step_maps, step_matrices
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array, congruence, determinant, inverse, matmul, raised, spectral_norm, spectral_radius

if TYPE_CHECKING:  # torch takes seconds to import, and only black boxes need it
    from ...integrators.blackbox import Sampler

F = TypeVar("F", bound=Callable[..., Any])

# The growth that a stable run may have.
FACTOR = 2.0
# By how much a stable step's radius may exceed that of the dynamics.
EXCESS = 1.1
MOST_STEPS = 2000
# Steps times eigenvalues in one sweep, as in exact.moments.
_SWEEP = 1 << 18


# --- The test equation ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrozenTarget(GaussianTarget):
    """A Gaussian target whose clock has stopped: its law is `frozen` at every t, mean (n, V), cov (n, n, V)."""

    frozen: GaussianLaw

    def law(self, t: ArrayLike) -> GaussianLaw:
        """The frozen law, for t of shape (...): mean (n, ..., V), cov (n, n, ..., V)."""
        shape = np.shape(t)
        mean, cov = self.frozen
        n, V = mean.shape
        return GaussianLaw(
            np.broadcast_to(mean.reshape(n, *(1 for _ in shape), V), (n, *shape, V)),
            np.broadcast_to(cov.reshape(n, n, *(1 for _ in shape), V), (n, n, *shape, V)),
        )


def stop_clock(variance: ArrayLike, t: ArrayLike, diffusion: Diffusion, params: Parameters) -> FrozenTarget:
    """Data N(0, variance) with the clock stopped at t; both broadcast to (V,). Raises ValueError as GaussianTarget."""
    variance, t = (a.ravel().astype(float) for a in np.broadcast_arrays(variance, t))
    n = diffusion.size
    mean, cov = np.zeros((n, variance.size)), np.empty((n, n, variance.size))
    for time in np.unique(t):
        here = t == time
        cov[..., here] = GaussianTarget.of(0.0, variance[here], diffusion, params).law(time).cov
    return FrozenTarget(np.zeros_like(variance), variance, diffusion, params, GaussianLaw(mean, cov))


def frozen_maps(scheme: Scheme, frozen: FrozenTarget, lengths: ArrayLike) -> AffineMap:
    """The one-step maps of `scheme` on the test equation, batch (H, V), for steps of theta = int beta = `lengths` (H,).

    With the clock stopped a step depends on h and beta through theta alone; beta is taken as constant, and the steps
    stand side by side on one grid, whose differences hold them to about 1e-14 of the longest. Raises ValueError on a
    scheme that holds anything but the last score: its steps depend on when they are, and on those before them.
    """
    check_holds_score(scheme, "what a step does with the clock stopped is")
    edges = np.concatenate([[0.0], np.cumsum(np.atleast_1d(np.asarray(lengths, dtype=float)))])
    beta = 2 * float(edges[-1])
    still = replace(frozen, params=replace(frozen.params, beta_min=beta, beta_max=beta))
    maps = step_maps(scheme, still, edges / beta)
    return AffineMap(*(np.broadcast_to(entry, (*entry.shape[:-1], frozen.variance.size)) for entry in maps))


@cache
def exact_word(splitting: Splitting) -> Scheme:
    """The whole dynamics as one part with its true flow: on a frozen target, the exact frozen dynamics."""
    whole = splitting.whole
    part = Part.of("F", whole)
    word = "S F" if part.sde.uses_score else "F"
    return Scheme(word, Splitting("whole", splitting.diffusion, whole, (part,)), "exact dynamics", flow="true")


def leaving(matrix: Array) -> str:
    """Where the largest eigenvalue of a (d, d) matrix lies: "rotation" of a complex pair, "growth" on the positive
    axis, "flip" on the negative one. (Jury's quantities name the first crossing only; far outside several are < 0.)"""
    if len(matrix) != 2:
        values = np.linalg.eigvals(matrix)
        largest = values[np.abs(values).argmax()]
        return "rotation" if largest.imag else "growth" if largest.real > 0 else "flip"
    trace = float(matrix[0, 0] + matrix[1, 1])
    if trace**2 < 4 * float(determinant(matrix)):
        return "rotation"
    return "growth" if trace > 0 else "flip"


def stationary_cov(step: AffineMap) -> Array:
    """The covariance C = R C R^T + Q that a step leaves as it is, (n, n, ...); nan where rho(R) >= 1 and there is none.

    Of one and two components in closed form, see theory.jury.lyapunov_weights; it loses about (1 / (1 - rho))^2
    roundings.
    """
    R, Q = step.matrix, step.noise_cov
    settles = spectral_radius(R) < 1
    with np.errstate(all="ignore"):
        if len(R) == 1:
            return np.where(settles, Q / ((1 - R) * (1 + R)), np.nan)
        if len(R) > 2:
            return np.where(settles, _solved(np.where(settles, R, 0.0), Q), np.nan)
        weights = lyapunov_weights(R[0, 0] + R[1, 1], determinant(R))
        once = congruence(R, Q)
        cov = (congruence(R, once) + weights.first * once + weights.zeroth * Q) / weights.denominator
    return np.where(settles, cov, np.nan)


def _solved(R: Array, Q: Array) -> Array:
    """C = R C R^T + Q as n^2 linear equations."""
    size = len(R)
    squares = np.eye(size**2) - np.einsum("ij...,kl...->...ikjl", R, R).reshape(*R.shape[2:], size**2, size**2)
    Q = np.broadcast_to(Q, R.shape)
    cov = np.linalg.solve(squares, np.moveaxis(Q, (0, 1), (-2, -1)).reshape(*R.shape[2:], size**2, 1))
    return np.moveaxis(cov.reshape(*R.shape[2:], size, size), (-2, -1), (0, 1))


# --- Growth along a trajectory ----------------------------------------------------------------------------------------


def trajectory_maps(sampler: Scheme | Sampler, target: GaussianTarget, taus: Array) -> Array:
    """R of every step of the grid, (n, n, steps, V): of a word by compiling it (with a memory of k evaluations (nk, nk,
    steps, V)), of a black box by probing it."""
    if isinstance(sampler, Scheme):
        matrix = step_matrices(sampler, target, taus)
    else:
        from ..blackbox import ProbedStep

        probed = ProbedStep(sampler, target)
        steps = zip(taus[:-1].tolist(), np.diff(taus).tolist(), strict=True)
        matrix = np.stack([probed(tau, h).matrix for tau, h in steps], axis=2)
    return np.broadcast_to(matrix, (*matrix.shape[:-1], target.variance.size))


def in_law_units(matrix: Array, target: GaussianTarget, taus: Array) -> Array:
    """S_k = L_(k+1)^-1 R_k L_k with L the lower Cholesky factor of the law's covariance: as with its square root, up to
    rotations, which norms do not see. matrix and result (n, n, steps, V); what a scheme remembers has no units."""
    size = target.diffusion.size
    if len(matrix) == size == 2 and type(target) is GaussianTarget:
        with suppress(ImportError):
            from ..exact import law_units  # compiled

            return law_units(matrix, target, target.params.T - taus)
    cov = target.law(target.params.T - taus).cov
    factor = np.moveaxis(noise_factor(np.moveaxis(cov, (0, 1), (-2, -1))), (-2, -1), (0, 1))
    if len(matrix) == size:
        return matmul(inverse(factor[:, :, 1:]), matmul(matrix, factor[:, :, :-1]))
    scaled = matrix.copy()
    scaled[:, :size] = matmul(matrix[:, :size], factor[:, :, :-1])
    scaled[:size] = matmul(inverse(factor[:, :, 1:]), scaled[:size])
    return scaled


def growth_bound(steps: Array, size: int | None = None) -> Array:
    """An upper bound on the growth of the steps (n, n, N, ...), at least 1, over all intervals; shape (...). Of steps
    that move more than the n = `size` components of a state (default: no more), those with a memory, there is none but
    inf."""
    if size not in (None, len(steps)):
        return np.full(steps.shape[3:], np.inf)
    unit = np.eye(len(steps)).reshape(steps.shape[:2] + (1,) * (steps.ndim - 3))
    W = np.broadcast_to(unit, steps.shape[:2] + steps.shape[3:])
    largest = np.ones(steps.shape[3:])
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(steps.shape[2]):
            W, high = raised(congruence(steps[:, :, k], W))
            largest = np.maximum(largest, high)
    return np.sqrt(np.where(np.isnan(largest), np.inf, largest))


def transient_growth(
    steps: Array, least: float = 1.0, size: int | None = None
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """The growth of the steps (d, d, N, V) over all intervals, exactly, and the interval [first, last) that has it;
    where none exceeds `least` >= 1, `least` and the empty interval. size: the components n of a state, which come
    first; the others, of steps with a memory, are what is remembered; default d.

    Three arrays (V,); N^2 / 2 products for each target.
    """
    V = steps.shape[3]
    growth, first, last = np.full(V, float(least)), np.zeros(V, dtype=np.int64), np.zeros(V, dtype=np.int64)
    for end, norms in enumerate(_norms(steps, size or len(steps)), start=1):
        start = norms.argmax(0)
        found = norms[start, np.arange(V)]
        better = found > growth
        growth, first, last = (
            np.where(better, new, old) for new, old in ((found, growth), (start, first), (np.full(V, end), last))
        )
    return growth, first, last


def grows_beyond(steps: Array, factor: float, size: int | None = None) -> bool:
    """Whether the growth of the steps (d, d, N, V) exceeds the factor over some interval, at some target: as
    `transient_growth`, but known as soon as one does."""
    return any((norms > factor).any() for norms in _norms(steps, size or len(steps)))


def fastest(function: F) -> F:
    """One of the functions above, compiled where there is numba."""
    try:
        from . import compiled_growth
    except ImportError:
        return function
    return getattr(compiled_growth, function.__name__)


def _norms(steps: Array, size: int) -> Iterator[Array]:
    """Of each end of an interval, the norms (starts, V) of the products of the steps up to it; inf on overflow. Where
    steps have a memory, those of their effect on the state, of so many components, of a perturbed state."""
    d = len(steps)
    unit = np.broadcast_to(np.eye(d, size)[:, :, None, None], (d, size, 1, steps.shape[3]))
    products = unit[:, :, :0]
    for k in range(steps.shape[2]):
        with np.errstate(over="ignore", invalid="ignore"):
            products = matmul(steps[:, :, k, None], np.concatenate([products, unit], axis=2))
            yield np.nan_to_num(spectral_norm(products[:size]), nan=np.inf, posinf=np.inf)


@dataclass(frozen=True)
class StepRadius:
    """One step at one data variance: it begins at `t` and has length `h`. Its eigenvalues lie within `radius`, those of
    the dynamics, with the clock stopped where it begins, within `exact_radius`. cause: "growth", "flip" or "rotation",
    as theory.stability names them, where the step is unstable, else "accuracy"."""

    t: float
    h: float
    variance: float
    radius: float
    exact_radius: float
    cause: str

    @property
    def excess(self) -> float:
        """rho(R) / max(1, rho(E)); the step is unstable where it exceeds `EXCESS`."""
        return self.radius / max(1.0, self.exact_radius)


@dataclass(frozen=True)
class Growth:
    """The largest growth of a run over all eigenvalues and intervals: `growth`, in the law's standard deviations, from
    the time `t_from` down to `t_to`, at the data `variance`; `step`, the one of largest excess within that interval."""

    growth: float
    variance: float
    t_from: float
    t_to: float
    step: StepRadius


def worst_growth(
    sampler: Scheme | Sampler,
    params: Parameters,
    taus: Array,
    data: Spectrum | None = None,
    named: Diffusion = PSLD_DIFFUSION,
) -> Growth:
    """The largest growth of a run over the grid `taus` (steps + 1,), on all eigenvalues of `data` (default CIFAR-10's);
    named: the diffusion of a black box.

    Raises ValueError on a bad grid or one of more than `MOST_STEPS`, and as probing does.
    """
    taus = check_grid(taus, params)
    if len(taus) > MOST_STEPS + 1:
        raise ValueError(
            f"steps = {len(taus) - 1}: stability looks at every interval of a run, of {MOST_STEPS} at most"
        )
    variances = (data or cifar10_spectrum()).variances
    diffusion = dynamics(sampler, params, named).diffusion
    size = diffusion.size

    def scaled(chosen: Array) -> Array:
        target = GaussianTarget.of(0.0, chosen, diffusion, params)
        return in_law_units(trajectory_maps(sampler, target, taus), target, taus)

    exactly, bound = fastest(transient_growth), np.full(variances.size, np.inf)
    bound_of = growth_bound if size == 2 else fastest(growth_bound)  # of more components it is dear
    if not (isinstance(sampler, Scheme) and sampler.memory > 1):  # those have none
        block = max(1, _SWEEP // len(taus))
        parts = [variances[i : i + block] for i in range(0, variances.size, block)]
        bound = np.concatenate([bound_of(scaled(part), size) for part in parts])
    best, variance, interval = -np.inf, 0.0, (0, 0)
    order = np.argsort(-bound, kind="stable")
    many = 16 if np.isfinite(bound).any() else 512
    for begin in range(0, order.size, many):  # exactly, in the order of the bounds, until none exceeds what was found
        chosen = order[begin : begin + many]
        if bound[chosen[0]] <= best:
            break
        growth, first, last = exactly(scaled(variances[chosen]), max(best, 1.0), size)
        if growth.max() > best:
            i = int(growth.argmax())
            best, variance, interval = float(growth[i]), float(variances[chosen[i]]), (int(first[i]), int(last[i]))
    first, last = interval
    one = GaussianTarget.of(0.0, variance, diffusion, params)
    step = worst_step(sampler, one, taus[first : max(last, first + 1) + 1])
    times = params.T - taus
    return Growth(best, variance, float(times[first]), float(times[last]), step)


def worst_step(sampler: Scheme | Sampler, target: GaussianTarget, taus: Array) -> StepRadius:
    """The step of largest excess on the grid `taus`, over all variances of the target."""
    R, radius, exact = radii(sampler, target, taus)
    excess = radius / np.maximum(1, exact)
    k, i = np.unravel_index(int(np.nan_to_num(excess, nan=np.inf).argmax()), excess.shape)
    cause = leaving(R[:, :, k, i]) if excess[k, i] > EXCESS else "accuracy"
    return StepRadius(
        float(target.params.T - taus[k]),
        float(taus[k + 1] - taus[k]),
        float(target.variance[i]),
        float(radius[k, i]),
        float(exact[k, i]),
        cause,
    )


def radii(sampler: Scheme | Sampler, target: GaussianTarget, taus: Array) -> tuple[Array, Array, Array]:
    """R of every step, (d, d, steps, V), rho(R) and rho(E), (steps, V): on a moving target the exact word, whose score
    keeps the time of its S, is the dynamics with the clock stopped at each step's beginning."""
    R = trajectory_maps(sampler, target, taus)
    E = step_maps(exact_word(dynamics(sampler, target.params, target.diffusion)), target, taus).matrix
    return R, spectral_radius(R), np.broadcast_to(spectral_radius(E), R.shape[2:])


def dynamics(sampler: Scheme | Sampler, params: Parameters, named: Diffusion = PSLD_DIFFUSION) -> Splitting:
    """The splitting whose whole a sampler follows: a word's own; of a black box the reverse SDE of the diffusion that
    is named, or its probability flow if a step draws no noise. Raises ValueError on a black box that is not a
    step."""
    if isinstance(sampler, Scheme):
        return sampler.splitting
    from ...integrators.blackbox import Kind, kind_of
    from ..blackbox import ProbedStep, check_moves

    if (kind := kind_of(sampler)) is not Kind.STEP:
        raise ValueError(f"a {kind} sampler has no one-step map; stability needs a step(u, tau, h, score)")

    target = GaussianTarget.of(0.0, 1.0, check_moves(named), params)
    return whole_of(named, bool(ProbedStep(sampler, target)(0.0, 0.01).noise_cov.any()))

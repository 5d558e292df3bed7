"""The law of a sampler on a nonlinear target, without sampling: for one data dimension it is carried on lattices.

Phase space (x, m) is then a plane, and position alone a line. Between evaluations of the score a scheme is a segment
u <- P u + K s(u, t) + xi, xi ~ N(0, Q) (integrators.compiled), so a segment moves the points of a law by g(u) = P u + K
s(u, t) and, if it has noise, spreads them: the next density is

    q'(y) = int q(u) N(y; g(u), Q) du,      its Fourier transform
    phi'(k) = exp(-k.Q k / 2) int q(u) exp(-i k.g(u)) du.

The start is p_T, a mixture of Gaussians; the score of a mixture is analytic, and Gaussian noise keeps a density so,
with Gaussian tails. For such functions the trapezoid rule on a lattice is exact but for the content of the integrand
beyond the lattice's frequency, which falls exponentially with the number of nodes (Trefethen and Weideman 2014, doi
10.1137/130932132). So both integrals are plain sums, with no interpolation:

    law       points u_j, the nodes of a lattice, with weights w_j = q(u_j) |cell|, carried along by g
    spreading phi'(k) = exp(-k.Q k / 2) sum_j w_j exp(-i k.g(u_j)) on a lattice of frequencies (exact.
              exponential_sums), then one FFT gives q' at the nodes of a new lattice

Points without noise are carried on, without a new lattice, until noise spreads them; for a deterministic scheme that is
to the end. Each lattice is laid in the frame of its own law: origin and axes from the mean and the Cholesky factor of
the covariance, its box around all points with the reach of their noise, and its frequencies as far as phi' goes. So a
law that shrinks, turns, splits in two or spreads without bound under an unstable scheme always fits its lattice.

A scheme that looks back on k evaluations moves (u_j, u_j-1, ..., u_j-k+1): of its old states the old answers are
functions. Without noise that is as good as u alone, for points keep their past; with noise the law of the k states is
carried, which for one component and k = 2 is a plane again. Three are too many: 70 nodes an axis pass `MOST_NODES`.

Nothing depends on a guess: a `Resolution` says below which size weights and frequencies are dropped and by how much the
nodes are closer than the density needs. A law that no lattice resolves (a deterministic step that folds the plane, a
law that overflows) is reported so (`Unresolved`).

Rounding shows as frequencies. A point that is off by delta_j, in the frame of its law, moves phi'(k) by at most
w_j |k . delta_j|. The nodes are off by 2^-53 |L^-1| |u_j|, L the Cholesky factor, and what g makes of them by

    delta_j = 2^-53 |L^-1| (|P| |u_j| + |K| |s_j| + |g(u_j)|)

and a small factor: far more than 2^-53 if the terms of g cancel, or if a law's mean is far beyond its deviations. Where
g is affine it takes the frame of its law to that of the next as a contraction, since noise only adds to the covariance:
no difference of points grows, and phi' is off by at most |k| D, with D the sum of w_j |delta_j| over the points and all
lattices and segments so far (`rounding`). Nor do frequencies: |k| is that of a larger or the same k before, and those
that a lattice confuses are farther out than its own. So on Gaussian data, where every g is affine, phi' is
exp(-k.k / 2), to the size at which frequencies are dropped and the effect of rounding: its edge is below that size, and
a search for more frequencies begins, which may end as `TooCoarse`, only where rounding exceeds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...integrators.compiled import Run, compile_run
from ...integrators.threads import one_thread
from ...theory.scheme import Scheme
from ..verdicts import Array
from .exponential_sums import exponential_sums, line_sums
from .passes import passes

if TYPE_CHECKING:  # torch takes seconds to import
    from ..targets import MixtureTarget


class Cloud(NamedTuple):
    """The law sum_j w_j N(points_j, noise_cov) in d dimensions, one or two: points (d, J), weights (J,), noise_cov (d,
    d). Where old states are carried too, they come last: the first n of the d are the state's components."""

    points: Array
    weights: Array
    noise_cov: Array


class Move(NamedTuple):
    """What happens to a law: its points (d, J) go to `points` of them, (d', J H), with the size of the terms that they
    are sums of and whether all is finite; then the first of the d' coordinates get noise of covariance `noise_cov`.
    where: for messages. shares (H,): each point's weight, where it goes to H points, neighbours in their order."""

    points: Callable[[Array], tuple[Array, Array, bool]]
    noise_cov: Array
    where: str
    shares: Array = np.ones(1)


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


# Every level has a third more nodes on each axis of a plane than the one before; on a line, where they cost little and
# the flow between two modes is steep, twice as many. Weights of 1e-15 are rounding.
_TAILS = tuple(max(1e-12 * 10.0**-level, 1e-14) for level in range(9))
RESOLUTIONS = tuple(Resolution(tail, 1.75 * (4 / 3) ** level) for level, tail in enumerate(_TAILS[:7]))
LINE_RESOLUTIONS = tuple(Resolution(tail, 1.75 * 2.0**level) for level, tail in enumerate(_TAILS))
MOST_NODES = 1 << 18
MOST_DIMENSIONS = 2


class Unresolved(Exception):
    """A law that no lattice holds; the message says why."""


class TooCoarse(Unresolved):
    """A law that this resolution does not hold, and a finer one may.

    rounding: a bound on what rounding alone adds to the largest frequencies, relative to the size at which they are
    dropped. Where it is below 1 the cause is the score's nonlinearity.
    """

    def __init__(self, rounding: float) -> None:
        cause = "its points are too far apart for the frequencies that the score's nonlinearity adds"
        if rounding >= 1:
            cause += ", or cancel, so that their rounding shows"
        super().__init__(cause)
        self.rounding = rounding


_NOT_POSITIVE = "its covariance is not positive: the law overflowed or collapsed"
# Beside a variance: more than what rounding does to a sum of products of a few hundred thousand points.
_SHIFT = 1e-13
# What products, sums and the score add up to, in roundings of the largest of their terms.
_ROUNDINGS = 4 * 2.0**-53


class Frame(NamedTuple):
    """A law's own coordinates: its mean (d,), a triangular factor of its covariance, (d, d), with its inverse, and the
    law's clouds in them."""

    mean: Array
    root: Array
    inverse: Array
    clouds: list[Cloud]

    def rounding(self, size: Array, weights: Array) -> float:
        """sum_j w_j |delta_j| of points that are rounded by `size` (d, J), weighted (J,)."""
        return _ROUNDINGS * passes(len(size)).mean_length(self.inverse, size, weights)


def _frame(clouds: Sequence[Cloud]) -> Frame:
    """The frame of the law of `clouds`. Raises Unresolved.

    A covariance has lost the digits of a width that is below 1e-8 of the length. So the law is seen again in the frame
    that was found, where it is nearly round, and that frame is corrected (as Cholesky factors of Gram matrices are in
    CholeskyQR2 and its shifted form: Fukaya et al. 2020, doi 10.1137/18M1218212).
    """
    mass = sum(cloud.weights.sum() for cloud in clouds)
    mean = np.sum([cloud.points @ cloud.weights for cloud in clouds], axis=0) / mass
    see, origin, nowhere = passes(len(mean)).see, mean, np.zeros(len(mean))
    less = root = inverse = np.eye(len(mean))
    points, noises = [cloud.points for cloud in clouds], [cloud.noise_cov for cloud in clouds]
    weights, masses = [cloud.weights for cloud in clouds], [cloud.weights.sum() for cloud in clouds]
    for shift in (_SHIFT, 0, 0):
        seen = [see(p, w, origin, less) for p, w in zip(points, weights, strict=True)]
        points, origin = [p for p, _ in seen], nowhere
        noises = [less @ noise @ less.T for noise in noises]
        spreads = [second + m * noise for (_, second), m, noise in zip(seen, masses, noises, strict=True)]
        more, less = _factor(np.sum(spreads, axis=0) / mass, 1 + shift)
        root, inverse = root @ more, less @ inverse
    framed = [
        Cloud(see(p, w, nowhere, less)[0], w, less @ noise @ less.T)
        for p, w, noise in zip(points, weights, noises, strict=True)
    ]
    return Frame(mean, root, inverse, framed)


def _factor(cov: Array, scale: float) -> tuple[Array, Array]:
    """The lower Cholesky factor of a covariance (d, d) with its diagonal times `scale`, and its inverse. Raises
    Unresolved."""
    if len(cov) == 1:
        if not 0 < cov[0, 0] * scale < math.inf:
            raise Unresolved(_NOT_POSITIVE)
        first = np.sqrt(cov * scale)
        return first, 1 / first
    (xx, xm), (_, mm) = cov.tolist()  # so small a matrix is slower in LAPACK
    first = math.sqrt(xx * scale) if xx > 0 else math.nan
    below = xm / first
    left = mm * scale - below * below
    if not 0 < left < math.inf:
        raise Unresolved(_NOT_POSITIVE)
    second = math.sqrt(left)
    more = np.array([[first, 0.0], [below, second]])
    return more, np.array([[1 / first, 0.0], [-below / (first * second), 1 / second]])


def _spread(
    frame: Frame, band: Array, limit: Array, resolution: Resolution, *, rounding: float = 0.0
) -> tuple[Cloud, Array]:
    """The law of a frame as the nodes of one lattice with their weights, and its band.

    band (d,): where the search for the largest frequencies begins, in the law's own frame; limit (d,): how far the
    points tell frequencies apart; rounding: D. Raises Unresolved.
    """
    mean, root, _, framed = frame
    beyond = rounding * float(np.hypot.reduce(band)) / resolution.spectrum
    low, width = _box(framed, resolution)
    while True:
        counts = np.ceil(band * width / (2 * math.pi)).astype(int)
        nodes = np.ceil(2 * resolution.oversampling * counts).astype(int) + 2
        if not nodes.prod() <= MOST_NODES:
            shape = " x ".join(map(str, nodes))
            raise Unresolved(f"a lattice of {shape} nodes would be needed, more than {MOST_NODES}")
        phi = np.sum([_coefficients(cloud, low, width, counts) for cloud in framed], axis=0)
        sizes = _profiles(np.abs(phi), counts)
        cut = np.array([profile[-1] > resolution.spectrum for profile in sizes])
        if not cut.any():
            break
        if (cut & (band >= limit)).any():
            raise TooCoarse(beyond)
        band = np.where(cut, np.minimum(1.25 * band, limit), band)
    spectrum = np.zeros((*nodes[:-1], nodes[-1] // 2 + 1), dtype=complex)
    if len(nodes) == 1:
        spectrum[: counts[0] + 1] = phi
    else:
        spectrum[: counts[0] + 1, : counts[1] + 1] = phi[: counts[0] + 1]
        spectrum[-counts[0] :, : counts[1] + 1] = phi[counts[0] + 1 :]
    weights = np.fft.irfftn(spectrum, s=tuple(nodes), axes=tuple(range(len(nodes))))
    kept = np.nonzero(np.abs(weights) > resolution.tail * np.abs(weights).max())
    steps = width / nodes
    points = root @ np.stack([low[a] + steps[a] * kept[a] for a in range(len(nodes))]) + mean[:, None]
    used = np.array([np.flatnonzero(profile > resolution.spectrum)[-1] for profile in sizes])
    return Cloud(points, weights[kept], np.zeros(root.shape)), (1.05 * used + 1) * 2 * math.pi / width


def _profiles(size: Array, counts: Array) -> tuple[Array, ...]:
    """The largest |phi| of every |n_1| = 0 .. counts_1, and of every n_2."""
    if len(counts) == 1:
        return (size,)
    return np.maximum(size[: counts[0] + 1].max(1), size[np.r_[0, -1 : -counts[0] - 1 : -1]].max(1)), size.max(0)


def _box(clouds: Sequence[Cloud], resolution: Resolution) -> tuple[Array, Array]:
    """The lower corner (d,) and widths (d,) of a box around every point, with its noise as far as the tail's weight."""
    least = resolution.tail * max(np.abs(cloud.weights).max() for cloud in clouds)
    low, high = (np.full(len(clouds[0].points), end) for end in (np.inf, -np.inf))
    for points, weights, noise_cov in clouds:
        deviations = np.sqrt(2 * np.log(np.maximum(np.abs(weights) / least, 1)))
        reach = np.sqrt(np.maximum(np.diagonal(noise_cov), 0))[:, None] * deviations  # 0 may round to below it
        low = np.minimum(low, (points - reach).min(1))
        high = np.maximum(high, (points + reach).max(1))
    margin = 0.01 * (high - low)
    return low - margin, high - low + 2 * margin


def _coefficients(cloud: Cloud, low: Array, width: Array, counts: Array) -> NDArray[np.complex128]:
    """phi at the frequencies 2 pi n / width: n_1 = 0 .. counts_1, -counts_1 .. -1 in rows, n_2 = 0 .. counts_2; on a
    line n_1 = 0 .. counts_1."""
    phases = -2 * math.pi * (cloud.points - low[:, None]) / width[:, None]
    if len(counts) == 1:
        sums = line_sums(phases[0], cloud.weights, int(counts[0]) + 1)
        return np.exp(-cloud.noise_cov[0, 0] * (2 * math.pi / width[0] * np.arange(len(sums))) ** 2 / 2) * sums
    rows, columns = (int(count) + 1 for count in counts)
    sums = exponential_sums(phases, cloud.weights, rows, columns)
    k = [2 * math.pi / width[a] * np.arange(counts[a] + 1) for a in range(2)]
    k1 = np.concatenate([k[0], -k[0][:0:-1]])[:, None]
    (q_xx, q_xm), (_, q_mm) = cloud.noise_cov
    damping = np.exp(-(q_xx * k1**2 + 2 * q_xm * k1 * k[1] + q_mm * k[1] ** 2) / 2)
    return damping * sums


# --- A run ------------------------------------------------------------------------------------------------------------


def dimensions_of(scheme: Scheme) -> int:
    """The dimensions of the lattices that a scheme's laws are carried on."""
    noisy = any(part.sde.has_noise for part in scheme.parts)
    return scheme.splitting.diffusion.size * (scheme.memory if noisy else 1)


def resolutions_of(scheme: Scheme) -> tuple[Resolution, ...]:
    """The resolutions that a scheme's laws are carried at, coarse to fine."""
    return resolutions_on(dimensions_of(scheme))


def resolutions_on(dimensions: int) -> tuple[Resolution, ...]:
    """The resolutions of lattices in so many dimensions."""
    return LINE_RESOLUTIONS if dimensions == 1 else RESOLUTIONS


def check_carried(scheme: Scheme) -> None:
    """Raises ValueError where no lattice holds a scheme's laws: they have more than two dimensions."""
    diffusion = scheme.splitting.diffusion
    if diffusion.size > MOST_DIMENSIONS:
        raise ValueError(
            f"states of {diffusion.name!r} have {diffusion.size} components: even a Gaussian takes 70 nodes an axis, "
            f"and a lattice has {MOST_NODES} at most; sample them (--method monte-carlo)"
        )
    if (dimensions := dimensions_of(scheme)) > MOST_DIMENSIONS:
        raise ValueError(
            f"scheme {scheme.name!r} looks back on {scheme.memory} evaluations: with noise that takes a lattice in "
            f"{dimensions} dimensions, and {MOST_DIMENSIONS} are the most; use exact moments or Monte Carlo (--method "
            "monte-carlo)"
        )


def carried_law(scheme: Scheme, target: MixtureTarget, taus: Array, resolution: Resolution) -> Cloud:
    """The law of `scheme` after the steps of the grid `taus` (steps + 1,) from p_t at its first time, as points with
    weights. Raises Unresolved, and ValueError as `check_carried`."""
    check_carried(scheme)
    run = compile_run(scheme, taus, target.params)
    P, _, Q = run.prologue
    components = zip(*(np.asarray(a) for a in target.components(target.params.T - float(taus[0]))), strict=True)
    start = [Cloud(P @ mean, np.array([w]), P @ cov[:, 0, :, 0] @ P.T + Q) for w, mean, cov in components]
    times, flows, _ = run.updates
    times = [] if times is None else times.tolist()
    target.keep(times)

    def move(k: int, t: float) -> Move:
        return Move(lambda u: _moved(run, target, times[: k + 1], u), flows.noise_cov[k], f"at t = {t:.3g}")

    return carry(start, [move(k, t) for k, t in enumerate(times)], resolution)


@one_thread()
def carry(start: Sequence[Cloud], moves: Sequence[Move], resolution: Resolution) -> Cloud:
    """The law of `start`, which has noise, after the moves, as points with weights. Raises Unresolved."""
    frame = _frame(start)
    d = len(start[0].points)
    cloud, band = _spread(frame, np.full(d, 8.0), np.full(d, np.inf), resolution)
    rounding = frame.rounding(np.abs(cloud.points), cloud.weights)
    last = max((k for k, move in enumerate(moves) if move.noise_cov.any()), default=-1)  # no frame is needed after it
    for k, (points, Q, where, shares) in enumerate(moves):
        moved, size, finite = points(cloud.points)
        if not finite:
            raise Unresolved(f"the run overflowed {where}")
        weights = cloud.weights if len(shares) == 1 else np.outer(cloud.weights, shares).ravel()
        cloud = Cloud(moved, weights, _of_present(Q, len(moved)))
        if k > last:
            continue
        try:
            frame = _frame([cloud])
        except Unresolved:
            if Q.any():
                raise
            rounding = math.inf  # points need no frame, until noise spreads them
            continue
        rounding += frame.rounding(size, cloud.weights)
        if Q.any():
            if len(moved) != len(band):
                band = np.full(len(moved), band.max())
            # What the nodes tell apart, less what the density itself fills.
            limit = (2 * resolution.oversampling - 1) * band
            cloud, band = _spread(frame, band, limit, resolution, rounding=rounding)
            rounding += frame.rounding(np.abs(cloud.points), cloud.weights)
    return cloud


def _moved(run: Run, target: MixtureTarget, times: list[float], points: Array) -> tuple[Array, Array, bool]:
    """Where the last of the updates at `times` takes points (d, J), without its noise, their past behind them; the size
    of the terms that these are sums of; and whether all is finite."""
    k = len(times) - 1
    _, (P, K, _), memory = run.updates
    n = len(P[k])
    u = points[:n]
    score = _score(target, u, times[k])
    if memory is None:
        return passes(n).move(u, score, P[k], K[k])
    moved, size = P[k] @ u + K[k] @ score, np.abs(P[k]) @ np.abs(u) + np.abs(K[k]) @ np.abs(score)
    for j in range(1, len(points) // n):
        old = points[n * j : n * j + n]
        answer = memory.reading[k - j] @ np.concatenate([old, _score(target, old, times[k - j])])
        moved = moved + memory.gains[k, j - 1] @ answer
        size = size + np.abs(memory.gains[k, j - 1]) @ np.abs(answer)
    past = points[: n * memory.gains.shape[1]]
    sizes = np.concatenate([size + np.abs(moved), np.abs(past)])
    return np.concatenate([moved, past]), sizes, bool(np.isfinite(moved).all())


def _of_present(noise_cov: Array, dimensions: int) -> Array:
    """A state's noise as that of the state with its past, which has none."""
    if dimensions == len(noise_cov):
        return noise_cov
    every = np.zeros((dimensions, dimensions))
    every[: len(noise_cov), : len(noise_cov)] = noise_cov
    return every


def _score(target: MixtureTarget, points: Array, t: float) -> Array:
    """s(u, t) of points (n, J), in their shape."""
    if len(points) == 2:
        return target.score_in_plane(points, t)
    import torch

    return target.score(torch.from_numpy(np.ascontiguousarray(points.T)), t).numpy().T

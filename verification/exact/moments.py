"""Exact moments: on Gaussian data a sampler's step is an affine-Gaussian map, and nothing has to be sampled.

With the score s = -Lambda_t (u - mean_t), a segment u <- P u + K s + xi becomes

    u <- (P - K Lambda_t) u + K Lambda_t mean_t + xi,   xi ~ N(0, Q),

and mean and covariance after N steps follow from an n x n recursion in float64, n the components of a state, for all
data variances at once. The maps of many steps are computed in one sweep, and neighbours are composed pairwise, so no
Python loop runs over steps.

A scheme that looks back on k evaluations moves (u, q_2, ..., q_k), its state and the k - 1 old answers: n k components,

    u <- (P - K Lambda) u + K Lambda mean + sum_j K_j q_j + xi,   q_2 <- (X - Y Lambda) u + Y Lambda mean,  q_3 <- q_2

in the same recursion (integrators.held has K_j, X and Y). Before its first evaluations the old answers are 0, and their
gains too.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...integrators.compiled import PartStage, ScoreStage, Segment, compile_run, compile_step, denoising_step, stages
from ...integrators.grids import check_grid
from ...integrators.stages import position_scale
from ...theory.flows import linear_flow
from ...theory.model import Diffusion, LinearSDE, Parameters
from ...theory.scheme import FROZEN_FLOWS, Scheme
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array, components_first, congruence, least_eigenvalue, matmul, matvec

# Steps times targets that one sweep holds: arrays of 2 to 8 MB, large beside what a numpy call costs to make.
_SWEEP = 1 << 18
# From so many on it is worth waiting for compiled code.
_LARGE = 1 << 17


class AffineMap(NamedTuple):
    """u -> R u + b + xi, xi ~ N(0, Q), for a batch: R and Q (d, d, ...), b (d, ...), float64; d = n, or n k components
    of (u, q_2, ..., q_k) with a memory of k evaluations."""

    matrix: Array
    offset: Array
    noise_cov: Array

    def then(self, later: AffineMap) -> AffineMap:
        """This map, followed by `later`."""
        return AffineMap(
            matmul(later.matrix, self.matrix),
            matvec(later.matrix, self.offset) + later.offset,
            congruence(later.matrix, self.noise_cov) + later.noise_cov,
        )

    def apply(self, law: GaussianLaw) -> GaussianLaw:
        """The law of the image of a Gaussian."""
        return GaussianLaw(
            matvec(self.matrix, law.mean) + self.offset, congruence(self.matrix, law.cov) + self.noise_cov
        )


@dataclass(frozen=True)
class Moments:
    """Mean (n, V) and covariance (n, n, V) that a sampler delivers, the exact ones at the same time, and its cost.

    `nfe` counts score evaluations of the whole run. A run that overflowed holds inf or nan: see `diverged`. `rounding`:
    how far a black box departed from an affine map by rounding to float32, relative to the law; 0 in float64.
    """

    computed: GaussianLaw
    exact: GaussianLaw
    nfe: int
    rounding: float = 0.0

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Whether the run overflowed, per target (V,)."""
        finite = np.isfinite(self.computed.mean).all(0) & np.isfinite(self.computed.cov).all((0, 1))
        return np.logical_not(finite)


def step_maps(scheme: Scheme, target: GaussianTarget, taus: Array, past: int = 0) -> AffineMap:
    """The one-step maps of `scheme` on `target` for every step of the grid: batch (steps, V), or (steps, 1) where
    nothing depends on the target. past: so many first steps have been made, and only say when they were."""
    size = target.diffusion.size
    total = _identity((len(taus) - 1 - past, 1), size * scheme.memory)
    if scheme.flow in FROZEN_FLOWS:
        for segment in compile_step(scheme, taus, target.params, past):
            total = total.then(closed_map(segment, target, scheme.memory))
        return total
    since, score = total, None
    for stage in stages(scheme, taus, target.params):
        if isinstance(stage, ScoreStage):
            total, since = total.then(since), _identity((len(taus) - 1, 1), size)
            score = _Score(target, stage.time)
        else:
            since = _unfrozen(stage, scheme, score, target, since)
    return total.then(since)


def step_matrices(scheme: Scheme, target: GaussianTarget, taus: Array) -> Array:
    """`step_maps(scheme, target, taus).matrix`, for those who need no more: a fraction of the work."""
    if scheme.flow not in FROZEN_FLOWS:
        return step_maps(scheme, target, taus).matrix
    first, *others = segments = compile_step(scheme, taus, target.params, 0)
    if (fused := _fused_for(scheme, target)) is not None:
        return fused.step_matrices(segments, target)
    matrix = closed_map(first, target, scheme.memory).matrix
    for segment in others:
        matrix = matmul(closed_map(segment, target, scheme.memory).matrix, matrix)
    return matrix


def check_diffusion(scheme: Scheme, diffusion: Diffusion) -> None:
    """Raises ValueError unless a scheme moves under the `diffusion` of its target."""
    if scheme.splitting.diffusion != diffusion:
        raise ValueError(
            f"scheme {scheme.name!r} moves under {scheme.splitting.diffusion.name!r} and the target under "
            f"{diffusion.name!r}; give the target the scheme's diffusion"
        )


def exact_moments(
    scheme: Scheme,
    target: GaussianTarget,
    taus: Array,
    start: str = "exact",
    denoise: bool = False,
) -> Moments:
    """Mean and covariance of `scheme` on Gaussian data after the steps of the grid `taus` (steps + 1,).

    start: "exact", the law p_t at the grid's first time, or "prior". denoise: whether a last drift-only step follows,
    which is compared with the same exact law and costs one evaluation more. The word's splitting and the target must
    share their diffusion. Raises ValueError otherwise, and on an unknown start.
    """
    check_diffusion(scheme, target.diffusion)
    params = target.params
    taus = check_grid(taus, params)
    t_last = params.T - taus[-1]
    law = _remembering(starting_law(target, float(taus[0]), start), scheme.memory)
    sweep = max(1, _SWEEP // (target.mean.size * scheme.memory**2))
    with np.errstate(over="ignore", invalid="ignore"):  # an unstable scheme overflows: `diverged` tells
        if len(taus) * target.mean.size >= _LARGE and (fused := _fused_for(scheme, target)) is not None:
            law = fused.advance(compile_run(scheme, taus, params), target, law)
        else:
            for first in range(0, len(taus) - 1, sweep):
                past = min(first, scheme.memory - 1)
                law = _compose(step_maps(scheme, target, taus[first - past : first + sweep + 1], past)).apply(law)
        size = target.diffusion.size
        law = GaussianLaw(law.mean[:size], law.cov[:size, :size])
        if denoise:
            law = _compose(closed_map(denoising_step(scheme.splitting, t_last, params), target)).apply(law)
    nfe = scheme.nfe_per_step * (len(taus) - 1) + denoise
    return Moments(law, target.law(t_last), nfe)


def _fused_for(scheme: Scheme, target: GaussianTarget) -> ModuleType | None:
    """The compiled recursion, where it is for this scheme and target, and there is numba."""
    if (
        scheme.flow not in FROZEN_FLOWS
        or scheme.memory != 1
        or type(target) is not GaussianTarget
        or target.diffusion.size != 2
    ):
        return None
    try:
        return import_module(".fused", __package__)
    except ImportError:
        return None


def starting_law(target: GaussianTarget, tau: float, start: str) -> GaussianLaw:
    """What a run starts from: "exact", the law p_t at tau = T - t, or "prior". Raises ValueError on another start."""
    if start not in ("exact", "prior"):
        raise ValueError(f"start {start!r} is unknown; choose exact or prior")
    return target.law(target.params.T - tau) if start == "exact" else target.prior()


def _remembering(law: GaussianLaw, memory: int) -> GaussianLaw:
    """The law of (u, q_2, ..., q_k) before the first evaluation: q = 0."""
    more = len(law.mean) * (memory - 1)
    return GaussianLaw(
        np.pad(law.mean, [(0, more), (0, 0)]), np.pad(law.cov, [(0, more), (0, more), *((0, 0),) * (law.cov.ndim - 2)])
    )


# Roundings of a diagonal entry: two to form a token's map and two to compose it, and two to compose a step with others.
_PER_TOKEN, _PER_STEP = 4, 2
_UNIT = 2.0**-53
# The law's correlation moves little between neighbours of so many times.
_TIMES = 256


def rounding_bound(scheme: Scheme, target: GaussianTarget, taus: Array) -> GaussianLaw:
    """How far float64 may move the moments that `exact_moments` computes over the grid `taus` (steps + 1,): bounds on
    each entry of the mean, (n, V), and of the covariance, (n, n, V), for a run whose law stays near the exact one.
    """
    return rounding_of_steps(_PER_TOKEN * len(scheme.tokens) + _PER_STEP, target, taus)


def rounding_of_steps(roundings: int, target: GaussianTarget, taus: Array) -> GaussianLaw:
    """The same for steps of any kind, of r = `roundings` each that count.

    They grow with the number of steps N, since all steps of a uniform grid round alike:

        |d m_i| <= r N 2^-53 sd_i q max_k,l |m_l| / sd_l      |d C_ij| <= 2 r N 2^-53 sd_i sd_j q
        r = 4 tokens + 2 for a scheme                         q = max_k sqrt(n / least eigenvalue of the correlation)

    with mean m, covariance C and standard deviations sd of the law: its last one on the left and in sd_i sd_j, that
    after step k in the maxima. (Of n = 2 components with correlation rho that eigenvalue is 1 - |rho|.) Proof, to first
    order in 2^-53 and in h:

    The maps of small steps are the identity and terms of order h. So of all roundings those count that are relative to
    a diagonal entry near 1. A token has at most four (its flow two; the product and the sum of a composition), the
    composition of steps two more: the propagator of step k is off by a factor 1 + D, D diagonal, |D| <= r 2^-53. What
    is rounded relative to off-diagonal entries, offsets and noise is smaller by h, and maps far from the identity are
    composed a number of times that does not grow with N. After step k the law is then off by D m and D C + C D. Let R
    be the propagator from there to the end, which takes these to R D m and R D C R^T + its transpose. Since noise only
    adds, R C R^T <= C_N; so for a row i of R the vector a_l = R_il sd_l has a . corr a <= sd_i^2, and
    |a_1| + ... + |a_n| <= sqrt(n) |a| <= q sd_i. That is the mean's bound:
    |sum_l R_il D_l m_l| <= r 2^-53 q sd_i max_l |m_l| / sd_l. And C R^T is the covariance of u_k with u_N, whose
    entries are at most sd_l sd_j: |(R D C R^T)_ij| <= r 2^-53 q sd_i sd_j. The N steps add up.

    A flow's diagonal is right to two roundings where its terms do not cancel, as in every built-in splitting.
    """
    chosen = taus[:: max(1, (len(taus) - 1) // _TIMES)]
    law = target.law(target.params.T - np.append(chosen, taus[-1]))
    sd = np.sqrt(law.cov[range(len(law.cov)), range(len(law.cov))])
    skew = np.sqrt(len(sd) / least_eigenvalue(law.cov / (sd[:, None] * sd))).max(0)
    last = roundings * (len(taus) - 1) * _UNIT * skew * sd[:, -1]
    return GaussianLaw(last * (np.abs(law.mean) / sd).max((0, 1)), 2 * last[:, None] * sd[None, :, -1])


def _identity(batch: tuple[int, ...], size: int) -> AffineMap:
    unit = np.zeros((size, size, *batch))
    unit[range(size), range(size)] = 1
    return AffineMap(unit, np.zeros((size, *batch)), np.zeros((size, size, *batch)))


def closed_map(segment: Segment, target: GaussianTarget, memory: int = 1) -> AffineMap:
    """A segment with the target's affine score put in; of the state and the `memory` - 1 old answers."""
    P, K, Q = (components_first(entry) for entry in segment.flow)
    if segment.time is None:
        return _beside(AffineMap(P, np.zeros(P.shape[1:]), Q), memory)
    law = target.law(segment.time)
    precision = target.precision(law)
    gain = matmul(K, precision)
    now = AffineMap(P - gain, matvec(gain, law.mean), Q)
    if segment.memory is None:
        return _beside(now, memory)
    reading, gains = segment.memory
    n = len(P)
    X, Y = components_first(reading[..., :n]), components_first(reading[..., n:])
    pull = matmul(Y, precision)
    total = _identity(now.offset.shape[1:], n * memory)
    total.noise_cov[:n, :n] = Q
    total.matrix[n:] = 0
    total.matrix[:n, :n], total.offset[:n] = now.matrix, now.offset
    total.matrix[n : 2 * n, :n], total.offset[n : 2 * n] = X - pull, matvec(pull, law.mean)
    for old in range(1, memory):
        total.matrix[:n, n * old : n * old + n] = components_first(gains[:, old - 1])
        if old + 1 < memory:
            for i in range(n):
                total.matrix[n * old + n + i, n * old + i] = 1
    return total


def _beside(now: AffineMap, memory: int) -> AffineMap:
    """A map of the state that leaves the old answers alone."""
    if memory == 1:
        return now
    n = len(now.offset)
    total = _identity(now.offset.shape[1:], n * memory)
    total.matrix[:n, :n], total.offset[:n], total.noise_cov[:n, :n] = now
    return total


class _Score:
    """The target's score at the times of an S, s = -Lambda (u - mean): `precision` (d, d, n, V), `mean` (d, n, V)."""

    def __init__(self, target: GaussianTarget, time: Array) -> None:
        law = target.law(time)
        self.mean, self.precision = law.mean, target.precision(law)


def _unfrozen(
    stage: PartStage, scheme: Scheme, score: _Score | None, target: GaussianTarget, since: AffineMap
) -> AffineMap:
    """The map since the last S, followed by a part that evaluates the score itself, at the frozen time of that S.

    true: the linear SDE du = (A - G Lambda) u + G Lambda mean + noise, exactly.
    midpoint: u_mid = u + theta/2 (A u + G sigma), u <- u + theta (A u_mid + G s(u_mid)) + noise, sigma the score at the
    S.
    """
    if score is None or not stage.part.sde.uses_score:
        flow = stage.part.flow("exact", stage.length, target.params, stage.begin)
        P, _, Q = (components_first(entry) for entry in flow)
        return since.then(AffineMap(P, np.zeros(P.shape[1:]), _scaled(Q, scheme.lambda_s)))
    A, G, D = coefficients_at(stage.part.sde, stage.begin, target.params)
    gain = matmul(G, score.precision)
    pull = matvec(gain, score.mean)
    drift = A - gain
    length = stage.length[:, None]
    unit = np.eye(len(A))[..., None, None]
    if scheme.flow == "true":
        flows = linear_flow(np.moveaxis(drift, (0, 1), (-2, -1)), np.moveaxis(D, (0, 1), (-2, -1)), length)
        E, Phi, Q = (np.moveaxis(entry, (-2, -1), (0, 1)) for entry in flows)
        return since.then(AffineMap(E + unit, matvec(Phi, pull), _scaled(Q, scheme.lambda_s)))
    matrix, on_score, offset, noise_cov = midpoint_rule(stage, score.mean, score.precision, target)
    moved = since.then(AffineMap(matrix, offset, _scaled(noise_cov, scheme.lambda_s)))
    seen = matmul(on_score, score.precision)
    return moved._replace(matrix=moved.matrix - seen, offset=moved.offset + matvec(seen, score.mean))


def midpoint_rule(
    stage: PartStage, mean: Array, precision: Array, target: GaussianTarget
) -> tuple[Array, Array, Array, Array]:
    """A part by the midpoint rule along the score -precision (u - mean), both (d, ..., n, V), in each of n steps:
    u <- P u + K sigma + b + xi, sigma the score where its S was evaluated. P, K, b and Q."""
    A, G, D = coefficients_at(stage.part.sde, stage.begin, target.params)
    length = stage.length[:, None]
    unit = np.eye(len(A))[..., None, None]
    gain = matmul(G, precision)
    drift = A - gain
    matrix = unit + length * matmul(drift, unit + length / 2 * A)
    return matrix, length**2 / 2 * matmul(drift, G), length * matvec(gain, mean), D * length


def coefficients_at(sde: LinearSDE, t: Array, params: Parameters) -> tuple[Array, Array, Array]:
    """A, G and D of an SDE at the times t (n,), for the laws of several targets: (d, d, n or 1, 1)."""
    found = sde.numbers(sde.values(params, t))
    A, G, D = (components_first(entry).reshape(*entry.shape[-2:], -1, 1) for entry in found)
    return A, G, D


def _scaled(Q: Array, lambda_s: float) -> Array:
    scale = np.diag(position_scale(lambda_s, len(Q)))
    return congruence(scale.reshape(scale.shape + (1,) * (Q.ndim - 2)), Q)


def _compose(maps: AffineMap) -> AffineMap:
    """One map for all steps: (steps, V) to (V,), neighbours first."""
    while (count := maps.offset.shape[1]) > 1:
        even = count - count % 2
        pairs = AffineMap(*(entry[..., 0:even:2, :] for entry in maps)).then(
            AffineMap(*(entry[..., 1:even:2, :] for entry in maps))
        )
        rest = (entry[..., even:, :] for entry in maps)
        maps = AffineMap(*(np.concatenate(both, axis=-2) for both in zip(pairs, rest, strict=True)))
    return AffineMap(*(entry[..., 0, :] for entry in maps))

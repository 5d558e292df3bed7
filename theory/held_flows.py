"""The exact flow of a part that holds q, of s = Phi u + Psi q, over the last evaluations: by quadrature, to 1e-13.

Over an interval of forward time that runs down from theta_0 = int_0^t beta, with r in [0, length] what has elapsed,

    du/dr = B(r) u + G Psi(r) q(r) + D^(1/2) dw/dr,   B = A + G Phi at theta_0 - r,   q(r) = sum_j l_j(r) q_j,

l_j the Lagrange polynomials of the times r_j at which the q_j were evaluated (0 or before the interval, on any grid),
as functions of theta or of another clock c (theory.clock), whose differences are integrals of its rate.
So a flow is u <- P u + sum_j K_j q_j + xi, xi ~ N(0, Q). With Y(r) = the propagator from r to the end of the interval,

    Y' = -Y B,  Y(length) = 1:     P = Y(0),    K_j = int Y G Psi l_j dr,    Q = int Y D Y^T dr.

All is one ordinary differential equation, solved by Gauss-Legendre collocation with `NODES` nodes on 1, 2, 4, ...
equal panels, until a doubling changes nothing by more than `TOLERANCE` of the largest entry. The rule has order 2
`NODES`, so what a doubling changed bounds the error that is left, some 2^16 times too large. Where Phi or Psi depend
on time the panels are equal in log theta: near the data Sigma_t^-1 grows as a power of 1 / theta, which is as smooth
there as an exponential. All steps of a run are solved at once.

In theta, where a part's coefficients are constant (the score, the residual), K_j holds integrals of exp(A r) r^j, the
phi functions of exponential integrators (Hochbruck and Ostermann 2010, doi 10.1017/S0962492910000048). Closed forms
where they exist are derived and proven in theory.held_proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .clock import Running
from .frozen import Frozen, NumericKernel
from .model import Diffusion, LinearSDE
from .noise_amount import TAU

Array = NDArray[np.float64]
# tau of intervals by the theta (n,) where they begin.
Amount = Callable[[Array], Array]

# What a doubling of the panels may change, relative to the largest entry.
TOLERANCE = 1e-13
NODES = 8
_MOST_DOUBLINGS = 8
# Intervals that are solved at once: some 10 MB.
BLOCK = 1 << 12


class HeldFlow(NamedTuple):
    """u <- P u + sum_j K_j q_j + xi, xi ~ N(0, Q), of n intervals and d components: propagator (n, d, d), gains (n, k,
    d, d), noise_cov (n, d, d), float64."""

    propagator: Array
    gains: Array
    noise_cov: Array

    def then(self, later: HeldFlow) -> HeldFlow:
        """`later` after this one, with the same q_j."""
        P = later.propagator
        return HeldFlow(
            P @ self.propagator,
            P[:, None] @ self.gains + later.gains,
            P @ self.noise_cov @ np.swapaxes(P, 1, 2) + later.noise_cov,
        )


def held_flow(
    sde: LinearSDE,
    frozen: Frozen,
    diffusion: Diffusion,
    begin: ArrayLike,
    length: ArrayLike,
    times: ArrayLike,
    values: Mapping[str, float],
    clock: Running | None = None,
    amount: Amount | None = None,
) -> HeldFlow:
    """The flows of `sde` over n intervals that run down from theta = `begin` by `length` (n,), > 0.

    times (n, k): when the q_j were evaluated, in theta elapsed since the interval's beginning, so <= 0 for what lies
    behind; nan where there is no such evaluation (its gain is 0), distinct otherwise. values: the parameters' numbers.
    clock: the variable of the polynomial; None: theta. amount: tau of an interval by the theta where it begins, of
    noise that changes with time. Raises ValueError where it cannot be computed to `TOLERANCE`, as
    down to theta = 0, where Sigma_t is singular.
    """
    begin, length, times = (np.asarray(a, dtype=float) for a in (begin, length, times))
    on_panels = partial(_on_panels, sde, frozen, diffusion, values, clock, amount)
    return _in_blocks(on_panels, frozen.name, begin, length, times)


def _in_blocks(
    on_panels: Callable[[Array, Array, Array, int], HeldFlow], name: str, begin: Array, length: Array, times: Array
) -> HeldFlow:
    blocks = [
        solved_on_panels(
            on_panels, f"that holds {name!r}", begin[i : i + BLOCK], length[i : i + BLOCK], times[i : i + BLOCK]
        )
        for i in range(0, max(1, len(begin)), BLOCK)
    ]
    return HeldFlow(*(np.concatenate(entries) for entries in zip(*blocks, strict=True)))


def extrapolated_flow(
    sde: LinearSDE,
    begin: ArrayLike,
    length: ArrayLike,
    times: ArrayLike,
    values: Mapping[str, float],
    clock: Running | None = None,
) -> HeldFlow:
    """Euler with memory: u <- u + int of the polynomial through the drifts q_j = A u_j + G s_j, and the noise D theta.

    begin and length (n,), times (n, k), clock and errors as in `held_flow`.
    """
    begin, length, times = (np.asarray(a, dtype=float) for a in (begin, length, times))
    return _in_blocks(partial(_extrapolated_on_panels, sde, values, clock), "drift", begin, length, times)


def solved_on_panels(
    on_panels: Callable[[Array, Array, Array, int], HeldFlow],
    which: str,
    begin: Array,
    length: Array,
    times: Array,
    cure: str = "hold 'score'",
) -> HeldFlow:
    """With so many panels that twice as many change nothing; `which` flow it is, and a `cure`, for the error."""
    found = on_panels(begin, length, times, 1)
    pending = np.arange(len(begin))
    for doubling in range(1, _MOST_DOUBLINGS + 1):
        finer = on_panels(begin[pending], length[pending], times[pending], 2**doubling)
        moved = _moved(HeldFlow(*(entry[pending] for entry in found)), finer)
        for entry, new in zip(found, finer, strict=True):
            entry[pending] = new
        pending = pending[~(moved <= TOLERANCE)]
        if not pending.size:
            return found
    low = float((begin - length)[pending].min())
    raise ValueError(
        f"the flow {which} could not be computed down to theta = {low:g} to {TOLERANCE:g}; let the run end at a larger "
        f"t, or {cure}"
    )


def _moved(coarse: HeldFlow, fine: HeldFlow) -> Array:
    """By how much two computations of n flows differ, the largest difference of P, the K_j and Q beside the largest
    entry of each, (n,). The K_j are one: an integral of l_j may nearly vanish, and is then right beside the others."""
    differences = []
    with np.errstate(invalid="ignore"):  # what overflows does not settle
        for a, b in zip(coarse, fine, strict=True):
            size, change = (np.abs(entry).reshape(len(a), -1).max(1, initial=0) for entry in (b, a - b))
            differences.append(np.divide(change, size, out=np.where(change == 0, 0.0, np.inf), where=size > 0))
    return np.max(differences, axis=0)


def _on_panels(
    sde: LinearSDE,
    frozen: Frozen,
    diffusion: Diffusion,
    values: Mapping[str, float],
    clock: Running | None,
    amount: Amount | None,
    begin: Array,
    length: Array,
    times: Array,
    panels: int,
) -> HeldFlow:
    """By collocation on so many panels."""
    with np.errstate(all="ignore"):  # down to theta = 0 nothing is finite, and nothing settles
        nodes = nodes_of(begin, length, panels, clock is None and is_steady(frozen, diffusion, values))
        tau = None if amount is None else amount(begin)[:, None]
        drift, gain = (a * nodes.scale for a in drift_and_gain(sde, frozen, diffusion, nodes.left, values, tau))
        noise = _numbers(sde, values, tau)[2] * nodes.scale
        weights = weights_of(clock, begin, times, nodes, panels)  # (n, k, nodes)
        flows, n, together = list[HeldFlow](), len(begin), max(1, BLOCK // max(1, len(begin)))  # so many panels at once
        for first in range(0, panels, together):
            here, count = slice(first * NODES, (first + together) * NODES), min(together, panels - first)
            B, pull, D = (a[:, here].reshape(n * count, NODES, *a.shape[2:]) for a in (drift, gain, noise))
            polynomials = np.moveaxis(weights[..., here].reshape(*times.shape, count, NODES), 1, 2)
            weighted = WEIGHTS[:, None, None] * (Y := to_end(B))
            solved = (
                np.eye(sde.size) + (weighted @ B).sum(1),
                np.einsum("nkm,nmij->nkij", polynomials.reshape(n * count, times.shape[1], NODES), weighted @ pull),
                (weighted @ D @ np.swapaxes(Y, -1, -2)).sum(1),
            )
            flows += map(HeldFlow, *(np.moveaxis(a.reshape(n, count, *a.shape[1:]), 1, 0) for a in solved))
        return reduce(HeldFlow.then, flows)


def _extrapolated_on_panels(
    sde: LinearSDE,
    values: Mapping[str, float],
    clock: Running | None,
    begin: Array,
    length: Array,
    times: Array,
    panels: int,
) -> HeldFlow:
    with np.errstate(all="ignore"):
        nodes = nodes_of(begin, length, panels, clock is None)
        weights = weights_of(clock, begin, times, nodes, panels)
        gains = (weights * (np.tile(WEIGHTS, panels) * nodes.scale[..., 0, 0])[:, None]).sum(-1)
    one = np.eye(sde.size)
    unit = np.tile(one, (len(length), 1, 1))
    return HeldFlow(unit, gains[..., None, None] * one, sde.numbers(values)[2] * length[:, None, None])


class Nodes(NamedTuple):
    """Where flows are computed: theta elapsed and theta left, (n, nodes), and d theta per panel, (n, nodes, 1, 1). What
    is left is not a difference: near the data it would have no digits."""

    elapsed: Array
    left: Array
    scale: Array


def weights_of(clock: Running | None, begin: Array, times: Array, nodes: Nodes, panels: int) -> Array:
    """l_j at the nodes, (n, k, nodes), or where the clock is half way."""
    elapsed = nodes.elapsed
    if clock is None:
        return lagrange(times, elapsed)
    speed = (clock.rate(nodes.left) * nodes.scale[..., 0, 0]).reshape(len(begin), panels, NODES)
    after = np.cumsum(speed @ WEIGHTS, axis=1)
    told = after[:, :, None] - speed @ _TO_END.T  # the clock at the nodes, from the interval's beginning on
    known = _told(clock, begin, times, panels)
    if clock.midpoint:
        half = lagrange(known, after[:, -1:] / 2)
        return np.broadcast_to(half, (*half.shape[:2], elapsed.shape[1]))
    return lagrange(known, told.reshape(elapsed.shape))


def _told(clock: Running, begin: Array, times: Array, panels: int) -> Array:
    """The clock at `times` (n, k), of theta elapsed since `begin`: its rate integrated from there, (n, k)."""
    n, k = times.shape
    start, r = np.repeat(begin, k), times.reshape(-1)
    found = np.where(r == 0, 0.0, np.nan)
    some = np.flatnonzero(np.isfinite(r) & (r != 0))
    if some.size:
        nodes = nodes_of(start[some], r[some], panels, steady=False)
        found[some] = (clock.rate(nodes.left) * nodes.scale[..., 0, 0]) @ np.tile(WEIGHTS, panels)
    return found.reshape(n, k)


def nodes_of(begin: Array, length: Array, panels: int, steady: bool) -> Nodes:
    """Of equal panels, in theta or, unless `steady`, in log theta."""
    nodes = (np.arange(panels)[:, None] + _C).reshape(-1) / panels  # in [0, 1]
    if steady:
        elapsed = length[:, None] * nodes
        left = begin[:, None] - elapsed
        slope = np.broadcast_to(length[:, None], elapsed.shape)
    else:
        rate = -np.log1p(-length / begin)[:, None]
        elapsed, left = -begin[:, None] * np.expm1(-rate * nodes), begin[:, None] * np.exp(-rate * nodes)
        slope = rate * left
    return Nodes(elapsed, left, slope[..., None, None] / panels)


def drift_and_gain(
    sde: LinearSDE,
    frozen: Frozen,
    diffusion: Diffusion,
    theta: Array,
    values: Mapping[str, float],
    tau: Array | None = None,
) -> tuple[Array, Array]:
    """B = A + G Phi and G Psi at theta (...): (..., d, d). tau (...): the noise, where it changes with time."""
    A, G, _ = _numbers(sde, values, tau)
    kernel = NumericKernel(diffusion, theta, values)
    phi, psi = (np.broadcast_to(of, (*theta.shape, *A.shape[-2:])) for of in (frozen.phi(kernel), frozen.psi(kernel)))
    return A + G @ phi, G @ psi


def _numbers(sde: LinearSDE, values: Mapping[str, float], tau: Array | None) -> Array:
    """A, G and D, (3, d, d), or with tau (...), (3, ..., d, d)."""
    return sde.numbers(values if tau is None else {**values, TAU: tau})


def to_end(drift: Array) -> Array:
    """Y at the nodes of one panel, (n, nodes, d, d): Z = Y^T solves Z_i = 1 + sum_j a_ij B_j^T Z_j, a_ij = int_(c_i)^1
    l_j. Where B is not finite Y is nan."""
    n, m, d = drift.shape[:3]
    system = -_TO_END[None, :, :, None, None] * np.swapaxes(drift, -1, -2)[:, None]  # (n, i, j, d, d)
    matrix = np.eye(d * m) + np.swapaxes(system, 2, 3).reshape(n, d * m, d * m)
    bad = ~np.isfinite(matrix).all((1, 2))
    matrix[bad] = np.eye(d * m)
    right = np.broadcast_to(np.tile(np.eye(d), (m, 1)), (n, d * m, d))
    solved = np.asarray(np.linalg.solve(matrix, right), dtype=float).reshape(n, m, d, d)
    solved[bad] = np.nan
    return np.swapaxes(solved, -1, -2)


def is_steady(frozen: Frozen, diffusion: Diffusion, values: Mapping[str, float]) -> bool:
    """Whether Phi and Psi do not depend on time: they are then given without its axis."""
    kernel = NumericKernel(diffusion, np.ones(1), values)
    return np.ndim(frozen.phi(kernel)) == np.ndim(frozen.psi(kernel)) == 2


class Noise(NamedTuple):
    """Noise xi = int Y D^(1/2) dw of `sde`: Y the propagator of its exact flow that holds `frozen`; 1, where only
    increments are added (`frozen` None). drivers: the names of the Brownian motions of the components."""

    sde: LinearSDE
    frozen: Frozen | None
    drivers: tuple[object, ...]


def joint_noise_cov(
    noises: Sequence[Noise], diffusion: Diffusion, begin: ArrayLike, length: ArrayLike, values: Mapping[str, float]
) -> Array:
    """The covariance of several noises over the same n intervals, as in `held_flow`: (n, d noises, d noises).

    E xi_1 xi_2^T = int Y_1 D_12 Y_2^T dr, D_12 = (D_1 D_2)^(1/2) where they share a Brownian motion, else 0. Raises
    ValueError as `held_flow`.
    """
    begin, length = (np.asarray(a, dtype=float) for a in (begin, length))
    found = _joint_on_panels(noises, diffusion, begin, length, values, 1)
    for doubling in range(1, _MOST_DOUBLINGS + 1):
        before, found = found, _joint_on_panels(noises, diffusion, begin, length, values, 2**doubling)
        sd = np.sqrt(np.diagonal(found, axis1=1, axis2=2))
        if (np.abs(found - before) <= TOLERANCE * sd[:, :, None] * sd[:, None, :]).all():
            return found
    low = float((begin - length).min())
    raise ValueError(f"a noise could not be computed to {TOLERANCE:g} down to theta = {low:g}; end at a larger t")


def _joint_on_panels(
    noises: Sequence[Noise],
    diffusion: Diffusion,
    begin: Array,
    length: Array,
    values: Mapping[str, float],
    panels: int,
) -> Array:
    d = diffusion.size
    size = d * len(noises)
    D = np.zeros((size, size))
    for i, first in enumerate(noises):
        for j, second in enumerate(noises):
            for axis in range(d):
                if first.drivers[axis] == second.drivers[axis]:
                    pair = (noise.sde.numbers(values)[2][axis, axis] for noise in (first, second))
                    D[d * i + axis, d * j + axis] = np.sqrt(np.prod(list(pair)))
    elapsed, left, scale = nodes_of(begin, length, panels, steady=False)
    Y, P = np.zeros((*elapsed.shape, size, size)), np.zeros((panels, len(begin), size, size))
    for k, noise in enumerate(noises):
        own = slice(d * k, d * k + d)
        if noise.frozen is None:
            Y[..., own, own] = P[..., own, own] = np.eye(d)
            continue
        drift = drift_and_gain(noise.sde, noise.frozen, diffusion, left, values)[0] * scale
        for panel in range(panels):
            here = slice(panel * NODES, panel * NODES + NODES)
            Y[:, here, own, own] = to_end(drift[:, here])
            P[panel][:, own, own] = np.eye(d) + (WEIGHTS[:, None, None] * Y[:, here, own, own] @ drift[:, here]).sum(1)
    total = np.zeros((len(begin), size, size))
    for panel in range(panels):
        here = slice(panel * NODES, panel * NODES + NODES)
        weighted = WEIGHTS[:, None, None] * scale[:, here] * Y[:, here]
        total = P[panel] @ total @ np.swapaxes(P[panel], 1, 2)
        total += (weighted @ D @ np.swapaxes(Y[:, here], -1, -2)).sum(1)
    return (total + np.swapaxes(total, 1, 2)) / 2


def lagrange(times: Array, elapsed: Array) -> Array:
    """l_j(r): the polynomials that are 1 at the j-th of `times` (n, k) and 0 at the others, at `elapsed` (n, ...): (n,
    k, ...). A time that is nan does not take part, and its polynomial is 0."""
    there = np.isfinite(times)
    behind = (1,) * (elapsed.ndim - 1)
    found = []
    for j in range(times.shape[1]):
        product = np.broadcast_to(there[:, j].reshape(-1, *behind), elapsed.shape).astype(float)
        for i in range(times.shape[1]):
            both = there[:, j] & there[:, i]
            if i == j or not both.any():
                continue
            apart = np.where(both, times[:, j] - times[:, i], 1).reshape(-1, *behind)
            factor = (elapsed - times[:, i].reshape(-1, *behind)) / apart
            product = np.where(both.reshape(-1, *behind), product * factor, product)
        found.append(product)
    return np.stack(found, axis=1)


def _collocation() -> tuple[Array, Array, Array]:
    """Gauss-Legendre nodes and weights on [0, 1], and int_(c_i)^1 l_j of their Lagrange polynomials."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    c = (x + 1) / 2
    # By orthogonality l_j = sum_n (2 n + 1) / 2 w_j L_n(x_j) L_n, and int_x^1 L_n = (L_(n-1) - L_(n+1))(x) / (2 n + 1).
    L = np.polynomial.legendre.legvander(x, NODES)
    integrals = np.empty((NODES, NODES))
    integrals[:, 0] = 1 - x
    for n in range(1, NODES):
        integrals[:, n] = (L[:, n - 1] - L[:, n + 1]) / (2 * n + 1)
    coefficients = (2 * np.arange(NODES)[:, None] + 1) / 2 * w * L[:, :NODES].T
    return c, w / 2, integrals @ coefficients / 2


_C, WEIGHTS, _TO_END = _collocation()

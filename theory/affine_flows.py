"""The exact flow of a part along a score that is affine in the state, as that of Gaussian data is: nothing is frozen.

With s(u, t) = a(t) u + c(t) a part of drift A u + G s follows, r in [0, length] elapsed from theta_0 down,

    du/dr = (A + G a) u + G c + D^(1/2) dw/dr        at theta_0 - r,

a linear SDE whose coefficients change with time: u <- P u + b + xi. `true_flow` takes the score at its own time.
`followed_flow` stands between it and what a scheme does: the scheme holds q of s = Phi u + Psi q (theory.frozen) at the
state that it was evaluated at; here q is asked for at the state as it is, but still at the times of the evaluations,

    s = Phi(t) u + Psi(t) sum_j l_j(t) q(u, t_j).

So what differs between a scheme's flow and `followed_flow` is that the state moves, and between that and `true_flow`
that time does. Both are solved as theory.held_flows solves its own, by the same collocation to the same tolerance, for
a batch of scores at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .clock import Running
from .frozen import Frozen
from .held_flows import (
    BLOCK,
    NODES,
    WEIGHTS,
    Nodes,
    drift_and_gain,
    is_steady,
    nodes_of,
    solved_on_panels,
    to_end,
    weights_of,
)
from .model import Diffusion, LinearSDE

Array = NDArray[np.float64]
# s = slope u + offset at theta = int_0^t beta of shape (n, m): slope (n, m, V, d, d), offset (n, m, V, d), V scores.
AffineScore = Callable[[Array], tuple[Array, Array]]
_Coefficients = Callable[[Nodes, Array, NDArray[np.int64], int], tuple[Array, Array]]


class AffineFlow(NamedTuple):
    """u <- P u + b + xi, xi ~ N(0, Q), of n intervals, V scores and d components: propagator (n, V, d, d), offset (n,
    V, d), noise_cov (n, V, d, d), float64."""

    propagator: Array
    offset: Array
    noise_cov: Array

    def then(self, later: AffineFlow) -> AffineFlow:
        """`later` after this one."""
        P = later.propagator
        return AffineFlow(
            P @ self.propagator,
            (P @ self.offset[..., None])[..., 0] + later.offset,
            P @ self.noise_cov @ np.swapaxes(P, -1, -2) + later.noise_cov,
        )


def true_flow(
    sde: LinearSDE, score: AffineScore, begin: ArrayLike, length: ArrayLike, values: Mapping[str, float]
) -> AffineFlow:
    """The flows of `sde` along the score over n intervals that run down from theta = `begin` by `length` (n,), > 0.

    values: the parameters' numbers. Raises ValueError where it cannot be computed to `held_flows.TOLERANCE`.
    """
    A, G, D = sde.numbers(values)

    def coefficients(nodes: Nodes, _begin: Array, _which: NDArray[np.int64], _panels: int) -> tuple[Array, Array]:
        slope, offset = score(nodes.left)
        return A + G @ slope, offset @ G.T

    return _affine_flow(coefficients, D, False, begin, length)


def followed_flow(
    sde: LinearSDE,
    frozen: Frozen,
    diffusion: Diffusion,
    begin: ArrayLike,
    length: ArrayLike,
    times: ArrayLike,
    values: Mapping[str, float],
    held: tuple[Array, Array],
    clock: Running | None = None,
) -> AffineFlow:
    """The same along what a scheme holds, taken of the state as it is now.

    times (n, k), values and clock as in `held_flows.held_flow`; held: q_j = slope u + offset of the evaluations at
    these times, slope (n, k, V, d, d), offset (n, k, V, d), anything where a time is nan. Raises ValueError as
    `true_flow`.
    """
    times = np.asarray(times, dtype=float)
    there = np.isfinite(times)[..., None, None]
    slopes, offsets = np.where(there[..., None], held[0], 0), np.where(there, held[1], 0)

    def coefficients(nodes: Nodes, begin: Array, which: NDArray[np.int64], panels: int) -> tuple[Array, Array]:
        drift, gain = drift_and_gain(sde, frozen, diffusion, nodes.left, values)  # (n, m, d, d)
        weights = weights_of(clock, begin, times[which], nodes, panels)  # (n, k, m)
        slope = np.einsum("nkm,nkvij->nmvij", weights, slopes[which])
        offset = np.einsum("nkm,nkvi->nmvi", weights, offsets[which])
        return drift[:, :, None] + gain[:, :, None] @ slope, (gain[:, :, None] @ offset[..., None])[..., 0]

    steady = clock is None and is_steady(frozen, diffusion, values)
    return _affine_flow(coefficients, sde.numbers(values)[2], steady, begin, length)


def _affine_flow(
    coefficients: _Coefficients, D: Array, steady: bool, begin: ArrayLike, length: ArrayLike
) -> AffineFlow:
    begin, length = (np.asarray(a, dtype=float) for a in (begin, length))

    def on_panels(begin: Array, length: Array, which: Any, panels: int) -> Any:
        return _on_panels(coefficients, D, steady, begin, length, which, panels)

    which: Any = np.arange(len(begin))
    batch = coefficients(nodes_of(begin[:1], length[:1], 1, steady), begin[:1], which[:1], 1)[0].shape[2]
    size = max(1, BLOCK // batch)
    blocks = [
        solved_on_panels(
            on_panels, "along its score", *(a[i : i + size] for a in (begin, length, which)), cure="take shorter steps"
        )
        for i in range(0, len(begin), size)
    ]
    return AffineFlow(*(np.concatenate(entries) for entries in zip(*blocks, strict=True)))


def _on_panels(
    coefficients: _Coefficients,
    D: Array,
    steady: bool,
    begin: Array,
    length: Array,
    which: NDArray[np.int64],
    panels: int,
) -> AffineFlow:
    """By collocation on so many panels."""
    with np.errstate(all="ignore"):  # down to theta = 0 nothing is finite, and nothing settles
        nodes = nodes_of(begin, length, panels, steady)
        drift, pull = coefficients(nodes, begin, which, panels)
        scale = nodes.scale[:, :, None]
        drift, pull, noise = (np.moveaxis(a, 1, 2) for a in (drift * scale, pull * scale[..., 0], D * scale))
        n, batch, _, d, _ = drift.shape
        total = None
        for panel in range(panels):
            here = slice(panel * NODES, panel * NODES + NODES)
            B = drift[:, :, here]
            Y = to_end(B.reshape(n * batch, NODES, d, d)).reshape(B.shape)
            weighted = WEIGHTS[:, None, None] * Y
            one = AffineFlow(
                np.eye(d) + (weighted @ B).sum(2),
                (weighted @ pull[:, :, here, :, None]).sum(2)[..., 0],
                (weighted @ noise[:, :, here] @ np.swapaxes(Y, -1, -2)).sum(2),
            )
            total = one if total is None else total.then(one)
    if total is None:
        raise ValueError("no panel: a flow is summed over at least one")
    return total

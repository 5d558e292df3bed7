"""Kinds of noise, and their joint law over one piece of a Brownian motion: what integrators.coupling is made of.

A kind is a part's noise xi = int exp(A (b1 - r)) D^1/2 dw(r), or the same with A = 0 where only increments are added.
Over a piece of length theta two kinds are jointly Gaussian,

    E xi_1 xi_2^T = int_0^theta exp(A_1 r) D_12 exp(A_2 r)^T dr,       D_12 = (D_1 D_2)^1/2 where they share w, else 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import expm

from ..theory.frozen import SCORE_HELD, Frozen
from ..theory.held_flows import Noise, held_flow, joint_noise_cov
from ..theory.model import Diffusion, Parameters
from ..theory.parameters import COMPONENTS
from ..theory.scheme import Scheme
from ..theory.splitting import Part, Splitting
from .compiled import Array, noise_factor


class NoiseKind(NamedTuple):
    """A kind of noise: that of `part` followed by `flow`, its components driven by the Brownian motions
    `drivers`. frozen: what the flow holds, where its propagator is then another than the part's own."""

    part: Part
    flow: str
    drivers: tuple[tuple[str, ...], ...]
    frozen: Frozen | None = None

    def drift(self, params: Parameters) -> Array:
        """A of xi = int exp(A (c - r)) D^1/2 dw: the part's own, or 0 where only increments are added."""
        A = self.part.sde.numbers(params.values())[0]
        return A if self.flow == "exact" else np.zeros(A.shape)

    def propagator(self, t: Array, length: Array, diffusion: Diffusion, params: Parameters) -> Array:
        """What carries the noise over theta = length (k,) that runs down from the times t (k,): (k, n, n)."""
        if self.frozen is not None:
            nothing = np.full((len(length), 1), np.nan)
            values = params.values()
            return held_flow(
                self.part.sde, self.frozen, diffusion, params.theta(t, t), length, nothing, values
            ).propagator
        if self.flow == "exact":
            return self.part.flow("exact", length, params).propagator
        return np.broadcast_to(np.eye(diffusion.size), (*length.shape, diffusion.size, diffusion.size))

    @property
    def noise(self) -> Noise:
        """The same for `joint_noise_cov`."""
        held = SCORE_HELD if self.frozen is None else self.frozen
        return Noise(self.part.sde, held if self.flow == "exact" else None, self.drivers)


def kind_of(scheme: Scheme, part: Part) -> NoiseKind:
    """The kind of noise that a part of the scheme's word has."""
    flow = scheme.flow if part.sde.uses_score else "exact"
    held = scheme.frozen if part.sde.uses_score and scheme.frozen != SCORE_HELD else None
    return NoiseKind(part, flow, tuple(_driver(scheme.splitting, part, axis) for axis in range(part.sde.size)), held)


def _driver(splitting: Splitting, part: Part, axis: int) -> tuple[str, ...]:
    sharing = [other.name for other in splitting.parts if other.sde.noisy[axis]]
    own = ("w",) if sharing == [part.name] else (splitting.name, part.name)
    return *own, COMPONENTS[axis]


def joint_factor(kinds: list[NoiseKind], edges: Array, diffusion: Diffusion, params: Parameters) -> Array:
    """The images (pieces, n kinds, n kinds) of standard normals that are the noises of all kinds over the pieces
    between the edges, a lower triangle: the first kind needs the first n only."""
    t = params.T - edges[:-1]
    lengths = params.theta(t, np.diff(edges))
    if any(kind.frozen is not None for kind in kinds):
        noises = [kind.noise for kind in kinds]
        return _cholesky(joint_noise_cov(noises, diffusion, params.theta(t, t), lengths, params.values()))
    if len(kinds) == 1:
        return noise_factor(kinds[0].part.flow(kinds[0].flow, lengths, params).noise_cov)
    size = diffusion.size
    cov = np.zeros((len(lengths), size * len(kinds), size * len(kinds)))
    for i, first in enumerate(kinds):
        own = slice(size * i, size * i + size)
        cov[:, own, own] = first.part.flow(first.flow, lengths, params).noise_cov
        for j, second in enumerate(kinds[:i]):
            other = slice(size * j, size * j + size)
            cov[:, own, other] = _cross_cov(first, second, lengths, params)
            cov[:, other, own] = np.swapaxes(cov[:, own, other], -1, -2)
    return _cholesky(cov)


def _cross_cov(first: NoiseKind, second: NoiseKind, lengths: Array, params: Parameters) -> Array:
    """E xi_1 xi_2^T (k, n, n), from one exponential: X' = A_1 X + X A_2^T, X(0) = D_12, and its integral."""
    (_, _, D1), (_, _, D2) = (kind.part.sde.numbers(params.values()) for kind in (first, second))
    shared = [a == b for a, b in zip(first.drivers, second.drivers, strict=True)]
    size = len(D1)
    square, unit = size * size, np.eye(size)
    generator = np.zeros((square + 1, square + 1))
    generator[:-1, :-1] = np.kron(first.drift(params), unit) + np.kron(unit, second.drift(params))
    generator[:-1, -1] = np.diag(np.sqrt(np.diag(D1) * np.diag(D2)) * shared).reshape(square)
    # scipy's: torch's loses three digits where the norm is neither small nor large
    flow = np.asarray(expm(generator * lengths[:, None, None]), dtype=np.float64)
    return flow[:, :-1, -1].reshape(-1, size, size)


def _cholesky(cov: Array) -> Array:
    """The lower factor of covariances (n, k, k) that may be singular: two kinds of noise over a short piece are almost
    equal. That of the correlations, by eigenvalues, none below 0, and a QR factorisation: it loses nothing to pivots
    that are small but not 0, and what it misses of a singular one is at the rounding of its largest entries, 1."""
    scale = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    unit = np.where(scale > 0, scale, 1)
    values, vectors = np.linalg.eigh(cov / unit[:, :, None] / unit[:, None, :])
    rows = np.sqrt(np.maximum(values, 0))[:, :, None] * np.swapaxes(vectors, 1, 2)
    upper = np.asarray(np.linalg.qr(rows, mode="r"))
    signs = np.where(np.diagonal(upper, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return scale[:, :, None] * np.swapaxes(upper * signs[:, :, None], 1, 2)

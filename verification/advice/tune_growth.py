"""How much a run's perturbations grow, and how that changes with the times of its grid (stability.growth).

The growth of one eigenvalue is the largest singular value sigma of one product of steps, the state's block of
S_(l-1) ... S_f in the law's units, with the unit vectors v and w = that block v / sigma. With p_f = v, p_(k+1) = S_k
p_k and q_l = w, q_k = S_k^T q_(k+1)

    d sigma = sum_(f <= k < l) q_(k+1) . dS_k p_k,

wherever one interval alone is the largest; where two are, it is the derivative of one of them. dS_k are differences
as in tune_derivatives: a step's units belong to its two ends, which its map depends on already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..stability import fastest, in_law_units, transient_growth
from ..targets import GaussianTarget
from ..verdicts import Array
from .tune_derivatives import differences, maps_of


def log_growth(scheme: Scheme, variances: Array, params: Parameters, taus: Array) -> Array:
    """The logarithm of the growth at each of the data `variances` (V,): (V,), inf where the run overflows."""
    return np.log(_Growing(scheme, variances, params, taus).growth)


def log_growth_slope(scheme: Scheme, variances: Array, params: Parameters, taus: Array) -> tuple[Array, Array]:
    """`log_growth`, and its derivatives by the times, (V, steps + 1)."""
    growing = _Growing(scheme, variances, params, taus)
    before, behind = growing.vectors()
    by_tau = np.zeros((len(taus), len(variances)))
    with np.errstate(over="ignore", invalid="ignore"):
        for place, (dS,) in differences(lambda grids: [growing.scaled(grids)], scheme, taus, params):
            felt = place >= 1
            np.add.at(by_tau, place[felt], (behind * (dS @ before[..., None])[..., 0]).sum(-1)[felt])
    return np.log(growing.growth), (by_tau / growing.growth).T


class _Growing:
    """The steps S of a run, (steps, V, d, d), and each eigenvalue's growth (V,) with its interval [first, last)."""

    def __init__(self, scheme: Scheme, variances: Array, params: Parameters, taus: Array) -> None:
        self.scheme, self.size = scheme, scheme.splitting.diffusion.size
        self.target = GaussianTarget.of(0.0, variances, scheme.splitting.diffusion, params)
        self.steps = self.scaled([taus])
        moved = np.moveaxis(self.steps, (-2, -1), (0, 1))
        self.growth, self.first, self.last = fastest(transient_growth)(moved, 1.0, self.size)

    def scaled(self, grids: Sequence[Array]) -> Array:
        """S of all steps of the grids, one after the other, (all steps, V, d, d)."""
        with np.errstate(over="ignore", invalid="ignore"):
            matrix = maps_of(self.scheme, self.target, grids).matrix
            whole = np.broadcast_to(matrix, (*matrix.shape[:-1], len(self.target.variance)))
            parts = np.split(whole, np.cumsum([len(taus) - 1 for taus in grids])[:-1], axis=2)
            scaled = [in_law_units(part, self.target, taus) for part, taus in zip(parts, grids, strict=True)]
        return np.moveaxis(np.concatenate(scaled, axis=2), (0, 1), (-2, -1))

    def inside(self, k: int) -> NDArray[np.bool_]:
        """Whether step k is in the interval, (V, 1)."""
        return ((self.first <= k) & (k < self.last))[:, None]

    def vectors(self) -> tuple[Array, Array]:
        """p_k and q_(k+1) of every step, (steps, V, d); 0 outside the interval."""
        S = self.steps
        steps, V, d, _ = S.shape
        state = np.eye(d, self.size)
        product = np.broadcast_to(state, (V, d, self.size))
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(steps):
                product = np.where(self.inside(k)[..., None], S[k] @ product, product)
            left, _, right = np.linalg.svd(np.nan_to_num(product[:, : self.size], posinf=0.0, neginf=0.0))
            before, behind = np.zeros((steps, V, d)), np.zeros((steps, V, d))
            p, q = right[:, 0] @ state.T, left[:, :, 0] @ state.T
            for k in range(steps):
                before[k] = np.where(self.inside(k), p, 0.0)
                p = np.where(self.inside(k), (S[k] @ p[..., None])[..., 0], p)
            for k in range(steps - 1, -1, -1):
                behind[k] = np.where(self.inside(k), q, 0.0)
                q = np.where(self.inside(k), (q[:, None] @ S[k])[:, 0], q)
        return before, behind

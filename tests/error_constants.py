"""Error constants as whole runs have them: e(h) / h^p, signed, extrapolated to h = 0 by Richardson."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.exact.moments import exact_moments, rounding_bound
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget

Array = NDArray[np.float64]

CONSTANT, LINEAR = Parameters(), Parameters(beta_min=0.1, beta_max=15.9)
BALANCED = Parameters(gamma=0.8, nu=3.0, kappa=0.3, beta_min=1.0, beta_max=6.0)  # no part is small beside another
T_END = 0.1
RICHARDSON = 8 / 3 + 2 + 1 / 3  # the weights of e / h^p at 4 N, 2 N and N steps, their sizes
MEANS, VARIANCES = [0.5, -1.0, 0.3], [0.25, 1.5, 0.04]


def gaussians(
    scheme: Scheme, params: Parameters, means: list[float] = MEANS, variances: list[float] = VARIANCES
) -> GaussianTarget:
    """Data under the scheme's diffusion."""
    return GaussianTarget.of(means, variances, scheme.splitting.diffusion, params)


class Constants(NamedTuple):
    """A measured constant at h = 0, how far its last two estimates are apart, and what rounding may leave of it: mean
    (2, V), cov (2, 2, V)."""

    values: GaussianLaw
    doubts: GaussianLaw
    rounding: GaussianLaw


def measured_constants(
    scheme: Scheme, target: GaussianTarget, order: int, t_end: float = T_END, steps: int = 400, grid: str = "uniform"
) -> Constants:
    """e(h) / h^order from three doublings of the steps, its terms in h and h^2 removed."""
    ratios = []
    for count in (steps, 2 * steps, 4 * steps):
        got = exact_moments(scheme, target, time_grid(grid, count, target.params, t_end))
        h = (target.params.T - t_end) / count
        ratios.append([(a - b) / h**order for a, b in zip(got.computed, got.exact, strict=True)])
    once = [[2 * fine - coarse for coarse, fine in zip(*pair, strict=True)] for pair in (ratios[:2], ratios[1:])]
    twice = [(4 * fine - coarse) / 3 for coarse, fine in zip(*once, strict=True)]
    doubts = [np.abs(a - b) for a, b in zip(twice, once[1], strict=True)]
    finest = time_grid(grid, 4 * steps, target.params, t_end)
    h = (target.params.T - t_end) / (4 * steps)
    rounding = [RICHARDSON * bound / h**order for bound in rounding_bound(scheme, target, finest)]
    return Constants(GaussianLaw(*twice), GaussianLaw(*doubts), GaussianLaw(*rounding))


def sizes(constant: Array) -> Array:
    """The largest entry of each target's vector or matrix, (V,)."""
    return np.abs(constant).max(tuple(range(constant.ndim - 1)))


def disagreement(predicted: GaussianLaw, measured: GaussianLaw) -> float:
    """The largest difference of an entry, relative to the largest entry of its own vector or matrix."""
    return max(
        float((sizes(a - b) / np.maximum(sizes(a), sizes(b))).max()) for a, b in zip(predicted, measured, strict=True)
    )

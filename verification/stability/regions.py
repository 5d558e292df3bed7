"""Regions of stability: by how much a step's radius exceeds that of the dynamics, over its length, time and data.

Of the real steps of a run (verification.stability.growth), which look back where the scheme does.
"""

from __future__ import annotations

import numpy as np

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..targets import GaussianTarget
from ..verdicts import Array, spectral_radius
from .growth import EXCESS, radii, trajectory_maps


def last_step_excess(scheme: Scheme, params: Parameters, h: Array, variance: Array) -> Array:
    """rho(R) / max(1, rho(E)) of the step of length h (H,) that ends at the cut-off, for each data variance (V,): (H,
    V)."""
    target = GaussianTarget.of(0.0, variance, scheme.splitting.diffusion, params)
    span = params.T - params.eps
    steps = [max(1, min(scheme.memory, int(span / length))) for length in h]  # those that it looks back on before it
    grids = [span - length * np.arange(count, -1, -1) for length, count in zip(h, steps, strict=True)]
    return np.stack([_excess(scheme, target, taus)[-1] for taus in grids])


def worst_excess(scheme: Scheme, params: Parameters, h: Array, t: Array, variance: Array) -> Array:
    """rho(R) / max(1, rho(E)) of a step of length h (H,) from the time t (K,), the largest over the data variances: (H,
    K); nan where the step would pass the cut-off. Computed on the uniform grids of step h that end there, and
    interpolated in log t. Where no radius exceeds `EXCESS` the value is the larger of it and 1."""
    target = GaussianTarget.of(0.0, variance, scheme.splitting.diffusion, params)
    span = params.T - params.eps
    result = np.full((h.size, t.size), np.nan)
    for i, length in enumerate(h):
        taus = span - length * np.arange(int(span / length), -1, -1)
        begins = np.log(params.T - taus[:-1])
        excess = _excess(scheme, target, taus).max(-1)
        result[i] = np.interp(np.log(t), begins[::-1], excess[::-1], left=np.nan)
    return result


def _excess(scheme: Scheme, target: GaussianTarget, taus: Array) -> Array:
    radius = spectral_radius(trajectory_maps(scheme, target, taus))
    if (radius <= EXCESS).all():
        return np.maximum(radius, 1)
    return radius / np.maximum(1, radii(scheme, target, taus)[2])

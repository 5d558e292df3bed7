"""The affine map of a sampler on Gaussian data, read off with unit states and unit noises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from weakorder.integrators.compiled import compile_run
from weakorder.integrators.sampler import integrate
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.targets import GaussianTarget


def gaussian_score(target: GaussianTarget) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """The score of a target with one mean and variance, for states (batch, 2, *event)."""

    def score(u: torch.Tensor, t: float) -> torch.Tensor:
        law = target.law(t)
        precision, mean = (
            torch.as_tensor(array[..., 0], dtype=u.dtype, device=u.device)
            for array in (target.precision(law), law.mean)
        )
        return -torch.einsum("ij,bj...->bi...", precision, u - mean.reshape(2, *(1 for _ in u.shape[2:])))

    return score


def probe(scheme: Scheme, target: GaussianTarget, taus: np.ndarray, params: Parameters) -> tuple[np.ndarray, ...]:
    """Read R, b and Q of the sampler's affine map off: run it on zero and unit states, and on zero and unit noises."""
    run = compile_run(scheme, taus, params)
    intervals = 1 + len(run.updates.flow.propagator)
    probes = 3 + 2 * intervals
    states = torch.zeros(probes, 2, dtype=torch.float64)
    states[1, 0] = states[2, 1] = 1

    def noise(interval: int) -> torch.Tensor:
        xi = torch.zeros(probes, 2, dtype=torch.float64)
        row = 3 + 2 * (interval - 1)
        xi[row, 0] = xi[row + 1, 1] = 1
        return xi

    out = integrate(run, gaussian_score(target), states, noise).numpy()
    columns = (out[1:] - out[0]).T
    return columns[:, :2], out[0], columns[:, 2:] @ columns[:, 2:].T

"""Test functions: what a weak error is an error of.

A weak error is E f(u_N) - E f(u) for test functions f of the state u, (x, m) or of any number of components. In units
of the prior's standard deviations, averages over the coordinates of an image or a vector:

    moments   mean_i x_i^a m_i^b, 1 <= a + b <= 4          quantities "mean", "covariance", "third", "fourth"
    Fourier   cos(omega.u + phase), omega, phase fixed     quantity "fourier"
    modes     r_k(u), probability of mixture component k   quantity "modes"

All of them have exact expectations under a mixture of Gaussians N(mu_k, C_k) with weights w_k: the moments by Stein's
recursion E[x f] = mu_x E f + C_xx E f_x + C_xm E f_m, the Fourier functions by exp(i omega.mu - omega^T C omega / 2),
and E r_k = w_k.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...integrators.noise import START
from ...integrators.planes import normals
from ...theory.parameters import COMPONENTS
from ..targets import HALF_RANGE, GaussianTarget
from ..verdicts import Array
from .distances import SEED

if TYPE_CHECKING:
    from ..targets import Target

DEGREES = {1: "mean", 2: "covariance", 3: "third", 4: "fourth"}
Powers = tuple[int, ...]  # of every component
FREQUENCIES = 4
# More modes than this are not told apart by their weights (a law of 512 images has 512).
MOST_MODES = 32
_CHUNK = 64  # components whose moments are computed at once: of images, what a processor's cache holds


@dataclass(frozen=True)
class Functionals:
    """The test functions of a target's states at time t, with their exact expectations.

    names, quantities (F,): what each function is and which quantity it belongs to.
    """

    target: Target
    t: float

    @property
    def powers(self) -> tuple[Powers, ...]:
        """The exponents of the moments."""
        return powers_of(self.target.diffusion.size)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name for each function."""
        moments = [_monomial(powers) for powers in self.powers]
        fourier = [f"fourier {k + 1}" for k in range(FREQUENCIES)]
        return (*moments, *fourier, *(f"mode {k + 1}" for k in range(self._modes)))

    @cached_property
    def quantities(self) -> tuple[str, ...]:
        """The quantity of each function, its degree's for a moment."""
        moments = [DEGREES[sum(powers)] for powers in self.powers]
        return (*moments, *["fourier"] * FREQUENCIES, *["modes"] * self._modes)

    def values(self, u: Tensor) -> Tensor:
        """f(u) of a batch of states: (batch, F), float64."""
        scaled = self.scaled(u)
        components = [_powers(component) for component in scaled.unbind(1)]
        moments = [
            reduce(torch.mul, [component[power] for component, power in zip(components, powers, strict=True)]).mean(1)
            for powers in self.powers
        ]
        omega, phase = self._waves
        fourier = torch.cos(scaled.flatten(1) @ omega.flatten(1).T.to(u.device) + phase.to(u.device))
        columns = [torch.stack(moments, dim=1), fourier]
        if self._modes:
            columns.append(self.target.responsibilities(u, self.t))
        return torch.cat(columns, dim=1)

    def scaled(self, u: Tensor) -> Tensor:
        """States in units of the prior's standard deviations, (batch, n, size), float64."""
        states = u.to(torch.float64).reshape(len(u), len(self.unit), math.prod(self.target.event))
        return states / torch.from_numpy(self.unit).to(u.device)[:, None]

    @cached_property
    def unit(self) -> Array:
        """The prior's standard deviations (n,)."""
        return np.sqrt(self.target.diffusion.prior_variances(self.target.params.values()))

    @cached_property
    def expectations(self) -> Array:
        """E f under p_t, (F,), exactly."""
        moments = np.zeros(len(self.powers))
        fourier = np.zeros(FREQUENCIES)
        omega, phase = (tensor.numpy() for tensor in self._waves)
        for weights, mean, cov, exponents in self._components(omega):
            by_power = gaussian_moments(mean, cov)
            moments += [float(weights @ by_power[power].mean(1)) for power in self.powers]
            angles = np.einsum("kai,jai->kj", mean, omega) + phase
            fourier += weights @ (np.cos(angles) * np.exp(-exponents / 2))
        return np.concatenate([moments, fourier, self.target.weights[: self._modes]])

    @property
    def _modes(self) -> int:
        count = len(self.target.weights)
        return count if 1 < count <= MOST_MODES else 0

    @cached_property
    def _waves(self) -> tuple[Tensor, Tensor]:
        """omega (FREQUENCIES, n, size) of length about 1 to 2 in every dimension, and phases (FREQUENCIES,)."""
        size = math.prod(self.target.event)
        count = len(self.unit)
        drawn = normals(SEED, torch.arange(FREQUENCIES), START, count, (size + 1,)).reshape(-1, count, size + 1)
        lengths = torch.linspace(1, 2, FREQUENCIES, dtype=torch.float64)[:, None, None]
        return drawn[..., :size] * lengths / math.sqrt(size), math.pi / 2 * drawn[:, 0, size]

    def _components(self, omega: Array):
        """Chunks of the Gaussians that p_t is a mixture of, in scaled units: weights (K,), means (K, n, size), each
        coordinate's covariance (K, n, n, size) or (1, n, n, 1), and omega^T C omega (K, FREQUENCIES)."""
        unit, weights = self.unit, self.target.weights
        if hasattr(self.target, "components"):
            _, means, covs = (np.asarray(entry) for entry in self.target.components(self.t))  # type: ignore[attr-defined]
            covs = covs / (unit[:, None, None, None] * unit[:, None])
            exponents = np.einsum("jai,kaibl,jbl->kj", omega, covs, omega, optimize=True)
            yield weights, means / unit[:, None], np.einsum("kaibi->kabi", covs), exponents
            return
        point = GaussianTarget.of(1.0, 0.0, self.target.diffusion, self.target.params).law(self.t)
        cov = (point.cov[..., 0] / np.multiply.outer(unit, unit))[None, ..., None]
        exponents = np.einsum(
            "jai,kabi,jbi->kj", omega, np.broadcast_to(cov, (1, *cov.shape[1:3], omega.shape[2])), omega
        )
        images = self.target.images  # type: ignore[attr-defined]
        for first in range(0, len(images), _CHUNK):
            points = images[first : first + _CHUNK].reshape(-1, omega.shape[2]) / HALF_RANGE - 1
            mean = (point.mean / unit[:, None])[None] * points[:, None]
            yield weights[first : first + _CHUNK], mean, cov, exponents


@cache
def powers_of(size: int) -> tuple[Powers, ...]:
    """The exponents of all monomials of degrees 1 to 4 in `size` components: of two (1, 0), (0, 1), (2, 0), ..."""
    every = itertools.product(range(max(DEGREES) + 1), repeat=size)
    return tuple(sorted((p for p in every if sum(p) in DEGREES), key=lambda p: (sum(p), [-power for power in p])))


def gaussian_moments(mean: Array, cov: Array) -> dict[Powers, Array]:
    """E x^a m^b for a + b <= 4 of Gaussians with mean (K, n, size) and cov (K, n, n, size), by Stein's recursion: (K,
    size)."""
    size = mean.shape[1]
    moments = {(0,) * size: np.ones_like(mean[:, 0])}
    for powers in powers_of(size):
        i = next(axis for axis, power in enumerate(powers) if power)
        rest = _lower(powers, i)
        moments[powers] = mean[:, i] * moments[rest]
        for j, power in enumerate(rest):
            if power:
                moments[powers] = moments[powers] + cov[:, i, j] * power * moments[_lower(rest, j)]
    return moments


def _lower(powers: Powers, axis: int) -> Powers:
    return (*powers[:axis], powers[axis] - 1, *powers[axis + 1 :])


def _monomial(powers: Powers) -> str:
    """x^2m of (2, 1)."""
    names = zip(COMPONENTS, powers, strict=False)
    return "".join("" if power == 0 else name if power == 1 else f"{name}^{power}" for name, power in names)


def _powers(values: Tensor) -> list[Tensor]:
    powers = [torch.ones_like(values)]
    for _ in range(max(DEGREES)):
        powers.append(powers[-1] * values)
    return powers

"""Targets: data whose score under a diffusion is known exactly, for every t, at any state.

A Gaussian target makes every step affine; a real score is not. For data with density p_0 and the exact flow (P, Q) of
the forward SDE the marginal of the state u, (x, m) of PSLD, is

    p_t(u) = E_{x_0} N(u; P (x_0, 0)^T, P diag(0, V) P^T + Q),      V = kappa M of PSLD,

an integral over the data with the perturbation kernel (theory.kernel). It is a finite sum where the data are a mixture
of Gaussians (targets.mixture) or of points, such as real images (targets.empirical); then

    score   s(u, t) = grad log p_t(u) = sum_k r_k(u, t) s_k(u, t),   r_k the probability of component k given u

is exact as well, and p_t can be sampled: choose a component, then draw its Gaussian. The dynamics are linear and act on
every coordinate alike, so mean and covariance of p_t follow from the data's own, whatever else the data are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...theory.model import Diffusion, Parameters
from ..verdicts import Array
from .gaussian import GaussianTarget

if TYPE_CHECKING:  # torch takes seconds to import, and the command line reads the names before it needs a target
    from torch import Tensor


class Target(ABC):
    """Data with an exactly known score under `diffusion` at the parameters `params`.

    name: as in `TARGETS`, or the user's; event: the shape of one data point x_0. States u are (batch, n, *event),
    position first, n the components of the diffusion, and (batch, *event) of one; on any device and of any floating
    dtype. What is computed from them is computed in float64, and results in the state's shape are rounded to its dtype
    at the end. Times t are floats with 0 < t: at t = 0 a component may have no density, which raises ValueError.
    """

    name: str
    event: tuple[int, ...]
    diffusion: Diffusion
    params: Parameters

    @property
    @abstractmethod
    def data_mean(self) -> Array:
        """The mean of x_0, (*event), float64."""

    @property
    @abstractmethod
    def data_variance(self) -> Array:
        """The variance of every coordinate of x_0, (*event), float64."""

    @property
    @abstractmethod
    def weights(self) -> Array:
        """The probabilities of the components, (components,), float64; they sum to 1."""

    @abstractmethod
    def score(self, u: Tensor, t: float) -> Tensor:
        """grad log p_t(u), in u's shape, dtype and device. Raises ValueError on a state or time out of range."""

    def keep(self, times: Sequence[float]) -> None:  # noqa: B027 - nothing is right, only slower
        """Have what scores at these times need ready, where that costs less than at one time after the other."""

    @abstractmethod
    def log_density(self, u: Tensor, t: float) -> Tensor:
        """log p_t(u), (batch,), float64; torch can differentiate it."""

    @abstractmethod
    def responsibilities(self, u: Tensor, t: float) -> Tensor:
        """The probabilities of the components given u_t = u, (batch, components), float64."""

    @abstractmethod
    def sample(self, t: float, numbers: Tensor, seed: int) -> Tensor:
        """Exact draws of p_t, states of float64, for the samples numbered `numbers` (batch,), on its device.

        Draw number n is a function of (seed, n) alone (integrators.noise, interval START: where a run would draw its
        prior state, so a run's own noise is independent of it). The same numbers at another t are other draws of the
        same data and noise, coupled, not independent.
        """

    def moments(self, t: float) -> tuple[Tensor, Tensor]:
        """Mean (n, *event) and covariance (n, n, *event) of p_t, float64: of the n components in every coordinate.

        In closed form, from the data's mean and variance. Covariances across coordinates: see
        `MixtureTarget.covariance`.
        """
        import torch

        law = GaussianTarget(self.data_mean.ravel(), self.data_variance.ravel(), self.diffusion, self.params).law(t)
        mean, cov = torch.from_numpy(law.mean), torch.from_numpy(law.cov)
        size = self.diffusion.size
        return mean.reshape(size, *self.event), cov.reshape(size, size, *self.event)

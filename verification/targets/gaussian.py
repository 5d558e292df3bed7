"""Gaussian data: the target on which every quantity is exact.

Data x_0 ~ N(mu, s2) and the other components at the data, independent: of PSLD the momentum m_0 ~ N(0,
kappa M). The forward SDE is linear, so with its exact flow (P, Q) over theta = int_0^t beta the marginal at every t is
Gaussian,

    mean_t = P (mu, 0)^T,   cov_t = P diag(s2, V) P^T + Q,      V = kappa M of PSLD,

and its score is affine: s(u, t) = -Lambda_t (u - mean_t) with Lambda_t = cov_t^-1.
The perturbation kernel p(u_t | x_0) is the case s2 = 0, mu = x_0 (the momentum marginalised):

    u_t = mean_t x_0 + L_t eps,   L_t L_t^T = cov_t,   eps ~ N(0, I),   L_t lower triangular.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...integrators.compiled import noise_factor
from ...theory.flows import exact_flow
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ..verdicts import Array, components_first, congruence, inverse, matvec

if TYPE_CHECKING:
    from ...integrators.affine import AffineScore

# Beside data of this size the noise, of size 1, is lost to rounding in float64 products.
LARGEST = 1e9
# Times and targets whose scores are kept.
_KEPT = 1 << 18


class GaussianLaw(NamedTuple):
    """A batch of N(mean, cov) of n components, which come first: mean (n, ...), cov (n, n, ...), float64."""

    mean: Array
    cov: Array


@dataclass(frozen=True)
class GaussianTarget:
    """Gaussian data under a diffusion: a batch of means and variances, broadcast to one shape (V,).

    Raises ValueError on a variance that is negative or not finite, or a mean that is not finite.
    """

    mean: Array
    variance: Array
    diffusion: Diffusion
    params: Parameters

    def __post_init__(self) -> None:
        mean, variance = np.broadcast_arrays(np.atleast_1d(self.mean), np.atleast_1d(self.variance))
        for name, values, legal in (
            ("mean", mean, np.abs(mean) <= LARGEST),
            ("variance", variance, (variance >= 0) & (variance <= LARGEST)),
        ):
            values = values.astype(float)
            if values.ndim != 1:
                raise ValueError(f"data {name} has shape {values.shape}; give a number or one axis of numbers")
            if (bad := ~(np.isfinite(values) & legal)).any():
                rule = (
                    f"finite and >= 0, at most {LARGEST:g}"
                    if name == "variance"
                    else f"finite, at most {LARGEST:g} in size"
                )
                raise ValueError(f"data {name} = {values[bad][0]:g}: a {name} is {rule}")
            if not values.size:
                raise ValueError(f"data {name} is empty; give at least one number")
            object.__setattr__(self, name, values)
        if not self.diffusion.forward.has_noise and (self.variance == 0).any():
            raise ValueError(
                f"data variance = 0: under {self.diffusion.name!r} a point mass has no score; it must be > 0"
            )

    @classmethod
    def of(cls, mean: ArrayLike, variance: ArrayLike, diffusion: Diffusion, params: Parameters) -> GaussianTarget:
        """The target of numbers or arrays that broadcast to one axis."""
        return cls(np.asarray(mean, dtype=float), np.asarray(variance, dtype=float), diffusion, params)

    def law(self, t: ArrayLike) -> GaussianLaw:
        """The marginal p_t: for t of shape (...), mean (n, ..., V) and cov (n, n, ..., V)."""
        t = np.asarray(t, dtype=float)
        values = self.params.values()
        flow = exact_flow(self.diffusion.forward)(self.params.theta(t, t), values)
        P, Q = components_first(flow.propagator), components_first(flow.noise_cov)
        size = self.diffusion.size
        centre, start = np.zeros((size, self.mean.size)), np.zeros((size, size, self.mean.size))
        centre[0], start[0, 0] = self.mean, self.variance
        for i, variance in enumerate(self.diffusion.data_variances(values), 1):
            start[i, i] = variance
        batch = (size,) + (1,) * t.ndim + self.mean.shape
        return GaussianLaw(matvec(P, centre.reshape(batch)), congruence(P, start.reshape((size, *batch))) + Q)

    def affine_score(self, t: float) -> tuple[Array, Array]:
        """The score at one time as slope (u - centre): slope (V, n, n), centre (V, 1, n); read only, see `keep`."""
        self.keep([t])
        return self._kept[t][1:]

    def as_score(self) -> AffineScore:
        """The score as samplers take it, which folds it into their tables. Raises ValueError where the batch holds more
        than one law."""
        from ...integrators.affine import AffineScore  # which brings torch

        if self.mean.size != 1:
            raise ValueError(f"a batch of {self.mean.size} Gaussians has as many scores; take one of them")

        def at(t: float) -> tuple[Array, Array]:
            slope, centre = self.affine_score(t)
            return slope[0], centre[0, 0]

        return AffineScore(at)

    def law_at(self, t: float) -> GaussianLaw:
        """`law` at one time; read only, see `keep`."""
        self.keep([t])
        return self._kept[t][0]

    def keep(self, times: Sequence[float]) -> None:
        """Have laws and scores at these times ready: all at once they cost little more than one, and runs at doubling
        numbers of steps come to the same times."""
        times = [t for t in times if t not in self._kept]
        if not times:
            return
        if len(self._kept) + len(times) > _KEPT // self.mean.size:
            self._kept.clear()
        mean, cov = self.law(times)
        with np.errstate(all="ignore"):  # a law without density has no score
            slope = -self.precision(GaussianLaw(mean, cov))
        entries = [np.moveaxis(entry, -2, 0).copy() for entry in (mean, cov)]
        entries += [slope.transpose(2, 3, 0, 1).copy(), mean.transpose(1, 2, 0)[:, :, None].copy()]
        for entry in entries:
            entry.setflags(write=False)
        for t, mean, cov, slope, centre in zip(times, *entries, strict=True):
            self._kept[t] = GaussianLaw(mean, cov), slope, centre

    @cached_property
    def _kept(self) -> dict[float, tuple[GaussianLaw, Array, Array]]:
        return {}

    def prior(self) -> GaussianLaw:
        """What samplers start from: mean (n, V), cov (n, n, V)."""
        cov = np.diag(self.diffusion.prior_variances(self.params.values()))
        size = len(cov)
        return GaussianLaw(np.zeros((size, self.mean.size)), np.repeat(cov[..., None], self.mean.size, axis=-1))

    def precision(self, law: GaussianLaw) -> Array:
        """Lambda_t of a law: the score is -Lambda_t (u - mean_t)."""
        return inverse(law.cov)


class Kernel(NamedTuple):
    """u_t = mean x_0 + L eps at times of shape (...): mean (..., n) and the lower factor L (..., n, n), float64."""

    mean: Array
    factor: Array


def perturbation_kernel(params: Parameters, t: ArrayLike, numerical_eps: float = 0.0) -> Kernel:
    """The kernel p(u_t | x_0) at times t (...), 0 < t <= 1; numerical_eps: added to both variances, in [0, 1)."""
    return _kernel(point(params).law(t), numerical_eps)


@lru_cache(maxsize=1 << 14)
@lru_cache(maxsize=1 << 12)
def kernel_at(
    params: Parameters, t: float, numerical_eps: float = 0.0, diffusion: Diffusion = PSLD_DIFFUSION
) -> Kernel:
    """`perturbation_kernel` of a diffusion at one time, kept: runs at doubling numbers of steps come to the same times.
    Read only."""
    kernel = _kernel(point(params, diffusion).law_at(t), numerical_eps)
    for entry in kernel:
        entry.setflags(write=False)
    return kernel


@lru_cache(maxsize=16)
def point(params: Parameters, diffusion: Diffusion = PSLD_DIFFUSION) -> GaussianTarget:
    """Data that are the number 1: the law that the perturbation kernel is read off."""
    return GaussianTarget.of(1.0, 0.0, diffusion, params)


def _kernel(law: GaussianLaw, numerical_eps: float) -> Kernel:
    cov = np.moveaxis(law.cov[..., 0], (0, 1), (-2, -1))
    return Kernel(
        np.moveaxis(law.mean[..., 0], 0, -1).copy(), noise_factor(cov + numerical_eps * np.eye(len(law.mean)))
    )

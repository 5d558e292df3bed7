"""Mixtures of Gaussians with full covariances: a nonlinear score without an approximation.

Data x_0 ~ sum_k w_k N(mu_k, S_k) in d dimensions. The dynamics act on every coordinate alike, so they commute with the
rotation to the eigenbasis S_k = O_k diag(lambda_k) O_k^T, where component k is d independent pairs (x, m) (or x alone,
or (x, m, a): n numbers), each with the law of a one-dimensional Gaussian target (targets.gaussian) of variance
lambda_ki: mean mean_ki and covariance C_ki, n x n. With the Cholesky factors C_ki = L_ki L_ki^T and the whitened state

    w_ki = L_ki^-1 ((O_k^T u)_i - mean_ki)
    log (w_k N_k(u)) = log w_k - 1/2 sum_i |w_ki|^2 - sum_i log det L_ki - d n/2 log 2 pi =: l_k
    log p_t(u) = log sum_k e^{l_k},   r = softmax(l),   s(u, t) = -sum_k r_k O_k L_k^-T w_k.

The eigenbases are computed once, the factors once per time; no covariance is inverted. Squares of whitened
coordinates do not cancel, the logarithms are shifted by the largest before they are exponentiated, and so the score is
finite and exact for t -> eps and thousands of standard deviations out: a relative error delta of w costs at most
delta |w|^2 in l, so r keeps 9 digits at |w| = 1e3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, reduce
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...integrators.compiled import noise_factor
from ...integrators.noise import START
from ...integrators.planes import normals, shape_of
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ..verdicts import Array
from .gaussian import GaussianLaw, GaussianTarget
from .target import Target

# Elements of a whitened batch that are worked on at once: they stay in a processor's cache.
_BLOCK = 1 << 18
# Dimensions in which machine code is faster than products of matrices.
COMPILED = range(1, 5)
_PROCESSOR = torch.device("cpu")
# Pairs (x, m) whose factors are kept, over all times: a run asks for the same few hundred times in every batch.
_KEPT = 1 << 18


class Factors(NamedTuple):
    """The lower Cholesky factors of n x n covariances C = L L^T (...): `lower`[i][j] = L_ij, j <= i, and log det L.

    What they act on are the n components of states, a tensor each.
    """

    lower: tuple[tuple[Tensor, ...], ...]
    log_det: Tensor

    @classmethod
    def of(cls, cov: Array, t: float) -> Factors:
        """From covariances (n, n, ...). Raises ValueError where one is singular: p_t has no density there."""
        with np.errstate(invalid="ignore"):
            lower = noise_factor(np.moveaxis(cov, (0, 1), (-2, -1)))
        diagonal = np.diagonal(lower, axis1=-2, axis2=-1)
        if not (np.isfinite(lower).all() and (diagonal > 0).all()):
            raise ValueError(f"t = {t:g}: p_t has no density there (a covariance is singular); give a larger t")
        rows = tuple(tuple(_tensor(lower[..., i, j]) for j in range(i + 1)) for i in range(len(cov)))
        return cls(rows, _tensor(np.log(diagonal).sum(-1)))

    def each(self, function: Callable[[Tensor], Tensor]) -> Factors:
        """The factors with a function applied to every tensor."""
        return Factors(tuple(tuple(map(function, row)) for row in self.lower), function(self.log_det))

    def whiten(self, components: Sequence[Tensor]) -> list[Tensor]:
        """L^-1 u."""
        found: list[Tensor] = []
        for row, entry in zip(self.lower, components, strict=True):
            for factor, before in zip(row, found, strict=False):
                entry = entry - factor * before
            found.append(entry / row[-1])
        return found

    def colour(self, components: Sequence[Tensor]) -> list[Tensor]:
        """L u."""
        return [reduce(torch.add, map(torch.mul, row, components)) for row in self.lower]

    def pull(self, components: Sequence[Tensor]) -> list[Tensor]:
        """L^-T u: of a whitened state, minus its score."""
        found = list(components)
        for i in reversed(range(len(found))):
            for j in range(i + 1, len(found)):
                found[i] = found[i] - self.lower[j][i] * found[j]
            found[i] = found[i] / self.lower[i][i]
        return found


def _tensor(entries: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(entries))


def as_components(u: Tensor, size: int, event: tuple[int, ...], t: float) -> Tensor:
    """States of `size` components (batch, n, *event), or (batch, *event) of one, as (batch, n, d), float64.

    Raises ValueError unless u is floating and of such a shape, and t is finite and >= 0.
    """
    shape = shape_of(size, event)
    if not isinstance(u, Tensor) or u.shape[1:] != shape or not u.is_floating_point():
        found = f"of shape {tuple(u.shape)} and {u.dtype}" if isinstance(u, Tensor) else f"of type {type(u).__name__}"
        raise ValueError(f"state {found}: it must be floating, ({', '.join(map(str, ('batch', *shape)))})")
    check_time(t)
    return u.to(torch.float64).reshape(len(u), size, math.prod(event))


def check_time(t: float) -> None:
    """Raises ValueError unless t is finite and >= 0."""
    if not 0 <= t < math.inf:
        raise ValueError(f"t = {t:g}: a time of the diffusion is finite and >= 0")


def normals_and_uniform(seed: int, numbers: Tensor, size: int, components: int = 2) -> tuple[Tensor, Tensor]:
    """Standard normals (batch, components, size) and, independent of them, uniforms (batch,) in [0, 1] of the samples
    numbered `numbers`, from the interval START; a uniform is the normal distribution function of one more element."""
    drawn = normals(seed, numbers, START, components, (size + 1,)).reshape(len(numbers), components, size + 1)
    return drawn[..., :size], torch.special.ndtr(drawn[:, 0, size])


@dataclass(frozen=True, eq=False)
class MixtureTarget(Target):
    """x_0 ~ sum_k w_k N(mu_k, S_k): probabilities (K,), means (K, d), covariances (K, d, d), float64.

    Probabilities are > 0 and sum to 1 within 1e-9 (they are divided by their sum). Raises ValueError on these, on
    shapes that do not fit, and on a covariance that is not symmetric or not positive semi-definite.
    """

    name: str
    probabilities: Array
    means: Array
    covariances: Array
    diffusion: Diffusion
    params: Parameters
    event: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        weights, means, covs = (np.array(a, dtype=float) for a in (self.probabilities, self.means, self.covariances))
        if weights.ndim != 1 or means.shape[:1] != weights.shape or covs.shape != (*means.shape, means.shape[-1]):
            raise ValueError(
                f"weights {weights.shape}, means {means.shape} and covariances {covs.shape} do not fit; "
                "they must be (K,), (K, d) and (K, d, d)"
            )
        if not ((weights > 0).all() and abs(weights.sum() - 1) <= 1e-9):
            raise ValueError(f"weights {weights.tolist()}: they must be positive and sum to 1")
        size = np.abs(covs).max(axis=(1, 2), keepdims=True)
        with np.errstate(invalid="ignore"):  # inf - inf
            sound = np.isfinite(covs) & ~(np.abs(covs - np.swapaxes(covs, 1, 2)) > 1e-12 * size)
        if not sound.all():
            bad = int(np.flatnonzero(~sound.all(axis=(1, 2)))[0])
            raise ValueError(f"covariances[{bad}] is not finite or not symmetric; give finite, symmetric matrices")
        for name, value in (("probabilities", weights / weights.sum()), ("means", means), ("covariances", covs)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "event", means.shape[1:])
        _ = self.gaussians

    @classmethod
    def of(
        cls,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        params: Parameters,
        diffusion: Diffusion = PSLD_DIFFUSION,
        name: str = "mixture",
    ) -> MixtureTarget:
        """The target of what numpy reads as weights (K,), means (K, d) and covariances (K, d, d)."""
        probabilities, centres, covs = (np.asarray(a, dtype=float) for a in (weights, means, covariances))
        return cls(name, probabilities, centres, covs, diffusion, params)

    # --- The data -----------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Array:
        """The probabilities of the components, (K,)."""
        return self.probabilities

    @property
    def data_mean(self) -> Array:
        """(d,)."""
        return self.weights @ self.means

    @property
    def data_variance(self) -> Array:
        """(d,), the diagonal of `data_covariance`."""
        return np.diagonal(self.data_covariance).copy()

    @property
    def data_covariance(self) -> Array:
        """(d, d), within the components and between them."""
        apart = self.means - self.data_mean
        return np.einsum("k,kij->ij", self.weights, self.covariances) + (self.weights * apart.T) @ apart

    # --- The law at time t --------------------------------------------------------------------------------------------

    def covariance(self, t: float) -> Tensor:
        """The whole covariance of p_t, (n, d, n, d), float64; its entries [:, i, :, i] are those of `moments`."""
        variances, basis = _eigenbasis(self.data_covariance[None])
        law = GaussianTarget(np.zeros(variances.size), variances[0], self.diffusion, self.params).law(t)
        return torch.from_numpy(np.einsum("ie,abe,je->aibj", basis[0], law.cov, basis[0]))

    def components(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (K,), means (K, n, d) and covariances (K, n, d, n, d) of the Gaussians that p_t is a mixture of,
        float64: what every expectation that is known for a Gaussian follows from."""
        law, basis = self._law(t), self._basis
        means = np.einsum("kie,ake->kai", basis, law.mean)
        covs = np.einsum("kie,abke,kje->kaibj", basis, law.cov, basis)
        return torch.from_numpy(self.weights.copy()), torch.from_numpy(means), torch.from_numpy(covs)

    def log_density(self, u: Tensor, t: float) -> Tensor:
        """log p_t(u), (batch,), float64."""
        return self._in_blocks(u, t, lambda marginal, block: torch.logsumexp(marginal.whiten(block)[-1], dim=0))

    def responsibilities(self, u: Tensor, t: float) -> Tensor:
        """The probabilities of the components given u, (batch, K), float64."""
        return self._in_blocks(u, t, lambda marginal, block: torch.softmax(marginal.whiten(block)[-1], dim=0).T)

    def score(self, u: Tensor, t: float) -> Tensor:
        """grad log p_t(u), in u's shape, dtype and device."""
        return self._in_blocks(u, t, _score).reshape(u.shape).to(u.dtype)

    def score_in_plane(self, points: Array, t: float) -> Array:
        """The score of states (x, m) of one data dimension, points (2, J), float64: (2, J); as `score`, for callers
        that ask for it thousands of times."""
        states = points.T[:, :, None]
        with suppress(ImportError):
            from .compiled_mixture import plain_score

            return plain_score(self._marginal(float(t), _PROCESSOR), states)[..., 0].T
        return self.score(torch.from_numpy(np.ascontiguousarray(states)), t)[..., 0].numpy().T

    def keep(self, times: Sequence[float]) -> None:
        """See `Target.keep`."""
        self.gaussians.keep(times)

    def sample(self, t: float, numbers: Tensor, seed: int) -> Tensor:
        """Exact draws of p_t, (batch, n, d), float64, or (batch, d) of one component; see `Target.sample`."""
        check_time(t)
        marginal = self._marginal(float(t), numbers.device)
        xi, uniform = normals_and_uniform(seed, numbers, self.event[0], self.diffusion.size)
        edges = torch.from_numpy(np.cumsum(self.weights)[:-1]).to(numbers.device)
        chosen = torch.bucketize(uniform, edges, right=True)
        factors = marginal.factors.each(lambda entry: entry[chosen, 0])
        drawn = torch.stack(factors.colour(xi.unbind(1)), dim=1) + marginal.mean[:, chosen, 0].movedim(1, 0)
        states = torch.einsum("bae,bie->bai", drawn, marginal.basis[chosen])
        return states.reshape(len(numbers), *shape_of(self.diffusion.size, self.event))

    @cached_property
    def _eigen(self) -> tuple[Array, Array]:
        return _eigenbasis(self.covariances)

    @property
    def _basis(self) -> Array:
        """O_k, (K, d, d), eigenvectors in columns."""
        return self._eigen[1]

    @cached_property
    def gaussians(self) -> GaussianTarget:
        """All components in their eigenbases, K d one-dimensional Gaussians."""
        variances, basis = self._eigen
        means = np.einsum("kie,ki->ke", basis, self.means)
        return GaussianTarget(means.ravel(), variances.ravel(), self.diffusion, self.params)

    def _law(self, t: float) -> GaussianLaw:
        """Of the numbers of every coordinate: mean (n, K, d) and cov (n, n, K, d)."""
        return GaussianLaw(*(entry.reshape(*entry.shape[:-1], *self.means.shape) for entry in self.gaussians.law_at(t)))

    def _in_blocks(self, u: Tensor, t: float, function: Callable[[Marginal, Tensor], Tensor]) -> Tensor:
        """function(marginal, block) of blocks (rows, n, d) of the batch u, in float64."""
        u = as_components(u, self.diffusion.size, self.event, t)
        marginal = self._marginal(float(t), u.device)
        rows = max(1, _BLOCK // (self.diffusion.size * self.means.size))
        if len(u) <= rows:
            return function(marginal, u)
        return torch.cat([function(marginal, block) for block in u.split(rows)])

    @cached_property
    def _marginal(self) -> Callable[[float, torch.device], Marginal]:
        @lru_cache(max(1, _KEPT // self.means.size))
        def marginal(t: float, device: torch.device) -> Marginal:
            law = self._law(t)
            factors = Factors.of(law.cov, t).each(lambda entry: entry[:, None].to(device))
            tensors = (law.mean[:, :, None].copy(), self._basis, np.log(self.weights)[:, None])
            return Marginal(factors, *(torch.from_numpy(a).to(device) for a in tensors))

        return marginal


@dataclass(frozen=True, eq=False)
class Marginal:
    """p_t on one device: the factors (K, 1, d) and means (n, K, 1, d) of every coordinate, O_k (K, d, d), log weights
    (K, 1).

    The mixture's components come first, so that what is done to all states lies together in memory.
    """

    factors: Factors
    mean: Tensor
    basis: Tensor
    log_weights: Tensor

    @cached_property
    def numbers(self) -> tuple[Array, ...]:
        """What machine code takes of it."""
        from .compiled_mixture import numbers

        return numbers(self)

    def whiten(self, u: Tensor) -> tuple[Tensor, ...]:
        """w of every component of a state (K, batch, d), then l_k (K, batch), of states (batch, n, d)."""
        centred = [self._rotated(u[:, a], self.basis) - mean for a, mean in enumerate(self.mean)]
        whitened = self.factors.whiten(centred)
        squares = reduce(torch.add, map(torch.square, whitened))
        return *whitened, self.constant(u.shape[-1]) - squares.sum(2) / 2

    def constant(self, d: int) -> Tensor:
        """What of l_k depends on no state, (K, 1)."""
        return self.log_weights - self.factors.log_det.sum(2) - d * (len(self.mean) / 2) * math.log(2 * math.pi)

    def score(self, u: Tensor) -> Tensor:
        """-sum_k r_k O_k L_k^-T w_k, (batch, n, d)."""
        *whitened, logits = self.whiten(u)
        responsible = torch.softmax(logits, dim=0)[..., None]
        back = self.basis.transpose(1, 2)
        pulls = self.factors.pull([entry * responsible for entry in whitened])
        return -torch.stack([self._rotated(pull, back).sum(0) for pull in pulls], dim=1)

    @staticmethod
    def _rotated(coordinates: Tensor, matrices: Tensor) -> Tensor:
        """Rows (..., batch, d) times each of the matrices (K, d, d)."""
        return coordinates * matrices if matrices.shape[-1] == 1 else coordinates @ matrices


def _score(marginal: Marginal, u: Tensor) -> Tensor:
    """In machine code where that is faster, there is numba, and nobody differentiates."""
    if u.shape[-1] in COMPILED and u.shape[1] <= 2 and u.device.type == "cpu" and not u.requires_grad:
        with suppress(ImportError):
            from .compiled_mixture import score

            return score(marginal, u)
    return marginal.score(u)


def _eigenbasis(covariances: Array) -> tuple[Array, Array]:
    """Eigenvalues (K, d) and eigenvectors in columns (K, d, d); roundings below zero become 0.

    Raises ValueError if a matrix is not positive semi-definite.
    """
    variances, basis = np.linalg.eigh(covariances)
    size = np.abs(variances).max(axis=1, keepdims=True, initial=0)
    if (negative := variances < -1e-12 * size).any():
        raise ValueError(f"a covariance has the eigenvalue {variances[negative][0]:g}; eigenvalues must be >= 0")
    return np.maximum(variances, 0), basis

"""A spectrum at a few nodes: the distance of a run to thousands of Gaussians from exact moments at some dozens.

The squared distance of exact.spectrum is a sum over eigenvalues of k(s2_i) + mu_i^2 g(s2_i): k of the standard
deviations that a run delivers, g = (a - 1)^2 of the mean, to which a run is linear, m_i = a(s2_i) mu_i. Both are
analytic in y = log s2 along the positive axis. So they are known from their values at K Chebyshev points y_k between
the extreme eigenvalues, and the sums are quadratures,

    sum_i k(s2_i) = sum_k W_k k(s2_k),     W_k = 2/K sum'_j T_j(y_k) sum_i T_j(y_i)     (the first term of sum' halved)

and the same with mu_i^2 for g. The interpolant's error at any y is at most 2 sum_(j >= K) |c_j|, c_j the Chebyshev
coefficients (Trefethen 2013, Approximation Theory and Approximation Practice, theorem 4.2 and equation 4.9), which fall
geometrically. `Nodes.error` takes for that tail what the last quarter of the known coefficients adds up to: more than
the tail as long as they fall at least twofold over a quarter. It is an estimate: a search compares it with what it
evaluates on the whole spectrum, and says what it found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...theory.model import Diffusion, Parameters
from ..exact import Spectrum
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array

COUNT = 64


@dataclass(frozen=True, eq=False)
class Nodes:
    """A spectrum's nodes: `variances` (K,), the weights of k and of g there (K,), how many eigenvalues there are and
    the sum of mu_i^2; `to_coefficients` (K, K): Chebyshev coefficients from values at the nodes."""

    variances: Array
    of_spread: Array
    of_mean: Array
    dimensions: int
    mean_square: float
    to_coefficients: Array

    def target(self, diffusion: Diffusion, params: Parameters) -> GaussianTarget:
        """The nodes as data, each with mean 1."""
        return GaussianTarget.of(1.0, self.variances, diffusion, params)

    def distance(self, law: GaussianLaw) -> tuple[float, float]:
        """The Frechet distance to the whole spectrum of a run whose law at the nodes is `law`, mean (n, K) and cov (n,
        n, K), and the estimate of its error; inf or nan where the law overflowed."""
        with np.errstate(over="ignore", invalid="ignore"):
            spread = (np.sqrt(law.cov[0, 0]) - np.sqrt(self.variances)) ** 2
            mean = (law.mean[0] - 1) ** 2
            value = float(self.of_spread @ spread + self.of_mean @ mean)
            return value, self.dimensions * self._tail(spread) + self.mean_square * self._tail(mean)

    def _tail(self, values: Array) -> float:
        """A bound on what an interpolant at the nodes is off by, from its own last coefficients."""
        last = (self.to_coefficients @ values)[-(len(values) // 4) :]
        return 2 * float(np.abs(last).sum())


def nodes_of(data: Spectrum, count: int = COUNT) -> Nodes:
    """`count` nodes of a spectrum. Raises ValueError where one of its variances is 0, whose logarithm is none."""
    if not (data.variances > 0).all():
        raise ValueError(
            "a spectrum with variance 0 has no nodes in log variance; drop the directions without variance"
        )
    logs = np.log(data.variances)
    middle, half = (logs.max() + logs.min()) / 2, max((logs.max() - logs.min()) / 2, 1e-6)
    angles = (np.arange(count) + 0.5) * np.pi / count
    at_nodes = np.cos(np.arange(count)[:, None] * angles)  # T_j at the nodes
    to_coefficients = at_nodes * 2 / count
    to_coefficients[0] /= 2
    at_data = np.cos(np.arange(count)[:, None] * np.arccos(np.clip((logs - middle) / half, -1, 1)))
    return Nodes(
        np.exp(middle + half * np.cos(angles)),
        at_data.sum(1) @ to_coefficients,
        (at_data @ data.mean**2) @ to_coefficients,
        logs.size,
        float((data.mean**2).sum()),
        to_coefficients,
    )


@lru_cache(maxsize=1)
def cifar10_nodes() -> Nodes:
    """The nodes of CIFAR-10's spectrum."""
    from ..exact import cifar10_spectrum

    return nodes_of(cifar10_spectrum())

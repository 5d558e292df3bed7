"""Test functions of weak errors without sampling, and their exact expectations on a Gaussian mixture.

    E f(u) = sum_k w_k int f dN(mean_k, cov_k),

each integral by Gauss-Hermite quadrature, at two numbers of nodes, whose difference is the estimate of its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from ...integrators.compiled import noise_factor
from ..verdicts import Array

if TYPE_CHECKING:  # torch takes seconds to import
    from ..targets import MixtureTarget


@dataclass(frozen=True)
class Observable:
    """A test function f: `function` maps x and m, float64 arrays of one shape, to f(x, m) of that shape.

    components: how many of a state's components it is of, the first ones; 1 for a function of x alone. It should be
    smooth, ideally entire, on the scale of the law's modes, and grow like a polynomial; what it costs if it is not
    shows in the estimates.
    """

    name: str
    function: Callable[..., Array]
    components: int = 2


OBSERVABLES = (
    Observable("x", lambda x, *_: x, 1),
    Observable("x^2", lambda x, *_: x**2, 1),
    Observable("x^3", lambda x, *_: x**3, 1),
    Observable("x^4", lambda x, *_: x**4, 1),
    Observable("m", lambda _, m: m),
    Observable("x m", lambda x, m: x * m),
    Observable("m^2", lambda _, m: m**2),
    Observable("cos 2x", lambda x, *_: np.cos(2 * x), 1),
    Observable("mode x > 0", lambda x, *_: ndtr(x / 0.25), 1),
)


def observables_of(size: int) -> tuple[Observable, ...]:
    """Those of `OBSERVABLES` that states of `size` components have."""
    return tuple(observable for observable in OBSERVABLES if observable.components <= size)


# Gauss-Hermite nodes a coordinate: exact for polynomials, and far more than cosines and smooth steps need. The smaller
# rule measures the larger one's error, for functions that need more.
_NODES, _FEWER_NODES = 96, 64


def expectation(observables: Sequence[Observable], target: MixtureTarget, t: float) -> tuple[Array, Array]:
    """The exact E f under p_t, (F,), and an estimate of its error, (F,): Gauss-Hermite quadrature in each component."""
    weights, means, covs = (np.asarray(a) for a in target.components(t))

    def quadrature(count: int) -> Array:
        nodes, mass = np.polynomial.hermite_e.hermegauss(count)
        size = means.shape[1]
        grid = np.stack(np.meshgrid(*[nodes] * size)).reshape(size, -1)
        mass = reduce(np.multiply.outer, [mass] * size).ravel() / (2 * math.pi) ** (size / 2)
        pairs = zip(weights, means[:, :, 0], noise_factor(covs[:, :, 0, :, 0]), strict=True)
        parts = [w * averages(observables, mean[:, None] + L @ grid, mass) for w, mean, L in pairs]
        return np.sum(parts, axis=0)

    exact = quadrature(_NODES)
    return exact, np.abs(exact - quadrature(_FEWER_NODES))


def averages(observables: Sequence[Observable], points: Array, weights: Array) -> Array:
    """sum_j w_j f(u_j) for every test function, (F,); points (components, k) of x and m, weights (k,)."""
    components = tuple(points)  # the same arrays for all functions, which may keep what they make of them
    return np.array([weights @ observable.function(*components[: observable.components]) for observable in observables])

"""Matrices as Taylor polynomials in time: the derivatives of Phi(t) and Psi(t) that an error constant needs, exactly.

`TaylorKernel` is a `Kernel` (theory.frozen) whose matrices carry their derivatives at a time t, so that any Phi and Psi
that are made of a kernel's matrices give theirs, by the rules for sums, products and inverses. The kernel's own follow
from its equations, with d theta = beta(t) dt,

    E' = beta A E        Sigma' = beta (A Sigma + Sigma A^T + D)        L L^T = Sigma
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .frozen import NumericKernel, trace
from .model import Diffusion, Parameters

Array = NDArray[np.float64]


class Taylor:
    """sum_k terms[k] (t' - t)^k, each term a stack (..., a, b) of matrices, float64; shapes broadcast.

    Sums, products with matrices (@) and numbers (*), `inv` and `T` keep as many terms as there are.
    """

    __array_ufunc__ = None  # a numpy matrix on the left leaves sums and products to this class

    def __init__(self, terms: Sequence[ArrayLike]) -> None:
        self.terms = [np.asarray(term, dtype=float) for term in terms]

    def of(self, other: Any) -> Taylor:
        """`other` as one of these: it may be a constant matrix."""
        if isinstance(other, Taylor):
            return other
        constant = np.asarray(other, dtype=float)
        return Taylor([constant, *(np.zeros_like(constant) for _ in self.terms[1:])])

    def __add__(self, other: Any) -> Taylor:
        return Taylor([a + b for a, b in zip(self.terms, self.of(other).terms, strict=True)])

    __radd__ = __add__

    def __neg__(self) -> Taylor:
        return Taylor([-term for term in self.terms])

    def __sub__(self, other: Any) -> Taylor:
        return self + -self.of(other)

    def __rsub__(self, other: Any) -> Taylor:
        return -self + other

    def __mul__(self, number: float) -> Taylor:
        return Taylor([number * term for term in self.terms])

    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> Taylor:
        a, b = self.terms, self.of(other).terms
        return Taylor([sum(a[j] @ b[k - j] for j in range(k + 1)) for k in range(len(a))])

    def __rmatmul__(self, other: Any) -> Taylor:
        return self.of(other) @ self

    def inv(self) -> Taylor:
        """The inverse: M X = 1, term by term."""
        found = [np.linalg.inv(self.terms[0])]
        for k in range(1, len(self.terms)):
            found.append(-found[0] @ sum(self.terms[j] @ found[k - j] for j in range(1, k + 1)))
        return Taylor(found)

    @property
    def T(self) -> Taylor:
        """The transposes."""
        return Taylor([np.swapaxes(term, -1, -2) for term in self.terms])

    def trace(self) -> Taylor:
        """The traces, as 1 x 1 matrices."""
        return Taylor([trace(term) for term in self.terms])

    def factor(self) -> Taylor:
        """The lower Cholesky factor: L^-1 L_k + its transpose is what Sigma_k lacks of L L^T, in units of L."""
        found = [np.linalg.cholesky(self.terms[0])]
        inverse = np.linalg.inv(found[0])
        for k in range(1, len(self.terms)):
            lacking = self.terms[k] - sum(
                (found[j] @ np.swapaxes(found[k - j], -1, -2) for j in range(1, k)), np.zeros_like(found[0])
            )
            half = np.tril(inverse @ lacking @ np.swapaxes(inverse, -1, -2))
            diagonal = range(half.shape[-1])
            half[..., diagonal, diagonal] /= 2
            found.append(found[0] @ half)
        return Taylor(found)

    def derivative(self, k: int) -> Array:
        """The k-th derivative at t."""
        return math.factorial(k) * self.terms[k]


def moved(start: ArrayLike, slope: Callable[[Array, bool], Array], betas: Sequence[Any], order: int) -> Taylor:
    """The solution of y' = beta(t) slope(y), up to (t' - t)^order, from its value at t.

    slope: affine; the second argument says whether its constant part belongs to it. betas: beta and its derivative.
    """
    terms = [np.asarray(start, dtype=float)]
    for k in range(order):
        growth = betas[0] * slope(terms[k], k == 0)
        if k:
            growth = growth + betas[1] * slope(terms[k - 1], k == 1)
        terms.append(growth / (k + 1))
    return Taylor(terms)


class TaylorKernel:
    """The kernel of `diffusion` with its derivatives up to `order` at t, of any shape (...). A `Kernel`.

    Raises ValueError as `NumericKernel` does.
    """

    def __init__(self, diffusion: Diffusion, t: ArrayLike, params: Parameters, order: int) -> None:
        self.t, self.order = np.asarray(t, dtype=float), order
        self._numbers = NumericKernel(diffusion, params.theta(self.t, self.t), params.values())
        self._A, _, self._D = diffusion.forward.numbers(params.values())
        self._betas = (params.beta(self.t)[..., None, None], params.beta_max - params.beta_min)
        self.one, self.zero = self._numbers.one, self._numbers.zero

    @cached_property
    def propagator(self) -> Taylor:
        """E_t."""
        return moved(self._numbers.propagator, lambda E, _: self._A @ E, self._betas, self.order)

    @cached_property
    def cov(self) -> Taylor:
        """Sigma_t."""
        return covariance(self._numbers.cov, self._A, self._D, self._betas, self.order)

    @cached_property
    def factor(self) -> Taylor:
        """L_t."""
        _ = self._numbers.factor  # which says so where there is none
        return self.cov.factor()

    @property
    def prior(self) -> Array:
        """The prior's covariance."""
        return self._numbers.prior

    @property
    def noise(self) -> Array:
        """D of the forward SDE."""
        return self._D

    @property
    def beta(self) -> Taylor:
        """beta(t), 1 x 1."""
        terms = [self._betas[0], np.reshape(float(self._betas[1]), (1, 1))][: self.order + 1]
        return Taylor([*terms, *(np.zeros((1, 1)) for _ in range(self.order - 1))])


def covariance(start: ArrayLike, A: Array, D: Array, betas: Sequence[Any], order: int) -> Taylor:
    """The covariance of du = A u dtheta + D^(1/2) dw with its derivatives in t, from its value at t."""

    def slope(C: Array, first: bool) -> Array:
        growth = A @ C
        return growth + np.swapaxes(growth, -1, -2) + (D if first else 0)

    return moved(start, slope, betas, order)

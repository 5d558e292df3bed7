"""The exact flow of a linear SDE with the score held fixed: derived once, proven, evaluated without cancellation.

With s frozen, du = (A u + G s) dtheta + D^(1/2) dw has constant coefficients, and its flow over theta is

    u(theta) = P u(0) + K s + xi,   xi ~ N(0, Q)

    propagator   P = exp(A theta)
    score gain   K = int_0^theta exp(A r) dr G
    noise cov    Q = int_0^theta exp(A r) D exp(A r)^T dr

Every entry is an exponential polynomial, sum_j c_j theta^p_j exp(r_j theta), derived and proven by theory.flow_proof.
In float64 the closed form cancels for small theta and at confluent rates (Gamma -> 0,
equal rates). There the same integrals are summed as series, scaled and doubled; each entry takes the form that does
not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cache import cached
from .components import matmul
from .formulas import Compiled, compiled
from .model import LinearSDE

Array = NDArray[np.float64]
# One entry of a flow: (coefficient, power, rate) of each term, as sympy prints them.
Terms = list[tuple[str, int, str]]


class Flow(NamedTuple):
    """The affine map u -> P u + K s + xi, xi ~ N(0, Q): arrays (..., n, n), float64, or n x n sympy matrices."""

    propagator: Any
    score_gain: Any
    noise_cov: Any

    def then(self, later: Flow) -> Flow:
        """`later` after this one, both with the same frozen score: K = P2 K1 + K2, Q = P2 Q1 P2^T + Q2."""
        P = later.propagator
        transposed = np.swapaxes(P, -1, -2) if isinstance(P, np.ndarray) else P.T  # sympy's matrices have no stacks
        return Flow(
            P @ self.propagator,
            P @ self.score_gain + later.score_gain,
            P @ self.noise_cov @ transposed + later.noise_cov,
        )


# --- Numbers ----------------------------------------------------------------------------------------------------------


def linear_flow(A: ArrayLike, D: ArrayLike, length: ArrayLike) -> tuple[Array, Array, Array]:
    """exp(A theta) - 1, int exp(A r) dr and int exp(A r) D exp(A r)^T dr over [0, theta], for any numbers.

    A, D: (..., n, n); length: (...), theta >= 0; all broadcast. A Taylor series on theta / 2^k, where the norm of
    A theta / 2^k is at most 1/2, then k doublings that keep E = P - 1, so that small entries keep their digits:
    E <- 2E + E E,   Phi <- 2 Phi + E Phi,   Q <- 2Q + E Q + Q E^T + E Q E^T.
    """
    A, D, length = (np.asarray(a, dtype=float) for a in (A, D, length))
    norm = np.abs(A).sum(-1).max(-1) * length
    doublings = np.ceil(np.log2(np.maximum(norm, 0.5) / 0.5)).astype(int)
    step = length / 2.0**doublings
    X = np.ascontiguousarray(np.moveaxis(A * step[..., None, None], (-2, -1), (0, 1)))
    n = len(X)
    unit, D = np.eye(n).reshape(n, n, *(1 for _ in X.shape[2:])), np.moveaxis(D, (-2, -1), (0, 1))
    D = D.reshape(n, n, *(1 for _ in X.shape[len(D.shape) :]), *D.shape[2:])
    power, lyapunov = np.broadcast_to(unit, X.shape), np.broadcast_to(D, np.broadcast_shapes(D.shape, X.shape))
    E, Phi, Q = np.zeros(X.shape), power, lyapunov
    for i in range(1, 19):  # the norms of X and of Y -> XY + YX^T are at most 1/2 and 1: 1/19! < 2^-53
        power = matmul(power, X) / i
        lyapunov = _and_transposed(matmul(X, lyapunov)) / (i + 1)
        E, Phi, Q = E + power, Phi + power / (i + 1), Q + lyapunov
    Phi, Q = Phi * step, Q * step
    for doubling in range(doublings.max(initial=0)):
        more = doubling < doublings
        EQ = matmul(E, Q)
        # Where E is near -1 an antisymmetric rounding would grow threefold with every doubling: there is none.
        doubled = 2 * Q + _and_transposed(EQ + matmul(EQ, np.swapaxes(E, 0, 1)) / 2)
        Q = np.where(more, doubled, Q)
        Phi = np.where(more, 2 * Phi + matmul(E, Phi), Phi)
        E = np.where(more, 2 * E + matmul(E, E), E)
    E, Phi, Q = (np.moveaxis(entry, (0, 1), (-2, -1)) for entry in (E, Phi, Q))
    return E, Phi, Q


def _and_transposed(a: Array) -> Array:
    """a + a^T, exactly symmetric, components first."""
    return a + np.swapaxes(a, 0, 1)


@dataclass(frozen=True)
class ExactFlow:
    """The derived flow of one linear SDE. `matrices` are its formulas in theta; calling it gives numbers. terms: None
    where there is no closed form, of three components and more, whose numbers are those of the series alone."""

    sde: LinearSDE
    terms: list[list[Terms]] | None

    @property
    def matrices(self) -> Flow:
        """P, K and Q as sympy matrices in theta, gamma, nu. Raises ValueError where there is no closed form."""
        from .flow_proof import matrices

        if self.terms is None:
            raise ValueError(
                f"the flow of ({', '.join(map(str, self.sde.drift))}) has no closed form: its rates are roots of a "
                "polynomial of degree 3 or more; its numbers are known, and orders are"
            )
        return matrices(self.terms)

    @cached_property
    def _coefficients_and_rates(self) -> Compiled:
        """All coefficients and rates as one function of the parameters, in the order of `terms`."""
        entries = [entry for matrix in self.terms or () for entry in matrix]
        return compiled([text for entry in entries for c, _, r in entry for text in (c, r)], complex_roots=True)

    @cached_property
    def _numbers(self) -> Callable[[frozenset[tuple[str, float]]], list[list[list[tuple[complex, complex]]]]]:
        """Coefficient and rate of each term, of parameters as pairs; those of the last few are kept."""

        @lru_cache(maxsize=16)
        def numbers(values: frozenset[tuple[str, float]]) -> list[list[list[tuple[complex, complex]]]]:
            found = iter(self._coefficients_and_rates({name: np.float64(value) for name, value in values}))
            return [[[(next(found), next(found)) for _ in entry] for entry in matrix] for matrix in self.terms or ()]

        return numbers

    def __call__(self, length: ArrayLike, values: Mapping[str, float]) -> Flow:
        """The flow over theta = `length` (any shape, >= 0) at the parameters `values`; accurate to 1e-12 relative,
        and where an entry passes through 0 to a few roundings of theta. Read only: the last ones are kept, since a
        study asks for those of its grid many times."""
        length = np.asarray(length, dtype=float)
        key = length.shape, length.tobytes(), frozenset(values.items())
        with _KEEPING:
            flow = self._kept.pop(key, None)
        if flow is None:
            flow = self._computed(length, values)
            for entry in flow:
                entry.setflags(write=False)
        with _KEEPING:
            self._kept[key] = flow  # the last of them
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return flow

    @cached_property
    def _kept(self) -> dict[tuple[tuple[int, ...], bytes, frozenset[tuple[str, float]]], Flow]:
        return {}

    def _computed(self, length: Array, values: Mapping[str, float]) -> Flow:
        A, G, D = self.sde.numbers(values)
        if self.terms is None:
            return summed_flow((A, G, D), length)
        with np.errstate(all="ignore"):  # poles of the closed form (Gamma = 0, equal rates) give inf or nan: not used
            numbers = self._numbers(frozenset(values.items()))
            closed = [_closed_form(length, terms, pairs) for terms, pairs in zip(self.terms, numbers, strict=True)]
            lacking = ~np.logical_and.reduce([use.all((-2, -1)) for _, use in closed])  # lengths that need the series
            if lacking.any():
                E, Phi, Q = linear_flow(A, D, length[lacking])
                for (matrix, use), series in zip(closed, (E + np.eye(len(A)), Phi @ G, Q), strict=True):
                    matrix[lacking] = np.where(use[lacking], matrix[lacking], series)
        return Flow(*(matrix for matrix, _ in closed))


# Flows that are kept: over some thousand lengths each, a few hundred kilobytes.
_KEPT = 32
# Threads of a study share flows: what is kept changes under one of them at a time.
_KEEPING = Lock()
# The closed form is used where its terms add up to less than this times their sum: two digits of sixteen lost.
_MAX_CANCELLATION = 100.0


def _closed_form(
    length: Array, terms: list[Terms], numbers: list[list[tuple[complex, complex]]]
) -> tuple[Array, NDArray[np.bool_]]:
    """A matrix of the closed form, (*length.shape, n, n), and which of its entries are finite and do not cancel."""
    n = math.isqrt(len(terms))
    matrix = np.empty((*length.shape, n, n))
    use = np.empty(matrix.shape, dtype=bool)
    growth = {rate: np.exp(rate * length) for rate in {rate for pairs in numbers for _, rate in pairs}}
    for index, (entry, pairs) in enumerate(zip(terms, numbers, strict=True)):
        place = (..., *divmod(index, n))
        parts = [c * length**power * growth[r] for (_, power, _), (c, r) in zip(entry, pairs, strict=True)]
        total = sum(parts, np.zeros_like(length))
        size = sum((np.abs(part) for part in parts), np.zeros_like(length))
        matrix[place] = np.real(total)
        use[place] = np.isfinite(total) & (size <= _MAX_CANCELLATION * np.abs(total))
    return matrix, use


def summed_flow(numbers: Iterable[Array], length: ArrayLike) -> Flow:
    """The exact flow over theta = `length` of A, G and D (..., n, n), others for each length, by series."""
    A, G, D = numbers
    E, Phi, Q = linear_flow(A, D, length)
    return Flow(E + np.eye(A.shape[-1]), Phi @ G, Q)


@cache
def exact_flow(sde: LinearSDE) -> ExactFlow:
    """The exact flow of `sde`, derived and proven once."""
    return ExactFlow(sde, derivation(sde)["terms"])


def derivation(sde: LinearSDE) -> dict[str, Any]:
    """What theory.flow_proof derives of `sde`: the exact flow's terms, None without closed form, and it and the Euler
    flow in text, by name P, K and Q with n^2 entries, row-major."""

    def derive() -> dict[str, Any]:
        from .flow_proof import derive

        return derive(sde)

    return cached(("flows", sde.declaration), derive)


def euler_flow(sde: LinearSDE, length: ArrayLike, values: Mapping[str, Any]) -> Flow:
    """Explicit Euler(-Maruyama) over theta = `length`: P = 1 + A theta, K = G theta, Q = D theta."""
    scale = np.asarray(length, dtype=float)[..., None, None]
    A, G, D = sde.numbers(values)
    return Flow(np.eye(sde.size) + A * scale, G * scale, D * scale)

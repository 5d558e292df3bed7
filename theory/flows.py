"""The exact flow of a linear SDE with the score held fixed: derived once, proven, evaluated without cancellation.

With s frozen, du = (A u + G s) dtheta + D^(1/2) dw has constant coefficients, and its flow over theta is

    u(theta) = P u(0) + K s + xi,   xi ~ N(0, Q)

    propagator   P = exp(A theta)
    score gain   K = int_0^theta exp(A r) dr G
    noise cov    Q = int_0^theta exp(A r) D exp(A r)^T dr

sympy derives every entry as an exponential polynomial, sum_j c_j theta^p_j exp(r_j theta), and proves it: the
residuals of

    P' = A P, P(0) = 1      K' = A K + G, K(0) = 0      Q' = A Q + Q A^T + D, Q(0) = 0

must simplify to exactly 0. In float64 the closed form cancels for small theta and at confluent rates (Gamma -> 0,
equal rates). There the same integrals are summed as series, scaled and doubled; each entry takes the form that does
not cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray
from sympy import Expr, Matrix

from .cache import cached
from .model import PARAMETERS, LinearSDE, theta

Array = NDArray[np.float64]
# One entry of a flow: (coefficient, power, rate) of each term, as sympy prints them.
Terms = list[tuple[str, int, str]]


class Flow(NamedTuple):
    """The affine map u -> P u + K s + xi, xi ~ N(0, Q): arrays (..., 2, 2), float64, or 2x2 sympy matrices."""

    propagator: Any
    score_gain: Any
    noise_cov: Any

    def then(self, later: Flow) -> Flow:
        """`later` after this one, both with the same frozen score: K = P2 K1 + K2, Q = P2 Q1 P2^T + Q2."""
        P = later.propagator
        transposed = P.T if isinstance(P, sp.MatrixBase) else P.mT
        return Flow(
            P @ self.propagator,
            P @ self.score_gain + later.score_gain,
            P @ self.noise_cov @ transposed + later.noise_cov,
        )


# --- Derivation -------------------------------------------------------------------------------------------------------


def _collect(entry: Expr) -> dict[tuple[int, Expr], Expr]:
    """An exponential polynomial in theta as {(power, rate): coefficient}."""
    rates: dict[Any, Any] = {exponential: sp.Dummy() for exponential in sorted(entry.atoms(sp.exp), key=str)}
    polynomial = sp.Poly(sp.cancel(entry.xreplace(rates)), theta, *rates.values())
    collected: dict[tuple[int, Expr], Expr] = {}
    for (power, *multiples), coefficient in polynomial.terms():
        exponent = sp.Add(*(k * e.args[0] for k, e in zip(multiples, rates, strict=True)))
        key = (power, sp.simplify(exponent / theta))
        if key[1].has(theta):
            raise ValueError(f"{entry} is not an exponential polynomial in theta")
        collected[key] = collected.get(key, sp.S.Zero) + coefficient
    simplified: dict[Any, Any] = {key: sp.factor(sp.simplify(c)) for key, c in collected.items()}
    return {key: coefficient for key, coefficient in simplified.items() if coefficient != 0}


def _expand(collected: dict[tuple[int, Expr], Expr]) -> Expr:
    """The expression that `_collect` collected."""
    return sp.Add(*(c * theta**power * sp.exp(rate * theta) for (power, rate), c in collected.items()))


def _exponential(A: Any) -> Any:
    """exp(A theta) of a 2x2 matrix: with a = tr A / 2, B = A - a and B^2 = r^2 1, it is e^(a theta) times
    cosh(r theta) + B sinh(r theta) / r, or times 1 + B theta if r = 0. (sympy's own need not simplify.)"""
    a = sp.simplify(A.trace() / 2)
    square = sp.factor(sp.simplify(a**2 - A.det()))
    B = (A - a * sp.eye(2)).applyfunc(sp.simplify)
    if square == 0:
        return (sp.eye(2) + B * theta) * sp.exp(a * theta)
    r: Any = sp.sqrt(square).replace(sp.Abs, lambda inside: inside)  # either root will do
    up, down = (sp.exp(rate * theta) for rate in map(sp.simplify, (a + r, a - r)))
    return (up + down) / 2 * sp.eye(2) + (up - down) / (2 * r) * B


def _integrate(entry: Expr) -> Expr:
    """int_0^theta of an exponential polynomial, term by term (by parts: int r^p e^(ar) steps down in p)."""
    total = sp.S.Zero
    for (power, rate), coefficient in _collect(entry).items():
        if rate == 0:
            total += coefficient * theta ** (power + 1) / (power + 1)
            continue
        for i in range(power + 1):
            falling = sp.ff(power, i) * (-1) ** i / rate ** (i + 1)
            total += coefficient * falling * theta ** (power - i) * sp.exp(rate * theta)
        total -= coefficient * sp.factorial(power) * (-1) ** power / rate ** (power + 1)
    return total


def residuals(sde: LinearSDE, propagator: Matrix, score_gain: Matrix, noise_cov: Matrix) -> tuple[Matrix, ...]:
    """What the flow's three equations and three initial values leave over: six zero matrices if it is exact."""
    A, G, D = sde.matrix, sde.score_gain, sde.noise
    differences: tuple[Any, ...] = (
        propagator.diff(theta) - A * propagator,
        propagator.subs(theta, 0) - sp.eye(2),
        score_gain.diff(theta) - A * score_gain - G,
        score_gain.subs(theta, 0),
        noise_cov.diff(theta) - A * noise_cov - noise_cov * A.T - D,
        noise_cov.subs(theta, 0),
    )
    return tuple(difference.applyfunc(sp.simplify) for difference in differences)


def _derive(sde: LinearSDE) -> list[list[Terms]]:
    """P, K and Q, each a row-major list of four entries. Raises ValueError if the proof does not close."""
    propagator = _exponential(sde.matrix)
    gain = propagator.applyfunc(_integrate) * sde.score_gain
    noise = (propagator * sde.noise * propagator.T).applyfunc(_integrate)
    collected = [[_collect(entry) for entry in matrix.flat()] for matrix in (propagator, gain, noise)]
    rebuilt = [Matrix(2, 2, [_expand(entry) for entry in matrix]) for matrix in collected]
    for left_over in residuals(sde, *rebuilt):
        if any(entry != 0 for entry in left_over):
            raise ValueError(
                f"the flow of {sde.drift} could not be proven: a residual simplifies to {left_over}, and must be 0; "
                "write the drift more simply"
            )
    return [[[(str(c), p, str(r)) for (p, r), c in entry.items()] for entry in matrix] for matrix in collected]


# --- Numbers ----------------------------------------------------------------------------------------------------------


def linear_flow(A: ArrayLike, D: ArrayLike, length: ArrayLike) -> tuple[Array, Array, Array]:
    """exp(A theta) - 1, int exp(A r) dr and int exp(A r) D exp(A r)^T dr over [0, theta], for any numbers.

    A, D: (..., 2, 2); length: (...), theta >= 0; all broadcast. A Taylor series on theta / 2^k, where the norm of
    A theta / 2^k is at most 1/2, then k doublings that keep E = P - 1, so that small entries keep their digits:
    E <- 2E + E E,   Phi <- 2 Phi + E Phi,   Q <- 2Q + E Q + Q E^T + E Q E^T.
    """
    A, D, length = (np.asarray(a, dtype=float) for a in (A, D, length))
    norm = np.abs(A).sum(-1).max(-1) * length
    doublings = np.ceil(np.log2(np.maximum(norm, 0.5) / 0.5)).astype(int)
    step = (length / 2.0**doublings)[..., None, None]
    X = A * step
    XT = np.swapaxes(X, -1, -2)
    power, lyapunov = np.broadcast_to(np.eye(2), X.shape), np.broadcast_to(D, np.broadcast_shapes(D.shape, X.shape))
    E, Phi, Q = np.zeros(X.shape), power, lyapunov
    for i in range(1, 19):  # the norms of X and of Y -> XY + YX^T are at most 1/2 and 1: 1/19! < 2^-53
        power = power @ X / i
        lyapunov = (X @ lyapunov + lyapunov @ XT) / (i + 1)
        E, Phi, Q = E + power, Phi + power / (i + 1), Q + lyapunov
    Phi, Q = Phi * step, Q * step
    for doubling in range(doublings.max(initial=0)):
        more = (doubling < doublings)[..., None, None]
        EQ = E @ Q
        doubled = 2 * Q + EQ + np.swapaxes(EQ, -1, -2) + EQ @ np.swapaxes(E, -1, -2)
        # Where E is near -1 an antisymmetric rounding would grow threefold with every doubling: it is removed.
        Q = np.where(more, (doubled + np.swapaxes(doubled, -1, -2)) / 2, Q)
        Phi = np.where(more, 2 * Phi + E @ Phi, Phi)
        E = np.where(more, 2 * E + E @ E, E)
    return E, Phi, Q


@dataclass(frozen=True)
class ExactFlow:
    """The derived flow of one linear SDE. `matrices` are its formulas in theta; calling it gives numbers."""

    sde: LinearSDE
    terms: list[list[Terms]]

    @property
    def matrices(self) -> Flow:
        """P, K and Q as sympy matrices in theta, gamma, nu."""
        names = {str(symbol): symbol for symbol in (*PARAMETERS, theta)}

        def entry(terms: Terms) -> Expr:
            return sp.Add(
                *(sp.parse_expr(c, names) * theta**p * sp.exp(sp.parse_expr(r, names) * theta) for c, p, r in terms)
            )

        return Flow(*(Matrix(2, 2, [entry(terms) for terms in matrix]) for matrix in self.terms))

    @cached_property
    def _coefficients_and_rates(self) -> Callable[..., list[list[list[tuple[complex, complex]]]]]:
        """All coefficients and rates as one function of the parameters, compiled from the derived expressions."""
        entries = [[[f"({c}, {r})" for c, _, r in entry] for entry in matrix] for matrix in self.terms]
        nested = str(entries).replace("'", "")
        names = ", ".join(map(str, PARAMETERS))
        scope = {"sqrt": np.emath.sqrt, "I": np.complex128(1j), "pi": np.pi, "E": np.e}
        scope |= {"exp": np.exp, "log": np.emath.log, "Abs": np.abs}
        return eval(f"lambda {names}: {nested}", {"__builtins__": {}, **scope})

    def __call__(self, length: ArrayLike, values: Mapping[str, float]) -> Flow:
        """The flow over theta = `length` (any shape, >= 0) at the parameters `values`; accurate to 1e-12 relative."""
        length = np.asarray(length, dtype=float)
        A, G, D = self.sde.numbers(values)
        with np.errstate(all="ignore"):  # poles of the closed form (Gamma = 0, equal rates) give inf or nan: not used
            numbers = self._coefficients_and_rates(**{name: np.float64(value) for name, value in values.items()})
            closed = [_closed_form(length, terms, pairs) for terms, pairs in zip(self.terms, numbers, strict=True)]
            if all(use.all() for _, use in closed):
                return Flow(*(matrix for matrix, _ in closed))
            E, Phi, Q = linear_flow(A, D, length)
            series = (E + np.eye(2), Phi @ G, Q)
            return Flow(*(np.where(use, matrix, other) for (matrix, use), other in zip(closed, series, strict=True)))


# The closed form is used where its terms add up to less than this times their sum: two digits of sixteen lost.
_MAX_CANCELLATION = 100.0


def _closed_form(
    length: Array, terms: list[Terms], numbers: list[list[tuple[complex, complex]]]
) -> tuple[Array, NDArray[np.bool_]]:
    """A matrix of the closed form, (*length.shape, 2, 2), and which of its entries are finite and do not cancel."""
    matrix = np.empty((*length.shape, 2, 2))
    use = np.empty(matrix.shape, dtype=bool)
    for index, (entry, pairs) in enumerate(zip(terms, numbers, strict=True)):
        place = (..., *divmod(index, 2))
        parts = [c * length**power * np.exp(r * length) for (_, power, _), (c, r) in zip(entry, pairs, strict=True)]
        total = sum(parts, np.zeros_like(length))
        size = sum((np.abs(part) for part in parts), np.zeros_like(length))
        matrix[place] = np.real(total)
        use[place] = np.isfinite(total) & (size <= _MAX_CANCELLATION * np.abs(total))
    return matrix, use


@cache
def exact_flow(sde: LinearSDE) -> ExactFlow:
    """The exact flow of `sde`, derived and proven once, then read from the cache on disk."""
    key = ("exact flow", sp.srepr(sde.drift), sp.srepr(sde.diffusion))
    return ExactFlow(sde, cached(key, lambda: _derive(sde)))


def euler_matrices(sde: LinearSDE) -> Flow:
    """The Euler flow as sympy matrices in theta: P = 1 + A theta, K = G theta, Q = D theta."""
    return Flow(sp.eye(2) + sde.matrix * theta, sde.score_gain * theta, sde.noise * theta)


def euler_flow(sde: LinearSDE, length: ArrayLike, values: Mapping[str, float]) -> Flow:
    """Explicit Euler(-Maruyama) over theta = `length`: P = 1 + A theta, K = G theta, Q = D theta."""
    scale = np.asarray(length, dtype=float)[..., None, None]
    A, G, D = sde.numbers(values)
    return Flow(np.eye(2) + A * scale, G * scale, D * scale)

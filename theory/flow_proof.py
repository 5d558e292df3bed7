"""The exact flow of a linear SDE with the score held fixed, derived and proven by sympy.

With s frozen, du = (A u + G s) dtheta + D^(1/2) dw, and its flow u -> P u + K s + xi, xi ~ N(0, Q), over theta is

    P = exp(A theta),    K = int_0^theta exp(A r) dr G,    Q = int_0^theta exp(A r) D exp(A r)^T dr.

Every entry is an exponential polynomial, sum_j c_j theta^p_j exp(r_j theta), and is proven: the residuals of

    P' = A P, P(0) = 1      K' = A K + G, K(0) = 0      Q' = A Q + Q A^T + D, Q(0) = 0

must simplify to exactly 0. theory.flows evaluates what is derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sympy as sp
from sympy import Expr, Matrix

from .exponential_polynomials import Collected, collect, expand, shown
from .flows import Flow, Terms
from .formulas import parse, text
from .model import LinearSDE
from .symbols import SYMBOLS, theta


def derive(sde: LinearSDE) -> dict[str, Any]:
    """The exact flow's terms, and the exact and the Euler flow in text (see `flows.derivation`); no exact one where the
    rates are roots of a cubic or a higher polynomial. Raises ValueError if the proof does not close.
    """
    euler = in_text(euler_matrices(sde))
    if sde.size > 2 and not _has_plain_rates(sde.matrix):
        return {"terms": None, "exact": None, "euler": euler}
    terms = derive_terms(sde)
    return {"terms": terms, "exact": in_text(matrices(terms, shown)), "euler": euler}


def _has_plain_rates(A: Any) -> bool:
    """Whether the eigenvalues hold nothing beyond square roots: Cardano's formulas do not simplify."""
    powers = [power.exp for rate in A.eigenvals() for power in rate.atoms(sp.Pow)]
    return all(exponent.is_Rational and exponent.q <= 2 for exponent in powers)


def in_text(flow: Flow) -> dict[str, list[str]]:
    """P, K and Q, n^2 entries each, row-major."""
    return {name: [text(entry) for entry in matrix.flat()] for name, matrix in zip("PKQ", flow, strict=True)}


def matrices(terms: list[list[Terms]], written: Callable[[Collected], Expr] = expand) -> Flow:
    """P, K and Q as sympy matrices in theta and the parameters, their entries as `written`."""

    def entry(of: Terms) -> Expr:
        return written({(power, parse(rate, SYMBOLS)): parse(c, SYMBOLS) for c, power, rate in of})

    return Flow(*(_square([entry(of) for of in matrix]) for matrix in terms))


def _square(entries: list[Any]) -> Matrix:
    n = math.isqrt(len(entries))
    return Matrix(n, n, entries)


def euler_matrices(sde: LinearSDE) -> Flow:
    """The Euler flow as sympy matrices in theta: P = 1 + A theta, K = G theta, Q = D theta."""
    return Flow(sp.eye(sde.size) + sde.matrix * theta, sde.score_gain * theta, sde.noise * theta)


def _exponential(A: Any) -> Any:
    """exp(A theta). Of one component it is that number; of a 2x2 matrix, with a = tr A / 2, B = A - a and B^2 = r^2 1,
    e^(a theta) times cosh(r theta) + B sinh(r theta) / r, or times 1 + B theta if r = 0 (sympy's own need not
    simplify); of a larger one Putzer's sum over its eigenvalues (Putzer 1966), which the proof checks as well."""
    n = A.shape[0]
    if n == 1:
        return Matrix([[sp.exp(A[0, 0] * theta)]])
    if n > 2:
        return _putzer(A)
    a = sp.simplify(A.trace() / 2)
    square = sp.factor(sp.simplify(a**2 - A.det()))
    B = (A - a * sp.eye(2)).applyfunc(sp.simplify)
    if square == 0:
        return (sp.eye(2) + B * theta) * sp.exp(a * theta)
    r: Any = sp.sqrt(square).replace(sp.Abs, lambda inside: inside)  # either root will do
    up, down = (sp.exp(rate * theta) for rate in map(sp.simplify, (a + r, a - r)))
    return (up + down) / 2 * sp.eye(2) + (up - down) / (2 * r) * B


def _putzer(A: Any) -> Any:
    """exp(A theta) = sum_k r_(k+1)(theta) P_k, P_k = (A - l_1) ... (A - l_k) over the eigenvalues l with their
    multiplicities, r_1' = l_1 r_1, r_k' = l_k r_k + r_(k-1), r_1(0) = 1 and the others 0."""
    rates = [rate for rate, count in A.eigenvals().items() for _ in range(count)]
    unit = sp.eye(A.shape[0])
    product, total, r = unit, sp.zeros(*A.shape), sp.S.Zero
    for k, rate in enumerate(rates):
        grown = sp.exp(rate * theta)
        r = grown if k == 0 else sp.expand(grown * _integrate(sp.expand(r / grown)))
        total += r * product
        product = (product * (A - rate * unit)).applyfunc(sp.simplify)
    return total


def _integrate(entry: Expr) -> Expr:
    """int_0^theta of an exponential polynomial, term by term (by parts: int r^p e^(ar) steps down in p)."""
    total = sp.S.Zero
    for (power, rate), coefficient in collect(entry).items():
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
        propagator.subs(theta, 0) - sp.eye(sde.size),
        score_gain.diff(theta) - A * score_gain - G,
        score_gain.subs(theta, 0),
        noise_cov.diff(theta) - A * noise_cov - noise_cov * A.T - D,
        noise_cov.subs(theta, 0),
    )
    return tuple(difference.applyfunc(sp.simplify) for difference in differences)


def derive_terms(sde: LinearSDE) -> list[list[Terms]]:
    """P, K and Q, each a row-major list of n^2 entries. Raises ValueError if the proof does not close."""
    propagator = _exponential(sde.matrix)
    gain = propagator.applyfunc(_integrate) * sde.score_gain
    noise = (propagator * sde.noise * propagator.T).applyfunc(_integrate)
    collected = [[collect(entry) for entry in matrix.flat()] for matrix in (propagator, gain, noise)]
    rebuilt = [_square([expand(entry) for entry in matrix]) for matrix in collected]
    for left_over in residuals(sde, *rebuilt):
        if any(entry != 0 for entry in left_over):
            raise ValueError(
                f"the flow of {sde.drift} could not be proven: a residual simplifies to {left_over}, and must be 0; "
                "write the drift more simply"
            )
    return [[[(text(c), p, text(r)) for (p, r), c in entry.items()] for entry in matrix] for matrix in collected]

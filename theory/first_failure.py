"""Where a condition on the step first fails: the first positive root of a polynomial or exponential polynomial, proven.

A condition is positive for small theta and fails where it vanishes. A polynomial with rational coefficients has its
roots isolated exactly. An exponential polynomial, a sum of c theta^p exp(r theta), is bracketed by interval arithmetic:
below the bracket it is proven to be positive, at its upper end to be negative. `enclosed` has or bounds
their values at one theta.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy as sp
from mpmath.ctx_iv import MPIntervalContext
from sympy import Expr

from .symbols import theta


@dataclass(frozen=True)
class StableStep:
    """Where stability ends, in theta = int beta over a step: stable for 0 < theta < low, not at theta just above high.

    Stable: all eigenvalues within the unit circle, but for those that lie on it whatever the step. condition: the Jury
    condition that fails first, a field of `Jury`; None if none fails up to the limit searched (low = high = limit).
    exact: the root as an algebraic number, where the conditions are polynomials; then low <= exact <= high. low = high
    = 0: no small step is stable, since the dynamics themselves are not. proven: whether all that is proven; else that
    the eigenvalues are within, or are not, for theta below low was read off those of one step, in floating point.
    """

    low: Fraction
    high: Fraction
    condition: str | None
    exact: Expr | None = None
    proven: bool = True


def first_failure(name: str, margin: Expr, limit: Fraction) -> StableStep:
    """Where the condition `name`, `margin` > 0 with `margin` a sympy expression in theta, first fails in (0, limit].

    One that vanishes for every theta fails nowhere. Raises ValueError on what is no exponential polynomial, or where
    its coefficients are so large that intervals would be too short to be of use; ArithmeticError where it touches 0.
    """
    if margin.is_polynomial(theta):
        return _polynomial_failure(name, sp.Poly(margin, theta), limit)
    terms = _collect(margin)
    with working_with(_digits(terms)):
        return _exponential_failure(name, terms, limit)


def _polynomial_failure(name: str, polynomial: Any, limit: Fraction) -> StableStep:
    """The first failure of a polynomial with rational coefficients, by exact root isolation."""
    held = StableStep(limit, limit, None)
    if polynomial.is_zero:
        return held
    while polynomial.eval(0) == 0:  # the step is the identity at theta = 0
        polynomial = polynomial.exquo(sp.Poly(theta, theta))
    if polynomial.eval(0) < 0:
        return StableStep(Fraction(0), Fraction(0), name)
    root: Any = next((root for root in polynomial.real_roots() if root > 0), None)
    if root is None or root > limit:
        return held
    if root.is_Rational:
        return StableStep(Fraction(root.p, root.q), Fraction(root.p, root.q), name, root)
    close: Any = sp.Rational(root.evalf(DIGITS))
    middle, width = Fraction(close.p, close.q), Fraction(1, 10**30)
    return StableStep(middle * (1 - width), middle * (1 + width), name, root)


# An exponential polynomial as {(power, rate): coefficient}: the sum of coefficient theta^power exp(rate theta).
Terms = dict[tuple[int, Any], Any]


def _collect(expression: Expr) -> Terms:
    terms: Terms = {}
    expanded: Any = sp.expand(expression.rewrite(sp.exp))
    for term in () if expanded == 0 else sp.Add.make_args(expanded):
        coefficient, dependent = term.as_independent(theta, as_Add=False)
        power, rate = 0, sp.S.Zero
        for factor in sp.Mul.make_args(dependent):
            base, exponent = factor.as_base_exp()
            if factor.func is sp.exp:
                rate += sp.expand(factor.args[0] / theta)
            elif base == theta and exponent.is_Integer and exponent > 0:
                power += int(exponent)
            elif factor != 1:
                raise ValueError(f"{factor} is not of the form theta^p exp(r theta)")
        terms[power, rate] = terms.get((power, rate), sp.S.Zero) + coefficient
    return {key: c for key, c in terms.items() if c != 0}


def _derivative(terms: Terms) -> Terms:
    result: Terms = {}
    for (power, rate), c in terms.items():
        for key, value in (((power, rate), c * rate), ((power - 1, rate), c * power)):
            result[key] = result.get(key, sp.S.Zero) + value
    return {key: c for key, c in result.items() if c != 0}


DIGITS, _TERMS, _LARGEST = 40, 4, 12
_iv: Any = MPIntervalContext()
_iv.dps = DIGITS


def _digits(terms: Terms) -> int:
    """The digits to work with: more where coefficients are large, which cancel where a rate is nearly 0. Raises
    ValueError where they are so large that intervals would have to be shorter than is of use."""
    sizes = [abs(part) for c in terms.values() for part in sp.sympify(c).as_real_imag()]
    large = max((math.ceil(sp.log(size, 10).evalf(5)) for size in sizes if size > 1), default=0)
    if large > _LARGEST:
        raise ValueError(
            f"coefficients of 1e{large} cancel in a condition: a rate (gamma, nu) or a difference of rates is next to "
            "nothing; give 0 for it, or more"
        )
    return DIGITS + 2 * large


@contextlib.contextmanager
def working_with(digits: int) -> Iterator[None]:
    """Interval arithmetic with more digits."""
    before, _iv.dps = _iv.dps, digits
    try:
        yield
    finally:
        _iv.dps = before


def _interval(number: Any) -> tuple[Any, Any]:
    """Real and imaginary part of a number as intervals that hold them."""
    parts = []
    for part in sp.sympify(number).as_real_imag():
        close: Any = part if part.is_Rational else sp.Rational(part.evalf(_iv.dps + 5))
        rounding = 0 if part.is_Rational else _iv.mpf([-1, 1]) / _iv.mpf(10) ** _iv.dps
        parts.append(_iv.mpf(close.p) / close.q * (1 + rounding))
    return parts[0], parts[1]


class Enclosure:
    """Bounds of an exponential polynomial on intervals, in interval arithmetic."""

    def __init__(self, terms: Terms) -> None:
        self.terms = [(_interval(c), power, _interval(rate)) for (power, rate), c in terms.items()]

    def __call__(self, theta: Any) -> Any:
        total = _iv.mpf(0)
        for (real, imaginary), power, (rate, frequency) in self.terms:
            phase = frequency * theta
            total += (real * _iv.cos(phase) - imaginary * _iv.sin(phase)) * theta**power * _iv.exp(rate * theta)
        return total


class _TaylorForm:
    """The Taylor form of an exponential polynomial: bounds on [a, b], tight to the `_TERMS`-th power of its length."""

    def __init__(self, terms: Terms) -> None:
        self.derivatives = []
        for _ in range(_TERMS + 1):
            self.derivatives.append(Enclosure(terms))
            terms = _derivative(terms)

    def __call__(self, a: Fraction, b: Fraction) -> Any:
        middle = between((a + b) / 2, (a + b) / 2)
        if a == b:
            return self.derivatives[0](middle)
        box = between(a, b)
        total = self.derivatives[-1](box)
        for k in range(_TERMS, 0, -1):
            total = self.derivatives[k - 1](middle) + (box - middle) * total / k
        return total


def _exponential_failure(name: str, terms: Terms, limit: Fraction) -> StableStep:
    """The first failure of an exponential polynomial f, bracketed: f > 0 is proven below, f < 0 at the upper end.

    At 0 f may vanish with its first k - 1 derivatives; where the k-th is positive on (0, b], so is f. Beyond, f is
    positive on [a, b] if its Taylor form is, f(c) + f'(c) d + ... + f^(n)([a, b]) d^n / n! with c the midpoint and
    d = [a, b] - c. What is nearly 0 over a long way, as 1 - det R of a flow that hardly damps, by e say, needs
    intervals of length e^(1/n).
    """
    held = StableStep(limit, limit, None)
    at_zero, value = terms, sp.S.Zero
    while value == 0:
        if not at_zero:
            return held
        value = sp.simplify(sp.Add(*(c for (power, _), c in at_zero.items() if power == 0)))
        at_zero = at_zero if value != 0 else _derivative(at_zero)
    if value < 0:
        return StableStep(Fraction(0), Fraction(0), name)
    f, lowest = _TaylorForm(terms), Enclosure(at_zero)
    proven = limit
    while not lowest(between(Fraction(0), proven)).a > 0:
        proven /= 2
    width = proven
    while proven < limit:
        end = min(limit, proven + width)
        if f(proven, end).a > 0:
            proven, width = end, 2 * width
        elif width > proven / 2**40:
            width /= 2
        else:
            while not f(end, end).b < 0:
                end += end - proven
                if end > proven * Fraction(1001, 1000):
                    raise ArithmeticError(f"the condition {name!r} touches zero at theta = {float(proven):.6g}")
            return StableStep(proven, end, name)
    return held


def between(low: Fraction, high: Fraction) -> Any:
    """The interval [low, high], rounded outwards."""
    ends = [_iv.mpf(end.numerator) / end.denominator for end in (low, high)]
    return _iv.mpf([ends[0].a, ends[1].b])


def vanishes(expression: Expr) -> bool:
    """Whether an exponential polynomial in theta is 0 for every theta."""
    return all(sp.simplify(c) == 0 for c in _collect(sp.expand(expression)).values())


def enclosed(expressions: Sequence[Expr], length: Fraction, digits: int = DIGITS) -> list[Any]:
    """Their values at theta = `length`: Fractions, exactly, where all are polynomials with rational coefficients; else
    intervals of so many digits that hold them, to be used within `working_with(digits)`."""
    terms = [_collect(sp.expand(expression)) for expression in expressions]
    if all(rate == 0 and sp.sympify(c).is_Rational for each in terms for (_, rate), c in each.items()):
        numbers: list[list[Any]] = [[(sp.Rational(c), power) for (power, _), c in each.items()] for each in terms]
        return [sum((Fraction(c.p, c.q) * length**power for c, power in each), Fraction(0)) for each in numbers]
    with working_with(digits):
        return [Enclosure(each)(between(length, length)) for each in terms]

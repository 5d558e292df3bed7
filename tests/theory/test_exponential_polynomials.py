"""Exponential polynomials add, multiply and are shown as sympy's expressions are."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from weakorder.theory.exponential_polynomials import ExponentialPolynomial, collect, expand, expression, unit
from weakorder.theory.model import gamma, nu, theta

FIELD = sp.QQ.frac_field(gamma, nu)
NUMBERS = st.sampled_from([sp.Rational(1, 3), -sp.S.One, gamma, nu / 7, gamma - nu, 1 / (gamma - nu), gamma**2 * nu])
RATES = st.sampled_from([sp.S.Zero, gamma, -gamma, -nu / 2, (gamma + nu) / 7, 2 * gamma / 315])
TERMS = st.dictionaries(st.tuples(st.integers(0, 3), RATES), NUMBERS, max_size=4)


def of(terms: dict[Any, Any]) -> ExponentialPolynomial:
    number = FIELD.from_sympy
    return ExponentialPolynomial({(power, number(rate)): number(c) for (power, rate), c in terms.items()})


def assert_is(polynomial: ExponentialPolynomial, expected: sp.Expr) -> None:
    """Collected, both have the same terms."""
    assert polynomial == of(collect(expected))
    assert of(collect(expression(polynomial, FIELD))) == polynomial


@given(TERMS, TERMS)
def test_sums_and_products_are_those_of_the_expressions(first: dict[Any, Any], second: dict[Any, Any]) -> None:
    one, other = of(first), of(second)
    assert_is(one + other, expand(first) + expand(second))
    assert_is(one * other, expand(first) * expand(second))


@given(TERMS, st.fractions(Fraction(1, 11), 2, max_denominator=11))
def test_a_multiple_of_theta_is_put_in_its_place(terms: dict[Any, Any], weight: Fraction) -> None:
    w = sp.Rational(weight.numerator, weight.denominator)
    assert_is(of(terms).at_multiple(FIELD.from_sympy(w)), expand(terms).subs(theta, w * theta))


def test_terms_that_cancel_are_gone() -> None:
    one = of({(1, gamma): nu, (0, sp.S.Zero): sp.S.One})
    assert (one + of({(1, gamma): -nu})).terms == {(0, FIELD.zero): FIELD.one}
    assert one != one + one


def test_the_unit_flow_changes_nothing() -> None:
    one = unit(FIELD, 2)
    assert one.then(one).propagator.tolist() == one.propagator.tolist()
    assert (one.propagator @ one.score_gain).tolist() == one.noise_cov.tolist()


@pytest.mark.parametrize(
    "entry", [sp.exp(theta**2), sp.exp(gamma * theta) * sp.exp(theta**2 * nu), 1 / (1 + sp.exp(theta))]
)
def test_what_is_no_exponential_polynomial_is_refused(entry: sp.Expr) -> None:
    with pytest.raises(ValueError, match="is not an exponential polynomial in theta"):
        collect(entry)

"""Formulas as text: what is written is read back and evaluated to the same, and nothing but arithmetic is ever run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from weakorder.theory.formulas import compiled, parse, shown, text

gamma, nu, jet = sp.Symbol("gamma", nonnegative=True), sp.Symbol("nu", nonnegative=True), sp.Symbol("s_x,mt")
SYMBOLS = {"gamma": gamma, "nu": nu}
VALUES = {"gamma": np.float64(0.3), "nu": np.float64(2.0), "s_x,mt": np.float64(-1.7)}

LEAVES = st.sampled_from([gamma, nu, jet, sp.Integer(-2), sp.Rational(1, 3), sp.Float(0.1), sp.pi, sp.E])


def _grown(inner: st.SearchStrategy) -> st.SearchStrategy:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(sum),
        pairs.map(lambda pair: pair[0] * pair[1]),
        pairs.map(lambda pair: pair[0] / (4 + pair[1] ** 2)),
        inner.map(lambda value: value**3),
        inner.map(lambda value: sp.sqrt(1 + value**2)),
        st.tuples(st.sampled_from([sp.exp, sp.Abs, sp.atan, sp.tanh, sp.sin]), inner).map(
            lambda drawn: drawn[0](sp.Rational(1, 8) * drawn[1])
        ),
        pairs.map(lambda pair: sp.Max(*pair)),
    )


EXPRESSIONS = st.recursive(LEAVES, _grown, max_leaves=8)


def number(expression) -> float:
    values = {symbol: sp.Float(float(VALUES[str(symbol)]), 30) for symbol in expression.free_symbols}
    return float(sp.N(expression.subs(values), 20))


@given(st.lists(EXPRESSIONS, min_size=1, max_size=3))
def test_text_is_evaluated_to_what_sympy_evaluates(expressions) -> None:
    """Several formulas at once, whose common parts are computed once."""
    evaluate = compiled([text(expression) for expression in [*expressions, expressions[0]]])
    assert set(evaluate.names) == {str(s) for expression in expressions for s in expression.free_symbols}
    found = evaluate(VALUES)
    assert found[-1] == found[0]
    for value, expression in zip(found, expressions, strict=False):
        assert float(value) == pytest.approx(number(expression), rel=1e-11, abs=1e-11)


@given(EXPRESSIONS)
def test_text_is_read_back_to_the_same_function_of_the_same_symbols(expression) -> None:
    again = parse(text(expression), SYMBOLS)
    assert again.free_symbols == expression.free_symbols
    assert number(again) == pytest.approx(number(expression), rel=1e-14, abs=1e-14)


def test_a_float_keeps_its_last_digit() -> None:
    value = math.nextafter(0.1, 1)
    assert float(compiled([text(sp.Float(value) * gamma)])({"gamma": 1.0})[0]) == value
    assert parse(text(sp.Float(value)), {}) == sp.Float(value)


def test_common_parts_are_computed_once() -> None:
    calls = []

    class Counted(float):
        def __mul__(self, other):
            calls.append(other)
            return float(self) * other

    first, second = compiled(["gamma*nu + sin(gamma*nu)", "(gamma*nu)**2"])({"gamma": Counted(2.0), "nu": 3.0})
    assert (first, second) == (6 + math.sin(6), 36)
    assert calls == [3.0]


def test_roots_of_negative_numbers_are_complex_only_where_that_is_asked_for() -> None:
    assert compiled(["sqrt(gamma)"], complex_roots=True)({"gamma": -4.0}) == [2j]
    with np.errstate(invalid="ignore"):
        assert np.isnan(compiled(["sqrt(gamma)"])({"gamma": -4.0})[0])


def test_people_see_powers_as_they_write_them() -> None:
    assert shown("gamma**2*nu") == "gamma^2*nu"


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os')",
        "gamma.real",
        "gamma[0]",
        "'text'",
        "[gamma]",
        "(lambda: gamma)()",
        "gamma if nu else gamma",
        "gamma < nu",
        "open(gamma)",
        "exp(gamma, out=nu)",
        "exp(*gamma)",
        "gamma // nu",
        "(gamma := nu)",
        "1j",
        "f'{gamma}'",
    ],
)
def test_what_is_no_formula_is_refused_and_never_run(formula: str) -> None:
    with pytest.raises(ValueError, match="which is not evaluated; use arithmetic and"):
        compiled([formula])


def test_a_function_that_numpy_has_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'zeta\(gamma\)'"):
        compiled([text(sp.zeta(gamma))])

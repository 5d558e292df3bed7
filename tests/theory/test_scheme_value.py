"""A scheme as a value: frozen, compared by what it does, and checked again when a field is replaced."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import pytest
from weakorder.theory.scheme import Scheme, Token, WordError, parse
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, Splitting

HALF = Fraction(1, 2)


def test_lambda_s_makes_a_scheme_inconsistent_and_says_so() -> None:
    tuned = Scheme("O S B A", PSLD, lambda_s=1.05)
    assert tuned.inconsistencies == ("lambda_s = 1.05 changes the noise of the position, it is 1 in the reverse SDE",)
    assert Scheme("O S B A", PSLD, lambda_s=1.0).inconsistencies == ()
    assert tuned != Scheme("O S B A", PSLD)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e7, float("inf"), float("nan"), float("-inf")])
def test_lambda_s_must_be_a_positive_number_of_a_size_that_is_meant(value: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"lambda_s = {value:g} must be a number in")):
        Scheme("O S B A", PSLD, lambda_s=value)


@pytest.mark.parametrize(
    ("word", "splitting"), [("S B A", PSLD_FLOW), ("O A S B", LANGEVIN), ("S B A", PSLD)], ids=lambda v: str(v)[:9]
)
def test_lambda_s_without_noise_in_position_is_refused(word: str, splitting: Splitting) -> None:
    with pytest.raises(
        ValueError, match=rf"lambda_s = 1.1 scales the noise in position, and '{word}' .* leave it at 1"
    ):
        Scheme(word, splitting, lambda_s=1.1)
    assert Scheme(word, splitting).lambda_s == 1


@pytest.mark.parametrize(
    ("word", "splitting"), [("S F", PSLD_WHOLE), ("U(1/2) S E U(1/2)", PSLD_LINEAR), ("O S B A", PSLD)]
)
def test_lambda_s_with_noise_in_position_is_accepted(word: str, splitting: Splitting) -> None:
    assert Scheme(word, splitting, lambda_s=1.1).lambda_s == 1.1


@pytest.mark.parametrize("flow", ["euler", "exact", "midpoint", "true"])
def test_the_sub_flows_of_the_design_are_known(flow: str) -> None:
    assert Scheme("O S B A", PSLD, flow=flow).flow == flow


def test_an_unknown_sub_flow_and_an_order_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"flow 'heun' is unknown; choose one of euler, exact"):
        Scheme("O S B A", PSLD, flow="heun")
    for order in (0, -1):
        with pytest.raises(ValueError, match=rf"order {order} is not a weak order; it is an integer >= 1, or None"):
            Scheme("O S B A", PSLD, order=order)


def test_a_scheme_is_called_by_its_word_unless_it_is_given_a_name() -> None:
    assert Scheme("O S  B A(1.0)", PSLD).name == "O S B A"
    assert Scheme("O S B A", PSLD, name="ROBA").name == "ROBA"


@pytest.mark.parametrize("field", ["word", "splitting", "name", "flow", "lambda_s", "order", "reference", "tokens"])
def test_a_scheme_is_frozen(field: str) -> None:
    scheme = parse("O S B A")
    with pytest.raises(FrozenInstanceError):
        setattr(scheme, field, getattr(scheme, field))


def test_a_token_is_frozen() -> None:
    token = parse("O S B A").tokens[0]
    with pytest.raises(FrozenInstanceError):
        token.weight = HALF  # type: ignore[misc]


def test_replacing_a_field_checks_the_scheme_again() -> None:
    scheme = Scheme("O S B A", PSLD, name="ROBA")
    assert replace(scheme, word="O S B(1/2) A S@1 B(1/2)").tokens[2] == Token("B", HALF, Fraction(0), False)
    with pytest.raises(WordError):
        replace(scheme, word="O B A")


def test_equal_schemes_are_equal_keys() -> None:
    first, second = Scheme("O S B(0.5) A", PSLD), Scheme(" O S B(1/2) A ", PSLD)
    assert first == second
    assert len({first, second, Scheme("O S B(1/2) A", PSLD, flow="exact")}) == 2

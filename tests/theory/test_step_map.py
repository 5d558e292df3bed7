"""The symbolic one-step map is the compiled one, and `derive` shows what was derived."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from selection import examples
from strategies import splittings, words
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_step
from weakorder.reports.pages.derivation import derivation_text, derive
from weakorder.theory import flows
from weakorder.theory.cache import afresh
from weakorder.theory.model import Diffusion, LinearSDE, Parameters, gamma, m, nu, theta, x
from weakorder.theory.scheme import FROZEN_FLOWS, Scheme
from weakorder.theory.splitting import PSLD, PSLD_LINEAR, whole_of
from weakorder.theory.step_map import step_map, step_map_text

PARAMS = Parameters(gamma=0.3, nu=2.1, beta_min=5.0, beta_max=5.0)
H = 0.04
UNDERDAMPED = Diffusion("underdamped", LinearSDE((m, -x - gamma * m), (0, sp.sqrt(2 * gamma))), (1,), (1, 1))


def _numbers(matrix: sp.Matrix) -> np.ndarray:
    values = {gamma: PARAMS.gamma, nu: PARAMS.nu, theta: PARAMS.beta_min * H}
    numbers = np.array(matrix.subs(values).evalf(30).tolist(), dtype=complex)  # an oscillator's rates come in pairs
    assert np.abs(numbers.imag).max() < 1e-20
    return numbers.real


def assert_same_map(scheme: Scheme) -> None:
    """Constant beta: a part of weight w acts over w theta, whatever its clock."""
    compiled = [
        segment
        for segment in compile_step(scheme, np.array([0.3, 0.3 + H]), PARAMS)
        if segment.time is not None or not np.array_equal(segment.flow.propagator[0], np.eye(2))
    ]
    symbolic = step_map(scheme)
    assert len(symbolic) == len(compiled)
    for (time, flow), segment in zip(symbolic, compiled, strict=True):
        assert (time is None) == (segment.time is None)
        if time is not None:
            assert segment.time[0] == pytest.approx(0.7 - float(time) * H, abs=1e-14)
        for entry, compiled_entry in zip(flow, segment.flow, strict=True):
            np.testing.assert_allclose(_numbers(entry), compiled_entry[0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("flow", FROZEN_FLOWS)
@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_the_symbolic_map_of_the_catalogue_is_the_compiled_one(scheme: Scheme, flow: str) -> None:
    assert_same_map(replace(scheme, flow=flow))


@examples(5)
@given(st.data(), st.sampled_from(FROZEN_FLOWS))
def test_the_symbolic_map_of_a_random_word_is_the_compiled_one(data: st.DataObject, flow: str) -> None:
    splitting = data.draw(splittings())
    assert_same_map(Scheme(data.draw(words(splitting)), splitting, flow=flow))


# Sympy's `simplify` was still looking for the first one's shortest covariance after three minutes; for the second's,
# with the root of gamma^2 - 4 in its rates, it needed two.
@pytest.mark.parametrize(
    "scheme",
    [
        Scheme("S O(1/5) A(1/3) O(1/7) B(1/11) O(1/9) A(2/3) B(10/11) O(172/315)", PSLD),
        Scheme("S F(3/7) F(4/7)", whole_of(UNDERDAMPED), flow="exact"),
    ],
    ids=["no small common denominator", "rates with a root"],
)
def test_weights_of_any_denominators_have_a_map(scheme: Scheme) -> None:
    assert_same_map(scheme)


def test_a_map_is_shown_rate_by_rate_in_the_shorter_of_its_forms() -> None:
    with afresh():
        (_, (_, euler)), ((_, before), (_, after)), ((_, kick), *_) = (
            step_map_text(CATALOGUE[name]) for name in ("ROBA", "SSCS", "NVV")
        )
        part = flows.derivation(PSLD_LINEAR["U"].sde)["exact"]
    assert euler["P"] == [
        "gamma*theta - theta**2*(gamma - nu)**2/16 + 1",
        "-theta*(gamma - nu)**2*(nu*theta + 1)/8",
        "theta/2",
        "nu*theta + 1",
    ]
    assert after["Q"][3] == (
        "(-theta**2/8 - theta/(gamma - nu) - 4/(gamma - nu)**2)*exp(-theta*(gamma + nu)/4) + 4/(gamma - nu)**2"
    )
    assert part["P"][0] == "(-theta*(gamma - nu)/4 + 1)*exp(-theta*(gamma + nu)/4)"
    assert kick["P"][3] == "nu*theta/4 + 1"
    assert before["P"][3] == "(theta*(gamma - nu)/8 + 1)*exp(-theta*(gamma + nu)/8)"
    assert after["P"][3] == "(nu*theta + 1)*(theta*(gamma - nu) + 8)*exp(-theta*(gamma + nu)/8)/8"
    assert after["Q"][0] == "(-theta**2*(gamma - nu)**2/32 + theta*(gamma - nu)/4 - 1)*exp(-theta*(gamma + nu)/4) + 1"


def test_the_comparison_of_maps_sees_another_sub_flow() -> None:
    euler, exact = step_map(CATALOGUE["ROBA"])[1], step_map(replace(CATALOGUE["ROBA"], flow="exact"))[1]
    assert not np.allclose(_numbers(euler.flow.propagator), _numbers(exact.flow.propagator), rtol=1e-6)


def test_the_position_noise_of_the_map_scales_with_lambda_s() -> None:
    plain, louder = (step_map(replace(CATALOGUE["ROBA"], lambda_s=scale))[0].flow.noise_cov for scale in (1.0, 1.25))
    assert sp.simplify(louder[0, 0] / plain[0, 0]) == sp.Rational(25, 16)
    assert sp.simplify(louder[1, 1] - plain[1, 1]) == 0


@pytest.mark.parametrize("flow", ["midpoint", "true"])
def test_a_sub_flow_that_follows_the_score_has_no_map(flow: str) -> None:
    with pytest.raises(ValueError, match=r"no affine map of u and s; use euler or exact"):
        step_map(Scheme("O S B A", PSLD, flow=flow))


def test_derive_answers_with_what_the_command_line_promises() -> None:
    answer = derive(CATALOGUE["ROBA"], 1, linear_beta=False)
    assert {"word", "splitting", "order", "nfe_per_step", "palindrome", "leading_error"} <= set(answer)
    assert (answer["order"], answer["nfe_per_step"], answer["palindrome"]) == (1, 1, False)
    assert answer["leading_error"]["dx^2"] == "beta^2*gamma^2*s_x,x + beta^2*gamma^2"
    assert answer["leading_error_latex"]["dx^2"] == r"\beta^{2} \gamma^{2} s_{x,x} + \beta^{2} \gamma^{2}"
    assert json.loads(json.dumps(answer)) == answer
    text = derivation_text(answer)
    for shown in ("P_mm = exp(-nu*theta/2)", "order 1", "E[dx^2]: beta^2*gamma^2*s_x,x + beta^2*gamma^2", r"\beta^{2}"):
        assert shown in text


@pytest.mark.parametrize(
    ("scheme", "limit"),
    [
        (Scheme("U(1/2) S@1/2 E U(1/2)", PSLD_LINEAR), "freezing the score: with true flows the order would be 2"),
        (Scheme("U(1/2) S E U(1/2)", PSLD_LINEAR), "the times of its S: with true flows the order is 1 too"),
        (Scheme("U(1/2) S@1/2 E U(1/2)", PSLD_LINEAR, flow="true"), "its parts follow the true score"),
        (Scheme("O S B A(1/2)", PSLD), "not consistent: the weights of A sum to 1/2"),
    ],
)
def test_derive_says_what_limits_a_scheme(scheme: Scheme, limit: str) -> None:
    assert limit in derive(scheme, 1, linear_beta=True)["limited_by"]


def test_a_clock_slip_shows_in_the_two_orders() -> None:
    answer = derive(Scheme("U(1/2) S@1/2 E U(1/2)@0", PSLD_LINEAR, flow="true"), 1, linear_beta=False)
    assert (answer["order"], answer["order_for_constant_beta"], answer["order_for_linear_beta"]) == (2, 2, 1)


def test_every_scheme_of_the_catalogue_can_be_derived_as_text() -> None:
    for scheme in CATALOGUE.values():
        assert f"order {scheme.order};" in derivation_text(derive(scheme, 1, linear_beta=True))

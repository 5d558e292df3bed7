"""Declarations and parameters: bad ones are refused by name, and theta integrates beta to the last digits."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from strategies import parameters
from weakorder.theory.model import (
    PSLD_DIFFUSION,
    LinearSDE,
    Parameters,
    gamma,
    m,
    nu,
    s_m,
    s_x,
    theta,
    x,
)


@pytest.mark.parametrize(
    ("drift", "diffusion", "fragments"),
    [
        ((x**2, m), (0, 0), ["x**2", "not linear"]),
        ((x * m, m), (0, 0), ["m*x", "not linear"]),
        ((sp.sin(x), m), (0, 0), ["sin(x)", "not linear"]),
        ((x * s_x, m), (0, 0), ["s_x*x", "not linear"]),
        ((x + 1, m), (0, 0), ["x + 1", "not linear"]),
        ((gamma, m), (0, 0), ["gamma", "not linear"]),
        ((sp.Abs(x), m), (0, 0), ["Abs(x)", "not linear"]),
        ((sp.Symbol("omega") * x, m), (0, 0), ["omega*x", "unknown symbol omega", "gamma", "nu", "kappa"]),
        ((sp.Symbol("gamma") * x, m), (0, 0), ["unknown symbol gamma"]),  # a plain one is not the model's
        ((theta * x, m), (0, 0), ["unknown symbol theta"]),
        ((x, m), (x, 0), ["diffusion x", "unknown symbol x"]),
        ((x, m), (0, s_m), ["diffusion s_m", "unknown symbol s_m"]),
        ((x, m, x), (0, 0), ["diffusion has 2 entries", "as many as drift, 3"]),
        ((x, m), (1,), ["diffusion has 1 entries", "as many as drift, 2"]),
        ((x, m, x, x, x), (), ["drift has 5 entries", "one for each component"]),
    ],
)
def test_a_bad_sde_is_refused_with_its_expression_and_the_rule(drift: Any, diffusion: Any, fragments: Any) -> None:
    with pytest.raises(ValueError, match=r"drift|diffusion") as caught:
        LinearSDE(drift, diffusion)
    message = str(caught.value)
    assert "\n" not in message
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_a_drift_that_is_linear_once_simplified_is_accepted() -> None:
    sde = LinearSDE(((gamma**2 - nu**2) * x / (gamma + nu) + 2 * (s_x + m), sp.S.Zero))
    assert sde.matrix[0, 1] == 2
    assert sde.uses_score
    assert not sde.has_noise


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"gamma": -0.1}, ["gamma = -0.1", ">= 0"]),
        ({"nu": -4.0}, ["nu = -4", ">= 0"]),
        ({"kappa": -1e-9}, ["kappa = -1e-09", ">= 0"]),
        ({"gamma": float("nan")}, ["gamma = nan", "finite"]),
        ({"nu": float("inf")}, ["nu = inf", "finite"]),
        ({"beta_max": float("-inf")}, ["beta_max = -inf", "finite"]),
        ({"eps": float("nan")}, ["eps = nan", "finite"]),
        ({"beta_min": 0.0}, ["beta_min = 0", "> 0"]),
        ({"beta_max": -8.0}, ["beta_max = -8", "> 0"]),
        ({"gamma": 4.01}, ["gamma = nu = 4.01", "apart"]),
        ({"gamma": 0.0, "nu": 0.0}, ["gamma = nu = 0", "apart"]),
        ({"eps": 0.0}, ["eps = 0", "[1e-12, 1)"]),
        ({"eps": 1.0}, ["eps = 1", "[1e-12, 1)"]),
        ({"eps": -0.001}, ["eps = -0.001", "[1e-12, 1)"]),
        ({"eps": 2.0}, ["eps = 2", "[1e-12, 1)"]),
    ],
    ids=str,
)
def test_bad_parameters_are_refused_in_one_line_that_names_the_value_and_the_rule(
    values: dict[str, float], fragments: list[str]
) -> None:
    with pytest.raises(ValueError, match=next(iter(values))) as caught:
        Parameters(**values)
    message = str(caught.value)
    assert "\n" not in message
    assert [fragment for fragment in fragments if fragment not in message] == []


@pytest.mark.parametrize("values", [{"gamma": 0.0}, {"nu": 0.0}, {"kappa": 0.0}, {"beta_min": 9.0}, {"eps": 0.999}])
def test_parameters_at_the_edge_of_the_rules_are_accepted(values: dict[str, float]) -> None:
    params = Parameters(**values)
    assert all(getattr(params, name) == value for name, value in values.items())


def test_the_default_parameters_are_the_published_cifar10_model() -> None:
    params = Parameters()
    assert (params.gamma, params.nu, params.kappa) == (0.01, 4.01, 0.04)
    assert (params.beta_min, params.beta_max, params.eps, params.T) == (8, 8, 1e-3, 1)
    assert (params.M_inv, params.M) == pytest.approx((4, 0.25), rel=1e-15)


@given(parameters())
def test_generated_parameters_have_the_mass_of_critical_damping(params: Parameters) -> None:
    difference = Fraction(params.gamma) - Fraction(params.nu)
    assert params.M_inv == pytest.approx(float(difference**2 / 4), rel=1e-12)
    (momentum,) = PSLD_DIFFUSION.data_variances(params.values())
    prior_x, prior_m = PSLD_DIFFUSION.prior_variances(params.values())
    assert prior_x == 1
    assert prior_m == pytest.approx(params.M, rel=1e-12)
    assert momentum == pytest.approx(params.kappa * params.M, rel=1e-12)


def exact_integral(params: Parameters, t: float, length: float) -> Fraction:
    """int of beta over [t - length, t], in rationals."""
    slope = Fraction(params.beta_max) - Fraction(params.beta_min)

    def antiderivative(time: Fraction) -> Fraction:
        return Fraction(params.beta_min) * time + slope * time**2 / 2

    return antiderivative(Fraction(t)) - antiderivative(Fraction(t) - Fraction(length))


@given(parameters(), st.floats(0.001, 1.0), st.one_of(st.floats(1e-14, 1.0), st.floats(-14, 0).map(lambda e: 10.0**e)))
def test_theta_integrates_beta_exactly(params: Parameters, t: float, share: float) -> None:
    """Up to a few roundings, relative, however short the interval."""
    length = t * share
    expected = exact_integral(params, t, length)
    # beta(t - length/2) adds two terms whose sizes are at most beta_min and |beta_max - beta_min|.
    scale = Fraction(max(params.beta_min, params.beta_max)) * Fraction(length)
    assert abs(Fraction(params.theta(t, length)) - expected) <= 8 * Fraction(2) ** -53 * scale


def test_a_theta_that_takes_the_integral_at_one_end_or_by_difference_is_wrong() -> None:
    params, t, length = Parameters(beta_min=0.1, beta_max=20.0), 0.7, 1e-9
    expected = float(exact_integral(params, t, length))

    def integral(time: float) -> float:
        return params.theta(time, time)

    assert params.theta(t, length) == pytest.approx(expected, rel=1e-15, abs=0)
    assert params.beta(t) * length != pytest.approx(expected, rel=1e-10, abs=0)
    assert integral(t) - integral(t - length) != pytest.approx(expected, rel=1e-10, abs=0)


def test_theta_is_elementwise_on_arrays() -> None:
    params = Parameters(beta_min=0.1, beta_max=20.0)
    lengths = np.array([0.0, 0.1, 0.5])
    assert params.theta(0.8, lengths).tolist() == [params.theta(0.8, float(length)) for length in lengths]

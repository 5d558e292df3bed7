"""The largest stable step of three components and more is proven: on examples known by hand, against eigenvalues."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from diffusions import PARTED_THIRD, THIRD
from hypothesis import given
from hypothesis import strategies as st
from mpmath.ctx_iv import MPIntervalContext
from weakorder.theory import stability
from weakorder.theory.first_failure import enclosed, vanishes, working_with
from weakorder.theory.jury import characteristic, divided, within
from weakorder.theory.model import Diffusion, LinearSDE, a, j, m, s_a, theta, x
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import Part, Splitting
from weakorder.verification.stability import growth
from weakorder.verification.verdicts import spectral_radius

NUMBERS = {"gamma": 1.0, "nu": 0.0, "kappa": 1.0}
# Three components apart: R = 1 - theta diag(rates).
APART = Diffusion("apart", LinearSDE((-x / 2, -m / 2, -a / 2), (1, 1, 1)), (1, 1), (1, 1, 1))
REVERSE = APART.reverse()
EULER_APART = Scheme("S F", Splitting("apart", APART, REVERSE, (Part("F", REVERSE.drift, REVERSE.diffusion),)))


def rates_of(*rates: int) -> sp.Matrix:
    """The precision at which they are those."""
    return sp.diag(1, 1, 1) / 2 + sp.diag(*rates)


# --- Schur's and Cohn's recursion -------------------------------------------------------------------------------------


def product(roots: list[complex]) -> list[Fraction]:
    """The polynomial with these roots (and their conjugates) in exact binary values, the leading coefficient first."""
    polynomial = [Fraction(1)]
    for root in roots:
        re, im = Fraction(root.real), Fraction(root.imag)
        factor = [Fraction(1), -re] if im == 0 else [Fraction(1), -2 * re, re**2 + im**2]
        result = [Fraction(0)] * (len(polynomial) + len(factor) - 1)
        for i, p in enumerate(polynomial):
            for k, q in enumerate(factor):
                result[i + k] += p * q
        polynomial = result
    return polynomial


@given(st.lists(st.tuples(st.floats(0, 1.6), st.sampled_from([0, 0.4, 1.9, np.pi])), min_size=1, max_size=3))
def test_the_recursion_says_exactly_whether_all_roots_are_within(polar: list[tuple[float, float]]) -> None:
    roots = [complex(r * np.cos(angle), 0 if angle in (0, np.pi) else r * np.sin(angle)) for r, angle in polar]
    exact = all(Fraction(root.real) ** 2 + Fraction(root.imag) ** 2 < 1 for root in roots)
    assert within(product(roots)) is exact


def test_a_root_on_the_circle_is_not_within_and_intervals_that_hold_it_do_not_decide() -> None:
    assert within(product([1 + 0j, 0.5 + 0j])) is False
    assert within(product([0.6 + 0.8j, 0.5 + 0j])) is False  # in binary values a little within or beyond
    below = within([Fraction(1), Fraction(-1) + Fraction(1, 10**30)])
    assert below is True
    iv: Any = MPIntervalContext()
    assert within([iv.mpf(1), iv.mpf([-1.1, -0.9])]) is None
    assert within([iv.mpf(1), iv.mpf([-0.9, -0.8])]) is True
    assert within([iv.mpf(1), iv.mpf([-1.9, -1.1])]) is False


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_characteristic_polynomial_has_the_eigenvalues_as_roots(size: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).integers(-3, 4, (size, size))
    polynomial = characteristic(sp.Matrix(matrix.tolist()))
    np.testing.assert_allclose([float(c) for c in polynomial], np.poly(matrix), atol=1e-9)
    times = [first - 2 * second for first, second in zip([*polynomial, 0], [0, *polynomial], strict=True)]
    assert divided(times, 2) == polynomial


def test_values_are_exact_or_enclosed() -> None:
    length = Fraction(1, 3)
    assert enclosed([theta**2 - 1, sp.Integer(2)], length) == [Fraction(-8, 9), Fraction(2)]
    bounds, whole = enclosed([sp.exp(-theta) + theta, sp.S.One], length, 60)
    with working_with(60):
        assert bounds.delta < 1e-55
        assert whole.delta == 0
    assert float(bounds.a) == pytest.approx(np.exp(-1 / 3) + 1 / 3, rel=1e-15)
    assert vanishes((1 + theta) ** 2 - 1 - 2 * theta - theta**2)
    assert vanishes(sp.exp(theta) * sp.exp(-theta) - 1)
    assert not vanishes(sp.exp(theta) - 1)


# --- Examples by hand -------------------------------------------------------------------------------------------------


def oscillator(flow: str, more: bool = False) -> Scheme:
    """Without noise (x, m) turn about 0, and a is by itself; or (a, j) turn beside them at three times the rate."""
    if more:
        forward = LinearSDE((m, -x, 3 * j, -3 * a), (0, 0, 0, 0))
        parts = (Part("A", (-m, 0, 0, 0)), Part("B", (0, x, 0, 0)), Part("C", (0, 0, -3 * j, 0)))
        parts = (*parts, Part("D", (0, 0, 0, 3 * a)))
    else:
        forward = LinearSDE((m, -x, -a / 2), (0, 0, 1))
        parts = (Part("A", (-m, 0, 0)), Part("B", (0, x, 0)), Part("C", (0, 0, a / 2 + s_a / 2)))
    diffusion = Diffusion("turning", forward, (1,) * (forward.size - 1), (1,) * forward.size)
    whole = diffusion.reverse(0)
    return Scheme("A B C D" if more else "A B S C", Splitting("turning", diffusion, whole, parts), flow=flow)


@pytest.mark.parametrize(
    ("precision", "flow", "limit", "condition"),
    [
        (2, "euler", 2, "flip"),  # of the pair: trace 2 - theta^2
        (7, "euler", Fraction(2, 3), "flip"),  # of 1 - 3 theta
        (Fraction(1, 2), "euler", 0, "growth"),  # 1 + theta / 4
        (2, "exact", 2 * np.log(3), "flip"),  # of 2 - exp(theta/2); the pair is that of the exact flows, no limit
        (7, "exact", 2 * np.log(4 / 3), "flip"),  # 7 - 6 exp(theta/2)
        (Fraction(1, 2), "exact", 0, "growth"),
    ],
)
def test_a_pair_that_stays_on_the_circle_is_no_limit_until_it_leaves(precision, flow, limit, condition) -> None:
    """A symplectic word beside one component: the product of the pair is 1 whatever the step, and that is proven."""
    step = stability.largest_stable_step(oscillator(flow), sp.diag(1, 1, precision), NUMBERS)
    if flow == "exact" and precision == 2:
        limit = min(limit, 2)  # A and B each follow x or m alone: their exact flows are Euler's
    assert step.proven
    assert step.condition == condition
    assert float(step.low) <= limit * (1 + 1e-12)
    assert float(step.high) == pytest.approx(float(limit), rel=1e-9)


def test_where_two_pairs_stay_on_the_circle_the_answer_says_that_it_is_not_proven() -> None:
    step = stability.largest_stable_step(oscillator("euler", more=True), sp.eye(4), NUMBERS)
    assert not step.proven
    assert float(step.high) == pytest.approx(2 / 3, rel=1e-9)  # trace 2 - 9 theta^2
    assert step.condition == "flip"


def test_an_eigenvalue_that_is_one_at_every_step_is_no_limit_and_hides_none() -> None:
    for rates, limit, condition in (
        ((0, 1, 4), Fraction(1, 2), "flip"),
        ((0, 0, 3), Fraction(2, 3), "flip"),
        ((0, 0, 0), 8, None),
        ((0, 1, -1), 0, "growth"),
        ((0, -1, -2), 0, "rotation"),  # as of two components that expand: det R > 1
        ((-1, -2, 1), 0, "growth"),  # two leave at once: all three quantities are positive
        ((1, 2, 3), Fraction(2, 3), "flip"),
    ):
        step = stability.largest_stable_step(EULER_APART, rates_of(*rates), NUMBERS)
        assert (step.low, step.condition, step.proven) == (limit, condition, True)


def test_without_the_recursion_a_word_that_expands_would_be_called_stable(monkeypatch) -> None:
    at = rates_of(-1, -2, 1)
    assert stability.largest_stable_step(EULER_APART, at, NUMBERS).high == 0
    monkeypatch.setattr(stability, "within", lambda _: True)
    assert stability.largest_stable_step(EULER_APART, at, NUMBERS).high > 0


# --- Against eigenvalues ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["euler", "exact"])
@pytest.mark.parametrize("word", ["S O B A", "A S O B"])
def test_below_the_limit_all_eigenvalues_are_within_and_above_one_is_not(word: str, flow: str) -> None:
    params = THIRD.parameters(beta_min=2.0, beta_max=2.0)
    scheme = Scheme(word, PARTED_THIRD, flow=flow)
    still = growth.stop_clock(0.01, 0.05, THIRD, params)
    at = sp.Matrix(np.linalg.inv(still.frozen.cov[..., 0]).tolist())
    step = stability.largest_stable_step(scheme, at, params.values())
    assert step.proven
    assert 0 < step.high < 8
    shares = np.array([0.01, 0.2, 0.5, 0.8, 0.999])
    radii = spectral_radius(growth.frozen_maps(scheme, still, shares * float(step.low)).matrix)
    assert (radii < 1).all()
    beyond = growth.frozen_maps(scheme, still, [1.001 * float(step.high)]).matrix
    assert spectral_radius(beyond).item() > 1
    assert step.condition == growth.leaving(beyond[..., 0, 0])

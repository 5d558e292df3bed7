"""Which levels an order is fitted to, and which order and verdict are reported."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weakorder.verification.verdicts.fits import MARGIN, Fit, error_constant, fit_order, last_run, lowest, sampled_fit
from weakorder.verification.verdicts.verdict import order_sentence


def fit(order: float, half: float = 0.1) -> Fit:
    return Fit(order, order - half, order + half, (10, 80))


@pytest.mark.parametrize(
    ("sure", "run"),
    [("", ""), ("...", ""), ("xxx", "xxx"), ("xx.x", "...x"), ("x.xx.", "..xx"), ("xxx..", "xxx"), (".x", ".x")],
)
def test_the_last_run_is_of_neighbours_up_to_the_finest_sure_level(sure: str, run: str) -> None:
    found = last_run([level == "x" for level in sure])
    assert "." * found.start + sure[found] == run


def test_the_lowest_order_is_that_of_the_first_set_that_has_any() -> None:
    fits = {"mean": fit(2.0), "covariance": fit(1.0), "third": fit(0.5)}
    assert lowest(fits) == fits["third"]
    assert lowest(fits, ("mean", "covariance"), ("third",)) == fits["covariance"]
    assert lowest(fits, (), ("mean",)) == fits["mean"]
    assert lowest(fits, (), ()) == fits["third"]
    assert lowest({}) is None


def test_an_interval_misses_reaches_or_does_neither() -> None:
    low, high, wide = fit(1 - 2 * MARGIN), fit(1.0), fit(1.0, 2 * MARGIN)
    assert [f.misses(1) for f in (low, high, wide)] == [True, False, False]
    assert not fit(0.0, 2 * MARGIN + 0.1).misses(1), "slopes that still move say nothing against an order"
    assert [f.reaches(1) for f in (low, high, wide)] == [False, True, False]
    assert [f.is_settled for f in (low, high, wide)] == [True, True, False]


def fitted(slopes: list[float]) -> Fit:
    """Of errors with these local slopes at doubling steps, known to a relative 1e-5."""
    logs = -np.cumsum([0.0, *slopes]) * math.log(2)
    noise = 1e-5 * np.random.default_rng(0).standard_normal((len(logs), 400))
    return sampled_fit([50 * 2**k for k in range(len(logs))], logs, logs[:, None] + noise, rows=400)


@pytest.mark.parametrize(
    "slopes",
    [
        [1.1, 0.5, 0.6, 1.1],  # away and back: the last is the first
        [0.9, 1.6, 1.5, 0.9],
        [-0.49, 0.99, 1.00],  # two that agree after one that did not
        [1.97, 0.67, 0.68],
    ],
)
def test_slopes_that_moved_do_not_settle_because_two_of_them_agree(slopes: list[float]) -> None:
    assert not fitted(slopes).is_settled


@pytest.mark.parametrize("bend", [-0.4, 0.3])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_slopes_that_tend_to_an_order_have_it_in_their_interval(bend: float, count: int) -> None:
    """p + a r^-j, of which two suffice; an interval half as wide would miss it."""
    found = fitted([1 + bend * 2.0**-j for j in range(count)])
    assert found.low <= 1 <= found.high
    assert abs(1 - found.order) > (found.high - found.low) / 4
    assert found.is_settled == (abs(bend) * 2.0 ** -(count - 2) < 0.5)


def test_the_steps_of_a_fit_are_those_of_its_window() -> None:
    assert fitted([0.0, 0.9, 0.95, 0.975, 0.9875]).steps[0] > 50
    assert fitted([1.0, 1.0, 1.0]).steps[1] == 400


def test_the_sentence_leaves_out_what_is_not_known() -> None:
    assert order_sentence(fit(0.98), 1, 1) == "measured order 0.98 in [0.88, 1.08], proven 1, expected 1"
    assert order_sentence(None, 2, None) == "expected 2"


# --- What e / h^p tends to --------------------------------------------------------------------------------------------

STEPS = 25.0 * 2.0 ** np.arange(5)


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(1, 3))
def test_an_order_is_told_by_its_constant_and_a_lower_one_has_none(a: float, b: float, order: int) -> None:
    """Claim: also where the error changes its sign between the levels, and of no order that is lower by a margin."""
    h = 1 / STEPS
    found = error_constant(STEPS, 3 * h**order * (1 + 10 * a * h + 100 * b * h**2), order)
    assert found is not None
    assert found.is_known
    assert abs(found.value - 3) <= max(found.uncertainty, 1e-9 * found.largest)
    for lower in (order - MARGIN, order - 0.5, order - 1):
        missing = error_constant(STEPS, h**lower * (1 + a * h + b * h**2), order)
        assert missing is not None
        assert not missing.is_known


def test_errors_that_fall_faster_are_of_the_order_and_more_unless_they_cease_to() -> None:
    for slopes, falls in (([2.1, 2.4, 2.5, 2.7], True), ([2.5, 2.0, 1.6, 0.9], False), ([2.0, 1.6, 0.9, 1.1], False)):
        found = error_constant(STEPS, np.exp(-np.cumsum([0.0, *slopes]) * math.log(2)), 1)
        assert found is not None
        assert found.falls == falls


def test_scatter_of_known_size_widens_an_interval_and_is_not_taken_for_slopes_that_move() -> None:
    errors = 1 / STEPS * (1 + np.array([0.0, 0.01, -0.01, 0.01, -0.01]))
    alone, allowed = fit_order(STEPS, errors), fit_order(STEPS, errors, 0.01 / STEPS)
    assert alone is not None
    assert allowed is not None
    assert not alone.is_settled
    assert allowed.is_settled
    assert allowed.low <= 1 <= allowed.high
    constant = error_constant(STEPS, errors, 1, 0.1 / STEPS)
    assert constant is not None
    assert not constant.is_known, "scatter of a tenth hides a constant"

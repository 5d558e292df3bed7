"""Flows that hold another quantity than the score: against an independent integrator, and their proven closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from scipy.integrate import quad, solve_ivp
from selection import nightly_but
from weakorder.theory import held_flows
from weakorder.theory.flows import exact_flow
from weakorder.theory.frozen import DATA_HELD, EPS_HELD, FROZEN, RESIDUAL_HELD, SCORE_HELD, Frozen, NumericKernel
from weakorder.theory.held_flows import HeldFlow, extrapolated_flow, held_flow, lagrange
from weakorder.theory.held_proof import bridge_residuals, rotation_rate, rotation_residuals, steady, steady_text
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.splitting import PSLD, PSLD_FLOW_WHOLE, PSLD_LINEAR, PSLD_WHOLE

DEFAULT, OTHER = Parameters(), Parameters(gamma=0.0, nu=3.0, kappa=0.3)
# Where an interval begins, and its length: at the prior, long, down to the data, and nearly all of time.
INTERVALS = [(8.0, 0.16), (1.0, 0.5), (0.1, 0.092), (2.0, 1.98)]
TIMES = np.array([[0.0, -0.1, -0.37]])
F = PSLD_WHOLE["F"].sde


def by_runge_kutta(sde, frozen: Frozen, begin: float, length: float, params: Parameters) -> HeldFlow:
    """The same by DOP853 in theta, with q's monomials."""
    values = params.values()
    A, G, D = sde.numbers(values)

    def slope(r: float, y: np.ndarray) -> np.ndarray:
        kernel = NumericKernel(PSLD_DIFFUSION, begin - r, values)
        B, g = A + G @ frozen.phi(kernel), G @ frozen.psi(kernel)
        P, Q, *gains = y.reshape(-1, 2, 2)
        rates = [B @ K + np.prod(r - np.delete(TIMES[0], j)) * g for j, K in enumerate(gains)]
        return np.array([B @ P, B @ Q + Q @ B.T + D, *rates]).ravel()

    start = np.concatenate([np.eye(2).ravel(), np.zeros(16)])
    solved = solve_ivp(slope, (0, length), start, method="DOP853", rtol=3e-14, atol=1e-18)
    P, Q, *gains = solved.y[:, -1].reshape(-1, 2, 2)
    scale = [np.prod(TIMES[0, j] - np.delete(TIMES[0], j)) for j in range(3)]
    return HeldFlow(P[None], np.array([K / c for K, c in zip(gains, scale, strict=True)])[None], Q[None])


def assert_same(found: HeldFlow, expected: HeldFlow, tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=str)
@pytest.mark.parametrize(("begin", "length"), nightly_but(lambda case: case in INTERVALS[::2], INTERVALS))
def test_a_flow_is_right_to_1e_13(frozen: Frozen, begin: float, length: float) -> None:
    for sde, params in ((F, DEFAULT), (PSLD_LINEAR["E"].sde, OTHER))[: 1 + (begin == 1)]:
        found = held_flow(sde, frozen, PSLD_DIFFUSION, [begin], [length], TIMES, params.values())
        # scipy's own steps leave up to some 1e-14 of long intervals
        assert_same(found, by_runge_kutta(sde, frozen, begin, length, params), 1e-13)


def test_the_tolerance_bounds_the_error_and_is_what_stops_the_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = held_flow(F, DATA_HELD, PSLD_DIFFUSION, [4.0], [3.98], TIMES, DEFAULT.values())
    for tolerance in (1e-3, 1e-6):
        monkeypatch.setattr(held_flows, "TOLERANCE", tolerance)
        rough = held_flow(F, DATA_HELD, PSLD_DIFFUSION, [4.0], [3.98], TIMES, DEFAULT.values())
        assert_same(rough, exact, tolerance)
        with pytest.raises(AssertionError):
            assert_same(rough, exact, 1e-15)


def test_many_intervals_at_once_are_each_alone() -> None:
    begin, length = np.array(INTERVALS).T
    times = np.broadcast_to(TIMES, (4, 3)).copy()
    times[1, 1:] = np.nan
    together = held_flow(F, DATA_HELD, PSLD_DIFFUSION, begin, length, times, DEFAULT.values())
    for i in range(4):
        one = slice(i, i + 1)
        alone = held_flow(F, DATA_HELD, PSLD_DIFFUSION, begin[one], length[one], times[one], DEFAULT.values())
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_array_equal(a[one], b)
    assert not together.gains[1, 1:].any()


def test_a_flow_down_to_the_data_is_refused_where_its_kernel_is_singular() -> None:
    with pytest.raises(
        ValueError, match=r"the flow that holds 'data' could not be computed down to theta = 0 to 1e-13"
    ):
        held_flow(F, DATA_HELD, PSLD_DIFFUSION, [1.0], [1.0], TIMES, DEFAULT.values())
    held_flow(F, RESIDUAL_HELD, PSLD_DIFFUSION, [1.0], [1.0], TIMES, DEFAULT.values())


# --- Closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_the_bridge_solves_the_reverse_sde_that_holds_the_data_point() -> None:
    assert all(matrix == sp.zeros(2, 2) for matrix in bridge_residuals())


def test_the_root_of_the_covariance_turns_as_it_is_said_to() -> None:
    assert rotation_residuals() == (sp.zeros(2, 2),)


@pytest.mark.parametrize(("begin", "length"), INTERVALS)
def test_the_whole_reverse_sde_that_holds_the_data_point_is_the_forward_bridge(begin: float, length: float) -> None:
    values = DEFAULT.values()
    found = held_flow(F, DATA_HELD, PSLD_DIFFUSION, [begin], [length], [[0.0]], values)
    late, early = (NumericKernel(PSLD_DIFFUSION, theta, values) for theta in (begin, begin - length))
    E, _, noise = exact_flow(PSLD_DIFFUSION.forward)(length, values)
    P = early.cov @ E.T @ np.linalg.inv(late.cov)
    Q = P @ noise @ np.linalg.inv(E).T
    K = Q @ np.linalg.inv(early.cov) @ early.propagator
    assert_same(found, HeldFlow(P[None], K[None, None], Q[None]), 1e-13 * np.linalg.cond(late.cov))


@pytest.mark.parametrize(("begin", "length"), INTERVALS)
def test_the_probability_flow_that_holds_the_data_point_turns_with_the_covariances_root(
    begin: float, length: float
) -> None:
    values = DEFAULT.values()
    found = held_flow(PSLD_FLOW_WHOLE["F"].sde, DATA_HELD, PSLD_DIFFUSION, [begin], [length], [[0.0]], values)
    late, early = (NumericKernel(PSLD_DIFFUSION, theta, values) for theta in (begin, begin - length))
    A, _, D = PSLD_DIFFUSION.forward.numbers(values)

    def rate(log_theta: float) -> float:
        theta = np.exp(log_theta)
        return theta * float(rotation_rate(A, D, NumericKernel(PSLD_DIFFUSION, theta, values).factor))

    angle = -quad(rate, np.log(begin - length), np.log(begin), epsabs=1e-13, epsrel=1e-13)[0]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    P = early.factor @ turn @ np.linalg.inv(late.factor)
    K = early.propagator - P @ late.propagator
    assert_same(found, HeldFlow(P[None], K[None, None], np.zeros((1, 2, 2))), 1e-12)


def test_what_is_held_steadily_has_a_proven_flow_of_its_own() -> None:
    for sde in (F, PSLD["A"].sde, PSLD_LINEAR["E"].sde):
        for frozen in (SCORE_HELD, RESIDUAL_HELD):
            other = steady(sde, frozen, PSLD_DIFFUSION)
            assert other is not None
            P, K, Q = exact_flow(other)(0.7, DEFAULT.values())
            found = held_flow(sde, frozen, PSLD_DIFFUSION, [2.0], [0.7], [[0.0]], DEFAULT.values())
            assert_same(found, HeldFlow(P[None], K[None, None], Q[None]), 1e-13)
    assert steady(F, EPS_HELD, PSLD_DIFFUSION) is steady(F, DATA_HELD, PSLD_DIFFUSION) is None
    assert steady_text(PSLD_LINEAR["E"].sde, RESIDUAL_HELD, PSLD_DIFFUSION) == ["gamma*q_x", "4*nu*q_m/(gamma - nu)**2"]


# --- Polynomials ------------------------------------------------------------------------------------------------------


def test_lagranges_polynomials_take_polynomials_for_what_they_are() -> None:
    times, r = np.array([[0.0, -0.3, -0.35, -1.0], [0.1, -0.2, np.nan, np.nan]]), np.array([[0.4, 2.0], [0.4, 2.0]])
    weights = lagrange(times, r)
    cubic, line = (np.polynomial.Polynomial(c) for c in ([1.0, -2.0, 0.5, 3.0], [1.0, -2.0]))
    np.testing.assert_allclose(np.einsum("kr,k->r", weights[0], cubic(times[0])), cubic(r[0]), rtol=1e-12)
    np.testing.assert_allclose(np.einsum("kr,k->r", weights[1, :2], line(times[1, :2])), line(r[1]), rtol=1e-13)
    assert not weights[1, 2:].any()


def test_extrapolated_drifts_have_the_weights_of_adams_and_bashforth() -> None:
    length = 0.1
    for order, weights in {
        1: [1],
        2: [3 / 2, -1 / 2],
        3: [23 / 12, -16 / 12, 5 / 12],
        4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    }.items():
        times = -length * np.arange(order)[None]
        found = extrapolated_flow(F, [2.0], [length], times, DEFAULT.values())
        np.testing.assert_allclose(found.gains[0, :, 0, 0], length * np.array(weights), rtol=1e-13)
        np.testing.assert_array_equal(found.propagator[0], np.eye(2))

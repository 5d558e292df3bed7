"""What moments are held against: the brute force, the exact law and the entries of flows, each by another source."""

from __future__ import annotations

from fractions import Fraction

import brute_force
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import PHASE_SPACE, parameters
from weakorder.theory.flows import linear_flow
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.targets.gaussian import GaussianTarget

Array = NDArray[np.float64]
LINEAR_BETA = Parameters(beta_min=0.1, beta_max=15.9)


def test_the_brute_forces_exponential_is_scipys() -> None:
    """Claim: its fixed-point exponential and noise covariance are scipy's, to scipy's accuracy."""
    A, D = np.array([[-0.3, -2.0], [0.5, -1.1]]), np.array([[0.2, 0.0], [0.0, 1.5]])
    block = np.block([[-A, D], [np.zeros((2, 2)), A.T]])
    powers = scipy.linalg.expm(block * 0.75)
    np.testing.assert_allclose(
        brute_force.floats(brute_force.exponential(brute_force.fixed(block * 0.75))), powers, rtol=1e-13, atol=1e-15
    )
    noise = brute_force.noise_covariance(brute_force.fixed(A), brute_force.fixed(D), Fraction(3, 4))
    np.testing.assert_allclose(brute_force.floats(noise), powers[2:, 2:].T @ powers[:2, 2:], rtol=1e-13)


@pytest.mark.parametrize("params", [Parameters(), LINEAR_BETA, Parameters(gamma=2.0, nu=0.0, beta_min=3.0)])
def test_the_exact_law_solves_the_moment_equations(params: Parameters) -> None:
    """Claim: the exact law, of the code and of the brute force, is what an ODE solver makes of the forward SDE's moment
    equations in t, the third source."""
    A, D = (np.array(matrix, float) for matrix in brute_force.forward(brute_force.model_of(params)))

    def right_hand_side(t: float, y: Array) -> Array:
        mean, cov = y[:2], y[2:].reshape(2, 2)
        beta = params.beta_min + (params.beta_max - params.beta_min) * t
        return beta * np.concatenate([A @ mean, (A @ cov + cov @ A.T + D).ravel()])

    start = [0.5, 0, 0.25, 0, 0, 4 * params.kappa / (params.gamma - params.nu) ** 2]
    times = [0.01, 0.3, 1.0]
    solution = scipy.integrate.solve_ivp(
        right_hand_side, (0, 1), start, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-14
    )
    law = GaussianTarget(np.array(0.5), np.array(0.25), PSLD_DIFFUSION, params).law(np.array(times))
    for i, t in enumerate(times):
        brute = brute_force.marginal("psld", brute_force.model_of(params), 0.5, 0.25, Fraction(t))
        for mean, cov in (
            (law.mean[:, i, 0], law.cov[:, :, i, 0]),
            (brute_force.floats(brute.mean), brute_force.floats(brute.cov)),
        ):
            np.testing.assert_allclose(mean, solution.y[:2, i], rtol=0, atol=1e-10)
            np.testing.assert_allclose(cov, solution.y[2:, i].reshape(2, 2), rtol=0, atol=1e-10)


@given(parameters(), st.floats(-8.0, 1.0))
def test_the_entries_of_the_flows_are_accurate_to_13_digits(params: Parameters, exponent: float) -> None:
    """Claim: every entry of every part's exact flow is right to 1e-13 relative (near a change of
    sign: to the last bits of the matrix), for theta from 1e-8 to 10. This is the
    accuracy that the moments' tolerance is built on."""
    theta = 10.0**exponent
    for name, splitting in PHASE_SPACE.items():
        for letter, part in brute_force.parts_of(name, brute_force.model_of(params)).items():
            flow = splitting[letter].exact(theta, params.values())
            move = brute_force.part_move(part, Fraction(theta), "exact", None, (1.0, 1.0))
            J, Q = brute_force.floats(move.J), brute_force.floats(move.Q)
            for got, want in ((flow.propagator, J[:2, :2]), (flow.score_gain, J[:2, 2:4]), (flow.noise_cov, Q[:2, :2])):
                # Propagators and gains pass through zero, as differences of terms as large as their other entries;
                # noise covariances do not, and 1e-40 is where the reference runs out of digits.
                signed = 0.0 if got is flow.noise_cov else 1e-14 * np.abs(want).max()
                np.testing.assert_allclose(got, want, rtol=1e-13, atol=max(1e-40, signed))


@pytest.mark.parametrize("theta", [1e3, 1e4, 1e6])
def test_the_noise_of_a_stiff_linear_flow_keeps_12_digits(theta: float) -> None:
    """Claim: over many relaxation times the noise covariance settles at the stationary one and is symmetric. The
    doubling of `linear_flow` must not let the antisymmetric part of the rounding grow (three-fold a doubling)."""
    A, D = np.array([[-1.0, -2.0], [0.5, -1.0]]), np.diag([0.01, 1.0])
    _, _, Q = linear_flow(A, D, theta)
    np.testing.assert_allclose(Q, scipy.linalg.solve_continuous_lyapunov(A, -D), rtol=1e-12)

"""The model agrees with the published one, its marginal is proven, and bad parameters are refused by name.

Source of the numbers: data/sde.npz, computed with the published PSLD classes (see data/make_sde_fixture.py).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from numpy.typing import NDArray
from selection import nightly_but
from sympy import Matrix
from weakorder.theory.flows import exact_flow
from weakorder.theory.kernel import kernel, lower_cholesky, marginal, moment_residuals, mu, s2
from weakorder.theory.model import (
    LANGEVIN_DYNAMICS,
    PARAMETERS,
    PSLD_DIFFUSION,
    STATIONARY,
    Diffusion,
    LinearSDE,
    M,
    Parameters,
    m,
    theta,
)

Array = NDArray[np.float64]

FIXTURE = dict(np.load(Path(__file__).parents[1] / "data" / "sde.npz"))
COMBOS = [str(combo) for combo in FIXTURE["combos"]]
TIMES: Array = FIXTURE["t"]
NUMERICAL_EPS = float(FIXTURE["numerical_eps"])
# The published code computes e^z - 1 by subtraction: an absolute error of a few roundings of 1 in its covariances.
SUBTRACTION = 5e-16

XX, MM = sp.symbols("xx mm", positive=True)
XM = sp.symbols("xm", real=True)
COV = Matrix([[XX, XM], [XM, MM]])


def reference(combo: str, name: str) -> Array:
    """An array of the published code."""
    return FIXTURE[f"{combo}/{name}"]


def parameters_of(combo: str, kind: str = "hsm") -> Parameters:
    """The parameter set called `combo`; "dsm" starts from one (x, m), without variance in the momentum."""
    numbers = dict(pair.split("=") for pair in combo.split("_"))
    beta_min, beta_max = numbers["beta"].split("-")
    kappa = float(FIXTURE["kappa"]) if kind == "hsm" else 0.0
    return Parameters(float(numbers["gamma"]), float(numbers["nu"]), kappa, float(beta_min), float(beta_max))


@cache
def _compiled(what: str) -> Any:
    """A matrix of theory.kernel as an mpmath function."""
    point, cov = kernel(PSLD_DIFFUSION)
    if what in ("mean", "cov"):
        return sp.lambdify((*PARAMETERS, theta), {"mean": point.subs(mu, 1), "cov": cov}[what], "mpmath")
    side, _, inverted = what.partition(" ")
    factor = {"lower": lower_cholesky, "upper": upper_factor}[side](COV)
    return sp.lambdify((XX, XM, MM), factor.inv().T if inverted else factor, "mpmath")


def evaluate(what: str, *arguments: float) -> Array:
    """ "mean" (of the data point 1) or "cov" of the kernel, or the factor "lower" or "upper" of a covariance
    (xx, xm, mm), or that factor's "lower inverse" transpose: in 40 digits, rounded to float64."""
    with mpmath.workdps(40):
        return np.array(_compiled(what)(*map(mpmath.mpf, arguments)).tolist(), dtype=float)


def evaluate_kernel(what: str, params: Parameters, times: Array) -> Array:
    """Mean or covariance of the kernel at each of `times`, the integral of beta in float64."""
    return np.array([evaluate(what, *params.values().values(), params.theta(t, t)) for t in times])


@cache
def kernel_covariance(combo: str, kind: str) -> Array:
    """(20, 2, 2) covariances of the kernel, with the numerical eps of the published code."""
    return evaluate_kernel("cov", parameters_of(combo, kind), TIMES) + NUMERICAL_EPS * np.eye(2)


def reference_covariance(combo: str, kind: str) -> Array:
    """(20, 2, 2) of the published code."""
    return reference(combo, f"cov_{kind}")[:, [0, 1, 1, 2]].reshape(-1, 2, 2)


def upper_factor(cov: Matrix) -> Matrix:
    """U with U U^T = cov, upper triangular: the lower factor with position and momentum exchanged."""
    swap = Matrix([[0, 1], [1, 0]])
    return swap * lower_cholesky(swap * cov * swap) * swap


def score_uncertainty(combo: str) -> Array:
    """(20,) relative: what the published score is known to, where the subtraction hurts xx most (Gamma = 0, small t).
    A change of xx by d changes L^-T by d / xx times the condition of the correlation."""
    cov = kernel_covariance(combo, "hsm")
    condition = cov[:, 0, 0] * cov[:, 1, 1] / np.linalg.det(cov)
    uncertainty = 1e-9 + condition * SUBTRACTION / cov[:, 0, 0]
    assert np.all(uncertainty < 1e-5)
    return uncertainty


def drift_and_diffusion(sde: LinearSDE, combo: str, score: Array) -> tuple[Array, Array]:
    """(20, 2) each, per unit t (the SDE is per unit theta), at the fixture's states."""
    params = parameters_of(combo)
    A, G, D = sde.numbers(params.values())
    beta = params.beta(TIMES)[:, None]
    return beta * (FIXTURE["u"] @ A.T + score @ G.T), np.sqrt(beta * D.diagonal())


def agree(actual: Array, expected: Array, rtol: float = 1e-9, atol: float | Array = 0.0) -> bool:
    return bool(np.all(np.abs(actual - expected) <= rtol * np.abs(expected) + atol))


# --- The published code -----------------------------------------------------------------------------------------------


def test_the_fixture_holds_eight_parameter_sets_and_two_without_position_noise() -> None:
    assert len(COMBOS) == 8
    assert sum(parameters_of(combo).gamma == 0 for combo in COMBOS) == 2


@pytest.mark.parametrize("combo", COMBOS)
def test_beta_and_its_integral_are_the_published_ones(combo: str) -> None:
    params = parameters_of(combo)
    assert agree(params.beta(TIMES), reference(combo, "beta_t"), 1e-15)
    assert agree(params.theta(TIMES, TIMES), reference(combo, "b_t"), 1e-14)


@pytest.mark.parametrize("combo", COMBOS)
@pytest.mark.parametrize("kind", ["forward", "reverse_sde", "reverse_pf"])
def test_drift_and_diffusion_are_the_published_ones(kind: str, combo: str) -> None:
    sde = {
        "forward": PSLD_DIFFUSION.forward,
        "reverse_sde": PSLD_DIFFUSION.reverse(),
        "reverse_pf": PSLD_DIFFUSION.probability_flow(),
    }[kind]
    prefix, suffix = ("", "") if kind == "forward" else (f"{kind}_", "_f64")
    expected = [reference(combo, f"{prefix}{what}{suffix}") for what in ("drift", "diffusion")]
    score = reference(combo, "score_f64")
    drift, diffusion = drift_and_diffusion(sde, combo, score)
    # The published reverse drift takes its score at 1 - (1 - t), which rounds t.
    score_part = np.abs(drift - drift_and_diffusion(sde, combo, 0 * score)[0])
    rounding = score_uncertainty(combo)[:, None] * score_part

    assert agree(drift, expected[0], atol=rounding)
    assert agree(diffusion, expected[1])
    # The comparison can fail: a score, a coupling or a noise that is off by one part in 10^6 is seen.
    if kind != "forward":
        assert not agree(drift_and_diffusion(sde, combo, score * (1 + 1e-6))[0], expected[0], atol=rounding)
    if kind != "reverse_pf":
        assert not agree(diffusion * (1 + 1e-6), expected[1])
    broken = LinearSDE((sde.drift[0] + sp.Rational(1, 10**6) * m, sde.drift[1]), sde.diffusion)
    assert not agree(drift_and_diffusion(broken, combo, score)[0], expected[0], atol=rounding)


@pytest.mark.parametrize("combo", COMBOS)
def test_the_mean_of_the_kernel_is_the_published_one(combo: str) -> None:
    params = parameters_of(combo)
    expected = reference(combo, "mean")
    flow = exact_flow(PSLD_DIFFUSION.forward)(params.theta(TIMES, TIMES), params.values())
    assert agree(flow.propagator, expected)
    assert agree(evaluate_kernel("mean", params, TIMES)[..., 0], expected[..., 0])
    assert not agree(flow.propagator.swapaxes(-1, -2), expected)


def test_the_mean_of_the_kernel_is_linear_in_the_data_point() -> None:
    mean, cov = kernel(PSLD_DIFFUSION)
    assert mean.diff(mu).diff(mu).is_zero_matrix
    assert mean.subs(mu, 0).is_zero_matrix
    assert not cov.has(mu)


@pytest.mark.parametrize("kind", ["hsm", "dsm"])
@pytest.mark.parametrize("combo", COMBOS)
def test_the_covariance_of_the_kernel_is_the_published_one(combo: str, kind: str) -> None:
    """To 1e-9 relative, and to the roundings that the published code loses by subtraction."""
    cov, expected = kernel_covariance(combo, kind), reference_covariance(combo, kind)
    assert agree(cov, expected, atol=SUBTRACTION)
    assert not agree(cov - NUMERICAL_EPS * np.eye(2), expected, atol=SUBTRACTION)
    assert not agree(cov, reference_covariance(combo, "dsm" if kind == "hsm" else "hsm"), atol=SUBTRACTION)


def test_the_cholesky_factor_squares_to_the_covariance() -> None:
    for factor in (lower_cholesky(COV), upper_factor(COV)):
        assert (factor * factor.T - COV).applyfunc(sp.simplify).is_zero_matrix
    assert lower_cholesky(COV).is_lower
    assert upper_factor(COV).is_upper
    assert all(entry.subs({XX: 2, XM: -1, MM: 3}) > 0 for entry in lower_cholesky(COV).diagonal())


@pytest.mark.parametrize("kind", ["hsm", "dsm"])
@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize("combo", COMBOS)
def test_cholesky_factors_and_their_inverse_transposes_are_the_published_ones(combo: str, side: str, kind: str) -> None:
    """Of the published covariance, so that what it lost by subtraction is not lost twice."""
    cov = reference(combo, f"cov_{kind}")
    factor = np.array([evaluate(side, *row) for row in cov])
    inverse_transpose = np.array([evaluate(f"{side} inverse", *row) for row in cov])
    expected = reference(combo, f"factor_{side}_{kind}").reshape(-1, 2, 2)
    assert agree(factor, expected)
    assert agree(inverse_transpose, reference(combo, f"invT_{side}_{kind}").reshape(-1, 2, 2))
    assert not agree(factor.swapaxes(-1, -2), expected)
    assert not agree(np.array([evaluate("upper" if side == "lower" else "lower", *row) for row in cov]), expected)


@pytest.mark.parametrize("combo", COMBOS)
def test_the_score_of_a_network_is_minus_the_inverse_transpose_of_the_factor_times_eps(combo: str) -> None:
    """From parameters to score, by the lower factor."""
    expected = reference(combo, "score_f64")
    cov = kernel_covariance(combo, "hsm")
    inverse_transpose = np.array([evaluate("lower inverse", *row) for row in cov[:, [0, 0, 1], [0, 1, 1]]])

    def score(of: Array) -> Array:
        return -np.einsum("tij,tj->ti", of, FIXTURE["eps_pred"])

    scale = np.abs(inverse_transpose) @ np.abs(FIXTURE["eps_pred"])[..., None]  # the two terms of s_x may cancel
    tolerance = score_uncertainty(combo)[:, None] * scale[..., 0]
    used = [0, 1] if str(reference(combo, "mode")) == "score_xm" else [1]  # Gamma = 0: the network has no eps_x
    assert np.all((np.abs(score(inverse_transpose) - expected) <= tolerance)[:, used])
    assert not np.any((np.abs(score(inverse_transpose) * (1 + 1e-4) - expected) <= tolerance)[:, 1])
    assert not np.all((np.abs(score(inverse_transpose.swapaxes(-1, -2)) - expected) <= tolerance)[:, 1])


# --- The marginal, proven ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diffusion", [PSLD_DIFFUSION, STATIONARY], ids=lambda d: d.name)
def test_the_marginal_solves_the_moment_equations_exactly(diffusion: Diffusion) -> None:
    residuals = moment_residuals(diffusion, *marginal(diffusion))
    assert len(residuals) == 4
    assert all(residual.is_zero_matrix for residual in residuals)


BREAKAGES: dict[str, tuple[Any, list[bool]]] = {
    "the covariance of x and m has the wrong sign": (
        lambda mean, cov: (mean, Matrix([[cov[0, 0], -cov[0, 1]], [-cov[1, 0], cov[1, 1]]])),
        [True, False, True, True],
    ),
    "the mean moves the wrong way": (lambda mean, cov: (mean.subs(theta, -theta), cov), [False, True, True, True]),
    "the mean starts at twice mu": (lambda mean, cov: (2 * mean, cov), [True, True, False, True]),
    "the momentum starts cold": (
        lambda mean, cov: (mean, cov.subs({symbol: 0 for symbol in PARAMETERS if str(symbol) == "kappa"})),
        [True, True, True, False],
    ),
    "numerical eps is part of the covariance": (
        lambda mean, cov: (mean, cov + sp.Rational(1, 10**9) * sp.eye(2)),
        [True, False, True, False],
    ),
}


@pytest.mark.parametrize("breakage", nightly_but(lambda name: name == next(iter(BREAKAGES)), BREAKAGES))
def test_a_broken_marginal_leaves_a_residual_where_it_is_broken(breakage: str) -> None:
    change, zero = BREAKAGES[breakage]
    residuals = moment_residuals(PSLD_DIFFUSION, *change(*marginal(PSLD_DIFFUSION)))
    assert [all(entry == 0 for entry in residual) for residual in residuals] == zero


def test_the_kernel_is_the_marginal_of_a_point() -> None:
    mean, cov = marginal(PSLD_DIFFUSION)
    assert kernel(PSLD_DIFFUSION)[0] == mean
    assert (kernel(PSLD_DIFFUSION)[1] - cov.subs(s2, 0)).applyfunc(sp.simplify).is_zero_matrix
    assert cov.has(s2)


def lyapunov(A: Matrix, D: Matrix, cov: Matrix) -> Matrix:
    """d cov / d theta of du = A u dtheta + D^(1/2) dw, simplified."""
    return (A * cov + cov * A.T + D).applyfunc(sp.simplify)


def test_the_prior_is_stationary_under_the_forward_sde() -> None:
    sde, prior = PSLD_DIFFUSION.forward, sp.diag(*PSLD_DIFFUSION.prior_variance)
    assert prior == sp.diag(1, M)
    assert lyapunov(sde.matrix, sde.noise, prior).is_zero_matrix
    assert not lyapunov(sde.matrix, sde.noise, sp.diag(1, 1)).is_zero_matrix
    assert not lyapunov(sde.matrix, sde.noise, sp.diag(2, M)).is_zero_matrix


@pytest.mark.parametrize("sde", [PSLD_DIFFUSION.reverse(), PSLD_DIFFUSION.probability_flow(), LANGEVIN_DYNAMICS])
def test_the_prior_is_stationary_where_it_is_also_the_law_that_gives_the_score(sde: LinearSDE) -> None:
    prior = sp.diag(1, M)
    closed = sde.matrix - sde.score_gain * prior.inv()
    assert lyapunov(closed, sde.noise, prior).is_zero_matrix
    assert not lyapunov(sde.matrix, sde.noise, prior).is_zero_matrix


def test_the_reverse_sde_and_the_probability_flow_undo_the_forward_sde_for_any_gaussian_law() -> None:
    """With s = -cov^-1 (u - mean) both give minus the forward growth of the covariance; half the score with the noise,
    or the whole without, does not."""
    forward = PSLD_DIFFUSION.forward
    undone = -lyapunov(forward.matrix, forward.noise, COV)

    def left_over(drift_of: LinearSDE, noise_of: LinearSDE) -> Matrix:
        closed = drift_of.matrix - drift_of.score_gain * COV.inv()
        return (lyapunov(closed, noise_of.noise, COV) - undone).applyfunc(sp.simplify)

    reverse, flow = PSLD_DIFFUSION.reverse(), PSLD_DIFFUSION.probability_flow()
    assert left_over(reverse, reverse).is_zero_matrix
    assert left_over(flow, flow).is_zero_matrix
    assert not left_over(flow, reverse).is_zero_matrix
    assert not left_over(reverse, flow).is_zero_matrix

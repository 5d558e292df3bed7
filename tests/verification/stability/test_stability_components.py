"""Stability of states of one component and of three: by hand, by loops, and against linear algebra of any size."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from diffusions import THIRD
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.grids import time_grid
from weakorder.theory import stability
from weakorder.theory.clock import THETA
from weakorder.theory.flows import exact_flow
from weakorder.theory.jury import critical
from weakorder.theory.model import Diffusion, LinearSDE, a, m, theta, x
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_LINEAR, VP_WHOLE, Part, Splitting
from weakorder.verification.exact import Spectrum, step_maps
from weakorder.verification.stability import growth, least_steps
from weakorder.verification.targets import GaussianTarget
from weakorder.verification.verdicts import components_first, matmul, spectral_norm, spectral_radius

IN_POSITION = VP_WHOLE.diffusion
HALF = THIRD.reverse(0.5)
EULER = Scheme("S F", Splitting("third-half", THIRD, HALF, (Part("F", HALF.drift, HALF.diffusion),)), "third-EM")
NUMBERS = {"gamma": 1.0, "nu": 0.0, "kappa": 1.0}
VARIANCES = np.array([30.0, 1.0, 1e-2, 2e-6])
SIZES = [IN_POSITION, THIRD]


def parameters(diffusion: Diffusion) -> Any:
    return diffusion.parameters(beta_min=2.0, beta_max=2.0) if diffusion is THIRD else diffusion.parameters()


# --- One component, by hand -------------------------------------------------------------------------------------------


def test_euler_maruyama_in_position_is_stable_up_to_two_over_the_rate() -> None:
    """x <- (1 - r theta) x + noise, r = lambda - 1/2: it flips at theta = 2 / r; r < 0 expands from the first step."""
    step = stability.largest_stable_step(POSITION["vp-EM"], sp.Matrix([sp.Rational(7, 2)]), NUMBERS)
    assert (step.low, step.high, step.condition, step.exact) == (Fraction(2, 3),) * 2 + ("flip", sp.Rational(2, 3))
    wide = stability.largest_stable_step(POSITION["vp-EM"], sp.Matrix([sp.Rational(1, 4)]), NUMBERS)
    assert (wide.high, wide.condition) == (0, "growth")
    assert stability.stability_conditions(POSITION["vp-EM"])._fields == ("growth", "flip")


def test_a_linear_part_that_is_followed_exactly_moves_the_limit_to_where_it_is_by_hand() -> None:
    """x <- exp(-theta/2) (1 + theta (1 - lambda)) x is -x where the bracket is -exp(theta/2)."""
    scheme = Scheme("U(1/2) S E U(1/2)", VP_LINEAR)
    for at, limit in ((5.0, 8), (2.0, 8)):
        step = stability.largest_stable_step(scheme, sp.Matrix([at]), NUMBERS, limit)
        expected = brentq(lambda h, at=at: 1 + h * (1 - at) + np.exp(h / 2), 1e-3, 1.0) if at == 5 else None
        if expected is None:  # exp(-theta/2) (theta - 1) never reaches 1
            assert (step.high, step.condition) == (8, None)
            continue
        assert step.condition == "flip"
        assert step.low <= Fraction(expected) * (1 + Fraction(1, 10**12))
        assert float(step.high) == pytest.approx(expected, rel=1e-9)
        assert float(step.high) != pytest.approx(2 / (at - 0.5), rel=1e-3)  # Euler-Maruyama's


def test_the_variance_that_euler_maruyama_settles_at_is_that_known_by_hand() -> None:
    """v = (1 - r theta)^2 v + theta: v = 1 / (r (2 - r theta)), of the dynamics 1 / (2 r)."""
    rate = stability.symbolic_precision(1)[0] - sp.Rational(1, 2)
    (found,) = stability.stationary_cov(stability.frozen_map(POSITION["vp-EM"]))
    assert sp.simplify(found - 1 / (rate * (2 - rate * theta))) == 0
    assert sp.simplify(found - 1 / (rate * (2 - 2 * rate * theta))) != 0
    (exact,) = stability.exact_stationary_cov(VP_WHOLE.whole)
    assert sp.simplify(exact - 1 / (2 * rate)) == 0


def test_euler_maruyama_grows_as_a_loop_over_numbers_says() -> None:
    """x <- (1 + theta_k (1/2 - 1 / v_k)) x, in units of the law's sqrt(v): v = s2 e^-theta + 1 - e^-theta."""
    params = parameters(IN_POSITION)
    taus = time_grid("quadratic", 5, params)
    times = params.T - taus
    worst = 1.0
    for variance in VARIANCES:
        v = 1 + (variance - 1) * np.exp(-(0.1 * times + 19.9 * times**2 / 2))
        lengths = 0.1 * -np.diff(times) - 19.9 * np.diff(times**2) / 2
        factors = (1 + lengths * (0.5 - 1 / v[:-1])) * np.sqrt(v[:-1] / v[1:])
        worst = max(worst, *(abs(np.prod(factors[i:j])) for i, j in itertools.combinations(range(6), 2)))
    found = growth.worst_growth(POSITION["vp-EM"], params, taus, Spectrum(VARIANCES, np.zeros(4), 1))
    assert found.growth == pytest.approx(worst, rel=1e-12)
    assert worst > 1.01
    broken = growth.worst_growth(POSITION["vp-Euler"], params, taus, Spectrum(VARIANCES, np.zeros(4), 1))
    assert broken.growth != pytest.approx(worst, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ddim_neither_grows_nor_decays_on_a_point_mass(steps: int) -> None:
    """Of one point eps does not change along the flow: a step of any length is the flow. Euler's steps are not."""
    params = parameters(IN_POSITION)
    taus, target = time_grid("uniform", steps, params), GaussianTarget.of(0.0, 0.0, IN_POSITION, params)

    def scaled(name: str) -> np.ndarray:
        return growth.in_law_units(growth.trajectory_maps(POSITION[name], target, taus), target, taus)

    np.testing.assert_allclose(scaled("vp-DDIM"), 1, rtol=1e-11)
    assert np.abs(scaled("vp-Euler") - 1).max() > 0.1


def test_the_fewest_steps_in_position_are_those_of_looking_at_every_number() -> None:
    params, data = parameters(IN_POSITION), Spectrum(VARIANCES, np.zeros(4), 1)
    scheme = replace(POSITION["vp-DEIS-2"], clock=THETA)
    found = least_steps(scheme, params, "uniform", bound=40, data=data)
    grown = [growth.worst_growth(scheme, params, time_grid("uniform", n, params), data).growth for n in range(1, 41)]
    assert found.steps == 1 + max(n for n, value in enumerate(grown, 1) if value > growth.FACTOR)
    assert found.steps > 2
    assert found.breaks is not None
    assert found.breaks.growth == pytest.approx(grown[found.steps - 2], rel=1e-12)


# --- Any number -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(0, 2**32 - 1), st.floats(0.2, 1.2))
def test_the_critical_quantities_are_products_over_eigenvalues(size: int, seed: int, scale: float) -> None:
    """And positive where all of them lie in the unit circle."""
    matrix = np.random.default_rng(seed).normal(size=(size, size)) * scale / size**0.5
    values = np.linalg.eigvals(matrix)
    found = critical(sp.Matrix(matrix.tolist()))._asdict()
    expected = {
        "growth": np.prod(1 - values),
        "flip": np.prod(1 + values),
        "rotation": np.prod([1 - first * second for first, second in itertools.combinations(values, 2)]),
    }
    for name, quantity in found.items():
        assert float(quantity) == pytest.approx(expected[name].real, abs=1e-9 * (1 + scale) ** size)
    if np.abs(values).max() < 1:
        assert min(found.values()) > 0


def test_the_largest_stable_step_of_three_components_is_where_an_eigenvalue_leaves() -> None:
    """By rotation, of which trace and determinant of two components know nothing."""
    params = parameters(THIRD)
    still = growth.stop_clock(0.01, 0.05, THIRD, params)
    at = sp.Matrix(np.linalg.inv(still.frozen.cov[..., 0]).tolist())
    step = stability.largest_stable_step(EULER, at, params.values())
    maps = growth.frozen_maps(EULER, still, [0.999 * float(step.low), 1.001 * float(step.high)]).matrix[..., 0]
    assert spectral_radius(maps)[0] < 1 < spectral_radius(maps)[1]
    assert step.condition == growth.leaving(maps[..., 1])
    assert step.condition == "rotation"
    assert step.exact is not None


def test_three_components_that_expand_from_the_first_step_are_found_though_all_quantities_are_positive() -> None:
    """B = diag(3, 1, -2): det(-B) = 6 and -(3 + 1) (3 - 2) (1 - 2) = 4, and two eigenvalues leave at once."""
    apart = Diffusion("apart", LinearSDE((-x / 2, -m / 2, -a / 2), (1, 1, 1)), (1, 1), (1, 1, 1))
    whole = apart.reverse()
    scheme = Scheme("S F", Splitting("apart", apart, whole, (Part("F", whole.drift, whole.diffusion),)))
    rates = sp.diag(1, 1, 1) / 2 - sp.diag(3, 1, -2)
    step = stability.largest_stable_step(scheme, rates, NUMBERS)
    assert (step.low, step.high, step.condition) == (0, 0, "growth")
    R = stability.frozen_map(scheme, rates).matrix.subs(theta, sp.Rational(1, 100))
    assert min(critical(R)) > 0
    settled = stability.largest_stable_step(scheme, sp.diag(1, 1, 1) / 2 + sp.diag(3, 1, 2), NUMBERS)
    assert (settled.exact, settled.condition) == (sp.Rational(2, 3), "flip")


def test_what_is_not_known_in_closed_form_is_refused_and_known_in_numbers() -> None:
    with pytest.raises(ValueError, match="closed form is known of 1 and 2 components, and here are 3"):
        stability.stationary_cov(stability.frozen_map(EULER))
    with pytest.raises(ValueError, match="closed form is"):
        stability.frozen_map(POSITION["vp-DDIM"])
    still = growth.stop_clock([0.01, 100.0], 0.5, THIRD, parameters(THIRD))
    step = growth.frozen_maps(EULER, still, [0.01])
    cov = growth.stationary_cov(step)[:, :, 0]
    R, Q = step.matrix[:, :, 0, 0], step.noise_cov[:, :, 0, 0]
    np.testing.assert_allclose(R @ cov[..., 0] @ R.T + Q, cov[..., 0], atol=1e-10)
    assert (spectral_radius(step.matrix)[0] >= 1).tolist() == [False, True]
    assert np.isnan(cov[..., 1]).all()


@pytest.mark.parametrize("scheme", [POSITION["vp-EM"], EULER], ids=lambda scheme: scheme.name)
def test_the_symbolic_map_is_the_compiled_one(scheme: Scheme) -> None:
    diffusion = scheme.splitting.diffusion
    still = growth.stop_clock(0.3, 0.4, diffusion, parameters(diffusion))
    at = sp.Matrix(np.linalg.inv(still.frozen.cov[..., 0]).tolist())
    symbolic = stability.frozen_map(scheme, at)
    compiled = growth.frozen_maps(scheme, still, 0.2)
    for ours, theirs in zip(symbolic, (compiled.matrix, compiled.noise_cov), strict=True):
        numbers = np.array(ours.subs(theta, 0.2).evalf(20).tolist(), dtype=float)
        np.testing.assert_allclose(numbers, theirs[:, :, 0, 0], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("diffusion", SIZES, ids=lambda diffusion: diffusion.name)
def test_the_exact_reverse_sde_never_stretches_in_the_laws_own_units(diffusion: Diffusion) -> None:
    """Its propagator is Sigma_(t-h) P^T Sigma_t^-1, P the forward one: norm at most 1; in the units of the state it
    is larger."""
    params = parameters(diffusion)
    target = GaussianTarget.of(0.0, VARIANCES, diffusion, params)
    stretched = 0.0
    for begin, end in ((1.0, 0.3), (0.4, 0.01)):
        P = components_first(exact_flow(diffusion.forward)(params.theta(begin, begin - end), params.values())[0])
        inverse = np.moveaxis(np.linalg.inv(np.moveaxis(target.law(begin).cov, -1, 0)), 0, -1)
        propagator = matmul(matmul(target.law(end).cov, np.swapaxes(P, 0, 1)), inverse)
        scaled = growth.in_law_units(propagator[:, :, None], target, params.T - np.array([begin, end]))[:, :, 0]
        assert (spectral_norm(scaled) <= 1 + 1e-9).all()
        stretched = max(stretched, spectral_norm(propagator).max())
    assert stretched > 1.1


@pytest.mark.parametrize("memory", [1, 2, 3])
@pytest.mark.parametrize("scheme", [POSITION["vp-Euler"], EULER], ids=lambda scheme: scheme.name)
def test_growth_is_what_loops_over_all_intervals_find(scheme: Scheme, memory: int) -> None:
    """The norm of what a perturbed state becomes, in Cholesky factors of the laws, and never above its bound."""
    scheme = replace(scheme, memory=memory)
    n, params = scheme.splitting.diffusion.size, parameters(scheme.splitting.diffusion)
    taus, target = (
        time_grid("quadratic", 7, params),
        GaussianTarget.of(0.0, VARIANCES, scheme.splitting.diffusion, params),
    )
    maps = step_maps(scheme, target, taus).matrix
    scaled = growth.in_law_units(maps, target, taus)
    found, first, last = growth.transient_growth(scaled, size=n)
    cov = target.law(params.T - taus).cov
    for v in range(len(VARIANCES)):
        factors = [np.linalg.cholesky(cov[:, :, k, v]) for k in range(8)]
        norms = {(0, 0): 1.0}
        for begin, end in itertools.combinations(range(8), 2):
            total = np.eye(n * memory)
            for k in range(begin, end):
                total = maps[:, :, k, v] @ total
            moved = np.linalg.inv(factors[end]) @ total[:n, :n] @ factors[begin]
            norms[begin, end] = float(np.linalg.norm(moved, 2))
        worst = max(norms, key=norms.__getitem__)
        np.testing.assert_allclose(found[v], norms[worst], rtol=1e-9)
        assert (first[v], last[v]) == worst
    assert (growth.growth_bound(scaled, n) >= found * (1 - 1e-12)).all()
    assert growth.fastest(growth.transient_growth)(scaled, size=n)[0] == pytest.approx(found, rel=1e-12)
    if memory > 1:  # the whole companion map is another measure
        assert growth.transient_growth(scaled)[0] != pytest.approx(found, rel=1e-3)

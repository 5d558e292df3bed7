"""Growth along trajectories: the exact dynamics have growth 1, bounds bound, the search finds what brute force finds,
black boxes and networks get the numbers of their words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import parameters
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import GRIDS, time_grid
from weakorder.theory.flows import exact_flow
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme, parse
from weakorder.theory.splitting import PSLD_FLOW, PSLD_WHOLE
from weakorder.verification.exact.moments import step_maps
from weakorder.verification.exact.spectrum import Spectrum
from weakorder.verification.stability import growth as stability
from weakorder.verification.stability.fewest_steps import least_steps, scan_steps, thinned
from weakorder.verification.stability.network_growth import network_growth
from weakorder.verification.stability.regions import last_step_excess, worst_excess
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.algebra import components_first, inverse, matmul

PARAMS = Parameters()
VARIANCES = np.array([200.0, 1.0, 1e-2, 1e-4, 2e-6])
DATA = Spectrum(VARIANCES, np.zeros_like(VARIANCES), 1)
_MATRICES = st.lists(st.lists(st.floats(-1.5, 1.5), min_size=4, max_size=4), min_size=1, max_size=7)


def em(u: Tensor, tau: float, h: float, score: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Euler-Maruyama at the default parameters, as anybody would write it."""
    x, m = u.unbind(1)
    s_x, s_m = score(u, 1 - tau).unbind(1)
    drift = torch.stack([4 * (0.01 * x - 4 * m + 0.02 * s_x), 4 * (x + 4.01 * m + 2.005 * s_m)], dim=1)
    scale = torch.tensor([0.08, 8.02], dtype=u.dtype).sqrt().reshape(2, *(1,) * (u.ndim - 2))
    return u + h * drift + h**0.5 * scale * torch.randn_like(u)


def _target(variances: np.ndarray = VARIANCES) -> GaussianTarget:
    return GaussianTarget.of(0.0, variances, PSLD_DIFFUSION, PARAMS)


def _scaled(scheme: Scheme, grid: str, steps: int) -> np.ndarray:
    taus, target = time_grid(grid, steps, PARAMS), _target()
    return stability.in_law_units(stability.trajectory_maps(scheme, target, taus), target, taus)


def _brute_growth(steps: np.ndarray) -> float:
    """The largest norm over all intervals, one matrix at a time: steps (N, 2, 2)."""
    best = 1.0
    for first in range(len(steps)):
        product = np.eye(2)
        for step in steps[first:]:
            product = step @ product
            best = max(best, float(np.linalg.norm(product, 2)))
    return best


# --- Algebra ----------------------------------------------------------------------------------------------------------


@given(_MATRICES)
def test_radius_and_norm_are_those_of_linear_algebra(entries: list[list[float]]) -> None:
    matrices = np.array(entries).reshape(-1, 2, 2)
    first = np.moveaxis(matrices, 0, -1)
    radius, norm = stability.spectral_radius(first), stability.spectral_norm(first)
    # a double eigenvalue moves by the square root of a rounding
    np.testing.assert_allclose(radius, np.abs(np.linalg.eigvals(matrices)).max(-1), atol=1e-7)
    np.testing.assert_allclose(norm, np.linalg.norm(matrices, 2, axis=(1, 2)), rtol=1e-12, atol=1e-15)


@given(_MATRICES)
def test_the_growth_is_the_largest_norm_over_all_intervals_and_never_exceeds_its_bound(
    entries: list[list[float]],
) -> None:
    matrices = np.array(entries).reshape(-1, 2, 2)
    steps = np.moveaxis(matrices, 0, -1)[..., None]
    growth, first, last = stability.transient_growth(steps)
    assert growth[0] == pytest.approx(_brute_growth(matrices), rel=1e-12)
    assert not stability.grows_beyond(steps, growth[0] * (1 + 1e-12))
    if growth[0] > 1:  # that of no step at all is 1, and exceeds nothing
        assert stability.grows_beyond(steps, growth[0] * (1 - 1e-12))
    product = np.linalg.multi_dot([np.eye(2), np.eye(2), *matrices[first[0] : last[0]][::-1]])
    assert max(1.0, float(np.linalg.norm(product, 2))) == pytest.approx(growth[0], rel=1e-12)
    assert stability.growth_bound(steps)[0] >= growth[0] * (1 - 1e-12)


def test_the_bound_is_the_growth_where_steps_contract_or_turn() -> None:
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    for step in (0.9 * np.eye(2), turn):
        steps = np.repeat(step[:, :, None, None], 50, axis=2)
        assert stability.growth_bound(steps)[0] == pytest.approx(1, abs=1e-12)


def test_the_final_product_alone_is_not_the_growth() -> None:
    """A broken measure: a run that grows and shrinks again looks harmless at its end."""
    steps = np.stack([np.diag([10.0, 1.0]), np.diag([0.1, 1.0])], axis=2)[..., None]
    final = matmul(steps[:, :, 1], steps[:, :, 0])
    assert stability.spectral_norm(final)[0] == pytest.approx(1)
    assert stability.transient_growth(steps)[0][0] == pytest.approx(10)


def test_overflow_is_unbounded_growth() -> None:
    steps = np.full((2, 2, 40, 1), 1e300)
    assert stability.growth_bound(steps)[0] == np.inf
    assert stability.transient_growth(steps)[0][0] == np.inf
    assert stability.grows_beyond(steps, 1e300)


# --- The exact dynamics -----------------------------------------------------------------------------------------------


@given(parameters(), st.floats(1e-3, 100), st.floats(0.1, 0.9), st.floats(0.01, 0.99))
def test_the_exact_reverse_sde_never_stretches_in_the_laws_own_units(
    params: Parameters, variance: float, t: float, share: float
) -> None:
    """Its propagator over [t - h, t] is Sigma_(t-h) P^T Sigma_t^-1 (the regression of u_(t-h) on u_t), P the forward
    one: norm at most 1 in units of the law. In the units of the state it is not, which the factors make good."""
    target = GaussianTarget.of(0.0, variance, PSLD_DIFFUSION, params)
    end = max(params.eps, share * t)
    P = components_first(exact_flow(PSLD_DIFFUSION.forward)(params.theta(t, t - end), params.values()).propagator)
    propagator = matmul(matmul(target.law(end).cov, np.swapaxes(P, 0, 1)), inverse(target.law(t).cov))
    scaled = stability.in_law_units(propagator[:, :, None], target, params.T - np.array([t, end]))
    assert stability.spectral_norm(scaled)[0, 0] <= 1 + 1e-6


def test_the_exact_flow_keeps_every_norm() -> None:
    """The probability flow, by its exact word in 4,000 steps: an isometry up to O(h)."""
    for splitting, isometry in ((PSLD_FLOW, True), (PSLD_WHOLE, False)):
        word, target = stability.exact_word(splitting), _target(np.array([4.0, 0.1]))
        taus = np.linspace(0.2, 0.9, 4001)
        steps = stability.in_law_units(step_maps(word, target, taus).matrix, target, taus)
        product = steps[:, :, 0]
        for k in range(1, 4000):
            product = matmul(steps[:, :, k], product)
        singular = np.linalg.svd(np.moveaxis(product, -1, 0), compute_uv=False)
        assert singular.max() <= 1.01
        assert (singular.min() >= 0.99) == isometry


def test_the_words_growth_tends_to_that_of_the_exact_dynamics() -> None:
    for name in ("EM", "ROBA", "RVV"):
        excess = [stability.transient_growth(_scaled(CATALOGUE[name], "quadratic", n))[0].max() - 1 for n in (100, 200)]
        assert 0 <= excess[1] < 0.6 * excess[0]


# --- Runs on a spectrum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
def test_the_worst_growth_is_that_of_brute_force(grid: str) -> None:
    scheme = CATALOGUE["ROBA"]
    worst = stability.worst_growth(scheme, PARAMS, time_grid(grid, 12, PARAMS), DATA)
    growths = [_brute_growth(np.moveaxis(_scaled(scheme, grid, 12)[..., i], 2, 0)) for i in range(VARIANCES.size)]
    assert worst.growth == pytest.approx(max(growths), rel=1e-10)
    assert worst.variance == VARIANCES[int(np.argmax(growths))]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "grid"),
    [("NOBA", "quadratic"), ("EM", "quadratic"), ("RSE", "uniform")],
)
def test_the_least_steps_are_those_of_looking_at_every_number(name: str, grid: str) -> None:
    scheme = CATALOGUE[name]
    found = least_steps(scheme, PARAMS, grid, bound=150, data=DATA)
    stable = [stability.transient_growth(_scaled(scheme, grid, n))[0].max() <= 2 for n in range(1, 151)]
    assert found.steps == 1 + max(n for n, good in enumerate(stable, 1) if not good)
    assert found.breaks is not None
    assert found.breaks.growth > 2 >= found.holds.growth
    assert found.steady is not None
    assert found.unstable is not None
    assert found.unstable.excess > stability.EXCESS
    # a wider allowance needs no more steps
    assert (scan_steps(scheme, PARAMS, grid, factor=10, bound=150, data=DATA) or 0) <= found.steps


def test_a_run_that_no_number_of_steps_makes_stable_says_so() -> None:
    found = least_steps(CATALOGUE["ROBA"], PARAMS, "uniform", bound=40, data=DATA)
    assert found.steps is None
    assert found.holds.growth > 2
    broken = least_steps(parse("O S B A(1/2)"), PARAMS, "quadratic", bound=60, data=DATA)
    assert broken.steps is None


def test_what_breaks_is_named() -> None:
    """A uniform grid of 25 steps flips at the smallest variance in the last step; quadratic ones break by accuracy."""
    flip = stability.worst_growth(CATALOGUE["NOBA"], PARAMS, time_grid("uniform", 25, PARAMS), DATA)
    assert (flip.step.cause, flip.variance) == ("flip", 2e-6)
    assert flip.t_to == pytest.approx(PARAMS.eps)
    assert flip.step.radius > 2 > 1 > flip.step.exact_radius
    accuracy = stability.worst_growth(CATALOGUE["NOBA"], PARAMS, time_grid("quadratic", 25, PARAMS), DATA)
    assert accuracy.step.cause == "accuracy"
    wrong = parse("O(1/2) S B A")  # half the damping: still a flip, and a larger one
    assert stability.worst_growth(wrong, PARAMS, time_grid("uniform", 25, PARAMS), DATA).growth > 2


def test_a_shared_score_costs_little_at_equal_steps_and_gains_at_equal_evaluations() -> None:
    """Why naive OBA is worse at 50 evaluations: not its step, but its length."""
    naive, reduced, reduced_at_equal_cost = (
        stability.worst_growth(CATALOGUE[name], PARAMS, time_grid("uniform", n, PARAMS), DATA).growth
        for name, n in (("NOBA", 25), ("ROBA", 25), ("ROBA", 50))
    )
    assert reduced == pytest.approx(naive, rel=0.25)
    assert reduced_at_equal_cost < naive / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [({"factor": 1.0}, "growth 1"), ({"bound": 1}, "2 steps or more"), ({"grid": "cubic"}, "unknown")],
)
def test_bad_input_of_the_search_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        least_steps(CATALOGUE["EM"], PARAMS, **({"grid": "uniform", "data": DATA} | change))
    with pytest.raises(ValueError, match="at most"):
        stability.worst_growth(CATALOGUE["EM"], PARAMS, time_grid("uniform", 3000, PARAMS), DATA)


def test_the_thinned_spectrum_keeps_the_extremes() -> None:
    values = np.geomspace(1e-6, 200, 3000)
    thin = thinned(values)
    assert set(thin) <= set(values)
    assert (thin[0], thin[-1]) == (values[0], values[-1])
    assert np.diff(np.log(thin)).max() < 1.5 * np.log(values[-1] / values[0]) / (thin.size - 1)


def test_regions_are_those_of_the_steps_themselves() -> None:
    h = np.array([0.005, 0.05])
    excess = last_step_excess(CATALOGUE["ROBA"], PARAMS, h, VARIANCES)
    for row, length in zip(excess, h, strict=True):
        taus = PARAMS.T - PARAMS.eps - np.array([length, 0.0])
        worst = stability.worst_step(CATALOGUE["ROBA"], _target(), taus)
        assert row.max() == pytest.approx(max(worst.excess, row.min()), rel=1e-12)
    over_time = worst_excess(CATALOGUE["ROBA"], PARAMS, h, np.array([0.02, 0.055, 0.5]), VARIANCES)
    assert np.isnan(over_time[1, 0])
    assert over_time[1, 1] > stability.EXCESS > over_time[0].max()


# --- Black boxes and networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
def test_a_black_box_has_the_numbers_of_its_word(grid: str) -> None:
    taus = time_grid(grid, 14, PARAMS)
    box, word = (stability.worst_growth(sampler, PARAMS, taus, DATA) for sampler in (em, CATALOGUE["EM"]))
    assert box.growth == pytest.approx(word.growth, rel=1e-9)
    assert (box.variance, box.t_from, box.t_to) == (word.variance, word.t_from, word.t_to)
    assert box.step.radius == pytest.approx(word.step.radius, rel=1e-7)
    assert box.step.cause == word.step.cause


def test_a_black_box_on_a_stopped_clock_has_the_frozen_map_of_its_word() -> None:
    from weakorder.verification.blackbox.probing import ProbedStep

    frozen = stability.stop_clock(VARIANCES, 0.02, PSLD_DIFFUSION, PARAMS)
    box = ProbedStep(em, frozen)(0.98, 0.01)
    word = stability.frozen_maps(CATALOGUE["EM"], frozen, 0.08)
    np.testing.assert_allclose(box.matrix, word.matrix[:, :, 0], rtol=1e-8)
    np.testing.assert_allclose(box.noise_cov, word.noise_cov[:, :, 0], rtol=1e-8, atol=1e-15)


def test_a_sampler_without_a_one_step_map_is_refused() -> None:
    def trajectory(_score: Any, u: Tensor, _taus: Tensor) -> Tensor:
        return u

    with pytest.raises(ValueError, match="one-step map"):
        stability.dynamics(trajectory, PARAMS)
    assert stability.dynamics(em, PARAMS) is PSLD_WHOLE
    assert stability.dynamics(lambda u, tau, h, score: u * (1 + h), PARAMS) is PSLD_FLOW


def _pixelwise(target: GaussianTarget) -> Callable[[Tensor, float], Tensor]:
    """The score of an image whose pixels have the target's variances: u (batch, 2, V)."""

    precision = cache(lambda t: torch.as_tensor(target.precision(target.law(t))))

    def score(u: Tensor, t: float) -> Tensor:
        return -torch.einsum("ijv,bjv->biv", precision(t).to(u.dtype), u)

    return score


@settings(max_examples=3)  # a few thousand derivatives each
@given(
    st.lists(st.floats(1e-3, 10), min_size=1, max_size=5),
    st.floats(0.06, 0.9),  # the step must end before t = 0
    st.floats(0.005, 0.05),
    st.floats(0.5, 2),
)
@pytest.mark.nightly
def test_the_growth_of_a_network_is_the_exact_one_on_gaussian_targets(
    variances: list[float], t: float, h: float, unit: float
) -> None:
    """The largest singular value over all pixels, in the units asked for; the residual says how near: the value found
    lies below it and within the residual of some singular value, the largest but for near ties."""
    target = _target(np.array(variances))
    taus = PARAMS.T - np.array([t, t - h])
    units = np.diag([unit, 0.5])[..., None]
    exact = stability.trajectory_maps(CATALOGUE["EM"], target, taus)[:, :, 0]
    norm = float(stability.spectral_norm(matmul(matmul(inverse(units), exact), units)).max())
    u = torch.randn(3, 2, len(variances), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = network_growth(em, u, PARAMS.T - t, h, _pixelwise(target), (unit, 0.5), iterations=2000)
    assert (found.growth <= norm * (1 + 1e-9)).all()
    np.testing.assert_allclose(found.growth, norm, rtol=0.02)
    assert (found.residual <= 1e-3).all()
    assert found.direction.shape == u.shape


@pytest.mark.nightly
def test_a_networks_growth_is_a_local_one_and_its_noise_is_held_fixed() -> None:
    """A nonlinear score: the Jacobian at each state, by automatic differentiation of the whole step; the noise that is
    put in moves the state and not the derivative."""

    def score(u: Tensor, _t: float) -> Tensor:
        return -torch.tanh(u) * (1 + u.roll(1, -1) ** 2)

    u = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def flat(v: Tensor) -> Tensor:
        return em(v.reshape(1, 2, 3), 0.5, 0.02, score).reshape(-1)

    jacobians = [torch.autograd.functional.jacobian(flat, row.reshape(-1)) for row in u]
    exact = [float(torch.linalg.matrix_norm(jacobian, 2)) for jacobian in jacobians]
    found = network_growth(em, u, 0.5, 0.02, score, iterations=3000, tolerance=1e-6)
    noisy = network_growth(
        em, u, 0.5, 0.02, score, noise=lambda _, shape, law: torch.ones(shape), iterations=3000, tolerance=1e-6
    )
    np.testing.assert_allclose(found.growth, exact, rtol=1e-4)
    np.testing.assert_allclose(noisy.growth, found.growth, rtol=1e-9)
    one = network_growth(em, u, 0.5, 0.02, score, iterations=1)
    assert one.iterations == 1
    assert (one.residual > 1e-3).all()  # and says that it is not there yet


@pytest.mark.parametrize(
    ("change", "message"),
    [({"units": (0.0, 1.0)}, "positive"), ({"u": torch.zeros(2, 3)}, "batch, 2"), ({"iterations": 0}, "1 or more")],
)
def test_bad_input_of_a_networks_growth_is_refused(change: dict[str, Any], message: str) -> None:
    settings = {"step": em, "u": torch.zeros(1, 2), "tau": 0.5, "h": 0.01, "score": lambda u, t: -u} | change
    with pytest.raises(ValueError, match=message):
        network_growth(**settings)

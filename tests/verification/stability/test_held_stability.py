"""Stability of schemes that look back: the companion map against known limits and against loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import EXPONENTIAL
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import draw_prior
from weakorder.theory.frozen import DATA_HELD, RESIDUAL_HELD
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW_WHOLE, PSLD_WHOLE
from weakorder.verification.cifar10.study.design import model_of, open_checkpoint
from weakorder.verification.exact import Spectrum, step_maps, step_matrices
from weakorder.verification.stability import growth as stability
from weakorder.verification.stability.fewest_steps import least_steps
from weakorder.verification.targets import GaussianTarget

PARAMS = Parameters()
AB = {memory: Scheme("S F", PSLD_WHOLE, memory=memory) for memory in (1, 2, 3, 4)}
# On the negative real axis the methods of Adams and Bashforth are stable up to these (Hairer and Wanner 1996, V.1).
LIMITS = {1: 2.0, 2: 1.0, 3: 6 / 11, 4: 3 / 10}


@pytest.mark.parametrize("memory", AB)
def test_the_companion_map_has_the_stability_limit_of_adams_and_bashforth(memory: int) -> None:
    still = stability.stop_clock(4.0, 0.9, PSLD_DIFFUSION, PARAMS)
    A, G, _ = PSLD_WHOLE.whole.numbers(PARAMS.values())
    drift = A - G @ np.linalg.inv(still.frozen.cov[..., 0])
    rates = np.linalg.eigvals(drift)
    assert np.abs(rates.imag).max() == 0
    for share, stable in ((0.99, True), (1.01, False)):
        h = share * LIMITS[memory] / float(np.abs(rates.real).max()) / PARAMS.beta(0)
        taus = h * np.arange(memory + 1)
        last = step_maps(AB[memory], still, taus).matrix[:, :, -1]
        assert (stability.spectral_radius(last)[0] < 1) is np.bool_(stable)


@pytest.mark.parametrize("splitting", [PSLD_WHOLE, PSLD_FLOW_WHOLE], ids=lambda splitting: splitting.name)
@pytest.mark.parametrize("memory", [2, 3])
def test_growth_is_what_loops_over_all_intervals_find(splitting, memory: int) -> None:
    scheme = Scheme("S F", splitting, flow="exact", frozen=DATA_HELD, memory=memory)
    variances, taus = np.array([0.01, 1.0, 30.0]), time_grid("quadratic", 9, PARAMS)
    target = GaussianTarget.of(0.0, variances, PSLD_DIFFUSION, PARAMS)
    maps = stability.trajectory_maps(scheme, target, taus)
    growth, first, last = stability.transient_growth(stability.in_law_units(maps, target, taus), size=2)
    cov = target.law(PARAMS.T - taus).cov
    for v in range(3):
        factors = [np.linalg.cholesky(cov[:, :, k, v]) for k in range(10)]
        norms = {(0, 0): 1.0}
        for begin, end in itertools.combinations(range(10), 2):
            total = np.eye(2 * memory)
            for k in range(begin, end):
                total = maps[:, :, k, v] @ total
            moved = np.linalg.inv(factors[end]) @ total[:2, :2] @ factors[begin]
            norms[begin, end] = float(np.linalg.norm(moved, 2))
        worst = max(norms, key=norms.__getitem__)
        np.testing.assert_allclose(growth[v], norms[worst], rtol=1e-10)
        assert (first[v], last[v]) == worst


def test_the_fewest_steps_are_the_first_number_whose_growth_is_small_enough() -> None:
    data = Spectrum(np.array([1.0, 0.05]), np.zeros(2), 1)
    scheme = Scheme("S F", PSLD_FLOW_WHOLE, flow="exact", frozen=RESIDUAL_HELD, memory=2)
    found = least_steps(scheme, PARAMS, "quadratic", bound=60, data=data)
    assert found.steps is not None
    assert found.breaks is not None
    for steps, run in ((found.steps, found.holds), (found.steps - 1, found.breaks)):
        assert run == stability.worst_growth(scheme, PARAMS, time_grid("quadratic", steps, PARAMS), data)
    assert found.holds.growth <= stability.FACTOR < found.breaks.growth


def test_what_a_step_does_with_the_clock_stopped_is_refused_where_it_depends_on_time() -> None:
    still = stability.stop_clock(4.0, 0.9, PSLD_DIFFUSION, PARAMS)
    held = Scheme("S F", PSLD_WHOLE, flow="exact", frozen=DATA_HELD)
    with pytest.raises(ValueError, match="what a step does with the clock stopped is not known of"):
        stability.frozen_maps(held, still, [0.1])


@pytest.mark.parametrize(
    "scheme",
    [
        *(Scheme("S F", PSLD_WHOLE, flow="exact", frozen=DATA_HELD, memory=memory) for memory in (1, 2, 3)),
        Scheme("O S B A S@1/2 B", PSLD, flow="exact", memory=2),
        Scheme("S F", PSLD_WHOLE, flow="true"),
    ],
    ids=lambda scheme: f"{scheme.word} {scheme.memory} {scheme.flow}",
)
def test_the_matrices_of_steps_are_those_of_their_maps(scheme: Scheme) -> None:
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], PSLD_DIFFUSION, PARAMS)
    taus = time_grid("quadratic", 7, PARAMS)
    matrices, maps = step_matrices(scheme, target, taus), step_maps(scheme, target, taus)
    np.testing.assert_allclose(matrices, maps.matrix, rtol=0, atol=1e-13 * np.abs(maps.matrix).max())
    assert matrices.shape == (2 * scheme.memory, 2 * scheme.memory, 7, 2)


# --- What a memory makes of a state that it does not know -------------------------------------------------------------

WIDE = 224.4932994354338  # the largest variance of CIFAR-10's spectrum, along its images' brightness
DPM_2M = EXPONENTIAL["SDE-DPM-Solver++2M"]
QUADRATIC = time_grid("quadratic", 49, PARAMS)


def growth_from_every_start(scheme: Scheme, variance: float) -> float:
    """The largest growth of runs that begin anywhere on the grid, so that old answers are those of the same state."""
    found = 1.0
    target = GaussianTarget.of(0.0, variance, PSLD_DIFFUSION, PARAMS)
    for first in range(len(QUADRATIC) - 1):
        taus = QUADRATIC[first:]
        steps = stability.in_law_units(stability.trajectory_maps(scheme, target, taus), target, taus)[..., 0]
        product = np.eye(len(steps))
        for k in range(steps.shape[2]):
            product = steps[:, :, k] @ product
            found = max(found, float(np.linalg.norm(product[:2, :2], 2)))
    return found


def growth_of(scheme: Scheme, variance: float) -> float:
    return stability.worst_growth(scheme, PARAMS, QUADRATIC, Spectrum(np.array([variance]), np.zeros(1), 1)).growth


def test_a_run_grows_where_a_state_is_perturbed_that_old_answers_do_not_know_and_nowhere_else() -> None:
    """Fifty-fold near t = 0.006, in one step, in proportion to the data's standard deviation. Runs that begin there
    with the perturbed state do not grow, nor do those that hold the last answer alone: no step is unstable."""
    found = stability.worst_growth(DPM_2M, PARAMS, QUADRATIC, Spectrum(np.array([WIDE]), np.zeros(1), 1))
    assert 49 < found.growth < 51
    assert found.t_to < 0.006 < found.t_from
    assert found.step.cause == "accuracy"
    assert growth_from_every_start(DPM_2M, WIDE) < 1.001
    assert growth_of(EXPONENTIAL["SDE-DPM-Solver++1"], WIDE) < 1.001
    assert growth_of(DPM_2M, WIDE / 16) == pytest.approx(found.growth / 4, rel=0.01)


@pytest.mark.nightly
@pytest.mark.parametrize("knows", [False, True])
def test_the_network_grows_in_that_step_as_its_gaussian_does(knows: bool) -> None:
    """The states of two samples made brighter before the step of largest growth, by a tenth of a standard deviation
    of the data, with the old answers of the run, or none: 50-fold, and not at all. The network is not the cause."""
    model = model_of(open_checkpoint(None, {})[0])
    network, target = model.score(torch.device("cpu")), GaussianTarget.of(0.0, WIDE, PSLD_DIFFUSION, PARAMS)
    steps = stability.in_law_units(stability.trajectory_maps(DPM_2M, target, QUADRATIC), target, QUADRATIC)
    at = int(stability.spectral_norm(steps[:2, :2, :, 0]).argmax())
    worst = np.linalg.svd(steps[:2, :2, at, 0])[2][0]
    before, after = (np.linalg.cholesky(target.law(PARAMS.T - tau).cov[..., 0]) for tau in QUADRATIC[at : at + 2])
    bright = torch.ones(3, 32, 32, dtype=torch.float64) / math.sqrt(3072)
    change = torch.tensor(0.1 * before @ worst)[:, None, None, None] * bright

    def score(u: torch.Tensor, t: float) -> torch.Tensor:
        with torch.no_grad():
            return network(u.float(), t).double()

    def step(u: torch.Tensor, k: int) -> torch.Tensor:
        torch.manual_seed(k)
        return box(u, float(QUADRATIC[k]), float(QUADRATIC[k + 1] - QUADRATIC[k]), score)

    box, u = as_black_box(DPM_2M, PARAMS), draw_prior(PSLD_DIFFUSION, PARAMS, torch.arange(2), (3, 32, 32))
    for k in range(at):
        u = step(u, k)
    memory = box.begun, box.old
    ends = []
    for state in (u, u + change):
        box.begun, box.old = ([], []) if knows else memory
        ends.append(step(state, at))
    moved = ((ends[1] - ends[0]) * bright).sum((2, 3, 4)).numpy()
    grown = np.linalg.norm(np.linalg.solve(after, moved.T), axis=0) / 0.1
    assert np.abs(grown / (1.0 if knows else growth_of(DPM_2M, WIDE)) - 1).max() < 0.01

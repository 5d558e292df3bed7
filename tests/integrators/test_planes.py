"""States of one, two and three components in the sampling loop: layouts, noise, and the update itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
import torch
from diffusions import THIRD
from torch import Tensor
from weakorder.integrators import planes
from weakorder.integrators.catalogue import CATALOGUE, POSITION
from weakorder.integrators.compiled import compile_run, denoising_step, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.integrators.noise import START, normal_pairs
from weakorder.integrators.planes import normals, shape_of
from weakorder.integrators.sampler import ScoreError, draw_prior, sample
from weakorder.theory.model import DIFFUSIONS, Diffusion, LinearSDE, Parameters, m, x
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import Part, Splitting

VP = DIFFUSIONS["vp"]
ONE = sp.S.One


def third() -> Scheme:
    dynamics = THIRD.reverse()
    return Scheme("S F", Splitting("third", THIRD, dynamics, (Part("F", dynamics.drift, dynamics.diffusion),)))


def score(u: Tensor, t: float) -> Tensor:
    """Not linear, another at every time, and mixing elements and components."""
    return -torch.sin(u + t) - 0.3 * u.flip(-1)


def by_hand(scheme: Scheme, u: Tensor, taus: np.ndarray, params: Parameters, seed: int) -> Tensor:
    """The loop, by numpy's matrices on every element, for schemes with memory 1."""
    size = scheme.splitting.diffusion.size
    run = compile_run(scheme, taus, params)
    assert run.updates.memory is None
    assert run.updates.time is not None
    event = u.shape[1:] if size == 1 else u.shape[2:]
    for k, t in enumerate(run.updates.time):
        P, K, Q = (entry[k] for entry in run.updates.flow)
        xi = normals(seed, torch.arange(len(u)), START + 2 + k, size, event)
        rows = [each.reshape(len(u), size, -1) for each in (u, score(u, float(t)), xi)]
        matrices = map(torch.tensor, (P, K, noise_factor(Q)))
        u = sum(matrix @ row for matrix, row in zip(matrices, rows, strict=True)).reshape(u.shape)  # type: ignore
    return u


@pytest.mark.parametrize("event", [(4,), (3,), (1,), (3, 5, 5), (2, 4, 4)])
@pytest.mark.parametrize("scheme", [POSITION["vp-EM"], POSITION["vp-DDPM"], POSITION["vp-DDIM"], third()], ids=str)
def test_a_run_is_the_update_formula_on_every_element(scheme: Scheme, event: tuple[int, ...]) -> None:
    diffusion = scheme.splitting.diffusion
    params = diffusion.parameters()
    u = draw_prior(diffusion, params, torch.arange(5), event, seed=3)
    assert u.shape == (5, *shape_of(diffusion.size, event))
    taus = time_grid("uniform", 6, params, 0.2)
    got = sample(scheme, score, u, taus, params, seed=3)
    want = by_hand(scheme, u, taus, params, 3)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert float((by_hand(scheme, u, taus[:-1], params, 3) - got).abs().max()) > 1e-3
    alone = sample(scheme, score, u[2:4], taus, params, samples=torch.tensor([2, 3]), seed=3)
    assert torch.equal(alone, got[2:4])


def test_the_noise_of_two_components_is_pairs_and_others_have_as_many_numbers_of_their_own() -> None:
    numbers = torch.arange(2000)
    assert torch.equal(normals(1, numbers, 4, 2, (3, 2)), normal_pairs(1, numbers, 4, (3, 2)))
    for size, event in ((1, (3,)), (1, (2, 2)), (3, (2,)), (3, (3,))):
        drawn = normals(1, numbers, 4, size, event)
        assert drawn.shape == (2000, *shape_of(size, event))
        flat = drawn.reshape(2000, -1)
        cov = torch.cov(flat.T)
        # standard errors of a covariance of 2,000 draws: 1 / sqrt(2000) = 0.022 and sqrt(2) times that
        assert float((cov - torch.eye(flat.shape[1])).abs().max()) < 6 * np.sqrt(2 / 2000)
    assert normals(1, numbers, 4, 1, (3,)).unique().numel() == 6000


def test_the_prior_has_the_variances_of_its_components() -> None:
    u = draw_prior(THIRD, Parameters(), torch.arange(4000), (2,))
    for i, variance in enumerate((1.0, 1.0, 0.1)):
        assert float(u[:, i].var()) == pytest.approx(variance, rel=6 * np.sqrt(2 / 8000))


@pytest.mark.parametrize("event", [(4,), (3,)])
@pytest.mark.parametrize("memory", [2, 3])
def test_memory_and_the_denoising_step_are_those_of_two_copies(memory: int, event: tuple[int, ...]) -> None:
    """Claim: x and m of two copies of vp move as vp alone moves, with its score, over the same flow; what is remembered
    and the last drift-only step, too."""
    pair = Diffusion("pair", LinearSDE((-x / 2, -m / 2), (ONE, ONE)), (ONE,), (ONE, ONE))
    flow = pair.probability_flow()
    splitting = Splitting("pair", pair, flow, (Part("F", flow.drift, flow.diffusion),))
    alone = replace(POSITION["vp-DEIS-2"], memory=memory, order=2)
    both = replace(alone, splitting=splitting)
    params = VP.parameters()
    u = draw_prior(VP, params, torch.arange(3), event)
    taus = time_grid("uniform", 7, params, 0.2)
    got = sample(alone, score, u, taus, params, denoise=True)
    doubled = torch.stack([u, 2 * u], dim=1)
    want = sample(
        both, lambda v, t: torch.stack([score(v[:, 0], t), score(v[:, 1], t)], 1), doubled, taus, params, denoise=True
    )
    torch.testing.assert_close(got, want[:, 0], rtol=1e-11, atol=1e-11)
    assert denoising_step(alone.splitting, 0.2, params).flow.noise_cov.shape == (1, 1, 1)
    assert float((sample(alone, score, u, taus, params) - got).abs().max()) > 1e-3


def test_a_state_of_the_wrong_layout_is_refused() -> None:
    params = VP.parameters()
    taus = time_grid("uniform", 3, params)
    with pytest.raises(ValueError, match=r"it must be floating, \(batch, 3, \*event\)"):
        sample(third(), score, torch.zeros(4, 2, 5, dtype=torch.float64), taus, params)
    with pytest.raises(ValueError, match=r"it must be floating, \(batch, 2, \*event\)"):
        sample(CATALOGUE["EM"], score, torch.zeros(4, 3, dtype=torch.float64), taus, params)


@pytest.mark.parametrize("scheme", [POSITION["vp-EM"], third()], ids=str)
def test_a_score_that_is_not_finite_is_named(scheme: Scheme) -> None:
    u = torch.zeros(4, *shape_of(scheme.splitting.diffusion.size, (3,)), dtype=torch.float64)
    params = VP.parameters()
    taus = time_grid("uniform", 3, params)
    times: list[float] = []

    def failing(u: Tensor, t: float) -> Tensor:
        s = torch.zeros_like(u)
        if times:
            s.view(-1)[-1] = torch.nan
        times.append(t)
        return s

    with pytest.raises(ScoreError, match=rf"1 of {u.numel()} entries of the score are NaN or infinite at step 2 of 3"):
        sample(scheme, failing, u, taus, params)


def test_one_component_runs_on_the_compiled_kernels() -> None:
    """Claim: a state in position alone is not advanced by torch's operators, which cost a pass each."""
    updates = planes.updates_for(np.ones((1, 3)), torch.zeros(2, 4))
    assert "operators" not in type(updates).__name__.lower()
    kernel = vars(updates)["_updates"]
    assert kernel.__class__.__module__.startswith("weakorder.integrators.kernels")

"""Growth on a network, of one component and of three: where the network is linear it is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusions import PARTED_THIRD
from torch import Tensor
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.compiled import compile_run
from weakorder.integrators.planes import shape_of
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_LINEAR
from weakorder.verification.stability import growth as stability
from weakorder.verification.stability.network_growth import network_growth
from weakorder.verification.targets import GaussianTarget
from weakorder.verification.verdicts import inverse, matmul, spectral_norm

Step = Callable[[Tensor, float, float, Callable[[Tensor, float], Tensor]], Tensor]
VP = POSITION["vp-EM"].splitting.diffusion
VP_PARAMS = VP.parameters()
THETA = float(VP_PARAMS.theta(0.5, 0.05))
VARIANCES = np.array([4.0, 1e-3])
WORDS = [
    POSITION["vp-EM"],
    POSITION["vp-DDPM"],
    Scheme("U(1/2) S E U(1/2)", VP_LINEAR, "U S E U", flow="exact"),
    Scheme("S O B A", PARTED_THIRD, "third-SOBA"),
]


def step_of(scheme: Scheme, params: Parameters) -> Step:
    """One step of a word as code of torch, that can be differentiated, without its noise."""
    n = scheme.splitting.diffusion.size
    compiled = cache(lambda tau, h: compile_run(scheme, np.array([tau, tau + h]), params))

    def step(u: Tensor, tau: float, h: float, score: Callable[[Tensor, float], Tensor]) -> Tensor:
        run = compiled(tau, h)

        def moved(matrix: np.ndarray, v: Tensor) -> Tensor:
            rows = v.reshape(len(v), n, -1)
            return (torch.from_numpy(np.array(matrix)).to(v) @ rows).reshape(u.shape)

        u = moved(run.prologue.propagator, u)
        assert run.updates.time is not None
        for k, t in enumerate(run.updates.time.tolist()):
            P, K = run.updates.flow.propagator[k], run.updates.flow.score_gain[k]
            u = moved(P, u) + moved(K, score(u, t))
        return u

    return step


def gaussian_score(target: GaussianTarget) -> Callable[[Tensor, float], Tensor]:
    """The score of an image whose pixels have the target's variances: u (batch, n, V), of one component (batch, V)."""
    n = target.diffusion.size
    precision = cache(lambda t: torch.as_tensor(target.precision(target.law(t))))

    def score(u: Tensor, t: float) -> Tensor:
        return -torch.einsum("ijv,bjv->biv", precision(t).to(u.dtype), u.reshape(len(u), n, -1)).reshape(u.shape)

    return score


@pytest.mark.parametrize("pixels", [1, 4])
def test_euler_maruyama_in_position_on_a_linear_network_has_its_growth_by_hand(pixels: int) -> None:
    """x <- x + theta (x / 2 + s), s = -W x: the largest |1 + theta (1/2 - w)|, w of the eigenvalues of W; the units and
    the bias of the network change nothing."""
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(pixels, pixels, generator=generator, dtype=torch.float64)
    network = torch.nn.Linear(pixels, pixels, dtype=torch.float64)
    with torch.no_grad():
        network.weight.copy_(-(root @ root.T) - torch.eye(pixels))
    u = torch.randn(3, pixels, generator=generator, dtype=torch.float64)
    step = step_of(POSITION["vp-EM"], VP_PARAMS)
    w = torch.linalg.eigvalsh(-network.weight.detach()).numpy()
    exact = np.abs(1 + THETA * (0.5 - w)).max()
    for unit in (1.0, 0.3):
        found = network_growth(step, u, 0.5, 0.05, lambda u, _: network(u), (unit,), iterations=2000, tolerance=1e-6)
        np.testing.assert_allclose(found.growth, exact, rtol=1e-9)
        assert found.direction.shape == u.shape
    assert np.abs(1 - THETA * w).max() != pytest.approx(exact, rel=1e-3)  # without the drift
    flow = network_growth(step_of(POSITION["vp-Euler"], VP_PARAMS), u, 0.5, 0.05, lambda u, _: network(u), (1.0,))
    assert (np.abs(flow.growth / exact - 1) > 1e-3).all()


@pytest.mark.parametrize("scheme", WORDS, ids=lambda scheme: scheme.name)
def test_the_growth_of_a_word_on_gaussian_data_is_the_norm_of_its_map(scheme: Scheme) -> None:
    """Claim: the largest singular value of S^-1 R S over all pixels, S the units; and with other units another."""
    diffusion = scheme.splitting.diffusion
    params, n, t, h = diffusion.parameters(beta_min=2.0, beta_max=2.0), diffusion.size, 0.4, 0.05
    target = GaussianTarget.of(0.0, VARIANCES, diffusion, params)
    R = stability.trajectory_maps(scheme, target, params.T - np.array([t, t - h]))[:, :, 0]
    units = (0.7, 0.5, 0.2)[:n]
    S = np.diag(units)[..., None]
    exact = float(spectral_norm(matmul(matmul(inverse(S), R), S)).max())
    u = torch.randn(2, *shape_of(n, (len(VARIANCES),)), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def found(step: Step, units: tuple[float, ...] = units) -> np.ndarray:
        found = network_growth(step, u, params.T - t, h, gaussian_score(target), units, iterations=500)
        assert (found.residual <= 1e-3).all()
        return found.growth

    np.testing.assert_allclose(found(step_of(scheme, params)), exact, rtol=1e-3)  # as near as the residual says
    longer = step_of(scheme, diffusion.parameters(beta_min=4.0, beta_max=4.0))
    assert (np.abs(found(longer) / exact - 1) > 5e-3).all()
    if n > 1:
        assert (np.abs(found(step_of(scheme, params), tuple(reversed(units))) / exact - 1) > 5e-3).all()


def test_states_of_one_element_and_one_component_are_a_batch_of_numbers() -> None:
    found = network_growth(step_of(POSITION["vp-EM"], VP_PARAMS), torch.ones(3), 0.5, 0.05, lambda u, _: -3 * u, (2.0,))
    np.testing.assert_allclose(found.growth, abs(1 + THETA * (0.5 - 3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "units", "message"),
    [
        ((2, 3), (1.0, 1.0, 1.0, 1.0), r"of shape \(2, 3\) .*with 4 units it must be floating, \(batch, 4, \*event\)"),
        ((), (1.0,), r"with 1 unit it must be floating, \(batch, \*event\); give a unit for each"),
        ((2, 3), (), "give the standard deviation of each component"),
        ((2, 3), (1.0, -1.0, 1.0), "all positive"),
    ],
)
def test_units_and_states_that_do_not_fit_are_refused(shape: Any, units: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network_growth(step_of(POSITION["vp-EM"], VP_PARAMS), torch.ones(shape), 0.5, 0.01, lambda u, _: -u, units)

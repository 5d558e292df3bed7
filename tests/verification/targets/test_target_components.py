"""Targets of states with one and with three components: densities, scores and draws computed otherwise.

Statistical assertions: 24 Kolmogorov-Smirnov tests at 1e-9 each.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusions import THIRD
from numpy.typing import NDArray
from scipy import linalg, stats
from target_checks import P_VALUE, autograd, fokker_planck_residual
from weakorder.theory.model import DIFFUSIONS, Diffusion, Parameters
from weakorder.verification.targets import mixture
from weakorder.verification.targets.empirical import HALF_RANGE, EmpiricalTarget
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.targets.named import make_target

Array = NDArray[np.float64]
VP = DIFFUSIONS["vp"]
PARAMS = Parameters(beta_min=0.5, beta_max=3.0)
CASES = [(VP, 1), (VP, 3), (VP, 6), (THIRD, 1), (THIRD, 2)]
ANY = pytest.mark.parametrize(("diffusion", "dim"), CASES, ids=str)


def kernel(diffusion: Diffusion, t: float) -> tuple[Array, Array]:
    """The propagator and the noise's covariance of the forward SDE up to t, by the exponential of Van Loan 1978."""
    A, _, D = diffusion.forward.numbers(PARAMS.values())
    n, theta = len(A), float(PARAMS.theta(t, t))
    block = linalg.expm(np.block([[-A, D], [np.zeros((n, n)), A.T]]) * theta)
    P = block[n:, n:].T
    return P, P @ block[:n, n:]


def directly(target: MixtureTarget, u: torch.Tensor, t: float) -> tuple[Array, Array]:
    """log p_t (batch,) and the score, in u's shape, from every component's whole covariance."""
    P, Q = kernel(target.diffusion, t)
    n, dim = len(P), target.event[0]
    others = np.diag([0.0, *target.diffusion.data_variances(PARAMS.values())])
    rows, densities, pulls = u.numpy().reshape(len(u), -1), [], []
    for weight, mean, cov in zip(target.weights, target.means, target.covariances, strict=True):
        first = np.zeros((n, n))
        first[0, 0] = 1
        whole = np.kron(P @ first @ P.T, cov) + np.kron(P @ others @ P.T + Q, np.eye(dim))
        centre = np.kron(P[:, 0], mean)
        densities.append(math.log(weight) + stats.multivariate_normal(centre, whole).logpdf(rows).reshape(-1))
        pulls.append(-np.linalg.solve(whole, (rows - centre).T).T)
    log_density = np.logaddexp.reduce(densities)
    shares = np.exp(np.array(densities) - log_density)
    return log_density, (shares[..., None] * np.array(pulls)).sum(0).reshape(u.shape)


@ANY
def test_density_and_score_are_those_of_the_whole_covariances(diffusion: Diffusion, dim: int) -> None:
    """Claim: to 1e-9; a clock that is a thousandth off is seen."""
    target = make_target("mixture", PARAMS, dim, diffusion=diffusion)
    assert isinstance(target, MixtureTarget)
    for t in (0.05, 0.4, 1.0):
        u = 1.5 * target.sample(t, torch.arange(40), 3)
        assert u.shape == ((40, dim) if diffusion.size == 1 else (40, diffusion.size, dim))
        log_density, score = directly(target, u, t)
        np.testing.assert_allclose(target.log_density(u, t), log_density, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(target.score(u, t), score, rtol=1e-9, atol=1e-9 * np.abs(score).max())
        assert np.abs(target.score(u, 1.001 * t).numpy() - score).max() > 1e-5 * np.abs(score).max()
        gradient = autograd(target, u, t)
        assert (target.score(u, t) - gradient).norm() <= 1e-10 * gradient.norm()


def test_in_position_alone_the_law_is_the_data_scaled_and_blurred() -> None:
    """Claim: alpha = exp(-theta / 2), sigma^2 = 1 - alpha^2."""
    target = make_target("mixture", PARAMS, 1, diffusion=VP)
    theta = float(PARAMS.theta(0.3, 0.3))
    alpha, noise = math.exp(-theta / 2), 1 - math.exp(-theta)
    x = np.linspace(-3, 3, 61)
    closed = sum(
        w * stats.norm.pdf(x, alpha * c, math.sqrt(alpha**2 * v + noise))
        for w, c, v in ((0.4, -1, 0.2), (0.6, 1, 0.05))
    )
    u = torch.from_numpy(x)[:, None]
    np.testing.assert_allclose(target.log_density(u, 0.3), np.log(closed), rtol=0, atol=1e-12)
    mean, cov = target.moments(0.3)
    assert (mean.shape, cov.shape) == ((1, 1), (1, 1, 1))
    assert float(mean) == pytest.approx(0.2 * alpha, abs=1e-12)
    assert float(cov) == pytest.approx(alpha**2 * (0.96 + 0.4 * 0.2 + 0.6 * 0.05) + noise, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "diffusion", "dim"), [("mixture", VP, 2), ("banana", VP, None), ("mixture", THIRD, 1)]
)
def test_the_law_solves_the_fokker_planck_equation(name: str, diffusion: Diffusion, dim: int | None) -> None:
    """Claim: to the difference's 1e-6; a slope that is a hundredth off is seen."""
    target = make_target(name, PARAMS, dim, diffusion=diffusion)
    u = target.sample(0.4, torch.arange(6), 2)
    slope, right = fokker_planck_residual(target, u, 0.4)
    assert (slope - right).abs().max() < 1e-6 * right.abs().max()
    assert (1.01 * slope - right).abs().max() > 1e-3 * right.abs().max()


def p_values(target: MixtureTarget, u: torch.Tensor, t: float) -> list[float]:
    """Of Kolmogorov-Smirnov tests of three projections of u, each a known 1-D mixture under p_t."""
    weights, means, covs = (a.numpy() for a in target.components(t))
    u, found = u.reshape(len(u), target.diffusion.size, -1), []
    for v in np.random.default_rng(5).normal(size=(3, *u.shape[1:])):
        centres = np.einsum("kai,ai->k", means, v)
        deviations = np.sqrt(np.einsum("kaibj,ai,bj->k", covs, v, v))

        def cdf(z, centres=centres, deviations=deviations):
            return stats.norm.cdf((z[:, None] - centres) / deviations) @ weights

        found.append(float(stats.kstest(np.einsum("nai,ai->n", u.numpy(), v), cdf).pvalue))
    return found


@ANY
def test_the_draws_have_the_law(diffusion: Diffusion, dim: int) -> None:
    """Claim: and those of a time a third later have not."""
    target = make_target("mixture", PARAMS, dim, diffusion=diffusion)
    assert isinstance(target, MixtureTarget)
    u = target.sample(0.3, torch.arange(40_000), 7)
    assert min(p_values(target, u, 0.3)) > P_VALUE
    assert min(p_values(target, target.sample(0.4, torch.arange(40_000), 7), 0.3)) < P_VALUE
    torch.testing.assert_close(target.sample(0.3, torch.tensor([9, 2]), 7), u[[9, 2]], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_the_compiled_score_of_one_component_is_the_formulas(dim: int) -> None:
    """Claim: to rounding, thousands of deviations out; to the bit in any batch."""
    target = make_target("mixture", PARAMS, dim, diffusion=VP)
    assert isinstance(target, MixtureTarget)
    u = target.sample(0.2, torch.arange(5000), 0) * torch.logspace(-1, 3, 5000, dtype=torch.float64)[:, None]
    plain = target._in_blocks(u, 0.2, mixture.Marginal.score).reshape(u.shape)
    found = target.score(u, 0.2)
    assert float(((found - plain).abs() / plain.abs().amax(1, keepdim=True)).max()) < 1e-9
    assert torch.equal(target.score(u[1234:1237], 0.2), found[1234:1237])
    assert not torch.equal(found, plain), "both are the same code"
    assert torch.isnan(target.score(torch.full_like(u[:1], torch.nan), 0.2)).all()


@pytest.mark.parametrize("diffusion", [VP, THIRD], ids=str)
def test_images_have_the_law_of_a_mixture_of_points(diffusion: Diffusion) -> None:
    """Claim: density, score, denoiser and responsibilities, to 1e-8; not those of other images."""
    images = np.random.default_rng(3).integers(0, 256, (5, 1, 2, 2)).astype(np.uint8)
    target = EmpiricalTarget("tiny", images, diffusion, PARAMS)
    points = images.reshape(5, 4) / HALF_RANGE - 1
    same, other = (
        MixtureTarget.of(np.full(5, 0.2), means, np.zeros((5, 4, 4)), PARAMS, diffusion)
        for means in (points, points[:, ::-1])
    )
    for t in (0.1, 0.6):
        u = target.sample(t, torch.arange(12), 4)
        assert u.shape == (12, *((1, 2, 2) if diffusion.size == 1 else (diffusion.size, 1, 2, 2)))
        flat = u.reshape(12, *((4,) if diffusion.size == 1 else (diffusion.size, 4)))
        score = same.score(flat, t).reshape(u.shape)
        torch.testing.assert_close(target.score(u, t), score, rtol=1e-8, atol=1e-8 * float(score.abs().max()))
        torch.testing.assert_close(target.log_density(u, t), same.log_density(flat, t), rtol=1e-8, atol=1e-8)
        shares = same.responsibilities(flat, t)
        torch.testing.assert_close(target.responsibilities(u, t), shares, rtol=0, atol=1e-8)
        torch.testing.assert_close(
            target.denoiser(u, t).flatten(1), shares @ torch.from_numpy(points), rtol=0, atol=1e-8
        )
        assert (other.score(flat, t).reshape(u.shape) - score).abs().max() > 1e-2 * score.abs().max()
    slope, right = fokker_planck_residual(target, u, 0.6)
    assert (slope - right).abs().max() < 1e-6 * right.abs().max()


def test_a_state_of_another_number_of_components_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state of shape \(4, 2, 3\).*\(batch, 3\)$"):
        make_target("mixture", PARAMS, 3, diffusion=VP).score(torch.zeros(4, 2, 3), 0.1)
    with pytest.raises(ValueError, match=r"\(batch, 3, 2\)$"):
        make_target("mixture", PARAMS, 2, diffusion=THIRD).score(torch.zeros(4, 2, 2), 0.1)

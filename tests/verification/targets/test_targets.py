"""Targets with an exact score: mixtures of Gaussians, against densities, equations and samples computed otherwise.

Statistical assertions: at most 40 Kolmogorov-Smirnov tests at 1e-9 each, a false alarm at fresh seeds has a chance of
4e-8.
"""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from target_checks import P_VALUE, UNIT, autograd, fokker_planck_residual
from weakorder.theory.flows import exact_flow
from weakorder.theory.model import PSLD_DIFFUSION, STATIONARY, Parameters
from weakorder.verification.targets import mixture
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.targets.named import TARGETS, make_target
from weakorder.verification.targets.named_mixtures import bimodal
from weakorder.verification.targets.target import Target

PARAMS = Parameters()
NAMES = [name for name in TARGETS if name != "empirical-cifar10"]


@st.composite
def mixtures(draw: st.DrawFn) -> MixtureTarget:
    """1 to 4 components in 1 to 3 dimensions: means within 3, eigenvalues of the covariances from 1e-3 to about 4."""
    dim, count = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    factors = numbers.uniform(-1, 1, (count, dim, dim))
    covs = factors @ np.swapaxes(factors, 1, 2) + draw(st.sampled_from([1e-3, 0.05, 1.0])) * np.eye(dim)
    weights = numbers.dirichlet(np.ones(count)) + 1e-3
    params = draw(strategies.parameters())
    return MixtureTarget.of(weights / weights.sum(), numbers.uniform(-3, 3, (count, dim)), covs, params)


def times(target: Target) -> st.SearchStrategy[float]:
    """From the cut-off to T, as many in each decade."""
    return st.floats(math.log(target.params.eps), 0).map(math.exp) | st.just(target.params.eps)


@st.composite
def states(draw: st.DrawFn, target: Target, t: float, count: int = 6) -> torch.Tensor:
    """Draws of p_t, and states up to 1e3 times as far from its mean."""
    u = target.sample(t, torch.arange(count), draw(st.integers(0, 2**32)))
    mean = target.moments(t)[0]
    return mean + draw(st.sampled_from([0.1, 1.0, 30.0, 1e3])) * (u - mean)


def sensitivity(target: MixtureTarget, u: torch.Tensor, t: float) -> float:
    """What one relative rounding in a whitened coordinate can change a log-density by: the condition number of the
    2x2 covariances scaled to unit diagonal, times the largest |w|^2."""
    law = target.gaussians.law(t)
    correlation = law.cov[0, 1] ** 2 / (law.cov[0, 0] * law.cov[1, 1])
    first, second, _ = target._marginal(t, u.device).whiten(u)
    squares = (first**2 + second**2).sum(2).max()
    return float(1 / (1 - correlation).min() * (1 + squares))


def exactly(target: MixtureTarget, u: torch.Tensor, t: float) -> tuple[np.ndarray, np.ndarray, float]:
    """log p_t (batch,) and score (batch, 2 d) computed in 60 digits and rounded, and the largest of the components'
    scores: with each component's whole covariance P (S + kappa M) P^T + Q, 2d x 2d, written out and inverted."""
    values, dim = target.params.values(), target.event[0]
    flow = exact_flow(target.diffusion.forward)(target.params.theta(t, t), values)
    P, Q = flow.propagator, flow.noise_cov
    (momentum,) = target.diffusion.data_variances(values)
    densities, scores, largest = [], [], 0.0
    with mpmath.workdps(60):
        parts = []
        for weight, mean, cov in zip(target.weights, target.means, target.covariances, strict=True):
            whole, centre = mpmath.zeros(2 * dim), mpmath.zeros(2 * dim, 1)
            for a, i in np.ndindex(2, dim):
                centre[a * dim + i] = mpmath.mpf(P[a, 0]) * mpmath.mpf(mean[i])
                for b, j in np.ndindex(2, dim):
                    noise = mpmath.mpf(P[a, 1]) * P[b, 1] * momentum + mpmath.mpf(Q[a, b])
                    whole[a * dim + i, b * dim + j] = mpmath.mpf(P[a, 0]) * P[b, 0] * cov[i, j] + (i == j) * noise
            constant = mpmath.log(weight) - mpmath.log(mpmath.det(2 * mpmath.pi * whole)) / 2
            parts.append((constant, centre, whole**-1))
        for state in u.flatten(1).tolist():
            offsets = [(constant, mpmath.matrix(state) - centre, precision) for constant, centre, precision in parts]
            terms = [mpmath.exp(c - (z.T * precision * z)[0] / 2) for c, z, precision in offsets]
            pulls = [-precision * z for _, z, precision in offsets]
            total = mpmath.fsum(terms)
            densities.append(float(mpmath.log(total)))
            mean_pull = sum(
                (term / total * pull for term, pull in zip(terms, pulls, strict=True)), mpmath.zeros(2 * dim, 1)
            )
            scores.append([float(entry) for entry in mean_pull])
            largest = max(largest, *(float(mpmath.norm(pull)) for pull in pulls))
    return np.array(densities), np.array(scores), largest


# --- Densities and scores ---------------------------------------------------------------------------------------------


@given(st.data())
def test_log_density_and_score_are_those_of_the_whole_covariances_in_60_digits(data) -> None:
    """The law's 2x2 entries hold 12 digits (theory.flows): that, times what the density makes of it, is the bound."""
    target = data.draw(mixtures())
    t = data.draw(times(target))
    u = data.draw(states(target, t, 3))
    log_density, score, largest = exactly(target, u, t)
    bound = 1e-12 * sensitivity(target, u, t)
    assert np.abs(target.log_density(u, t).numpy() - log_density).max() <= bound
    assert np.abs(target.score(u, t).flatten(1).numpy() - score).max() <= bound * largest


@given(st.data())
def test_a_covariance_off_by_a_millionth_misses_the_60_digits(data) -> None:
    target = data.draw(mixtures())
    wrong = MixtureTarget.of(target.weights, target.means, target.covariances * (1 + 1e-6), target.params)
    u = target.sample(target.params.eps, torch.arange(3), 0)
    error = np.abs(wrong.log_density(u, target.params.eps).numpy() - exactly(target, u, target.params.eps)[0]).max()
    assert error > 1e-12 * sensitivity(target, u, target.params.eps)


@given(st.data())
def test_the_score_is_the_gradient_of_the_log_density(data) -> None:
    target = data.draw(mixtures())
    t = data.draw(times(target))
    u = data.draw(states(target, t))
    score, gradient = target.score(u, t), autograd(target, u, t)
    assert torch.isfinite(score).all()
    # A score is a mean of pulls with the weights r, which |w|^2 roundings move: both sides have the same r.
    assert (score - gradient).norm() <= 100 * UNIT * sensitivity(target, u, t) * (1 + score.norm())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("t", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("far", [1.0, 1e3])
def test_every_named_target_has_a_finite_exact_score(name: str, t: float, far: float) -> None:
    """To 9 digits, as |w|^2 reaches 1e7 roundings of 1e-16 in the far tail; also below the cut-off."""
    target = make_target(name, PARAMS)
    u = far * target.sample(t, torch.arange(64), 1)
    score = target.score(u, t)
    assert torch.isfinite(score).all()
    assert (score - autograd(target, u, t)).norm() <= 1e-9 * score.norm()


def test_a_score_with_the_components_covariances_swapped_is_not_the_gradient() -> None:
    target = bimodal(1, PARAMS)
    wrong = MixtureTarget.of(target.weights, target.means, target.covariances[::-1], PARAMS)
    u = target.sample(0.1, torch.arange(64), 1)
    assert (wrong.score(u, 0.1) - autograd(target, u, 0.1)).norm() > 0.1 * target.score(u, 0.1).norm()


def test_far_tails_underflow_without_the_shift_of_the_logarithms() -> None:
    """The broken variant of the softmax, sum of r_k = e^(l_k) / sum e^(l_k) as written, is 0 / 0 out there."""
    target = bimodal(1, PARAMS)
    u = 1e3 * target.sample(0.1, torch.arange(64), 1)
    logits = target._marginal(0.1, u.device).whiten(u)[2]
    assert (logits.exp().sum(0) == 0).all()
    assert torch.allclose(target.responsibilities(u, 0.1).sum(1), torch.ones(64, dtype=torch.float64), atol=4 * UNIT)


@settings(max_examples=20)
@given(st.data())
def test_the_law_solves_the_fokker_planck_equation(data) -> None:
    """No formula of the flow is used. The difference's step is t / 64: it errs by about 1e-8 relative."""
    target = data.draw(mixtures())
    t = data.draw(st.floats(0.05, 0.8))
    u = target.sample(t, torch.arange(5), data.draw(st.integers(0, 2**32)))
    slope, right = fokker_planck_residual(target, u, t)
    rounding = UNIT * sensitivity(target, u, t) * 64 / t
    size = float(right.abs().max()) + target.params.beta(t) * sensitivity(target, u, t)
    assert (slope - right).abs().max() <= 1e-5 * size + 100 * rounding


def test_the_fokker_planck_equation_sees_another_beta() -> None:
    target = bimodal(2, PARAMS)
    u = target.sample(0.3, torch.arange(5), 1)
    slope, right = fokker_planck_residual(target, u, 0.3)
    assert (slope - right).abs().max() < 1e-7 * right.abs().max()
    assert (1.01 * slope - right).abs().max() > 1e-3 * right.abs().max()


@given(st.data())
def test_one_component_has_the_score_of_the_gaussian_target(data) -> None:
    params = data.draw(strategies.parameters())
    mean, variance = data.draw(st.floats(-3, 3)), data.draw(st.floats(1e-3, 4))
    target = MixtureTarget.of([1], [[mean]], [[[variance]]], params)
    known = GaussianTarget.of(mean, variance, PSLD_DIFFUSION, params)
    t = data.draw(times(target))
    u = data.draw(states(target, t))
    law = known.law(t)
    expected = -np.einsum("abi,nbi->nai", known.precision(law), u.numpy() - law.mean)
    bound = 100 * UNIT * sensitivity(target, u, t) * (1 + np.linalg.norm(expected))
    assert np.linalg.norm(target.score(u, t).numpy() - expected) <= bound


def test_under_a_stationary_diffusion_the_score_is_the_datas_and_the_momentums() -> None:
    target = bimodal(1, PARAMS, STATIONARY)
    u = target.sample(0.5, torch.arange(50), 2)
    x, m = u.numpy()[:, 0], u.numpy()[:, 1]
    parts = [(w, mean, cov[0]) for w, mean, cov in zip(target.weights, target.means, target.covariances, strict=True)]
    densities = [w * stats.norm.pdf(x, mean, np.sqrt(v)) for w, mean, v in parts]
    slopes = [-(x - mean) / v * p for (_, mean, v), p in zip(parts, densities, strict=True)]
    np.testing.assert_allclose(target.score(u, 0.5)[:, 0], sum(slopes) / sum(densities), rtol=1e-11)
    np.testing.assert_allclose(target.score(u, 0.5)[:, 1], -m * PARAMS.M_inv, rtol=1e-12)


# --- Moments and samples ----------------------------------------------------------------------------------------------


@given(st.data())
def test_the_moments_are_those_of_the_components(data) -> None:
    """The law of total covariance over p_t's components, against the closed form from the data's two moments."""
    target = data.draw(mixtures())
    t = data.draw(times(target))
    weights, means, covs = target.components(t)
    mean = torch.einsum("k,kai->ai", weights, means)
    apart = means - mean
    cov = torch.einsum("k,kaibj->aibj", weights, covs) + torch.einsum("k,kai,kbj->aibj", weights, apart, apart)
    size = float(cov.abs().max() + mean.abs().max() ** 2)
    whole = target.covariance(t)
    assert (whole - cov).abs().max() <= 1e-12 * size
    first, second = target.moments(t)
    assert (first - mean).abs().max() <= 1e-12 * math.sqrt(size)
    assert (second - torch.einsum("aibi->abi", whole)).abs().max() <= 1e-12 * size


def test_moments_without_the_spread_of_the_means_are_not_the_moments() -> None:
    target = bimodal(2, PARAMS)
    weights, _, covs = target.components(0.1)
    within = torch.einsum("k,kaibj->aibj", weights, covs)
    assert (target.covariance(0.1) - within).abs().max() > 0.1


def p_values(target: MixtureTarget, t: float, u: torch.Tensor, directions: int = 4) -> list[float]:
    """Of Kolmogorov-Smirnov tests of `directions` random projections of u, each a known 1-D mixture under p_t."""
    weights, means, covs = (a.numpy() for a in target.components(t))
    found = []
    for v in np.random.default_rng(5).normal(size=(directions, *u.shape[1:])):
        centres = np.einsum("kai,ai->k", means, v)
        deviations = np.sqrt(np.einsum("kaibj,ai,bj->k", covs, v, v))
        projected = np.einsum("nai,ai->n", u.numpy(), v)

        def cdf(z, centres=centres, deviations=deviations):
            return stats.norm.cdf((z[:, None] - centres) / deviations) @ weights

        found.append(float(stats.kstest(projected, cdf).pvalue))
    return found


@pytest.mark.parametrize(
    ("name", "dim"), [("gaussian", 3), ("mixture", 1), ("mixture", 3), ("banana", 2), ("student", 2)]
)
@pytest.mark.parametrize("t", [1e-3, 0.3])
def test_the_draws_have_the_law(name: str, dim: int, t: float) -> None:
    """Four projections, 40,000 draws; ten cases."""
    target = make_target(name, PARAMS, dim)
    assert isinstance(target, MixtureTarget)
    assert min(p_values(target, t, target.sample(t, torch.arange(40_000), 7))) > P_VALUE


@given(st.data())
def test_whitened_by_their_component_the_draws_are_the_noise_they_were_made_of(data) -> None:
    """Exactly, and so with the right covariance: the whitening is the one that the 60 digits confirm."""
    target = data.draw(mixtures())
    t, seed, numbers = data.draw(times(target)), data.draw(st.integers(0, 2**32)), torch.arange(8)
    u = target.sample(t, numbers, seed)
    xi, _ = mixture.normals_and_uniform(seed, numbers, target.event[0])
    first, second, _ = target._marginal(t, u.device).whiten(u)
    misses = ((first - xi[:, 0]).abs() + (second - xi[:, 1]).abs()).amax(2)  # (K, batch)
    assert misses.amin(0).max() <= 1000 * UNIT * sensitivity(target, u, t)


def test_the_test_of_the_draws_sees_wrong_weights_momenta_and_times() -> None:
    target = bimodal(1, PARAMS)
    numbers = torch.arange(40_000)
    wrong = replace(target, probabilities=np.array([0.44, 0.56]))
    uncorrelated = target.sample(0.1, numbers, 7)
    uncorrelated[:, 1] = uncorrelated[:, 1].flip(0)
    for u in (wrong.sample(0.1, numbers, 7), uncorrelated, target.sample(0.13, numbers, 7)):
        assert min(p_values(target, 0.1, u)) < P_VALUE


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=6), st.data())
def test_a_draw_is_the_same_in_any_batch_and_order(seed, numbers, data) -> None:
    """Up to the last bits: products of another batch may be summed in another order."""
    target = bimodal(2, PARAMS)
    order = data.draw(st.permutations(range(len(numbers))))
    whole = target.sample(0.2, torch.tensor(numbers), seed)
    torch.testing.assert_close(target.sample(0.2, torch.tensor(numbers)[order], seed), whole[order], rtol=0, atol=1e-14)
    other = target.sample(0.2, torch.tensor(numbers) + 1, seed)
    assert (whole - other).abs().amax((1, 2)).min() > 1e-9


def test_the_component_of_a_draw_is_independent_of_its_noise() -> None:
    """The uniform that chooses is its own element: 20,000 draws, correlations of the noise with it at 1e-9 each."""
    xi, uniform = mixture.normals_and_uniform(3, torch.arange(20_000), 2)
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > P_VALUE
    for column in xi.flatten(1).T:
        assert stats.pearsonr(column.numpy(), uniform.numpy()).pvalue > P_VALUE


# --- Batches, dtypes, refusals ----------------------------------------------------------------------------------------


def test_blocks_of_the_batch_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    target = bimodal(3, PARAMS)
    u = target.sample(0.2, torch.arange(50), 1)
    whole = target.score(u, 0.2), target.log_density(u, 0.2), target.responsibilities(u, 0.2)
    monkeypatch.setattr(mixture, "_BLOCK", 60)
    parts = target.score(u, 0.2), target.log_density(u, 0.2), target.responsibilities(u, 0.2)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_a_float32_state_gets_the_float64_score_rounded() -> None:
    target = bimodal(2, PARAMS)
    u = target.sample(1e-3, torch.arange(50), 1).float()
    assert torch.equal(target.score(u, 1e-3), target.score(u.double(), 1e-3).float())
    assert target.log_density(u, 1e-3).dtype == torch.float64


def test_an_empty_batch_is_a_batch() -> None:
    target = bimodal(2, PARAMS)
    u = target.sample(0.2, torch.arange(0), 1)
    assert u.shape == target.score(u, 0.2).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("u", "t", "message"),
    [
        (torch.zeros(4, 2, 3), 0.1, r"state of shape \(4, 2, 3\).*\(batch, 2, 2\)"),
        (torch.zeros(4, 2, 2, dtype=torch.int64), 0.1, "torch.int64: it must be floating"),
        ("u", 0.1, "state of type str"),
        (torch.zeros(4, 2, 2), -0.1, "t = -0.1: a time of the diffusion"),
        (torch.zeros(4, 2, 2), math.nan, "t = nan: a time of the diffusion"),
    ],
)
def test_a_bad_state_or_time_is_refused(u, t, message) -> None:
    with pytest.raises(ValueError, match=message):
        bimodal(2, PARAMS).score(u, t)


def test_a_time_without_a_density_is_refused() -> None:
    target = MixtureTarget.of([1], [[0.0]], [[[0.0]]], PARAMS)
    with pytest.raises(ValueError, match="t = 0: p_t has no density there"):
        target.score(torch.zeros(1, 2, 1), 0)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        ([0.5, 0.4], [[0], [1]], [[[1]], [[1]]], "must be positive and sum to 1"),
        ([1.5, -0.5], [[0], [1]], [[[1]], [[1]]], "must be positive and sum to 1"),
        ([1], [[0, 0]], [[[1]]], r"\(1, 1, 1\) do not fit"),
        ([1], [[0, 0]], [[[1, 0.5], [0.4, 1]]], r"covariances\[0\] is not finite or not symmetric"),
        ([0.5, 0.5], [[0], [0]], [[[1]], [[math.inf]]], r"covariances\[1\] is not finite"),
        ([1], [[0, 0]], [[[1, 2], [2, 1]]], "has the eigenvalue -1"),
        ([1], [[0, math.inf]], [[[1, 0], [0, 1]]], "mean"),
        ([1], [[0]], [[[math.nan]]], "not finite"),
    ],
)
def test_data_that_are_no_mixture_are_refused(weights, means, covariances, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        MixtureTarget.of(weights, means, covariances, PARAMS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "dimensions"), [("mixture", 1), ("mixture", 2), ("banana", None)])
def test_the_compiled_score_is_the_formulas_and_no_row_depends_on_the_others(name: str, dimensions: int | None) -> None:
    """Claim: to rounding, near the data and thousands of deviations out; to the bit in any batch, on any threads."""
    target = make_target(name, PARAMS, dimensions)
    u = target.sample(0.2, torch.arange(5000), 0) * torch.logspace(-1, 3, 5000, dtype=torch.float64)[:, None, None]
    plain = target._in_blocks(u, 0.2, mixture.Marginal.score)
    found = target.score(u, 0.2)
    assert float(((found - plain).abs() / plain.abs().amax((1, 2), keepdim=True)).max()) < 1e-9
    assert torch.equal(target.score(u[1234:1237], 0.2), found[1234:1237])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(target.score(u, 0.2), found)
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(found, plain), "both are the same code"
    assert torch.isnan(target.score(torch.full_like(u[:1], torch.nan), 0.2)).all()

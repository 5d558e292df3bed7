"""The empirical law of images: against its direct formula in 60 digits, other targets, equations and samples.

Statistical assertions: 12 tests at 1e-9 each, a false alarm at fresh seeds has a chance of 1.2e-8.
"""

from __future__ import annotations

import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import strategies
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from target_checks import P_VALUE, UNIT, autograd, fokker_planck_residual
from weakorder.theory.model import PSLD_DIFFUSION, STATIONARY, Parameters
from weakorder.verification.targets import empirical
from weakorder.verification.targets.empirical import HALF_RANGE, EmpiricalTarget, cifar10_target
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.targets.mixture import MixtureTarget, normals_and_uniform

PARAMS = Parameters()
DATA = Path(__file__).parents[3] / "verification" / "data"
TIMES = [1e-3, 0.3, 1.0]


@st.composite
def targets(draw: st.DrawFn, most: int = 9) -> EmpiricalTarget:
    """1 to 9 images of 2 x 1 x 3 pixels: of any contrast, with duplicates."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 8, 256]))
    images = numbers.integers(0, levels, (draw(st.integers(1, most)), 2, 1, 3)).astype(np.uint8)
    return EmpiricalTarget("tiny", images, params=draw(strategies.parameters()), diffusion=PSLD_DIFFUSION)


@st.composite
def states(draw: st.DrawFn, target: EmpiricalTarget, t: float, count: int = 4) -> torch.Tensor:
    """Draws of p_t, kernels' means halfway between two images, and states 1e3 times as far out."""
    u = target.sample(t, torch.arange(count), draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["law", "between", "far"]))
    if kind == "between":
        pair = target.images[draw(st.integers(0, len(target.images) - 1))] / HALF_RANGE - 1
        other = target.images[draw(st.integers(0, len(target.images) - 1))] / HALF_RANGE - 1
        a = target._point.law(t).mean.reshape(2, *(1 for _ in target.event))
        u = torch.from_numpy(a * (pair + other) / 2).expand(count, 2, *target.event) + 1e-6 * u
    return 1e3 * u if kind == "far" else u


@st.composite
def times(draw: st.DrawFn, target: EmpiricalTarget) -> float:
    """From the cut-off to T, as many in each decade; not those that are refused (see the last tests)."""
    t = draw(st.floats(math.log(target.params.eps), 0).map(math.exp) | st.just(target.params.eps))
    g = target._point.precision(target._point.law(t))[..., 0]
    a = target._point.law(t).mean[:, 0]
    assume(math.prod(target.event) * UNIT * (a @ g @ a) * target.radius**2 < 0.9 * empirical.MAX_LOGIT_ERROR)
    return t


def exactly(target: EmpiricalTarget, u: torch.Tensor, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p_t (batch,), score and responsibilities, by the sum over the images as it is written, in 60 digits, with
    the kernel's float64 numbers."""
    law = target._point.law(t)
    (a_x,), (a_m,) = law.mean
    densities, scores, shares = [], [], []
    with mpmath.workdps(60):
        xx, xm, mm = (mpmath.mpf(law.cov[i, j, 0]) for i, j in ((0, 0), (0, 1), (1, 1)))
        det = xx * mm - xm * xm
        images = [
            [mpmath.mpf(p) / HALF_RANGE - 1 for p in row]
            for row in target.images.reshape(len(target.images), -1).tolist()
        ]
        dim = len(images[0])
        for x, m in u.flatten(2).tolist():
            terms, pulls = [], []
            for image in images:
                z = [(x_j - a_x * p, m_j - a_m * p) for x_j, m_j, p in zip(x, m, image, strict=True)]
                pull = [((mm * z_x - xm * z_m) / det, (xx * z_m - xm * z_x) / det) for z_x, z_m in z]
                square = mpmath.fsum(z_x * p_x + z_m * p_m for (z_x, z_m), (p_x, p_m) in zip(z, pull, strict=True))
                terms.append(mpmath.exp(-square / 2))
                pulls.append(pull)
            total = mpmath.fsum(terms)
            share = [term / total for term in terms]
            densities.append(
                float(mpmath.log(total / len(images)) - dim * mpmath.log(2 * mpmath.pi * mpmath.sqrt(det)))
            )
            scores.append(
                [
                    [
                        -float(mpmath.fsum(r * pull[j][a] for r, pull in zip(share, pulls, strict=True)))
                        for j in range(dim)
                    ]
                    for a in range(2)
                ]
            )
            shares.append([float(r) for r in share])
    return np.array(densities), np.array(scores).reshape(u.shape), np.array(shares)


def rounding(target: EmpiricalTarget, u: torch.Tensor, t: float) -> tuple[float, float]:
    """Bounds on the errors of l_i and of log p_t: 2^-53 times the sums of all sizes that enter, a product over dim
    terms counting dim + 1 roundings, h and w their own 10 each, which the kernel's condition number amplifies."""
    law = target._point.law(t)
    condition = 1 / (1 - law.cov[0, 1, 0] ** 2 / (law.cov[0, 0, 0] * law.cov[1, 1, 0]))
    kernel = target._kernel(t, u.device)
    dim = math.prod(target.event)
    deviations = torch.from_numpy(np.sqrt(np.diagonal(law.cov[..., 0]))).reshape(2, 1)
    size = ((u.flatten(2).abs() + kernel.a.abs()[:, None]) / deviations).norm(dim=(1, 2)).max() * math.sqrt(
        2 * condition
    )
    reach = math.sqrt(kernel.g) * target.radius
    logit = UNIT * (dim + 1 + 20 * condition) * float(size * reach + reach**2)
    return logit, logit + UNIT * (dim + 20 * condition) * float(size**2)


# --- Densities and scores ---------------------------------------------------------------------------------------------


@given(st.data())
def test_density_score_and_responsibilities_are_the_direct_sum_in_60_digits(data) -> None:
    target = data.draw(targets())
    t = data.draw(times(target))
    u = data.draw(states(target, t))
    log_density, score, shares = exactly(target, u, t)
    logit, whole = rounding(target, u, t)
    # beside what `rounding` counts, the normaliser is added and the sum is rounded
    assert np.abs(target.log_density(u, t).numpy() - log_density).max() <= whole + 8 * UNIT * np.abs(log_density).max()
    assert np.abs(target.responsibilities(u, t).numpy() - shares).max() <= 2 * logit + 8 * UNIT
    computed = target.score(u, t).numpy()
    assert np.isfinite(computed).all()
    # s = -C^-1 (u - a D): D is off by its shares' errors times the images', and the rest is rounding.
    kernel = target._kernel(t, u.device)
    ones = torch.ones(1, 1, dtype=torch.float64)
    largest = float(kernel.score(torch.zeros(1, 2, 1, dtype=torch.float64), ones).abs().max())
    slip = (2 * logit + 20 * UNIT) * 2 * len(shares[0]) * largest
    condition = whole / max(logit, UNIT)
    assert np.abs(computed - score).max() <= slip + 100 * UNIT * max(condition, 1e4) * (np.abs(score).max() + largest)


@given(st.data())
def test_a_pixel_off_by_one_level_misses_the_60_digits(data) -> None:
    target = data.draw(targets())
    t = min(data.draw(times(target)), 0.2)  # later, noise buries a level of a pixel below all digits
    u = target.sample(t, torch.arange(3), 0)
    images = target.images.copy()
    images[:, 0, 0, 0] ^= 1
    wrong = EmpiricalTarget("wrong", images, target.diffusion, target.params).log_density(u, t).numpy()
    assert np.abs(wrong - exactly(target, u, t)[0]).max() > rounding(target, u, t)[1]


@pytest.mark.nightly
@pytest.mark.parametrize("t", TIMES)
def test_real_images_have_the_direct_sums_score_in_60_digits(t: float) -> None:
    """Four images and a near duplicate of the first, 3,072 dimensions: a draw, and a state halfway between those two,
    where their shares are balanced and rounding matters most."""
    images = cifar10_target(PARAMS).images[[0, 1, 2, 3, 0]]
    images[4, 0, :2, :5] += 100  # modulo 256
    target = EmpiricalTarget("few", images, PSLD_DIFFUSION, PARAMS)
    pixels = torch.from_numpy((images / HALF_RANGE - 1).reshape(5, -1))
    u = target.sample(t, torch.arange(2), 3)
    kernel = target._kernel(t, u.device)
    u[1] = kernel.mean((pixels[0] + pixels[4]) / 2).reshape(u[1].shape)
    log_density, score, shares = exactly(target, u, t)
    assert shares[1].max() < 0.6
    logit, whole = rounding(target, u, t)
    assert np.abs(target.log_density(u, t).numpy() - log_density).max() <= min(whole, 1e-5)
    assert np.abs(target.responsibilities(u, t).numpy() - shares).max() <= min(2 * logit, 1e-6)
    assert np.linalg.norm(target.score(u, t).numpy() - score) <= 1e-7 * np.linalg.norm(score)
    # The broken variant: products in float32 lose the balance near the data.
    centred = pixels - target._centre(u.device) / HALF_RANGE + 1
    h = torch.einsum("a,bai->bi", kernel.q, u.flatten(2) - kernel.mean(target._centre(u.device) / HALF_RANGE - 1))
    logits = h.float() @ centred.T.float() - kernel.g / 2 * centred.float().square().sum(1)
    assert t > 1e-3 or np.abs(torch.softmax(logits.double(), dim=1).numpy() - shares).max() > 1e-3


@given(st.data())
def test_the_score_is_the_gradient_of_the_log_density(data) -> None:
    target = data.draw(targets())
    t = data.draw(times(target))
    u = data.draw(states(target, t))
    score, gradient = target.score(u, t), autograd(target, u, t)
    _, whole = rounding(target, u, t)
    assert (score - gradient).norm() <= (100 * whole + 1e-12) * (1 + gradient.norm())


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("far", [1.0, 1e3])
def test_real_images_have_the_gradient_as_their_score(t: float, far: float) -> None:
    target = cifar10_target(PARAMS)
    u = far * target.sample(t, torch.arange(3), 5)
    score = target.score(u, t)
    assert torch.isfinite(score).all()
    assert (score - autograd(target, u, t)).norm() <= 1e-10 * score.norm()
    centred = (u - torch.from_numpy(target.data_mean)).flatten(2)
    biased = target._kernel(t, u.device).score(centred, torch.zeros(1, dtype=torch.float64))
    assert (biased - score.flatten(2)).norm() > 1e-6 * score.norm()


@given(st.data())
def test_points_are_a_mixture_of_gaussians_of_variance_zero(data) -> None:
    """The same law by the other module, which whitens every component's state by itself."""
    target = data.draw(targets())
    t = data.draw(times(target))
    u = target.sample(t, torch.arange(5), data.draw(st.integers(0, 2**32)))
    points = (target.images / HALF_RANGE - 1).reshape(len(target.images), -1)
    dim = points.shape[1]
    other = MixtureTarget.of(target.weights, points, np.zeros((len(points), dim, dim)), target.params)
    _, whole = rounding(target, u, t)
    flat = u.flatten(2)
    assert (target.log_density(u, t) - other.log_density(flat, t)).abs().max() <= 10 * whole
    difference = (target.score(u, t).flatten(2) - other.score(flat, t)).norm()
    assert difference <= 100 * whole * (1 + other.score(flat, t).norm())
    mean, cov = target.moments(t)
    again, blocks = other.moments(t)
    torch.testing.assert_close(mean.flatten(1), again, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(cov.flatten(2), blocks, rtol=1e-12, atol=1e-13)


@given(st.data())
def test_one_image_has_the_score_of_the_gaussian_target_of_variance_zero(data) -> None:
    target = data.draw(targets(most=1))
    t = data.draw(times(target))
    u = target.sample(t, torch.arange(5), 1)
    known = GaussianTarget(target.data_mean.ravel(), np.zeros(6), target.diffusion, target.params)
    law = known.law(t)
    expected = -np.einsum("abi,nbi->nai", known.precision(law), u.flatten(2).numpy() - law.mean)
    _, whole = rounding(target, u, t)
    assert np.abs(target.score(u, t).flatten(2).numpy() - expected).max() <= 100 * whole * (1 + np.abs(expected).max())


@settings(max_examples=10)
@given(st.data())
def test_the_law_solves_the_fokker_planck_equation(data) -> None:
    target = data.draw(targets())
    t = data.draw(st.floats(0.2, 0.8))
    u = target.sample(t, torch.arange(3), data.draw(st.integers(0, 2**32)))
    slope, right = fokker_planck_residual(target, u, t)
    _, whole = rounding(target, u, t)
    size = float(right.abs().max()) + target.params.beta(t) * whole / UNIT
    assert (slope - right).abs().max() <= 1e-5 * size


# --- Chunks -----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_chunks_of_images_and_blocks_of_states_do_not_change_the_result(data) -> None:
    """A streaming softmax that forgot to rescale its sums would differ as soon as the largest logarithm moves."""
    target = data.draw(targets())
    t = data.draw(times(target))
    u = data.draw(states(target, t, 5))

    def read() -> list[torch.Tensor]:
        return [target.denoiser(u, t), target.log_density(u, t), target.responsibilities(u, t)]

    whole = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(empirical, "_CHUNK", data.draw(st.integers(1, 4)))
        patch.setattr(empirical, "_STATES", data.draw(st.integers(1, 4)))
        parts = read()
    logit, density = rounding(target, u, t)
    for a, b, bound in zip(whole, parts, (4 * logit, 2 * density, 4 * logit), strict=True):
        assert (a - b).abs().max() <= bound + 100 * UNIT


def test_the_denoiser_is_the_mean_of_the_images_under_the_responsibilities() -> None:
    target = cifar10_target(PARAMS)
    u = target.sample(0.5, torch.arange(8), 2)
    pixels = torch.from_numpy(target.images / HALF_RANGE - 1)
    shares = target.responsibilities(u, 0.5)
    assert shares.amax(1).min() < 0.9
    torch.testing.assert_close(
        target.denoiser(u, 0.5), torch.einsum("bn,nchw->bchw", shares, pixels), rtol=0, atol=1e-12
    )


# --- Moments and samples ----------------------------------------------------------------------------------------------


@given(st.data())
def test_mean_and_variance_of_the_data_are_those_of_the_pixels(data) -> None:
    target = data.draw(targets())
    pixels = target.images / HALF_RANGE - 1
    np.testing.assert_allclose(target.data_mean, pixels.mean(0), rtol=0, atol=1e-15)
    np.testing.assert_allclose(target.data_variance, pixels.var(0), rtol=1e-13, atol=1e-15)


@pytest.fixture(scope="module")
def tiny() -> EmpiricalTarget:
    """Five images of 12 pixels."""
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 2, 2)).astype(np.uint8)
    return EmpiricalTarget("tiny", images, PSLD_DIFFUSION, PARAMS)


def p_values(target: EmpiricalTarget, t: float, u: torch.Tensor) -> list[float]:
    """Kolmogorov-Smirnov tests of four random projections of u, and a chi-square test of the images' frequencies."""
    law, pixels = target._point.law(t), (target.images / HALF_RANGE - 1).reshape(len(target.images), -1)
    flat = u.flatten(2).numpy()
    found = []
    for v in np.random.default_rng(5).normal(size=(4, *flat.shape[1:])):
        centres = np.einsum("a,aj,nj->n", law.mean[:, 0], v, pixels)
        deviation = math.sqrt(np.einsum("ab,aj,bj->", law.cov[..., 0], v, v))

        def cdf(z, centres=centres, deviation=deviation):
            return stats.norm.cdf((z[:, None] - centres) / deviation).mean(1)

        found.append(float(stats.kstest(np.einsum("naj,aj->n", flat, v), cdf).pvalue))
    return found


@pytest.mark.parametrize("t", [1e-3, 0.4])
def test_the_draws_have_the_law(tiny: EmpiricalTarget, t: float) -> None:
    u = tiny.sample(t, torch.arange(40_000), 11)
    assert min(p_values(tiny, t, u)) > P_VALUE
    assert min(p_values(tiny, t, 1.1 * u)) < P_VALUE


@pytest.mark.parametrize("t", TIMES)
def test_whitened_about_their_image_the_draws_are_the_noise_they_were_made_of(tiny: EmpiricalTarget, t: float) -> None:
    u = tiny.sample(t, torch.arange(50), 6).flatten(2)
    xi, uniform = normals_and_uniform(6, torch.arange(50), 12)
    kernel = tiny._kernel(t, u.device)
    images = torch.from_numpy((tiny.images / HALF_RANGE - 1).reshape(5, -1))[(uniform * 5).long()]
    assert (kernel.whiten(u - kernel.mean(images)) - xi).abs().max() < 1e-11


def test_the_draws_choose_every_image_equally_often(tiny: EmpiricalTarget) -> None:
    """A shift of 800 of 4000 is 14 standard errors of a count: chi squared, 320 +- 36, is below the limit, 48, in fewer
    than one in 1e12 runs. (One of 400, of 80 +- 18, was missed by one run in 40.)"""
    counts = torch.bincount(tiny.responsibilities(tiny.sample(1e-3, torch.arange(20_000), 4), 1e-3).argmax(1))
    assert stats.chisquare(counts).pvalue > P_VALUE
    assert stats.chisquare(counts.numpy() + np.array([800, -800, 0, 0, 0])).pvalue < P_VALUE


def test_the_moments_of_real_images_are_those_of_draws() -> None:
    """400 draws at t = 0.3: the sum of all positions, and of all momenta, by a t-test at 1e-9 each; the total variance
    to 20%, eight of its standard errors (2.3%, from the pixels' spectrum)."""
    target = cifar10_target(PARAMS)
    mean, cov = target.moments(0.3)
    u = target.sample(0.3, torch.arange(400), 9)
    for a in range(2):
        total = (u[:, a] - mean[a]).flatten(1).sum(1).numpy()
        assert stats.ttest_1samp(total, 0).pvalue > P_VALUE
        assert stats.ttest_1samp(total + 0.5 * total.std(), 0).pvalue < P_VALUE
        ratio = float(u[:, a].var(0).sum() / cov[a, a].sum())
        assert abs(ratio - 1) < 0.2
        assert abs(1.5 * ratio - 1) > 0.2


def test_a_draw_is_the_same_in_any_batch_and_order(tiny: EmpiricalTarget) -> None:
    numbers = torch.tensor([5, 2**40, 0, 17])
    whole = tiny.sample(0.2, numbers, 8)
    torch.testing.assert_close(tiny.sample(0.2, numbers[[2, 0]], 8), whole[[2, 0]], rtol=0, atol=1e-15)
    assert not torch.isclose(tiny.sample(0.2, numbers, 9), whole).any()


# --- Refusals and dtypes ----------------------------------------------------------------------------------------------


def test_what_has_no_score_is_refused(tiny: EmpiricalTarget) -> None:
    with pytest.raises(ValueError, match="a point mass has no score"):
        EmpiricalTarget("still", tiny.images, STATIONARY, PARAMS)
    with pytest.raises(ValueError, match="must be uint8"):
        EmpiricalTarget("floats", tiny.images / 255, tiny.diffusion, PARAMS)
    with pytest.raises(ValueError, match="t = 0: p_t has no density there"):
        tiny.score(torch.zeros(1, 2, 3, 2, 2), 0)
    with pytest.raises(ValueError, match=r"\(batch, 2, 3, 2, 2\)"):
        tiny.score(torch.zeros(1, 2, 3), 0.1)


def test_a_time_whose_kernel_float64_cannot_resolve_is_refused() -> None:
    target = cifar10_target(PARAMS)
    with pytest.raises(ValueError, match=r"too narrow for float64.*give a larger t or eps"):
        target.score(torch.zeros(1, 2, 3, 32, 32), 1e-7)


def test_a_float32_state_gets_the_float64_score_rounded(tiny: EmpiricalTarget) -> None:
    u = tiny.sample(1e-3, torch.arange(5), 1).float()
    assert torch.equal(tiny.score(u, 1e-3), tiny.score(u.double(), 1e-3).float())

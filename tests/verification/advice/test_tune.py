"""Tuning: derivatives against two independent sources, optima that are known in closed form, stability as a limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from selection import nightly_but
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.advice import tune_derivatives
from weakorder.verification.advice.tune import longest_cutoff, measure, tuned
from weakorder.verification.advice.tune_curves import curves, elsewhere, jitter, near
from weakorder.verification.advice.tune_derivatives import Sketch, ending, residuals, sketch
from weakorder.verification.advice.tune_growth import log_growth, log_growth_slope
from weakorder.verification.advice.tune_settings import SCALES, Settings, Variables, power_fractions, untuned
from weakorder.verification.exact.spectrum import Spectrum, cifar10_spectrum
from weakorder.verification.stability.fewest_steps import thinned

PARAMS = Parameters()
FEW = Sketch(np.array([4.0, 0.3, 1e-3]), np.array([2.0, 0.1, 0.03]), np.array([1.0, 5.0, 40.0]))
SCHEMES = (
    replace(CATALOGUE["ROBA"], lambda_s=1.1),
    CATALOGUE["RVV"],
    EXPONENTIAL["SDE-DPM-Solver++2M"],
    POSITION["vp-UniP-3"],
    CATALOGUE["SSCS"],
    EXPONENTIAL["DDIM"],
)


def own(scheme: Scheme) -> Parameters:
    return scheme.splitting.diffusion.parameters()


def spectrum(data: Sketch) -> Spectrum:
    return Spectrum(data.variances, data.mean, 100)


# --- Derivatives ------------------------------------------------------------------------------------------------------


def worst_slope(scheme: Scheme, denoise: bool) -> float:
    """The largest error of `ending`'s derivatives by the times, against central differences of whole runs one time
    after the other, of the largest in its row."""
    params = own(scheme)
    taus = time_grid("quadratic", 7, params)
    found = ending(scheme, FEW, params, taus, denoise).by_tau
    truth = np.zeros_like(found)
    for j in range(1, len(taus)):
        ends = []
        shift = 1e-4 * min(taus[j] - taus[j - 1], (np.append(taus, params.T))[j + 1] - taus[j])
        for sign in (-2, -1, 1, 2):
            other = taus.copy()
            other[j] += sign * shift
            ends.append(residuals(scheme, FEW, params, other, denoise))
        truth[:, j] = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * shift)
    return float((np.abs(found - truth).max(1) / np.abs(truth).max(1)).max())


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("scheme", nightly_but(lambda s: s in SCHEMES[:4], SCHEMES), ids=lambda s: s.name)
def test_the_derivatives_by_the_times_are_those_of_whole_runs(scheme: Scheme, denoise: bool) -> None:
    """Claim: moving every (K+1)-th time at once and sweeping back once gives what one whole run after another gives,
    for schemes that evaluate twice a step, at the step's end, and that look back on up to three evaluations."""
    assert worst_slope(scheme, denoise) < 1e-6


def without_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_derivatives._Course, "_last_change", lambda self: np.zeros((2, len(self.mean))))


def as_if_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_derivatives, "stride_of", lambda _: 2)


@pytest.mark.parametrize("broken", [without_last, as_if_without_memory])
def test_a_derivative_that_leaves_something_out_is_seen(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim: without the cut-off's part in the denoising step, or with times moved so near that a step with memory
    feels two of them, the comparison fails."""
    broken(monkeypatch)
    assert worst_slope(EXPONENTIAL["SDE-DPM-Solver++2M"], True) > 1e-3


def test_the_derivative_by_lambda_s_is_that_of_whole_runs() -> None:
    scheme, taus = SCHEMES[0], time_grid("quadratic", 7, PARAMS)

    def at(scale: float) -> np.ndarray:
        return residuals(replace(scheme, lambda_s=scale), FEW, PARAMS, taus, True)

    truth = (at(1.1 + 1e-5) - at(1.1 - 1e-5)) / 2e-5
    found = ending(scheme, FEW, PARAMS, taus, True).by_scale
    assert np.abs(found - truth).max() < 1e-7 * np.abs(truth).max()
    assert np.abs(1.01 * found - truth).max() > 1e-3 * np.abs(truth).max()


def test_the_gradient_is_that_of_torch() -> None:
    """Claim: on a recursion written by hand in torch, Euler-Maruyama of dx = (x/2 + s) dtheta + dw with the denoising
    step, automatic differentiation in float64 gives the same gradient of the distance by all times."""
    scheme, params = POSITION["vp-EM"], POSITION["vp-EM"].splitting.diffusion.parameters(beta_max=4.0)
    taus = torch.tensor(time_grid("quadratic", 6, params), requires_grad=True)
    s2, mu = (torch.tensor(entry) for entry in (FEW.variances, FEW.mean))

    def theta(t: torch.Tensor) -> torch.Tensor:
        return params.beta_min * t + (params.beta_max - params.beta_min) * t**2 / 2

    def law(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left = torch.exp(-theta(t))
        return left.sqrt() * mu, left * s2 + 1 - left

    mean, variance = torch.zeros_like(mu), torch.ones_like(s2)
    for k in range(6):
        t, step = 1 - taus[k], theta(1 - taus[k]) - theta(1 - taus[k + 1])
        centre, v = law(t)
        gain = 1 + step / 2 - step / v
        mean, variance = gain * mean + step / v * centre, gain**2 * variance + step
    t = 1 - taus[-1]
    step = t * (params.beta_min + (params.beta_max - params.beta_min) * t)
    centre, v = law(t)
    gain = 1 + step / 2 - step / v
    mean, variance = gain * mean + step / v * centre, gain**2 * variance
    distance = (torch.tensor(FEW.weights) * ((mean - mu) ** 2 + (variance.sqrt() - s2.sqrt()) ** 2)).sum()
    distance.backward()
    found = ending(scheme, FEW, params, taus.detach().numpy(), True)
    assert float(found.residuals @ found.residuals) == pytest.approx(distance.item(), rel=1e-12)
    assert taus.grad is not None
    gradient, truth = 2 * found.residuals @ found.by_tau, np.asarray(taus.grad.tolist())
    assert np.abs((gradient - truth)[1:]).max() < 1e-8 * np.abs(truth).max()
    assert np.abs((1.0001 * gradient - truth)[1:]).max() > 1e-8 * np.abs(truth).max()


@pytest.mark.parametrize("name", ["ROBA", "SDE-DPM-Solver++2M"])
def test_the_slope_of_growth_is_that_of_whole_runs(name: str) -> None:
    """Claim: where a run grows, the derivative of the log of growth by every time is that of differences."""
    scheme = (CATALOGUE | EXPONENTIAL)[name]
    taus, variances = time_grid("1 - (1 - s)**1.7", 6, PARAMS), np.array([0.1, 0.2])
    growth, slope = log_growth_slope(scheme, variances, PARAMS, taus)
    assert (growth > 0.1).all()
    for i in range(2):
        found = approx_fprime(
            taus[1:-1],
            lambda inner, i=i: log_growth(scheme, variances, PARAMS, np.concatenate([taus[:1], inner, taus[-1:]]))[i],
            1e-8,
        )
        truth = np.array(found, dtype=float)
        assert np.abs(slope[i, 1:-1] - truth).max() < 1e-4 * np.abs(truth).max()
        assert np.abs(1.01 * slope[i, 1:-1] - truth).max() > 1e-3 * np.abs(truth).max()


# --- Optima that are known --------------------------------------------------------------------------------------------


def equal_angles(variance: float, steps: int, params: Parameters) -> np.ndarray:
    """The times tau of the best run of DDIM on one eigenvalue.

    DDIM holds eps: from time t to t', x' = (a'/a)(x - s eps) + s' eps, with x_t = a x_0 + s eps, and on data N(0, v)
    eps is s x / (a^2 v + s^2). So a step multiplies by (a a' v + s s') / (a^2 v + s^2): with w = (a sqrt(v), s) that is
    w.w' / |w|^2 = |w'| / |w| cos(phi' - phi), phi the angle of w. A run ends at the standard deviation

        |w_N| / |w_0| prod_k cos(phi_k+1 - phi_k)

    times the prior's. Its angles sum to a given one, and the log of cos is concave, so the product is largest where all
    angles are equal; it is below what |w_N| / |w_0| would give, and so below sqrt(v) here: the largest is the nearest.
    Of an angle phi: s / a = sqrt(v) tan(phi), s^2 = 1 - a^2 = 1 - exp(-theta), theta = log(1 + v tan(phi)^2) the
    integral of beta up to t.
    """

    def angle(t: float) -> float:
        return math.atan2(math.sqrt(math.expm1(params.theta(t, t))), math.sqrt(variance))

    phi = np.linspace(angle(params.T), angle(params.eps), steps + 1)
    theta = np.log1p(variance * np.tan(phi) ** 2)
    slope = params.beta_max - params.beta_min
    t = 2 * theta / (params.beta_min + np.sqrt(params.beta_min**2 + 2 * slope * theta))
    return params.T - t


@pytest.mark.parametrize("steps", nightly_but(lambda steps: steps == 2, [2, 3, 5]))
def test_the_best_grid_of_ddim_has_equal_angles(steps: int) -> None:
    """Claim: on one eigenvalue tune finds the times that are best by the closed form above to 1e-8; for other data they
    are others."""
    scheme = POSITION["vp-DDIM"]
    params = own(scheme)
    data = Spectrum(np.array([0.25]), np.array([0.0]), 100)
    found = tuned(scheme, params, data, steps, denoise=False, kept=("eps",)).free
    assert found is not None
    _, _, taus = found.measured.settings.applied(scheme, params)
    assert np.abs(taus - equal_angles(0.25, steps, params))[1:-1].max() < 1e-8
    assert np.abs(taus - equal_angles(0.2501, steps, params))[1:-1].max() > 1e-6


@pytest.mark.nightly
def test_the_best_exponent_of_two_steps_has_equal_angles() -> None:
    """Claim: of two steps one time is free, so that the family holds the best grid; its exponent is
    log(1 - tau_1 / (T - eps)) / log(1/2), to 1e-8."""
    scheme = POSITION["vp-DDIM"]
    params = own(scheme)
    data = Spectrum(np.array([0.25]), np.array([0.0]), 100)
    found = tuned(scheme, params, data, 2, denoise=False, free_grid=False, kept=("eps",)).family
    tau = equal_angles(0.25, 2, params)[1]
    rho = math.log(1 - tau / (params.T - params.eps)) / math.log(0.5)
    assert found.measured.settings.rho == pytest.approx(rho, abs=1e-8)
    assert found.measured.settings.rho != pytest.approx(rho * (1 + 1e-7), abs=1e-8)


def test_the_best_lambda_s_of_two_steps_is_that_which_keeps_the_variance() -> None:
    """Claim: on data N(0, 1) every p_t is N(0, 1) and the score is -x, so that a step of Euler-Maruyama over theta
    gives the variance (1 - theta/2)^2 C + lambda^2 theta. After two steps it is 1, and the distance 0, at

        lambda^2 = (1 - a_1^2 a_2^2) / (a_2^2 theta_1 + theta_2),    a_k = 1 - theta_k / 2,

    which tune finds to 1e-8."""
    scheme = POSITION["vp-EM"]
    params = scheme.splitting.diffusion.parameters(beta_min=1.0, beta_max=1.0)
    data = Spectrum(np.array([1.0]), np.array([0.0]), 100)
    found = tuned(scheme, params, data, 2, denoise=False, kept=("eps", "grid")).family.measured
    first, second = np.diff(time_grid("quadratic", 2, params))
    a, b = 1 - first / 2, 1 - second / 2
    scale = math.sqrt((1 - a**2 * b**2) / (b**2 * first + second))
    assert found.settings.lambda_s == pytest.approx(scale, abs=1e-8)
    assert found.distance < 1e-16
    assert found.settings.lambda_s != pytest.approx(scale * (1 + 1e-7), abs=1e-8)


# --- The search -------------------------------------------------------------------------------------------------------

THIN = thinned(cifar10_spectrum().variances, 8)
SMALL = Spectrum(THIN, np.sqrt(THIN) / 3, 100)


@pytest.mark.nightly
def test_tuning_is_nearer_than_the_published_settings_and_a_free_grid_nearer_still() -> None:
    """Claim: at 6 evaluations, where growth may be what it is; no lambda_s beside the optimum is better."""
    scheme = CATALOGUE["ROBA"]
    found = tuned(scheme, PARAMS, SMALL, 6, kept=("eps",), limit=1e9)
    assert found.free is not None
    assert found.family.is_stable
    assert found.free.is_stable
    published = measure(scheme, PARAMS, SMALL, untuned(scheme, PARAMS, 6))
    one, free = found.family.measured, found.free.measured
    assert free.distance < one.distance < 0.9 * published.distance
    assert one.nfe == free.nfe == published.nfe == 6
    beside = [replace(free.settings, lambda_s=factor * free.settings.lambda_s) for factor in (0.98, 1.02)]
    looked_at = [settings for settings in beside if SCALES[0] <= settings.lambda_s <= SCALES[1]]
    assert looked_at
    assert all(measure(scheme, PARAMS, SMALL, settings).distance > free.distance for settings in looked_at)


@pytest.mark.nightly
def test_where_no_settings_meet_the_limit_growth_is_that_of_the_published_run_at_most() -> None:
    """Claim: of RVV at 9 evaluations no grid of one exponent grows by 2 or less; what is advised grows by no more than
    the published run, is nearer than it, and is said not to be stable."""
    scheme, kept = CATALOGUE["RVV"], ("eps", "denoise")
    published = measure(scheme, PARAMS, SMALL, untuned(scheme, PARAMS, 9))
    found = tuned(scheme, PARAMS, SMALL, 9, free_grid=False, kept=kept).family
    assert published.growth.growth > 2
    assert not found.is_stable
    assert found.limit == published.growth.growth
    assert 2 < found.measured.growth.growth <= published.growth.growth
    assert found.measured.distance < published.distance


def test_a_cutoff_is_looked_at_only_where_an_exact_sampler_loses_next_to_nothing() -> None:
    """Claim: at the largest one an exact sampler is at most a hundredth of the published run's distance from the data,
    and a little beyond more; without the denoising step it is smaller."""
    scheme, data = CATALOGUE["ROBA"], cifar10_spectrum()
    published = measure(scheme, PARAMS, data, untuned(scheme, PARAMS, 20))
    longest = [longest_cutoff(scheme, PARAMS, data, 20, denoise) for denoise in (True, False)]
    assert PARAMS.eps < longest[1] < longest[0]
    for denoise, eps in zip((True, False), longest, strict=True):
        for factor, is_small in ((1.0, True), (1.2, False)):
            settings = replace(published.settings, denoise=denoise, eps=factor * eps)
            floor = measure(scheme, PARAMS, data, settings).floor
            assert (floor <= 0.01 * published.distance) is is_small


@pytest.mark.nightly
def test_growth_is_held_to_the_limit_and_costs_distance() -> None:
    """Claim: ROBA's nearest settings at 20 evaluations grow; with a limit on growth they do not, and are farther."""
    scheme, kept = CATALOGUE["ROBA"], ("eps", "denoise")
    wide = tuned(scheme, PARAMS, SMALL, 20, free_grid=False, kept=kept, limit=1e6).family
    held = tuned(scheme, PARAMS, SMALL, 20, free_grid=False, kept=kept)
    assert held.family.is_stable
    assert held.family.measured.growth.growth <= 2 < 0.5 * wide.measured.growth.growth
    assert held.family.measured.distance > wide.measured.distance
    assert held.unlimited == pytest.approx(wide.measured.distance, rel=1e-3)


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        (1, {}, r"nfe = 1: a step of 'ROBA' takes 1 and the denoising step one; give 2 or more"),
        (9, {"limit": 1.0}, r"growth = 1: the exact dynamics have growth 1"),
    ],
)
def test_what_cannot_be_tuned_is_refused(budget: int, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tuned(CATALOGUE["ROBA"], PARAMS, SMALL, budget, **options)  # pyright: ignore[reportArgumentType]


# --- Settings, sketches, curves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("free_grid", [True, False])
def test_settings_and_vectors_are_each_others_inverse(free_grid: bool) -> None:
    base = untuned(CATALOGUE["ROBA"], PARAMS, 9)
    variables = Variables(CATALOGUE["ROBA"], base, free_grid)
    x = variables.vector(base) + 0.1
    again = variables.vector(variables.settings(x))
    assert again == pytest.approx(x, abs=1e-12)
    by_x, by_scale = variables.slopes(x, PARAMS.T)
    for place in range(len(x)):
        ends = []
        for sign in (-1, 1):
            there = x.copy()
            there[place] += 1e-6 * sign
            settings = variables.settings(there)
            ends.append((settings.applied(CATALOGUE["ROBA"], PARAMS)[2], settings.lambda_s))
        assert (ends[1][0] - ends[0][0]) / 2e-6 == pytest.approx(by_x[:, place], abs=1e-8)
        assert (ends[1][1] - ends[0][1]) / 2e-6 == pytest.approx(by_scale[place], abs=1e-8)


@pytest.mark.parametrize("rho", [1.0, 2.0, 2.7, None])
def test_a_grid_is_what_the_option_takes(rho: float | None) -> None:
    """Claim: the text of a grid makes its times again, to rounding; rho = 1 is uniform, rho = 2 quadratic."""
    fractions = power_fractions(6, rho or 3.3)
    settings = Settings(1.0, 4e-3, True, tuple(fractions.tolist()), rho)
    _, params, taus = settings.applied(CATALOGUE["ROBA"], PARAMS)
    assert time_grid(settings.grid(params), 6, params) == pytest.approx(taus, abs=1e-15)
    if rho in (1.0, 2.0):
        assert settings.grid(params) == {1.0: "uniform", 2.0: "quadratic"}[rho]


def test_a_sketch_has_the_distances_of_the_whole_spectrum() -> None:
    """Claim: 256 bins give CIFAR-10's distances to 1%, of a run and of one that is far from the data; of the first 4
    bins do not."""
    data, scheme = cifar10_spectrum(), CATALOGUE["ROBA"]
    for nfe in (10, 50):
        settings = untuned(scheme, PARAMS, nfe)
        _, params, taus = settings.applied(scheme, PARAMS)
        truth = measure(scheme, PARAMS, data, settings).distance
        found = residuals(scheme, sketch(data, 256), params, taus, True)
        assert abs(found @ found / truth - 1) < 1e-2
    few = residuals(scheme, sketch(data, 4), params, taus, True)
    assert abs(few @ few / truth - 1) > 1e-2
    whole = residuals(scheme, sketch(data), params, taus, True)
    assert whole @ whole == pytest.approx(truth, rel=1e-9)


def test_curves_have_their_least_at_the_optimum_and_say_where_they_rise() -> None:
    scheme = CATALOGUE["ROBA"]
    found = tuned(scheme, PARAMS, SMALL, 6, free_grid=False, kept=("eps",), limit=1e6)
    settings = found.family.measured.settings
    drawn = {c.name: c for c in curves(scheme, PARAMS, SMALL, settings, settings, ("eps",))}
    assert set(drawn) == {"lambda_s", "rho", "blend"}
    for name in ("lambda_s", "rho"):
        curve = drawn[name]
        assert curve.values[curve.distance.argmin()] == pytest.approx(curve.at)
        low, high = curve.near
        assert not low >= curve.at
        assert not high <= curve.at
    assert set(jitter(scheme, PARAMS, SMALL, settings)) == {0.01, 0.1}
    others = elsewhere(scheme, PARAMS, SMALL, settings, untuned(scheme, PARAMS, 6))
    assert len(others) == 4
    assert all(ratio > 0 for ratio in others.values())


def test_near_is_where_a_curve_crosses() -> None:
    """Claim: of exp(x^2) around 0, 1.1 times its least is crossed at sqrt(log 1.1), between the points straight; where
    it never rises the end is nan."""
    values = np.linspace(-1, 1, 2001)
    low, high = near(values, np.exp(values**2), 0.0)
    assert (low, high) == pytest.approx((-math.sqrt(math.log(1.1)), math.sqrt(math.log(1.1))), abs=1e-6)
    assert np.isnan(near(values, np.ones(2001), 0.0)).all()

"""Noise that changes with time: tau(t) keeps every law p_t, orders are proven and measured, and EDM's churn is one."""

import math
import pickle

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.integrate import trapezoid
from weakorder.integrators.coupling import couple
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import sample
from weakorder.integrators.unmodified import k_diffusion_sampler
from weakorder.theory.clock import LOGSNR
from weakorder.theory.frozen import DATA_HELD, EPS_HELD, RESIDUAL_HELD, SCORE_HELD
from weakorder.theory.model import DIFFUSIONS, LinearSDE, Parameters
from weakorder.theory.noise_amount import NoiseAmount, between, churn
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD_WHOLE, VP_WHOLE, Part, Splitting
from weakorder.theory.stability import frozen_map
from weakorder.theory.weak_order import prove_order
from weakorder.verification.exact import errors_of, exact_moments, predicted_errors, study_order
from weakorder.verification.targets import GaussianTarget
from weakorder.verification.unmodified import Data, laws_of, transcribe

VP = DIFFUSIONS["vp"]
PARAMS = VP.parameters()
FORMULA = "1 - t/2"
AMOUNTS = (FORMULA, "2*sin(20*t)**2", between(0.3, 3.0), churn(40, 0.002, 80.0))
WORDS = {
    "euler": {},
    "score": {"flow": "exact"},
    "eps": {"flow": "exact", "frozen": EPS_HELD},
    "data": {"flow": "exact", "frozen": DATA_HELD},
    "data, memory 2": {"flow": "exact", "frozen": DATA_HELD, "memory": 2, "clock": LOGSNR},
}


def word(noise, splitting=VP_WHOLE, **options):
    return Scheme("S F", splitting.with_noise(noise), **options)


def moments(scheme, mean, variance, steps=20):
    diffusion = scheme.splitting.diffusion
    params = diffusion.parameters()
    target = GaussianTarget.of(mean, variance, diffusion, params)
    return exact_moments(scheme, target, time_grid("uniform", steps, params, 0.1))


# --- The declaration --------------------------------------------------------------------------------------------------


def test_dynamics_with_any_tau_of_t_keep_every_law_and_others_are_refused():
    """Claim: by algebra, with tau as a symbol; a drift that does not fit its noise is refused."""
    whole = VP.reverse(sp.Symbol("t") ** 2)
    assert (whole, whole.amount.formula) == (VP.reverse("t**2"), "t**2")
    assert Splitting("of t", VP, whole, (Part.of("F", whole),)).whole.has_noise
    bad = LinearSDE.declared(("s_x*(tau**2/2 + 1) + x/2", "tau"), NoiseAmount("t"))
    with pytest.raises(ValueError, match="does not keep the laws p_t"):
        Splitting("bad", VP, bad, (Part.of("F", bad),))
    with pytest.raises(ValueError, match="have noise 1 - t, and its whole t"):
        Splitting("two", VP, VP.reverse("t"), (Part.of("F", VP.reverse("1 - t")),))
    assert VP.reverse("t") != VP.reverse("1 - t")


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("1 -", "is no formula"),
        ("1 - q", "holds 'q'; it is a formula in t and theta"),
        ("open(t)", "which is not evaluated"),
        ("", "is no formula"),
    ],
)
def test_what_is_no_function_of_time_is_refused(formula, said):
    with pytest.raises(ValueError, match=said):
        VP.reverse(formula)


def test_a_noise_below_zero_is_refused_with_its_time():
    with pytest.raises(ValueError, match=r"is -1 at t = 1; it must be in \[0, 1e\+06\]"):
        moments(word("1 - 2*t"), 0.0, 1.0)


def test_what_needs_one_amount_for_all_times_says_so():
    scheme = word(FORMULA)
    with pytest.raises(ValueError, match="has no stable step of its own"):
        frozen_map(scheme)
    taus = time_grid("uniform", 4, PARAMS, 0.1)
    with pytest.raises(ValueError, match="are not coupled"):
        couple([(scheme, taus), (scheme, taus)], PARAMS)
    with pytest.raises(ValueError, match="extrapolates drifts"):
        word(FORMULA, memory=2)


# --- Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splitting", "options"),
    [
        *((VP_WHOLE, options) for options in (*WORDS.values(), {"flow": "true"}, {"flow": "midpoint"})),
        *((PSLD_WHOLE, WORDS[name]) for name in ("euler", "data", "data, memory 2")),
    ],
    ids=range(10),
)
def test_a_constant_function_is_the_number(splitting, options):
    """Claim: to round-off, of every sub-flow and what is held; another number is seen."""
    of_text = moments(word("0.5", splitting, **options), 0.5, 0.25).computed
    of_number, other = (moments(word(noise, splitting, **options), 0.5, 0.25).computed for noise in (0.5, 0.51))
    np.testing.assert_allclose(of_text.cov, of_number.cov, rtol=1e-12, atol=1e-15)
    assert not np.allclose(of_text.cov, other.cov, rtol=1e-6)


@pytest.mark.parametrize("noise", AMOUNTS, ids=range(len(AMOUNTS)))
def test_the_law_stays_the_targets_whatever_tau_of_t_is(noise):
    """Claim: to round-off in seven steps, where nothing that is held moves: a point's data, the prior's residual."""
    for held, variance in ((DATA_HELD, 0.0), (RESIDUAL_HELD, 1.0)):
        found = moments(word(noise, flow="exact", frozen=held), 0.0, variance, 7)
        np.testing.assert_allclose(found.computed.cov, found.exact.cov, rtol=1e-13)
    held = moments(word(noise, flow="exact", frozen=SCORE_HELD), 0.0, 1.0, 7)
    assert np.abs(held.computed.cov / held.exact.cov - 1).max() > 1e-3


@pytest.mark.parametrize("name", WORDS)
def test_the_proven_order_is_measured(name):
    scheme = word(FORMULA, **WORDS[name])
    order = prove_order(scheme).order
    assert order == scheme.memory
    found = study_order(scheme, PARAMS, order, (50, 100, 200, 400))
    assert found.verdict == "PASS", found.reason
    assert study_order(scheme, PARAMS, order + 1, (50, 100, 200, 400)).verdict == "FAIL"


@pytest.mark.parametrize("name", ["euler", "data"])
def test_the_error_is_the_predicted_one(name):
    """Claim: the proof's leading error, with tau(t) along the run, to 2 per cent; with another tau(t) it is not."""
    scheme = word(FORMULA, **WORDS[name])
    target = GaussianTarget.of(0.5, 0.25, VP, PARAMS)
    found = exact_moments(scheme, target, time_grid("uniform", 1600, PARAMS, 0.1))
    measured = errors_of(found.computed, found.exact, np.ones(1))["covariance"] * 1600 / 0.9
    assert predicted_errors(scheme, target, 0.1)["covariance"] == pytest.approx(measured, rel=0.02)
    assert predicted_errors(word("2*t", **WORDS[name]), target, 0.1)["covariance"] != pytest.approx(measured, rel=0.1)


def test_samples_have_the_moments():
    """Claim: variance within 5 standard errors of 20,000 samples, and not with more noise."""
    target = GaussianTarget.of(0.0, 0.25, VP, PARAMS)
    taus, count = time_grid("uniform", 10, PARAMS, 0.1), 20_000
    numbers = torch.arange(count)
    start = torch.randn(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start *= math.sqrt(float(target.law(1.0).cov[0, 0, 0]))
    for noise, same in ((FORMULA, True), (2, False)):
        drawn = sample(word(noise), target.as_score(), start, taus, PARAMS, samples=numbers).numpy().var()
        exact = float(exact_moments(word(FORMULA), target, taus).computed.cov[0, 0, 0])
        assert (abs(drawn / exact - 1) < 5 * math.sqrt(2 / count)) == same


# --- EDM's churn ------------------------------------------------------------------------------------------------------


def gain_of(noise, variance, first, last):
    """What is left of a start's deviation, in deviations: exp(-1/2 int tau^2 / var dtheta), var of vp at theta."""
    theta = np.linspace(np.log1p(last**2), np.log1p(first**2), 200_001)
    tau = NoiseAmount.of(noise).at(theta, VP.parameters(beta_min=1.0, beta_max=1.0))
    rate = tau**2 / (np.exp(-theta) * variance - np.expm1(-theta))
    return math.exp(-trapezoid(rate, theta) / 2)


def test_churn_tends_to_the_dynamics_that_it_is_declared_as():
    """Claim: the start is forgotten as under tau(t), in the limit of many steps of the unmodified code, by an error of
    first order; twice the noise is not the limit."""
    low, high, amount, variance = 0.1, 20.0, 5.0, 0.5
    settings = {"s_churn": amount, "sigma_min": low, "sigma_max": high}
    data = Data(np.array([0.0]), np.array([variance]))
    gains = []
    for steps in (40, 80, 160):
        sampler = k_diffusion_sampler("sample_euler", settings, "karras")
        run = transcribe(sampler, steps)
        gains.append(laws_of(sampler, run, data).last.gain[0])
    off = np.array(gains) - gain_of(churn(amount, low, high), variance, high, low)
    assert 0.4 < off[1] / off[0] < 0.6
    assert 0.4 < off[2] / off[1] < 0.6
    assert abs(2 * gains[2] - gains[1] - gain_of(churn(2 * amount, low, high), variance, high, low)) > 20 * abs(off[2])


def test_churn_is_limited_to_its_range():
    inside, outside = (churn(5.0, 0.1, 20.0, start=0.5, stop=2.0).at(np.log1p(s**2), ONE) for s in (1.0, 3.0))
    assert (inside, outside) == (pytest.approx(float(churn(5.0, 0.1, 20.0).at(math.log(2.0), ONE))), 0.0)


ONE = VP.parameters(beta_min=1.0, beta_max=1.0)


def test_it_goes_to_other_processes_though_it_has_been_compiled() -> None:
    amount = NoiseAmount("1 - t")
    assert float(amount.at(0.25, Parameters())) == 0.75
    assert float(pickle.loads(pickle.dumps(amount)).at(0.25, Parameters())) == 0.75

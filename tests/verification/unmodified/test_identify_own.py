"""One's own samplers are identified, whatever clock they remember in, and where they have a fault it is named."""

import dataclasses

import pytest
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.unmodified import PREDICTIONS, function_sampler
from weakorder.theory.paths import PATHS, GaussianPath
from weakorder.verification.unmodified import identify
from weakorder.verification.unmodified.identify import _over, _time_over

DDIM, DDPM = "vp-DDIM", "vp-DDPM"
NEVER = 1e-11


def described(likeness):
    scheme = likeness.scheme
    return (scheme.splitting.name, scheme.frozen.name, scheme.memory, str(scheme.clock))


TWO_M = """
import math, torch
def sample(model, x, steps):
    times = [1 - k / steps * 0.98 for k in range(steps + 1)]
    alpha = lambda t: math.exp(-(0.1 * t + 9.95 * t * t) / 2)
    sigma = lambda t: math.sqrt(1 - alpha(t) ** 2)
    shown = lambda t: CLOCK
    before = None
    for k, (t, s) in enumerate(zip(times, times[1:])):
        x0 = (x - sigma(t) * model(x, t)) / alpha(t)
        held = x0
        if before is not None:
            r = (shown(t) - shown(times[k - 1])) / (shown(s) - shown(t))
            held = x0 + (x0 - before) / (WEIGHT)
        h = math.log(alpha(s) / sigma(s)) - math.log(alpha(t) / sigma(t))
        x, before = sigma(s) / sigma(t) * x - alpha(s) * math.expm1(-h) * held, x0
    return x
"""
RIGHT = {"CLOCK": "math.log(alpha(t) / sigma(t))", "WEIGHT": "2 * r"}


def own_2m(**changes):
    code = TWO_M
    for name, text in (RIGHT | changes).items():
        code = code.replace(name, text)
    return own(0.0, code=code)


@pytest.mark.parametrize(
    ("changes", "clock"),
    [
        ({}, "logsnr-midpoint"),
        ({"CLOCK": "t"}, "t-midpoint"),
        ({"CLOCK": "sigma(t) / alpha(t)"}, "rho-midpoint"),
        ({"CLOCK": "0.1 * t + 9.95 * t * t"}, "theta-midpoint"),
    ],
)
def test_a_clock_that_is_another_is_named(changes, clock):
    """Claim: whatever is taken for log-SNR by mistake, t of the sampler's own path among it."""
    found = identify(own_2m(**changes))
    assert [described(one) for one in found if one.is_same] == [("vp-flow", "data", 2, clock)]
    assert found[0].distance < NEVER
    assert found[1].distance > 1e-3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WEIGHT": "r"}, "the weight of the answer 1 before it is 2 times the word's in steps 2 to 10"),
        ({"WEIGHT": "2 / r"}, "the weight of the answer 1 before it is"),
        ({"WEIGHT": "-2 * r"}, "the weight of the answer 1 before it is -1 times the word's in steps 2 to 10"),
    ],
    ids=["not half", "upside down", "sign"],
)
def test_a_wrong_extrapolation_is_named(changes, said):
    nearest = identify(own_2m(**changes))
    assert not nearest[0].is_same
    (of_2m,) = identify(own_2m(**changes), [POSITION["vp-DPM-Solver++2M"]])
    assert any(said in line for line in of_2m.differs), of_2m.differs


TAB = """
import math
from scipy.integrate import quad
theta = lambda t: 0.1 * t + 9.95 * t * t
rho = lambda t: math.sqrt(math.expm1(theta(t)))
moves = lambda t: (0.1 + 19.9 * t) * math.exp(theta(t)) / (2 * rho(t))
def sample(model, x, steps):
    times, before = [1 - k / steps * 0.98 for k in range(steps + 1)], None
    for k, (t, s) in enumerate(zip(times, times[1:])):
        eps, p = model(x, t), times[k - 1]
        if before is None:
            change = (rho(s) - rho(t)) * eps
        else:
            weight = lambda own, other: quad(
                lambda r: moves(r) * (r - other) / (own - other), t, s, epsabs=0, epsrel=1e-13
            )[0]
            change = weight(t, p) * eps + weight(p, t) * before
        x, before = math.exp((theta(t) - theta(s)) / 2) * x + math.exp(-theta(s) / 2) * change, eps
    return x
"""


def test_deis_in_its_own_time_is_identified():
    """Claim: tAB-DEIS of 2204.13902, equation 15, by quadrature, over beta linear in t."""
    found = identify(own(0.0, code=TAB))
    assert [likeness.scheme.name for likeness in found if likeness.is_same] == ["vp-DEIS-2"]
    assert found[0].distance < NEVER
    without = identify(dataclasses.replace(own(0.0, code=TAB), path=None))  # of no smooth time there is no clock t
    assert not any(likeness.is_same or likeness.scheme.clock.name == "t" for likeness in without)


def test_words_that_are_kept_are_those_of_the_sampler_s_own_times_and_path():
    """Claim: a sampler on another grid, or of another path, in between changes nothing."""
    few = [POSITION[DDIM], POSITION["vp-DEIS-2"]]
    vp = PATHS["vp"]
    squared = GaussianPath("squared", lambda t: vp.alpha(t**0.5), lambda t: vp.sigma(t**0.5))
    tab = own(0.0, code=TAB)
    samplers = [tab, own(0.0, code=TAB.replace("0.98", "0.9")), dataclasses.replace(tab, path=squared), own(0.0)]

    def distances(sampler):
        return {one.scheme.name: one.distance for one in identify(sampler, few)}

    kept = [distances(sampler) for sampler in samplers]
    assert [found["vp-DEIS-2"] < NEVER for found in kept] == [True, True, False, False]
    assert [found[DDIM] < NEVER for found in kept] == [False, False, False, True]
    for sampler, before in zip(samplers, kept, strict=True):
        _over.cache_clear()
        _time_over.cache_clear()
        assert distances(sampler) == before


# --- Faults -----------------------------------------------------------------------------------------------------------

DDIM_CODE = """
import math, torch
def sample(model, x, steps):
    times = [1 - k / steps * 0.98 for k in range(steps + 1)]
    alpha = lambda t: math.exp(-(0.1 * t + 9.95 * t * t) / 2)
    for t, s in zip(times, times[1:]):
        a, b = alpha(t), alpha(s)
        eps = model(x, t)
        x0 = (x - math.sqrt(1 - a * a) * eps) / a
        spread = ETA * math.sqrt((1 - b * b) / (1 - a * a) * (1 - a * a / (b * b)))
        x = b * x0 + math.sqrt(1 - b * b - spread ** 2) * eps + NOISE * spread * torch.randn_like(x)
    return x
"""


def own(eta, noise=1.0, code=DDIM_CODE):
    scope = {"ETA": eta, "NOISE": noise}
    exec(code, scope)
    return function_sampler("own", scope["sample"], PATHS["vp"], "eps", "t", (1, 1, 1))


@pytest.mark.parametrize(("eta", "word"), [(0.0, DDIM), (1.0, DDPM)])
def test_ones_own_sampler_is_identified(eta, word):
    assert word in {likeness.scheme.name for likeness in identify(own(eta)) if likeness.is_same}


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (own(1.0, 1.1), r"the variance of the noise is 1.21 times the word's in all steps"),
        (own(0.0, code=DDIM_CODE.replace("b * x0", "1.01 * b * x0")), "the weight of the last answer is"),
        (own(1.0, 0.0), "the variance of the noise is nothing in all steps"),
        (
            own(1.0, code=DDIM_CODE.replace("torch.randn_like(x)", "(torch.randn_like(x) if t > 0.7 else x * 0)")),
            "the variance of the noise is nothing in steps",
        ),
    ],
)
def test_a_mutant_names_its_fault(sampler, said):
    nearest = identify(sampler)[0]
    assert not nearest.is_same
    assert any(said in line for line in nearest.differs), nearest.differs


def test_a_sampler_in_float32_is_told_what_hides_its_word():
    code = DDIM_CODE.replace("    times =", "    x = x.float()\n    times =").replace(
        "model(x, t)", "model(x, t).to(x)"
    )
    with pytest.raises(
        ValueError, match=r"rounded by \d+e-0[678] of themselves, as in float32, .*; compute in the dtype"
    ):
        identify(own(0.0, code=code))


def test_a_fault_of_few_steps_alone_is_no_word():
    found = identify(own(0.0, code=DDIM_CODE.replace("b * x0", "(1.01 if steps < 8 else 1) * b * x0")))
    assert not found[0].is_same
    assert found[0].differs


def test_a_network_that_answers_otherwise_than_it_is_said_to_is_no_word():
    wrong = dataclasses.replace(own(0.0), prediction=PREDICTIONS["v"], predicts="v")
    assert not identify(wrong)[0].is_same

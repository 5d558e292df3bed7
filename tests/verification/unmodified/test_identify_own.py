"""One's own samplers are identified, whatever clock they remember in, and where they have a fault it is named."""

import dataclasses

import numpy as np
import pytest
from selection import nightly_but
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.unmodified import PREDICTIONS, function_sampler
from weakorder.theory.paths import PATHS, GaussianPath
from weakorder.verification.unmodified import identify
from weakorder.verification.unmodified.faults import own_thetas
from weakorder.verification.unmodified.identify import _over, _time_over
from weakorder.verification.unmodified.steps import take

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
        ({"WEIGHT": "r"}, "the first difference of the answers is weighed by 2 times what it should be"),
        ({"WEIGHT": "-2 * r"}, "the first difference of the answers is weighed by -1 times what it should be"),
    ],
    ids=["not half", "upside down", "sign", "twice", "minus"],
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


NOISE, READ, ASK = "NOISE * spread", "(x - math.sqrt(1 - a * a) * eps)", "model(x, t)"
FAULTS = [
    (1.0, NOISE, "math.sqrt(1 - a * a / (b * b))", "variance of the noise is that of the step forward"),
    (1.0, NOISE, "spread ** 2", "variance of the noise is the square of what it should be: a root is forgotten"),
    (1.0, NOISE, "spread ** 0.5", "variance of the noise is the root of what it should be: a root is taken twice"),
    (0.0, READ, "(x - (1 - a * a) * eps)", "sigma is its square: a root is forgotten"),
    (1.0, READ, "(x - (1 - a * a) * eps)", "sigma is its square: a root is forgotten"),
    (0.0, READ, "(x - (1 - a * a) ** 0.25 * eps)", "sigma is its root: a root is taken twice"),
    (0.0, READ, "(x - eps)", "sigma is left out"),
    (0.0, READ + " / a", READ + " / math.sqrt(a)", "alpha is its root: a root is taken twice"),
    (
        0.0,
        "math.sqrt(1 - b * b - spread ** 2)",
        "(1 - b * b - spread ** 2)",
        "keeps a variance for a standard deviation",
    ),
    (0.0, ASK, "model(x, s)", "the network is told the noise level of the evaluation after"),
    (1.0, ASK, "model(x, s)", "the network is told the noise level of the evaluation after"),
    (1.0, ASK, "model(x, 0.97 * t)", "sigma / alpha that the network is told is 0.7441 to 0.9695 times its input's"),
    (0.0, ASK, "-model(x, t)", ""),
]
# One of each kind in every run.
OFTEN = ("1 - a * a / (b * b)", "(x - (1 - a * a) * eps)", "(1 - b * b - spread ** 2)", "model(x, s)", "-model(x, t)")


@pytest.mark.parametrize(
    ("eta", "right", "wrong", "said"),
    nightly_but(lambda case: any(text in case[2] for text in OFTEN) and (case[0] == 0 or case[1] is NOISE), FAULTS),
)
def test_a_fault_that_is_known_is_named_of_the_word_that_it_was_put_into(eta, right, wrong, said):
    """Claim: and one that is not (the last: a sign) is not said to be one of them."""
    assert DDIM_CODE.count(right) == 1
    nearest, *others = identify(own(eta, code=DDIM_CODE.replace(right, wrong)))
    assert not nearest.is_same
    if said:
        assert said in nearest.differs[0], nearest
        assert nearest.scheme.name == (DDPM if eta else DDIM)
    known = ("a root is", "left out", "step forward", "times what it should be", "that the network is told", "is told")
    assert any(any(text in line for text in known) for line in nearest.differs) == bool(said)
    assert not any(one.is_same for one in others)


def test_the_noise_level_that_a_state_has_is_found_whatever_the_network_is_told():
    """Claim: to all digits; the levels themselves, at which the sampler is the word."""
    told = own(0.0, code=DDIM_CODE.replace(ASK, "model(x, (t + s) / 2)"))
    right, wrong = take(own(0.0), 6), take(told, 6)
    assert np.abs(wrong.thetas / right.thetas - 1).min() > 0.05
    found = own_thetas(told, wrong, POSITION[DDIM])
    np.testing.assert_allclose(found, right.thetas, rtol=1e-9)
    other = own(0.0, code=DDIM_CODE.replace("b * x0", "1.01 * b * x0"))
    assert own_thetas(other, take(other, 6), POSITION[DDIM]) is None


def of_three(second, first=1.0):
    """The predictor of order 3 on log-SNR, its differences weighed by these factors."""
    return THREE_M.replace("SECOND", str(second)).replace("FIRST", str(first))


THREE_M = """
import math
def sample(model, x, steps):
    times = [1 - k / steps * 0.98 for k in range(steps + 1)]
    alpha = lambda t: math.exp(-(0.1 * t + 9.95 * t * t) / 2)
    sigma = lambda t: math.sqrt(1 - alpha(t) ** 2)
    shown = lambda t: math.log(alpha(t) / sigma(t))
    old = []
    for t, s in zip(times, times[1:]):
        x0 = (x - sigma(t) * model(x, t)) / alpha(t)
        h = shown(s) - shown(t)
        # int_0^h e^(r - h) r^n dr, by parts
        whole = -math.expm1(-h)
        linear = h - whole
        square = h * h - 2 * linear
        pull = whole * x0
        if old:
            (p, y), = old[-1:]
            d1 = (x0 - y) / (shown(t) - shown(p))
            pull = pull + FIRST * linear * d1
        if len(old) > 1:
            (pp, yy), = old[-2:-1]
            d2 = (d1 - (y - yy) / (shown(p) - shown(pp))) / (shown(t) - shown(pp))
            pull = pull + SECOND * (square + linear * (shown(t) - shown(p))) * d2
        old.append((t, x0))
        x = sigma(s) / sigma(t) * x + alpha(s) * pull
    return x
"""


@pytest.mark.parametrize(
    ("second", "first", "said"),
    nightly_but(
        lambda case: case[1] > 0 and case[0] != 0.5,
        [
            (-1.0, 1.0, "the second difference of the answers is weighed by -1 times what it should be"),
            (0.5, 1.0, "the second difference of the answers is weighed by 0.5 times what it should be"),
            (1.0, -1.0, "the first difference of the answers is weighed by -1 times what it should be"),
            (1.0, 1.0, ""),
        ],
    ),
)
def test_a_difference_of_the_last_answers_with_a_wrong_factor_is_named(second, first, said):
    nearest = identify(own(0.0, code=of_three(second, first)))[0]
    assert (nearest.scheme.name, nearest.is_same) == ("vp-UniP-3", not said)
    assert not said or nearest.differs[0] == said


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
    nearest = identify(wrong)[0]
    assert not nearest.is_same
    assert nearest.scheme.name == DDIM
    assert nearest.differs == ("it takes the network's answer for eps, where that is said to be v",)

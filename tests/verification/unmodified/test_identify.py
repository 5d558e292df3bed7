"""Schedulers that are words are found to be, whatever their coordinates and parametrisation; others are not."""

import dataclasses

import pytest
from selection import nightly_but
from weakorder.integrators.unmodified import PREDICTIONS, diffusers_sampler, function_sampler, k_diffusion_sampler
from weakorder.theory.paths import PATHS
from weakorder.verification.unmodified import identify

MAKE = {"diffusers": diffusers_sampler, "k-diffusion": k_diffusion_sampler}
DDIM, DDPM = "vp-DDIM", "vp-DDPM"
KNOWN = [
    ("diffusers:DDIMScheduler", {}, "default", DDIM),
    ("diffusers:DDIMScheduler", {"eta": 1.0}, "default", DDPM),
    ("diffusers:DDIMScheduler", {"prediction_type": "v_prediction"}, "default", DDIM),
    ("diffusers:DDPMScheduler", {}, "default", DDPM),
    ("diffusers:EulerDiscreteScheduler", {}, "karras", DDIM),
    ("diffusers:EulerAncestralDiscreteScheduler", {}, "default", DDPM),
    ("diffusers:EDMEulerScheduler", {}, "default", DDIM),
    ("diffusers:FlowMatchEulerDiscreteScheduler", {}, "default", DDIM),
    (
        "diffusers:DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 1},
        "default",
        "vp-SDE-DPM-Solver++1",
    ),
    ("k-diffusion:sample_euler", {}, "karras", DDIM),
    ("k-diffusion:sample_euler_ancestral", {}, "karras", DDPM),
]
OFTEN = (("diffusers:DDIMScheduler", DDIM), ("k-diffusion:sample_euler_ancestral", DDPM))


def made(x, settings, grid):
    library, name = x.split(":")
    return MAKE[library](name, settings, grid)


@pytest.mark.parametrize(
    ("x", "settings", "grid", "word"), nightly_but(lambda case: (case[0], case[3]) in OFTEN, KNOWN)
)
def test_a_scheduler_that_is_a_word_is_found_to_be(x, settings, grid, word):
    found = identify(made(x, settings, grid))
    same = {likeness.scheme.name for likeness in found if likeness.is_same}
    assert word in same
    assert (
        len({likeness.scheme.splitting.name for likeness in found if likeness.is_same}) == 1
    )  # the flow's, or the SDE's
    assert found[len(same)].distance > 1e-3  # the next is far


def test_a_method_of_second_order_is_no_word_of_first():
    found = identify(made("k-diffusion:sample_dpmpp_2m", {}, "karras"))
    assert not found[0].is_same
    assert found[0].scheme.name == "vp-DPM-Solver++2M"
    assert any("the weight of the answer 1 before it" in line for line in found[0].differs)


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


def test_a_sampler_that_asks_twice_at_one_time_is_refused():
    with pytest.raises(ValueError, match="asks twice at one time"):
        identify(made("diffusers:PNDMScheduler", {}, "default"))

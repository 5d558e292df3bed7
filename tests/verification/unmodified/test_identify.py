"""Schedulers that are words are found to be, whatever their coordinates and parametrisation; others are not."""

import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
from selection import nightly_but
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.unmodified import diffusers_sampler, function_sampler, k_diffusion_sampler
from weakorder.integrators.unmodified.diffusers import schedulers
from weakorder.integrators.unmodified.k_diffusion import samplers
from weakorder.integrators.unmodified.lifting import float64_throughout
from weakorder.theory.clock import CLOCKS
from weakorder.theory.frozen import DATA_HELD
from weakorder.theory.noise_amount import between
from weakorder.theory.paths import PATHS, table_of
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_FLOW, VP_WHOLE
from weakorder.verification.unmodified import identify
from weakorder.verification.unmodified.faults import two_stages
from weakorder.verification.unmodified.steps import of_word, steps_of, take

MAKE = {"diffusers": diffusers_sampler, "k-diffusion": k_diffusion_sampler}
DDIM, DDPM, SDE_2M = "vp-DDIM", "vp-DDPM", "vp-SDE-DPM-Solver++2M"
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


# --- Solvers that remember --------------------------------------------------------------------------------------------
# Settings, and the word: what is held over how many evaluations in which clock, and its name where it has one.
NEVER, ALONE = 1e-11, {"disable_corrector": tuple(range(20))}
DPM, MULTISTEP = "diffusers:DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}
REMEMBERING = [
    (DPM, {}, "default", ("vp-flow", "data", 2, "logsnr-midpoint"), "vp-DPM-Solver++2M"),
    (DPM, {"solver_type": "heun"}, "default", ("vp-flow", "data", 2, "logsnr"), ""),
    (DPM, {"algorithm_type": "sde-dpmsolver++"}, "default", ("vp-whole", "data", 2, "logsnr-midpoint"), SDE_2M),
    (
        DPM,
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        "default",
        ("vp-whole", "data", 2, "logsnr"),
        "",
    ),
    (DPM, MULTISTEP | {"algorithm_type": "dpmsolver"}, "default", ("vp-flow", "eps", 2, "logsnr-midpoint"), ""),
    (DPM, MULTISTEP | {"algorithm_type": "sde-dpmsolver"}, "default", ("vp-whole", "eps", 2, "logsnr-midpoint"), ""),
    ("diffusers:EDMDPMSolverMultistepScheduler", {}, "default", ("vp-flow", "data", 2, "logsnr-midpoint"), ""),
    ("diffusers:DEISMultistepScheduler", {}, "default", ("vp-flow", "eps", 2, "logsnr"), "vp-DEIS-2-logrho"),
    (
        "diffusers:DEISMultistepScheduler",
        {"solver_order": 3, "lower_order_final": False},
        "default",
        ("vp-flow", "eps", 3, "logsnr"),
        "",
    ),
    ("diffusers:LMSDiscreteScheduler", {}, "default", ("vp-flow", "eps", 4, "rho"), ""),
    ("diffusers:LMSDiscreteScheduler", {}, "karras", ("vp-flow", "eps", 4, "rho"), ""),
    ("diffusers:UniPCMultistepScheduler", ALONE, "default", ("vp-flow", "data", 2, "logsnr-midpoint"), ""),
    ("k-diffusion:sample_dpmpp_2m", {}, "karras", ("vp-flow", "data", 2, "logsnr-midpoint"), "vp-DPM-Solver++2M"),
    ("k-diffusion:sample_dpmpp_2m_sde", {"eta": 0.0}, "karras", ("vp-flow", "data", 2, "logsnr-midpoint"), ""),
    ("k-diffusion:sample_lms", {}, "karras", ("vp-flow", "eps", 4, "rho"), ""),
]


def described(likeness):
    scheme = likeness.scheme
    return (scheme.splitting.name, scheme.frozen.name, scheme.memory, str(scheme.clock))


@pytest.mark.parametrize(
    ("x", "settings", "grid", "word", "name"),
    nightly_but(lambda case: case[4] in ("vp-DPM-Solver++2M", SDE_2M, "vp-DEIS-2-logrho"), REMEMBERING),
)
def test_a_solver_that_remembers_is_found_to_be_its_word_and_no_other(x, settings, grid, word, name):
    found = identify(made(x, settings, grid))
    assert [described(likeness) for likeness in found if likeness.is_same] == [word]
    assert found[0].distance < (1e-10 if "EDM" in x else NEVER)  # EDM's times are quarters of log sigma, rounded
    assert not name or found[0].scheme.name == name
    assert found[1].distance > 1e-3


def stages(sampler):
    runs = [take(sampler, count) for count in (6, 11)]
    return two_stages({by: [steps_of(sampler, run, by) for run in runs] for by in (False, True)}, runs)


def dpm_solver_2(kept):
    """k-diffusion's sample_dpm_2 on an exponential grid; kept: what a step goes from after two evaluations."""

    def sample(model, x, steps):
        sigmas = np.geomspace(14.0, 0.03, steps + 1)
        for sigma, later in itertools.pairwise(sigmas):
            middle = math.sqrt(sigma * later)
            half = x + (middle - sigma) * (x - model(x, sigma)) / sigma
            slope = (half - model(half, middle)) / middle
            x = x + (later - sigma) * slope if kept == "begin" else half + (later - middle) * slope
        return x

    return function_sampler("dpm-2", sample, PATHS["edm"], "denoiser", "sigma")


def test_a_method_of_two_evaluations_is_named_and_one_that_goes_on_from_the_middle_is_not():
    said = "it is DPM-Solver-2: its second evaluation moves the state that each step began with"
    assert stages(made("k-diffusion:sample_dpm_2", {}, "karras")) == said
    assert stages(dpm_solver_2("begin")) == said
    assert stages(dpm_solver_2("middle")) == ""
    assert stages(made("k-diffusion:sample_euler", {}, "karras")) == ""
    assert stages(made("k-diffusion:sample_dpm_fast", {}, "default")) == ""


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("x", "grid", "said"),
    [
        ("KDPM2DiscreteScheduler", "default", r"it is DPM-Solver-2 \(to \de-07: the levels .* are rounded\): .*"),
        ("KDPM2DiscreteScheduler", "karras", r"it is DPM-Solver-2 \(to \de-0[234]: the levels .* are rounded\): .*"),
        ("DPMSolverSinglestepScheduler", "default", r"it is DPM-Solver\+\+\(2S\): .*"),
    ],
)
def test_a_scheduler_of_two_evaluations_is_named(x, grid, said):
    assert re.fullmatch(said, stages(diffusers_sampler(x, {}, grid)))


ROUNDED = [
    ({"solver_type": "heun"}, ("vp-flow", "data", 2, "logsnr")),
    ({}, ("vp-flow", "data", 2, "logsnr-midpoint")),
    ({"algorithm_type": "sde-dpmsolver++"}, ("vp-whole", "data", 2, "logsnr-midpoint")),
]


@pytest.mark.parametrize(
    ("settings", "word", "candidates"),
    [
        (*ROUNDED[0], [Scheme("S F", VP_FLOW, flow="exact", frozen=DATA_HELD, memory=2, clock=CLOCKS["logsnr"])]),
        *(pytest.param(*case, None, marks=pytest.mark.nightly) for case in ROUNDED),
    ],
    ids=["its word", "heun", "midpoint", "SDE"],
)
def test_a_timestep_that_is_rounded_is_all_that_keeps_dpm_solver_on_karras_grid_from_its_word(
    settings, word, candidates
):
    """Claim: its code rounds the timestep of each sigma; between rows of 640,000 that is 6e-5 of sigma and less."""
    nearest = identify(made(DPM, settings, "karras"), candidates)[0]
    assert described(nearest) == word
    (said,) = nearest.differs
    rounded = r"sigma / alpha that the network is told is off by \d\.\de-05 at evaluations 2 to 1\d; .* it is the word"
    assert re.fullmatch(rounded, said), said


@pytest.mark.parametrize(
    ("solver", "clock"),
    nightly_but(lambda case: case[0] == "midpoint", [("midpoint", "logsnr-midpoint"), ("heun", "logsnr")]),
)
def test_a_brownian_tree_is_told_from_independent_noise_by_what_it_rounds(solver, clock):
    """Claim: the word is the same; the variance of the tree's noise is off by some 1e-6, which is shown."""
    module = samplers()

    def independent(model, x, steps):
        sigmas = module.get_sigmas_karras(steps, 0.03, 14.0).double()
        noise = lambda *_: torch.randn_like(x)  # noqa: E731
        return module.sample_dpmpp_2m_sde(model, x, sigmas, disable=True, noise_sampler=noise, solver_type=solver)

    alone = identify(function_sampler("alone", independent, PATHS["edm"], "denoiser", "sigma", (1, 1, 1)))
    tree = identify(made("k-diffusion:sample_dpmpp_2m_sde", {"solver_type": solver}, "karras"))
    for found in (alone, tree):
        assert [described(one) for one in found if one.is_same] == [("vp-whole", "data", 2, clock)]
    assert alone[0].distance < NEVER
    assert 1e-7 < tree[0].distance < 2e-5


def sa_predictor(tau, order=3):
    """SASolverScheduler's own step, whose corrector needs what it is not given: the state before the last step."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    path = table_of(torch.cumprod(1 - betas, 0).numpy())

    def sample(model, x, steps):
        with float64_throughout("diffusers.schedulers"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            of_time = tau if callable(tau) else lambda _: tau
            settings = {"predictor_order": order, "tau_func": of_time, "lower_order_final": False}
            made = schedulers().SASolverScheduler(trained_betas=betas.numpy(), **settings)
            made.set_timesteps(steps)
            for t in made.timesteps:
                made.last_sample = None
                x = made.step(model(x, t), t, x).prev_sample
        return x

    return function_sampler("predictor", sample, path, "eps", "t", (1, 1, 1))


def assert_differs_in_two_weights(found, where):
    named = [line.partition(" is ")[0] for line in found.differs]
    assert named == ["the weight of the last answer", "the weight of the answer 1 before it"]
    assert all(line.endswith(where) for line in found.differs)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("tau", "first", "third"),
    [(0.0, DDIM, "vp-UniP-3"), (1.0, DDPM, "vp-SA-Solver-P3")],
)
def test_the_predictor_of_sa_solver_is_a_word_but_for_its_second_order(tau, first, third):
    """Claim: its code adds a term of h^3 to the weights of order 2, and says so; a run of order 3 has that in its
    second step, and is the word in every other."""
    assert first in {likeness.scheme.name for likeness in identify(sa_predictor(tau, 1)) if likeness.is_same}
    second, nearest = identify(sa_predictor(tau, 2))[0], identify(sa_predictor(tau, 3))[0]
    assert_differs_in_two_weights(second, "in steps 2 to 10")
    assert described(second) == ("vp-whole" if tau else "vp-flow", "data", 2, "logsnr")
    assert_differs_in_two_weights(nearest, "in step 2")
    assert nearest.scheme.name == third


@pytest.mark.parametrize(("edges", "is_same"), [((200, 800), True), ((200, 700), False)])
def test_sa_solver_s_noise_between_two_times_is_an_amount_that_changes_with_time(edges, is_same):
    """Claim: its predictor of order 1 with the published tau, 1 at timesteps 200 to 800 and 0 elsewhere, is the word
    whose dynamics are declared so, and no other."""
    sampler = sa_predictor(lambda t: 1.0 if 200 <= t <= 800 else 0.0, 1)
    path = sampler.prepare(10, True)
    low, high = (at.sigma / at.alpha for at in map(path.level, edges))
    declared = VP_WHOLE.with_noise(between(low * (1 - 1e-9), high * (1 + 1e-9)))
    (found,) = identify(sampler, [Scheme("S F", declared, flow="exact", frozen=DATA_HELD)])
    assert found.is_same == is_same, found.differs


@pytest.mark.nightly  # that of SA-Solver, which is the same on the flow, is a sibling
def test_the_third_order_predictor_of_unipc_is_a_word_but_for_its_second_step():
    """Claim: that is of its second order, which is the middle's."""
    settings = ALONE | MULTISTEP | {"solver_order": 3, "lower_order_final": False}
    nearest = identify(made("diffusers:UniPCMultistepScheduler", settings, "default"))[0]
    assert nearest.scheme.name == "vp-UniP-3"
    assert_differs_in_two_weights(nearest, "in step 2")


@pytest.mark.parametrize(
    ("x", "settings", "grid", "name", "noise"),
    nightly_but(
        lambda case: case[-1],
        [
            (DPM, {"solver_order": 3, "solver_type": "heun", "lower_order_final": False}, "default", "vp-UniP-3", 0),
            ("k-diffusion:sample_dpmpp_3m_sde", {}, "karras", "vp-SA-Solver-P3", 1),
        ],
    ),
)
def test_dpm_solver_s_third_order_weighs_the_second_difference_by_half(x, settings, grid, name, noise):
    """Claim: that is all by which it is not the exact integral of the parabola, on the flow and on the SDE, from the
    third step on: what it lacks is -phi_3(h) alpha h^2 times the divided difference, of the two that are right."""
    sampler = made(x, settings, grid)
    nearest = identify(sampler)[0]
    assert (nearest.scheme.name, nearest.is_same) == (name, False)
    assert all("weight of" in line and "in steps 3 to 10" in line for line in nearest.differs if "noise" not in line)
    taken = take(sampler, 11)
    thetas = taken.thetas
    own, word = steps_of(sampler, taken), of_word(POSITION[name], [thetas])[0]
    snr = -np.log(np.expm1(thetas)) / 2
    for k in range(2, len(thetas) - 1):
        h = snr[k + 1] - snr[k]
        double = (1 + noise) * h
        phi = (np.expm1(-double) + double) / double**2 - 0.5
        alpha = np.exp(-thetas[k + 1] / 2)
        at = snr[[k, k - 1, k - 2]]
        divided = 1 / np.prod(at[:, None] - at + np.eye(3), axis=1)
        lacking = (own.G - word.G)[k, [k, k - 1, k - 2]]
        np.testing.assert_allclose(lacking, alpha * phi * h**2 * divided, rtol=1e-7)
        assert np.abs(lacking).max() > 1e-3 * np.abs(own.G[k]).max()


def test_the_word_of_another_clock_differs_in_its_weights():
    in_theta = Scheme("S F", VP_FLOW, flow="exact", frozen=DATA_HELD, memory=2)
    (found,) = identify(made("k-diffusion:sample_dpmpp_2m", {}, "karras"), [in_theta])
    assert not found.is_same
    assert any("the weight of the answer 1 before it" in line for line in found.differs)


def test_a_sampler_that_asks_twice_at_one_time_is_refused():
    with pytest.raises(ValueError, match="asks twice at one time"):
        identify(made("diffusers:PNDMScheduler", {}, "default"))

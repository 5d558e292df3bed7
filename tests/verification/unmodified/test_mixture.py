"""Samplers with a grid of their own where the network is not affine: orders, chains and laws, and broken variants."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from own_grids import broken, second_order
from selection import nightly_but
from weakorder.examples import own_grid
from weakorder.integrators.unmodified import diffusers_sampler, function_sampler, k_diffusion_sampler
from weakorder.integrators.unmodified.k_diffusion import samplers
from weakorder.theory.paths import PATHS, Level
from weakorder.verification.exact import Cloud, carry, observables_of, resolutions_on
from weakorder.verification.unmodified import Data, laws_of, study_on_mixture, study_unmodified, transcribe
from weakorder.verification.unmodified.chain import chain_of
from weakorder.verification.unmodified.mixture import (
    MixtureGrid,
    answered,
    law_at,
    law_of,
    mixture_errors,
    moved_through,
    predicted,
)

STEPS = (20, 40, 80, 160)
OBSERVABLES = observables_of(1)


# --- Orders -----------------------------------------------------------------------------------------------------------


def test_gaussian_data_flatter_the_midpoint_rule_of_edm_and_the_mixture_says_2():
    """Claim: order 3 on Gaussian data, which is not its order, and 2 on the mixture; the study says so."""
    sampler = second_order(0.5)
    gaussian = study_unmodified({"default": sampler}, 2, STEPS).grids[0].fits["w2"]
    assert gaussian.order == pytest.approx(3, abs=0.15)
    found = study_on_mixture({"default": sampler}, 2, STEPS)
    assert found.verdict == "PASS", found.reason
    assert found.grids[0].fit.order == pytest.approx(2, abs=0.15)
    assert any("they show order 3.0" in warning for warning in found.warnings)
    assert study_like(found, 3).verdict == "FAIL"


@pytest.mark.parametrize(
    ("slopes", "gaussian", "flattered"),
    [
        ((2, 2, 2), 3, True),
        ((2, 2, 2), 2.4, False),  # less than half an order
        ((3, 3, 3), 3, False),
        ((1.2, 2.4, 1.6), 3, False),  # slopes that still move say nothing
    ],
)
def test_gaussian_data_flatter_where_both_orders_are_settled_and_theirs_is_higher(slopes, gaussian, flattered):
    steps = np.array([20.0, 40.0, 80.0, 160.0])
    sizes = 0.1 * 2.0 ** -np.concatenate([[0.0], np.cumsum(slopes)])
    grid = MixtureGrid("karras", 2, steps, (), sizes, np.zeros(4), steps**-gaussian)
    assert grid.is_flattered is flattered
    assert any("flatter" in finding.text for finding in grid.findings()) is flattered


KNOWN = {
    "DDIM": (lambda: function_sampler("DDIM", own_grid.ddim, PATHS["vp"], "eps"), 1, (10, 20, 40, 80)),
    "Heun": (lambda: second_order(1.0), 2, STEPS),
    "2M": (lambda: k_diffusion_sampler("sample_dpmpp_2m", {}, "karras"), 2, STEPS),
    "ancestral": (lambda: function_sampler("", own_grid.ancestral, PATHS["vp"], "eps"), 1, (10, 20, 40, 80)),
    "Euler ancestral": (lambda: k_diffusion_sampler("sample_euler_ancestral", {}, "karras"), 1, (10, 20, 40, 80)),
    "2S ancestral": (lambda: k_diffusion_sampler("sample_dpmpp_2s_ancestral", {}, "karras"), 2, (10, 20, 40, 80)),
    "SDE, tree": (lambda: k_diffusion_sampler("sample_dpmpp_sde", {}, "karras"), 2, (5, 10, 20, 40)),
    "2M SDE": (lambda: k_diffusion_sampler("sample_dpmpp_2m_sde", {}, "karras"), 2, (40, 80, 160, 320)),
    "DPM-Solver++ 2M": (lambda: diffusers_sampler("DPMSolverMultistepScheduler", {}, "karras"), 2, STEPS),
    "UniPC": (lambda: diffusers_sampler("UniPCMultistepScheduler", {}, "karras"), 2, STEPS),
    "flow Heun": (lambda: diffusers_sampler("FlowMatchHeunDiscreteScheduler"), 2, STEPS),
}


@pytest.mark.parametrize("name", nightly_but(lambda name: name in ("DDIM", "ancestral"), KNOWN))
def test_a_sampler_has_its_order_where_the_network_is_not_affine(name):
    """Claim: and none has one more, but for those that have two where one is claimed for them; on a flow's grid, whose
    last step in log sigma is long at any N, a lower order is said, with the grid, and is no refutation."""
    make, order, steps = KNOWN[name]
    found = study_on_mixture({"karras": make()}, order, steps)
    assert found.verdict == "PASS", found.reason
    assert all(run.problem == "" for run in found.grids[0].runs)
    more = study_like(found, order + 2)
    if name == "flow Heun":
        assert more.verdict == "INCONCLUSIVE"
        assert "expected 4, and its steps in log sigma do not shrink as 1/N" in more.reason
    else:
        assert more.verdict == "FAIL"


def study_like(study, order):
    """The same numbers, held to another order."""
    return replace(study, expected=order, grids=tuple(replace(grid, expected=order) for grid in study.grids))


def two_m(patch):
    """DPM-Solver++(2M) of k-diffusion with its text changed."""
    module, path = samplers(), PATHS["edm"]
    text = inspect.getsource(module.sample_dpmpp_2m)
    assert patch[0] in text
    made = {}
    exec(text.replace(*patch), vars(module).copy(), made)

    def sample(model, x, steps):
        sigmas = module.get_sigmas_karras(steps, 0.03, 14.0).double()
        return made["sample_dpmpp_2m"](model, x, sigmas, disable=True)

    return function_sampler("2M", sample, path, "denoiser", "sigma")


def faulty(name, path, predicts, time, patch):
    """A sampler of the examples with its text changed."""
    return function_sampler(name, getattr(broken(patch), name), PATHS[path], predicts, time)


LOST = ("(1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * old_denoised", "denoised")
BROKEN = {
    "a weight of the second slope": (lambda: second_order(0.5, 0.8), 2, "the order is"),
    "no second slope": (lambda: second_order(1.0, 0.0), 2, "the order is"),
    "no old answer in 2M": (lambda: two_m(LOST), 2, "the order is"),
    "DDIM with the step's first noise": (
        lambda: faulty(
            "ddim", "vp", "eps", "t", ("math.sqrt(1 - alpha_later**2) * eps", "math.sqrt(1 - alpha**2) * eps")
        ),
        1,
        "does not converge",
    ),
    "ancestral with the forward variance": (
        lambda: faulty("ancestral", "vp", "eps", "t", ("1 - b - spread", "1 - b")),
        1,
        "does not converge",
    ),
    "a result that is nan": (
        lambda: faulty("heun", "edm", "denoiser", "sigma", ("if later > 0:", "if True:")),
        2,
        "nite",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_is_told_on_the_mixture_too(name):
    make, order, said = BROKEN[name]
    found = study_on_mixture({"default": make()}, order, (10, 20, 40, 80))
    assert found.verdict == "FAIL", found.reason
    assert said in found.reason


# --- The network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [Level(1.0, 80.0), Level(1.0, 0.02), Level(0.3, 0.7, 2.0), Level(0.0, 1.0)])
def test_the_prediction_of_the_data_is_the_posterior_mean(at):
    """Claim: that of each mode, weighted by its probability given the state."""
    z = np.linspace(-3, 3, 61) * math.hypot(at.alpha, at.sigma)
    weights, means, variances = np.array([0.4, 0.6]), np.array([-1.0, 1.0]), np.array([0.2, 0.05])
    total = at.alpha**2 * variances + at.sigma**2
    off = z[:, None] - at.alpha * means
    posterior = means + at.alpha * variances * off / total
    logs = np.log(weights) - off**2 / (2 * total) - np.log(total) / 2
    shares = np.exp(logs - logs.max(1, keepdims=True))
    expected = (shares * posterior).sum(1) / shares.sum(1)
    np.testing.assert_allclose(predicted(at, z), expected, rtol=0, atol=1e-11)


# --- Chains -----------------------------------------------------------------------------------------------------------

CHAINS = {
    "ancestral": (lambda: function_sampler("", own_grid.ancestral, PATHS["vp"], "eps"), 8, 1),
    "a middle with noise": (lambda: k_diffusion_sampler("sample_dpmpp_sde", {}, "karras"), 4, 1),
    "a middle without": (lambda: k_diffusion_sampler("sample_dpm_2_ancestral", {}, "karras"), 5, 1),
    "noise before the network is asked": (lambda: k_diffusion_sampler("sample_heun", {"s_churn": 9.0}, "karras"), 5, 1),
    "a memory": (lambda: k_diffusion_sampler("sample_dpmpp_2m_sde", {}, "karras"), 8, 2),
}


def carried_on_gaussian(sampler, run, mean, variance):
    """Mean and variance of the last state on data N(mean, variance), by the chain on a lattice."""

    def answer(k, y):
        at = run.levels[k]
        of_state, of_data = sampler.prediction(at)
        z = y / at.scale
        pull = at.alpha * variance / (at.alpha**2 * variance + at.sigma**2)
        return of_state * z + of_data * (mean + pull * (z - at.alpha * mean))

    chain, at = chain_of(sampler, run), run.begin
    start = Cloud(
        np.full((1, 1), at.scale * at.alpha * mean),
        np.ones(1),
        np.full((1, 1), at.scale**2 * (at.alpha**2 * variance + at.sigma**2)),
    )
    resolution = resolutions_on(chain.dimensions)[1]
    (y, *_), w, _ = carry(chain.begin([start]), chain.moves(answer, resolution), resolution)
    return chain.dimensions, w @ y, w @ y**2 - (w @ y) ** 2


@pytest.mark.parametrize("name", CHAINS)
def test_on_gaussian_data_a_chain_has_the_law_of_its_transcript(name):
    """Claim: to 1e-9, on lattices of the fewest dimensions; a hundredth more noise is seen."""
    make, steps, dimensions = CHAINS[name]
    sampler = make()
    run = transcribe(sampler, steps)
    expected = laws_of(sampler, run, Data(np.array([0.3]), np.array([0.5]))).last
    found = carried_on_gaussian(sampler, run, 0.3, 0.5)
    assert found == (
        dimensions,
        pytest.approx(expected.mean[0], rel=1e-9),
        pytest.approx(expected.variance[0], rel=1e-9),
    )
    louder = carried_on_gaussian(sampler, replace(run, noise=1.01 * run.noise), 0.3, 0.5)
    assert louder[2] != pytest.approx(found[2], rel=1e-6)


def test_without_noise_a_chain_moves_points_as_the_sampler_does():
    """Claim: to rounding, over both states of a step; the network is not affine."""
    sampler = second_order(0.5)
    run = transcribe(sampler, 12)
    resolution, chain = resolutions_on(1)[0], chain_of(sampler, run)
    start = carry(law_at(run.begin), (), resolution)
    moves = chain.moves(lambda k, y: answered(sampler, run.levels[k], y), resolution)
    states = start.points
    for move in moves:
        states = move.points(states)[0]
    np.testing.assert_allclose(states[0], moved_through(sampler, run, start.points[0]), rtol=0, atol=1e-11)


def test_a_few_steps_with_noise_agree_with_nested_quadrature_of_the_sampler_itself(monkeypatch):
    """Claim: quadrature in the start's modes and in every draw, put into the running code, says the same to 1e-7; with
    a hundredth more noise it does not."""
    sampler = function_sampler("", own_grid.ancestral, PATHS["vp"], "eps")
    run = transcribe(sampler, 2)
    nodes, coarse = np.linspace(-7, 7, 121), np.linspace(-7, 7, 41)  # trapezoid rules, of what is analytic
    mass, few = (np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum() for z in (nodes, coarse))
    points, weights = [], []
    for cloud in law_at(run.begin):
        points.append(cloud.points[0, 0] + math.sqrt(cloud.noise_cov[0, 0]) * nodes)
        weights.append(cloud.weights[0] * mass)
    x, *draws = np.meshgrid(np.concatenate(points), nodes, coarse, indexing="ij")
    w = np.multiply.outer(np.multiply.outer(np.concatenate(weights), mass), few).ravel()

    def averages(scale):
        left = [torch.from_numpy(scale * draw.ravel()).reshape(-1, 1, 1, 1) for draw in draws]
        monkeypatch.setattr(torch, "randn_like", lambda _: left.pop(0))
        last = moved_through(sampler, run, x.ravel())
        monkeypatch.undo()
        at = run.levels[-1]
        return np.array([w @ f.function(last / math.hypot(at.alpha, at.sigma)) for f in OBSERVABLES])

    smooth = slice(0, -1)  # the mode's weight is steep, and these rules have too few nodes for it
    found = mixture_errors(sampler, run, OBSERVABLES).computed
    np.testing.assert_allclose(averages(1.0)[smooth], found[smooth], rtol=0, atol=1e-7)
    assert np.abs(averages(1.01) - found)[smooth].max() > 1e-4


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: k_diffusion_sampler("sample_dpmpp_3m_sde", {}, "karras"), "told by its last 3")],
)
def test_a_longer_memory_with_noise_is_refused_by_name(make, said):
    with pytest.raises(ValueError, match=said):
        study_on_mixture({"karras": make()}, steps=(5, 10, 20, 40))


def test_without_its_noise_a_longer_memory_is_taken_as_the_refusal_says():
    """Claim: on a line, its nodes moved by the sampler itself."""
    sampler = k_diffusion_sampler("sample_dpmpp_3m_sde", {"eta": 0.0}, "karras")
    dimensions, law = law_of(sampler, transcribe(sampler, 5))
    assert dimensions == 1
    assert np.isfinite(law(resolutions_on(1)[0]).points).all()
    noisy = k_diffusion_sampler("sample_dpmpp_3m_sde", {}, "karras")
    with pytest.raises(ValueError, match="--set eta=0"):
        law_of(noisy, transcribe(noisy, 5))

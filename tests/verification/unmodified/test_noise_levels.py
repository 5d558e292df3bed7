"""Verdicts say only what was tried: grids that are not smooth, means that are off, memories on equal steps, advice."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from own_grids import broken
from weakorder.examples import own_grid
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.unmodified import diffusers_sampler, function_sampler
from weakorder.theory.paths import PATHS, table_of
from weakorder.verification.unmodified import identify, samplers_of, study_on_mixture, study_unmodified, transcribe
from weakorder.verification.unmodified.grids import falls_short
from weakorder.verification.unmodified.noise_levels import Grid, has_equal_steps, looks_back, told
from weakorder.verification.unmodified.study import GridStudy, UnmodifiedStudy
from weakorder.verification.verdicts import Fit

STEPS = (20, 40, 80, 160)
alpha_of = own_grid.alpha_of


def sigma_of(t):
    return math.sqrt(1 - alpha_of(t) ** 2)


def ddim_on(times, asked=lambda t, _: t, noise=1.0):
    """DDIM over times(N), which asks at `asked` of each and of N; noise: a factor of the noise that is added."""

    def sample(model, x, steps):
        grid = [asked(t, steps) for t in times(steps)]
        for t, real in zip(grid[:-1], times(steps)[1:], strict=True):
            eps = model(x, t)
            x = alpha_of(real) * (x - sigma_of(t) * eps) / alpha_of(t) + noise * sigma_of(real) * eps
        return (x - sigma_of(grid[-1]) * model(x, grid[-1])) / alpha_of(grid[-1])

    return function_sampler("ddim", sample, PATHS["vp"], "eps")


def uneven(steps, power=0.7):
    """Further apart near t = 0 than uniform in t, down to a level that moves with N."""
    return [(1 - i / steps) ** power for i in range(steps)]


def study(sampler, order=None, steps=STEPS):
    return study_unmodified({"default": sampler}, order, steps)


# --- Grids that are uniform in t --------------------------------------------------------------------------------------


def test_on_a_grid_uniform_in_t_the_order_is_that_down_to_where_it_is_smooth():
    """Claim: order 1 there, where all of the grid shows less; the verdict names the level and the grid, and one order
    more is refuted."""
    found = study(ddim_on(uneven))
    (grid,) = found.grids
    assert not grid.layout.is_smooth
    assert grid.fits["w2"].order < 0.6
    assert found.verdict == "PASS", found.reason
    assert "measured order 1.00" in found.reason
    assert f"down to sigma = {grid.layout.reach.sigma:.3g}" in found.reason
    assert "uniform in t" in found.reason
    more = study(ddim_on(uneven), 2)
    assert more.verdict == "FAIL"
    assert "down to sigma" in more.reason


def test_a_fault_on_a_grid_uniform_in_t_fails_all_the_same():
    found = study(ddim_on(uneven, noise=1.02))
    assert found.verdict == "FAIL"
    assert "does not converge" in found.reason


def test_an_error_that_stagnates_at_a_level_that_moves_is_no_refutation():
    """Claim: DDIM is right on any grid, and down to a fixed level its error falls; with a fault it fails there, too."""
    times = functools.partial(uneven, power=0.5)
    found = study(ddim_on(times))
    assert found.verdict == "INCONCLUSIVE"
    assert "its last sigma moves with N, and down to a fixed one the error falls" in found.reason
    assert study(ddim_on(times, noise=1.02)).verdict == "FAIL"


def test_a_grid_that_is_smooth_in_log_sigma_is_judged_whole():
    found = study(ddim_on(own_grid.times))
    assert found.grids[0].layout.is_smooth
    assert "down to" not in found.reason


def test_a_last_sigma_that_moves_with_n_is_said():
    said = [remark for remark in study(ddim_on(uneven)).remarks if "moves with N" in remark]
    first, last = (sigma_of(t) / alpha_of(t) for t in (uneven(20)[-1], uneven(160)[-1]))
    assert said[0].endswith(f"{first:.3g} at 20 and {last:.3g} at 160 steps")
    assert not any("moves with N" in remark for remark in study(ddim_on(own_grid.times)).remarks)


@pytest.mark.parametrize(
    ("low", "high", "short"),
    [
        (0.69, 1.23, True),  # all of it below 1.5
        (0.9, 1.1, True),  # settled
        (0.69, 1.6, False),  # slopes that still move may go on to 1.75
        (-3.0, 1.4, False),  # nothing is known
        (1.8, 2.2, False),
    ],
)
def test_an_order_falls_short_where_its_whole_interval_lies_below_the_claim(low, high, short):
    assert falls_short(Fit((low + high) / 2, low, high, (20, 160)), 2) is short


# --- Means that are off -----------------------------------------------------------------------------------------------


def late(t, steps):
    """Later by a part of a step, and less of it the more there are."""
    return t if t == 1 else t * (1 + 2 / steps**2)


def test_a_network_that_is_seen_to_be_told_another_level_has_no_pass():
    """Claim: at times that are off by a part of a step, at every N, which costs no order; at its own times, a PASS."""
    found = study(ddim_on(own_grid.times, asked=late))
    assert found.grids[0].fit.reaches(1)
    assert found.verdict == "INCONCLUSIVE"
    assert "told another noise level than its input has (sigma / alpha" in found.reason
    assert study(ddim_on(own_grid.times)).verdict == "PASS"


def test_what_is_told_is_off_by_what_it_was_put_off():
    sampler = ddim_on(own_grid.times, asked=late)
    levels = told(sampler, transcribe(sampler, 20))
    t = own_grid.times(20)[1]
    ratios = [sigma_of(at) / alpha_of(at) for at in (late(t, 20), t)]
    assert (levels.evaluation, levels.off) == (2, pytest.approx(ratios[0] / ratios[1] - 1, rel=1e-6))
    assert told(ddim_on(own_grid.times), transcribe(ddim_on(own_grid.times), 20)) is None


def euler_maruyama(model, x, steps):
    grid = [1 - 0.98 * i / steps for i in range(steps + 1)]
    for t, later in itertools.pairwise(grid):
        beta, h = 0.1 + 19.9 * t, t - later
        x = x + h * beta * (x / 2 + model(x, t)) + math.sqrt(beta * h) * torch.randn_like(x)
    return x + 0 * model(x, grid[-1])


def test_a_right_solver_whose_mean_is_off_passes_and_no_cause_is_stated_as_a_fact():
    found = study(function_sampler("em", euler_maruyama, PATHS["vp"], "score"), steps=(*STEPS, 320))
    assert found.verdict == "PASS", found.reason
    (said,) = [warning for warning in found.warnings if "the mean is off" in warning]
    assert "most often" in said


ALPHA_BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


def ddim_of_rows(model, x, steps):
    """DDIM over whole rows of DDPM's table, as scripts have it."""
    rows = torch.linspace(999, 39, steps + 1).round().long()
    for t, later in itertools.pairwise(rows):
        eps = model(x, t)
        data = (x - (1 - ALPHA_BAR[t]).sqrt() * eps) / ALPHA_BAR[t].sqrt()
        x = ALPHA_BAR[later].sqrt() * data + (1 - ALPHA_BAR[later]).sqrt() * eps
    return (x - (1 - ALPHA_BAR[later]).sqrt() * model(x, later)) / ALPHA_BAR[later].sqrt()


@pytest.mark.parametrize("of", [study_unmodified, study_on_mixture])
def test_a_table_declared_as_vp_is_told_how_to_be_declared_on_both_targets(of):
    """Claim: half a row is no fault of the sampler's, and no PASS; with its own table it passes."""
    steps = (10, 20, 40, 80)
    as_vp = function_sampler("ddim", ddim_of_rows, PATHS["vp"], "eps", "index")
    found = of({"default": as_vp}, 1, steps)
    assert found.verdict == "INCONCLUSIVE", found.reason
    assert "give --diffusion FILE.py:OBJ with table_of(alpha_bar)" in found.reason
    own = function_sampler("ddim", ddim_of_rows, table_of(ALPHA_BAR), "eps")
    assert of({"default": own}, 1, steps).verdict == "PASS"


def test_what_gaussian_data_refute_the_mixture_does_not_pass():
    """Claim: a fault that mixtures show, too, is told with what is exact."""
    sampler = function_sampler("", broken(("1 - b - spread", "1 - b")).ancestral, PATHS["vp"], "eps")
    found = study_on_mixture({"default": sampler}, 1, (5, 10, 20, 40))
    assert found.verdict == "FAIL"
    assert any(text.startswith("on Gaussian data does not converge") for text in found.evidence.of(4))


def test_a_start_that_is_ignored_is_refused_by_name():
    def sample(model, x, steps):
        return own_grid.ddim(model, torch.randn_like(x), steps)

    with pytest.raises(BlackBoxError, match="does not depend on the start x that it is given"):
        study(function_sampler("mine", sample, PATHS["vp"], "eps"))


# --- A memory on equal steps ------------------------------------------------------------------------------------------


def two_m(grid, upside_down=False):
    """DPM-Solver++(2M) on a grid of sigma; upside_down: the old fault, the ratio of its steps the other way round."""

    def sample(model, x, steps):
        sigmas, old = grid(steps), None
        for k, (sigma, later) in enumerate(itertools.pairwise(sigmas)):
            data, h = model(x, sigma), math.log(sigma / later)
            mixed = data
            if old is not None:
                r = math.log(sigmas[k - 1] / sigma) / h
                r = 1 / r if upside_down else r
                mixed = (1 + 1 / (2 * r)) * data - old / (2 * r)
            x, old = later / sigma * x - math.expm1(-h) * mixed, data
        return model(x, sigmas[-1])

    return function_sampler("2M", sample, PATHS["edm"], "denoiser", "sigma")


def exponential(steps):
    return [14.6 * (0.03 / 14.6) ** (i / steps) for i in range(steps + 1)]


def karras(steps, low=0.03 ** (1 / 7), high=14.6 ** (1 / 7)):
    return [(high + i / steps * (low - high)) ** 7 for i in range(steps + 1)]


@pytest.mark.parametrize("upside_down", [False, True])
def test_a_memory_on_equal_steps_alone_has_no_pass(upside_down):
    """Claim: right and wrong are the same there, of order 2 and that word; on Karras' grid both have order 2, as the
    ratio tends to 1, and their weights tell them apart."""
    found = study(two_m(exponential, upside_down), 2)
    assert found.grids[0].fit.order == pytest.approx(2, abs=0.1)
    assert found.verdict == "INCONCLUSIVE"
    assert "it looks back, and all its steps in log sigma are equal" in found.reason
    assert "the slopes still move" not in found.reason
    assert study(two_m(karras, upside_down), 2).verdict == "PASS"
    two = [POSITION["vp-DPM-Solver++2M"]]
    assert identify(two_m(exponential, upside_down), two)[0].is_same
    assert identify(two_m(karras, upside_down), two)[0].is_same is not upside_down


def test_a_memory_on_equal_steps_and_on_others_has_a_pass():
    """Claim: where one of the grids that decide has unequal steps, nothing is left untried; k-diffusion's page has an
    exponential grid beside Karras'."""
    grids = {"karras": two_m(karras), "exponential": two_m(exponential)}
    found = study_unmodified(grids, 2)
    assert [grid.layout.hides for grid in found.grids] == [False, True]
    assert found.verdict == "PASS"
    own = {"default": two_m(karras), "exponential": two_m(exponential)}
    assert study_unmodified(own, 2).verdict == "PASS"
    own["default"] = two_m(lambda steps: [14.6 + i / steps * (0.03 - 14.6) for i in range(steps + 1)])
    rough = study_unmodified(own, 2)
    assert "all its steps in log sigma are equal on the exponential grid, the only one" in rough.reason


def test_a_sampler_without_a_memory_passes_on_equal_steps():
    def euler(model, x, steps):
        for sigma, later in itertools.pairwise(exponential(steps)):
            x = x + (later - sigma) * (x - model(x, sigma)) / sigma
        return model(x, later)

    sampler = function_sampler("euler", euler, PATHS["edm"], "denoiser", "sigma")
    run = transcribe(sampler, 20)
    assert (has_equal_steps(run), looks_back(run)) == (True, False)
    assert study(sampler).verdict == "PASS"
    assert looks_back(transcribe(two_m(exponential), 20))


# --- Advice -----------------------------------------------------------------------------------------------------------


def advised(errors, mean=0.0, **layout):
    """What is advised of w2 errors at doubling numbers of steps, held to order 3."""
    errors = np.asarray(errors)
    steps, nothing = 20.0 * 2.0 ** np.arange(len(errors)), np.full(len(errors), np.nan)
    columns = {"w2": errors, "variance": errors, "mean": np.full(len(errors), mean), "gain": 0 * errors}
    grid = GridStudy("", "karras", 3, steps, steps, steps, columns, nothing, nothing, nothing, steps, **layout)
    return UnmodifiedStudy("", 3, "eps", (grid,)).evidence.advice


def test_more_steps_are_advised_where_slopes_still_move_and_nowhere_else():
    moving = 0.1 * 2.0 ** -np.array([0, 1.5, 3.7, 6.6])
    assert advised(moving) == "the slopes still move: run up to about 320 steps"
    hidden = "more steps do not help, whose error rounding hides from 160 on: run up to 80"
    assert advised(0.01 * 8.0 ** -np.arange(4), mean=2e-6) == hidden
    assert advised(0.1 * 2.0 ** -np.array([0, 4, 5.1, 9.8, 9.9])).startswith("its error goes up and down with N")
    table = Grid(rows=(1000, 1000))
    assert "table_of(refined(alpha_bar, 64000))" in advised(moving, layout=table)
    assert advised(moving, layout=Grid(rows=(640_000, 1000))) == advised(moving)
    assert advised(0.1 * 8.0 ** -np.arange(4)) == ""


# --- Samplers that people use -----------------------------------------------------------------------------------------


def library(name, steps=STEPS, **settings):
    return study_unmodified(samplers_of("diffusers", name, settings), None, steps)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DDIMScheduler", {"timestep_spacing": "trailing"}),
        ("DDIMScheduler", {"eta": 1.0}),
        ("DDPMScheduler", {}),
        ("EulerAncestralDiscreteScheduler", {}),
    ],
)
def test_right_samplers_whose_only_grid_is_uniform_in_t_pass(name, settings):
    found = library(name, **settings)
    assert found.verdict == "PASS", found.reason
    assert "measured order 1.00" in found.reason
    assert "down to sigma" in found.reason
    assert "judged on the same schedule with 640,000 rows; as shipped 1,000" in found.remarks


@pytest.mark.nightly
def test_ddim_with_linspace_has_no_pass_for_what_it_tells_the_network():
    found = library("DDIMScheduler", timestep_spacing="linspace")
    assert found.verdict == "INCONCLUSIVE"
    assert "told another noise level than its input has (sigma / alpha is off by 1.5e-02" in found.reason


@pytest.mark.nightly
def test_single_step_sde_of_order_2_is_refuted_at_the_pages_levels():
    sde = {"algorithm_type": "sde-dpmsolver++"}
    found = library("DPMSolverSinglestepScheduler", **sde)
    assert found.verdict == "FAIL"
    assert "on the karras grid" in found.reason


@pytest.mark.nightly
def test_no_more_steps_are_advised_where_rounding_hides_their_error():
    karras = {"karras": diffusers_sampler("UniPCMultistepScheduler", {"solver_order": 3}, "karras")}
    found = study_unmodified(karras, 3, (20, 40, 80, 160, 320))
    assert found.verdict == "INCONCLUSIVE"
    assert found.evidence.advice == "more steps do not help, whose error rounding hides from 320 on: run up to 160"

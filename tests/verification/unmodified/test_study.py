"""The verdict on samplers with a grid of their own: right ones pass, and each broken variant is told."""

import pytest
from own_grids import broken
from weakorder.examples import own_grid
from weakorder.integrators.unmodified import diffusers_sampler, function_sampler
from weakorder.theory.paths import PATHS
from weakorder.verification.unmodified import samplers_of, study_unmodified
from weakorder.verification.unmodified.study import TARGETS, shipped_error

STEPS = (10, 20, 40, 80, 160)
KINDS = {
    "ddim": ("vp", "eps", "t", 1),
    "ancestral": ("vp", "eps", "t", 1),
    "euler": ("flow", "flow", "t", 1),
    "heun": ("edm", "denoiser", "sigma", 2),
}


def study(name, module=own_grid, order=None, steps=STEPS):
    path, predicts, time, expected = KINDS[name]
    sampler = function_sampler(name, getattr(module, name), PATHS[path], predicts, time)
    return study_unmodified({"default": sampler}, order or expected, steps)


@pytest.mark.parametrize("name", KINDS)
def test_a_right_sampler_passes_at_its_order(name):
    found = study(name)
    assert (found.verdict, found.reason) == ("PASS", found.reason)
    assert found.grids[0].fits["w2"].order == pytest.approx(KINDS[name][3], abs=0.1)
    assert found.grids[0].errors["mean"].max() < 1e-12


@pytest.mark.parametrize("name", KINDS)
def test_no_sampler_passes_at_one_order_more(name):
    found = study(name, order=KINDS[name][3] + 1)
    assert found.verdict == "FAIL"
    assert "expected" in found.reason


@pytest.mark.parametrize(
    ("name", "patch", "said"),
    [
        ("ancestral", ("math.sqrt(spread) * torch", "1.1 * math.sqrt(spread) * torch"), "does not converge"),
        ("ancestral", ("1 - b - spread", "1 - b"), "does not converge"),
        ("ddim", ("+ math.sqrt(1 - alpha_later**2) * eps", "+ math.sqrt(1 - alpha**2) * eps"), "does not converge"),
        ("euler", ("(later - t) * model", "1.01 * (later - t) * model"), "does not converge"),
        ("heun", ("later) / 2", "later) / 1.98"), "does not converge"),
        ("heun", ("(moved - model(moved, later)) / later", "(moved - model(moved, later)) / sigma"), ""),
        ("heun", ("model(moved, later)", "model(x, later)"), "the order is"),
        ("heun", ("model(moved, later)", "model(moved, sigma)"), ""),
    ],
)
def test_a_fault_is_told(name, patch, said):
    found = study(name, broken(patch))
    assert found.verdict == "FAIL"
    assert said in found.reason


def test_a_network_that_is_told_another_time_is_seen_in_the_mean():
    found = study("ddim", broken(("eps = model(x, t)", "eps = model(x, later)")))
    assert any("another noise level than its input has" in warning for warning in found.warnings)
    assert not any("another noise level" in warning for warning in study("ddim").warnings)


def test_a_result_that_is_not_finite_fails():
    found = study("heun", broken(("if later > 0:", "if True:")))
    assert found.verdict == "FAIL"
    assert "is not finite" in found.reason


def test_the_end_is_compared_with_what_a_denoiser_leaves():
    end = study("ddim").grids[0]
    assert end.denoised[-1] < end.final[-1]
    assert end.denoised[-1] == pytest.approx(end.errors["variance"][-1], rel=0.3)


def test_a_run_that_the_shipped_table_does_not_allow_says_nothing_of_rounding():
    """LCM takes at most the 50 steps that it was distilled with, and its exact run as many as its table has rows."""
    sampler = diffusers_sampler("LCMScheduler")
    with pytest.raises(ValueError, match="takes no 160 steps"):
        sampler.prepare(160, False)
    assert shipped_error(sampler, 160, TARGETS) == 0.0
    assert shipped_error(sampler, 40, TARGETS) > 0.0


def test_another_amount_of_noise_than_the_reverse_sdes_is_said_once_for_all_grids():
    churned = study_unmodified(
        samplers_of("diffusers", "EulerDiscreteScheduler", {"s_churn": 20.0}), 1, (10, 20, 40, 80)
    )
    said = [text for text in churned.warnings if "amount of noise" in text]
    assert len(said) == 1
    assert "than the reverse SDE's on its default grid and the karras grid: the start" in said[0]
    ancestral = study_unmodified(samplers_of("diffusers", "EulerAncestralDiscreteScheduler", {}), 1, (10, 20, 40, 80))
    assert not [text for text in ancestral.warnings if "amount of noise" in text]

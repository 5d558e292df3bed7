"""Samplers of diffusers and k-diffusion as they are: what is asked of them, and what of them is not as shipped."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from weakorder.integrators.unmodified import (
    NOT_MODELLED,
    SAMPLERS,
    SCHEDULERS,
    diffusers,
    diffusers_sampler,
    k_diffusion,
    k_diffusion_sampler,
)
from weakorder.integrators.unmodified.lifting import float64_throughout
from weakorder.theory.paths import Level


def prepared(name, steps=10, exact=True, grid="default", **settings):
    return diffusers_sampler(name, settings, grid).prepare(steps, exact)


# --- Levels and starts ------------------------------------------------------------------------------------------------


def test_a_shipped_table_is_the_librarys_and_an_exact_one_the_same_curve_with_more_rows():
    shipped, exact = prepared("DDIMScheduler", exact=False), prepared("DDIMScheduler")
    assert len(np.unique([shipped.level(row).alpha for row in range(1000)])) == 1000
    for row in (0, 500, 999):
        fine = exact.level(row / 999 * (exact.rows - 1))
        # the library's product of up to 1000 factors is in float32, and 1 - alpha^2 is rounded with it
        rounded = 1000 * 2.0**-24
        assert fine.alpha == pytest.approx(shipped.level(row).alpha, rel=rounded)
        assert fine.sigma == pytest.approx(shipped.level(row).sigma, rel=rounded / fine.sigma**2)


def test_the_states_of_sigma_space_schedulers_are_those_of_the_table_over_alpha():
    for name, scale in (("DDIMScheduler", False), ("EulerDiscreteScheduler", True), ("HeunDiscreteScheduler", True)):
        start = prepared(name).start(0.0)
        assert start.scale == pytest.approx(1 / start.alpha if scale else 1.0, rel=1e-9)


def test_the_network_of_edm_is_given_its_own_scaling_and_answers_in_its_own_terms():
    sampler = diffusers_sampler("EDMEulerScheduler")
    level = sampler.prepare(10, True).level(0.25 * np.log(3.0))
    assert level == pytest.approx(Level(1.0, 3.0, 1 / (9 + 0.25) ** 0.5))
    of_state, of_data = sampler.prediction(level)
    # D = c_skip x + c_out F, put the other way round
    assert (of_state, of_data) == pytest.approx((-0.25 / 9.25 / (1.5 / 9.25**0.5), 1 / (1.5 / 9.25**0.5)))


def test_timesteps_of_a_flow_are_rows_times_sigma():
    ready = prepared("FlowMatchEulerDiscreteScheduler", exact=False)
    assert ready.level(250.0) == pytest.approx(Level(0.75, 0.25))


@pytest.mark.parametrize("grid", ["karras", "exponential"])
def test_a_grid_of_k_diffusion_goes_from_its_largest_sigma_to_none(grid):
    asked = []

    def network(x, sigma):
        asked.append(float(sigma[0]))
        return x / (1 + sigma[0] ** 2)

    ready = k_diffusion_sampler("sample_euler", {}, grid).prepare(6, True)
    ready.run(network, torch.ones(2, 1, 1, 1, dtype=torch.float64))
    assert (asked[0], asked[-1]) == pytest.approx((14.6146, 0.0292), rel=1e-12)
    assert len(asked) == 6


# --- float64 in the place of float32 ----------------------------------------------------------------------------------


def test_constants_and_tables_are_float64_while_a_run_is_exact_and_only_then():
    import diffusers.schedulers.scheduling_euler_discrete as library

    with float64_throughout("diffusers.schedulers"):
        assert torch.linspace(0, 1, 3, dtype=torch.float32).dtype == torch.float64
        assert torch.tensor([0.1]).dtype == torch.float64
        assert torch.ones(2).float().dtype == torch.float64
        assert library.np.array([0.1], dtype=library.np.float32).dtype == np.float64
    assert torch.tensor([0.1]).dtype == torch.float32
    assert torch.ones(2).double().float().dtype == torch.float32
    assert library.np is np


def test_a_shipped_run_differs_from_an_exact_one_by_float32():
    def result(exact):
        ready = prepared("EulerDiscreteScheduler", 5, exact)
        return ready.run(lambda x, t: 0.1 * x, torch.ones(2, 1, 1, 1, dtype=torch.float64)).double()

    exact, shipped = result(True), result(False)
    assert not torch.equal(exact, exact.float().double())
    assert 1e-9 < float((shipped / exact - 1).abs().max()) < 1e-5


def test_a_run_is_fresh_whenever_it_is_called():
    ready = prepared("DPMSolverMultistepScheduler", 5)
    x = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    first, second = (ready.run(lambda x, t: 0.3 * x, x) for _ in range(2))
    assert torch.equal(first, second)


# --- What they refuse -------------------------------------------------------------------------------------------------


def test_names_settings_and_grids_that_are_not_there_are_named_with_those_that_are():
    with pytest.raises(ValueError, match="diffusers:DDIM is none of the schedulers that are known; choose DDIMSched"):
        diffusers_sampler("DDIM")
    with pytest.raises(ValueError, match="DDIMScheduler has no setting 'stochastic'; it has num_train_timesteps"):
        diffusers_sampler("DDIMScheduler", {"stochastic": 1})
    with pytest.raises(ValueError, match="DDIMScheduler has no grid 'karras'; leave it at its default"):
        diffusers_sampler("DDIMScheduler", {}, "karras")
    with pytest.raises(ValueError, match="k-diffusion:euler is none of its samplers; choose sample_dpm_2"):
        k_diffusion_sampler("euler")
    with pytest.raises(ValueError, match="sample_euler has no setting 'eta'; it has extra_args"):
        k_diffusion_sampler("sample_euler", {"eta": 1})
    with pytest.raises(ValueError, match="k-diffusion has no grid 'quadratic'; choose karras"):
        k_diffusion_sampler("sample_euler", {}, "quadratic")


def test_a_table_is_refined_on_as_many_rows_as_are_asked_for_and_on_no_fewer_than_ship():
    assert [diffusers_sampler("DDIMScheduler", rows=rows).prepare(10, True).rows for rows in (1000, 5000)] == [
        1000,
        5000,
    ]
    with pytest.raises(ValueError, match="rows = 999 refines no table; give 1,000"):
        diffusers_sampler("DDIMScheduler", rows=999)


def test_more_steps_than_a_scheduler_takes_are_refused_with_the_option_that_gives_fewer():
    refused = r"LCMScheduler takes no 320 steps as it is set; give other --steps, or the settings.*\(--set\): .* 50 x "
    with pytest.raises(ValueError, match=refused):
        prepared("LCMScheduler", 320, exact=False)
    prepared("LCMScheduler", 320, exact=False, original_inference_steps=320)


def test_adaptive_steps_are_refused_as_having_no_number():
    with pytest.raises(ValueError, match="it has no N to refine"):
        k_diffusion_sampler("sample_dpm_adaptive")


def test_clipping_is_off_and_said_so():
    (note,) = diffusers_sampler("DDIMScheduler").notes
    assert note == "clip_sample is nonlinear and is off here; DDIMScheduler has it on"
    assert diffusers_sampler("DDIMScheduler", {"clip_sample": False}).notes == ()
    (*_, note) = diffusers_sampler("DDPMScheduler", {"thresholding": True, "clip_sample": False}).notes
    assert note == "thresholding is nonlinear and is off here; --set has it on"


def test_a_library_that_is_missing_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"diffusers is not installed .*; pip install '\.\[diffusers\]' in a copy"):
        diffusers_sampler("DDIMScheduler")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    k_diffusion.samplers.cache_clear()
    with pytest.raises(ValueError, match=r"k-diffusion is not installed; pip install '\.\[k-diffusion\]' in a copy"):
        k_diffusion_sampler("sample_euler")


def test_a_library_that_a_scheduler_needs_and_misses_is_one_line_with_the_command(monkeypatch):
    from diffusers.utils import dummy_torch_and_torchsde_objects as stand_ins

    monkeypatch.setattr(diffusers.schedulers(), "DPMSolverSDEScheduler", stand_ins.DPMSolverSDEScheduler)
    with pytest.raises(ValueError, match=r"SDEScheduler needs torch and torchsde, .*; pip install '\.\[diffusers\]'"):
        diffusers_sampler("DPMSolverSDEScheduler")
    monkeypatch.setitem(SCHEDULERS, "NewScheduler", SCHEDULERS["DDIMScheduler"])
    with pytest.raises(ValueError, match=r"this diffusers has no NewScheduler; install a newer one"):
        diffusers_sampler("NewScheduler")


def test_loading_k_diffusions_samplers_leaves_no_stand_in_behind():
    k_diffusion.samplers.cache_clear()
    before = {name: sys.modules.get(name) for name in ("k_diffusion", "torchvision")}
    assert callable(k_diffusion.samplers().sample_euler)
    assert {name: sys.modules.get(name) for name in before} == before


def test_every_scheduler_of_the_library_is_modelled_or_has_a_reason():
    module = diffusers.schedulers()
    names = {name for group in module._import_structure.values() for name in group}
    classes = {name for name in names if name.endswith("Scheduler")}
    assert classes == {*SCHEDULERS, *NOT_MODELLED}
    assert not SCHEDULERS.keys() & NOT_MODELLED.keys()
    assert "UniPCMultistepScheduler" in classes


@pytest.mark.parametrize("name", NOT_MODELLED)
def test_a_scheduler_that_is_not_modelled_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=f"diffusers:{name} is not modelled: ") as caught:
        diffusers_sampler(name)
    assert NOT_MODELLED[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prediction_of_stable_audio_is_told_the_angle_of_sigma():
    sampler = diffusers_sampler("CosineDPMSolverMultistepScheduler")
    ready = sampler.prepare(10, True)
    level = ready.level(2 / np.pi * np.arctan(3.0))
    assert level == pytest.approx(Level(1.0, 3.0, 1 / 10**0.5))
    of_state, of_data = sampler.prediction(level)  # with sigma_data 1, and the sign of v
    assert (of_state, of_data) == pytest.approx((1 / 10 / (3 / 10**0.5), -1 / (3 / 10**0.5)))


def test_every_name_is_there_in_the_library():
    from weakorder.integrators.unmodified.diffusers import schedulers

    assert all(hasattr(schedulers(), name) for name in SCHEDULERS)
    assert all(hasattr(k_diffusion.samplers(), name) for name in SAMPLERS)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_what_has_no_table_has_no_rows(name):
    assert [prepared(name, exact=exact).rows for exact in (True, False)] == [0, 0]
    assert prepared("DDIMScheduler", exact=False).rows == 1000
    assert prepared("DDIMScheduler").rows > 1000

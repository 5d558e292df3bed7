"""Which schedule a scheduler has as it is set: what a timestep means, and the same ends in a run of any kind."""

import math

import numpy as np
import pytest
import torch
from selection import nightly_but
from weakorder.integrators.unmodified import SCHEDULERS, diffusers_sampler, grid_of
from weakorder.theory.paths import Level
from weakorder.verification.unmodified import samplers_of, study_unmodified

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
VIDEO = {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
# Every class as it ships, and settings that choose another schedule or count in rows of the table.
ENDS = [
    *((name, {}) for name in SCHEDULERS),
    ("UniPCMultistepScheduler", FLOW),
    ("UniPCMultistepScheduler", FLOW | {"use_karras_sigmas": True}),
    ("UniPCMultistepScheduler", FLOW | {"use_dynamic_shifting": True, "mu": 1.15}),
    ("DPMSolverMultistepScheduler", FLOW | {"flow_shift": 3.0}),
    ("DPMSolverMultistepScheduler", FLOW | {"use_dynamic_shifting": True, "mu": 1.15}),
    ("DPMSolverSinglestepScheduler", FLOW | {"flow_shift": 3.0}),
    ("DEISMultistepScheduler", FLOW | {"flow_shift": 3.0}),
    ("SASolverScheduler", FLOW | {"flow_shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "mu": 1.15}),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    ("EulerDiscreteScheduler", VIDEO | {"sigma_min": 0.002, "sigma_max": 700.0}),
    ("EulerDiscreteScheduler", ZERO),
    ("DDIMScheduler", ZERO),
    ("DDIMScheduler", {"steps_offset": 1}),
    ("LCMScheduler", {"original_inference_steps": 50}),
]
OFTEN = {"DDIMScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"}


def ends(name, settings, exact, steps=20):
    """The first and last timesteps, and the prepared run."""
    ready = diffusers_sampler(name, settings).prepare(steps, exact)
    times = []

    def network(x, t):
        times.append(float(t))
        return 0 * x

    ready.run(network, torch.zeros(1, 1, 1, 1, dtype=torch.float64))
    return times[0], times[-1], ready


@pytest.mark.parametrize(("name", "settings"), nightly_but(lambda case: case[0] in OFTEN, ENDS))
def test_an_exact_run_begins_and_ends_where_the_shipped_one_does(name, settings):
    """Claim: to one timestep of the shipped table, or of the fewer that the consistency samplers choose from."""
    *shipped, ready = ends(name, settings, False)
    *exact, fine = ends(name, settings, True)
    width = 1000 // 50 if name in ("LCMScheduler", "TCDScheduler") and not settings else 1
    for own, other in zip(shipped, exact, strict=True):
        if not ready.is_by_row:  # told in a unit without a table: equal to float32
            assert other == pytest.approx(own, rel=1e-6, abs=1e-6)
            continue
        around = [ready.level(own + off) for off in (-width, width)]
        low, high = (math.atan2(at.sigma, at.alpha) for at in around)
        at = fine.level(other)
        # the shipped table is in float32, which rounds 1 - alpha^2
        assert low - 1e-5 <= math.atan2(at.sigma, at.alpha) <= high + 1e-5


def test_a_flow_refined_in_its_number_of_rows_would_end_elsewhere():
    """What the test above holds: with 640,000 rows sigma ends at 1/640,000."""
    ready = ends("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 640_000}, True)[2]
    assert ready.level(1.0).sigma == pytest.approx(1 / 640_000)


# --- What a timestep means --------------------------------------------------------------------------------------------


def test_flow_sigmas_are_a_flows_levels_and_its_timesteps_are_whole_in_an_exact_run():
    for exact, first in ((False, 999.0), (True, 999.999)):
        time, _, ready = ends("UniPCMultistepScheduler", FLOW, exact)
        assert time == pytest.approx(first, abs=1e-9)
        assert ready.level(250.0) == pytest.approx(Level(0.75, 0.25))


def test_a_continuous_timestep_is_a_quarter_of_log_sigma_of_a_state_that_preserves_variance():
    ready = ends("EulerDiscreteScheduler", VIDEO, True)[2]
    at = ready.level(0.25 * math.log(3.0))
    assert (at.sigma / at.alpha, math.hypot(at.alpha, at.sigma), at.scale) == pytest.approx((3.0, 1.0, 1.0))


def test_a_table_may_end_in_pure_noise():
    for exact in (False, True):
        first, last, ready = ends("DDIMScheduler", ZERO, exact)
        assert (ready.level(first).alpha, ready.level(first).sigma) == (0.0, 1.0)
        assert 0 < ready.level(last).sigma < ready.level(first).sigma
        levels = [ready.level(row) for row in np.linspace(0, first, 50)]
        assert [at.alpha for at in levels] == sorted((at.alpha for at in levels), reverse=True)


@pytest.mark.parametrize(
    ("name", "settings", "grid"),
    [
        ("EulerDiscreteScheduler", VIDEO, "karras"),
        pytest.param(
            "UniPCMultistepScheduler", FLOW | {"use_karras_sigmas": True}, "karras", marks=pytest.mark.nightly
        ),
        pytest.param("DDIMScheduler", ZERO, "default", marks=pytest.mark.nightly),
        pytest.param("UniPCMultistepScheduler", FLOW, "default", marks=pytest.mark.nightly),
        pytest.param("DPMSolverMultistepScheduler", FLOW | {"flow_shift": 3.0}, "default", marks=pytest.mark.nightly),
        pytest.param("EulerDiscreteScheduler", ZERO, "default", marks=pytest.mark.nightly),
    ],
)
def test_a_right_network_on_another_schedule_is_told_the_noise_that_its_input_has(name, settings, grid):
    """From an exact start the mean is exact in a right sampler, whatever its steps: it is off by 1e-3 and more where
    a timestep is taken for another kind's."""
    found = study_unmodified({grid: diffusers_sampler(name, settings)}, steps=(20, 40, 80, 160))
    assert found.grids[0].errors["mean"].max() < 1e-11
    if grid == "karras":  # smooth in log sigma
        assert found.verdict == "PASS"


def test_a_level_of_another_kind_is_seen_in_the_mean(monkeypatch):
    from weakorder.integrators.unmodified import diffusers

    monkeypatch.setattr(diffusers, "kind_of", lambda usual, _: usual)
    monkeypatch.setattr(diffusers, "check", lambda *_: None)
    found = study_unmodified({"default": diffusers_sampler("UniPCMultistepScheduler", FLOW)}, steps=(10, 20, 40, 80))
    assert found.grids[0].errors["mean"].max() > 1e-3
    assert found.verdict == "FAIL"


# --- What is refused, and what a grid is called -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "use_karras_sigmas": True}, "has a grid of its own"),
        ("UniPCMultistepScheduler", FLOW | {"use_beta_sigmas": True}, "leave out use_beta_sigmas, or --grid"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "give --set use_flow_sigmas=true"),
        ("DDIMScheduler", {"prediction_type": "noise"}, "prediction_type=noise is no answer of a network; choose eps"),
        ("DDPMScheduler", {"variance_type": "learned_range"}, "takes a variance from its network, which is not mod"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "counts noise from 1 to 0, .*; leave it off"),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, "needs mu, .*; give --set mu=1.15"),
        ("FlowMatchEulerDiscreteScheduler", {"mu": 1.15}, "give --set use_dynamic_shifting=true"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "one grid at a time"),
    ],
)
def test_a_setting_that_is_not_modelled_is_refused_by_name_with_the_fix(name, settings, said):
    with pytest.raises(ValueError, match=said) as caught:
        diffusers_sampler(name, settings)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_grid_on_top_of_flow_sigmas_or_of_another_grid_is_refused():
    for settings in (FLOW, {"use_exponential_sigmas": True}):
        with pytest.raises(ValueError, match="or --grid"):
            diffusers_sampler("DPMSolverMultistepScheduler", settings, "karras")


def test_a_table_that_does_not_fall_is_refused_with_the_row():
    sampler = diffusers_sampler("EulerDiscreteScheduler", ZERO | {"beta_schedule": "linear", "beta_end": 0.05})
    with pytest.raises(ValueError, match=r"rises from .* at row 999, and must fall; choose other betas"):
        sampler.prepare(10, True)


def test_what_the_library_makes_nothing_of_is_one_line():
    sampler = diffusers_sampler("DDIMScheduler", {"beta_schedule": "cubic"})
    with pytest.raises(ValueError, match=r"DDIMScheduler cannot be made as it is set; .*\(--set\): cubic is not impl"):
        sampler.prepare(10, True)


def test_a_grid_that_settings_name_is_that_grid():
    assert grid_of({"use_karras_sigmas": True}) == "karras"
    assert grid_of({"use_lu_lambdas": True}) == "lu"
    assert grid_of({"sigma_schedule": "exponential"}) == "exponential"
    assert list(samplers_of("diffusers", "EulerDiscreteScheduler", {"use_karras_sigmas": True})) == [
        "karras",
        "exponential",
    ]
    assert list(samplers_of("diffusers", "EDMEulerScheduler", {"sigma_schedule": "exponential"})) == ["exponential"]
    assert list(samplers_of("diffusers", "UniPCMultistepScheduler", FLOW)) == ["default", "karras"]
    assert list(samplers_of("diffusers", "DPMSolverMultistepScheduler", FLOW)) == ["default"]
    assert grid_of({"use_karras_sigmas": False}) == grid_of({}) == "default"


def test_what_is_counted_in_rows_goes_with_the_rows():
    sa = diffusers_sampler("SASolverScheduler")
    shipped, exact = (sa.prepare(10, each)._laid_out for each in (False, True))
    finer = (exact.config.num_train_timesteps - 1) / 999
    for row in (100, 300, 700, 900):
        assert exact.tau_func(row * finer) == shipped.tau_func(row)
    lcm = diffusers_sampler("LCMScheduler")
    shipped, exact = (lcm.prepare(10, each)._laid_out for each in (False, True))
    assert exact.config.timestep_scaling * finer == pytest.approx(shipped.config.timestep_scaling)

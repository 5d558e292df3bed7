"""What a sampler is held to: by its settings, no more than what its start allows, and with who claims it."""

import pytest
from weakorder.integrators.unmodified import SAMPLERS, SCHEDULERS, diffusers_sampler, k_diffusion_sampler

MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
SDE = {"algorithm_type": "sde-dpmsolver++"}


@pytest.mark.parametrize(
    ("name", "settings", "order", "said"),
    [
        ("DDIMScheduler", {}, 1, "claimed: Lu et al."),
        ("DDIMScheduler", {"eta": 1.0}, 1, "held to: no paper"),
        ("LMSDiscreteScheduler", {}, 2, "held to: order 4 claimed .* after a first step of order 1"),
        ("LMSDiscreteScheduler", {"order": 2}, 2, "claimed"),
        ("LMSDiscreteScheduler", {"order": 1}, 1, "claimed"),
        ("DEISMultistepScheduler", {"solver_order": 3}, 2, "order 3 claimed"),
        (MULTI, {}, 2, r"claimed: Lu et al. 2022, DPM-Solver\+\+"),
        (MULTI, SDE | {"solver_order": 1}, 1, r"held to: .* SDE-DPM-Solver\+\+\(1\)"),
        (MULTI, SDE, 2, r"held to: .* SDE-DPM-Solver\+\+\(2M\)"),
        (MULTI, SDE | {"solver_order": 3}, 2, "held to: no paper proves solver_order=3 with a memory with noise"),
        (SINGLE, {"solver_order": 3}, 3, "claimed"),
        (SINGLE, SDE, 2, "held to: its setting solver_order"),
        ("UniPCMultistepScheduler", {}, 2, "held to: order 3 claimed .*Zhao"),
        ("UniPCMultistepScheduler", {"solver_order": 1}, 1, "order 2 claimed"),
        ("UniPCMultistepScheduler", {"disable_corrector": [0]}, 2, "claimed: .* its predictor"),
        ("SASolverScheduler", {}, 1, "claimed: Xue .* tau above 0"),
        ("SASolverScheduler", {"tau_func": lambda _: 0, "predictor_order": 1, "corrector_order": 1}, 1, "tau = 0"),
        ("SASolverScheduler", {"tau_func": lambda _: 0, "predictor_order": 3, "corrector_order": 4}, 2, "order 4"),
    ],
)
def test_a_scheduler_is_held_to_what_its_settings_say(name, settings, order, said):
    assert_held(diffusers_sampler(name, settings), order, said)


@pytest.mark.parametrize(
    ("name", "settings", "order", "said"),
    [
        ("sample_lms", {}, 2, "order 4 claimed"),
        ("sample_lms", {"order": 3}, 2, "order 3 claimed"),
        ("sample_lms", {"order": 1}, 1, "claimed"),
        ("sample_dpmpp_2s_ancestral", {}, 1, "no paper"),
        ("sample_dpmpp_2s_ancestral", {"eta": 0}, 2, "2S"),
        ("sample_dpm_2_ancestral", {"eta": 0.0}, 2, "eta = 0"),
        ("sample_dpmpp_2m_sde", {"eta": 0}, 2, "claimed: Lu"),
        ("sample_dpmpp_3m_sde", {}, 2, "with noise; its first step is of order 1"),
        ("sample_dpmpp_sde", {}, 1, "no paper"),
        ("sample_dpmpp_sde", {"eta": 0}, 2, "2S"),
        ("sample_dpm_fast", {}, 2, "order 3 claimed"),
        ("sample_heun", {"s_churn": 20.0}, 2, "with s_churn"),
    ],
)
def test_a_sampler_of_k_diffusion_is_held_to_what_its_settings_say(name, settings, order, said):
    assert_held(k_diffusion_sampler(name, settings), order, said)


def assert_held(sampler, order, said):
    import re

    assert sampler.order == order
    assert re.search(said, sampler.claim)


def test_every_sampler_says_who_claims_its_order_or_that_nobody_does():
    every = [diffusers_sampler(name) for name in SCHEDULERS] + [k_diffusion_sampler(name) for name in SAMPLERS]
    for sampler in every:
        assert sampler.claim.startswith(("claimed: ", "held to: "))
        assert sampler.order is not None

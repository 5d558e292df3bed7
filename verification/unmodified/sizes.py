"""How large each finding is: the numbers of the runs that show it, by the names that its text uses.

Errors are relative errors of the variance and, in standard deviations, of the mean, at the last state that the network
saw, from an exact start, unless a key says otherwise; root mean square over the study's targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from ...integrators.blackbox import BlackBoxError
from ...integrators.unmodified import (
    Unmodified,
    diffusers_sampler,
    float64_throughout,
    function_sampler,
    k_diffusion_sampler,
    schedulers,
)
from ...theory.paths import PATHS, Level
from ..verdicts import Array
from .laws import Data, Law, consistency, denoiser, law_at, laws_of
from .study import TARGETS, errors_of
from .transcript import Transcript, transcribe

Numbers = dict[str, float | str]
SDE = {"algorithm_type": "sde-dpmsolver++"}
_CHURN = {"s_churn": 20.0}
_MULTI, _SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"


def errors(
    name: str, steps: int, settings: dict[str, Any] | None = None, grid: str = "default", exact: bool = True
) -> dict[str, float]:
    """The errors of a run: of a scheduler of diffusers, or of k-diffusion's sample_...; exact: in float64 and with a
    fine table, or as it ships."""
    make = k_diffusion_sampler if name.startswith("sample_") else diffusers_sampler
    sampler = make(name, settings or {}, grid)
    return errors_of(sampler, transcribe(sampler, steps, exact), TARGETS)


def refusal(name: str, steps: int, settings: dict[str, Any], grid: str = "default") -> str:
    """What a run as shipped ends in; "" where it ends well."""
    try:
        errors(name, steps, settings, grid, exact=False)
    except BlackBoxError as error:
        return " ".join(str(error).split())
    return ""


def third_order() -> Numbers:
    """Of third-order DPM-Solver++ with noise and without."""
    third, flow = SDE | {"solver_order": 3}, {"solver_order": 3, "lower_order_final": False}
    found: Numbers = {key: errors(_MULTI, steps, third)["variance"] for key, steps in (("few", 50), ("many", 250))}
    found |= {key: errors(_MULTI, n, third, "karras")["variance"] for key, n in (("karras", 80), ("karras_fine", 160))}
    found |= {key: errors(_MULTI, n, flow, "karras")["variance"] for key, n in (("flow", 40), ("flow_fine", 160))}
    return found | {
        "second": errors(_MULTI, 50, SDE)["variance"],
        "second_karras": errors(_MULTI, 160, SDE, "karras")["variance"],
    }


def third_order_single() -> Numbers:
    """Of its single-step form with noise."""
    third = SDE | {"solver_order": 3}
    return {
        "heun": errors(_SINGLE, 80, third | {"solver_type": "heun"}, "karras")["variance"],
        "midpoint": errors(_SINGLE, 80, third, "karras")["variance"],
    }


def single(order: int) -> Numbers:
    """Of single-step SDE-DPM-Solver++ of an order, beside order 1."""
    return {
        "few": errors(_SINGLE, 80, SDE | {"solver_order": order}, "karras")["variance"],
        "many": errors(_SINGLE, 160, SDE | {"solver_order": order}, "karras")["variance"],
        "first": errors(_SINGLE, 160, SDE | {"solver_order": 1}, "karras")["variance"],
    }


def pndm() -> Numbers:
    """Means with v-prediction and with eps."""
    v = {"prediction_type": "v_prediction"}
    return {
        "few": errors("PNDMScheduler", 20, v)["mean"],
        "many": errors("PNDMScheduler", 160, v)["mean"],
        "eps": errors("PNDMScheduler", 20)["mean"],
    }


def spacing() -> Numbers:
    """Of DDIM at 300 steps, which do not divide the table's 1,000."""
    found: Numbers = {}
    for kind in ("linspace", "trailing", "leading"):
        run = errors("DDIMScheduler", 300, {"timestep_spacing": kind}, exact=False)
        found |= {kind: run["variance"], f"{kind}_mean": run["mean"]}
    return found


def churned(name: str, grid: str = "default") -> Numbers:
    """Of an Euler's method of diffusers with churn, and of k-diffusion's."""
    early, asked = errors(name, 80, _CHURN, grid), errors("sample_euler", 80, _CHURN, "karras")
    return {
        "mean": early["mean"],
        "early": early["variance"],
        "late": asked["variance"],
        "late_mean": asked["mean"],
    }


def single_precision(name: str, settings: dict[str, Any]) -> Numbers:
    """Of 500 steps on the default grid, as shipped and in float64."""
    return {
        key: errors(name, 500, settings, exact=exact)["variance"]
        for key, exact in (("single", False), ("double", True))
    }


def last_jump() -> Numbers:
    """Of 20 steps, before and after the step to no noise."""
    found: Numbers = {}
    for key, name, grid in (
        ("own", _MULTI, "default"),
        ("karras", _MULTI, "karras"),
        ("lms", "LMSDiscreteScheduler", "default"),
        ("lms_karras", "LMSDiscreteScheduler", "karras"),
        ("pndm", "PNDMScheduler", "default"),
    ):
        run = errors(name, 20, grid=grid)
        found |= {key: run["variance"], f"{key}_final": run["final"]}
    return found


def repeated_sigma() -> Numbers:
    """What a last sigma that stands twice comes to."""
    heun = {"solver_type": "heun", "final_sigmas_type": "sigma_min"}
    third = {"solver_order": 3, "final_sigmas_type": "sigma_min"}
    return {
        "heun": refusal(_MULTI, 15, heun, "karras"),
        "third": refusal(_MULTI, 15, third, "karras"),
        "fewer": errors(_MULTI, 14, heun, "karras", exact=False)["variance"],
    }


def noisier() -> Numbers:
    """Of Heun's method with S_noise of 1 and more."""
    return {
        key: errors("sample_heun", 640, {"s_churn": 40.0, "s_noise": noise}, "karras")["variance"]
        for key, noise in (("one", 1.0), ("low", 1.003), ("high", 1.007))
    }


def step_ratio() -> Numbers:
    """Of DPM-Solver++(2M) on Karras' grid and on an exponential one."""
    found: Numbers = {}
    for grid in ("karras", "exponential"):
        found |= {
            f"{grid}{key}": errors("sample_dpmpp_2m", steps, grid=grid)["variance"]
            for key, steps in (("", 80), ("_fine", 160))
        }
    return found


# --- Consistency networks ---------------------------------------------------------------------------------------------


Network = Callable[[Data, Level], Array]


def by_network(sampler: Unmodified) -> Numbers:
    """The variance of what is returned after 4 and 32 steps, with the exact network of a diffusion and with that of its
    flow's ends."""
    found: Numbers = {}
    for key, steps in (("few", 4), ("many", 32)):
        run = transcribe(sampler, steps)
        for kind, network in (("denoiser", denoiser), ("consistency", consistency)):
            laws = laws_of(sampler, run, TARGETS, network=network)
            found[f"{kind}_{key}"] = _off(laws.final, laws.data)
    return found


def _off(law: Law, exact: Law) -> float:
    return float(np.sqrt(np.mean((law.variance / exact.variance - 1) ** 2)))


def tcd() -> Numbers:
    """Of TCD at the last state that the network saw, with eta of 0.3, as it ships, and of 1, and three networks."""
    found: Numbers = {}
    for eta, said in ((0.3, ""), (1.0, "_one")):
        sampler = diffusers_sampler("TCDScheduler", {"eta": eta})
        for key, steps in (("few", 4), ("many", 32)):
            run = transcribe(sampler, steps)
            networks = {"denoiser": denoiser, "consistency": consistency, "trajectory": _trajectory(sampler, run, eta)}
            for kind, network in networks.items():
                laws = laws_of(sampler, run, TARGETS, network=network)
                found[f"{kind}_{key}{said}"] = _off(laws.last, laws.exact)
    return found


def _trajectory(sampler: Unmodified, run: Transcript, eta: float) -> Network:
    """The network that takes TCD where the flow goes, from each of its times t to s = floor((1 - eta) t'), t' being its
    next: alpha_s X + sigma_s (z - alpha_t X) / sigma_t is then the flow's map of z (Zheng et al. 2024)."""
    level = sampler.prepare(run.steps, True).level
    ends = {at: level(math.floor((1 - eta) * t)) for at, t in zip(run.levels, (*run.times[1:], 0.0), strict=True)}

    def slope(data: Data, at: Level) -> Array:
        end = ends[at]
        kept = np.sqrt(law_at(data, end)[1] / law_at(data, at)[1])
        return (kept - end.sigma / at.sigma) / (end.alpha - end.sigma * at.alpha / at.sigma)

    return slope


def consistency_models() -> Unmodified:
    """CMStochasticIterativeScheduler around a network that predicts data, written as its c_skip x + c_out F."""
    kind = schedulers().CMStochasticIterativeScheduler

    def sample(model: Any, x: Tensor, steps: int) -> Tensor:
        with float64_throughout("diffusers.schedulers"):
            made = kind(clip_denoised=False)
            made.set_timesteps(steps)
            for t, sigma in zip(made.timesteps, made.sigmas, strict=False):
                c_skip, c_out = made.get_scalings_for_boundary_condition(sigma)
                answer = (model(x, float(sigma)) - c_skip * x) / c_out
                made.scale_model_input(x, t)
                x = made.step(answer, t, x).prev_sample
        return x

    return function_sampler("CMStochasticIterativeScheduler", sample, PATHS["edm"], "denoiser")

"""The configurations of the libraries' samplers that a survey looks at, as data, and each on its grids."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ...integrators.unmodified import (
    GRID_SETTINGS,
    NOT_MODELLED,
    SAMPLERS,
    SCHEDULERS,
    WITHOUT_GRID,
    Unmodified,
    diffusers_sampler,
    grid_of,
    k_diffusion_sampler,
    samplers,
    schedulers,
)

# Grids that are smooth in log sigma, in the order in which they are tried.
_SMOOTH = ("karras", "exponential")


class Configuration(NamedTuple):
    """A sampler of a library with its settings."""

    library: str
    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def said(self) -> str:
        """Its name, with its settings."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.settings)])

    def grids(self) -> dict[str, Unmodified]:
        """It on its own grid and on those that are smooth in log sigma, where it has any. Raises ValueError."""
        return samplers_of(self.library, self.name, dict(self.settings))


def samplers_of(library: str, name: str, settings: dict[str, Any], grid: str | None = None) -> dict[str, Unmodified]:
    """A library's sampler by grid: the one asked for, by name or by its settings, or its own and one that is smooth in
    log sigma, where it has any, and where none is its own, two: on one grid alone a fault of what looks back can hide.
    Raises ValueError on names and settings that the library has not."""
    make = diffusers_sampler if library == "diffusers" else k_diffusion_sampler
    if grid is not None:
        return {grid: make(name, settings, grid)}
    named = grid_of(settings) if library == "diffusers" else "default"  # a setting may name its own grid
    rest = {key: value for key, value in settings.items() if key not in GRID_SETTINGS}
    has_own = library == "diffusers" or name in WITHOUT_GRID
    found = {named: make(name, settings, "default")} if has_own else {}
    for other in _SMOOTH:
        if len(found) == 2:
            break
        try:
            found.setdefault(other, make(name, rest, other))
        except ValueError:
            if not found:
                raise
    return found


def coverage(library: str) -> dict[str, Any]:
    """How many of the samplers that the installed library has are surveyed, of how many, and why the others are not.
    Raises ValueError where it is missing."""
    if library == "diffusers":
        names = {name for name in dir(schedulers()) if name.endswith("Scheduler")} | {*SCHEDULERS, *NOT_MODELLED}
        return _covered(names, SCHEDULERS, NOT_MODELLED)
    others = {}
    names = {name for name in dir(samplers()) if name.startswith("sample_")}
    for name in names - SAMPLERS.keys():
        try:
            k_diffusion_sampler(name)
        except ValueError as error:
            others[name] = str(error).removeprefix(f"k-diffusion:{name} ")
    return _covered(names | SAMPLERS.keys(), SAMPLERS, others)


def _covered(names: set[str], modelled: Collection[str], reasons: Mapping[str, str]) -> dict[str, Any]:
    others = {name: reasons.get(name, "it was not looked at") for name in sorted(names.difference(modelled))}
    return {"surveyed": len(names.intersection(modelled)), "of": len(names), "others": others}


def _diffusers(name: str, **settings: Any) -> Configuration:
    return Configuration("diffusers", name, tuple(settings.items()))


def _k_diffusion(name: str, **settings: Any) -> Configuration:
    return Configuration("k-diffusion", name, tuple(settings.items()))


# What pipelines set: of models trained on a flow (Wan, SANA), of Stable Video Diffusion, of zero terminal SNR (Lin et
# al. 2024, with the last timestep first).
_FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
_VIDEO: dict[str, Any] = {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True}
_VIDEO |= {"sigma_min": 0.002, "sigma_max": 700.0}
_ZERO_SNR: dict[str, Any] = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
_ZERO_SNR |= {"timestep_spacing": "trailing"}
# DPM-Solver as first published divides by the last sigma, and cannot end at none.
_PLAIN: dict[str, Any] = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}


# Every name as it ships, and the settings that choose another method.
SURVEYS = {
    "diffusers": (
        *(Configuration("diffusers", name) for name in SCHEDULERS),
        _diffusers("DDIMScheduler", eta=1.0),
        _diffusers("DDIMScheduler", timestep_spacing="linspace"),
        _diffusers("DDIMScheduler", timestep_spacing="trailing"),
        _diffusers("DDIMScheduler", **_ZERO_SNR),
        _diffusers("DDPMScheduler", variance_type="fixed_large"),
        _diffusers("DDPMScheduler", variance_type="fixed_large_log"),
        _diffusers("DPMSolverMultistepScheduler", solver_order=3),
        _diffusers("DPMSolverMultistepScheduler", solver_type="heun"),
        _diffusers("DPMSolverMultistepScheduler", use_lu_lambdas=True),
        _diffusers("DPMSolverMultistepScheduler", **_PLAIN),
        _diffusers("DPMSolverMultistepScheduler", **_PLAIN, solver_order=3),
        _diffusers("DPMSolverMultistepScheduler", **_FLOW),
        _diffusers("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=1),
        _diffusers("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
        _diffusers("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=3),
        _diffusers("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_type="heun"),
        _diffusers("DPMSolverSinglestepScheduler", solver_order=3),
        _diffusers("DPMSolverSinglestepScheduler", **_PLAIN),
        _diffusers("DPMSolverSinglestepScheduler", **_PLAIN, solver_order=3),
        _diffusers("DPMSolverSinglestepScheduler", solver_type="heun"),
        _diffusers("DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++", solver_order=1),
        _diffusers("DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++"),
        _diffusers("DEISMultistepScheduler", solver_order=3),
        _diffusers("UniPCMultistepScheduler", solver_order=3),
        _diffusers("UniPCMultistepScheduler", solver_type="bh1"),
        _diffusers("UniPCMultistepScheduler", **_FLOW),
        _diffusers("SASolverScheduler", predictor_order=3, corrector_order=4),
        _diffusers("PNDMScheduler", skip_prk_steps=True),
        _diffusers("PNDMScheduler", prediction_type="v_prediction"),
        _diffusers("EulerDiscreteScheduler", s_churn=20.0),
        _diffusers("EulerDiscreteScheduler", timestep_spacing="trailing"),
        _diffusers("EulerDiscreteScheduler", **_VIDEO),
        _diffusers("FlowMatchEulerDiscreteScheduler", shift=3.0),
        _diffusers("FlowMatchHeunDiscreteScheduler", shift=3.0),
        _diffusers("EDMEulerScheduler", s_churn=20.0),
        _diffusers("EDMDPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
        _diffusers("EDMDPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=3),
    ),
    "k-diffusion": (
        *(Configuration("k-diffusion", name) for name in SAMPLERS),
        _k_diffusion("sample_euler", s_churn=20.0),
        _k_diffusion("sample_heun", s_churn=20.0),
        _k_diffusion("sample_heun", s_churn=20.0, s_noise=1.003),
        _k_diffusion("sample_dpm_2", s_churn=20.0),
        _k_diffusion("sample_euler_ancestral", eta=0.0),
        _k_diffusion("sample_euler_ancestral", eta=0.5),
        _k_diffusion("sample_dpm_2_ancestral", eta=0.0),
        _k_diffusion("sample_dpmpp_2s_ancestral", eta=0.0),
        _k_diffusion("sample_dpmpp_sde", eta=0.0),
        _k_diffusion("sample_dpmpp_2m_sde", eta=0.0),
        _k_diffusion("sample_dpmpp_2m_sde", solver_type="heun"),
        _k_diffusion("sample_dpmpp_3m_sde", eta=0.0),
    ),
}

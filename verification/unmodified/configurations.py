"""The configurations of the libraries' samplers that a survey looks at, as data, and each on its grids."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...integrators.unmodified import (
    SAMPLERS,
    SCHEDULERS,
    WITHOUT_GRID,
    Unmodified,
    diffusers_sampler,
    k_diffusion_sampler,
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
    """A library's sampler by grid: the one asked for, or its own and one that is smooth in log sigma, where it has any,
    and where none is its own, two: on one grid alone a fault of what looks back can hide. Raises ValueError on names
    and settings that the library has not."""
    make = diffusers_sampler if library == "diffusers" else k_diffusion_sampler
    if grid is not None:
        return {grid: make(name, settings, grid)}
    has_own = library == "diffusers" or name in WITHOUT_GRID
    found = {"default": make(name, settings, "default")} if has_own else {}
    for other in _SMOOTH:
        try:
            found[other] = make(name, settings, other)
        except ValueError:
            if not found:
                raise
        if len(found) == 2:
            break
    return found


def _diffusers(name: str, **settings: Any) -> Configuration:
    return Configuration("diffusers", name, tuple(settings.items()))


# Every name as it ships, and the settings that choose another method.
SURVEYS = {
    "diffusers": (
        *(Configuration("diffusers", name) for name in SCHEDULERS),
        _diffusers("DDIMScheduler", eta=1.0),
        _diffusers("DDIMScheduler", timestep_spacing="linspace"),
        _diffusers("DDIMScheduler", timestep_spacing="trailing"),
        _diffusers("DDPMScheduler", variance_type="fixed_large"),
        _diffusers("DDPMScheduler", variance_type="fixed_large_log"),
        _diffusers("DPMSolverMultistepScheduler", solver_order=3),
        _diffusers("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=1),
        _diffusers("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
        _diffusers("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=3),
        _diffusers("DPMSolverSinglestepScheduler", solver_order=3),
        _diffusers("DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++", solver_order=1),
        _diffusers("DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++"),
        _diffusers("DEISMultistepScheduler", solver_order=3),
        _diffusers("UniPCMultistepScheduler", solver_order=3),
        _diffusers("UniPCMultistepScheduler", solver_type="bh1"),
        _diffusers("SASolverScheduler", predictor_order=3, corrector_order=4),
        _diffusers("PNDMScheduler", skip_prk_steps=True),
        _diffusers("PNDMScheduler", prediction_type="v_prediction"),
        _diffusers("EulerDiscreteScheduler", s_churn=20.0),
        _diffusers("EDMEulerScheduler", s_churn=20.0),
        _diffusers("EDMDPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
        _diffusers("EDMDPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=3),
    ),
    "k-diffusion": tuple(Configuration("k-diffusion", name) for name in SAMPLERS),
}

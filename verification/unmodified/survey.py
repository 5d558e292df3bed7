"""A survey of the samplers that people use: each configuration's verdict, and its exact distance to CIFAR-10.

The distance is that of a run as it ships, constants in float32 and times from the library's table, to what it returns:
the Frechet distance to a Gaussian with the data's mean and covariance (exact.Spectrum.distance), on all of its
eigenvalues. Runs start from the exact law at their first time, and, as people start them, from pure noise: what these
differ by is the schedule's, not the sampler's. This ranks samplers without a network, and holds for data that are
Gaussian: what a network's score does away from them it cannot say. `on_mixture` says of each configuration what order
it has where the network is not affine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...integrators.blackbox import BlackBoxError
from ...integrators.unmodified import (
    SAMPLERS,
    SCHEDULERS,
    WITHOUT_GRID,
    Unmodified,
    diffusers_sampler,
    k_diffusion_sampler,
)
from ..exact import Spectrum, cifar10_spectrum
from ..targets import GaussianLaw
from .chain import chain_of
from .laws import Data, laws_of
from .mixture import study_on_mixture
from .study import UnmodifiedStudy, study_unmodified
from .transcript import Transcript, transcribe

BUDGETS = (10, 20, 50, 100)
STEPS = (20, 40, 80, 160)


class Configuration(NamedTuple):
    """A sampler of a library with its settings."""

    library: str
    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    def grids(self) -> dict[str, Unmodified]:
        """It on its own grid and on those that are smooth in log sigma, where it has any. Raises ValueError."""
        return samplers_of(self.library, self.name, dict(self.settings))


def samplers_of(library: str, name: str, settings: dict[str, Any], grid: str | None = None) -> dict[str, Unmodified]:
    """A library's sampler by grid: the one asked for, or its own and those that are smooth in log sigma, where it has
    any. Raises ValueError on names and settings that the library has not."""
    make = diffusers_sampler if library == "diffusers" else k_diffusion_sampler
    if grid is not None:
        return {grid: make(name, settings, grid)}
    has_own = library == "diffusers" or name in WITHOUT_GRID
    found = {"default": make(name, settings, "default")} if has_own else {}
    for other in ("karras",) if has_own else ("karras", "exponential"):
        try:
            found[other] = make(name, settings, other)
        except ValueError:
            if not found:
                raise
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


def surveyed(configuration: Configuration, steps: Sequence[int] = STEPS) -> dict[str, Any]:
    """What a survey says of one configuration, in JSON's own types: its study, or the reason for none ("refused"); and
    by grid the evaluations and distances within each of `BUDGETS`."""
    said = " ".join([configuration.name, *(f"{key}={value}" for key, value in configuration.settings)])
    entry: dict[str, Any] = {"sampler": said, "library": configuration.library, "distances": {}}
    try:
        grids = configuration.grids()
        study = study_unmodified(grids, steps=steps)
    except (BlackBoxError, ValueError) as error:
        return entry | {"refused": " ".join(str(error).split())}
    entry |= study.as_dict() | {"sampler": said, "refused": "", "constants": _constants(study)}
    for grid, sampler in grids.items():
        entry["distances"][grid] = [_distance(sampler, budget) for budget in BUDGETS]
    return entry


def on_mixture(configuration: Configuration, steps: Sequence[int] = STEPS) -> dict[str, dict[str, Any]]:
    """By grid what a survey says of one configuration on the mixture, in JSON's own types: its order there, the
    interval, or "why" there is none; the order that Gaussian data show at the same steps, and whether they flatter."""
    try:
        grids = configuration.grids()
    except ValueError:
        return {}
    return {grid: _on_mixture(grid, sampler, steps) for grid, sampler in grids.items()}


def _on_mixture(grid: str, sampler: Unmodified, steps: Sequence[int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"order": None, "low": None, "high": None, "settled": False, "gaussian": None}
    entry |= {"flattered": False, "why": ""}
    try:
        (found,) = study_on_mixture({grid: sampler}, steps=_levels(sampler, steps)).grids
    except ValueError as error:
        return entry | {"why": " ".join(str(error).split())}
    if found.flat is not None:
        entry["gaussian"] = _finite(found.flat.order)
    if (fit := found.fit) is None:
        return entry | {"why": "; ".join(finding.text for finding in found.findings())}
    entry |= {"order": _finite(fit.order), "low": _finite(fit.low), "high": _finite(fit.high)}
    return entry | {"settled": fit.is_settled, "flattered": found.is_flattered}


def _levels(sampler: Unmodified, steps: Sequence[int]) -> Sequence[int]:
    """With a memory and noise, of which the law of two states is carried, short runs need a larger lattice than there
    is: the levels begin one later then, and go one further."""
    run = transcribe(sampler, steps[0])
    if run.is_stochastic and chain_of(sampler, run).dimensions > 1:
        return (*steps[1:], 2 * steps[-1])
    return steps


def _constants(study: UnmodifiedStudy) -> dict[str, Any]:
    """By grid the order, the constant C of C / N^p, from which number of steps on slopes are within a quarter of it,
    and numbers drawn a step."""
    found = {}
    for grid in study.grids:
        fit = grid.fits.get("w2")
        entry: dict[str, Any] = {"order": None, "settled": False, "constant": None, "from": None}
        entry["draws"] = _finite(grid.draws[-1] / grid.steps[-1])
        if fit is not None:
            power = max(1, round(fit.order))
            errors = grid.errors["w2"]
            slopes = np.log(errors[:-1] / errors[1:]) / np.log(grid.steps[1:] / grid.steps[:-1])
            near = np.abs(slopes - fit.order) <= 0.25
            first = len(near) - int(np.argmin(near[::-1])) if not near.all() else 0
            entry |= {"order": _finite(fit.order), "settled": fit.is_settled}
            entry |= {"constant": _finite(errors[-1] * grid.steps[-1] ** power)}
            entry["power"], entry["from"] = power, int(grid.steps[first]) if first < len(near) else None
        found[grid.grid] = entry
    return found


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _distance(sampler: Unmodified, budget: int) -> dict[str, Any]:
    """Steps, evaluations and distances of the longest run within a budget, from the exact law and from pure noise; None
    where it cannot be read off, or is not finite."""
    found: dict[str, Any] = {"budget": budget, "steps": budget, "nfe": None, "distance": None, "from_noise": None}
    while found["steps"] > 0:
        run = _shipped(sampler, found["steps"])
        if run is None:
            return found
        if run.nfe <= budget:
            exact, noise = (_finite(distance_of(sampler, run, start)) for start in (False, True))
            return found | {"nfe": run.nfe, "distance": exact, "from_noise": noise}
        found["steps"] = min(found["steps"] - 1, found["steps"] * budget // run.nfe)
    return found


def _shipped(sampler: Unmodified, steps: int) -> Transcript | None:
    """The run as it ships; in float64 where rounding is too coarse for it to be read off."""
    for exact in (False, True):
        try:
            return transcribe(sampler, steps, exact)
        except (BlackBoxError, ValueError):
            continue
    return None


def distance_of(sampler: Unmodified, run: Transcript, from_prior: bool, spectrum: Spectrum | None = None) -> float:
    """The Frechet distance of what a run returns to the data, by default CIFAR-10's."""
    known = spectrum or cifar10_spectrum()
    final = laws_of(sampler, run, Data(known.mean, known.variances), from_prior).final
    return known.distance(GaussianLaw(final.mean[None], final.variance[None, None]))

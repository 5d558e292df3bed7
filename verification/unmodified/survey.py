"""A survey of the samplers that people use: each configuration's verdict, and its exact distance to data.

The distance is that of a run as it ships, constants in float32 and times from the library's table, to what it returns:
the Frechet distance to a Gaussian with the data's mean and covariance (exact.Spectrum.distance), on all of its
eigenvalues; by default CIFAR-10's. Runs start from the exact law at their first time, and, as people start them, from
pure noise: what these differ by is the schedule's, not the sampler's. So is what the last step, from the smallest noise
to none, leaves of an exact law (`floor`): samplers are compared on one schedule (`schedule_of`), and never across. This
ranks samplers without a network, and holds for data that are Gaussian: what a network's score does away from them it
cannot say. `on_mixture` says of each configuration what order it has where the network is not affine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...integrators.unmodified import Prepared, Unmodified, diffusers_sampler
from ...theory.paths import Level
from ..exact import Spectrum, cifar10_spectrum
from ..targets import GaussianLaw
from .chain import chain_of
from .configurations import Configuration
from .laws import Data, Law, laws_of
from .mixture import study_on_mixture
from .study import UnmodifiedStudy, study_unmodified
from .transcript import Transcript, transcribe

BUDGETS = (10, 20, 50, 100)
STEPS = (20, 40, 80, 160)


# Settings that change which noise there is at which time, and not how it is removed.
SCHEDULE = (
    *("beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "num_train_timesteps"),
    *("sigma_min", "sigma_max", "sigma_data", "shift", "flow_shift", "use_dynamic_shifting"),
)
_SAME = 1e-6  # float32 tables


def surveyed(
    configuration: Configuration, steps: Sequence[int] = STEPS, spectrum: Spectrum | None = None
) -> dict[str, Any]:
    """What a survey says of one configuration, in JSON's own types: its study, or the reason for none ("refused"); and
    by grid the evaluations and distances within each of `BUDGETS`, to `spectrum`, by default CIFAR-10's.

    Whatever the library raises is such a reason: a survey of many does not end with one."""
    entry: dict[str, Any] = {"sampler": configuration.said, "library": configuration.library, "distances": {}}
    try:
        grids = configuration.grids()
        study = study_unmodified(grids, steps=steps)
        found = study.as_dict() | {"sampler": configuration.said, "constants": _constants(study)}
        found["claim"] = next(iter(grids.values())).claim
        found["distances"] = {
            grid: [_distance(sampler, budget, spectrum) for budget in BUDGETS] for grid, sampler in grids.items()
        }
        found["schedule"] = schedule_of(configuration, grids)
    except Exception as error:  # of anyone's code
        return entry | {"refused": _said(error)}
    return entry | found | {"refused": ""}


def _said(error: Exception) -> str:
    """What an error says, in one line; with its name where it is not ours, which are sentences."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def on_mixture(configuration: Configuration, steps: Sequence[int] = STEPS) -> dict[str, dict[str, Any]]:
    """By grid what a survey says of one configuration on the mixture, in JSON's own types: its order there, the
    interval, or "why" there is none; the order that Gaussian data show at the same steps, and whether they flatter."""
    try:
        grids = configuration.grids()
    except Exception:  # of anyone's code: `surveyed` has the reason
        return {}
    return {grid: _on_mixture(grid, sampler, steps) for grid, sampler in grids.items()}


def _on_mixture(grid: str, sampler: Unmodified, steps: Sequence[int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"order": None, "low": None, "high": None, "settled": False, "gaussian": None}
    entry |= {"flattered": False, "why": ""}
    try:
        (found,) = study_on_mixture({grid: sampler}, steps=_levels(sampler, steps)).grids
    except Exception as error:  # of anyone's code
        return entry | {"why": _said(error)}
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
    """By grid the order and its interval, whether it decides, the constant C of C / N^p, from which number of steps on
    slopes are within a quarter of it, and evaluations and numbers drawn a step."""
    found = {}
    for grid in study.grids:
        fit = grid.fits.get("w2")
        entry: dict[str, Any] = {"order": None, "low": None, "high": None, "settled": False, "constant": None}
        entry |= {"decides": grid.decides, "from": None}
        entry |= {"nfe": _finite(grid.nfe[-1] / grid.steps[-1]), "draws": _finite(grid.draws[-1] / grid.steps[-1])}
        if fit is not None:
            power = max(1, round(fit.order))
            errors = grid.errors["w2"]
            slopes = np.log(errors[:-1] / errors[1:]) / np.log(grid.steps[1:] / grid.steps[:-1])
            near = np.abs(slopes - fit.order) <= 0.25
            first = len(near) - int(np.argmin(near[::-1])) if not near.all() else 0
            entry |= {"order": _finite(fit.order), "low": _finite(fit.low), "high": _finite(fit.high)}
            entry |= {"settled": fit.is_settled, "constant": _finite(errors[-1] * grid.steps[-1] ** power)}
            entry["power"], entry["from"] = power, int(grid.steps[first]) if first < len(near) else None
        found[grid.grid] = entry
    return found


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _distance(sampler: Unmodified, budget: int, spectrum: Spectrum | None = None) -> dict[str, Any]:
    """Steps, evaluations and distances of the longest run within a budget, from the exact law and from pure noise, what
    of it the last step leaves of an exact law, and the first and the last sigma / alpha of the network; None where it
    cannot be read off, or is not finite."""
    found: dict[str, Any] = {"budget": budget, "steps": budget, "nfe": None, "distance": None, "from_noise": None}
    found |= {"floor": None, "span": [None, None]}
    while found["steps"] > 0:
        run = _shipped(sampler, found["steps"])
        if run is None:
            return found
        if run.nfe <= budget:
            exact, noise = (_finite(distance_of(sampler, run, start, spectrum)) for start in (False, True))
            found |= {"nfe": run.nfe, "distance": exact, "from_noise": noise}
            found["floor"] = _finite(floor_of(sampler, run, spectrum))
            return found | {"span": [_finite(_ratio(run.levels[k])) for k in (0, -1)]}
        found["steps"] = min(found["steps"] - 1, found["steps"] * budget // run.nfe)
    return found


def _ratio(at: Level) -> float:
    """sigma / alpha."""
    return at.sigma / at.alpha if at.alpha else math.inf


def _shipped(sampler: Unmodified, steps: int) -> Transcript | None:
    """The run as it ships; in float64 where rounding is too coarse for it to be read off."""
    for exact in (False, True):
        try:
            return transcribe(sampler, steps, exact)
        except ValueError:
            continue
    return None


def distance_of(sampler: Unmodified, run: Transcript, from_prior: bool, spectrum: Spectrum | None = None) -> float:
    """The Frechet distance of what a run returns to the data, by default CIFAR-10's."""
    known = spectrum or cifar10_spectrum()
    return _between(laws_of(sampler, run, _data(known), from_prior).final, known)


def floor_of(sampler: Unmodified, run: Transcript, spectrum: Spectrum | None = None) -> float:
    """The Frechet distance to the data of the denoiser's answer to an exact law at the last state that the network of a
    run sees: what it would be without an error of the method. No lower bound, since errors can cancel."""
    known = spectrum or cifar10_spectrum()
    return _between(laws_of(sampler, run, _data(known)).denoised, known)


def _data(spectrum: Spectrum) -> Data:
    return Data(spectrum.mean, spectrum.variances)


def _between(law: Law, spectrum: Spectrum) -> float:
    return spectrum.distance(GaussianLaw(law.mean[None], law.variance[None, None]))


# --- The schedule -----------------------------------------------------------------------------------------------------


def schedule_of(configuration: Configuration, grids: dict[str, Unmodified]) -> str:
    """The noise schedule of a configuration, in words: the path of data and noise, as its levels say, and its settings
    that change it."""
    prepared = next(iter(grids.values())).prepare(20, False)
    run = _shipped(next(iter(grids.values())), 20)
    levels = [prepared.start(0.0)] if run is None else [prepared.start(0.0), *run.levels]
    changed = [f"{key.removeprefix('flow_')}={value}" for key, value in configuration.settings if key in SCHEDULE]
    return ", ".join([_path(levels, prepared), *changed])


def _path(levels: Sequence[Level], prepared: Prepared) -> str:
    if all(at.alpha == 1 for at in levels):
        return f"data with noise added, α = 1, σ from {levels[0].sigma:.3g}"
    if all(abs(at.alpha + at.sigma - 1) < _SAME for at in levels):
        return "a rectified flow, α = 1 − σ"
    if all(abs(at.alpha**2 + at.sigma**2 - 1) < _SAME for at in levels):
        name = "Stable Diffusion’s betas" if _has_its_table(prepared) else "variance preserved"
        return f"{name}, α² + σ² = 1"
    return "a path of its own"


def _has_its_table(prepared: Prepared) -> bool:
    """Whether times mean what they mean on Stable Diffusion's table."""
    known = diffusers_sampler("DDIMScheduler").prepare(20, False)
    try:
        with np.errstate(all="ignore"):
            return all(abs(prepared.level(t).sigma - known.level(t).sigma) < _SAME for t in (0.0, 250.0, 500.0, 999.0))
    except (ArithmeticError, ValueError):
        return False

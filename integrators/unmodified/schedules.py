"""Which schedule a scheduler of diffusers has as it is set, and its exact form.

A class does not decide it, its settings do: most of those that keep a table of alpha_bar run on a rectified flow's
levels with `use_flow_sigmas`, and Euler's tells the network a quarter of log sigma where `timestep_type` says so. What
a timestep means is one of `LEVELS`:

    table      a row of alpha_bar, between rows as `theory.paths.table_of`
    log-sigma  log(sigma / alpha) / 4, of a state that preserves variance (EDM's time, Stable Video Diffusion)
    edm        log(sigma) / 4, and the input is that of EDM's preconditioning (Karras et al. 2022, table 1)
    edm-angle  atan(sigma) 2 / pi, with the same input (Stable Audio)
    flow       sigma times `num_train_timesteps`, with alpha = 1 - sigma

An exact run has the same curve between the same ends. A table has more rows of it, as data only (`trained_betas`), and
what is counted in rows goes with them (`steps_offset`, `timestep_scaling`, SA-Solver's tau); the other schedules have
no table, only timesteps that some classes truncate to integers, which are left whole.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...theory.paths import GaussianPath, Level, betas_of, refined, table_of

Array = NDArray[np.float64]

# Stable Diffusion's schedule, which most of the schedulers are used with; the rows of an exact run, and fewer where a
# constructor costs the square of them.
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FINE, COARSE = 640_000, 6_400
# The grids that settings choose, each by its flag, and what a grid is otherwise.
FLAGS = {f"use_{grid}_sigmas": grid for grid in ("karras", "exponential", "beta")}
_LU = "use_lu_lambdas"
GRID_SETTINGS = (*FLAGS, _LU, "sigma_schedule")
_ANSWERS = ("epsilon", "sample", "v_prediction", "flow_prediction", "trigflow")


def kind_of(usual: str, settings: Mapping[str, Any]) -> str:
    """Which schedule it has; usual: that of its class; settings: all that it has."""
    if settings.get("use_flow_sigmas"):
        return "flow"
    # the library heeds the one only with the other
    if settings.get("timestep_type") == "continuous" and settings.get("prediction_type") == "v_prediction":
        return "log-sigma"
    return usual


def grid_of(settings: Mapping[str, Any]) -> str:
    """The grid that settings name: karras, exponential, beta, lu, or default."""
    named = [grid for flag, grid in FLAGS.items() if settings.get(flag)]
    return named[0] if named else "lu" if settings.get(_LU) else str(settings.get("sigma_schedule", "default"))


def check(name: str, kind: str, settings: Mapping[str, Any], mu: object, on_flow: Sequence[str]) -> None:
    """Raises ValueError on settings of the schedule, or of what the network answers, that are not modelled, each with
    its fix; settings: all that it has; mu: of `set_timesteps`, None if not given; on_flow: the grids that it turns into
    a flow's levels."""
    answers = settings.get("prediction_type", "epsilon")
    if answers not in _ANSWERS:
        raise ValueError(f"{name} prediction_type={answers} is no answer of a network; choose {', '.join(_ANSWERS)}")
    if kind == "table" and answers == "flow_prediction":
        raise ValueError(
            f"{name} prediction_type=flow_prediction needs a flow's levels, with alpha = 1 - sigma; give "
            "--set use_flow_sigmas=true"
        )
    if "learned" in str(settings.get("variance_type")):
        raise ValueError(
            f"{name} variance_type={settings['variance_type']} takes a variance from its network, which is not "
            "modelled; leave it at one that is fixed"
        )
    if settings.get("invert_sigmas"):
        raise ValueError(f"{name} invert_sigmas=true counts noise from 1 to 0, which is not modelled; leave it off")
    if settings.get("use_dynamic_shifting") and mu is None:
        raise ValueError(
            f"{name} use_dynamic_shifting=true needs mu, the shift for a size of image; give --set mu=1.15"
        )
    if mu is not None and not settings.get("use_dynamic_shifting"):
        raise ValueError(f"{name} has mu={mu} for use_dynamic_shifting alone; give --set use_dynamic_shifting=true")
    if len(named := [flag for flag in (*FLAGS, _LU) if settings.get(flag)]) > 1:
        raise ValueError(f"{name} has one grid at a time; leave out {' or '.join(named)}, or --grid")
    if settings.get("use_flow_sigmas") and named and grid_of(settings) not in on_flow:
        raise ValueError(f"{name} use_flow_sigmas=true has a grid of its own; leave out {named[0]}, or --grid")


def made(make: Any, kind: str, rows: int, config: Mapping[str, Any], exact: bool) -> Any:
    """A scheduler of a class with its settings; exact: with so many rows in its table. Raises ValueError where its
    table does not fall."""
    config = dict(config)
    parameters = inspect.signature(make.__init__).parameters
    schedule = {key: value for key, value in BETAS.items() if key in parameters and key not in config}
    if kind != "table" or not exact:
        return make(**(schedule | config))
    shipped = make(**(schedule | config)).alphas_cumprod.double().numpy()
    if not (np.diff(shipped) < 0).all():
        row = int(np.argmax(np.diff(shipped) >= 0)) + 1
        raise ValueError(
            f"{make.__name__}: alpha_bar of its table rises from {shipped[row - 1]:.3g} to {shipped[row]:.3g} at row "
            f"{row}, and must fall; choose other betas"
        )
    rows = max(rows, len(shipped))
    finer = (rows - 1) / (len(shipped) - 1)
    config |= {"trained_betas": betas_of(_finer(shipped, rows)), "num_train_timesteps": rows}
    # the table has been rescaled and shifted already
    done = {"rescale_betas_zero_snr": False, "snr_shift_scale": 1.0}
    config |= {key: off for key, off in done.items() if key in parameters}
    if "steps_offset" in config:
        config["steps_offset"] = round(config["steps_offset"] * finer)
    if "timestep_scaling" in parameters:
        config["timestep_scaling"] = config.get("timestep_scaling", parameters["timestep_scaling"].default) / finer
    if "original_inference_steps" in parameters:  # the most steps that it takes
        config.setdefault("original_inference_steps", rows)
    scheduler = make(**(schedule | config))
    if (tau := getattr(scheduler, "tau_func", None)) is not None:
        scheduler.tau_func = lambda row: tau(row / finer)
    return scheduler


def _finer(alpha_bar: Array, rows: int) -> Array:
    """The table's curve with more rows; where it ends in pure noise, by its angle, as its log is not finite there."""
    if alpha_bar[-1] > 0:
        return refined(alpha_bar, rows)
    from scipy.interpolate import PchipInterpolator

    angle = PchipInterpolator(np.linspace(0, 1, len(alpha_bar)), np.arccos(np.sqrt(alpha_bar)))
    curve = np.cos(angle(np.linspace(0, 1, rows))) ** 2
    curve[-1] = 0.0
    return curve


def path_of(alpha_bar: ArrayLike) -> GaussianPath:
    """The path of a table, which may end in pure noise; between rows by the angle then."""
    rows = np.asarray(alpha_bar, dtype=float)
    if rows[-1] > 0:
        return table_of(rows)
    angle, index = np.arctan2(np.sqrt(1 - rows), np.sqrt(rows)), np.arange(len(rows), dtype=float)

    def alpha(t: Array) -> Array:
        return np.where(t < index[-1], np.cos(np.interp(t, index, angle)), 0.0)

    return GaussianPath("table", alpha, lambda t: np.sin(np.interp(t, index, angle)), index[-1], table=True)


def unrounded(scheduler: Any, kind: str) -> None:
    """Leave timesteps of a flow whole that its class truncates to integers."""
    if kind == "flow" and not scheduler.timesteps.is_floating_point():
        rows = scheduler.config.num_train_timesteps
        scheduler.timesteps = scheduler.sigmas[: len(scheduler.timesteps)].double() * rows


def level(kind: str, time: float, path: GaussianPath | None, rows: float, sigma_data: float) -> Level:
    """The noise at a timestep of one of the kinds; path and rows: of its table or flow."""
    if path is not None:
        return path.level(min(max(time, 0.0), path.end))
    if kind == "flow":
        return Level(1 - time / rows, time / rows)
    sigma = math.tan(math.pi / 2 * time) if kind == "edm-angle" else math.exp(4 * time)
    if kind.startswith("edm"):
        return Level(1.0, sigma, 1 / math.hypot(sigma, sigma_data))
    return Level(1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma))

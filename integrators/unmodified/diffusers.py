"""The schedulers of diffusers, unmodified: a loop around `scale_model_input`, the network and `step`.

A scheduler keeps a table of alpha_bar for integer timesteps and interpolates its noise levels between them. Studied to
hundreds of steps the table itself is what limits it, so an exact run has the same curve with more rows, as data only
(`trained_betas`); the shipped one has the library's rows. States of the sigma-space schedulers are alpha^-1 times those
of the table; which they are is asked of the scheduler: `scale_model_input` says what the network sees.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...theory.paths import GaussianPath, Level, betas_of, refined, table_of
from .contract import PREDICTIONS, Network, Unmodified
from .lifting import float64_throughout

# Stable Diffusion's schedule, which most of the schedulers are used with; the rows of its table, those of an exact run,
# and fewer where a constructor costs the square of them.
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ROWS, FINE, COARSE = 1000, 640_000, 6_400
_KINDS = {"eps": "epsilon", "data": "sample", "v": "v_prediction", "flow": "flow_prediction"}


class Claim(NamedTuple):
    """What a scheduler's documentation or paper claims: the weak order; which kind of schedule it has; and the rows of
    its table in an exact run, on its own grid and on others, of which each sigma is looked up in all rows."""

    order: int
    kind: str = "table"
    rows: int = FINE
    rows_elsewhere: int | None = None


# Orders: of the papers that the classes name. Kinds: a table of alpha_bar, the preconditioned network of EDM (Karras et
# al. 2022, table 1), a rectified flow.
SCHEDULERS: dict[str, Claim] = {
    "DDIMScheduler": Claim(1),
    "DDPMScheduler": Claim(1),
    "DEISMultistepScheduler": Claim(2),
    "DPMSolverMultistepScheduler": Claim(2),
    "DPMSolverSDEScheduler": Claim(1, rows=COARSE),
    "DPMSolverSinglestepScheduler": Claim(2),
    "EDMDPMSolverMultistepScheduler": Claim(2, "edm"),
    "EDMEulerScheduler": Claim(1, "edm"),
    "EulerAncestralDiscreteScheduler": Claim(1),
    "EulerDiscreteScheduler": Claim(1),
    "FlowMatchEulerDiscreteScheduler": Claim(1, "flow"),
    "FlowMatchHeunDiscreteScheduler": Claim(2, "flow"),
    "HeunDiscreteScheduler": Claim(2, rows=COARSE),
    "KDPM2AncestralDiscreteScheduler": Claim(1, rows=COARSE),
    "KDPM2DiscreteScheduler": Claim(2, rows=COARSE),
    "LCMScheduler": Claim(1),
    "LMSDiscreteScheduler": Claim(4, rows_elsewhere=COARSE),
    "PNDMScheduler": Claim(2),
    "SASolverScheduler": Claim(2),
    "TCDScheduler": Claim(1),
    "UniPCMultistepScheduler": Claim(2),
}
# Of a run's options these are nonlinear, and off: a Gaussian's data reach beyond them.
_NONLINEAR = {"clip_sample": False, "thresholding": False}


def schedulers() -> Any:
    """diffusers' module of schedulers. Raises ValueError, in one line, where it is missing."""
    try:
        from diffusers import schedulers as module
        from diffusers.utils import logging
    except ImportError as error:
        raise ValueError(f"diffusers is not installed ({error}); pip install 'weakorder[diffusers]'") from error
    logging.set_verbosity_error()
    return module


def diffusers_sampler(name: str, settings: Mapping[str, Any] | None = None, grid: str = "default") -> Unmodified:
    """A scheduler of diffusers by its class's name; settings: of its constructor or its step, by their names; grid:
    default, or karras, exponential, beta where it has them.

    Raises ValueError on a name, setting or grid that it has not.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"diffusers:{name} is none of the schedulers that are known; choose {', '.join(SCHEDULERS)}")
    kind, given = getattr(schedulers(), name), dict(settings or {})
    own, step = inspect.signature(kind.__init__).parameters, inspect.signature(kind.step).parameters
    if unknown := [key for key in given if key not in own and key not in step]:
        known = [
            key for key in (*own, *step) if key not in ("self", "model_output", "timestep", "sample", "return_dict")
        ]
        raise ValueError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(known)}")
    if grid != "default":
        flag = f"use_{grid}_sigmas"
        if flag in own:
            given[flag] = True
        elif "sigma_schedule" in own and own["sigma_schedule"].default != grid:
            given["sigma_schedule"] = grid
        else:
            raise ValueError(f"{name} has no grid {grid!r}; leave it at its default")
    claim = SCHEDULERS[name]
    predicts = {other: ours for ours, other in _KINDS.items()}.get(str(given.get("prediction_type", "")), "")
    predicts = predicts or {"table": "eps", "edm": "edm", "flow": "flow"}[claim.kind]
    config = {key: value for key, value in given.items() if key in own}
    options = {key: value for key, value in given.items() if key not in own}
    off = [key for key in _NONLINEAR if key in own and (config.get(key, own[key].default) is True)]
    config |= dict.fromkeys(off, False)
    rows = claim.rows if grid == "default" else claim.rows_elsewhere or claim.rows
    scheduler = _Scheduler(kind, claim.kind, rows, tuple(sorted(config.items())), tuple(sorted(options.items())))
    notes = tuple(f"{key} is nonlinear and is off here; {name} has it on" for key in off)
    prediction = scheduler.edm if claim.kind == "edm" else PREDICTIONS[predicts]
    order = int(given.get("solver_order", claim.order))
    said = " ".join([f"diffusers:{name}", *(f"{key}={value}" for key, value in given.items())])
    return Unmodified(said, scheduler.prepare, prediction, predicts, order, notes=notes)


@dataclass(frozen=True)
class _Scheduler:
    """A class of diffusers with its settings."""

    make: Any
    kind: str
    rows: int
    config: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]

    def edm(self, at: Level) -> tuple[float, float]:
        """F of D(x) = c_skip x + c_out F(c_in x) (Karras et al. 2022, equation 7)."""
        data = float(dict(self.config).get("sigma_data", 0.5))
        total = at.sigma**2 + data**2
        sign = -1 if dict(self.config).get("prediction_type") == "v_prediction" else 1
        out = sign * at.sigma * data / total**0.5
        return -(data**2) / total / out, 1 / out

    def prepare(self, steps: int, exact: bool) -> _Prepared:
        return _Prepared(self, steps, exact)

    @contextlib.contextmanager
    def context(self, exact: bool) -> Iterator[None]:
        """While the library works, whose warnings are for its authors."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with float64_throughout("diffusers.schedulers") if exact else contextlib.nullcontext():
                yield

    def instance(self, exact: bool) -> Any:
        """A new scheduler, its table of times as fine as is asked for: a copy of one that was never used."""
        return copy.deepcopy(_made(self, exact))

    def new(self, exact: bool) -> Any:
        """What its constructor makes."""
        config = dict(self.config)
        parameters = inspect.signature(self.make.__init__).parameters
        if self.kind == "table":
            schedule = {key: value for key, value in BETAS.items() if key in parameters and key not in config}
            if not exact:
                return self.make(**(schedule | config))
            shipped = self.make(**(schedule | config)).alphas_cumprod.double().numpy()
            rows = max(self.rows, len(shipped))
            config |= {"trained_betas": betas_of(refined(shipped, rows)), "num_train_timesteps": rows}
            if "original_inference_steps" in parameters:  # the most steps that it takes
                config.setdefault("original_inference_steps", rows)
        elif self.kind == "flow" and exact and "num_train_timesteps" not in config:
            config["num_train_timesteps"] = FINE
        return self.make(**config)


@lru_cache(maxsize=4)
def _made(scheduler: _Scheduler, exact: bool) -> Any:
    return scheduler.new(exact)


class _Prepared:
    """A scheduler that was given its number of steps. Runs are on copies of it: laying out the steps on a table of
    640,000 rows takes seconds, and a copy a tenth of one."""

    def __init__(self, scheduler: _Scheduler, steps: int, exact: bool) -> None:
        self.scheduler, self.exact = scheduler, exact
        with scheduler.context(exact):
            made = scheduler.instance(exact)
            self.path: GaussianPath | None = None
            if scheduler.kind == "table":
                self.path = table_of(made.alphas_cumprod.double().numpy())
            self.rows = float(made.config.get("num_train_timesteps", 1000))
            _lay_out(made, steps)
            self._laid_out = copy.deepcopy(made)
            first = made.timesteps[0]
            at = self.level(float(first))
            seen = _seen(made, torch.ones(1, 1, 1, 1, dtype=torch.float64), first)
        # what the network sees of a state 1: the state is the network's input, divided by it
        self._start = Level(at.alpha, at.sigma, at.scale / float(seen))
        self.prior: float | None = float(getattr(made, "init_noise_sigma", 1.0))

    def start(self, first: float) -> Level:  # noqa: ARG002 - known before the network is asked
        """The level of its first timestep."""
        return self._start

    def level(self, time: float) -> Level:
        """The level of a timestep: a row of the table, a quarter of log sigma, or rows times sigma."""
        if self.path is not None:
            return self.path.level(min(max(time, 0.0), self.path.end))
        if self.scheduler.kind == "edm":
            sigma, data = float(np.exp(4 * time)), float(dict(self.scheduler.config).get("sigma_data", 0.5))
            return Level(1.0, sigma, 1 / (sigma**2 + data**2) ** 0.5)
        sigma = time / self.rows
        return Level(1 - sigma, sigma)

    def run(self, network: Network, x: Tensor) -> Tensor:
        """The loop of a pipeline."""
        with self.scheduler.context(self.exact):
            made = copy.deepcopy(self._laid_out)
            for t in made.timesteps:
                answer = network(_seen(made, x, t), t)
                x = made.step(answer, t, x, **dict(self.scheduler.options)).prev_sample
        return x


def _lay_out(scheduler: Any, steps: int) -> None:
    """Its own times for so many steps. Raises ValueError, with what the library says, where it takes no such number."""
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:
        raise ValueError(
            f"{type(scheduler).__name__} takes no {steps} steps as it is set; give other --steps, or the "
            f"settings that allow them (--set): {error}"
        ) from error


def _seen(scheduler: Any, x: Tensor, t: Any) -> Tensor:
    """What the network is given of a state."""
    return scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x

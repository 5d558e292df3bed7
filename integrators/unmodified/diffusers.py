"""The schedulers of diffusers, unmodified: a loop around `scale_model_input`, the network and `step`.

Which noise there is at a timestep is the business of `schedules`. Studied to hundreds of steps a table of 1,000 rows is
what limits a scheduler, so an exact run has the same curve with more rows; the shipped one has the library's. States of
the sigma-space schedulers are alpha^-1 times those of the table; which they are is asked of the scheduler:
`scale_model_input` says what the network sees.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...theory.paths import Level
from . import claims
from .claims import NOT_MODELLED
from .contract import PREDICTIONS, Network, Unmodified
from .functions import ROWS
from .lifting import float64_throughout
from .schedules import COARSE, FINE, check, grid_of, kind_of, level, made, path_of, unrounded

INSTALL = "pip install '.[diffusers]' in a copy of the repository"

_KINDS = {"eps": "epsilon", "data": "sample", "v": "v_prediction", "flow": "flow_prediction"}


class Claim(NamedTuple):
    """What is known of a class: what is claimed of its order, as it is set; which kind of schedule it has, unless its
    settings say otherwise (`schedules.kind_of`); the rows of its table in an exact run, on its own grid and on others,
    of which each sigma is looked up in all rows; and the grids that it turns into a flow's levels with
    `use_flow_sigmas`: other classes run the sigmas of a table as they are, as if they were a flow's."""

    order: claims.Order
    kind: str = "table"
    rows: int = FINE
    rows_elsewhere: int | None = None
    on_flow: tuple[str, ...] = ()


SCHEDULERS: dict[str, Claim] = {
    "CogVideoXDDIMScheduler": Claim(claims.ddim),
    "CosineDPMSolverMultistepScheduler": Claim(claims.cosine_dpm, "edm-angle"),
    "DDIMParallelScheduler": Claim(claims.ddim),
    "DDIMScheduler": Claim(claims.ddim),
    "DDPMParallelScheduler": Claim(claims.ancestral),
    "DDPMScheduler": Claim(claims.ancestral),
    "DEISMultistepScheduler": Claim(claims.deis),
    "DPMSolverMultistepScheduler": Claim(claims.dpm_multistep),
    "DPMSolverSDEScheduler": Claim(claims.dpm_sde, rows=COARSE),
    "DPMSolverSinglestepScheduler": Claim(claims.dpm_singlestep),
    "EDMDPMSolverMultistepScheduler": Claim(claims.dpm_multistep, "edm"),
    "EDMEulerScheduler": Claim(claims.euler, "edm"),
    "EulerAncestralDiscreteScheduler": Claim(claims.ancestral),
    "EulerDiscreteScheduler": Claim(claims.euler),
    "FlowMatchEulerDiscreteScheduler": Claim(claims.euler, "flow"),
    "FlowMatchHeunDiscreteScheduler": Claim(claims.heun, "flow"),
    "HeunDiscreteScheduler": Claim(claims.heun, rows=COARSE),
    "KDPM2AncestralDiscreteScheduler": Claim(claims.ancestral, rows=COARSE),
    "KDPM2DiscreteScheduler": Claim(claims.kdpm2, rows=COARSE),
    "LCMScheduler": Claim(claims.consistency),
    "LMSDiscreteScheduler": Claim(claims.lms, rows_elsewhere=COARSE),
    "LTXEulerAncestralRFScheduler": Claim(claims.ancestral, "flow"),
    "PNDMScheduler": Claim(claims.pndm),
    "SASolverScheduler": Claim(claims.sa_solver),
    "TCDScheduler": Claim(claims.consistency),
    "UniPCMultistepScheduler": Claim(claims.unipc, on_flow=("karras",)),
}
# Of a run's options these are nonlinear, and off: a Gaussian's data reach beyond them.
_NONLINEAR = ("clip_sample", "thresholding")
# What `step` and `set_timesteps` are given by the loop.
_GIVEN = ("self", "model_output", "timestep", "sample", "return_dict")


def schedulers() -> Any:
    """diffusers' module of schedulers. Raises ValueError, in one line, where it is missing."""
    try:
        from diffusers import schedulers as module
        from diffusers.utils import logging
    except ImportError as error:
        raise ValueError(f"diffusers is not installed ({error}); {INSTALL}") from error
    logging.set_verbosity_error()
    return module


def diffusers_sampler(
    name: str, settings: Mapping[str, Any] | None = None, grid: str = "default", rows: int | None = None
) -> Unmodified:
    """A scheduler of diffusers by its class's name; settings: of its constructor or its step, by their names; grid:
    default, or karras, exponential, beta where it has them; rows: of the table that it is refined on, 1,000 and more,
    default `Claim.rows`.

    Raises ValueError on a name, setting or grid that it has not, and on fewer rows.
    """
    claim, kind, given = _claim_of(name), _class_of(name), dict(settings or {})
    own, step = inspect.signature(kind.__init__).parameters, inspect.signature(kind.step).parameters
    layout = [key for key in ("mu",) if key in inspect.signature(kind.set_timesteps).parameters]
    if unknown := [key for key in given if key not in own and key not in step and key not in layout]:
        known = [key for key in (*own, *step, *layout) if key not in _GIVEN]
        raise ValueError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(known)}")
    if grid != "default":
        flag = f"use_{grid}_sigmas"
        if flag in own:
            given[flag] = True
        elif "sigma_schedule" in own and own["sigma_schedule"].default != grid:
            given["sigma_schedule"] = grid
        else:
            raise ValueError(f"{name} has no grid {grid!r}; leave it at its default")
    config = {key: _frozen(value) for key, value in given.items() if key in own}
    off = [key for key in _NONLINEAR if key in own and (config.get(key, own[key].default) is True)]
    config |= dict.fromkeys(off, False)
    full = {key: each.default for key, each in own.items() if each.default is not each.empty} | config
    schedule = kind_of(claim.kind, full)
    check(name, schedule, full, given.get("mu"), claim.on_flow)
    if rows is not None and rows < ROWS:
        raise ValueError(f"rows = {rows} refines no table; give {ROWS:,}, which most ship with, or more")
    if rows is None:
        rows = claim.rows if grid_of(full) == "default" else claim.rows_elsewhere or claim.rows
    scheduler = _Scheduler(
        kind,
        schedule,
        rows,
        tuple(sorted(config.items())),
        tuple((key, _frozen(value)) for key, value in sorted(given.items()) if key in step and key not in own),
        tuple((key, given[key]) for key in layout if key in given),
    )
    notes = tuple(f"{key} is nonlinear and is off here; {'--set' if key in given else name} has it on" for key in off)
    predicts = {other: ours for ours, other in _KINDS.items()}.get(str(full.get("prediction_type", "")), "")
    predicts = "edm" if schedule.startswith("edm") else predicts or "flow"
    prediction = scheduler.edm if predicts == "edm" else PREDICTIONS[predicts]
    held = claim.order(full | {key: value for key, value in given.items() if key in step})
    said = " ".join([f"diffusers:{name}", *(f"{key}={value}" for key, value in given.items())])
    return Unmodified(said, scheduler.prepare, prediction, predicts, held.order, notes=notes, claim=held.said)


def _claim_of(name: str) -> Claim:
    """Raises ValueError on a name that is not modelled, with the reason where there is one."""
    if name in SCHEDULERS:
        return SCHEDULERS[name]
    nearest = sorted(SCHEDULERS, key=lambda known: -SequenceMatcher(None, name, known).ratio())
    if name in NOT_MODELLED:
        raise ValueError(f"diffusers:{name} is not modelled: {NOT_MODELLED[name]}; choose {', '.join(nearest)}")
    raise ValueError(f"diffusers:{name} is none of the schedulers that are known; choose {', '.join(nearest)}")


def _class_of(name: str) -> Any:
    """The class. Raises ValueError where the library is too old for it, or it needs another that is missing."""
    module = schedulers()
    try:
        kind = getattr(module, name)
    except AttributeError as error:
        raise ValueError(f"this diffusers has no {name}; install a newer one: {INSTALL}") from error
    if needs := getattr(kind, "_backends", None):  # the library's stand-in
        raise ValueError(f"diffusers:{name} needs {' and '.join(needs)}, and one of them is missing; {INSTALL}")
    return kind


def _frozen(value: Any) -> Any:
    """A setting that can be looked up: a tuple for a list."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class _Scheduler:
    """A class of diffusers with its settings."""

    make: Any
    kind: str
    rows: int
    config: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]
    layout: tuple[tuple[str, Any], ...] = ()

    def edm(self, at: Level) -> tuple[float, float]:
        """F of D(x) = c_skip x + c_out F(c_in x) (Karras et al. 2022, equation 7)."""
        defaults = {key: each.default for key, each in inspect.signature(self.make.__init__).parameters.items()}
        settings = defaults | dict(self.config)
        data = float(settings["sigma_data"])
        total = at.sigma**2 + data**2
        sign = -1 if settings["prediction_type"] == "v_prediction" else 1
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
        """What its constructor makes. Raises ValueError, with what the library says, where it makes nothing of its
        settings."""
        try:
            return made(self.make, self.kind, self.rows, dict(self.config), exact)
        except (TypeError, ImportError, NotImplementedError, KeyError) as error:
            raise ValueError(
                f"{self.make.__name__} cannot be made as it is set; give other settings (--set): {error}"
            ) from error


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
            self.path = path_of(made.alphas_cumprod.double().numpy()) if scheduler.kind == "table" else None
            self.timesteps = float(made.config.get("num_train_timesteps", 1000))
            self.sigma_data = float(made.config.get("sigma_data", 0.5))
            _lay_out(made, steps, dict(scheduler.layout))
            if exact:
                unrounded(made, scheduler.kind)
            self._laid_out = copy.deepcopy(made)
            first = made.timesteps[0]
            at = self.level(float(first))
            seen = _seen(made, torch.ones(1, 1, 1, 1, dtype=torch.float64), first)
        # what the network sees of a state 1: the state is the network's input, divided by it
        self._start = Level(at.alpha, at.sigma, at.scale / float(seen))
        self.prior: float | None = float(getattr(made, "init_noise_sigma", 1.0))

    @property
    def is_by_row(self) -> bool:
        """Whether a timestep counts rows, or the steps of a flow's training, and is an integer as shipped."""
        return not self._laid_out.timesteps.is_floating_point() or self.path is not None

    @property
    def rows(self) -> int:
        """Of the table that is its path; 0 where none is."""
        return 0 if self.path is None else round(self.path.end) + 1

    def start(self, first: float) -> Level:  # noqa: ARG002 - known before the network is asked
        """The level of its first timestep."""
        return self._start

    def level(self, time: float) -> Level:
        """The level of a timestep (`schedules`)."""
        return level(self.scheduler.kind, time, self.path, self.timesteps, self.sigma_data)

    def run(self, network: Network, x: Tensor) -> Tensor:
        """The loop of a pipeline."""
        with self.scheduler.context(self.exact):
            made = copy.deepcopy(self._laid_out)
            for t in made.timesteps:
                answer = network(_seen(made, x, t), t)
                x = made.step(answer, t, x, **dict(self.scheduler.options)).prev_sample
        return x


def _lay_out(scheduler: Any, steps: int, options: Mapping[str, Any]) -> None:
    """Its own times for so many steps. Raises ValueError, with what the library says, where it takes no such number."""
    try:
        scheduler.set_timesteps(steps, **options)
    except (ValueError, TypeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"{type(scheduler).__name__} takes no {steps} steps as it is set; give other --steps, or the "
            f"settings that allow them (--set): {error}"
        ) from error


def _seen(scheduler: Any, x: Tensor, t: Any) -> Tensor:
    """What the network is given of a state."""
    return scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x

"""Answers that were known before: what a prototype of this reading measured, beside what is measured here.

The prototype read 130 configurations of diffusers and k-diffusion, and its numbers are those of the request that this
reading was written for: slopes of the variance's error at the last network state, up to 640 steps, and sizes of what is
wrong. Which data it had is not known. Here they are the study's six targets, as a root mean square and one by one; a
slope whose errors are what rounded timesteps leave is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...integrators.unmodified import (
    PREDICTIONS,
    Network,
    Unmodified,
    diffusers_sampler,
    float64_throughout,
    k_diffusion_sampler,
    samplers,
)
from ...theory.paths import Level
from ..verdicts import Array
from .findings import FINDINGS, repaired
from .laws import Data, laws_along
from .sizes import SDE
from .study import BESIDE, TARGETS, errors_of
from .transcript import transcribe

STEPS = (20, 40, 80, 160, 320, 640)
_ALONE = tuple(Data(TARGETS.mean[k : k + 1], TARGETS.variance[k : k + 1]) for k in range(TARGETS.mean.size))


@dataclass(frozen=True)
class Known:
    """An order that was known: the sampler, in words and by name, its grid and settings; prototype, the slope; steps:
    at which it is run; before: how many evaluations before the last one its state is looked at; rows: of its table,
    None for what it is judged with; why: what makes a difference, with the names of `filled` in braces."""

    said: str
    name: str
    grid: str
    prototype: float
    why: str = "{near} from {from} on; at the end rounded timesteps begin to show"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = STEPS
    before: int = 0
    rows: int | None = None


class Slopes(NamedTuple):
    """Slopes of the variance's error between doubling numbers of steps: steps (levels,), of the root mean square
    (levels - 1,) and of each target (levels - 1, V), nan where rounding hides them."""

    steps: Array
    together: Array
    alone: Array


def slopes_of(known: Known) -> Slopes:
    """Run it and measure. Raises ValueError, BlackBoxError."""
    sampler = _sampler(known.name, known.settings, known.grid, known.rows)
    look = _errors if known.before == 0 else partial(_errors_before, known.before)
    runs = [look(sampler, count) for count in known.steps]
    seen = np.array([[np.nan if v < BESIDE * m else v for v, m in zip(*run, strict=True)] for run in runs])
    slopes = np.log2(seen[:-1] / seen[1:])
    return Slopes(np.array(known.steps), slopes[:, 0], slopes[:, 1:])


def _sampler(name: str, settings: Mapping[str, Any], grid: str, rows: int | None = None) -> Unmodified:
    if name == _INDEPENDENT.name:
        return _INDEPENDENT
    if name.startswith("sample_"):
        return k_diffusion_sampler(name, settings, grid)
    return diffusers_sampler(name, settings, grid, rows)


def _errors(sampler: Unmodified, steps: int, exact: bool = True, what: str = "variance") -> tuple[Array, Array]:
    """Errors of what is asked for and of the mean, of all targets and of each: (1 + V,) each."""
    run = transcribe(sampler, steps, exact)
    rows = [errors_of(sampler, run, data) for data in (TARGETS, *_ALONE)]
    return np.array([row[what] for row in rows]), np.array([row["mean"] for row in rows])


def _errors_before(last: int, sampler: Unmodified, steps: int) -> tuple[Array, Array]:
    """Those of the variance and of the mean, so many evaluations before the last one."""
    run = transcribe(sampler, steps)
    (mean, variance), (exact_mean, exact) = laws_along(sampler, run, TARGETS, run.nfe - 1 - last)
    return _with_all(np.abs(variance / exact - 1)), _with_all(np.abs(mean - exact_mean) / np.sqrt(exact))


def _with_all(errors: Array) -> Array:
    """Behind the root mean square of them, (1 + V,)."""
    return np.concatenate([[np.sqrt(np.mean(errors**2))], errors])


class _Apart:
    """DPM-Solver++(SDE) with numbers that are drawn anew for its inner stage, where a tree keeps to one path."""

    prior = None

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def start(self, first: float) -> Level:
        """The level of the first sigma."""
        return Level(1.0, first)

    def level(self, time: float) -> Level:
        """The time is sigma."""
        return Level(1.0, time)

    def run(self, network: Network, x: Tensor) -> Tensor:
        """One call."""
        library = samplers()
        with float64_throughout("k_diffusion"):
            sigmas = library.get_sigmas_karras(self.steps, 0.0292, 14.6146)
            return library.sample_dpmpp_sde(
                network, x, sigmas, disable=True, noise_sampler=lambda *_: torch.randn_like(x)
            )


_INDEPENDENT = Unmodified("independent", lambda steps, _: _Apart(steps), PREDICTIONS["denoiser"], "denoiser")
_MULTI, _SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
_BY_THREE = (15, 30, 60, 120, 240, 480)
_ONE = (
    "the slope still rises to 1, and a root mean square is of the targets with the least variance: by target it goes "
    "up to {high}"
)
KNOWN = (
    Known("DDIM", "DDIMScheduler", "default", 1),
    Known("Euler", "EulerDiscreteScheduler", "karras", 1),
    Known("EDM-Euler", "EDMEulerScheduler", "default", 1),
    Known("flow-match Euler", "FlowMatchEulerDiscreteScheduler", "default", 1),
    Known("DDPM small", "DDPMScheduler", "default", 0.89, _ONE),
    Known("DDIM, eta 1", "DDIMScheduler", "default", 0.89, _ONE, {"eta": 1.0}),
    Known("EulerAncestral", "EulerAncestralDiscreteScheduler", "default", 0.89, _ONE),
    Known("Heun", "HeunDiscreteScheduler", "karras", 2),
    Known("EDM Heun, of k-diffusion", "sample_heun", "karras", 2),
    Known("flow-match Heun", "FlowMatchHeunDiscreteScheduler", "default", 2),
    Known("KDPM2", "KDPM2DiscreteScheduler", "karras", 2.0),
    Known(
        "KDPM2",
        "KDPM2DiscreteScheduler",
        "default",
        1.5,
        "the slope rises with the steps, and is {near} from {from} on",
    ),
    Known("KDPM2Ancestral", "KDPM2AncestralDiscreteScheduler", "karras", 2.0),
    Known("KDPM2Ancestral", "KDPM2AncestralDiscreteScheduler", "default", 1.5, "as KDPM2: {near} from {from} on"),
    Known(
        "LMS-4, of k-diffusion",
        "sample_lms",
        "karras",
        3.9,
        "its first steps have orders 1 to 3, and what they leave has order 2: the larger the data's variance, the "
        "sooner it is seen; of variance 0.04 alone the slope is up to {high_of_least}",
    ),
    Known("PNDM, eps", "PNDMScheduler", "default", 1.1, "that is its first pair, {first}, and the slope rises to 2"),
    Known("DPMSolverSinglestep 2S", _SINGLE, "karras", 1.99),
    Known(
        "DPMSolverSinglestep 3S, 15 steps and more",
        _SINGLE,
        "karras",
        3.0,
        settings={"solver_order": 3},
        steps=_BY_THREE,
    ),
    Known(
        "DPMSolverSinglestep 3S, 17 steps and more",
        _SINGLE,
        "karras",
        3.0,
        "numbers of steps that are 2 more than a multiple of 3 end with a step of order 2, and have that order",
        {"solver_order": 3},
        tuple(count + 2 for count in _BY_THREE),
    ),
    Known("DPM-Solver++ 2M", _MULTI, "karras", 2.0),
    Known(
        "DPM-Solver++ 2M",
        _MULTI,
        "default",
        1.54,
        "no order to agree on: its last sigma falls with the steps, and its last step in log sigma hardly does; what "
        "that makes of the slope depends on the data, by target up to {high} at the end, and rising",
    ),
    Known("DPM-Solver++ 3M", _MULTI, "karras", 2.0, settings={"solver_order": 3}),
    Known("SDE-DPM-Solver++ 2M", _MULTI, "karras", 2.0, settings=SDE),
    Known("2m_sde, of k-diffusion", "sample_dpmpp_2m_sde", "karras", 2.0, steps=STEPS[:5]),
    Known("UniPC-2", "UniPCMultistepScheduler", "karras", 3.1),
    Known(
        "UniPC-3",
        "UniPCMultistepScheduler",
        "karras",
        4,
        "{near} from {from} on; its last step has order 2 (`lower_order_final`) and leaves 3, as the next row shows",
        {"solver_order": 3},
    ),
    Known(
        "UniPC-3, one evaluation before the last, with 8 million rows",
        "UniPCMultistepScheduler",
        "karras",
        4,
        settings={"solver_order": 3},
        steps=STEPS[:4],
        before=1,
        rows=8_000_000,
    ),
    Known("DEIS-2", "DEISMultistepScheduler", "karras", 2.0),
    Known(
        "DEIS-3",
        "DEISMultistepScheduler",
        "karras",
        2.95,
        "{near} from {from} on; then rounded timesteps hide it",
        {"solver_order": 3},
    ),
    Known("SA-Solver p2c2, tau 0", "SASolverScheduler", "karras", 2.0, settings={"tau_func": lambda _: 0.0}),
    Known("SA-Solver p2c2, tau 1", "SASolverScheduler", "karras", 2.08, settings={"tau_func": lambda _: 1.0}),
    Known("dpmpp_sde with its tree", "sample_dpmpp_sde", "karras", 2.16, steps=STEPS[:4]),
    Known("dpmpp_sde with independent noise", "independent", "karras", 0.96, steps=STEPS[:4]),
)


# --- Sizes ------------------------------------------------------------------------------------------------------------


class Size(NamedTuple):
    """The root mean square over the targets, and the least and the largest of one."""

    together: float
    least: float
    largest: float


class Sized(NamedTuple):
    """Numbers that were known: of what, what the prototype had, how they are measured here, why they differ."""

    said: str
    prototype: str
    measure: Callable[[], list[Size]]
    why: str = ""


def _size(
    name: str,
    steps: int,
    settings: Mapping[str, Any],
    grid: str = "default",
    exact: bool = True,
    what: str = "variance",
) -> Size:
    found, _ = _errors(_sampler(name, settings, grid), steps, exact, what)
    return Size(float(found[0]), float(found[1:].min()), float(found[1:].max()))


def _mended(title: str, measure: Callable[[], Size]) -> Size:
    with repaired(next(finding for finding in FINDINGS if finding.title == title)):
        return measure()


def _slope(name: str, settings: Mapping[str, Any], what: str, grid: str = "default") -> Size:
    coarse, fine = (_errors(_sampler(name, settings, grid), steps, what=what)[0] for steps in (80, 160))
    with np.errstate(all="ignore"):
        slopes = np.log2(coarse / fine)
    alone = slopes[1:][fine[1:] > 1e-9]  # a mean of 0 has no error
    return Size(float(slopes[0]), float(alone.min()), float(alone.max()))


_THIRD = {**SDE, "solver_order": 3}
_WEIGHS = FINDINGS[0].title
_P3C4 = {"predictor_order": 3, "corrector_order": 4}
_WITHIN = "other data: it is within what single targets have"
SIZED = (
    Sized(
        "third-order SDE-DPM-Solver++, default grid, 50 and 250 steps: variance",
        "16 %, 74 %",
        lambda: [_size(_MULTI, steps, _THIRD) for steps in (50, 250)],
        _WITHIN,
    ),
    Sized(
        "the same as shipped and with + 0.5 and 2 D2, Karras' grid, 320 steps",
        "8e-3, 1e-4",
        lambda: [
            _size(_MULTI, 320, _THIRD, "karras"),
            _mended(_WEIGHS, lambda: _size(_MULTI, 320, _THIRD, "karras")),
        ],
        "the number of steps is not said",
    ),
    Sized(
        "single-step, with heun, Karras' grid, 80 steps: variance",
        "20 to 50 times too large",
        lambda: [_size(_SINGLE, 80, _THIRD | {"solver_type": "heun"}, "karras")],
        "agrees",
    ),
    Sized(
        "single-step SDE 1S, 2S, 3S, Karras' grid, 80 to 160 steps: slope of the variance",
        "2S and 3S: 1",
        lambda: [_slope(_SINGLE, SDE | {"solver_order": order}, "variance", "karras") for order in (1, 2, 3)],
        "agrees: 1, from below",
    ),
    Sized(
        "PNDM with v-prediction, 80 to 160 steps: slopes of mean and variance",
        "1, 1",
        lambda: [_slope("PNDMScheduler", {"prediction_type": "v_prediction"}, what) for what in ("mean", "variance")],
        "agrees",
    ),
    Sized(
        "DDIM trailing, 300 steps: variance, mean",
        "17 %, 0.1 sd",
        lambda: [
            _size("DDIMScheduler", 300, {"timestep_spacing": "trailing"}, exact=False, what=what)
            for what in ("variance", "mean")
        ],
        _WITHIN,
    ),
    Sized(
        "EDMEuler with churn 20, 80 steps: mean",
        "0.3 sd",
        lambda: [_size("EDMEulerScheduler", 80, {"s_churn": 20.0}, what="mean")],
        "other data: it is in proportion to the data's mean, here 2.5 sd at the most",
    ),
    Sized(
        "DEIS-3, 500 steps, float32 and float64: variance",
        "19 %, 1e-5",
        lambda: [_size("DEISMultistepScheduler", 500, {"solver_order": 3}, exact=exact) for exact in (False, True)],
        _WITHIN,
    ),
    Sized(
        "SA-Solver p3c4, 500 steps, float32 and float64: variance",
        "6 to 9 %, 0.1 to 0.7 %",
        lambda: [_size("SASolverScheduler", 500, _P3C4, exact=exact) for exact in (False, True)],
        _WITHIN,
    ),
    Sized(
        "Heun with churn 40 and S_noise 1.003 and 1.007, 640 steps: variance",
        "0.7 to 1.5 %",
        lambda: [_size("sample_heun", 640, {"s_churn": 40.0, "s_noise": noise}, "karras") for noise in (1.003, 1.007)],
        "agrees",
    ),
    Sized(
        "2M, default grid, 20 steps: variance before and after the last jump",
        "0.6 %, 23 %",
        lambda: [_size(_MULTI, 20, {}, what=what) for what in ("variance", "final")],
        _WITHIN,
    ),
    Sized(
        "the same after it: 2M on Karras' grid; LMS; PNDM",
        "2 %, 2.7 %, 4.9 %",
        lambda: [
            _size(_MULTI, 20, {}, "karras", what="final"),
            _size("LMSDiscreteScheduler", 20, {}, what="final"),
            _size("PNDMScheduler", 20, {}, what="final"),
        ],
        _WITHIN,
    ),
    Sized(
        "gain, 640 steps: DDPM; EulerAncestral; SDE-DPM-Solver++ 2M on Karras' grid",
        "exact",
        lambda: [
            _size("DDPMScheduler", 640, {}, what="gain"),
            _size("EulerAncestralDiscreteScheduler", 640, {}, what="gain"),
            _size(_MULTI, 640, SDE, "karras", what="gain"),
        ],
        "it tends to that of the reverse SDE",
    ),
    Sized(
        "KDPM2Ancestral, Karras' grid, 80 to 160 steps: slope of the gain",
        "1",
        lambda: [_slope("KDPM2AncestralDiscreteScheduler", {}, "gain", "karras")],
        "agrees",
    ),
)


def filled(known: Known, slopes: Slopes) -> str:
    """Why, with its numbers: `near`, the slope of the root mean square that is nearest to the prototype's, and `from`,
    where that begins; `first`; `high`, of the last pair by target; `high_of_least`, of the least variance in any
    pair."""
    off = np.abs(slopes.together - known.prototype)
    near = int(np.nanargmin(off))
    numbers = {
        "near": slopes.together[near],
        "first": slopes.together[0],
        "high": slopes.alone[-1].max(),
        "high_of_least": np.nanmax(slopes.alone[:, 0]),
    }
    told = {name: f"{value:.2f}" for name, value in numbers.items()}
    return known.why.format(**told, **{"from": f"{slopes.steps[near]:.0f} steps"})

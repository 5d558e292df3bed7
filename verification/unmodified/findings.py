"""What is wrong, or said nowhere, in samplers that people use: each finding with the line that does it, and its size.

A finding is a statement, the line of the library's source that it comes from, and a measurement: numbers of runs that
are read off as a survey's are (unmodified.survey), on the study's Gaussian targets. Where the cure is one expression,
it is written in, and the repaired sampler measured beside the shipped one. A line that a version of the library no
longer has is said to be gone; the numbers are then those of that version.

Errors are relative errors of the variance and, in standard deviations, of the mean, at the last state that the network
saw, from an exact start, unless a key says otherwise; root mean square over the targets.
"""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...integrators.blackbox import BlackBoxError
from ...integrators.unmodified import diffusers_sampler, k_diffusion_sampler, samplers, schedulers
from .study import TARGETS, errors_of
from .transcript import transcribe

Numbers = dict[str, float | str]
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_CHURN = {"s_churn": 20.0}


class Place(NamedTuple):
    """Where it is: a class's method, or a function of a module, and a piece of its line."""

    owner: str
    method: str
    piece: str


class Finding(NamedTuple):
    """What was found. text: with the names of the numbers in braces; repair: of the piece, what to write instead."""

    title: str
    library: str
    place: Place
    text: str
    measure: Callable[[], Numbers]
    repair: tuple[str, str] | None = None


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


def _source(place: Place, library: str) -> tuple[Any, str, Any]:
    """What has the attribute, its name, and the function."""
    owner: Any = schedulers() if library == "diffusers" else samplers()
    name = place.owner
    if place.method:
        owner, name = getattr(owner, place.owner), place.method
    return owner, name, getattr(owner, name)


def line_of(finding: Finding) -> str:
    """FILE:LINE of the finding in the library that is installed; "" where this version has no such line."""
    try:
        function = _source(finding.place, finding.library)[2]
        lines, first = inspect.getsourcelines(inspect.unwrap(function))
    except (AttributeError, OSError, TypeError):
        return ""
    at = next((number for number, line in enumerate(lines, first) if finding.place.piece in line), None)
    return "" if at is None else f"{Path(inspect.getfile(inspect.unwrap(function))).name}:{at}"


@contextlib.contextmanager
def repaired(finding: Finding) -> Iterator[None]:
    """While the library's function has the finding's repair. Raises ValueError where it has not the line."""
    owner, name, function = _source(finding.place, finding.library)
    source = textwrap.dedent(inspect.getsource(function))
    old, new = finding.repair or ("", "")
    if not old or old not in source:
        raise ValueError(f"{finding.place.owner}.{name} has no {old!r} to repair")
    made: dict[str, Any] = {}
    exec(source.replace(old, new), function.__globals__, made)
    setattr(owner, name, made[function.__name__])
    try:
        yield
    finally:
        setattr(owner, name, function)


def measured(title: str) -> dict[str, Any]:
    """The finding of that title in JSON's own types: where it is, its numbers, its sentence."""
    finding = next(each for each in FINDINGS if each.title == title)
    numbers, line = finding.measure(), line_of(finding)
    if finding.repair is not None and line:
        with repaired(finding):
            numbers |= {f"repaired_{key}": value for key, value in finding.measure().items()}
    shown = {key: value if isinstance(value, str) else f"{value:.2g}" for key, value in numbers.items()}
    return {
        "title": finding.title,
        "owner": ".".join(part for part in finding.place[:2] if part),
        "line": line,
        "piece": finding.place.piece,
        "numbers": numbers,
        "text": finding.text.format_map(defaultdict(lambda: "?", shown)),
    }


# --- diffusers --------------------------------------------------------------------------------------------------------


def _third_order() -> Numbers:
    name, third = "DPMSolverMultistepScheduler", _SDE | {"solver_order": 3}
    return {
        "few": errors(name, 50, third)["variance"],
        "many": errors(name, 250, third)["variance"],
        "second": errors(name, 50, _SDE)["variance"],
    }


def _third_order_single() -> Numbers:
    name, third = "DPMSolverSinglestepScheduler", _SDE | {"solver_order": 3}
    return {
        "heun": errors(name, 80, third | {"solver_type": "heun"}, "karras")["variance"],
        "midpoint": errors(name, 80, third, "karras")["variance"],
    }


def _half() -> Numbers:
    name, third = "DPMSolverMultistepScheduler", {"solver_order": 3, "lower_order_final": False}
    return {key: errors(name, steps, third, "karras")["variance"] for key, steps in (("few", 40), ("many", 160))}


def _single() -> Numbers:
    name = "DPMSolverSinglestepScheduler"
    found: Numbers = {
        f"of_{order}": errors(name, steps, _SDE | {"solver_order": order}, "karras")["variance"]
        for order, steps in ((1, 160), (2, 160), (3, 160))
    }
    return found | {"at_80": errors(name, 80, _SDE | {"solver_order": 2}, "karras")["variance"]}


def _pndm() -> Numbers:
    v = {"prediction_type": "v_prediction"}
    return {
        "few": errors("PNDMScheduler", 20, v)["mean"],
        "many": errors("PNDMScheduler", 160, v)["mean"],
        "eps": errors("PNDMScheduler", 20)["mean"],
    }


def _spacing() -> Numbers:
    found: Numbers = {}
    for spacing in ("linspace", "trailing", "leading"):
        run = errors("DDIMScheduler", 300, {"timestep_spacing": spacing}, exact=False)
        found |= {spacing: run["variance"], f"{spacing}_mean": run["mean"]}
    return found


def _churned() -> Numbers:
    edm, early = errors("EDMEulerScheduler", 80, _CHURN), errors("EulerDiscreteScheduler", 80, _CHURN, "karras")
    asked = errors("sample_euler", 80, _CHURN, "karras")
    return {
        "edm_mean": edm["mean"],
        "edm": edm["variance"],
        "early": early["variance"],
        "late": asked["variance"],
        "late_mean": asked["mean"],
    }


def _single_precision() -> Numbers:
    sa = {"predictor_order": 3, "corrector_order": 4}
    found: Numbers = {}
    for key, name, settings in (
        ("deis", "DEISMultistepScheduler", {"solver_order": 3}),
        ("sa", "SASolverScheduler", sa),
    ):
        for exact in (False, True):
            found[f"{key}_{'double' if exact else 'single'}"] = errors(name, 500, settings, exact=exact)["variance"]
    return found


def _last_jump() -> Numbers:
    found: Numbers = {}
    for key, grid in (("own", "default"), ("karras", "karras")):
        run = errors("DPMSolverMultistepScheduler", 20, grid=grid)
        found |= {key: run["variance"], f"{key}_final": run["final"]}
    return found


def _consistency() -> Numbers:
    return {
        "lcm_few": errors("LCMScheduler", 4)["variance"],
        "lcm_many": errors("LCMScheduler", 32)["variance"],
        "tcd_few": errors("TCDScheduler", 4)["variance"],
        "tcd_many": errors("TCDScheduler", 32)["variance"],
    }


def _repeated_sigma() -> Numbers:
    heun = {"solver_type": "heun", "final_sigmas_type": "sigma_min"}
    third = {"solver_order": 3, "final_sigmas_type": "sigma_min"}
    name = "DPMSolverMultistepScheduler"
    return {
        "heun": refusal(name, 15, heun, "karras"),
        "third": refusal(name, 15, third, "karras"),
        "fewer": errors(name, 14, heun, "karras", exact=False)["variance"],
    }


FINDINGS = (
    Finding(
        "Third-order SDE-DPM-Solver++ has a wrong sign",
        "diffusers",
        Place(
            "DPMSolverMultistepScheduler",
            "multistep_dpm_solver_third_order_update",
            "- 2.0 * h) / (2.0 * h) ** 2 - 0.5)) * D2",
        ),
        "As h tends to 0 the second difference must lose its weight, and keeps -1: on the default grid the variance is "
        "off by {few} at 50 steps and by {many} at 250 (second order: {second} at 50). With + 0.5 it is {repaired_few} "
        "and {repaired_many}.",
        _third_order,
        ("/ (2.0 * h) ** 2 - 0.5)) * D2", "/ (2.0 * h) ** 2 + 0.5)) * D2"),
    ),
    Finding(
        "So has its single-step form with heun",
        "diffusers",
        Place(
            "DPMSolverSinglestepScheduler",
            "singlestep_dpm_solver_third_order_update",
            "+ (-2.0 * h)) / (-2.0 * h) ** 2 - 0.5)) * D2",
        ),
        "The variance is {heun} times too large at 80 steps on Karras' grid; with + 0.5 it is off by {repaired_heun}, "
        "and by {midpoint} with midpoint.",
        _third_order_single,
        ("/ (-2.0 * h) ** 2 - 0.5)) * D2", "/ (-2.0 * h) ** 2 + 0.5)) * D2"),
    ),
    Finding(
        "Third-order DPM-Solver++ weighs the second difference by half",
        "diffusers",
        Place(
            "DPMSolverMultistepScheduler",
            "multistep_dpm_solver_third_order_update",
            "- (alpha_t * ((torch.exp(-h) - 1.0 + h) / h**2 - 0.5)) * D2",
        ),
        "D2 is the divided difference, half of a second derivative, and has the weight of a whole one: on Karras' grid "
        "(lower_order_final off) the variance is off by {few} at 40 steps and {many} at 160, order 2. With 2 D2, the "
        "parabola's exact integral, it is {repaired_few} and {repaired_many}, order 3.",
        _half,
        (
            "(alpha_t * ((torch.exp(-h) - 1.0 + h) / h**2 - 0.5)) * D2",
            "(alpha_t * ((torch.exp(-h) - 1.0 + h) / h**2 - 0.5)) * 2 * D2",
        ),
    ),
    Finding(
        "Single-step SDE-DPM-Solver++ of order 2 and 3 is of order 1",
        "diffusers",
        Place(
            "DPMSolverSinglestepScheduler",
            "singlestep_dpm_solver_second_order_update",
            "+ 0.5 * (alpha_t * (1 - torch.exp(-2.0 * h))) * D1",
        ),
        "Its stages draw numbers of their own, so that what their difference takes for a derivative is noise. The "
        "variance is off by {at_80} and {of_2} at 80 and 160 steps on Karras' grid with order 2, by {of_3} at 160 with "
        "order 3, and by {of_1} with order 1.",
        _single,
    ),
    Finding(
        "PNDM reads v-prediction at the wrong state",
        "diffusers",
        Place(
            "PNDMScheduler",
            "_get_prev_sample",
            "(alpha_prod_t**0.5) * model_output + (beta_prod_t**0.5) * sample",
        ),
        "Answers at several states and times are averaged first, and turned into eps with the state and time at the "
        "step's beginning: the mean is off by {few} sd at 20 steps and {many} at 160, and by {eps} with eps.",
        _pndm,
    ),
    Finding(
        "DDIM steps to other times than it asks the network about",
        "diffusers",
        Place(
            "DDIMScheduler",
            "step",
            "prev_timestep = timestep - self.config.num_train_timesteps // self.num_inference_steps",
        ),
        "Where the number of steps does not divide that of the table, or with linspace, the next timestep is not the "
        "one that is stepped to: at 300 steps the variance is off by {linspace} (linspace) and {trailing} (trailing), "
        "the mean by {linspace_mean} and {trailing_mean} sd; with leading by {leading} and {leading_mean}.",
        _spacing,
    ),
    Finding(
        "Churn adds its noise after the network was asked",
        "diffusers",
        Place("EDMEulerScheduler", "step", "sample = sample + eps * (sigma_hat**2 - sigma**2) ** 0.5"),
        "Karras et al. 2022 (algorithm 2) raise the noise and ask then. With s_churn 20 and 80 steps "
        "EDMEulerScheduler's mean is off by {edm_mean} sd and its variance by {edm}; EulerDiscreteScheduler's variance "
        "by {early}, where k-diffusion's sample_euler, which asks afterwards, has {late} and its mean {late_mean}.",
        _churned,
    ),
    Finding(
        "Coefficients in float32 ruin high orders",
        "diffusers",
        Place(
            "DEISMultistepScheduler",
            "set_timesteps",
            "sigmas = np.concatenate([sigmas, [sigma_last]]).astype(np.float32)",
        ),
        "At 500 steps DEIS of order 3 is off by {deis_single} in variance, {deis_double} in float64; SA-Solver with "
        "predictor 3 and corrector 4 by {sa_single} and {sa_double}.",
        _single_precision,
    ),
    Finding(
        "On the default grid the last jump decides",
        "diffusers",
        Place("DPMSolverMultistepScheduler", "set_timesteps", "sigma_last = 0"),
        "DPM-Solver++(2M) at 20 steps: the variance is off by {own} at the last state that the network saw, and by "
        "{own_final} after the step from there to no noise; on Karras' grid by {karras} and {karras_final}.",
        _last_jump,
    ),
    Finding(
        "A last sigma that stands twice is divided by",
        "diffusers",
        Place("DPMSolverMultistepScheduler", "set_timesteps", 'if self.config.final_sigmas_type == "sigma_min":'),
        "With Karras' grid and sigma_min the last two sigmas are equal. From 15 steps on, where the last step is no "
        "longer of order 1, solver_type heun: {heun}; order 3: {third}. At 14 steps the variance is off by {fewer}.",
        _repeated_sigma,
    ),
    Finding(
        "DDPM with fixed_large_log takes the root of a logarithm",
        "diffusers",
        Place("DDPMScheduler", "_get_variance", "variance = torch.log(current_beta_t)"),
        "At 20 steps: {said}.",
        lambda: {"said": refusal("DDPMScheduler", 20, {"variance_type": "fixed_large_log"})},
    ),
    Finding(
        "UniPC with bh1 ends in nan",
        "diffusers",
        Place("UniPCMultistepScheduler", "multistep_uni_p_bh_update", "B_h = hh"),
        "The last step to no noise is infinitely long in log(alpha / sigma), and divided by: {said}.",
        lambda: {"said": refusal("UniPCMultistepScheduler", 20, {"solver_type": "bh1"})},
    ),
    Finding(
        "EDM's SDE-DPM-Solver++ has no order 3",
        "diffusers",
        Place("EDMDPMSolverMultistepScheduler", "multistep_dpm_solver_third_order_update", "return x_t"),
        "It is let in and ends thus: {said}.",
        lambda: {"said": refusal("EDMDPMSolverMultistepScheduler", 20, _SDE | {"solver_order": 3})},
    ),
    Finding(
        "LCM and TCD are for consistency networks",
        "diffusers",
        Place("LCMScheduler", "step", "denoised = c_out * predicted_original_sample + c_skip * sample"),
        "With the exact network of a diffusion more steps do not help LCM: the variance is off by {lcm_few} at 4 and "
        "{lcm_many} at 32 steps (TCD: {tcd_few} and {tcd_many}). A network that predicts the flow's end, which they "
        "are made for, is another one.",
        _consistency,
    ),
    Finding(
        "S_noise other than 1 leaves an error that no number of steps removes",
        "k-diffusion",
        Place("sample_heun", "", "eps = torch.randn_like(x) * s_noise"),
        "Heun's method with s_churn 40 on Karras' grid, the variance at 640 steps: off by {one} with 1, {low} with "
        "1.003 and {high} with 1.007, the values published for ImageNet-64 and CIFAR-10; by design (Karras et al. "
        "2022, section 4).",
        lambda: {
            key: errors("sample_heun", 640, {"s_churn": 40.0, "s_noise": noise}, "karras")["variance"]
            for key, noise in (("one", 1.0), ("low", 1.003), ("high", 1.007))
        },
    ),
)

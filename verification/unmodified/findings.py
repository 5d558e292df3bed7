"""What is wrong, or said nowhere, in samplers that people use: each finding with the line that does it, and its size.

A finding is a statement, the line of the library's source that it comes from, and a measurement: numbers of runs that
are read off as a survey's are (unmodified.survey), on the study's Gaussian targets. Where the cure is one expression,
it is written in, and the repaired sampler measured beside the shipped one. A line that a version of the library no
longer has is said to be gone; the numbers are then those of that version.

Where the variance or the mean is said to be off, that is at the last state that the network saw, from an exact start
(unmodified.sizes), unless it is said to be of what is returned.
"""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...integrators.unmodified import diffusers_sampler, samplers, schedulers
from . import sizes
from .sizes import Numbers


class Place(NamedTuple):
    """Where it is: a class's method, or a function of a module, and a piece of its line."""

    owner: str
    method: str
    piece: str


class Finding(NamedTuple):
    """What was found. text: with the names of the numbers in braces; repairs: what of the source to replace, and by
    what."""

    title: str
    library: str
    place: Place
    text: str
    measure: Callable[[], Numbers]
    repairs: tuple[tuple[str, str], ...] = ()


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
    """While the library's function has the finding's repairs. Raises ValueError where it has not the lines."""
    owner, name, function = _source(finding.place, finding.library)
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    for old, new in finding.repairs or (("", ""),):
        if not old or old not in source:
            raise ValueError(f"{finding.place.owner}.{name} has no {old!r} to repair")
        source = source.replace(old, new)
    made: dict[str, Any] = {}
    exec(source, inspect.unwrap(function).__globals__, made)
    setattr(owner, name, made[function.__name__])
    try:
        yield
    finally:
        setattr(owner, name, function)


def measured(title: str) -> dict[str, Any]:
    """The finding of that title in JSON's own types: where it is, its numbers, its sentence."""
    finding = next(each for each in FINDINGS if each.title == title)
    numbers, line = finding.measure(), line_of(finding)
    if finding.repairs and line:
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


_ROUND = ".astype(np.float32)"

FINDINGS = (
    Finding(
        "Third-order DPM-Solver++ weighs its second difference wrongly",
        "diffusers",
        Place("DPMSolverMultistepScheduler", "multistep_dpm_solver_third_order_update", "D2 = (1.0 / (r0 + r1))"),
        "D2 is the divided difference, half of a second derivative, and has the weight of a whole one, which it is in "
        "the single-step form; and with sde-dpmsolver++ that weight has - 0.5 where the parabola's exact integral has "
        "+ 0.5, so that it does not tend to 0 with h. As shipped the SDE's variance is off by {few} at 50 steps and by "
        "{many} at 250 on the default grid, and by {karras} at 80 and {karras_fine} at 160 on Karras'; the ODE's there "
        "by {flow} at 40 and {flow_fine} at 160 (lower_order_final off), order 2. With 2 / (r0 + r1) and + 0.5 these "
        "are {repaired_few}, {repaired_many}, {repaired_karras} and {repaired_karras_fine}, order 2; {repaired_flow} "
        "and {repaired_flow_fine}, order 3. Of order 2, as it ships, the SDE has {second} at 50 on the default grid, "
        "which the cured third order does not reach, and {second_karras} at 160 on Karras'.",
        sizes.third_order,
        (("D2 = (1.0 / (r0 + r1))", "D2 = (2.0 / (r0 + r1))"), ("** 2 - 0.5)) * D2", "** 2 + 0.5)) * D2")),
    ),
    Finding(
        "Single-step SDE-DPM-Solver++ of order 3 with heun has a wrong sign",
        "diffusers",
        Place(
            "DPMSolverSinglestepScheduler",
            "singlestep_dpm_solver_third_order_update",
            "+ (-2.0 * h)) / (-2.0 * h) ** 2 - 0.5)) * D2",
        ),
        "The variance is {heun} times too large at 80 steps on Karras' grid; with + 0.5 it is off by {repaired_heun}, "
        "and by {midpoint} with midpoint.",
        sizes.third_order_single,
        (("/ (-2.0 * h) ** 2 - 0.5)) * D2", "/ (-2.0 * h) ** 2 + 0.5)) * D2"),),
    ),
    Finding(
        "Single-step SDE-DPM-Solver++ of order 2 is of order 1",
        "diffusers",
        Place(
            "DPMSolverSinglestepScheduler",
            "singlestep_dpm_solver_second_order_update",
            "+ 0.5 * (alpha_t * (1 - torch.exp(-2.0 * h))) * D1",
        ),
        "Its stages draw numbers of their own, so that what their difference takes for a derivative is noise. On "
        "Karras' grid the variance is off by {few} and {many} at 80 and 160 steps, and by {first} at 160 with order 1.",
        lambda: sizes.single(2),
    ),
    Finding(
        "So is that of order 3",
        "diffusers",
        Place(
            "DPMSolverSinglestepScheduler",
            "singlestep_dpm_solver_third_order_update",
            "+ (alpha_t * ((1.0 - torch.exp(-2.0 * h)) / (-2.0 * h) + 1.0)) * D1_1",
        ),
        "For the same reason: off by {few} and {many} at 80 and 160 steps, and by {first} at 160 with order 1.",
        lambda: sizes.single(3),
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
        sizes.pndm,
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
        sizes.spacing,
    ),
    Finding(
        "Churn adds its noise after the network was asked",
        "diffusers",
        Place("EDMEulerScheduler", "step", "sample = sample + eps * (sigma_hat**2 - sigma**2) ** 0.5"),
        "Karras et al. 2022 (algorithm 2) raise the noise and ask then. With s_churn 20 and 80 steps the mean is off "
        "by {mean} sd and the variance by {early}, where k-diffusion's sample_euler, which asks afterwards, has "
        "{late_mean} and {late}.",
        lambda: sizes.churned("EDMEulerScheduler"),
    ),
    Finding(
        "So does that of EulerDiscreteScheduler",
        "diffusers",
        Place("EulerDiscreteScheduler", "step", "sample = sample + eps * (sigma_hat**2 - sigma**2) ** 0.5"),
        "With s_churn 20 and 80 steps on Karras' grid the variance is off by {early} (sample_euler: {late}). The mean "
        "is not ({mean} sd): the network's eps is taken as it is, and eps has no mean.",
        lambda: sizes.churned("EulerDiscreteScheduler", "karras"),
    ),
    Finding(
        "Sigmas in float32 ruin DEIS of order 3",
        "diffusers",
        Place(
            "DEISMultistepScheduler",
            "set_timesteps",
            "sigmas = np.concatenate([sigmas, [sigma_last]]).astype(np.float32)",
        ),
        "At 500 steps the variance is off by {single}, and by {double} in float64; with this line's sigmas in float64, "
        "and all else as shipped, by {repaired_single}.",
        lambda: sizes.single_precision("DEISMultistepScheduler", {"solver_order": 3}),
        ((_ROUND, ""),),
    ),
    Finding(
        "Sigmas in float32 ruin SA-Solver of orders 3 and 4",
        "diffusers",
        Place(
            "SASolverScheduler", "set_timesteps", "sigmas = np.concatenate([sigmas, [sigma_last]]).astype(np.float32)"
        ),
        "With predictor 3 and corrector 4 at 500 steps the variance is off by {single}, and by {double} in float64; "
        "with this line's sigmas in float64, and all else as shipped, by {repaired_single}.",
        lambda: sizes.single_precision("SASolverScheduler", {"predictor_order": 3, "corrector_order": 4}),
        ((_ROUND, ""),),
    ),
    Finding(
        "On the default grid the last jump decides",
        "diffusers",
        Place("DPMSolverMultistepScheduler", "set_timesteps", "sigma_last = 0"),
        "DPM-Solver++(2M) at 20 steps: the variance is off by {own} at the last state that the network saw, and by "
        "{own_final} after the step from there to no noise; on Karras' grid by {karras} and {karras_final}. LMS: {lms} "
        "and {lms_final}, on Karras' {lms_karras} and {lms_karras_final}; PNDM, which goes to the table's first row, "
        "{pndm} and {pndm_final}.",
        sizes.last_jump,
    ),
    Finding(
        "A last sigma that stands twice is divided by",
        "diffusers",
        Place("DPMSolverMultistepScheduler", "set_timesteps", 'if self.config.final_sigmas_type == "sigma_min":'),
        "With Karras' grid and sigma_min the last two sigmas are equal. From 15 steps on, where the last step is no "
        "longer of order 1, solver_type heun: {heun}; order 3: {third}. At 14 steps the variance is off by {fewer}.",
        sizes.repeated_sigma,
    ),
    Finding(
        "DDPM with fixed_large_log takes the root of a logarithm",
        "diffusers",
        Place("DDPMScheduler", "_get_variance", "variance = torch.log(current_beta_t)"),
        "At 20 steps: {said}.",
        lambda: {"said": sizes.refusal("DDPMScheduler", 20, {"variance_type": "fixed_large_log"})},
    ),
    Finding(
        "UniPC with bh1 ends in nan",
        "diffusers",
        Place("UniPCMultistepScheduler", "multistep_uni_p_bh_update", "B_h = hh"),
        "The last step to no noise is infinitely long in log(alpha / sigma), and divided by: {said}.",
        lambda: {"said": sizes.refusal("UniPCMultistepScheduler", 20, {"solver_type": "bh1"})},
    ),
    Finding(
        "EDM's SDE-DPM-Solver++ has no order 3",
        "diffusers",
        Place("EDMDPMSolverMultistepScheduler", "multistep_dpm_solver_third_order_update", "return x_t"),
        "It is let in and ends thus: {said}.",
        lambda: {"said": sizes.refusal("EDMDPMSolverMultistepScheduler", 20, sizes.SDE | {"solver_order": 3})},
    ),
    Finding(
        "LCM is for consistency networks",
        "diffusers",
        Place("LCMScheduler", "step", "denoised = c_out * predicted_original_sample + c_skip * sample"),
        "With the exact network of a diffusion more steps do not help: the variance of what is returned is off by "
        "{denoiser_few} at 4 and {denoiser_many} at 32 steps. With the exact consistency network, which predicts where "
        "the flow ends, it is off by {consistency_few} and {consistency_many}, which is c_skip's.",
        lambda: sizes.by_network(diffusers_sampler("LCMScheduler")),
    ),
    Finding(
        "TCD is for networks that are exact where it steps to",
        "diffusers",
        Place(
            "TCDScheduler", "step", "prev_sample = (alpha_prod_t_prev / alpha_prod_s).sqrt() * pred_noised_sample + ("
        ),
        "With the exact network of a diffusion the variance at the last state is off by {denoiser_few} at 4 and "
        "{denoiser_many} at 32 steps (with eta = 1 by {denoiser_few_one} and {denoiser_many_one}); with a consistency "
        "network by {consistency_few} and {consistency_many}, with eta = 1 by {consistency_few_one} and "
        "{consistency_many_one}: it keeps the eps of the table's first row. With a network that takes it where the "
        "flow goes at the time it is noised from, {trajectory_few} and {trajectory_many}.",
        sizes.tcd,
    ),
    Finding(
        "Consistency models are for consistency networks",
        "diffusers",
        Place("CMStochasticIterativeScheduler", "step", "denoised = c_out * model_output + c_skip * sample"),
        "The variance of what is returned is off by {denoiser_few} at 4 and {denoiser_many} at 32 steps with the exact "
        "network of a diffusion, and by {consistency_few} and {consistency_many} with that of the flow's ends at "
        "sigma = 0, where theirs are at 0.002.",
        lambda: sizes.by_network(sizes.consistency_models()),
    ),
    Finding(
        "An exponential grid hides a wrong ratio of steps",
        "k-diffusion",
        Place("sample_dpmpp_2m", "", "r = h_last / h"),
        "Its lines are right. On this grid all steps are equally long in log sigma, and with h / h_last in their place "
        "the variance at 80 and 160 steps is off by {repaired_exponential} and {repaired_exponential_fine}, as before "
        "({exponential} and {exponential_fine}). On Karras' grid it is another method, {repaired_karras} and "
        "{repaired_karras_fine} for {karras} and {karras_fine}, and of order 2 still, since the ratio tends to 1: what "
        "tells it is `weakorder identify` there.",
        sizes.step_ratio,
        (("r = h_last / h", "r = h / h_last"),),
    ),
    Finding(
        "S_noise other than 1 leaves an error that no number of steps removes",
        "k-diffusion",
        Place("sample_heun", "", "eps = torch.randn_like(x) * s_noise"),
        "Heun's method with s_churn 40 on Karras' grid, the variance at 640 steps: off by {one} with 1, {low} with "
        "1.003 and {high} with 1.007, the values published for ImageNet-64 and CIFAR-10; by design (Karras et al. "
        "2022, section 4).",
        sizes.noisier,
    ),
)

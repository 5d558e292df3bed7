"""The order study of a black box: exact moments by probing, and what its anatomy says against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ...integrators.blackbox import Sampler
from ...integrators.grids import time_grid
from ...theory.model import PSLD_DIFFUSION, Parameters
from ..exact import (
    STEPS,
    T_END,
    Moments,
    OrderStudy,
    covered_by,
    gaussian_targets,
    measure,
    rounding_of_steps,
    stiffness,
)
from ..targets import GaussianTarget
from ..verdicts import Finding
from .consistency import check_moves
from .examination import examine
from .images import image_of, on_images
from .probing import probed_moments
from .scatter import MEASURED, NEIGHBOURS, Scatter, delayed, scatter_of, with_scatter

BLACK_BOX_STEPS = STEPS[:7]  # a black box is called once a step
# Roundings of a step that count (`rounding_of_steps`): those of a word of 25 tokens, more than samplers have.
ROUNDINGS = 102


def study_black_box(
    name: str,
    sampler: Sampler,
    params: Parameters,
    expected: int | None = None,
    steps: Sequence[int] = BLACK_BOX_STEPS,
    target: GaussianTarget | None = None,
    t_end: float = T_END,
    grid: str = "uniform",
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    event: tuple[int, ...] = (),
) -> OrderStudy:
    """The order study of a black box (integrators.blackbox) over the diffusion of its target, by default PSLD's, as
    `study_order` for schemes; expected: default 1.

    event: the shape of one data point, for samplers that need one; the elements of an event must not mix.
    Raises BlackBoxError if the sampler cannot be verified as it stands, ValueError on bad input.
    """
    order = 1 if expected is None else expected
    target = target or gaussian_targets(PSLD_DIFFUSION, params)
    diffusion = check_moves(target.diffusion)
    found = examine(sampler, params, order, event, diffusion)
    problems = found.problems
    notes: tuple[str | Finding, ...] = found.rounding
    images = None if event else on_images(sampler, diffusion)
    if images is not None:
        problems, notes = ((*problems, images.text), notes) if images.is_wrong else (problems, (*notes, images.text))
    unit = np.sqrt(diffusion.prior_variances(params.values()))
    scatters: dict[int, Scatter] = {}

    def moments(count: int, of: Sampler = sampler) -> Moments:
        return probed_moments(of, target, time_grid(grid, count, params, t_end), event=event)

    def run(count: int) -> Moments:
        found_here = moments(count)
        if found.rounding and (count <= MEASURED or not scatters):
            moved = moments(count, delayed(sampler, -found.off)) if found.off else None
            scatters[count] = scatter_of([found_here, *(moments(count + k) for k in NEIGHBOURS)], moved, unit)
        return found_here

    whole = diffusion.reverse()
    study = measure(
        name,
        run,
        order,
        steps,
        params.T - t_end,
        unit,
        problems,
        progress,
        lambda count: rounding_of_steps(ROUNDINGS, target, time_grid(grid, count, params, t_end)),
        lambda count: stiffness(whole, target, time_grid(grid, count, params, t_end)),
    )
    times, affine = covered_by(params, t_end, any_score=False)
    scores = f"order {order} for any score in short runs, measured on {affine}" if found.any_score else affine
    shapes = (f"images {'x'.join(map(str, event or image_of(diffusion)))}",) if event or images is None else ()
    covered = (times, f"short runs down to t = {found.until:.3g}", scores, *shapes)
    return replace(with_scatter(study, scatters), notes=notes, covered=covered)

"""The order study of a black box: exact moments by probing, and what its anatomy says against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ...integrators.blackbox import Kind, Sampler, kind_of
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
from .anatomy import inconsistencies, on_images
from .probing import probed_moments

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
    """The order study of a black box (integrators.blackbox) on PSLD, as `study_order` for schemes; expected: default 1.

    event: the shape of one data point, for samplers that need one; the elements of an event must not mix.
    Raises BlackBoxError if the sampler cannot be verified as it stands, ValueError on bad input.
    """

    note = on_images(sampler) if not event else None
    wrong = tuple(f"not consistent: {what}" for what in inconsistencies(sampler, params, event))
    # A trajectory knows where it begins and ends, and may do there what it does nowhere else: what a short one shows
    # explains a failure, but is none by itself, unless it remains in a run of no length.
    problems, hints = wrong, ()
    if kind_of(sampler) is Kind.TRAJECTORY:
        problems = tuple(text for text in wrong if "as h -> 0" in text)
        hints = tuple(text for text in wrong if text not in problems)
    target = target or gaussian_targets(PSLD_DIFFUSION, params)

    def run(count: int) -> Moments:
        return probed_moments(sampler, target, time_grid(grid, count, params, t_end), event=event)

    unit = np.sqrt(target.diffusion.variances(params.values())[1:])
    order = 1 if expected is None else expected
    whole = PSLD_DIFFUSION.reverse()
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
    covered = covered_by(params, t_end, any_score=False)
    return replace(study, hints=hints, notes=(note,) if note else (), covered=covered)

"""What rounding of times and constants makes of errors: measured, where a black box is known to round them.

Errors are smooth functions of the number of steps N but for rounding, which is another at N + 1. So the third
differences of the errors at N, N + 1, ... are rounding alone, and their size, over sqrt(20), is its deviation. Where
the rounded times are early or late on average, all errors are off alike: by what moving the scores' times changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from torch import Tensor

from ...integrators.blackbox import Kind, Sampler, Score, kind_of
from ..exact import QUANTITIES, Moments, OrderStudy, errors_of, signed_errors
from ..verdicts import Array

# Numbers of steps beside one that is studied, up to so many, as they cost four times as much again. Beyond, scatter is
# taken to grow with the number of steps, as that of constants does; that of times does not.
NEIGHBOURS, MEASURED = (1, 2, 3, 4), 200


class Scatter(NamedTuple):
    """By how much the errors at a number of steps scatter, by quantity, and signed (`exact.signed_errors`), (5, V)."""

    errors: dict[str, float]
    signed: Array


def scatter_of(runs: Sequence[Moments], moved: Moments | None, unit: Array) -> Scatter:
    """Of runs at N, N + 1, ..., and of the first one with its scores moved by what their times are off on average."""
    errors = [errors_of(run.computed, run.exact, unit) for run in runs]
    signed = np.array([signed_errors(run.computed, run.exact, unit) for run in runs])
    scatter = {q: float(_deviation(np.array([error[q] for error in errors]))) for q in QUANTITIES}
    rough = _deviation(signed)
    if moved is not None:
        others = errors_of(moved.computed, moved.exact, unit)
        scatter = {q: scatter[q] + abs(others[q] - errors[0][q]) for q in QUANTITIES}
        rough = rough + np.abs(signed_errors(moved.computed, moved.exact, unit) - signed[0])
    return Scatter(scatter, np.broadcast_to(rough, signed[0].shape))


def _deviation(values: Array) -> Array:
    """Of values (n, ...) at neighbouring numbers of steps from a smooth function: the third difference of independent
    numbers has 20 times their variance. The largest of all that share the first axis."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sqrt((np.diff(values, 3, axis=0) ** 2).mean(0) / 20).max()


def with_scatter(study: OrderStudy, scatters: Mapping[int, Scatter]) -> OrderStudy:
    """A study that knows what its errors scatter by at the levels it has."""
    if not scatters:
        return study
    levels, growth = [], []
    for count in study.steps.astype(int):
        measured = max((level for level in scatters if level <= count), default=min(scatters))
        levels.append(scatters[measured])
        growth.append(max(1.0, count / measured))
    signed = np.array([grown * level.signed for level, grown in zip(levels, growth, strict=True)])
    return replace(
        study,
        scatter={q: growth * np.array([level.errors[q] for level in levels]) for q in QUANTITIES},
        signed_rounding=study.signed_rounding + np.where(np.isfinite(signed), signed, math.inf),
    )


def delayed(sampler: Sampler, by: float) -> Sampler:
    """The same sampler, whose scores are taken at times t + by."""

    def later(score: Score) -> Score:
        return lambda u, t: score(u, t + by)

    if (kind := kind_of(sampler)) is Kind.TRAJECTORY:
        return lambda score, u, taus: cast("Any", sampler)(later(score), u, taus)

    def step(u: Tensor, tau: float, h: float, score: Score) -> Tensor:
        return cast("Any", sampler)(u, tau, h, later(score))

    if kind is Kind.MULTISTEP:
        step.reset = cast("Any", sampler).reset  # type: ignore[attr-defined]
    return step

"""Averages over a law that is computed at finer and finer resolutions, until they stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..verdicts import Array
from .lattice import Cloud, Resolution, TooCoarse, Unresolved
from .observables import Observable, averages


class Refined(NamedTuple):
    """E f of a law (F,), how far the last refinement moved each (F,), inf without one, nodes of the finest lattice,
    and why the accuracy was not reached, "" if it was."""

    computed: Array
    moved: Array
    nodes: int
    problem: str


def refined(
    law: Callable[[Resolution], Cloud],
    resolutions: Iterable[Resolution],
    observables: Sequence[Observable],
    estimate: Array,
    accuracy: float,
) -> Refined:
    """E f of the law at finer and finer resolutions, until none moves by more than `accuracy`, together with what is
    not known of the exact ones, `estimate` (F,)."""
    computed, moved, nodes, problem = np.full(estimate.shape, np.nan), np.full(estimate.shape, np.inf), 0, ""
    for resolution in resolutions:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported as such
                cloud = law(resolution)
        except TooCoarse as failure:
            problem = f"not resolved: {failure}"
            continue
        except Unresolved as failure:
            problem = f"not resolved: {failure}"
            break
        before, computed, nodes = computed, averages(observables, *cloud[:2]), cloud.weights.size
        moved = np.where(np.isnan(before), np.inf, np.abs(computed - before))
        worst = float((moved + estimate).max())
        problem = f"not resolved to {accuracy:g}: the last refinement moved an answer by {worst:.1e}"
        if worst <= accuracy:
            problem = ""
            break
    return Refined(computed, moved, nodes, problem)

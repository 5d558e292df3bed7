"""When a step's tokens act: the clocks of a word, resolved on a grid of times.

Every reading of a scheme in numbers starts from `stages`: which part acts over which theta = int beta, and at which
time a score is conditioned, for all steps of the grid at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..theory.model import Parameters
from ..theory.scheme import Scheme
from ..theory.splitting import Part
from .grids import check_grid

Array = NDArray[np.float64]


class ScoreStage(NamedTuple):
    """An S: the time t at which each step's score is conditioned, shape (steps,)."""

    time: Array


class PartStage(NamedTuple):
    """A part acting over `length` = int beta over its interval, which begins at the time t `begin`, in each step; shape
    (steps,)."""

    part: Part
    length: Array
    begin: Array


def position_scale(lambda_s: float, size: int) -> Array:
    """What lambda_s multiplies noise by, per component: (size,)."""
    return np.array([lambda_s, *(1.0 for _ in range(size - 1))])


def stages(scheme: Scheme, taus: Array, params: Parameters) -> list[ScoreStage | PartStage]:
    """The word's tokens with their times, for every step of the grid `taus` (steps + 1,), increasing within [0, T].

    Raises ValueError on a bad grid (see `check_grid`) and if an interval runs past t = 0 to where beta is not positive.
    """
    taus = check_grid(taus, params)
    t, h = params.T - taus[:-1], np.diff(taus)
    resolved: list[ScoreStage | PartStage] = []
    for position, token in enumerate(scheme.tokens, 1):
        start = t - float(token.start) * h
        if token.weight is None:
            if token.start == 1:
                start = params.T - taus[1:]  # the next step's own time, to the last digit
            resolved.append(ScoreStage(start))
            continue
        length = params.theta(start, float(token.weight) * h)
        if (wrong := params.beta(start - float(token.weight) * h) <= 0).any():
            end = float((start - float(token.weight) * h)[wrong][0])
            raise ValueError(
                f"token {position}, '{token}': its interval runs to t = {end:g}, where beta is not positive; let it "
                "end within the step, or stop the run at a larger t"
            )
        resolved.append(PartStage(scheme.splitting[token.symbol], length, start))
    return resolved

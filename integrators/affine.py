"""Scores that are affine in the state, of Gaussian data: they fold into the tables, and a run is one call of a kernel.

With s(u, t) = A (u - c) an update u <- P u + K s + C xi is u <- (P + K A) u - K A c + C xi. The offsets move every
sample alike: a run from 0 without noise, in float64, is their sum, and is added at the end. So what is left is a chain
of updates without score, which a processor makes block by block, each while it is in cache, without a state between
two of them in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..theory.flows import Flow
from .compiled import Run, rows_of
from .kernels import Draw, kernels_for

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AffineScore:
    """s(u, t) = A (u - c), alike for all elements of an event: at(t) is A (n, n) and c (n,), float64.

    It is a score like any other, with states (batch, n, *event), or (batch, *event) of one component. Raises ValueError
    on entries that are not finite or have another shape.
    """

    at: Callable[[float], tuple[Array, Array]]

    def __call__(self, u: Tensor, t: float) -> Tensor:
        size = np.size(self.at(t)[1])
        slope, centre = (torch.tensor(entry, dtype=u.dtype, device=u.device) for entry in self.entries(t, size))
        return (slope @ (u.reshape(len(u), size, -1) - centre[:, None])).reshape(u.shape)

    def entries(self, t: float, size: int) -> tuple[Array, Array]:
        """A and c at one time, of `size` components."""
        slope, centre = (np.asarray(entry, dtype=float) for entry in self.at(t))
        if slope.shape != (size, size) or centre.shape != (size,):
            raise ValueError(
                f"an affine score has the slope {slope.shape} and the centre {centre.shape} at t = {t:g}; of {size} "
                f"components they have the shapes ({size}, {size}) and ({size},)"
            )
        if not (np.isfinite(slope).all() and np.isfinite(centre).all()):
            raise ValueError(f"an affine score is not finite at t = {t:g}; end the run where its law has a density")
        return slope, centre


def folds(run: Run, u: Tensor) -> bool:
    """Whether a run on states like u is a chain of updates that the kernels make at once."""
    return run.updates.memory is None and run.prologue.propagator.shape == (2, 2) and u.ndim > 2


def folded(run: Run, score: AffineScore) -> tuple[Array, Array]:
    """The run with the score in its tables, as rows for `kernels.march` (1 + updates, 11), and the sum of its offsets
    (2,)."""
    times = [] if run.updates.time is None else run.updates.time.tolist()
    known = [score.entries(t, 2) for t in times]
    gains = run.updates.flow.score_gain
    P, K, Q = (np.concatenate([first[None], rest]) for first, rest in zip(run.prologue, run.updates.flow, strict=True))
    P, K = P.copy(), np.zeros_like(K)
    offset = np.zeros(2)
    for k, (slope, centre) in enumerate(known):
        pull = gains[k] @ slope
        P[k + 1] += pull
        offset = P[k + 1] @ offset - pull @ centre
    return rows_of(Flow(P, K, Q)), offset


def march(run: Run, score: AffineScore, u: Tensor, draw: Draw) -> Tensor:
    """All of a run that `folds`, from the states u (batch, 2, *event), with the noise of the intervals draw.interval,
    draw.interval + 1, ...: a new state."""
    rows, offset = folded(run, score)
    end = kernels_for(u).march(rows, u, draw)
    moved = torch.as_tensor(offset, dtype=u.dtype, device=u.device).reshape(2, *(1,) * (u.ndim - 2))
    return end.add_(moved)

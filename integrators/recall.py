"""What old evaluations add to a step, kept as a run goes: K s + sum_j K_j q_j, in one pass over memory for each j.

A scheme that looks back on k evaluations (integrators.held) adds a pull v = K s + K_2 q_2 + ... + K_k q_k to the state,
u <- P u + v + C xi, and remembers q = X u + Y s of its own evaluation, one tensor like the state for each of the k - 1.
These are affine images of two tensors, as updates are, so they are computed by the kernels that compute updates, to the
same bits in any batch, on any number of threads and on any device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .held import Memory
from .kernels import kernels_for

Array = NDArray[np.float64]


class Recall:
    """The old answers of one run on states like u: `score_gain` (n, 2, 2) and `memory` of its n updates."""

    def __init__(self, score_gain: Array, memory: Memory, u: Tensor) -> None:
        reading, gains = memory
        updates = kernels_for(u).Updates
        unit, zero = np.broadcast_to(np.eye(2), score_gain.shape), np.zeros(score_gain.shape)
        self._alone = updates(_rows(score_gain, zero), u)
        self._first = updates(_rows(gains[:, 0], score_gain), u)
        self._more = [updates(_rows(gains[:, j], unit), u) for j in range(1, gains.shape[1])]
        self._reading = updates(_rows(reading[..., :2], reading[..., 2:]), u)
        self._kept = gains.shape[1]
        self.old: list[Tensor] = []  # q_2, q_3, ...: the last evaluation first

    def __call__(self, k: int, u: Tensor, s: Tensor) -> Tensor:
        """v of the k-th update (from 0), which evaluated the score s at the state u, in u's shape; remembers its q."""
        pull = self._first(k, self.old[0], s, None) if self.old else self._alone(k, s, None, None)
        for update, q in zip(self._more, self.old[1:], strict=False):
            pull = update(k, q, pull, None)
        self.old = [self._reading(k, u, s, None), *self.old[: self._kept - 1]]
        return pull


def _rows(state: Array, score: Array) -> Array:
    """Rows that `kernels.Updates` takes: the gain of the first tensor, that of the second, no noise."""
    return np.concatenate([state.reshape(-1, 4), score.reshape(-1, 4), np.zeros((len(state), 3))], axis=1)

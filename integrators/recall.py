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
from .planes import Updates, updates_for

Array = NDArray[np.float64]


class Recall:
    """The old answers of one run on states like u: `score_gain` (n, d, d) and `memory` of its n updates."""

    def __init__(self, score_gain: Array, memory: Memory, u: Tensor) -> None:
        reading, gains = memory
        size = score_gain.shape[-1]
        unit, zero = np.broadcast_to(np.eye(size), score_gain.shape), np.zeros(score_gain.shape)

        def updates(state: Array, score: Array) -> Updates:
            return updates_for(_rows(state, score), u)

        self._alone = updates(score_gain, zero)
        self._first = updates(gains[:, 0], score_gain)
        self._more = [updates(gains[:, j], unit) for j in range(1, gains.shape[1])]
        self._reading = updates(reading[..., :size], reading[..., size:])
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
    """Rows that `updates_for` takes: the gain of the first tensor, that of the second, no noise."""
    n, size = len(state), state.shape[-1]
    nothing = np.zeros((n, size * (size + 1) // 2))
    return np.concatenate([state.reshape(n, -1), score.reshape(n, -1), nothing], axis=1)

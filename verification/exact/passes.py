"""What is done to all points of a law at once as it is carried along (exact.lattice): by numpy, or compiled."""

from __future__ import annotations

from functools import cache
from typing import Protocol, cast

import numpy as np

from ..verdicts import Array


class Passes(Protocol):
    """The functions of this file; points and scores are (d, J), weights (J,), matrices (d, d), float64."""

    def move(self, points: Array, score: Array, P: Array, K: Array) -> tuple[Array, Array, bool]:
        """g = P u + K s of points u with scores s, the size |P| |u| + |K| |s| + |g| of its terms, both (d, J), and
        whether all of g is finite."""
        ...

    def see(self, points: Array, weights: Array, origin: Array, matrix: Array) -> tuple[Array, Array]:
        """v = `matrix` (u - `origin`), (d, J), and sum_j w_j v_j v_j^T."""
        ...

    def mean_length(self, matrix: Array, sizes: Array, weights: Array) -> float:
        """The mean of the lengths of |matrix| times `sizes` (d, J), weighted by |w_j|."""
        ...


class ByNumpy:
    """The passes as numpy has them, in one dimension or two."""

    def move(self, points: Array, score: Array, P: Array, K: Array) -> tuple[Array, Array, bool]:
        moved = P @ points + K @ score
        sizes = np.abs(P) @ np.abs(points) + np.abs(K) @ np.abs(score) + np.abs(moved)
        return moved, sizes, bool(np.isfinite(moved).all())

    def see(self, points: Array, weights: Array, origin: Array, matrix: Array) -> tuple[Array, Array]:
        seen = matrix @ (points - origin[:, None])
        return seen, (seen * weights) @ seen.T

    def mean_length(self, matrix: Array, sizes: Array, weights: Array) -> float:
        lengths = np.abs(matrix) @ sizes
        masses = np.abs(weights)
        whole = lengths[0] if len(lengths) == 1 else np.sqrt(lengths[0] ** 2 + lengths[1] ** 2)
        return float(masses @ whole / masses.sum())


@cache
def passes(dimensions: int = 2) -> Passes:
    """In a plane, in machine code where there is numba: there are thousands of passes, over some thousand points each.
    On a line there are few points."""
    if dimensions != 2:
        return ByNumpy()
    try:
        from . import compiled_passes
    except ImportError:
        return ByNumpy()
    return cast(Passes, compiled_passes)

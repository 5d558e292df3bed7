"""Limits of smooth functions from a few arguments: Richardson's extrapolation, with an error it can be held to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .algebra import Array


def extrapolate(arguments: Sequence[float] | Array, values: Sequence[Array] | Array) -> tuple[Array, float]:
    """The limit at 0 of a smooth function from its values (n, ...) at n >= 2 arguments that decrease to 0.

    Neville's scheme: each column removes a power of the argument. The column whose last entry agrees best with its
    neighbours, in the largest component, is taken. Their disagreement is the error of the neighbours, which are worse;
    but the smallest of several may be small by accident, so the uncertainty returned is no less than that of the column
    after it, if there is one. It is that of the smooth function: see `magnification` for errors of the values.
    """
    x = np.asarray(arguments, dtype=float)
    row: list[Array] = [np.asarray(value, dtype=float) for value in values]
    entries, disagreements = list[Array](), list[float]()
    for column in range(1, len(x)):
        previous = row
        row = [
            fine + (fine - coarse) * x[k + column] / (x[k] - x[k + column])
            for k, (coarse, fine) in enumerate(itertools.pairwise(previous))
        ]
        entries.append(row[-1])
        disagreements.append(max(_largest(row[-1] - other) for other in previous[-2:]))
    best = int(np.argmin(disagreements))
    return entries[best], max(disagreements[best : best + 2])


def magnification(arguments: Sequence[float] | Array) -> float:
    """How many times the largest error of its values the limit can be off by: the sum of the sizes of Lagrange's
    weights at 0. Below 9 where arguments halve, 55 for seven in the ratio 1.5."""
    x = np.asarray(arguments, dtype=float)
    others = [np.delete(x, place) for place in range(len(x))]
    return float(sum(abs(np.prod(rest / (rest - own))) for own, rest in zip(x, others, strict=True)))


def _largest(values: ArrayLike) -> float:
    return float(np.abs(values).max(initial=0.0))

"""Limits of smooth functions from a few arguments: Richardson's extrapolation, with an error it can be held to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .algebra import Array


def extrapolate(arguments: Sequence[float] | Array, values: Sequence[Array] | Array) -> tuple[Array, float]:
    """The limit at 0 of a smooth function from its values (n, ...) at n >= 2 arguments that decrease to 0.

    Neville's scheme: each column removes a power of the argument. The column whose last entry agrees best with its
    neighbours, in the largest component, is taken, and their disagreement is the uncertainty returned: it is the error
    of the neighbours, which are worse. It is that of the smooth function: errors of the values themselves are magnified
    by less than 9 where arguments halve.
    """
    x = np.asarray(arguments, dtype=float)
    row: list[Array] = [np.asarray(value, dtype=float) for value in values]
    best, uncertainty = row[-1], math.inf
    for column in range(1, len(x)):
        previous = row
        row = [
            fine + (fine - coarse) * x[k + column] / (x[k] - x[k + column])
            for k, (coarse, fine) in enumerate(itertools.pairwise(previous))
        ]
        disagreement = max(_largest(row[-1] - other) for other in previous[-2:])
        if disagreement < uncertainty:
            best, uncertainty = row[-1], disagreement
    return best, uncertainty


def _largest(values: ArrayLike) -> float:
    return float(np.abs(values).max(initial=0.0))

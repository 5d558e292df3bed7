"""Products of 2x2 matrices on batches, components first: (2, 2, ...), the batch behind and broadcast.

Written out per component, numpy runs each product as eight passes over contiguous batches, several times faster than
its small-matrix loops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ENTRIES = ((0, 0), (0, 1), (1, 0), (1, 1))


def matmul(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """a b."""
    product = np.empty((2, 2, *np.broadcast_shapes(a.shape[2:], b.shape[2:])))
    for i, j in _ENTRIES:
        entry = product[i, j, ...]  # of no batch, too, an array
        np.multiply(a[i, 0], b[0, j], out=entry)
        entry += a[i, 1] * b[1, j]
    return product

"""Products of small matrices on batches, components first: (d, d, ...), the batch behind and broadcast.

Written out per component, numpy runs each product as passes over contiguous batches, several times faster than its
small-matrix loops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def matmul(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """a b."""
    product = np.empty((len(a), b.shape[1], *np.broadcast_shapes(a.shape[2:], b.shape[2:])))
    for i, j in np.ndindex(product.shape[:2]):
        entry = product[i, j, ...]  # of no batch, too, an array
        np.multiply(a[i, 0], b[0, j], out=entry)
        for k in range(1, len(b)):
            entry += a[i, k] * b[k, j]
    return product

"""Fourier modes of square images by the length of their wavenumber."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import fft

from ...verdicts import Array


class Rings(NamedTuple):
    """Wavenumbers of a side x side image by length: mean |k| of each ring (rings,), how many wavenumbers it has, and
    the matrix that averages over it, (side^2, rings)."""

    wavenumber: Array
    counts: Array
    average: Array


@cache
def rings(side: int) -> Rings:
    """round(|k|) = 0 .. side // 2, labelled so, then all that is further out, the corners, at their mean |k|."""
    k = fft.fftfreq(side) * side
    length = np.hypot(k[:, None], k).ravel()
    ring = np.minimum(np.rint(length), side // 2 + 1).astype(int)
    member = (ring[:, None] == np.arange(ring.max() + 1)).astype(float)
    counts = member.sum(0)
    wavenumber = np.arange(len(counts), dtype=float)
    if len(counts) > side // 2 + 1:
        wavenumber[-1] = length[ring == ring.max()].mean()
    return Rings(wavenumber, counts, member / counts)

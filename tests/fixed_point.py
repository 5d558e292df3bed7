"""Numbers in fixed point, arrays of integers times 2^-BITS: products, inverses and exponentials of matrices."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Fixed = NDArray[Any]  # Python integers in units of 2^-BITS
BITS = 192


def fixed(entries: Any) -> Fixed:
    """Numbers (exact rationals or floats, nested) in fixed point."""
    array = np.array(entries, dtype=object)
    return np.vectorize(lambda value: int(Fraction(value) * 2**BITS), otypes=[object])(array)


def floats(array: Fixed) -> Array:
    """Fixed point to float64; too large a number is inf."""

    def convert(value: int) -> float:
        try:
            return value / 2**BITS
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")

    return np.vectorize(convert, otypes=[float])(array)


def product(a: Fixed, b: Fixed) -> Fixed:
    """Matrix product."""
    return (a @ b) >> BITS


def inverse(a: Fixed) -> Fixed:
    """Of a 2x2 matrix."""
    determinant = (a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]) >> BITS
    return (np.array([[a[1, 1], -a[0, 1]], [-a[1, 0], a[0, 0]]], dtype=object) << BITS) // determinant


def exponential(a: Fixed) -> Fixed:
    """exp of a square matrix: the power series of a / 2^k, until its terms vanish, then k squarings."""
    return _exponential(tuple(map(tuple, a)))


@lru_cache(maxsize=4096)
def _exponential(rows: tuple[tuple[int, ...], ...]) -> Fixed:
    a = np.array(rows, dtype=object)
    largest = int(np.abs(a).sum(axis=1).max())
    halvings = max(0, largest.bit_length() - BITS + 4)
    a = a >> halvings
    total = term = fixed(np.eye(len(rows)))
    order = 0
    while np.any(np.abs(term) > 1):  # floor division leaves -1 for ever
        order += 1
        term = product(term, a) // order
        total = total + term
    for _ in range(halvings):
        total = product(total, total)
    return total


def times(matrix: Any, theta: Fraction) -> Fixed:
    array = matrix if isinstance(matrix, np.ndarray) else fixed(matrix)
    return array * theta.numerator // theta.denominator

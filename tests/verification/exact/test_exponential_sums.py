"""Sums of exponentials, by operators and in machine code, against numpy's exponential of each term."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from weakorder.verification.exact.exponential_sums import by_operators, exponential_sums
from weakorder.verification.verdicts import Array

SUMS = [exponential_sums, by_operators]


def term_by_term(phases: Array, weights: Array, rows: int, columns: int) -> Array:
    tables = [
        np.exp(1j * np.arange(count)[:, None] * phase) for count, phase in zip((rows, columns), phases, strict=True)
    ]
    left, right = (np.concatenate([table.real, table.imag]) for table in tables)
    return (left * weights) @ right.T


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize(("points", "rows", "columns"), [(1, 1, 1), (5, 1, 4), (256, 2, 3), (700, 9, 7), (9001, 40, 3)])
def test_sums_are_those_of_their_terms(sums: Callable[..., Array], points: int, rows: int, columns: int) -> None:
    """Claim: to ten roundings of the powers' phases times the sum of the weights; with the last point forgotten, whose
    weight is as large as any other, they are not."""
    random = np.random.default_rng(points)
    phases, weights = random.uniform(-7, 7, (2, points)), random.uniform(0.5, 1, points)
    found, allowed = sums(phases, weights, rows, columns), 1e-15 * (rows + columns) * 7 * weights.sum()
    assert found.shape == (2 * rows, 2 * columns)
    assert np.abs(found - term_by_term(phases, weights, rows, columns)).max() <= allowed
    weights[-1] = 0
    assert np.abs(found - term_by_term(phases, weights, rows, columns)).max() > allowed

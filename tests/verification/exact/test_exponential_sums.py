"""Sums of exponentials, by operators and by the nonuniform FFT in machine code, against numpy one term at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from weakorder.verification.exact.exponential_sums import by_operators, exponential_sums
from weakorder.verification.verdicts import Array

SUMS = [exponential_sums, by_operators]


def term_by_term(phases: Array, weights: Array, rows: int, columns: int) -> NDArray[np.complex128]:
    first = np.concatenate([np.arange(rows), np.arange(1 - rows, 0)])
    left, right = (
        np.exp(1j * n[:, None] * phase) for n, phase in zip((first, np.arange(columns)), phases, strict=True)
    )
    return (left * weights) @ right.T


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize(
    ("points", "rows", "columns"), [(1, 1, 1), (5, 1, 4), (64, 2, 3), (700, 9, 7), (9001, 40, 3), (300, 90, 60)]
)
def test_sums_are_those_of_their_terms(sums: Callable[..., Array], points: int, rows: int, columns: int) -> None:
    """Claim: to 2e-14 of the sum of the weights' sizes, for phases within a turn or so, as a lattice's are; with a
    thousandth of the last point's weight forgotten they are not."""
    random = np.random.default_rng(points)
    phases, weights = (
        random.uniform(-7, 1, (2, points)),
        random.uniform(0.5, 1, points) * random.choice([-1, 1], points),
    )
    found, allowed = sums(phases, weights, rows, columns), 2e-14 * np.abs(weights).sum()
    assert found.shape == (2 * rows - 1, columns)
    assert np.abs(found - term_by_term(phases, weights, rows, columns)).max() <= allowed
    weights[-1] *= 0.999
    assert np.abs(found - term_by_term(phases, weights, rows, columns)).max() > allowed


def test_machine_code_is_in_use() -> None:
    """Claim: the two are not one code, whose roundings would be the same."""
    phases, weights = np.random.default_rng(0).uniform(-6, 0, (2, 500)), np.full(500, 1 / 500)
    assert not np.array_equal(exponential_sums(phases, weights, 5, 4), by_operators(phases, weights, 5, 4))

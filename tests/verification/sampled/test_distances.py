"""Distances of samples against laws that are known in closed form.

Comparisons with an exact value are at `threshold()`, z = 6.6 standard errors (one false alarm in a million for the
suite), or at 4 where it is said; coverages are compared by the binomial law at a rate of 1e-9. Each has a broken
variant.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from weakorder.integrators.noise import START, normal_pairs
from weakorder.verification.sampled import distances
from weakorder.verification.sampled.distances import (
    BLOCK_DIRECTIONS,
    block_distances,
    directions,
    energy_distance,
    sliced_wasserstein,
)
from weakorder.verification.verdicts.algebra import Array
from weakorder.verification.verdicts.estimates import threshold

Z = threshold()
RATE = 1e-9


# --- Of one pair of sets, with error bars -----------------------------------------------------------------------------


def _energy_of_shift(shift: float) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of N(shift, 1) and N(0, 1) in one dimension."""
    mean_size = 2 / math.sqrt(math.pi)
    moved = math.sqrt(2) * (
        math.sqrt(2 / math.pi) * math.exp(-(shift**2) / 4) + shift / math.sqrt(2) * math.erf(shift / 2)
    )
    return 2 * moved - 2 * mean_size


def _with_own_pairs(x: Array, y: Array) -> float:
    """The broken variant of the energy distance: i = j left in, as if coupled rows were independent."""
    within = [np.abs(a - a.T).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(2 * np.abs(x - y.T).mean() - sum(within))


def test_the_energy_distance_of_coupled_rows_is_unbiased_and_its_intervals_hold() -> None:
    rng, n, sets = np.random.default_rng(9), 50, 800
    estimates, broken = [], []
    for _ in range(sets):
        y = rng.standard_normal((n, 1))
        x = y + 1 + 0.1 * rng.standard_normal((n, 1))
        estimates.append(energy_distance(x / math.sqrt(1.01), y))
        broken.append(_with_own_pairs(x / math.sqrt(1.01), y))
    exact = _energy_of_shift(1 / math.sqrt(1.01))
    values, errors = np.array(estimates).T
    mean_error = values.std(ddof=1) / math.sqrt(sets)
    assert abs(values.mean() - exact) < Z * mean_error
    assert abs(np.mean(broken) - exact) > Z * np.std(broken, ddof=1) / math.sqrt(sets)
    held = int((np.abs(values - exact) < stats.norm.ppf(0.975) * errors).sum())
    assert stats.binom.cdf(held, sets, 0.93) > RATE  # 0.95, less what a skewed estimate of 50 rows costs
    assert stats.binom.cdf(int((np.abs(values - exact) < errors).sum()), sets, 0.93) < RATE


def test_the_energy_distance_of_equal_laws_has_the_scatter_that_it_states() -> None:
    """The degenerate case: Hoeffding's first term vanishes, the second is the variance, and the first is not taken
    below 0. The rows' jackknife would state twice the second, and the rows' scatter alone less than there is."""
    rng, n, sets = np.random.default_rng(10), 20, 3000
    found = []
    for _ in range(sets):
        y = rng.standard_normal((n, 4))
        found.append(energy_distance(0.9 * y + math.sqrt(0.19) * rng.standard_normal((n, 4)), y))
    values, errors = np.array(found).T
    assert abs(values.mean()) < Z * values.std(ddof=1) / math.sqrt(sets)
    kurtosis = float(stats.kurtosis(values, fisher=False))
    within = Z * math.sqrt((kurtosis - 1) / sets)
    ratio = (errors**2).mean() / values.var(ddof=1)
    assert 1 - within < ratio < 2
    assert ratio - 1 < 1 - within  # the broken variant, without the second term


def test_the_sliced_distance_is_unbiased_for_coupled_sets_of_equal_law_and_of_another_scale() -> None:
    """Against the distance of the expected order statistics; subtracting W(y^A, y^B) alone is off at first order."""
    rng, n, sets, scale = np.random.default_rng(11), 20, 500, 0.9
    order = np.sort(rng.standard_normal((200_000, n // 2)), axis=1).mean(0)
    equal, scaled, broken = [], [], []
    for _ in range(sets):
        y = rng.standard_normal((n, 3))
        equal.append(sliced_wasserstein(0.8 * y + 0.6 * rng.standard_normal((n, 3)), y).value)
        x = scale * y
        scaled.append(sliced_wasserstein(x, y).value)
        a, b, c = (np.sort(v @ directions(3), axis=0) for v in (x[::2], y[1::2], y[::2]))
        broken.append(((a - b) ** 2).mean() - ((c - b) ** 2).mean())
    exact = (1 - scale) ** 2 * (order**2).mean()
    for values, truth, ok in ((equal, 0.0, True), (scaled, exact, True), (broken, exact, False)):
        assert (abs(np.mean(values) - truth) < Z * np.std(values, ddof=1) / math.sqrt(sets)) == ok
    assert np.mean(broken) < 0  # a distance of laws that differ


def test_without_halves_the_sliced_distance_of_equal_laws_is_not_zero() -> None:
    rng, n, sets = np.random.default_rng(12), 20, 300
    found = []
    for _ in range(sets):
        x, y = (np.sort(rng.standard_normal((n, 3)) @ directions(3), axis=0) for _ in range(2))
        found.append(((x - y) ** 2).mean())
    assert np.mean(found) > Z * np.std(found, ddof=1) / math.sqrt(sets)


def test_intervals_of_the_sliced_distance_hold_a_shift() -> None:
    rng, n, sets = np.random.default_rng(13), 100, 600
    shift = np.array([0.5, 0.0, 0.0])
    exact = float(((shift @ directions(3)) ** 2).mean())
    found = []
    for _ in range(sets):
        y = rng.standard_normal((n, 3))
        found.append(sliced_wasserstein(y + shift + 0.3 * rng.standard_normal((n, 3)), y))
    # the law of x is wider by 0.09: its W2^2 in every direction is (sqrt(1.09) - 1)^2 of the order statistics
    order = np.sort(rng.standard_normal((100_000, n // 2)), axis=1).mean(0)
    exact += (math.sqrt(1.09) - 1) ** 2 * float((order**2).mean())
    values, errors = np.array(found).T
    assert abs(values.mean() - exact) < Z * values.std(ddof=1) / math.sqrt(sets)
    held = int((np.abs(values - exact) < 1.96 * errors).sum())
    assert stats.binom.cdf(held, sets, 0.93) > RATE
    assert stats.binom.cdf(int((np.abs(values - exact) < errors).sum()), sets, 0.93) < RATE


def test_chunks_do_not_change_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(14)
    x, y = rng.standard_normal((2, 70, 12))
    whole = energy_distance(x, y)
    monkeypatch.setattr(distances, "_CHUNK", 16)
    np.testing.assert_allclose(energy_distance(x, y), whole, rtol=1e-10)


# --- Of blocks --------------------------------------------------------------------------------------------------------


def order_statistics(m: int) -> Array:
    """E z_(i) of m standard normal numbers, (m,), by the trapezoid rule: Phi(z_(i)) ~ Beta(i, m + 1 - i)."""
    z = np.linspace(-9, 9, 4001)
    rank = np.arange(1, m + 1)[:, None]
    density = stats.beta.pdf(stats.norm.cdf(z), rank, m + 1 - rank) * stats.norm.pdf(z)
    return density @ z * (z[1] - z[0])


def mean_size(mean: float, variance: float) -> float:
    """E|N(mean, variance)| in one dimension."""
    return math.sqrt(2 * variance / math.pi) * math.exp(-(mean**2) / (2 * variance)) + mean * math.erf(
        mean / math.sqrt(2 * variance)
    )


def less_own_distance(x: Array, y: Array, z: Array) -> Array:
    """The broken variant: W(x, y) - W(z, y) with y and z of one law, which subtracts only the bias of y's scatter."""
    first, second, third = (np.sort(rows @ directions(x.shape[2], BLOCK_DIRECTIONS), axis=1) for rows in (x, y, z))
    return ((first - second) ** 2).mean((1, 2)) - ((third - second) ** 2).mean((1, 2))


def with_rows_themselves(x: Array, y: Array) -> Array:
    """The broken variant of the energy distance in one dimension: |x_i - x_i| = 0 counts as a distance of two rows."""
    between, first, second = (np.abs(a - b.swapaxes(1, 2)).mean((1, 2)) for a, b in ((x, y), (x, x), (y, y)))
    return 2 * between - first - second


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.7, 0.0), (1.3, 0.0), (0.7, 0.2)])
def test_block_distances_of_gaussians_are_unbiased(size: int, scale: float, shift: float) -> None:
    """Within 4 standard errors of the exact value; seeds are fixed, and 12 means are compared. The variant that
    subtracts y's own distance alone is not, unless the laws have one scale; nor is the one that counts a row with
    itself."""
    rng, n, blocks = np.random.default_rng(15), 16, 6000
    x, y, z = rng.standard_normal((3, blocks, n, size))
    x = scale * x + shift
    energies, sliced = block_distances(x, y).T

    def deviation(values: Array, exact: float) -> float:
        return abs(values.mean() - exact) / values.std(ddof=1) * math.sqrt(blocks)

    def exact(places: int) -> float:
        """The mean of (E x_i - E y_i)^2 over directions and places."""
        across = (directions(size, BLOCK_DIRECTIONS).sum(0) ** 2).mean()
        return float(shift**2 * across + (1 - scale) ** 2 * (order_statistics(places) ** 2).mean())

    assert deviation(sliced, exact(n // 2)) < 4
    assert (deviation(less_own_distance(x, y, z), exact(n)) < 4) == (scale == 1)
    if size == 1:
        energy = 2 * mean_size(shift, 1 + scale**2) - mean_size(0, 2 * scale**2) - mean_size(0, 2)
        assert deviation(energies, energy) < 4
        assert deviation(with_rows_themselves(x, y), energy) > 4


def test_block_distances_are_those_of_the_blocks() -> None:
    """The energy distance to rounding; the sliced one has fewer directions, but is unbiased and coupled alike."""
    rng = np.random.default_rng(16)
    y = rng.standard_normal((5, 21, 1))
    x = 1.1 * y + 0.1 * rng.standard_normal(y.shape)
    found = block_distances(x, y)
    for block, (energy, sliced) in enumerate(found):
        assert energy == pytest.approx(energy_distance(x[block], y[block]).value, rel=1e-10, abs=1e-12)
        # in one dimension all directions are the same
        assert sliced == pytest.approx(sliced_wasserstein(x[block], y[block]).value, rel=1e-10)


def test_the_distances_of_blocks_of_unequal_laws_stand_out() -> None:
    x, y = np.random.default_rng(17).standard_normal((2, 300, 64, 2))

    def scores(x: Array) -> Array:
        found = block_distances(x, y)
        return found.mean(0) / found.std(0) * math.sqrt(300)

    assert (np.abs(scores(x)) < Z).all()
    assert (scores(1.3 * x) > Z).all()


def test_blocks_that_overflow_have_distances_that_are_not_finite() -> None:
    x, y = np.random.default_rng(18).standard_normal((2, 3, 8, 2))
    x[1] *= 1e200
    finite = np.isfinite(block_distances(x, y))
    assert finite[[0, 2]].all()
    assert not finite[1].any()


def test_directions_are_not_made_of_the_numbers_that_samples_are_made_of() -> None:
    import torch

    size = 192
    updates = normal_pairs(0, torch.arange(BLOCK_DIRECTIONS), START + 1, (size,))[:, 0].numpy()
    assert np.abs(np.einsum("sd,ds->d", directions(size, BLOCK_DIRECTIONS), updates)).max() < Z  # standard normal
    assert (updates**2).sum(1).min() > Z**2  # the same numbers would give their root

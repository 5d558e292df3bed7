"""Noise is a function of (seed, sample, interval, element), and it is standard normal but for a bias that is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from noise_reference import philox as reference_philox
from numpy.typing import NDArray
from scipy import special, stats
from weakorder.integrators.kernels import box_muller, cpu, fallback
from weakorder.integrators.noise import normal_pairs

# Known-answer vectors of Philox-4x32-10, from the authors' Random123 distribution (kat_vectors).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

SEEDS = st.integers(0, 2**64 - 1)
INTERVALS = st.integers(0, 2**32 - 1)


def compiled_philox(counter, key) -> tuple[int, ...]:
    """The compiled loop, on a block of one call."""
    calls, low, high = (np.array([counter[k]], np.uint64) for k in (0, 2, 3))
    radius, angle = np.zeros(2, np.uint32), np.zeros(2, np.uint32)
    cpu._words(calls, low, high, np.uint64(counter[1]), np.array(key, np.uint64), 1, radius, angle)
    return int(radius[0]), int(angle[0]), int(radius[1]), int(angle[1])


def fallback_philox(counter, key) -> tuple[int, ...]:
    return tuple(int(word) for word in fallback.philox(counter, key))


@pytest.mark.parametrize("philox", [compiled_philox, fallback_philox, reference_philox])
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_its_published_known_answers(philox, counter, key, expected) -> None:
    """Triton's own has the compiled one's bits (test_kernels)."""
    assert philox(counter, key) == expected


def test_the_known_answers_tell_a_generator_with_a_round_less() -> None:
    assert all(reference_philox(counter, key, 9) != expected for counter, key, expected in KNOWN_ANSWERS)


@given(SEEDS, INTERVALS, st.lists(st.integers(0, 2**40), min_size=1, max_size=6), st.data())
def test_a_sample_has_the_same_noise_in_any_batch_and_order(seed, interval, numbers, data) -> None:
    order = data.draw(st.permutations(range(len(numbers))))
    samples = torch.tensor(numbers)
    whole = normal_pairs(seed, samples, interval, (2, 3))
    assert torch.equal(normal_pairs(seed, samples[order], interval, (2, 3)), whole[order])
    for row, number in enumerate(numbers):
        assert torch.equal(normal_pairs(seed, torch.tensor([number]), interval, (2, 3))[0], whole[row])


@given(SEEDS, INTERVALS)
def test_elements_keep_their_noise_when_the_event_grows(seed, interval) -> None:
    samples = torch.arange(3)
    assert torch.equal(
        normal_pairs(seed, samples, interval, (5,)), normal_pairs(seed, samples, interval, (9,))[..., :5]
    )


@given(SEEDS, INTERVALS, st.integers(0, 2**40))
def test_seed_interval_and_sample_each_change_every_normal(seed, interval, number) -> None:
    def draw(seed: int, interval: int, number: int) -> torch.Tensor:
        return normal_pairs(seed % 2**64, torch.tensor([number]), interval % 2**32, (4,))

    here = draw(seed, interval, number)
    for other in (draw(seed + 1, interval, number), draw(seed, interval + 1, number), draw(seed, interval, number + 1)):
        assert not torch.isclose(other, here, rtol=1e-9, atol=0).any()


def test_the_halves_of_a_large_seed_and_sample_number_both_count() -> None:
    zero = normal_pairs(0, torch.tensor([0]), 1, (4,))
    assert not torch.equal(normal_pairs(1 << 40, torch.tensor([0]), 1, (4,)), zero)
    assert not torch.equal(normal_pairs(0, torch.tensor([1 << 40]), 1, (4,)), zero)


def _p_values(pairs: torch.Tensor) -> list[float]:
    x, m = pairs[:, 0].flatten().numpy(), pairs[:, 1].flatten().numpy()
    independence = stats.pearsonr(x, m), stats.pearsonr(x**2, m**2), stats.pearsonr(x[:-1], x[1:])
    return [stats.kstest(x, "norm").pvalue, stats.kstest(m, "norm").pvalue, *(test.pvalue for test in independence)]


def test_the_normals_are_standard_and_independent() -> None:
    """200,000 pairs; five tests at 1e-8 each, so a false alarm at a fresh seed has a chance of 5e-8."""
    assert min(_p_values(normal_pairs(1, torch.arange(200), 7, (1000,)))) > 1e-8


def test_the_test_of_normality_sees_five_percent_in_the_deviation() -> None:
    assert min(_p_values(1.05 * normal_pairs(1, torch.arange(200), 7, (1000,)))) < 1e-8


# --- The law: statistics, and what a grid of uniforms leaves of it ----------------------------------------------------


def _law(draw: Callable[..., torch.Tensor]) -> list[float]:
    """p-values of what should be independent: neighbours that share words, samples, intervals, seeds a word apart."""
    here = draw(1, 0, 7)
    pairs = {
        "elements": (here[..., :-1], here[..., 1:]),
        "elements, of other calls": (here[..., :-2], here[..., 2:]),
        "samples": (here[:-1], here[1:]),
        "samples, upper word": (here, draw(1, 1 << 32, 7)),
        "intervals": (here, draw(1, 0, 8)),
        "seeds": (here, draw(2, 0, 7)),
        "seeds, upper word": (here, draw(1 + (1 << 32), 0, 7)),
    }
    found = []
    for first, second in pairs.values():
        a, b = first.flatten().double().numpy(), second.flatten().double().numpy()
        found += [stats.pearsonr(a, b).pvalue, stats.pearsonr(a**2, b**2).pvalue]
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_independent_across_every_word_of_the_counter(dtype) -> None:
    """400,000 normals; 14 correlations at 1e-8 each, so a false alarm at a fresh seed has a chance of 1.4e-7."""
    assert min(_law(lambda seed, add, k: normal_pairs(seed, torch.arange(200) + add, k, (1000,), dtype))) > 1e-8


def test_the_test_of_independence_sees_a_word_that_is_left_out() -> None:
    def forgetful(seed: int, add: int, interval: int) -> torch.Tensor:
        return normal_pairs(seed & 0xFFFFFFFF, torch.arange(200) + add, interval, (1000,))

    assert min(_law(forgetful)) < 1e-8


def cells_bias(cells: int, order: int) -> float:
    """The relative error of E r^(2 order) where u is at the midpoints of `cells` cells: exact sums over the first ones,
    Euler and Maclaurin's correction for the others."""
    first = 100_000
    end = first / cells
    u = (np.arange(first) + 0.5) / cells
    exact = special.gamma(order + 1)
    inside = special.gammaincc(order + 1, -math.log(end)) * exact  # int_0^end (-log u)^order du
    slopes = -order * (-math.log(end)) ** (order - 1) / end, -1.0 if order == 1 else 0.0
    error = math.fsum((-np.log(u)) ** order) / cells - inside - (slopes[1] - slopes[0]) / (24 * cells**2)
    return error / exact


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_bias_of_the_grid_is_as_stated(order: int) -> None:
    stated = box_muller.BIAS[order - 1]
    assert cells_bias(1 << 31, order) == pytest.approx(stated, rel=0.1)
    assert cells_bias(1 << 30, order) != pytest.approx(stated, rel=0.1)
    if order == 1:  # in closed form, by Stirling
        assert cells_bias(1 << 31, 1) == pytest.approx(-math.log(2) / 2**32, rel=1e-6)


def float32_grid(exponent: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of 2^32 u in float32, the values from 2^exponent to twice that, exponent >= 24, and how many odd numbers within
    are rounded to each. Odd numbers lie symmetrically about the multiples of the spacing; where it is 2 they are ties,
    which go to multiples of 4."""
    spacing = max(4, 1 << exponent - 23)
    values = np.arange(1 << exponent, (2 << exponent) + 1, spacing, dtype=float)
    counts = np.full(len(values), spacing / 2)
    counts[[0, -1]] /= 2
    return values, counts


@pytest.mark.parametrize("exponent", [24, 25, 27, 31])
def test_the_count_of_the_grid_in_float32_is_right_where_it_is_counted(exponent: int) -> None:
    values, counts = float32_grid(exponent)
    for ends in ((1 << exponent, (1 << exponent) + 4000), ((2 << exponent) - 4000, 2 << exponent)):
        odd = np.arange(ends[0] + 1, ends[1], 2, dtype=np.int64)
        found, times = np.unique(odd.astype(np.float32).astype(float), return_counts=True)
        inner = slice(0, -1) if ends[0] == 1 << exponent else slice(1, None)  # another binade's have the other half
        listed = counts[np.searchsorted(values, found)]
        assert times[inner].tolist() == listed[inner].tolist()


@pytest.mark.nightly
def test_rounding_the_grid_to_float32_leaves_a_bias_of_the_same_size() -> None:
    """Summed over all values of u: the odd numbers below 2^24, which are exact, and those above by binades."""
    grids = [(np.arange(1, 1 << 24, 2, dtype=float), np.ones(1)), *(float32_grid(k) for k in range(24, 32))]
    moments, total = np.zeros(3), 0.0
    for values, counts in grids:
        energy = 32 * math.log(2) - np.log(values)
        total += float((counts * np.ones(len(values))).sum())
        moments += [float((counts * energy**order).sum()) for order in (1, 2, 3)]
    assert total == 1 << 31
    bias = moments / total / [1, 2, 6] - 1
    assert (np.abs(bias) < 1.5 * np.abs(box_muller.BIAS)).all()


def test_the_largest_normal_is_the_stated_one() -> None:
    """Of the smallest uniform; of the largest, which float32 rounds to 1, the radius is 0."""
    for dtype, tier_numbers in ((np.float32, cpu._single), (np.float64, cpu._double)):
        p = cpu._POLYNOMIALS[torch.float32 if dtype is np.float32 else torch.float64]
        xi, eta = np.empty(2, dtype), np.empty(2, dtype)
        tier_numbers(np.array([0, 0xFFFFFFFF], np.uint32), np.zeros(2, np.uint32), p, 2, xi, eta)
        assert xi[0] == pytest.approx(math.sqrt(64 * math.log(2)), rel=1e-6)
        assert 0 <= xi[1] < 4e-5
        assert (eta == 0).all()


@pytest.mark.parametrize(("numbers", "rounding"), [(box_muller.SINGLE, 2.0**-25), (box_muller.DOUBLE, 2.0**-54)])
def test_the_polynomials_are_the_interpolants_and_leave_less_than_half_a_rounding(numbers, rounding: float) -> None:
    with mpmath.workdps(60):
        root, quarter = mpmath.sqrt, mpmath.pi / 2
        functions = (
            (numbers.log, lambda y: mpmath.atanh(root(y)) / root(y), (3 - root(8)) ** 2),
            (numbers.sin, lambda z: mpmath.sin(quarter * root(z)) / root(z), mpmath.mpf(1)),
            (numbers.cos, lambda z: mpmath.cos(quarter * root(z)), mpmath.mpf(1)),
        )
        for coefficients, function, end in functions:
            count = len(coefficients)
            points = [end * (1 + mpmath.cos(mpmath.pi * (2 * k + 1) / (2 * count))) / 2 for k in range(count)]
            powers = mpmath.matrix([[point**k for k in range(count)] for point in points])
            exact = mpmath.lu_solve(powers, mpmath.matrix([function(point) for point in points]))
            assert [float(c) for c in exact] == list(coefficients)
            places = [end * mpmath.mpf(k) / 100 for k in range(1, 101)]
            errors = [abs(mpmath.polyval(list(exact)[::-1], place) - function(place)) for place in places]
            assert max(errors) < rounding


def test_every_normal_of_a_half_turn_has_its_mirror() -> None:
    """The angle's moments are exact because the grid is symmetric: a and its opposite have opposite normals."""
    angles = np.array([0, 1, 12345, 1 << 29, 1 << 30, (1 << 31) - 1], np.uint32)
    radius, p = np.full(6, 1 << 20, np.uint32), cpu._POLYNOMIALS[torch.float64]
    here, there = np.empty((2, 6)), np.empty((2, 6))
    cpu._double(radius, angles, p, 6, *here)
    cpu._double(radius, angles + np.uint32(1 << 31), p, 6, *there)
    assert (here == -there).all()


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "interval"), [(-1, 0), (1 << 64, 0), (0, -1), (0, 1 << 32)])
def test_a_seed_or_interval_out_of_range_is_refused(seed, interval) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 2\^"):
        normal_pairs(seed, torch.arange(2), interval, (2,))


@pytest.mark.parametrize(
    ("samples", "dtype", "found"),
    [
        (torch.tensor([3, -1]), torch.float64, r"normals of torch\.float64 for samples of torch\.int64 from -1"),
        (torch.tensor([0.5]), torch.float64, r"samples of torch\.float32 from 0\.5"),
        (torch.arange(2), torch.int64, r"normals of torch\.int64"),
    ],
)
def test_normals_and_samples_of_a_wrong_kind_are_refused_by_name(samples, dtype, found: str) -> None:
    with pytest.raises(ValueError, match=rf"{found}.*floating dtype, and samples are numbered by integers >= 0"):
        normal_pairs(0, samples, 0, (2,), dtype)


def test_every_word_of_the_counter_is_on_the_samples_device() -> None:
    """Where there is no accelerator, a device without numbers says whether tensors of two devices met."""
    words = fallback.philox(
        (torch.arange(3, device="meta"), 5, torch.zeros(3, 1, dtype=torch.int64, device="meta"), 0), (1, 2)
    )
    assert {word.device.type for word in words} == {"meta"}

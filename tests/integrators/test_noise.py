"""Noise is a function of (seed, sample, interval, element), and it is standard normal."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from weakorder.integrators import noise
from weakorder.integrators.noise import normal_pairs, philox

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


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_its_published_known_answers(counter, key, expected) -> None:
    assert tuple(int(word) for word in philox(counter, key)) == expected


def test_the_known_answers_tell_a_generator_with_a_round_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_ROUNDS", 9)
    counter, key, expected = KNOWN_ANSWERS[0]
    assert tuple(int(word) for word in philox(counter, key)) != expected


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_sees_the_same_noise_rounded(dtype) -> None:
    samples = torch.arange(4)
    assert torch.equal(normal_pairs(3, samples, 2, (8,), dtype), normal_pairs(3, samples, 2, (8,)).to(dtype))


def test_the_largest_and_smallest_uniforms_give_finite_normals() -> None:
    edge = torch.tensor([0, 0xFFFFFFFF])
    uniform = noise._uniform(edge, edge)
    assert uniform.tolist() == [2.0**-53, 1.0]
    assert math.isfinite(float(torch.sqrt(-2 * torch.log(uniform)).max()))


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
    words = philox((torch.arange(3, device="meta"), 5, torch.zeros(3, 1, dtype=torch.int64, device="meta"), 0), (1, 2))
    assert {word.device.type for word in words} == {"meta"}

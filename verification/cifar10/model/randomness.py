"""Randomness as a function of (seed, step), so that a run that was stopped goes on as if it had not been."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def hashed(seed: int, step: int) -> int:
    """A generator's seed for a step: 64 bits of (seed, step)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order of the images in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(size)


def places(seed: int, first: int, count: int, size: int) -> NDArray[np.int64]:
    """Which images are the `first` to `first + count` - 1 of a run; every epoch has each of `size` once."""
    numbers = range(first, first + count)
    return np.array([permutation(seed, number // size, size)[number % size] for number in numbers])

"""Noise as its definition says, in Python's integers and float64: what every tier of integrators.kernels is held to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MASK = 0xFFFFFFFF


def philox(counter: Sequence[int], key: Sequence[int], rounds: int = 10) -> tuple[int, ...]:
    """Philox-4x32, as the paper's section 4.3 writes it."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        first, second = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(second >> 32) ^ c[1] ^ k[0], second & MASK, (first >> 32) ^ c[3] ^ k[1], first & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return tuple(c)


def words(seed: int, sample: int, interval: int, element: int) -> tuple[int, int]:
    """The words of an element: of its radius, and of its angle."""
    block = philox((element >> 1, interval, sample & MASK, sample >> 32), (seed & MASK, seed >> 32))
    return block[2 * (element & 1)], block[2 * (element & 1) + 1]


def normals(
    seed: int, samples: Sequence[int], interval: int, elements: int, dtype: type[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The normals (batch, 2, elements) and their radii (batch, 1, elements), of uniforms rounded to `dtype`."""
    drawn = np.array(
        [[words(seed, sample, interval, element) for element in range(elements)] for sample in samples], dtype=np.int64
    )
    uniform = (drawn[..., 0] | 1).astype(dtype).astype(float) * 2.0**-32
    radius, angle = np.sqrt(-2 * np.log(uniform)), drawn[..., 1] * (2 * np.pi * 2.0**-32)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), radius[:, None]

"""Noise as a function: the Gaussians of a run depend on (seed, sample, interval, element) and on nothing else.

A counter-based generator, Philox-4x32 with 10 rounds (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as
easy as 1, 2, 3", section 4.3), turns a counter and a key into 128 random bits, and Box-Muller turns those into the pair
of normals (xi_x, xi_m) of one element:

    counter = (element, interval, sample mod 2^32, sample / 2^32)        key = the two halves of the seed

So a sample does not change with the batch it is drawn in, its place there, the number of processes or the device (up to
the last bits of log, cos and sin), and the noise of an interval can be asked for again. The normals are computed in
float64 and then rounded: a float32 run sees the same noise as a float64 one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF

# Elements that a processor works on at once: the words of the generator then stay in its cache.
_BLOCK = 1 << 14

START = 0  # the interval whose noise draws the initial state; the updates of a run are intervals 1, 2, ...


def philox(counter: Sequence[Tensor | int], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four words of counter and two of key to four random words, all 32-bit unsigned held in int64.

    The words of the counter broadcast against each other. Products wrap modulo 2^64, which leaves their words right.
    """
    device = next((word.device for word in counter if isinstance(word, Tensor)), None)
    c0, c1, c2, c3 = torch.broadcast_tensors(
        *(torch.as_tensor(word, dtype=torch.int64, device=device) for word in counter)
    )
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (second >> 32).bitwise_and_(_MASK).bitwise_xor_(c1).bitwise_xor_(k0)
        c2 = (first >> 32).bitwise_and_(_MASK).bitwise_xor_(c3).bitwise_xor_(k1)
        c1, c3 = second.bitwise_and_(_MASK), first.bitwise_and_(_MASK)
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def normal_pairs(
    seed: int, samples: Tensor, interval: int, event: Sequence[int], dtype: torch.dtype = torch.float64
) -> Tensor:
    """Standard normals (batch, 2, *event) of the samples numbered `samples` (batch,), int64 >= 0, in one interval.

    seed: 0 <= seed < 2^64; interval: 0 <= interval < 2^32; `event` has at most 2^32 elements. The device is that of
    `samples`. Raises ValueError on a seed or interval out of range.
    """
    for name, value, bits in (("seed", seed, 64), ("interval", interval, 32)):
        if not isinstance(value, int) or not 0 <= value < 1 << bits:
            raise ValueError(f"{name} = {value} is not an integer, or outside [0, 2^{bits})")
    if not dtype.is_floating_point or samples.is_floating_point() or bool((samples < 0).any()):
        least = min(samples.tolist(), default=0)
        raise ValueError(
            f"normals of {dtype} for samples of {samples.dtype} from {least:g}: normals are of a floating dtype, and "
            "samples are numbered by integers >= 0"
        )
    size, batch = math.prod(event), len(samples)
    elements = torch.arange(size, device=samples.device)
    key = seed & _MASK, seed >> 32
    pairs = torch.empty(batch, 2, size, dtype=dtype, device=samples.device)
    rows = max(1, _BLOCK // max(1, size)) if samples.device.type == "cpu" else max(1, batch)
    for first in range(0, batch, rows):
        sample = samples[first : first + rows, None]
        w0, w1, w2, w3 = philox((elements, interval, sample & _MASK, sample >> 32), key)
        radius = _uniform(w0, w1).log_().mul_(-2).sqrt_()
        angle = _uniform(w2, w3).mul_(2 * math.pi)
        pairs[first : first + rows, 0] = torch.cos(angle).mul_(radius)
        pairs[first : first + rows, 1] = angle.sin_().mul_(radius)
    return pairs.reshape(batch, 2, *event)


def _uniform(high: Tensor, low: Tensor) -> Tensor:
    """53 random bits as a float64 in (0, 1]."""
    return (high << 21).add_(low >> 11).add_(1).to(torch.float64).mul_(2.0**-53)

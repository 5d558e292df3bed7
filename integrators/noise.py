"""Noise as a function: the Gaussians of a run depend on (seed, sample, interval, element) and on nothing else.

A counter-based generator, Philox-4x32 with 10 rounds (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as
easy as 1, 2, 3", section 4.3), turns a counter and a key into four words of 32 random bits, of which two neighbouring
elements e take two each:

    counter = (floor(e / 2), interval, sample mod 2^32, sample / 2^32)       key = the two halves of the seed
    element e has the words 2 (e mod 2) and 2 (e mod 2) + 1,

and Box and Muller's formula turns those into the pair of normals (xi_x, xi_m) of the element (kernels.box_muller, which
states the bias of its grid). So a sample does not change with the batch it is drawn in, its place there, or the number
of threads and processes, and the noise of an interval can be asked for again. What computes it is chosen by device and
dtype (kernels): the random bits are the same everywhere, the normals up to the rounding of log, cos and sin. Those of
float32 are computed in it, from the same bits; lower precisions round them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .kernels import Draw, kernels_for

START = 0  # the interval whose noise draws the initial state; the updates of a run are intervals 1, 2, ...


def normal_pairs(
    seed: int, samples: Tensor, interval: int, event: Sequence[int], dtype: torch.dtype = torch.float64
) -> Tensor:
    """Standard normals (batch, 2, *event) of the samples numbered `samples` (batch,), int64 >= 0, in one interval.

    seed: 0 <= seed < 2^64; interval: 0 <= interval < 2^32; `event` has at most 2^33 elements. The device is that of
    `samples`. Raises ValueError on a seed or interval out of range.
    """
    samples = check_samples(samples, dtype)
    pairs = torch.empty(len(samples), 2, math.prod(event), dtype=dtype, device=samples.device)
    draw_pairs(seed, samples, interval, pairs)
    return pairs.reshape(len(samples), 2, *event)


def draw_pairs(seed: int, samples: Tensor, interval: int, out: Tensor, plane: int = 0) -> None:
    """The same normals into out[:, plane : plane + 2], out (batch, planes, elements) contiguous, on the device of
    `samples`, which `check_samples` has seen. Raises ValueError on a seed or interval out of range."""
    check_counter(seed, interval)
    kernels_for(out).fill(Draw(seed, samples, interval), out, plane)


def check_counter(seed: int, interval: int) -> None:
    """Raises ValueError if they are out of range."""
    for name, value, bits in (("seed", seed, 64), ("interval", interval, 32)):
        if not isinstance(value, int) or not 0 <= value < 1 << bits:
            raise ValueError(f"{name} = {value} is not an integer, or outside [0, 2^{bits})")


def check_samples(samples: Tensor, dtype: torch.dtype) -> Tensor:
    """The samples' numbers (batch,) as contiguous int64. Raises ValueError on what is no number of a sample, or a dtype
    that has no normals."""
    if not dtype.is_floating_point or samples.is_floating_point() or bool((samples < 0).any()):
        least = min(samples.tolist(), default=0)
        raise ValueError(
            f"normals of {dtype} for samples of {samples.dtype} from {least:g}: normals are of a floating dtype, and "
            "samples are numbered by integers >= 0"
        )
    return samples.to(torch.int64).contiguous()

"""Three ways to compute the same noise and the same update, and which of them a tensor gets.

    cpu         numba, float32 and float64 in a CPU's memory
    gpu         Triton, float32 and float64 on a GPU
    fallback    operators of torch: any other device or dtype, and where neither package is there

Each module has

    fill(draw, out, plane)          the normals of a Draw into two planes of out (batch, planes, n)
    Updates(coefficients, u)        the updates u <- P u + K s + C xi of a run, one after the other
    march(coefficients, u, draw)    all of them, of a run that needs no score

with the same random bits and the same uniforms (kernels.box_muller), so that normals differ by the rounding of log, cos
and sin between tiers, and not at all within one: not by batch, order, place, length of the event or number of threads.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module, metadata
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Draw(NamedTuple):
    """The normals of one interval: those of the samples numbered `samples` (batch,), int64, contiguous."""

    seed: int
    samples: Tensor
    interval: int


class Updates(Protocol):
    """The updates of a run on states like `u`, with coefficients (updates, 11) in float64: of each P, K, C00, C10, C11,
    row by row, C being lower."""

    def __init__(self, coefficients: NDArray[np.float64], u: Tensor) -> None: ...

    def __call__(self, k: int, u: Tensor, s: Tensor | None, noise: Draw | Tensor | None) -> Tensor:
        """The k-th update of u (batch, 2, *event): a new state. s: the score, in u's shape, dtype and device, None for
        K = 0; noise: None for C = 0, or normals in u's shape, or which ones to draw."""
        ...

    def wrong(self, wait: bool) -> int | None:
        """The first update whose score had an entry that is not finite, as far as that is known without waiting for a
        device; if `wait`, for certain."""
        ...


class Kernels(Protocol):
    """A tier's module."""

    Updates: type[Updates]

    @staticmethod
    def fill(draw: Draw, out: Tensor, plane: int = 0) -> None:
        """Put the normals (batch, 2, n) of `draw` into out[:, plane : plane + 2], out (batch, planes, n) contiguous."""
        ...

    @staticmethod
    def march(coefficients: NDArray[np.float64], u: Tensor, draw: Draw) -> Tensor:
        """All updates of u (batch, 2, *event) with K = 0, the k-th with the noise of the interval draw.interval + k: a
        new state, with the bits of one update after the other."""
        ...


def one_by_one(updates: Updates, coefficients: NDArray[np.float64], u: Tensor, draw: Draw) -> Tensor:
    """`march`, where nothing is won by making several updates at once."""
    noisy = (coefficients[:, 8:] != 0).any(axis=1).tolist()
    u = u.clone() if not noisy else u
    for k, has_noise in enumerate(noisy):
        u = updates(k, u, None, draw._replace(interval=draw.interval + k) if has_noise else None)
    return u


def kernels_for(u: Tensor) -> Kernels:
    """The fastest tier for tensors like u."""
    compiled = u.dtype in (torch.float32, torch.float64) and type(u) is Tensor
    if compiled and u.device.type == "cpu" and _problem("numba") is None:
        return _module("cpu")
    if compiled and u.device.type == "cuda" and _problem("triton") is None:
        return _module("gpu")
    return _module("fallback")


def tiers_in_use() -> dict[str, str]:
    """What computes noise and updates, by kind of device, for people."""
    lines = {}
    for device, package in (("CPU", "numba"), ("GPU", "triton")):
        problem = _problem(package)
        lines[device] = f"torch operators ({problem})" if problem else f"{package} {metadata.version(package)}"
    return lines


def _module(name: str) -> Kernels:
    return import_module(f"{__package__}.{name}")  # type: ignore[return-value]


@lru_cache
def _problem(package: str) -> str | None:
    """Why a package cannot be used, None if it can. Importing it takes half a second: at the first use."""
    if package == "triton" and torch.version.cuda is None and torch.version.hip is None:
        return "torch was built without GPUs"
    try:
        import_module(package)
    except ImportError as error:  # numba says so of a numpy that it does not know, too
        return f"no {package}: {error}"
    return None

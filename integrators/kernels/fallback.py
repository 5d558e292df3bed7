"""The kernels by torch's operators: for every device and dtype, and where numba or Triton is missing.

On a CPU a block of rows is drawn and advanced before the next, so that its words stay in cache. Precisions below
float32 are computed in it. Philox's words are held in int64; products wrap modulo 2^64, which leaves their words right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .tiers import Draw

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF

_BLOCK = 1 << 14  # elements that a processor works on at once
_NEVER = 2**31 - 1


def philox(counter: Sequence[Tensor | int], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four words of counter and two of key to four random words, all 32-bit unsigned held in int64.

    The words of the counter broadcast against each other.
    """
    device = next((word.device for word in counter if isinstance(word, Tensor)), None)
    c0, c1, c2, c3 = torch.broadcast_tensors(
        *(w if isinstance(w, Tensor) else torch.full((), w, dtype=torch.int64, device=device) for w in counter)
    )
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (second >> 32).bitwise_and_(_MASK).bitwise_xor_(c1).bitwise_xor_(k0)
        c2 = (first >> 32).bitwise_and_(_MASK).bitwise_xor_(c3).bitwise_xor_(k1)
        c1, c3 = second.bitwise_and_(_MASK), first.bitwise_and_(_MASK)
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def fill(draw: Draw, out: Tensor, plane: int = 0) -> None:
    """See `kernels.Kernels`."""
    for rows in _blocks(out):
        _pairs(draw, rows, out[rows, plane], out[rows, plane + 1])


class Updates:
    """See `kernels.Updates`."""

    def __init__(self, coefficients: NDArray[np.float64], u: Tensor) -> None:
        self.table = coefficients.tolist()
        self.first_wrong = torch.tensor(_NEVER, device=u.device)
        self.on_cpu = u.device.type == "cpu"

    def __call__(self, k: int, u: Tensor, s: Tensor | None, noise: Draw | Tensor | None) -> Tensor:
        if u.dtype not in (torch.float32, torch.float64):  # rounded once, at the end
            given = noise.float() if isinstance(noise, Tensor) else noise
            return self(k, u.float(), None if s is None else s.float(), given).to(u.dtype)
        out = torch.empty_like(u, memory_format=torch.contiguous_format)
        state, result = u.reshape(len(u), 2, -1), out.view(len(u), 2, -1)
        score = None if s is None else s.reshape(state.shape)
        given = noise.reshape(state.shape) if isinstance(noise, Tensor) else None
        c = self.table[k]
        for rows in _blocks(state):
            normals = None if given is None else given[rows]
            if isinstance(noise, Draw):
                normals = torch.empty_like(state[rows], memory_format=torch.contiguous_format)
                _pairs(noise, rows, normals[:, 0], normals[:, 1])
            operands = [state[rows, 0], state[rows, 1]]
            rows_of_c = [c[:2], c[2:4]]
            if score is not None:
                operands += [score[rows, 0], score[rows, 1]]
                rows_of_c = [rows_of_c[0] + c[4:6], rows_of_c[1] + c[6:8]]
            if normals is not None:
                operands += [normals[:, 0], normals[:, 1]]
                rows_of_c = [rows_of_c[0] + c[8:9], rows_of_c[1] + c[9:11]]
            for plane, factors in enumerate(rows_of_c):
                total = torch.mul(operands[0], factors[0], out=result[rows, plane])
                for operand, factor in zip(operands[1:], factors[1:], strict=False):  # C is lower
                    total.add_(operand, alpha=factor)
        if s is not None:
            bad = ~torch.isfinite(s).all()
            self.first_wrong = torch.where(bad, self.first_wrong.clamp(max=k), self.first_wrong)
        return out

    def wrong(self, wait: bool) -> int | None:
        """See `kernels.Updates`."""
        if not wait and not self.on_cpu:
            return None
        first = int(self.first_wrong)
        return None if first == _NEVER else first


def _blocks(out: Tensor) -> list[slice]:
    batch, n = len(out), out[:1].numel() // max(1, out.shape[1])
    rows = max(1, _BLOCK // max(1, n)) if out.device.type == "cpu" else max(1, batch)
    return [slice(first, min(first + rows, batch)) for first in range(0, batch, rows)]


def _pairs(draw: Draw, rows: slice, xi: Tensor, eta: Tensor) -> None:
    """The normals of some of the draw's rows, (rows, n) each, see box_muller."""
    n, sample = xi.shape[1], draw.samples[rows, None]
    calls = torch.arange((n + 1) // 2, device=sample.device)
    counter = (calls, draw.interval, sample & _MASK, sample >> 32)
    w0, w1, w2, w3 = philox(counter, (draw.seed & _MASK, draw.seed >> 32))
    dtype = torch.float64 if xi.dtype == torch.float64 else torch.float32
    radius = _floats(w0 | 1, w2 | 1, dtype).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    half = 1 << 31  # an angle in [-pi, pi) has a bit more than one in [0, 2 pi)
    angle = _floats((w1 ^ half) - half, (w3 ^ half) - half, dtype).mul_(2 * math.pi * 2.0**-32)
    torch.mul(torch.cos(angle)[:, :n], radius[:, :n], out=xi)
    torch.mul(angle.sin_()[:, :n], radius[:, :n], out=eta)


def _floats(even: Tensor, odd: Tensor, dtype: torch.dtype) -> Tensor:
    """Integers of the even and of the odd elements (rows, calls) as floats (rows, 2 calls)."""
    return torch.stack([even, odd], dim=-1).to(dtype).flatten(1)

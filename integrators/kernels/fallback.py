"""The kernels by torch's operators: for every device and dtype, and where numba or Triton is missing.

On a CPU a block of rows is drawn and advanced before the next, which bounds what is held beside the states. Precisions
below float32 are computed in it. Philox's words are held in int64; products wrap modulo 2^64, which leaves their words
right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .box_muller import DOUBLE, SINGLE
from .tiers import Draw, one_by_one

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF

_BLOCK = 1 << 17  # elements that a processor works on at once: operators cost more to call than a cache saves
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


def _block_words(calls: int, interval: int, samples: Tensor, key: tuple[int, int]) -> tuple[Tensor, ...]:
    """`philox` of the counters (call, interval, sample) of the calls 0, ... (calls) of each row, each word (rows,
    calls). On a CPU by numpy, whose integers have no sign to mask and whose results go where they are told."""
    if type(samples) is not Tensor or samples.device.type != "cpu":
        numbers = torch.arange(calls, device=samples.device)
        return philox((numbers, interval, (samples & _MASK)[:, None], (samples >> 32)[:, None]), key)
    mask, half, rows = np.uint64(_MASK), np.uint64(32), samples.numpy().astype(np.uint64)[:, None]
    c, d, p, high = (np.empty((2, len(rows), calls), np.uint64) for _ in range(4))
    c[0], c[1], d[0], d[1] = np.arange(calls), rows & mask, interval, rows >> half
    multipliers, (k0, k1) = np.array(_MULTIPLIERS, np.uint64)[:, None, None], key
    for _ in range(_ROUNDS):
        np.multiply(c, multipliers, out=p)
        np.right_shift(p, half, out=high)
        np.bitwise_xor(high[::-1], d, out=c)
        np.bitwise_xor(c, np.array([k0, k1], np.uint64)[:, None, None], out=c)
        np.bitwise_and(p[::-1], mask, out=d)
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    w0, w2, w1, w3 = (torch.from_numpy(word.view(np.int64)) for word in (*c, *d))
    return w0, w1, w2, w3


def fill(draw: Draw, out: Tensor, plane: int = 0) -> None:
    """See `kernels.Kernels`."""
    for rows in _blocks(out):
        _pairs(draw, rows, out[rows, plane], out[rows, plane + 1])


def march(coefficients: NDArray[np.float64], u: Tensor, draw: Draw) -> Tensor:
    """See `kernels.Kernels`."""
    return one_by_one(Updates(coefficients, u), coefficients, u, draw)


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
    n, key = xi.shape[1], (draw.seed & _MASK, draw.seed >> 32)
    w0, w1, w2, w3 = _block_words((n + 1) // 2, draw.interval, draw.samples[rows], key)
    double = xi.dtype == torch.float64
    dtype, numbers = (torch.float64, DOUBLE) if double else (torch.float32, SINGLE)
    radius = _floats(w0 | 1, w2 | 1, dtype).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    turns = [((w << 33) >> 32, ((w << 32) ^ (w << 33)) >> 63) for w in (w1, w3)]  # b, and -1 for an odd half-turn
    t = _floats(turns[0][0], turns[1][0], dtype).mul_(2.0**-31)
    radius.mul_(_floats(turns[0][1], turns[1][1], dtype).mul_(2).add_(1))
    z = t * t
    torch.mul(_polynomial(z, numbers.cos)[:, :n], radius[:, :n], out=xi)
    torch.mul(_polynomial(z, numbers.sin).mul_(t)[:, :n], radius[:, :n], out=eta)


def _polynomial(z: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = z * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        value.add_(c).mul_(z)
    return value.add_(coefficients[0])


def _floats(even: Tensor, odd: Tensor, dtype: torch.dtype) -> Tensor:
    """Integers of the even and of the odd elements (rows, calls) as floats (rows, 2 calls)."""
    return torch.stack([even, odd], dim=-1).to(dtype).flatten(1)

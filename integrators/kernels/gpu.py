"""The kernels of a GPU, in Triton: noise, update and the check of the score in one pass over memory.

A program works on a tile of rows and of calls of Philox, each of which serves two neighbours in memory. Log, cos and
sin are box_muller's polynomials and nothing is contracted, so the bits are those of the processor's kernels. The device
is never waited for, except where a caller wants to know for certain that no score was bad.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOptionalOperand=false
from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from .box_muller import DOUBLE, SINGLE
from .tiers import Draw, one_by_one

_CALLS = 512  # of Philox in a program
_NEVER = 2**31 - 1
_EVERY = 16  # updates between two looks at what is known of the scores

_NONE, _DRAWN, _GIVEN = range(3)  # the noise of an update


@triton.jit
def _polynomial(z, P: tl.constexpr, first: tl.constexpr, last: tl.constexpr):
    """P[first] + P[first + 1] z + ... + P[last] z^(last - first)."""
    value = tl.full(z.shape, P[last], z.dtype)
    for k in tl.static_range(1, last - first + 1):
        value = P[last - k] + z * value
    return value


@triton.jit
def _pairs(samples, calls, seed, interval, P: tl.constexpr, D: tl.constexpr, dtype: tl.constexpr):
    """The normals xi, eta (rows, 2 calls) of the samples (rows, 1) and calls (1, calls)."""
    zero = samples * 0 + calls * 0
    w0, w1, w2, w3 = tl.philox(
        seed,
        (zero + calls).to(tl.uint32),
        (zero + interval).to(tl.uint32),
        (zero + (samples & 0xFFFFFFFF)).to(tl.uint32),
        (zero + (samples >> 32)).to(tl.uint32),
    )
    radius, angle = tl.interleave(w0, w2), tl.interleave(w1, w3)
    v = (radius | 1).to(dtype)
    if dtype == tl.float64:
        bits = v.to(tl.uint64, bitcast=True)
        e = (bits - 0x3FE6A09E667F3BCD) >> 52
        f = (bits - (e << 52)).to(tl.float64, bitcast=True) - 1.0
    else:
        bits = v.to(tl.uint32, bitcast=True)
        e = (bits - 0x3F3504F3) >> 23
        f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    s = tl.div_rn(f, f + 2.0) if dtype == tl.float32 else f / (f + 2.0)
    log = _polynomial(s * s, P, 0, D[0])
    square = (32.0 - e.to(tl.int32).to(dtype)) * 1.3862943611198906 - 4.0 * s * log
    r = tl.sqrt(square) if dtype == tl.float64 else tl.sqrt_rn(square)
    turn = angle << 1
    t = turn.to(tl.int32, bitcast=True).to(dtype) * 4.656612873077392578125e-10  # 2^-31
    r = tl.where((angle ^ turn) >= 0x80000000, -r, r)
    z = t * t
    return r * _polynomial(z, P, D[1] + 1, D[2]), r * (t * _polynomial(z, P, D[0] + 1, D[1]))


@triton.jit
def _tile(batch, n, ROWS: tl.constexpr, CALLS: tl.constexpr):
    """Of this program: rows (ROWS, 1), calls (1, CALLS), elements (1, 2 CALLS), and which of these exist."""
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    calls = (tl.program_id(1) * CALLS + tl.arange(0, CALLS))[None, :]
    elements = (tl.program_id(1) * 2 * CALLS + tl.arange(0, 2 * CALLS))[None, :]
    return rows, calls, elements, (rows < batch) & (elements < n)


@triton.jit(do_not_specialize=["seed", "interval", "batch", "plane"])
def _fill(
    samples,
    out,
    seed,
    interval,
    batch,
    n,
    planes,
    plane,
    P: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    CALLS: tl.constexpr,
):
    rows, calls, elements, real = _tile(batch, n, ROWS, CALLS)
    numbers = tl.load(samples + rows, rows < batch, 0)
    xi, eta = _pairs(numbers, calls, seed, interval, P, D, out.dtype.element_ty)
    at = out + (rows * planes + plane) * n + elements
    tl.store(at, xi, real)
    tl.store(at + n, eta, real)


@triton.jit(do_not_specialize=["seed", "interval", "k", "batch"])
def _update(
    u,
    s,
    given,
    out,
    samples,
    table,
    wrong,
    seed,
    interval,
    k,
    batch,
    n,
    noise: tl.constexpr,
    scored: tl.constexpr,
    P: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    CALLS: tl.constexpr,
):
    rows, calls, elements, real = _tile(batch, n, ROWS, CALLS)
    at = rows * 2 * n + elements
    c = table + k * 11
    x, m = tl.load(u + at, real, 0.0), tl.load(u + at + n, real, 0.0)
    position = tl.load(c) * x + tl.load(c + 1) * m
    momentum = tl.load(c + 2) * x + tl.load(c + 3) * m
    if scored:
        sx, sm = tl.load(s + at, real, 0.0), tl.load(s + at + n, real, 0.0)
        position = position + tl.load(c + 4) * sx + tl.load(c + 5) * sm
        momentum = momentum + tl.load(c + 6) * sx + tl.load(c + 7) * sm
        finite = (tl.abs(sx) < float("inf")) & (tl.abs(sm) < float("inf"))
        tl.atomic_min(wrong, k, mask=tl.min(finite.to(tl.int32)) == 0)
    if noise != 0:
        if noise == 1:
            numbers = tl.load(samples + rows, rows < batch, 0)
            xi, eta = _pairs(numbers, calls, seed, interval, P, D, out.dtype.element_ty)
        else:
            xi, eta = tl.load(given + at, real, 0.0), tl.load(given + at + n, real, 0.0)
        position = position + tl.load(c + 8) * xi
        momentum = momentum + tl.load(c + 9) * xi + tl.load(c + 10) * eta
    tl.store(out + at, position, real)
    tl.store(out + at + n, momentum, real)


def fill(draw: Draw, out: Tensor, plane: int = 0) -> None:
    """See `kernels.Kernels`."""
    batch, planes, n = out.shape
    if out.numel():
        grid, tile = _tiles(batch, n, out.dtype)
        with _current(out):
            _fill[grid](draw.samples, out, draw.seed, draw.interval, batch, n, planes, plane, **tile)


def march(coefficients: NDArray[np.float64], u: Tensor, draw: Draw) -> Tensor:
    """See `kernels.Kernels`."""
    return one_by_one(Updates(coefficients, u), coefficients, u, draw)


class Updates:
    """See `kernels.Updates`. The number of the first update with a bad score is kept on the device, and copied to the
    CPU now and then without waiting for it."""

    def __init__(self, coefficients: NDArray[np.float64], u: Tensor) -> None:
        self.table = torch.as_tensor(coefficients, dtype=u.dtype).to(u.device, non_blocking=True)
        self.first_wrong = torch.full((1,), _NEVER, dtype=torch.int32, device=u.device)
        self.seen = torch.full((1,), _NEVER, dtype=torch.int32, pin_memory=u.device.type == "cuda")

    def __call__(self, k: int, u: Tensor, s: Tensor | None, noise: Draw | Tensor | None) -> Tensor:
        u = u.contiguous()
        out = torch.empty_like(u)
        if not u.numel():
            return out
        batch, n = len(u), u[0, 0].numel()
        grid, tile = _tiles(batch, n, u.dtype)
        score = u if s is None else s.contiguous()
        given, samples, seed, interval, kind = u, u, 0, 0, _NONE
        if isinstance(noise, Draw):
            samples, seed, interval, kind = noise.samples, noise.seed, noise.interval, _DRAWN
        elif noise is not None:
            given, kind = noise.contiguous(), _GIVEN
        with _current(u):
            _update[grid](
                *(u, score, given, out, samples, self.table, self.first_wrong, seed, interval, k, batch, n),
                noise=kind,
                scored=s is not None,
                **tile,
            )
            if k % _EVERY == 0:
                self.seen.copy_(self.first_wrong, non_blocking=True)
        return out

    def wrong(self, wait: bool) -> int | None:
        """See `kernels.Updates`."""
        first = int(self.first_wrong) if wait else int(self.seen)
        return None if first == _NEVER else first


def _tiles(batch: int, n: int, dtype: torch.dtype) -> tuple[tuple[int, int], dict[str, Any]]:
    """The grid of programs, and the shape of each and its polynomials."""
    half = (n + 1) // 2
    calls = min(_CALLS, triton.next_power_of_2(half))
    rows = min(_CALLS // calls, triton.next_power_of_2(batch))
    polynomials = DOUBLE if dtype == torch.float64 else SINGLE
    last = tuple(sum(map(len, polynomials[: k + 1])) - 1 for k in range(3))
    tile = {"P": sum(polynomials, ()), "D": last, "ROWS": rows, "CALLS": calls, "enable_fp_fusion": False}
    return (triton.cdiv(batch, rows), triton.cdiv(half, calls)), tile


def _current(u: Tensor) -> Any:
    """Triton works on the current device."""
    return torch.cuda.device(u.device if u.device.type == "cuda" else -1)

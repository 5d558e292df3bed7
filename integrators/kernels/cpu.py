"""The kernels of a CPU, compiled by numba: a block's words, its normals and its update while all three are in cache.

A block is up to 128 calls of Philox, that is 256 pairs of normals: a piece of one large event, or several small ones
whole. Its loops run over the same slots, 2 j and 2 j + 1 being the elements of call j, so that each is vectorised
whatever the event's size. Arithmetic is IEEE's, operation by operation: nothing is contracted or reordered, so an
element has the same bits wherever it stands, on any number of threads and on every processor. Compiled code is kept on
disk and goes by this file alone, so numbers from elsewhere are arguments.
"""

# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from . import box_muller
from .machine_code import compiled
from .threads import split_rows
from .tiers import Draw

_CALLS = 128  # of Philox in a block
_GRAIN = 1 << 14  # pairs of normals that are worth waking a thread for
_SMALL = 16  # elements below which a loop over rows is the longer one

u32, u64, f32, f64, i32, uintp = np.uint32, np.uint64, np.float32, np.float64, np.int32, np.uintp
_M0, _M1, _W0, _W1 = u64(0xD2511F53), u64(0xCD9E8D57), u64(0x9E3779B9), u64(0xBB67AE85)
_LOW, _HALF, _ONE, _SIGN = u64(0xFFFFFFFF), u64(32), u32(1), u32(0x80000000)


def _inline(function: Any) -> Any:
    """A part of the functions that call it: a loop around it can be vectorised."""
    return njit(function, inline="always", error_model="numpy")


@_inline
def _philox(c0, c1, c2, c3, k0, k1):
    """Philox-4x32-10 of 32-bit words in 64 bits; the upper halves of what comes back are to be ignored."""
    for _ in range(10):
        p, q = (c0 & _LOW) * _M0, (c2 & _LOW) * _M1
        c0, c2 = (q >> _HALF) ^ (c1 & _LOW) ^ k0, (p >> _HALF) ^ (c3 & _LOW) ^ k1
        c1, c3 = q, p
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@compiled
def _row_words(first, count, interval, sample, key, radius, angle):
    """The words of the calls first, ... (count) of a row: of the radius and of the angle (2 count,)."""
    low, high, k0, k1 = sample & _LOW, sample >> _HALF, key[0], key[1]
    for j in range(count):
        w0, w1, w2, w3 = _philox(u64(first + j), interval, low, high, k0, k1)
        radius[2 * j], radius[2 * j + 1] = u32(w0), u32(w2)
        angle[2 * j], angle[2 * j + 1] = u32(w1), u32(w3)


@compiled
def _words(calls, low, high, interval, key, count, radius, angle):
    """The words of counters (calls, interval, low, high), each (count,)."""
    k0, k1 = key[0], key[1]
    for j in range(count):
        w0, w1, w2, w3 = _philox(calls[j], interval, low[j], high[j], k0, k1)
        radius[2 * j], radius[2 * j + 1] = u32(w0), u32(w2)
        angle[2 * j], angle[2 * j + 1] = u32(w1), u32(w3)


@compiled
def _single(radius, angle, p, count, xi, eta):
    """Normals in float32, see box_muller; p: the coefficients of LOG, SIN and COS, one after the other."""
    l0, l1, l2, l3 = p[0], p[1], p[2], p[3]
    s0, s1, s2, s3, s4 = p[4], p[5], p[6], p[7], p[8]
    c0, c1, c2, c3, c4, c5 = p[9], p[10], p[11], p[12], p[13], p[14]
    for j in range(count):
        bits = f32(radius[j] | _ONE).view(u32)
        e = u32(u32(bits - u32(0x3F3504F3)) >> u32(23))  # 2^-1/2
        f = u32(bits - (e << u32(23))).view(f32) - f32(1)
        s = f / (f32(2) + f)
        y = s * s
        log = l0 + y * (l1 + y * (l2 + y * l3))
        r = np.sqrt((f32(32) - f32(i32(e))) * f32(1.3862943611198906) - f32(4) * s * log)
        turn = u32(angle[j] << _ONE)
        t = f32(i32(turn)) * f32(2.0**-31)
        z = t * t
        sine = t * (s0 + z * (s1 + z * (s2 + z * (s3 + z * s4))))
        cosine = c0 + z * (c1 + z * (c2 + z * (c3 + z * (c4 + z * c5))))
        r = u32(f32(r).view(u32) ^ ((angle[j] ^ turn) & _SIGN)).view(f32)
        xi[j] = r * cosine
        eta[j] = r * sine


@compiled
def _double(radius, angle, p, count, xi, eta):
    """`_single` in float64."""
    l0, l1, l2, l3, l4, l5, l6, l7 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15], p[16]
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 = p[17], p[18], p[19], p[20], p[21], p[22], p[23], p[24], p[25], p[26]
    for j in range(count):
        bits = f64(radius[j] | _ONE).view(u64)
        e = (bits - u64(0x3FE6A09E667F3BCD)) >> u64(52)
        f = u64(bits - (e << u64(52))).view(f64) - 1.0
        s = f / (2.0 + f)
        y = s * s
        log = l0 + y * (l1 + y * (l2 + y * (l3 + y * (l4 + y * (l5 + y * (l6 + y * l7))))))
        r = np.sqrt((32.0 - f64(i32(e))) * 1.3862943611198906 - 4.0 * s * log)
        turn = u32(angle[j] << _ONE)
        t = f64(i32(turn)) * 2.0**-31
        z = t * t
        sine = s4 + z * (s5 + z * (s6 + z * (s7 + z * s8)))
        sine = t * (s0 + z * (s1 + z * (s2 + z * (s3 + z * sine))))
        cosine = c5 + z * (c6 + z * (c7 + z * (c8 + z * c9)))
        cosine = c0 + z * (c1 + z * (c2 + z * (c3 + z * (c4 + z * cosine))))
        r = u64(f64(r).view(u64) ^ (u64((angle[j] ^ turn) & _SIGN) << _HALF)).view(f64)
        xi[j] = r * cosine
        eta[j] = r * sine


@compiled
def _draw(samples, row, rows, first, count, interval, key, p, counter, word, normal):
    """A block's normals (512,), xi and then eta, of rows one after the other: of the calls first, ... (count) of each
    of the rows row, ... (rows). Short rows are taken across: their counters (3, 128) are written down first."""
    if count < _SMALL:
        for c in range(count):
            for r in range(rows):
                sample, j = u64(samples[row + r]), r * count + c
                counter[0, j], counter[1, j], counter[2, j] = first + c, sample & _LOW, sample >> _HALF
        _words(counter[0], counter[1], counter[2], interval, key, rows * count, word[0], word[1])
    else:
        for r in range(rows):
            radius, angle = word[0, 2 * count * r :], word[1, 2 * count * r :]
            _row_words(first, count, interval, u64(samples[row + r]), key, radius, angle)
    if normal.itemsize == 4:
        _single(word[0], word[1], p, 2 * rows * count, normal[: 2 * _CALLS], normal[2 * _CALLS :])
    else:
        _double(word[0], word[1], p, 2 * rows * count, normal[: 2 * _CALLS], normal[2 * _CALLS :])


@compiled
def _line(u, s, noise, at, xi, eta, n, width, c, out):
    """u <- P u + K s + C (xi, eta) on `width` elements of one row, at `at` in states u, scores s and results `out`
    (batch, 2, n), flat, and at xi and eta in `noise`; how many have a score that is not finite."""
    p00, p01, p10, p11, k00, k01, k10, k11 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
    c00, c10, c11 = c[8], c[9], c[10]
    bad, zero = u32(0), f32(0)
    at, xi, eta, n = uintp(at), uintp(xi), uintp(eta), uintp(n)  # an index without sign needs no check of its sign
    for e in range(uintp(width)):
        x, m, sx, sm, normal = u[at + e], u[at + n + e], s[at + e], s[at + n + e], noise[xi + e]
        out[at + e] = p00 * x + p01 * m + k00 * sx + k01 * sm + c00 * normal
        out[at + n + e] = p10 * x + p11 * m + k10 * sx + k11 * sm + c10 * normal + c11 * noise[eta + e]
        bad = u32(bad + u32(sx * zero + sm * zero != zero))
    return bad


@compiled
def _copy(source, target, rows, width, begin, stride, place, pitch):
    """target[place + pitch r + e] = source[begin + stride r + e] for r < rows, e < width."""
    begin, stride, place, pitch = uintp(begin), uintp(stride), uintp(place), uintp(pitch)
    if width < _SMALL:
        for e in range(uintp(width)):
            for r in range(uintp(rows)):
                target[place + pitch * r + e] = source[begin + stride * r + e]
    else:
        for r in range(uintp(rows)):
            for e in range(uintp(width)):
                target[place + pitch * r + e] = source[begin + stride * r + e]


@compiled
def _small(u, s, given, normal, row, rows, n, c, state, out):
    """`_line` on several small events, brought together in `state` (3, 512)."""
    size, stride, base = normal.size // 2, 2 * ((n + 1) // 2), 2 * n * row
    for plane in range(2):
        _copy(u, state[0], rows, n, base + plane * n, 2 * n, plane * size, stride)
        _copy(s, state[1], rows, n, base + plane * n, 2 * n, plane * size, stride)
        if given.size:
            _copy(given, normal, rows, n, base + plane * n, 2 * n, plane * size, stride)
    bad = _line(state[0], state[1], normal, 0, 0, size, size, rows * stride, c, state[2])
    for plane in range(2):
        _copy(state[2], out, rows, n, plane * size, stride, base + plane * n, 2 * n)
    return bad


@compiled
def _fill(begin, end, samples, interval, key, p, n, out, planes, plane):
    """The normals of rows begin, ..., end - 1 into the planes plane, plane + 1 of out (batch, planes, n), flat."""
    half = (n + 1) // 2
    counter, word, normal = np.empty((3, _CALLS), u64), np.empty((2, 2 * _CALLS), u32), np.empty(4 * _CALLS, out.dtype)
    together = max(1, _CALLS // half)
    for row in range(begin, end, together):
        rows = min(together, end - row)
        for first in range(0, half, _CALLS):
            count = min(_CALLS, half - first)
            _draw(samples, row, rows, first, count, interval, key, p, counter, word, normal)
            for k in range(2):
                place = n * (planes * row + plane + k) + 2 * first
                width = min(2 * count, n - 2 * first)
                _copy(normal, out, rows, width, 2 * _CALLS * k, 2 * count, place, planes * n)


@compiled
def _update(begin, end, drawn, samples, interval, key, p, n, c, u, s, given, out):
    """The update of rows begin, ..., end - 1 of states, scores and results (batch, 2, n), flat; how many elements have
    a score that is not finite. The noise is drawn here, or `given` (batch, 2, n), or none (`given` is empty)."""
    half = (n + 1) // 2
    counter, word, normal = np.empty((3, _CALLS), u64), np.empty((2, 2 * _CALLS), u32), np.zeros(4 * _CALLS, out.dtype)
    state = np.zeros((3, 4 * _CALLS), out.dtype)
    together, bad = max(1, _CALLS // half), 0
    for row in range(begin, end, together):
        rows = min(together, end - row)
        for first in range(0, half, _CALLS):
            count = min(_CALLS, half - first)
            if drawn:
                _draw(samples, row, rows, first, count, interval, key, p, counter, word, normal)
            if n < _SMALL:
                bad += _small(u, s, given, normal, row, rows, n, c, state, out)
                continue
            width = min(2 * count, n - 2 * first)
            for r in range(rows):
                at, slot = 2 * n * (row + r) + 2 * first, 2 * count * r
                if given.size:
                    bad += _line(u, s, given, at, at, at + n, n, width, c, out)
                else:
                    bad += _line(u, s, normal, at, slot, slot + 2 * _CALLS, n, width, c, out)
    return bad


@compiled
def _chained(x, m, normal, size, width, c):
    """`_line` without a score on `width` elements of a block, in place."""
    p00, p01, p10, p11, c00, c10, c11 = c[0], c[1], c[2], c[3], c[8], c[9], c[10]
    for e in range(uintp(width)):
        position, momentum, xi = x[e], m[e], normal[e]
        x[e] = p00 * position + p01 * momentum + c00 * xi
        m[e] = p10 * position + p11 * momentum + c10 * xi + c11 * normal[uintp(size) + e]


@compiled
def _march(begin, end, samples, interval, key, p, n, table, noisy, u, out):
    """All updates of rows begin, ..., end - 1 of states (batch, 2, n), flat, block by block."""
    half, size = (n + 1) // 2, 2 * _CALLS
    counter, word, normal = np.empty((3, _CALLS), u64), np.empty((2, size), u32), np.zeros(2 * size, out.dtype)
    x, m = np.zeros(size, out.dtype), np.zeros(size, out.dtype)
    together = max(1, _CALLS // half)
    for row in range(begin, end, together):
        rows = min(together, end - row)
        for first in range(0, half, _CALLS):
            count = min(_CALLS, half - first)
            width, place = min(2 * count, n - 2 * first), 2 * n * row + 2 * first
            _copy(u, x, rows, width, place, 2 * n, 0, 2 * count)
            _copy(u, m, rows, width, place + n, 2 * n, 0, 2 * count)
            for k in range(len(table)):
                if noisy[k]:
                    at = u64(interval + k)
                    _draw(samples, row, rows, first, count, at, key, p, counter, word, normal)
                _chained(x, m, normal, size, 2 * rows * count, table[k])
            _copy(x, out, rows, width, 0, 2 * count, place, 2 * n)
            _copy(m, out, rows, width, 0, 2 * count, place + n, 2 * n)


# --- For tensors ------------------------------------------------------------------------------------------------------

_POLYNOMIALS = {
    dtype: np.array([*numbers.log, *numbers.sin, *numbers.cos], {torch.float32: f32, torch.float64: f64}[dtype])
    for dtype, numbers in ((torch.float32, box_muller.SINGLE), (torch.float64, box_muller.DOUBLE))
}
_NOTHING = {dtype: np.empty(0, numbers.dtype) for dtype, numbers in _POLYNOMIALS.items()}
_WITHOUT_SCORE = np.array([1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1], f32)
_NO_SAMPLES, _NO_KEY = np.empty(0, np.int64), np.empty(2, u64)


def fill(draw: Draw, out: Tensor, plane: int = 0) -> None:
    """See `kernels.Kernels`."""
    batch, planes, n = out.shape
    if not out.numel():
        return
    samples, flat, p = draw.samples.numpy(), out.view(-1).numpy(), _POLYNOMIALS[out.dtype]
    interval, key = u64(draw.interval), _key(draw.seed)
    split_rows(
        lambda begin, end: _fill(begin, end, samples, interval, key, p, n, flat, planes, plane), batch, n / _GRAIN
    )


def march(coefficients: NDArray[np.float64], u: Tensor, draw: Draw) -> Tensor:
    """See `kernels.Kernels`."""
    out = torch.empty(u.shape, dtype=u.dtype)
    if not u.numel():
        return out
    batch, n, p = len(u), u.numel() // (2 * len(u)), _POLYNOMIALS[u.dtype]
    table, noisy = np.ascontiguousarray(coefficients, p.dtype), (coefficients[:, 8:] != 0).any(axis=1)
    samples, state, result, key = draw.samples.numpy(), _flat(u), out.view(-1).numpy(), _key(draw.seed)

    def rows(begin: int, end: int) -> None:
        _march(begin, end, samples, draw.interval, key, p, n, table, noisy, state, result)

    split_rows(rows, batch, n * len(table) / _GRAIN)
    return out


class Updates:
    """See `kernels.Updates`."""

    def __init__(self, coefficients: NDArray[np.float64], u: Tensor) -> None:
        self.table = np.ascontiguousarray(coefficients, _POLYNOMIALS[u.dtype].dtype)
        self.first_wrong: int | None = None

    def __call__(self, k: int, u: Tensor, s: Tensor | None, noise: Draw | Tensor | None) -> Tensor:
        out = torch.empty(u.shape, dtype=u.dtype)
        if not u.numel():
            return out
        batch, n, p = len(u), u.numel() // (2 * len(u)), _POLYNOMIALS[u.dtype]
        state, result = _flat(u), out.view(-1).numpy()
        score = state if s is None else _flat(s)
        samples, interval, key, given = _NO_SAMPLES, u64(0), _NO_KEY, _NOTHING[u.dtype]
        if drawn := isinstance(noise, Draw):
            samples, interval, key = noise.samples.numpy(), u64(noise.interval), _key(noise.seed)
        elif noise is not None:
            given = _flat(noise)
        c = self.table[k]
        if s is None:
            c = c * _WITHOUT_SCORE

        def update(begin: int, end: int) -> int:
            return _update(begin, end, drawn, samples, interval, key, p, n, c, state, score, given, result)

        bad = split_rows(update, batch, n / _GRAIN)
        if s is not None and bad and self.first_wrong is None:
            self.first_wrong = k
        return out

    def wrong(self, wait: bool) -> int | None:  # noqa: ARG002
        """See `kernels.Updates`."""
        return self.first_wrong


def _flat(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().view(-1).numpy()


def _key(seed: int) -> NDArray[np.uint64]:
    return np.array([seed & 0xFFFFFFFF, seed >> 32], u64)

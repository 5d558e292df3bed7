"""The score of a Gaussian mixture in few dimensions, compiled by numba: a few dozen states at once, in a cache.

The same formula as mixture.Marginal.score, to rounding; a row does not depend on the batch that it is in. States have
two components, (x, m), or x alone.
"""

# pyright: reportIndexIssue=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ...integrators.kernels import compiled, split_rows
from ..verdicts import Array

if TYPE_CHECKING:
    from .mixture import Marginal

# What is worth waking a thread for, in components' dimensions.
_GRAIN = 1 << 14
# States that are worked on at once: loops over them are vectorised.
_LANES = 32

# exp(x) = 2^n exp(r), x = n ln 2 + r with |r| <= ln 2 / 2, where Taylor's polynomial is right to rounding. Beside
# 1.5 2^52 a number is rounded to an integer, which is then in its lowest bits. ln 2 is the sum of two numbers, the
# first short enough for n times it to be exact.
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
_ROUND, _LEAST = 6755399441055744.0, -708.0
_C2, _C3, _C4, _C5, _C6, _C7 = 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040
_C8, _C9, _C10, _C11, _C12, _C13 = 1 / 40320, 1 / 362880, 1 / 3628800, 1 / 39916800, 1 / 479001600, 1 / 6227020800
_BIAS, _MANTISSA = np.uint64(1023), np.uint64(52)


def _inline(function: Any) -> Any:
    """A part of the functions that call it: a loop around it can be vectorised."""
    return njit(function, inline="always", error_model="numpy")


@_inline
def _exp(x):
    """exp(x) for x <= 0, 0 where it is below 1e-307."""
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _C8 + r * (_C9 + r * (_C10 + r * (_C11 + r * (_C12 + r * _C13))))
    p = _C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * (_C7 + r * p)))))
    power = np.uint64((np.float64(shifted).view(np.uint64) + _BIAS) << _MANTISSA).view(np.float64)
    value = (1.0 + (r + r * r * p)) * power
    return 0.0 if x < _LEAST else value


@compiled
def _exponentials(logits, largest, total):
    """exp(l_k - max_k l_k), in place of l_k (K, lanes), and in `total` -1 over their sum."""
    components, lanes = logits.shape
    for j in range(lanes):
        largest[j] = logits[0, j]
        total[j] = 0.0
    for k in range(1, components):
        for j in range(lanes):
            largest[j] = logits[k, j] if logits[k, j] > largest[j] else largest[j]
    for k in range(components):
        for j in range(lanes):
            one = _exp(logits[k, j] - largest[j])
            logits[k, j] = one
            total[j] += one
    for j in range(lanes):
        total[j] = -1.0 / total[j]


@compiled
def _whiten(x, m, mean, basis, inverse_x, mixed, inverse_m, constant, whitened, logits):
    """w_k (K, 2, d, lanes) and l_k (K, lanes) of states x and m (d, lanes)."""
    components, d = inverse_x.shape
    for k in range(components):
        logit = logits[k]
        logit[:] = constant[k]
        for e in range(d):
            first, second = whitened[k, 0, e], whitened[k, 1, e]
            first[:], second[:] = -mean[0, k, e], -mean[1, k, e]
            for i in range(d):
                entry, xs, ms = basis[k, i, e], x[i], m[i]
                for j in range(first.size):
                    first[j] += xs[j] * entry
                    second[j] += ms[j] * entry
            a, b, c = inverse_x[k, e], mixed[k, e], inverse_m[k, e]
            for j in range(first.size):
                one = first[j] * a
                two = (second[j] - b * one) * c
                logit[j] -= (one * one + two * two) / 2
                first[j], second[j] = one, two


@compiled
def _pull(whitened, shares, total, basis, inverse_x, mixed, inverse_m, x, m):
    """-sum_k r_k O_k L_k^-T w_k in x and m (d, lanes), of r_k = -shares (K, lanes) total."""
    components, d = inverse_x.shape
    x[:], m[:] = 0.0, 0.0
    for k in range(components):
        share = shares[k]
        for e in range(d):
            first, second = whitened[k, 0, e], whitened[k, 1, e]
            a, b, c = inverse_x[k, e], mixed[k, e], inverse_m[k, e]
            for j in range(first.size):
                responsible = share[j] * total[j]
                momentum = second[j] * c
                first[j] = responsible * ((first[j] - b * momentum) * a)
                second[j] = responsible * momentum
            for i in range(d):
                entry, xs, ms = basis[k, i, e], x[i], m[i]
                for j in range(first.size):
                    xs[j] += first[j] * entry
                    ms[j] += second[j] * entry


@compiled
def _score(begin, end, u, mean, basis, inverse_x, mixed, inverse_m, constant, out):
    """-sum_k r_k O_k L_k^-T w_k of the states begin, ..., end - 1: u and out (batch, 2, d), mean (2, K, d), basis
    (K, d, d), 1 / L_xx, L_mx and 1 / L_mm (K, d), the logarithms' constants (K,)."""
    components, d = inverse_x.shape
    x, m = np.zeros((d, _LANES)), np.zeros((d, _LANES))
    whitened, logits = np.empty((components, 2, d, _LANES)), np.empty((components, _LANES))
    largest, total = np.empty(_LANES), np.empty(_LANES)
    for row in range(begin, end, _LANES):
        rows = min(_LANES, end - row)
        for i in range(d):
            for j in range(rows):
                x[i, j], m[i, j] = u[row + j, 0, i], u[row + j, 1, i]
        _whiten(x, m, mean, basis, inverse_x, mixed, inverse_m, constant, whitened, logits)
        _exponentials(logits, largest, total)
        _pull(whitened, logits, total, basis, inverse_x, mixed, inverse_m, x, m)
        for i in range(d):
            for j in range(rows):
                out[row + j, 0, i], out[row + j, 1, i] = x[i, j], m[i, j]


@compiled
def _whiten_position(x, mean, basis, inverse, constant, whitened, logits):
    """As `_whiten` of x alone: w_k (K, d, lanes)."""
    components, d = inverse.shape
    for k in range(components):
        logit = logits[k]
        logit[:] = constant[k]
        for e in range(d):
            first = whitened[k, e]
            first[:] = -mean[k, e]
            for i in range(d):
                entry, xs = basis[k, i, e], x[i]
                for j in range(first.size):
                    first[j] += xs[j] * entry
            a = inverse[k, e]
            for j in range(first.size):
                one = first[j] * a
                logit[j] -= one * one / 2
                first[j] = one


@compiled
def _pull_position(whitened, shares, total, basis, inverse, x):
    """As `_pull` of x alone."""
    components, d = inverse.shape
    x[:] = 0.0
    for k in range(components):
        share = shares[k]
        for e in range(d):
            first, a = whitened[k, e], inverse[k, e]
            for j in range(first.size):
                first[j] = share[j] * total[j] * (first[j] * a)
            for i in range(d):
                entry, xs = basis[k, i, e], x[i]
                for j in range(first.size):
                    xs[j] += first[j] * entry


@compiled
def _score_position(begin, end, u, mean, basis, inverse, constant, out):
    """As `_score` of x alone: u and out (batch, 1, d), mean (1, K, d)."""
    components, d = inverse.shape
    x, whitened, logits = np.zeros((d, _LANES)), np.empty((components, d, _LANES)), np.empty((components, _LANES))
    largest, total = np.empty(_LANES), np.empty(_LANES)
    for row in range(begin, end, _LANES):
        rows = min(_LANES, end - row)
        for i in range(d):
            for j in range(rows):
                x[i, j] = u[row + j, 0, i]
        _whiten_position(x, mean[0], basis, inverse, constant, whitened, logits)
        _exponentials(logits, largest, total)
        _pull_position(whitened, logits, total, basis, inverse, x)
        for i in range(d):
            for j in range(rows):
                out[row + j, 0, i] = x[i, j]


def numbers(marginal: Marginal) -> tuple[Array, ...]:
    """What `_score` takes of a marginal, or `_score_position` of one of x alone, beside the states."""
    lower = marginal.factors.lower
    factors = [1 / lower[0][0][:, 0]]
    if len(lower) == 2:
        factors += [lower[1][0][:, 0].contiguous(), 1 / lower[1][1][:, 0]]
    constant = marginal.constant(marginal.mean.shape[-1])[:, 0]
    entries = (marginal.mean[:, :, 0].contiguous(), marginal.basis, *factors, constant)
    return tuple(entry.numpy() for entry in entries)


def score(marginal: Marginal, u: Tensor) -> Tensor:
    """As `mixture.Marginal.score`, of states (batch, n, d), n = 1 or 2, float64, in a processor's memory."""
    out = torch.empty(u.shape, dtype=torch.float64)
    arrays = (u.contiguous().numpy(), *marginal.numbers, out.numpy())
    work = _score_position if u.shape[1] == 1 else _score
    split_rows(lambda begin, end: work(begin, end, *arrays), len(u), marginal.mean[0].numel() / _GRAIN)
    return out


def plain_score(marginal: Marginal, u: Array) -> Array:
    """The same on one thread, of states as numpy has them, laid out in memory in any way: in the layout of u."""
    out = np.empty_like(u)
    _score(0, len(u), u, *marginal.numbers, out)
    return out

"""The score of a Gaussian mixture in few dimensions, compiled by numba: every state by itself, in registers.

The same formula as mixture.Marginal.score, to rounding; a row does not depend on the batch that it is in.
"""

# pyright: reportIndexIssue=false
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...integrators.kernels import compiled, split_rows

if TYPE_CHECKING:
    from .mixture import Marginal

# What is worth waking a thread for, in components' dimensions.
_GRAIN = 1 << 14


@compiled
def _score(begin, end, u, mean, basis, inverse_x, mixed, inverse_m, constant, out):
    """-sum_k r_k O_k L_k^-T w_k of the states begin, ..., end - 1: u and out (batch, 2, d), mean (2, K, d), basis
    (K, d, d), 1 / L_xx, L_mx and 1 / L_mm (K, d), the logarithms' constants (K,)."""
    components, d = inverse_x.shape
    whitened, logits = np.empty((components, 2, d)), np.empty(components)
    for b in range(begin, end):
        largest = -np.inf
        for k in range(components):
            logit = constant[k]
            for e in range(d):
                x, m = -mean[0, k, e], -mean[1, k, e]
                for i in range(d):
                    x += u[b, 0, i] * basis[k, i, e]
                    m += u[b, 1, i] * basis[k, i, e]
                first = x * inverse_x[k, e]
                second = (m - mixed[k, e] * first) * inverse_m[k, e]
                logit -= (first * first + second * second) / 2
                whitened[k, 0, e], whitened[k, 1, e] = first, second
            logits[k] = logit
            if logit > largest or np.isnan(logit):
                largest = logit
        total = 0.0
        for k in range(components):
            logits[k] = np.exp(logits[k] - largest)
            total += logits[k]
        out[b] = 0.0
        for k in range(components):
            responsible = -logits[k] / total
            for e in range(d):
                momentum = whitened[k, 1, e] * inverse_m[k, e]
                position = (whitened[k, 0, e] - mixed[k, e] * momentum) * inverse_x[k, e]
                for i in range(d):
                    out[b, 0, i] += responsible * position * basis[k, i, e]
                    out[b, 1, i] += responsible * momentum * basis[k, i, e]


def score(marginal: Marginal, u: Tensor) -> Tensor:
    """As `mixture.Marginal.score`, of states (batch, 2, d), float64, in a processor's memory."""
    factors, out = marginal.factors, torch.empty(u.shape, dtype=torch.float64)
    numbers = (
        u.contiguous(),
        marginal.mean[:, :, 0].contiguous(),
        marginal.basis,
        1 / factors.xx[:, 0],
        factors.mx[:, 0].contiguous(),
        1 / factors.mm[:, 0],
        marginal.constant(u.shape[-1])[:, 0],
        out,
    )
    arrays = tuple(entry.numpy() for entry in numbers)
    split_rows(lambda begin, end: _score(begin, end, *arrays), len(u), marginal.mean[0].numel() / _GRAIN)
    return out

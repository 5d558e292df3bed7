"""What the sampling loop is compared with: the loops a script would have, and a check that each is a sampler at all.

All run one scheme over a uniform grid with the score -u, and are judged by the covariance of what they end in against
the exact one. States are (batch, 2, *event); `lean` has planes (2, batch, elements).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from weakorder.integrators.compiled import Array, compile_run, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.theory.flows import Flow
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme

PARAMS = Parameters()


def score(u: Tensor, _: float) -> Tensor:
    """Of the prior of a model with M = 1: linear, and as cheap as a score can be."""
    return -u


def tables(scheme: Scheme, steps: int) -> list[Array]:
    """P, K and C of every update of a scheme whose prologue is nothing or a part of one (its noise is left out)."""
    flow = compile_run(scheme, time_grid("uniform", steps, PARAMS), PARAMS).updates.flow
    return [*flow[:2], noise_factor(flow.noise_cov)]


def plain(scheme: Scheme, u: Tensor, steps: int) -> Callable[[], Tensor]:
    """What a script would do: matrices of each step, torch.randn_like for the noise, no checks."""
    shape = u.shape
    matrices = [torch.as_tensor(table, dtype=u.dtype, device=u.device) for table in tables(scheme, steps)]

    def run() -> Tensor:
        state = u
        for P, K, C in zip(*matrices, strict=True):
            v, s, xi = (w.flatten(2) for w in (state, score(state, 0.0), torch.randn_like(state)))
            state = (P @ v + K @ s + C @ xi).reshape(shape)
        return state

    return run


def lean(scheme: Scheme, u: Tensor, steps: int) -> Callable[[], Tensor]:
    """The leanest plain loop: contiguous planes, numbers for coefficients, in place, noise drawn into one buffer."""
    coefficients = [table.reshape(steps, 4).tolist() for table in tables(scheme, steps)]
    start = u.flatten(2).transpose(0, 1).contiguous()
    x, m, s, xi, swap = *start.clone(), *(torch.empty_like(start) for _ in range(3))

    def run() -> Tensor:
        a, b = x.copy_(start[0]), m.copy_(start[1])
        for P, K, C in zip(*coefficients, strict=True):
            torch.neg(a, out=s[0])
            torch.neg(b, out=s[1])
            torch.randn(xi.shape, dtype=xi.dtype, device=xi.device, out=xi)
            torch.mul(a, P[0], out=swap[0]).add_(b, alpha=P[1]).add_(s[0], alpha=K[0]).add_(s[1], alpha=K[1])
            torch.mul(a, P[2], out=swap[1]).add_(b, alpha=P[3]).add_(s[0], alpha=K[2]).add_(s[1], alpha=K[3])
            a.copy_(swap[0].add_(xi[0], alpha=C[0]))
            b.copy_(swap[1].add_(xi[0], alpha=C[2]).add_(xi[1], alpha=C[3]))
        return torch.stack([a, b], dim=1).view(u.shape)

    return run


def exact_covariance(scheme: Scheme, start: Array, steps: int, prologue: bool) -> Array:
    """Of the last state (2, 2), from `start`."""
    run = compile_run(scheme, time_grid("uniform", steps, PARAMS), PARAMS)
    flows = [Flow(*(entry[k] for entry in run.updates.flow)) for k in range(len(run.updates.flow.propagator))]
    cov = start
    for P, K, Q in ([run.prologue] if prologue else []) + flows:
        step = P - K
        cov = step @ cov @ step.T + Q
    return cov


def check(name: str, out: Tensor, scheme: Scheme, start: Tensor, steps: int, prologue: bool = False) -> None:
    """Raises ValueError if the pooled covariance of `out` is more than six standard errors from the exact one."""
    found, began = (np.cov(u.detach().double().cpu().transpose(0, 1).reshape(2, -1).numpy()) for u in (out, start))
    exact = exact_covariance(scheme, began, steps, prologue)
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / (out.numel() / 2))
    if not (np.abs(found - exact) < 6 * error).all():
        raise ValueError(f"{name}: covariance {found.tolist()}, exact {exact.tolist()}: it is no such sampler")

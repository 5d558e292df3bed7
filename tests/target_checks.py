"""What any target with a score is held to: the gradient of its log-density, and the Fokker-Planck equation."""

from __future__ import annotations

import torch
from weakorder.verification.targets.target import Target

UNIT = 2.0**-53
P_VALUE = 1e-9


def autograd(target: Target, u: torch.Tensor, t: float) -> torch.Tensor:
    """The gradient of the log-density by torch."""
    u = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(u, t).sum(), u)
    return gradient


def fokker_planck_residual(target: Target, u: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """d log p / dt, and what the forward SDE du = A u dtheta + D^(1/2) dw says it is (both (batch,)):

        beta [ -tr A - (A u).s + 1/2 tr D (grad s + s s^T) ]    summed over the coordinates.

    The time derivative is a difference of order 6, the divergence of s is torch's.
    """
    h = t / 64
    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    slope = sum(
        w * (target.log_density(u, t + k * h) - target.log_density(u, t - k * h)) / h for k, w in weights.items()
    )
    A, _, D = (torch.from_numpy(a) for a in target.diffusion.forward.numbers(target.params.values()))
    size = target.diffusion.size
    flat = u.reshape(len(u), size, -1).clone().requires_grad_()
    s = target.score(flat.reshape(u.shape), t).reshape(flat.shape)
    count = flat.shape[-1]
    curvature = torch.zeros_like(flat)
    for a in range(size):
        for i in range(count):
            (row,) = torch.autograd.grad(s[:, a, i].sum(), flat, retain_graph=True)
            curvature[:, a, i] = row[:, a, i]
    drift = torch.einsum("ab,nbi->nai", A, flat)
    inner = -(drift * s).sum((1, 2)) + torch.einsum("a,nai->n", D.diagonal(), curvature + s**2) / 2
    right = target.params.beta(t) * (inner - count * A.trace())
    return slope.detach(), right.detach()

"""The sampling loop: one fused affine update per score evaluation.

A compiled run (integrators.compiled) is a prologue and one update u <- P u + K s + C xi per evaluation, with s =
score(u, t) and xi a pair of standard normals per element, C C^T = Q. The loop below is that formula and nothing else;
which scheme runs is in the tables. States have the layout (batch, 2, *event), position first, so that an image network
reads (batch, 2 C, H, W) without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..theory.flows import Flow
from ..theory.model import Diffusion, Parameters
from ..theory.scheme import Scheme
from .compiled import Array, Run, compile_run, denoising_run, noise_factor
from .noise import START, normal_pairs

Score = Callable[[Tensor, float], Tensor]
Noise = Callable[[int], Tensor]


class ScoreError(ValueError):
    """A score that is not finite or has the wrong shape; the message says at which step and time."""


def draw_prior(
    diffusion: Diffusion,
    params: Parameters,
    samples: Tensor,
    event: Sequence[int],
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Initial states (batch, 2, *event) of the samples numbered `samples` (batch,), from the prior N(0, 1) x N(0,
    M)."""
    deviations = torch.as_tensor(np.sqrt(diffusion.variances(params.values())[1:]), dtype=dtype, device=samples.device)
    return normal_pairs(seed, samples, START, event, dtype) * deviations.reshape(2, *(1 for _ in event))


def sample(
    scheme: Scheme,
    score: Score,
    u: Tensor,
    taus: Array,
    params: Parameters,
    *,
    samples: Tensor | None = None,
    seed: int = 0,
    denoise: bool = False,
) -> Tensor:
    """Run `scheme` from the states `u` (batch, 2, *event) over the grid `taus` (steps + 1,); the state it reaches.

    score(u, t): grad log p_t(u) in u's shape, t a float. samples (batch,): the numbers that the batch's noise goes by,
    default 0, 1, ...; a sample is the same in any batch and order. denoise: a last drift-only step follows, one
    evaluation more. dtype and device are those of u; the coefficients are computed in float64. Shows a progress bar on
    a terminal if it takes long. Raises ScoreError on a score that is not finite or has another shape than u, ValueError
    on a state or samples of the wrong shape.
    """
    if not isinstance(u, Tensor):
        raise ValueError(f"state of type {type(u).__name__}: it must be a torch tensor (batch, 2, *event)")
    if u.ndim < 2 or u.shape[1] != 2 or not u.is_floating_point():
        raise ValueError(f"state of shape {tuple(u.shape)} and {u.dtype}: it must be floating, (batch, 2, *event)")
    numbers = torch.arange(len(u), device=u.device) if samples is None else torch.as_tensor(samples, device=u.device)
    if numbers.shape != (len(u),) or numbers.is_floating_point() or bool((numbers < 0).any()):
        least = min(numbers.flatten().tolist(), default=0)
        raise ValueError(
            f"samples of shape {tuple(numbers.shape)} and {numbers.dtype}, from {least:g}: give one integer >= 0 for "
            f"each of the {len(u)} states"
        )
    event = u.shape[2:]
    run = compile_run(scheme, taus, params)
    u = integrate(run, score, u, lambda interval: normal_pairs(seed, numbers, interval, event, u.dtype))
    if denoise:
        last = denoising_run(scheme, params.T - float(taus[-1]), params)
        u = integrate(last, score, u, lambda _: torch.zeros_like(u))
    return u


@torch.no_grad()
def integrate(run: Run, score: Score, u: Tensor, noise: Noise) -> Tensor:
    """Run compiled tables: the prologue, then u <- P u + K s + C xi for every evaluation.

    noise(k): the standard normals (batch, 2, *event) of interval k; the prologue is interval 1, the updates follow;
    asked for only where the segment has noise.
    """
    u = run_segment(run.prologue, u, None, noise, START + 1)
    times, flows = run.updates
    evaluations = [] if times is None else times.tolist()
    per_step = max(1, run.scheme.nfe_per_step)
    for k, t in enumerate(tqdm(evaluations, desc=run.scheme.name, unit="nfe", delay=2, disable=None, leave=False)):
        version = None if u.is_inference() else u._version
        s = score(u, t)
        where = f"at step {k // per_step + 1} of {len(evaluations) // per_step}, t = {t:.6g}"
        if version is not None and u._version != version:
            raise ScoreError(f"the score changed the state in place {where}; it must return a new tensor")
        _check(s, u, where)
        u = run_segment(Flow(*(entry[k] for entry in flows)), u, s.to(u), noise, START + 2 + k)
    return u


def run_segment(flow: Flow, u: Tensor, s: Tensor | None, noise: Noise, interval: int) -> Tensor:
    """One segment, u <- P u + K s + C xi, C C^T = Q: a single matrix product along the axis of position and momentum.

    u (batch, 2, *event); s: the score, in u's shape, dtype and device, None before the first evaluation; xi =
    noise(interval), in u's shape, asked for only if Q is not 0. The flow's matrices (2, 2) are rounded to u's dtype.
    """
    coefficients, operands = [flow.propagator], [u]
    if s is not None:
        coefficients.append(flow.score_gain)
        operands.append(s)
    if flow.noise_cov.any():
        coefficients.append(noise_factor(flow.noise_cov))
        operands.append(noise(interval))
    table = torch.as_tensor(np.concatenate(coefficients, axis=1), dtype=u.dtype, device=u.device)
    stacked = torch.cat([operand.flatten(2) if u.ndim > 2 else operand[..., None] for operand in operands], dim=1)
    return torch.bmm(table.expand(len(u), *table.shape), stacked).reshape(u.shape)


def _check(s: Tensor, u: Tensor, where: str) -> None:
    if not isinstance(s, Tensor) or s.is_complex():
        found = s.dtype if isinstance(s, Tensor) else type(s).__name__
        raise ScoreError(f"the score is of type {found} {where}; it must be a real tensor of the state's shape")
    if s.shape != u.shape:
        raise ScoreError(f"the score has shape {tuple(s.shape)} {where}; it must have the state's, {tuple(u.shape)}")
    if not bool(torch.isfinite(s).all()):
        bad = int((~torch.isfinite(s)).sum())
        largest = float(u.abs().max())
        state = f"is finite, up to {largest:.2g}" if math.isfinite(largest) else "was already not finite"
        raise ScoreError(
            f"{bad} of {s.numel()} entries of the score are NaN or infinite {where}; the state {state}; correct the "
            "score, or take more steps"
        )

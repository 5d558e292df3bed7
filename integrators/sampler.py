"""The sampling loop: one fused affine update per score evaluation.

A compiled run (integrators.compiled) is a prologue and one update u <- P u + K s + C xi per evaluation, with s =
score(u, t) and xi a pair of standard normals per element, C C^T = Q. The loop below is that formula and nothing else;
which scheme runs is in the tables. (Where a scheme looks back on several evaluations, their pull stands in K s's place:
integrators.recall.) An update draws its noise, advances the state and sees whether the score is finite in one pass over
memory (integrators.kernels). It writes a new state and allocates nothing else, and no GPU is waited for. States of n
components have the layout (batch, n, *event), position first, so that an image network reads (batch, n C, H, W) without
a copy; those of one component are (batch, *event).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..theory.model import Diffusion, Parameters
from ..theory.scheme import Scheme
from .affine import AffineScore, folds, march
from .compiled import Array, Run, coefficients, compile_run, denoising_run
from .grids import check_grid
from .kernels import Draw
from .noise import START, check_counter
from .planes import normals, shape_of, updates_for
from .recall import Recall

Score = Callable[[Tensor, float], Tensor]
Noise = Callable[[int], Tensor | Draw]


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
    """Initial states (batch, n, *event), or (batch, *event) of one component, of the samples numbered `samples`
    (batch,), from the prior, of PSLD N(0, 1) x N(0, M)."""
    deviations = torch.as_tensor(
        np.sqrt(diffusion.prior_variances(params.values())), dtype=dtype, device=samples.device
    )
    u = normals(seed, samples, START, diffusion.size, event, dtype)
    return u * deviations.reshape(*shape_of(diffusion.size, ()), *(1 for _ in event))


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
    """Run `scheme` from the states `u` (batch, n, *event), or (batch, *event) of one component, over the grid `taus`
    (steps + 1,); the state it reaches.

    score(u, t): grad log p_t(u) in u's shape, t a float; one that is an `AffineScore` is folded into the tables, and
    the run is one call of a kernel. samples (batch,): the numbers that the batch's noise goes by,
    default 0, 1, ...; a sample is the same in any batch and order. denoise: a last drift-only step follows, one
    evaluation more. dtype and device are those of u; the coefficients are computed in float64. Shows a progress bar on
    a terminal if it takes long. Raises ScoreError on a score that is not finite or has another shape than u, ValueError
    on a state or samples of the wrong shape.
    """
    planes = shape_of(scheme.splitting.diffusion.size, ())
    layout = f"(batch, {''.join(f'{n}, ' for n in planes)}*event)"
    if not isinstance(u, Tensor):
        raise ValueError(f"state of type {type(u).__name__}: it must be a torch tensor {layout}")
    if u.ndim <= len(planes) or u.shape[1 : 1 + len(planes)] != planes or not u.is_floating_point():
        raise ValueError(f"state of shape {tuple(u.shape)} and {u.dtype}: it must be floating, {layout}")
    numbers = torch.arange(len(u), device=u.device) if samples is None else torch.as_tensor(samples, device=u.device)
    if numbers.shape != (len(u),) or numbers.is_floating_point() or bool((numbers < 0).any()):
        least = min(numbers.flatten().tolist(), default=0)
        raise ValueError(
            f"samples of shape {tuple(numbers.shape)} and {numbers.dtype}, from {least:g}: give one integer >= 0 for "
            f"each of the {len(u)} states"
        )
    numbers = numbers.to(torch.int64).contiguous()
    run = _compiled(scheme, check_grid(taus, params).tobytes(), params)
    check_counter(seed, START + 1 + len(run.updates.flow.propagator))

    def noise(interval: int) -> Draw:
        return Draw(seed, numbers, interval)

    if isinstance(score, AffineScore) and folds(run, u):
        u = march(run, score, u, noise(START + 1))
    else:
        u = integrate(run, score, u, noise)
    if denoise:  # has none
        u = integrate(denoising_run(scheme, params.T - float(taus[-1]), params), score, u, noise)
    return u


@lru_cache(maxsize=8)
def _compiled(scheme: Scheme, taus: bytes, params: Parameters) -> Run:
    """A run's tables, for one batch after the other."""
    return compile_run(scheme, np.frombuffer(taus), params)


@torch.no_grad()
def integrate(run: Run, score: Score, u: Tensor, noise: Noise) -> Tensor:
    """Run compiled tables: the prologue, then u <- P u + K s + C xi for every evaluation.

    noise(k): the standard normals of interval k, in u's shape, or which to draw; the prologue is interval 1, the
    updates follow; asked for only where the segment has noise. Raises ScoreError as `sample`; on a GPU, which is not
    waited for, some steps later.
    """
    advance = Advance(run, u, noise)
    u = advance(0, u, None)
    times = run.updates.time
    evaluations = [] if times is None else times.tolist()
    per_step = max(1, run.scheme.nfe_per_step)

    def where(k: int) -> str:
        return f"at step {k // per_step + 1} of {len(evaluations) // per_step}, t = {evaluations[k]:.6g}"

    for k, t in enumerate(tqdm(evaluations, desc=run.scheme.name, unit="nfe", delay=2, disable=None, leave=False)):
        version = None if u.is_inference() else u._version
        s = score(u, t)
        if version is not None and u._version != version:
            raise ScoreError(f"the score changed the state in place {where(k)}; it must return a new tensor")
        _check(s, u, where, k)
        after = advance(k + 1, u, s)
        if (wrong := advance.updates.wrong(wait=k + 1 == len(evaluations))) is not None:
            raise ScoreError(
                _not_finite(s, u, where(k)) if wrong == k + 1 else _found_later(where(wrong - 1), k + 1 - wrong)
            )
        u = after
    return u


class Advance:
    """The segments of a run on states like u, one after the other, with the noise that they have."""

    def __init__(self, run: Run, u: Tensor, noise: Noise) -> None:
        table = coefficients(run)
        self.updates = updates_for(table, u)
        self.recall = recall_of(run, u)
        square = run.prologue.propagator.size
        self.noise, self.noisy = noise, (table[:, 2 * square :] != 0).any(axis=1).tolist()
        self.idle = not self.noisy[0] and np.array_equal(run.prologue.propagator, np.eye(math.isqrt(square)))

    def __call__(self, segment: int, u: Tensor, s: Tensor | None) -> Tensor:
        """u <- P u + K s + C xi in segment 0, the prologue, or that of the update `segment`: a new state.

        u: states; s: the score, in u's shape, None before the first evaluation.
        """
        if segment == 0 and self.idle:
            return u
        noise = self.noise(START + 1 + segment) if self.noisy[segment] else None
        s = None if s is None else s.to(u)
        if self.recall is not None and s is not None:
            s = self.recall(segment - 1, u, s)
        return self.updates(segment, u, s, noise)


def recall_of(run: Run, u: Tensor) -> Recall | None:
    """What a run on states like u looks back on; None if it is the last evaluation alone."""
    _, flow, memory = run.updates
    return None if memory is None else Recall(flow.score_gain, memory, u)


def _check(s: Tensor, u: Tensor, where: Callable[[int], str], k: int) -> None:
    if not isinstance(s, Tensor) or s.is_complex():
        found = s.dtype if isinstance(s, Tensor) else type(s).__name__
        raise ScoreError(f"the score is of type {found} {where(k)}; it must be a real tensor of the state's shape")
    if s.shape != u.shape:
        raise ScoreError(f"the score has shape {tuple(s.shape)} {where(k)}; it must have the state's, {tuple(u.shape)}")


def _not_finite(s: Tensor, u: Tensor, where: str) -> str:
    bad = int((~torch.isfinite(s)).sum())
    largest = float(u.abs().max())
    state = f"is finite, up to {largest:.2g}" if math.isfinite(largest) else "was already not finite"
    return (
        f"{bad} of {s.numel()} entries of the score are NaN or infinite {where}; the state {state}; correct the "
        "score, or take more steps"
    )


def _found_later(where: str, steps: int) -> str:
    return (
        f"entries of the score are NaN or infinite {where} (noticed {steps} evaluations later); correct the score, or "
        "take more steps"
    )

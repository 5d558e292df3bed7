"""Part b of a prepared run: the sampling loop beside torch.randn and loops without the sampler (tests/benchmarks/gpu).

What is compiled here draws the sampler's words, but its normals are of a form that torch compiles into one kernel; the
package's own kernels are part f's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_run, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.integrators.kernels.fallback import philox
from weakorder.integrators.noise import normal_pairs
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.theory.model import Parameters

from .parts import EVENT, Context
from .timing import compiled_for, seconds_of


def sampling_loop(context: Context) -> None:
    """Part b."""
    device, batch, steps = context.device, (2 if context.tiny else 2048), (2 if context.tiny else 10)
    least = 0.01 if context.tiny else 0.7
    context.attempt("bandwidth", lambda: bandwidth(context))
    pairs = batch * int(np.prod(EVENT))
    context.record("size", {"batch": batch, "event": EVENT, "steps": steps, "unit": "(x, m) pairs per second"})
    for dtype in (torch.float32, torch.float64):
        word = str(dtype).removeprefix("torch.")
        shape = (batch, 2, *EVENT)

        def rate(run: Callable[[], object], count: float) -> dict[str, float]:
            took = seconds_of(run, device, least)
            return {"pairs_per_second": count / took["median"], **took}

        def drawn(shape: tuple[int, ...] = shape, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(shape, dtype=dtype, device=device)

        context.attempt(f"torch.randn {word}", lambda d=drawn: rate(d, pairs))
        for name in ("ROBA", "EM"):
            loops = _loops(name, steps, batch, dtype, device)
            for title, loop in loops.items():
                if name == "EM" and "compiled" in title:
                    continue
                context.attempt(f"{title} {name} {word}", lambda r=loop: rate(r, pairs * steps))
        numbers = torch.arange(batch, device=device)

        def noise(dtype: torch.dtype = dtype, numbers: Tensor = numbers) -> Tensor:
            return normal_pairs(0, numbers, 1, EVENT, dtype)

        context.attempt(f"noise package {word}", lambda r=noise: rate(r, pairs))


def bandwidth(context: Context) -> dict[str, float]:
    """Bytes read and written per second by a copy on the device."""
    a = torch.empty(1000 if context.tiny else 1 << 30, dtype=torch.uint8, device=context.device).random_()
    b = torch.empty_like(a)
    took = seconds_of(lambda: b.copy_(a), context.device, 0.3)
    return {"bytes_per_second": 2 * a.numel() / took["median"], **took}


def score(u: Tensor, _: float) -> Tensor:
    """The simplest one, s = -u."""
    return -u


def update(v: Tensor, s: Tensor, xi_x: Tensor, xi_m: Tensor, P: Tensor, K: Tensor, C: Tensor) -> Tensor:
    """One step, v <- P v + K s + C xi, component by component."""
    x, m, s_x, s_m = v[:, 0], v[:, 1], s[:, 0], s[:, 1]
    new_x = P[0, 0] * x + P[0, 1] * m + K[0, 0] * s_x + K[0, 1] * s_m + C[0, 0] * xi_x + C[0, 1] * xi_m
    new_m = P[1, 0] * x + P[1, 1] * m + K[1, 0] * s_x + K[1, 1] * s_m + C[1, 0] * xi_x + C[1, 1] * xi_m
    return torch.stack((new_x, new_m), dim=1)


def _loops(name: str, steps: int, batch: int, dtype: torch.dtype, device: str) -> dict[str, Callable[[], Tensor]]:
    """The sampler; the same updates with torch.randn and no checks; and those with a linear score inlined."""
    params, scheme = Parameters(), CATALOGUE[name]
    taus = time_grid("uniform", steps, params)
    numbers = torch.arange(batch, device=device)
    u = draw_prior(scheme.splitting.diffusion, params, numbers, EVENT, dtype=dtype)
    flow = compile_run(scheme, taus, params).updates.flow
    arrays = [flow.propagator, flow.score_gain, noise_factor(flow.noise_cov)]
    tables = [torch.as_tensor(array, dtype=dtype, device=device) for array in arrays]
    inlined = torch.as_tensor(arrays[0] - arrays[1], dtype=dtype, device=device)  # s = -u
    size = int(np.prod(EVENT))
    intervals = torch.arange(2, 2 + steps, device=device)

    def plain() -> Tensor:
        v = u
        for P, K, C in zip(*tables, strict=True):
            w, s, xi = (each.flatten(2) for each in (v, score(v, 0.0), torch.randn_like(v)))
            v = (P @ w + K @ s + C @ xi).reshape(u.shape)
        return v

    elements = torch.arange(size, device=device).reshape(EVENT)

    def normals(interval: Tensor) -> tuple[Tensor, Tensor]:
        sample_number = numbers[:, None, None, None]
        w = philox((elements, interval, sample_number & 0xFFFFFFFF, sample_number >> 32), (0, 0))
        first, second = (((a << 21) + (b >> 11) + 1).to(torch.float64) * 2.0**-53 for a, b in (w[:2], w[2:]))
        radius, angle = (-2 * first.log()).sqrt(), 2 * np.pi * second
        return (radius * angle.cos()).to(dtype), (radius * angle.sin()).to(dtype)

    def fused(v: Tensor, s: Tensor, interval: Tensor, P: Tensor, K: Tensor, C: Tensor) -> Tensor:
        return update(v, s, *normals(interval), P, K, C)

    def fused_inlined(v: Tensor, interval: Tensor, P: Tensor, C: Tensor) -> Tensor:
        return update(v, torch.zeros_like(v), *normals(interval), P, torch.zeros_like(P), C)

    def inlined_randn(v: Tensor, P: Tensor, C: Tensor) -> Tensor:
        xi = torch.randn_like(v)
        return update(v, torch.zeros_like(v), xi[:, 0], xi[:, 1], P, torch.zeros_like(P), C)

    def steps_of(step: Callable[..., Tensor], *columns: Any, scored: bool) -> Callable[[], Tensor]:
        compiled: list[Any] = []

        def run() -> Tensor:
            if not compiled:
                compiled.append(compiled_for(device, step))
            v = u
            with torch.no_grad():
                for row in zip(*columns, strict=True):
                    v = compiled[0](v, score(v, 0.0), *row) if scored else compiled[0](v, *row)
            return v

        return run

    P, K, C = tables
    return {
        "sampler, black-box score,": lambda: sample(scheme, score, u, taus, params),
        "plain loop, torch.randn,": plain,
        "compiled step, black-box score,": steps_of(fused, intervals, P, K, C, scored=True),
        "compiled step, score inlined,": steps_of(fused_inlined, intervals, inlined, C, scored=False),
        "compiled plain loop, torch.randn, score inlined,": steps_of(inlined_randn, inlined, C, scored=False),
    }

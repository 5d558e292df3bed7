"""Part f of a prepared run: the kernels of noise and update, equal to the processor's, and how fast beside torch alone
(tests/benchmarks/gpu).

Checked first: normals and whole runs against the CPU's. Then, medians of interleaved repetitions by the device's own
clock: pair-steps per second of the update with drawn noise (the score is given), of the sampler's whole call, of a
plain loop, the leanest plain loop and one that torch compiles, of torch.randn alone, and of a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_run, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.integrators.kernels import Draw, tiers_in_use
from weakorder.integrators.noise import normal_pairs
from weakorder.integrators.sampler import Advance, draw_prior, sample
from weakorder.theory.model import Parameters

from .parts import Context
from .timing import compiled_for, interleaved

PARAMS = Parameters()
SHAPES = ((64, (3, 32, 32)), (2048, (3, 32, 32)), (1 << 20, (1,)), (1 << 16, (64,)))  # batch, event
DTYPES = (torch.float32, torch.float64)
Loop = Callable[[], object]


def kernels(context: Context) -> None:
    """Part f."""
    context.record("tiers", tiers_in_use())
    context.attempt("equal to the processor's", lambda: equalities(context.device))
    for batch, event in ((2, (3, 8, 8)),) if context.tiny else SHAPES:
        for dtype in DTYPES:
            name = f"{batch} x {math.prod(event)} {str(dtype).removeprefix('torch.')}"
            context.attempt(name, lambda b=batch, e=event, d=dtype: speed(context, b, e, d))


def equalities(device: str) -> dict[str, Any]:
    """How many of the runs and draws have the CPU's bits, and the largest difference, relative to 1 + the CPU's."""
    numbers = torch.tensor([0, 7, 2**31, 2**40 + 3])
    differences: dict[str, float] = {}
    for dtype in DTYPES:
        word = str(dtype).removeprefix("torch.")
        for event in ((3, 32, 32), (1,), (5,)):
            here = normal_pairs(12345, numbers, 9, event, dtype)
            there = normal_pairs(12345, numbers.to(device), 9, event, dtype).cpu()
            differences[f"normals {event} {word}"] = _difference(here, there)
        for name, scheme in CATALOGUE.items():
            taus = time_grid("quadratic", 12, PARAMS)
            u = draw_prior(scheme.splitting.diffusion, PARAMS, numbers, (3, 8, 8), dtype=dtype)
            here = sample(scheme, _score, u, taus, PARAMS, samples=numbers)
            there = sample(scheme, _score, u.to(device), taus, PARAMS, samples=numbers.to(device)).cpu()
            differences[f"{name} {word}"] = _difference(here, there)
    return {
        "compared": len(differences),
        "equal": sum(difference == 0 for difference in differences.values()),
        "largest": max(differences.values()),
        "differ": [name for name, difference in differences.items() if difference != 0],
    }


def _score(u: Tensor, t: float) -> Tensor:
    return -u * (1.0 + t)


def _difference(here: Tensor, there: Tensor) -> float:
    return float(((here - there).abs() / (1 + here.abs())).max())


def speed(context: Context, batch: int, event: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    """Seconds of each loop, its pair-steps per second, and how many times as long as the update it takes."""
    steps = 2 if context.tiny else 20
    numbers = torch.arange(batch, device=context.device)
    u = draw_prior(CATALOGUE["ROBA"].splitting.diffusion, PARAMS, numbers, event, dtype=dtype)
    loops = package_loops(u, numbers, steps) | plain_loops(u, steps, context.device, batch == 2048 or context.tiny)
    found = interleaved(loops, context.device, 2 if context.tiny else 11)
    pairs, size = u[:, 0].numel() * steps, u.numel() * u.element_size() * steps
    return {
        "seconds": found,
        "pair_steps_per_second": {name: pairs / times["median"] for name, times in found.items()},
        "times_of_update": {name: times["median"] / found["update"]["median"] for name, times in found.items()},
        "copy_bytes_per_second": 2 * size / found["copy"]["median"],
        "update_bytes_per_second": 3 * size / found["update"]["median"],
    }


def package_loops(u: Tensor, numbers: Tensor, steps: int) -> dict[str, Loop]:
    """The package's: updates with a score that is given, noise alone, and the sampler's whole call."""
    scheme, taus, s, event = CATALOGUE["ROBA"], time_grid("uniform", steps, PARAMS), -u, tuple(u.shape[2:])
    advance = Advance(compile_run(scheme, taus, PARAMS), u, lambda k: Draw(0, numbers, k))

    def update() -> None:
        v = u
        for k in range(steps):
            v = advance(k + 1, v, s)

    def noise() -> None:
        for k in range(steps):
            normal_pairs(0, numbers, k, event, u.dtype)

    def whole() -> None:
        sample(scheme, lambda _, t: s, u, taus, PARAMS, samples=numbers)

    return {"update": update, "noise": noise, "sample()": whole}


def plain_loops(u: Tensor, steps: int, device: str, compiles: bool) -> dict[str, Loop]:
    """What torch alone does with the same coefficients and score; a copy and torch.randn, as often."""
    flow = compile_run(CATALOGUE["ROBA"], time_grid("uniform", steps, PARAMS), PARAMS).updates.flow
    arrays = (*flow[:2], noise_factor(flow.noise_cov))
    tables = [torch.as_tensor(array, dtype=u.dtype, device=u.device) for array in arrays]
    numbers = [array.tolist() for array in arrays]
    s = -u
    flat, flat_s = u.flatten(2), s.flatten(2)

    def step(v: Tensor, P: Tensor, K: Tensor, C: Tensor) -> Tensor:
        return P @ v + K @ flat_s + C @ torch.randn_like(v)

    def loop_of(advance: Callable[..., Tensor]) -> Loop:
        def run() -> None:
            v = flat
            for row in zip(*tables, strict=True):
                v = advance(v, *row)

        return run

    def lean() -> None:
        x, m = (plane.clone(memory_format=torch.contiguous_format) for plane in u.unbind(1))
        s_x, s_m = (plane.contiguous() for plane in s.unbind(1))
        xi, eta = torch.empty_like(x), torch.empty_like(x)
        for P, K, C in zip(*numbers, strict=True):
            xi.normal_()
            eta.normal_()
            new = x * P[0][0]
            new.add_(m, alpha=P[0][1]).add_(s_x, alpha=K[0][0]).add_(s_m, alpha=K[0][1]).add_(xi, alpha=C[0][0])
            m.mul_(P[1][1]).add_(x, alpha=P[1][0]).add_(s_x, alpha=K[1][0]).add_(s_m, alpha=K[1][1])
            m.add_(xi, alpha=C[1][0]).add_(eta, alpha=C[1][1])
            x = new

    def randn() -> None:
        for _ in range(steps):
            torch.randn_like(u)

    def copy() -> None:
        v = torch.empty_like(u)
        for _ in range(steps):
            v.copy_(u)

    found: dict[str, Loop] = {"plain loop": loop_of(step), "lean loop": lean, "torch.randn": randn, "copy": copy}
    return found | ({"compiled loop": loop_of(compiled_for(device, step))} if compiles else {})

"""Throughput of the sampling loop and of exact moments, beside peers, in one process.

    python tests/benchmarks/throughput.py [--device cuda]

Prints a table: (x, m) pairs advanced per second by the sampler with a linear score, and by a plain loop that draws with
torch.randn and advances the same scheme with the same tables; their ratio is what to quote. Then steps times data
variances per second of exact moments (on the CPU), in one sweep and one variance at a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_run, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.integrators.noise import normal_pairs
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.theory.model import Parameters
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.targets.gaussian import GaussianTarget

PARAMS, STEPS, BATCH, EVENT = Parameters(), 20, 64, (3, 32, 32)
CPU = torch.device("cpu")


def best(run: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """The shortest of a few runs, in seconds, after one to warm up; each until the device has done its work."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def score(u: torch.Tensor, _: float) -> torch.Tensor:
    return -u


def plain_loop(scheme, u: torch.Tensor, taus: np.ndarray) -> torch.Tensor:
    """The same updates with torch.randn for the noise and no checks: what a script would do."""
    run = compile_run(scheme, taus, PARAMS)
    flow = run.updates.flow
    tables = [torch.as_tensor(t, dtype=u.dtype, device=u.device) for t in (*flow[:2], noise_factor(flow.noise_cov))]
    for P, K, C in zip(*tables, strict=True):
        u, s, xi = (v.flatten(2) for v in (u, score(u, 0.0), torch.randn_like(u)))
        u = (P @ u + K @ s + C @ xi).reshape(BATCH, 2, *EVENT)
    return u


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}; best of 5")
    taus = time_grid("uniform", STEPS, PARAMS)
    numbers = torch.arange(BATCH, device=device)
    elements = BATCH * int(np.prod(EVENT))
    for dtype in (torch.float32, torch.float64):
        for name in ("EM", "ROBA"):
            scheme = CATALOGUE[name]
            u = draw_prior(scheme.splitting.diffusion, PARAMS, numbers, EVENT, dtype=dtype)
            ours = elements * STEPS / best(lambda s=scheme, u=u: sample(s, score, u, taus, PARAMS), device)
            peer = elements * STEPS / best(lambda s=scheme, u=u: plain_loop(s, u, taus), device)
            print(f"{name:5} {dtype!s:14} sampler {ours:9.3g} pairs/s   plain loop {peer:9.3g}   {ours / peer:.2f}")
    hashed = elements / best(lambda: normal_pairs(0, numbers, 1, EVENT), device)
    drawn = elements / best(lambda: torch.randn(BATCH, 2, *EVENT, dtype=torch.float64, device=device), device)
    print(f"noise alone: counter-based {hashed:9.3g} pairs/s   torch.randn {drawn:9.3g}   {hashed / drawn:.2f}")
    scheme = CATALOGUE["ROBA"]
    variances = np.geomspace(1e-3, 100, 1024)
    taus = time_grid("quadratic", 100, PARAMS)
    target = GaussianTarget.of(0.0, variances, scheme.splitting.diffusion, PARAMS)
    together = best(lambda: exact_moments(scheme, target, taus), CPU, 3)
    few = [GaussianTarget.of(0.0, v, scheme.splitting.diffusion, PARAMS) for v in variances[::64]]
    alone = best(lambda: [exact_moments(scheme, one, taus) for one in few], CPU, 3) * 64
    print("exact moments, 1024 variances, 100 steps: ", end="")
    print(f"{together:.3g} s together, {alone:.3g} s one by one, {alone / together:.0f}")


if __name__ == "__main__":
    main()

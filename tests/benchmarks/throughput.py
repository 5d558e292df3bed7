"""How fast the sampling loop is, beside what else one could run, as ratios of interleaved runs in one process.

    python tests/benchmarks/throughput.py [--device cuda] [--clock cpu] [--threads N] [--peers] [--json [FILE]]

`make bench` installs the peers and runs it.

A ratio says how many times as long as the sampler a competitor takes for as many steps of as many pairs (x, m): medians
of the repetitions, with quartiles. Every competitor's result is checked against the exact covariance before it is
timed.
`--clock cpu` counts the process's CPU time, for a machine that others use, and wants one thread.
On a GPU the kernels are checked against the processor's first, bit by bit, and tiles of other shapes are timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import loops
from benchmarks.interleaved import CLOCKS, Timing, interleave
from torch import Tensor
from weakorder.integrators.affine import AffineScore
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.kernels import Draw, kernels_for, tiers_in_use
from weakorder.integrators.sampler import draw_prior, sample

STEPS, REPETITIONS = 20, 9
NETWORK = 300e-9
SHAPES: dict[str, tuple[int, tuple[int, ...]]] = {
    "64 x 3072": (64, (3, 32, 32)),
    "4096 x 64": (4096, (64,)),
    "4096 x 2": (4096, (2,)),
}
LARGE = {"512 x 3072": (512, (3, 32, 32))}  # where a GPU has enough to do
DTYPES = {"float32": torch.float32, "float64": torch.float64}
ROBA = CATALOGUE["ROBA"]


def loop_candidates(u: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The sampler, with a black-box score, and the loops a script would have; each has been checked."""
    taus = time_grid("uniform", STEPS, loops.PARAMS)
    numbers = torch.arange(len(u), device=u.device)
    candidates = {
        "sampler": lambda: sample(ROBA, loops.score, u, taus, loops.PARAMS, samples=numbers),
        "plain loop": loops.plain(ROBA, u, STEPS),
        "leanest plain loop": loops.lean(ROBA, u, STEPS),
    }
    for name, run in candidates.items():
        loops.check(name, run(), ROBA, u, STEPS, prologue=name == "sampler")
    return candidates


def peer_candidates(u: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The sampler beside the packages that solve SDEs, and in float64 a step that has been published."""
    from benchmarks import peers

    others = {**peers.torchsde_euler(u, STEPS), **peers.diffrax_euler(u, STEPS)}
    if u.dtype == torch.float64:
        others["published EM step"] = peers.published_em(u, STEPS)
    for name, run in others.items():
        loops.check(name, run(), peers.EM, u, STEPS)
    if u.dtype == torch.float64:
        others["published SSCS step"] = sscs = peers.published_sscs(u, STEPS)
        loops.check("published SSCS step", sscs(), peers.SSCS, u, STEPS, prologue=True)
    return {"sampler": loop_candidates(u)["sampler"], **others}


def folded_candidates(u: Tensor) -> dict[str, Callable[[], object]]:
    """The sampler with the same score in its tables, beside the drawing of as many normals alone."""
    taus = time_grid("uniform", STEPS, loops.PARAMS)
    numbers, out = torch.arange(len(u), device=u.device), torch.empty_like(u)
    score = AffineScore(lambda _: (-np.eye(2), np.zeros(2)))

    def draws() -> None:
        for _ in range(STEPS):
            torch.randn(out.shape, dtype=out.dtype, device=out.device, out=out)

    run = lambda: sample(ROBA, score, u, taus, loops.PARAMS, samples=numbers)  # noqa: E731
    loops.check("sampler, score folded", run(), ROBA, u, STEPS, prologue=True)
    return {"sampler, score folded": run, "torch.randn": draws}


def noise_candidates(u: Tensor) -> dict[str, Callable[[], object]]:
    """Noise alone: a step's."""
    out = torch.empty(len(u), 2, u[0, 0].numel(), dtype=u.dtype, device=u.device)
    draw = Draw(1, torch.arange(len(u), device=u.device), 3)
    return {"kernel": lambda: kernels_for(out).fill(draw, out), "torch.randn": lambda: torch.randn_like(out)}


def starts(device: torch.device, shapes: dict[str, tuple[int, tuple[int, ...]]]) -> dict[tuple[str, str], Tensor]:
    """States from the prior by shape and dtype."""
    states = {}
    for shape, (batch, event) in shapes.items():
        for name, dtype in DTYPES.items():
            numbers = torch.arange(batch, device=device)
            states[shape, name] = draw_prior(ROBA.splitting.diffusion, loops.PARAMS, numbers, event, dtype=dtype)
    return states


class Table:
    """What is measured, line by line, for people and for a file."""

    def __init__(self, device: torch.device, clock: str, repetitions: int, quiet: bool) -> None:
        self.device, self.clock, self.repetitions, self.quiet = device, clock, repetitions, quiet
        self.rows: list[dict[str, object]] = []

    def say(self, line: str) -> None:
        """To people, unless stdout is for JSON."""
        print(line, file=sys.stderr if self.quiet else sys.stdout)

    def add(self, about: dict[str, object], candidates: dict[str, Callable[[], object]], ours: str, pairs: int) -> None:
        """Time them. pairs: (x, m) advanced or drawn by one run."""
        self.say("  ".join(map(str, about.values())))
        for timing in interleave(candidates, ours, self.repetitions, self.clock, self.device):
            self.note(about, timing, pairs)

    def note(self, about: dict[str, object], timing: Timing, pairs: int) -> None:
        """One line."""
        rate = pairs / timing.seconds
        self.say(f"    {timing}   {rate:.3g} pairs/s")
        self.rows.append({**about, **timing.as_json(), "pairs_per_second": rate})


def check_bits(device: torch.device) -> list[str]:
    """Where the device's noise or update has other bits than the processor's kernels: what, shape and dtype."""
    differences = []
    for n, batch in ((1, 5), (2, 300), (7, 33), (64, 100), (3072, 7)):
        for name, dtype in DTYPES.items():
            numbers = torch.arange(batch) * 123456789012 + 5
            u, s = torch.randn(2, batch, 2, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
                dtype
            )
            table = np.linspace(-1, 1, 22).reshape(2, 11)
            results = []
            for place in (torch.device("cpu"), device):
                draw = Draw(2**63 + 12345, numbers.to(place), 2**32 - 2)
                out = torch.empty(batch, 2, n, dtype=dtype, device=place)
                kernels_for(out).fill(draw, out)
                updates = kernels_for(out).Updates(table, u.to(place))
                results.append((out.cpu(), updates(1, u.to(place), s.to(place), draw).cpu(), updates.wrong(True)))
            for kind, ours, theirs in zip(("noise", "update"), *(result[:2] for result in results), strict=True):
                if not torch.equal(ours, theirs):
                    largest = float((ours.double() - theirs.double()).abs().max())
                    share = float((ours != theirs).double().mean())
                    differences.append(
                        f"{kind} {batch} x {n} {name}: {share:.2g} of the entries, by up to {largest:.2g}"
                    )
    return differences


def tiles(table: Table, states: dict[tuple[str, str], Tensor]) -> None:
    """Triton's kernel with tiles of other sizes: an update alone."""
    from weakorder.integrators.kernels import gpu

    usual = gpu._CALLS
    for (shape, name), u in states.items():
        draw = Draw(1, torch.arange(len(u), device=u.device), 3)
        updates = gpu.Updates(np.linspace(-1, 1, 11)[None], u)
        candidates: dict[str, Callable[[], object]] = {}
        for calls in (64, 128, 256, 512, 1024):

            def run(calls: int = calls, u: Tensor = u, draw: Draw = draw, updates: Any = updates) -> None:
                gpu._CALLS = calls
                for _ in range(STEPS):
                    updates(0, u, u, draw)

            candidates[f"{calls} calls"] = run
        table.add({"what": "tile", "shape": shape, "dtype": name}, candidates, f"{usual} calls", u.numel() // 2 * STEPS)
    gpu._CALLS = usual


def threads_against_one(table: Table, states: dict[tuple[str, str], Tensor]) -> None:
    """The sampler's loop on all threads, and on one: several runs each, as the threads that a change of their number
    wakes or lays to sleep are not what is asked."""
    most, runs = torch.get_num_threads(), 8
    for (shape, name), u in states.items():
        run = loop_candidates(u)["sampler"]

        def on(threads: int, run: Callable[[], Tensor] = run) -> None:
            torch.set_num_threads(threads)
            try:
                for _ in range(runs):
                    run()
            finally:
                torch.set_num_threads(most)

        candidates = {f"{threads} threads": lambda threads=threads: on(threads) for threads in (most, 1)}
        about = {"what": "threads", "shape": shape, "dtype": name}
        table.add(about, candidates, f"{most} threads", u.numel() // 2 * STEPS * runs)


def share_of_sampler(table: Table, states: dict[tuple[str, str], Tensor]) -> None:
    """What part of a run is the sampler's where the network takes NETWORK seconds a pair and core: it works for as long
    as that, and by then the state has left the caches."""
    for (shape, name), u in states.items():
        pairs, numbers, taus = u.numel() // 2, torch.arange(len(u)), time_grid("uniform", STEPS, loops.PARAMS)
        spent = 0.0

        def network(state: Tensor, t: float, pairs: int = pairs) -> Tensor:
            nonlocal spent
            start = time.perf_counter()
            answer = loops.score(state, t)
            while time.perf_counter() - start < NETWORK * pairs / torch.get_num_threads():
                pass
            spent += time.perf_counter() - start
            return answer

        shares = []
        for _ in range(1 + table.repetitions):
            spent, start = 0.0, time.perf_counter()
            sample(ROBA, network, u, taus, loops.PARAMS, samples=numbers)
            shares.append(1 - spent / (time.perf_counter() - start))
        low, middle, high = np.quantile(shares[1:], (0.25, 0.5, 0.75))
        table.say(f"share of the sampler  {shape}  {name}  {middle:.2%}  ({low:.2%} to {high:.2%})")
        table.rows.append({"what": "share", "shape": shape, "dtype": name, "share": middle, "quartiles": (low, high)})


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, help="of torch and of the kernels")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--peers", action="store_true", help="torchsde, diffrax and a published step, too")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE, or stdout")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    about = {"device": hardware, "torch": torch.__version__, "clock": options.clock, "tiers": tiers_in_use()}
    table = Table(device, options.clock, options.repetitions, quiet=options.json == "-")
    table.say(f"{hardware}, torch {torch.__version__}, {options.clock} time; {about['tiers']}")
    states = starts(device, SHAPES | LARGE if device.type == "cuda" else SHAPES)
    compiled = kernels_for(next(iter(states.values()))).__name__.endswith("gpu")
    differences = check_bits(device) if compiled else []
    for line in differences:
        table.say(f"other bits than the processor's: {line}")
    for (shape, name), u in states.items():
        pairs = u.numel() // 2
        table.add({"what": "loop", "shape": shape, "dtype": name}, loop_candidates(u), "sampler", pairs * STEPS)
        table.add(
            {"what": "folded", "shape": shape, "dtype": name},
            folded_candidates(u),
            "sampler, score folded",
            pairs * STEPS,
        )
        table.add({"what": "noise", "shape": shape, "dtype": name}, noise_candidates(u), "kernel", pairs)
        if options.peers and shape in ("64 x 3072", "4096 x 64"):
            table.add({"what": "peers", "shape": shape, "dtype": name}, peer_candidates(u), "sampler", pairs * STEPS)
    if device.type == "cpu" and options.threads is None and torch.get_num_threads() > 1:
        threads_against_one(table, states)
        share_of_sampler(table, states)
    if compiled:
        tiles(table, states)
    if options.json:
        text = json.dumps({**about, "differences": differences, "rows": table.rows}, indent=1)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()

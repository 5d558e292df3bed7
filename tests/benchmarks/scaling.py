"""How the sampling loop's cost grows, on a processor: with batch, dimension, steps, threads and processes, and memory.

    python tests/benchmarks/scaling.py [-o scaling] [--repetitions 5]

Writes scaling.json and scaling.png: nanoseconds per pair (x, m) and step, of ROBA with a score that costs as little as
one can (the state, negated), so that what is seen is the loop. Medians, with the least and the most as a band.
Sizes vary about 64 samples of 3072 pairs, the shape of a batch of CIFAR-10. Peak memory is counted by torch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import loops
from peak_memory import peak_states
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import draw_prior, sample

ROBA = CATALOGUE["ROBA"]
BATCH, SIZE, STEPS = 64, 3072, 20
BATCHES, SIZES, COUNTS = (1, 4, 16, 64, 256, 1024), (1, 4, 16, 64, 256, 1024, 3072, 12288), (1, 4, 16, 64, 256)
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Row = dict[str, Any]


def loop(batch: int, size: int, steps: int, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """A run of the sampler, and where it begins."""
    numbers = torch.arange(batch)
    u = draw_prior(ROBA.splitting.diffusion, loops.PARAMS, numbers, (size,), dtype=dtype)
    taus = time_grid("uniform", steps, loops.PARAMS)
    return lambda: sample(ROBA, loops.score, u, taus, loops.PARAMS, samples=numbers)


def timed(run: Callable[[], object], repetitions: int) -> list[float]:
    """Seconds of each repetition, after one to warm up."""
    seconds = []
    for _ in range(1 + repetitions):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def row(panel: str, value: int, dtype: str, pairs: int, seconds: list[float]) -> Row:
    """One point: nanoseconds per pair and step."""
    least, middle, most = (float(s) * 1e9 / pairs for s in np.quantile(seconds, [0, 0.5, 1]))
    return {"panel": panel, "value": value, "dtype": dtype, "ns": middle, "least": least, "most": most}


def sizes(repetitions: int) -> list[Row]:
    """Batch, dimension and steps, one thread."""
    torch.set_num_threads(1)
    points = [("batch", b, (b, SIZE, STEPS)) for b in BATCHES]
    points += [("elements of an event", n, (max(1, BATCH * SIZE // n), n, STEPS)) for n in SIZES]
    points += [("steps", k, (BATCH, SIZE, k)) for k in COUNTS]
    return [
        row(panel, value, name, int(np.prod(shape)), timed(loop(*shape, dtype), repetitions))
        for name, dtype in DTYPES.items()
        for panel, value, shape in points
    ]


def threads(repetitions: int) -> list[Row]:
    """Threads of one process, up to twice the processors."""
    rows = []
    for name, dtype in DTYPES.items():
        run = loop(BATCH, SIZE, STEPS, dtype)
        for count in range(1, 2 * (os.cpu_count() or 1) + 1):
            torch.set_num_threads(count)
            rows.append(row("threads", count, name, BATCH * SIZE * STEPS, timed(run, repetitions)))
    torch.set_num_threads(1)
    return rows


def processes(repetitions: int) -> list[Row]:
    """Processes of one thread each, which begin together: a batch each, and the time until the last has ended."""
    rows, context = [], get_context("spawn")
    for name in DTYPES:
        for count in range(1, 2 * (os.cpu_count() or 1) + 1):
            start, end = context.Barrier(count + 1), context.Barrier(count + 1)
            workers = [context.Process(target=_work, args=(name, repetitions, start, end)) for _ in range(count)]
            for worker in workers:
                worker.start()
            seconds = []
            for _ in range(1 + repetitions):
                start.wait()
                began = time.perf_counter()
                end.wait()
                seconds.append(time.perf_counter() - began)
            for worker in workers:
                worker.join()
            rows.append(row("processes", count, name, count * BATCH * SIZE * STEPS, seconds[1:]))
    return rows


def _work(name: str, repetitions: int, start: Any, end: Any) -> None:
    torch.set_num_threads(1)
    run = loop(BATCH, SIZE, STEPS, DTYPES[name])
    for _ in range(1 + repetitions):
        start.wait()
        run()
        end.wait()


def memory() -> list[Row]:
    """The peak beside the first state, in states: 3, and 8 bytes a sample for its number."""
    rows = []
    for name, dtype in DTYPES.items():
        for batch in BATCHES:
            numbers = torch.arange(batch)
            u = draw_prior(ROBA.splitting.diffusion, loops.PARAMS, numbers, (SIZE,), dtype=dtype)
            taus = time_grid("uniform", STEPS, loops.PARAMS)
            peak = peak_states(lambda u=u, taus=taus: sample(ROBA, loops.score, u, taus, loops.PARAMS), u)
            rows.append({"panel": "memory", "value": batch, "dtype": name, "states": peak})
    return rows


def draw(rows: list[Row], path: Path) -> None:
    """The rows, a panel for each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    panels = list(dict.fromkeys(entry["panel"] for entry in rows))
    for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        for (name, colour), marker in zip((("float32", "#0072B2"), ("float64", "#D55E00")), "os", strict=True):
            of = [entry for entry in rows if entry["panel"] == panel and entry["dtype"] == name]
            x = [entry["value"] for entry in of]
            if panel == "memory":
                axes.plot(x, [entry["states"] for entry in of], marker=marker, color=colour, label=name)
                continue
            band = [[entry[edge] for entry in of] for edge in ("least", "most")]
            axes.fill_between(x, *band, color=colour, alpha=0.2, linewidth=0)
            axes.plot(x, [entry["ns"] for entry in of], marker=marker, color=colour, label=name)
            if panel in ("threads", "processes"):
                axes.plot(x, [of[0]["ns"] / min(n, os.cpu_count() or 1) for n in x], ":", color=colour, linewidth=1)
        if panel == "memory":
            axes.axhline(3, color="0.5", linestyle=":", linewidth=1)
            axes.set_ylim(0, 4)
            axes.set_ylabel("states at the peak")
        else:
            axes.set_ylim(0, None)
            axes.set_ylabel("ns per pair and step")
        if panel not in ("threads", "processes"):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("samples in a batch" if panel in ("memory", "batch") else panel)
        axes.set_title(panel.replace("elements of an event", "dimension"), loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=160)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("scaling"), help="path without its ending")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    rows = sizes(options.repetitions) + threads(options.repetitions) + processes(options.repetitions) + memory()
    for entry in rows:
        print("  ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in entry.values()))
    about = {"torch": torch.__version__, "processors": os.cpu_count()}
    options.output.with_suffix(".json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    draw(rows, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()

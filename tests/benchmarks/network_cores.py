"""The shipped network on a processor's cores: threads, processes, layouts, compiled, bfloat16; the sampler's share.

    python tests/benchmarks/network_cores.py [--repetitions 9] [--json FILE]

The work is that of one round of `weakorder cifar10 study`: an evaluation of a batch of 16 for each core. Each row says
how many times as long as the study's own way (batches side by side on threads, one each, channels last) another way
takes, and by how much its answer differs from the study's, relative to its size: 0 is the same bits.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from interleaved import Timing, interleave
from torch import Tensor
from weakorder.integrators.anchored import Anchor, anchor_to, sample_anchored
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.threads import one_thread
from weakorder.verification import data
from weakorder.verification.cifar10.model.checkpoint import Checkpoint, load_checkpoint
from weakorder.verification.cifar10.model.machine import available_threads, keep_freed_memory

BATCH, TIME, STEPS = 16, 0.3, 20


def shipped() -> Checkpoint:
    """The network that ships."""
    with resources.as_file(resources.files(data) / "cifar10_compact.safetensors") as path:
        return load_checkpoint(path)


def states(number: int, batch: int = BATCH) -> Tensor:
    """States (batch, 6, 32, 32) as the network sees them."""
    return torch.randn(batch, 6, 32, 32, generator=torch.Generator().manual_seed(number))


def evaluation(network: Callable[..., Tensor], x: Tensor) -> Tensor:
    """The network's answer."""
    with torch.no_grad():
        return network(x, torch.full((len(x),), TIME))


def process(pipe: Connection, number: int) -> None:
    """A process with one thread and a network of its own, which evaluates its batch when asked to."""
    torch.set_num_threads(1)
    keep_freed_memory()
    network, x = shipped().network, states(number)
    while pipe.recv():
        pipe.send(float(evaluation(network, x).double().norm()))


@contextmanager
def processes(count: int) -> Iterator[Callable[[], None]]:
    """A call of all of them at once."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for number in range(count):
        ours, theirs = context.Pipe()
        workers.append(context.Process(target=process, args=(theirs, number), daemon=True))
        workers[-1].start()
        pipes.append(ours)

    def run() -> None:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    yield run
    for pipe in pipes:
        pipe.send(False)
    for worker in workers:
        worker.join()


def ways(checkpoint: Checkpoint, pool: ThreadPoolExecutor, cores: int) -> dict[str, Callable[[], list[Tensor]]]:
    """Every way of evaluating `cores` batches, and the answers to them in order."""
    network = checkpoint.network
    first = shipped().network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    compiled = torch.compile(shipped().network)
    batches = [states(number) for number in range(cores)]

    def side_by_side(model: Callable[..., Tensor], parts: list[Tensor]) -> list[Tensor]:
        with one_thread():
            return list(pool.map(lambda x: evaluation(model, x), parts))

    def in_turn(threads: int) -> list[Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return [evaluation(network, x) for x in batches]
        finally:
            torch.set_num_threads(before)

    def low(x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(x, t).float()

    def in_batches(size: int) -> list[Tensor]:
        parts = torch.cat(batches).split(size)
        return list(torch.cat(side_by_side(network, list(parts))).split(BATCH))

    return {
        "as the study: a batch a thread": lambda: side_by_side(network, batches),
        "one thread": lambda: in_turn(1),
        f"{cores} threads in each operation": lambda: in_turn(cores),
        "channels first": lambda: side_by_side(first, batches),
        "compiled": lambda: side_by_side(compiled, batches),
        "bfloat16 (oneDNN, autocast)": lambda: side_by_side(low, batches),
        "batches of 4": lambda: in_batches(4),
        "batches of 8": lambda: in_batches(8),
    }


def share(checkpoint: Checkpoint, repetitions: int) -> list[Timing]:
    """A cell of a study, ROBA at 20 evaluations on its reference's noise, beside its evaluations alone; one thread."""
    scheme, params, score = CATALOGUE["ROBA"], checkpoint.params, checkpoint.score()
    anchor = Anchor(scheme, time_grid("quadratic", 16 * STEPS, params), params)
    run = anchor_to(anchor, scheme, time_grid("quadratic", STEPS, params))
    numbers = torch.arange(BATCH)
    normals, u = anchor.draw(numbers, (3, 32, 32)), torch.randn(BATCH, 2, 3, 32, 32, dtype=torch.float64)
    times = run.run.updates.time
    assert times is not None

    def evaluations() -> None:
        for t in times.tolist():
            score(u, t)

    with one_thread():
        candidates = {
            "evaluations": evaluations,
            "the cell": lambda: sample_anchored(run, score, u, normals, numbers),
        }
        return interleave(candidates, "evaluations", repetitions)


def main() -> None:
    """Print the rows, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    checkpoint, cores = shipped(), available_threads()
    with ThreadPoolExecutor(cores) as pool, processes(cores) as apart:
        candidates = ways(checkpoint, pool, cores)
        ours, *_ = candidates
        answers = {name: torch.cat(run()) for name, run in candidates.items()}
        timed: dict[str, Callable[[], object]] = {**candidates, f"{cores} processes, one thread each": apart}
        timings = interleave(timed, ours, options.repetitions)
    exact, rows = answers[ours], []
    for timing in timings:
        moved = answers.get(timing.name)
        change = None if moved is None else float((moved - exact).norm() / exact.norm())
        rows.append(timing.as_json() | {"change": change})
        print(timing, "" if change is None else f"   answers move by {change:.1e}", flush=True)
    parts = share(checkpoint, options.repetitions)
    print(*parts, sep="\n")
    if options.json:
        found = {"cores": cores, "batch": BATCH, "torch": torch.__version__, "ways": rows}
        options.json.write_text(json.dumps(found | {"share": [part.as_json() for part in parts]}, indent=1) + "\n")


if __name__ == "__main__":
    main()

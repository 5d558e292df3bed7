"""Samples of many schemes from one network, coupled, and kept on disk cell by cell.

A cell is a scheme at a number of steps: its samples numbered 0 .. n - 1 run from the prior to the cut-off and take the
denoising step (or do not, if the cell says so), whose evaluation counts. A stochastic cell shares its Brownian motion
with a reference, one run of the same dynamics with many more steps (integrators.anchored); a deterministic one shares
the start, which is all there is.

Sample j of a cell is a function of the network, the parameters, the scheme, the steps, the grid, the reference, the
seed and j, and of nothing else: not of the other cells, nor of who computes it. So work is divided by samples, a batch
at a time, among threads and processes that need not speak to each other, and each (cell, batch) is a file of its own,

    cells/NAME-STEPS-KEY/FIRST-SIZE.npz          x (size, 3, side, side) float32, positions in the data's units

written whole or not at all, KEY a hash of all that the samples depend on. What is there is never computed again: a
study that was stopped goes on, one with another scheme or budget adds to what there is, and both end in the same bits
as one that ran through, as long as the reference is the same: a budget beyond those before asks for a finer one, on
whose noise all stochastic cells are sampled anew, unless it was chosen fine enough from the start. (The last bits of a
network's output may depend on the batch it is in and on the machine. So batches are always full, their size is part of
KEY, and on a processor each runs on one thread.)
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....integrators.anchored import Anchor, AnchoredRun, anchor_to, sample_anchored
from ....integrators.compiled import denoising_run
from ....integrators.coupling import CoupledRun, Coupling, couple, run_coupled, sample_coupled
from ....integrators.grids import time_grid
from ....integrators.sampler import Score, draw_prior
from ....integrators.threads import one_thread
from ....theory.model import PSLD_DIFFUSION, Parameters
from ...files import make_folder, write_atomically
from ..model import FLOAT32, keep_freed_memory, products
from .cells import Cell, Images, Model

FORMAT = 3  # of the samples: the next number whenever the same key would give others
LARGEST_BATCH = 4096


# --- On disk ----------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Samples `first` to `first + size` - 1."""

    first: int
    size: int

    @property
    def file(self) -> str:
        """Its file's name, in the order of numbers."""
        return f"{self.first:07d}-{self.size:04d}.npz"


class Samples(NamedTuple):
    """x (n, C, side, side) float32; `evaluations` of the score per sample; `seconds` they took altogether."""

    x: Images
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Store:
    """The folder of a study, its model and what all its samples have in common; `imitates`: whether precisions other
    than float32 are imitated, not an accelerator's own (machine.products)."""

    folder: Path
    model: Model
    seed: int = 0
    batch: int = 16
    imitates: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed = {self.seed}: give an integer in [0, 2^64)")
        if not 1 <= self.batch <= LARGEST_BATCH:
            raise ValueError(f"batch = {self.batch}: give 1 to {LARGEST_BATCH} samples")

    def batches(self, samples: int) -> list[Batch]:
        """The full batches that samples 0 .. samples - 1 are in."""
        return [Batch(first, self.batch) for first in range(0, samples, self.batch)]

    def path(self, cell: Cell) -> Path:
        """The cell's folder."""
        model = [self.model.fingerprint, asdict(self.model.params), asdict(self.model.config)]
        parts = [FORMAT, cell.description(), model, self.seed, self.batch]
        parts += ["imitated"] if self.imitates and cell.precision != FLOAT32 else []
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        name = "".join(letter if letter.isalnum() else "_" for letter in cell.scheme.name)[:40]
        return self.folder / "cells" / f"{name}-{cell.steps}-{key}"

    def has(self, cell: Cell, batch: Batch) -> bool:
        """Whether it has been sampled."""
        return (self.path(cell) / batch.file).is_file()

    def save(self, cell: Cell, batch: Batch, samples: Samples) -> None:
        """Write a batch, whole or not at all."""
        folder = self.path(cell)
        make_folder(folder)
        content = io.BytesIO()
        np.savez(content, x=samples.x, evaluations=samples.evaluations, seconds=samples.seconds)
        write_atomically(folder / batch.file, content.getvalue())

    def load(self, cell: Cell, samples: int) -> Samples | None:
        """All samples of a cell, None if some are missing. Raises ValueError on a file that is not what was written."""
        batches = self.batches(samples)
        if not all(self.has(cell, batch) for batch in batches):
            return None
        found = [self._read(self.path(cell) / batch.file, batch) for batch in batches]
        counts = {entry.evaluations for entry in found}
        if len(counts) > 1:
            raise ValueError(f"{str(self.path(cell))!r}: batches took {sorted(counts)} evaluations; remove the folder")
        return Samples(
            np.concatenate([entry.x for entry in found])[:samples], counts.pop(), sum(entry.seconds for entry in found)
        )

    def _read(self, path: Path, batch: Batch) -> Samples:
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                found = Samples(arrays["x"], int(arrays["evaluations"]), float(arrays["seconds"]))
        except Exception as error:  # a damaged file raises a dozen kinds
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ValueError(f"{str(path)!r} cannot be read ({reason}); remove it, and it is sampled again") from error
        if found.x.shape != (batch.size, *self.model.event) or found.x.dtype != np.float32:
            raise ValueError(f"{str(path)!r} holds {found.x.dtype} {found.x.shape}; remove it, and it is sampled again")
        return found


# --- Sampling ---------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Raised inside workers when the study is being stopped."""


class CountedScore:
    """A score that counts its evaluations, reports each, and ends when it is told to."""

    def __init__(self, score: Score, tick: Callable[[int], None], stop: threading.Event) -> None:
        self.score, self.tick, self.stop, self.evaluations = score, tick, stop, 0

    def __call__(self, u: Tensor, t: float) -> Tensor:
        if self.stop.is_set():
            raise Interrupted
        self.evaluations += 1
        result = self.score(u, t)
        self.tick(len(u))
        return result


@dataclass(frozen=True)
class Work:
    """Cells on the noise of one reference (deterministic ones: of none) that a batch still lacks; the reference itself
    may be among them."""

    batch: Batch
    reference: Cell | None
    cells: tuple[Cell, ...]

    @property
    def evaluations(self) -> int:
        """Of all its samples together."""
        return self.batch.size * sum(cell.nfe for cell in self.cells)


def missing_work(store: Store, cells: Iterable[Cell], samples: int) -> list[Work]:
    """What is not on disk yet, batch by batch: of each the reference first, then its cells."""
    groups: dict[Cell | None, list[Cell]] = {}
    for cell in cells:
        own = [] if cell.reference is None else [cell.reference]
        groups.setdefault(cell.noise, []).extend([*own, cell])
    work = []
    for batch in store.batches(samples):
        for reference, group in groups.items():
            missing = tuple(cell for cell in dict.fromkeys(group) if not store.has(cell, batch))
            if missing:
                work.append(Work(batch, reference, missing))
    return work


def run_work(
    store: Store,
    work: Sequence[Work],
    device: torch.device,
    workers: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Sample and save. progress(k): another evaluation of k samples is done; called from any thread.

    On a processor batches run side by side on `workers` threads, each batch on one; the longest work comes first, so
    that at the end the threads have little to wait for.
    Stopped by an exception, an interrupt too, it has saved what was complete.
    """
    keep_freed_memory()
    stop = threading.Event()
    score, runs = store.model.score(device), _Runs(store.model.params)
    threads = workers if device.type == "cpu" else 1
    alone: AbstractContextManager[None] = one_thread() if device.type == "cpu" else nullcontext()
    with alone, ThreadPoolExecutor(threads) as pool:
        try:  # an interrupt may come as soon as there is a job
            longest_first = sorted(work, key=lambda item: item.evaluations, reverse=True)
            jobs = [pool.submit(_sample, store, item, runs, score, device, progress, stop) for item in longest_first]
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Runs:
    """Compiled cells and references, each made once, whichever thread asks first."""

    def __init__(self, params: Parameters) -> None:
        self.params, self.lock = params, threading.Lock()
        self.anchors: dict[Cell, Anchor] = {}
        self.anchored: dict[Cell, AnchoredRun] = {}
        self.coupled: dict[Cell, Coupling] = {}

    def taus(self, cell: Cell) -> NDArray[np.float64]:
        return time_grid(cell.grid, cell.steps, cell.parameters(self.params))

    def anchor(self, reference: Cell) -> Anchor:
        with self.lock:
            if reference not in self.anchors:
                self.anchors[reference] = Anchor(reference.scheme, self.taus(reference), self.params)
            return self.anchors[reference]

    def given(self, reference: Cell, cell: Cell) -> AnchoredRun:
        """The cell's run given the reference's noise."""
        anchor = self.anchor(reference)
        with self.lock:
            if cell not in self.anchored:
                self.anchored[cell] = anchor_to(anchor, cell.scheme, self.taus(cell))
            return self.anchored[cell]

    def alone(self, cell: Cell) -> Coupling:
        """The cell's run on noise of its own."""
        with self.lock:
            if cell not in self.coupled:
                self.coupled[cell] = couple([(cell.scheme, self.taus(cell))], self.params)
            return self.coupled[cell]


def _sample(
    store: Store,
    work: Work,
    runs: _Runs,
    score: Score,
    device: torch.device,
    tick: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """All missing cells of a batch, on one draw of the reference's noise."""
    params, event, seed = store.model.params, store.model.event, store.seed
    numbers = torch.arange(work.batch.first, work.batch.first + work.batch.size, device=device)
    start = draw_prior(PSLD_DIFFUSION, params, numbers, event, seed)
    normals = None
    if work.reference is not None:
        normals = runs.anchor(work.reference).draw(numbers, event, seed, torch.float32)
    for cell in work.cells:
        began, counted = time.perf_counter(), CountedScore(score, tick, stop)
        with products(cell.precision, device):
            if work.reference is None or normals is None:
                u = sample_coupled(runs.alone(cell), counted, start, numbers, seed)[0]
            else:
                u = sample_anchored(runs.given(work.reference, cell), counted, start, normals, numbers, seed)
            if cell.denoises:
                u = _denoised(cell, counted, u, cell.parameters(params))
        x = u[:, 0].to(torch.float32).cpu().numpy()
        store.save(cell, work.batch, Samples(x, counted.evaluations, time.perf_counter() - began))


def _denoised(cell: Cell, score: Score, u: Tensor, params: Parameters) -> Tensor:
    """After the last, drift-only step from the cut-off; a state that overflowed stays what it is."""
    nothing = np.zeros(0, dtype=np.int64)
    last = CoupledRun(denoising_run(cell.scheme, params.eps, params), nothing, nothing, np.zeros((0, 2, 0)))
    return run_coupled(Coupling((last,), 0, 0), score, u, lambda _: u)[0]

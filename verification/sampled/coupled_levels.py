"""The levels of a study, sampled: runs of a scheme at two numbers of steps on one Brownian motion, batch by batch.

An `Experiment` is one level (one run) or a pair of neighbouring levels (two runs, coupled as in integrators.coupling),
from exact draws of p_T. Every path is a function of the seed and its number, so a batch is one of the seed and the
batch's number: it does not matter which were computed before, or when. The `Store` keeps batches in memory and in a
checkpoint, and a study that is stopped and resumed ends in the same bits.

A batch is kept as means over `BLOCKS` blocks of paths: all statistics (sampled.multilevel) are of such means.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ...integrators.coupling import Coupling, sample_coupled
from ...integrators.threads import one_thread
from ..files import write_atomically
from ..verdicts import Array, BlockMeans
from .distances import block_distances
from .functionals import Functionals

if TYPE_CHECKING:
    from ..targets import Target

BLOCKS = 16  # in a batch
FORMAT = 4  # of a batch's values: a checkpoint with others is of another study
BATCH_ENTRIES = 1 << 14  # of states in a batch: small enough for a processor's cache
_DISTANCE_PATHS = 128  # of a block: distances of n states cost n^2
_OVERFLOW = 1e30  # fourth powers of states 3e7 of the prior's deviations away: the run has overflowed, or will
_CHECKPOINT_SECONDS = 5.0
_STREAM = 40  # bits of a path's number; the rest of a sample's number is its stream


@dataclass(frozen=True)
class Experiment:
    """One or two runs on one Brownian motion, from exact draws of the target at the first grid time.

    A batch's values (BLOCKS, columns) are a function of the seed, the stream and the batch's number: per run the test
    functions and, if there are two, the distances of its blocks from exact samples, then the squared distance of the
    two paths.
    """

    target: Target
    functionals: Functionals
    coupling: Coupling
    seed: int
    stream: int
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a value

    @property
    def block(self) -> int:
        """Paths in a block."""
        return min(512, max(4, BATCH_ENTRIES // (2 * math.prod(self.target.event) * BLOCKS)))

    @property
    def paths(self) -> int:
        """Paths in a batch."""
        return BLOCKS * self.block

    @property
    def evaluations(self) -> int:
        """Score evaluations of a path."""
        return self.coupling.evaluations

    def batch(self, number: int) -> Array:
        """Simulate batch `number`; a run that overflowed has nan."""
        # States that fit a cache: a second thread would wait more than it works.
        small = 2 * math.prod(self.target.event) * self.paths <= BATCH_ENTRIES
        with one_thread() if small else nullcontext():
            return self._simulate(number)

    def _simulate(self, number: int) -> Array:
        first = number * self.paths + torch.arange(self.paths, device=self.device)
        own, others = (first + (4 * self.stream + role << _STREAM) for role in range(2))
        target, functions = self.target, self.functionals
        for coupled in self.coupling.runs:
            if (times := coupled.run.updates.time) is not None:
                target.keep(times.tolist())
        last = sample_coupled(
            self.coupling, target.score, target.sample(target.params.T, own, self.seed), own, self.seed
        )
        columns = [self._means(functions.values(state)) for state in last]
        if len(last) > 1:
            exact = self._batches(target.sample(functions.t, others, self.seed))
            distances = [
                torch.from_numpy(block_distances(self._batches(state), exact)).to(first.device) for state in last
            ]
            squares = (functions.scaled(last[0]) - functions.scaled(last[-1])).square().sum(1).mean(1)
            columns = [torch.cat(pair, dim=1) for pair in zip(columns, distances, strict=True)]
            columns.append(self._means(squares[:, None]))
        sound = [torch.where((column.abs() < _OVERFLOW).all(), column, math.nan) for column in columns]
        return torch.cat(sound, dim=1).cpu().numpy()

    def _means(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(0, (BLOCKS, self.block)).mean(1)

    def _batches(self, u: torch.Tensor) -> Array:
        """The states that distances are taken of, (BLOCKS, at most `_DISTANCE_PATHS`, size); 0 after an overflow."""
        scaled = torch.nan_to_num(self.functionals.scaled(u), 0.0, 0.0, 0.0)
        return scaled.flatten(1).unflatten(0, (BLOCKS, self.block))[:, :_DISTANCE_PATHS].cpu().numpy()


class Progress(NamedTuple):
    """How far a study is: score evaluations done and planned (so far), and the seconds that are left at its pace."""

    done: float
    planned: float
    seconds_left: float


class Store:
    """The batches of all experiments, in memory and in a checkpoint file."""

    def __init__(
        self,
        experiments: list[Experiment],
        description: str,
        path: Path | None,
        deadline: float,
        progress: Callable[[Progress], None],
    ) -> None:
        self.experiments, self.path, self.deadline, self.progress = experiments, path, deadline, progress
        self.key = hashlib.sha256(description.encode()).hexdigest()
        self.batches: list[list[Array]] = [[] for _ in experiments]
        self.seconds = np.zeros(len(experiments))
        self.saved = time.monotonic()
        if path is not None and path.exists():
            self._load(path)

    def samples(self, counts: Array | None) -> list[BlockMeans]:
        """The first `counts` batches of every experiment, or all."""
        chosen = [len(b) for b in self.batches] if counts is None else counts
        return [
            BlockMeans(np.concatenate(batches[:count]), experiment.block, seconds * count / len(batches))
            for experiment, batches, count, seconds in zip(
                self.experiments, self.batches, chosen, self.seconds, strict=True
            )
        ]

    def fill(self, counts: Array) -> bool:
        """Simulate until every experiment has its batches; False if time ran out before (after one batch of each)."""
        missing = [max(0, int(count) - len(batches)) for count, batches in zip(counts, self.batches, strict=True)]
        costs = np.array([e.paths * max(1, e.evaluations) for e in self.experiments], dtype=float)
        planned, left, begun = float(counts @ costs), float(np.array(missing) @ costs), time.monotonic()
        done_here = 0.0
        # One batch of everything first, so that a study that is stopped has something to say.
        order = [k for k, batches in enumerate(self.batches) if not batches]
        order += [k for k, count in enumerate(missing) for _ in range(count - (not self.batches[k]))]
        for k in order:
            if time.monotonic() > self.deadline and all(self.batches):
                self.save()
                return False
            started = time.perf_counter()
            self.batches[k].append(self.experiments[k].batch(len(self.batches[k])))
            self.seconds[k] += time.perf_counter() - started
            done_here += costs[k]
            pace = (time.monotonic() - begun) / done_here
            self.progress(Progress(planned - left + done_here, planned, pace * (left - done_here)))
            if time.monotonic() - self.saved > _CHECKPOINT_SECONDS:
                self.save()
        return True

    def save(self) -> None:
        """Write the checkpoint, whole or not at all. Raises OSError."""
        if self.path is None:
            return
        arrays: dict[str, Any] = {
            f"batches_{k}": np.stack(batches) for k, batches in enumerate(self.batches) if batches
        }
        content = io.BytesIO()
        np.savez(content, key=np.array(self.key), seconds=self.seconds, **arrays)
        write_atomically(self.path, content.getvalue())
        self.saved = time.monotonic()

    def _load(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file) as found:
                kept = {name: found[name] for name in found.files}
            key, seconds = str(kept["key"]), kept["seconds"]
        except Exception as error:  # numpy and zipfile raise a dozen kinds on a broken file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"checkpoint {str(path)!r} cannot be read ({reason}); remove it to start anew") from error
        if key != self.key:
            raise ValueError(f"checkpoint {str(path)!r} is of another study; give another file, or remove it")
        self.seconds = seconds
        for k, batches in enumerate(self.batches):
            batches.extend(kept.get(f"batches_{k}", ()))

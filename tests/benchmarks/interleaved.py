"""Timing by ratios: every candidate once per repetition, in one process, so that a busy minute is everybody's.

A ratio is taken within a repetition, of two runs that follow each other; what is reported is the median over the
repetitions and the quartiles about it. Its clock is wall time, or (where other work shares the machine) the process's
CPU time, which says what a run on one thread costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Timing:
    """Of a candidate: median seconds, and median and quartiles of the base's time over its own (None: the base)."""

    name: str
    seconds: float
    ratio: float | None
    quartiles: tuple[float, float] | None

    def as_json(self) -> dict[str, object]:
        """For a file."""
        return asdict(self)

    def __str__(self) -> str:
        spread = (
            "" if self.quartiles is None else f"{self.ratio:8.2f}  ({self.quartiles[0]:.2f} to {self.quartiles[1]:.2f})"
        )
        return f"{self.name:44s} {self.seconds * 1e3:10.3f} ms{spread}"


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    ours: str,
    repetitions: int = 9,
    clock: str = "wall",
    device: torch.device | str = "cpu",
) -> list[Timing]:
    """Time the candidates, `ours` among them: how many times as long as it each of them takes."""
    watch, wait = CLOCKS[clock], _waiting(torch.device(device))
    for run in candidates.values():  # to warm up
        run()
    times = {name: np.empty(repetitions) for name in candidates}
    for repetition in range(repetitions):
        for name, run in candidates.items():
            wait()
            start = watch()
            run()
            wait()
            times[name][repetition] = watch() - start
    timings = []
    for name, seconds in times.items():
        ratios = seconds / times[ours]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
        known = (None, None) if name == ours else (middle, (low, high))
        timings.append(Timing(name, float(np.median(seconds)), *known))
    return timings


def _waiting(device: torch.device) -> Callable[[], None]:
    """A GPU has done its work when this returns."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)

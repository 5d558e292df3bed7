"""How the parts of a prepared run take time, and what they compile with (tests/benchmarks/gpu)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch


def compiled_for(device: str, function: Any, **options: Any) -> Any:
    """torch.compile; a rehearsal without an accelerator compiles nothing."""
    if torch.device(device).type == "cpu":
        return torch.compile(function, backend="eager")
    return torch.compile(function, **options)


def wait(device: str) -> None:
    """Until the device has done its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object], device: str, least: float = 1.0, most: int = 30) -> dict[str, float]:
    """The median of a few runs after two to warm up, each until the device has done its work; at least 3 of them, for
    about `least` seconds."""
    for _ in range(2):
        run()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < least and len(times) < most):
        times.append(_seconds(run, device))
    return {"median": median(times), "least": min(times), "runs": len(times)}


def interleaved(
    runs: Mapping[str, Callable[[], object]], device: str, repetitions: int = 11
) -> dict[str, dict[str, float]]:
    """Of each run median and range of its seconds, by the device's own clock: every run once in each repetition, so
    that a slow moment is everybody's; two repetitions to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 2):
        for name, run in runs.items():
            took = _seconds(run, device) if torch.device(device).type == "cpu" else _event_seconds(run)
            if repetition >= 2:
                times[name].append(took)
    return {name: {"median": median(t), "low": min(t), "high": max(t)} for name, t in times.items()}


def _seconds(run: Callable[[], object], device: str) -> float:
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def _event_seconds(run: Callable[[], object]) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3

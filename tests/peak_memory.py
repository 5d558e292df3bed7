"""The most memory that the sampling loop has at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def peak_states(run: Callable[[], object], start: Tensor) -> float:
    """The most that `run` has at a time beside the state it begins with, in states like it, by torch's own count."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    recorded: Any = profiler.profiler
    events = sorted((e for e in recorded.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return float(max(np.cumsum([e.nbytes() for e in events])) / (start.numel() * start.element_size()))

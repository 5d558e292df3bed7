"""The machine that a network runs on: its threads, its memory, the precision of its products."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from .network import Config

PRECISIONS = ("float32", "tf32", "bfloat16")

# On a processor a batch beyond this is no faster; on an accelerator it fills it.
_LARGEST_BATCH, _LARGEST_BATCH_ELSEWHERE = 16, 256
_MEMORY_SHARE = 0.4  # of what is free, for noise and activations
# Options of mallopt (malloc.h of the GNU C library).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Keep freed memory for the next layer instead of giving it back to the system after each, where malloc is GNU's:
    pages that are handed out anew must be cleared (a network ran up to 1.3 times as fast on one thread, more on two).
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1)):
                mallopt(option, value)


def available_threads() -> int:
    """Processors that the processes on this machine may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batch_size(config: Config, columns: int, samples: int, device: torch.device) -> int:
    """How many samples at once: a power of two that memory holds for all of the machine's threads, and that leaves each
    of them, or of its accelerators, one. It does not depend on how many processes share the machine.

    A sample takes its reference's noise, `columns` pairs of float32 per pixel, and the network's activations.
    """
    workers = available_threads() if device.type == "cpu" else 1
    pixels = config.in_ch // 2 * config.image_size**2
    blocks = 2 * config.num_res_blocks + 3
    activations = sum(4 * blocks * 3 * width * side**2 for width, side in zip(config.widths, config.sides, strict=True))
    per_sample = 4 * 2 * pixels * max(1, columns) + activations
    most = _MEMORY_SHARE * free_memory(device) / (workers * per_sample)
    shares = max(1, torch.cuda.device_count()) if device.type == "cuda" else workers
    largest = min(_LARGEST_BATCH if device.type == "cpu" else _LARGEST_BATCH_ELSEWHERE, most, max(1, samples // shares))
    return 1 << max(0, int(math.log2(max(1.0, largest))))


def free_memory(device: torch.device) -> float:
    """Bytes that may be used: of the accelerator, or of the machine."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * float(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration, ValueError, IndexError):  # not Linux
        return 4e9


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Whether accelerators may round the factors of float32 products to 10 bits (TF32): only where it is asked for."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Products in bfloat16 where that is the precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()

"""The machine that a network runs on: its threads, its memory, the precision of its products."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .network import Config
from .precisions import BFLOAT16, FLOAT32, TF32

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
def memory_for(batch: int) -> Iterator[None]:
    """Work in batches of that size; where memory is too small for them ValueError says so, in one line."""
    try:
        yield
    except RuntimeError as error:  # torch's own kind is of accelerators alone
        if "memory" not in str(error):
            raise
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"batch = {batch}: memory is too small ({reason}); choose a smaller --batch") from error


# --- The precision of products ----------------------------------------------------------------------------------------


def products(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The products of a network on `device` in one of `precisions.PRECISIONS`, in this thread; the sampler's states and
    coefficients are float64 in all of them:

    float32     as they are
    tf32        factors rounded to 10 bits of the significand, sums in float32
    bfloat16    factors, biases and results rounded to 7 bits, sums and norms in float32; between products, what is
                added or pooled is in bfloat16, too: torch.autocast's way

    An accelerator does so itself. Elsewhere it is imitated (`is_imitated`), which is not faster: rounded in the same
    places, but that an accelerator's float32 attention may not be in TF32 (torch's memory-efficient kernel splits
    factors in three), and that some kernels cut bits off (`round_to_tf32`).
    Source: NVIDIA, A100 Tensor Core GPU Architecture (2020), on TF32; torch's lists of autocast's operators, and its
    cuDNN convolutions, which add biases to rounded results; Dao et al., arXiv 2205.14135, algorithm 1, on attention.
    """
    if is_imitated(precision, device):
        return Imitated(precision)
    if device.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16) if precision == BFLOAT16 else _tensor_cores(precision == TF32)


def is_imitated(precision: str, device: torch.device) -> bool:
    """Whether products of that precision on that device are those of `Imitated`."""
    return precision != FLOAT32 and device.type != "cuda"


@contextmanager
def _tensor_cores(allowed: bool) -> Iterator[None]:
    """Whether accelerators may take float32 factors as TF32. These are settings of the whole process; a processor would
    heed the first one, too, so that threads there must not touch them."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


class Imitated(TorchFunctionMode):
    """Within it, the float32 products that `network` is made of are rounded as an accelerator's are."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.low = precision == BFLOAT16
        self.factor = round_to_bfloat16 if self.low else round_to_tf32

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        match func:
            case functional.conv2d if self.low:
                x, weight, bias, *others = args
                y = self._result(func(self.factor(x), self.factor(weight), None, *others, **kwargs))
                return y if bias is None else y + self._result(bias)[:, None, None]
            case functional.linear | functional.conv2d:
                x, weight, *others = args
                others[:1] = [self.factor(bias) if self.low and bias is not None else bias for bias in others[:1]]
                return self._result(func(self.factor(x), self.factor(weight), *others, **kwargs))
            case functional.scaled_dot_product_attention:
                if kwargs or len(args) != 3:
                    raise NotImplementedError("attention with options is not imitated; imitate them here")
                q, k, v = map(self.factor, args)
                exponents = q @ k.mT / math.sqrt(q.shape[-1])
                weights = (exponents - exponents.amax(-1, keepdim=True)).exp()  # fused kernels divide at the end
                return self._result(self.factor(weights) @ v / weights.sum(-1, keepdim=True))
            case functional.group_norm if args[0].dtype == torch.bfloat16:
                return func(args[0].float(), *args[1:], **kwargs)
        return func(*args, **kwargs)

    def _result(self, x: Tensor) -> Tensor:
        return x.bfloat16() if self.low and x.dtype != torch.float64 else x


def round_to_bfloat16(x: Tensor) -> Tensor:
    """Numbers of bfloat16, as float32; float64 as it is, which autocast leaves alone."""
    return x if x.dtype == torch.float64 else x.bfloat16().float()


def round_to_tf32(x: Tensor) -> Tensor:
    """float32 with 10 of its 23 bits of the significand, the nearest, ties to even; other dtypes as they are.

    (Some kernels of accelerators cut the bits off instead: up to twice the error, and all of it towards 0, which does
    not average out. What that changes of expectations may be many times as large.)
    """
    if x.dtype != torch.float32:
        return x
    bits = x.view(torch.int32)
    nearest = (bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF
    return torch.where(x.isnan(), x, nearest.view(torch.float32))

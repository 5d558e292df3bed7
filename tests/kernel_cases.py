"""Tiers of kernels, and states, samples and counters that they are tested on."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from weakorder.integrators.kernels import cpu, fallback, gpu

TIERS = [cpu, gpu, fallback]
DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
SEED, INTERVAL = 0x923456789ABCDEF0, 2**32 - 2
SAMPLES = [0, 5, 2**31, 2**33 + 7, 123456789012, 2**62]
SIZES = [1, 2, 7, 15, 16, 64, 255, 257]  # about the widths at which kernels do otherwise


def device_of(tier: ModuleType) -> torch.device:
    return torch.device("cuda" if tier is gpu and torch.cuda.is_available() else "cpu")


def some(*shape: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

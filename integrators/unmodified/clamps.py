"""Clamps of whole states, left out of a run and said.

A sampler that clamps what it predicts of the data (Ho et al. 2020, their code's clip_denoised) is no affine map, and
clamps states of Gaussian data, which reach beyond any bound, more often than images. What there is beside the clamp is
a method, and can be verified: so a clamp that changes states is left out, and named with its line. Noise has the shape
of states, and cannot be told from them: a verdict on a sampler that truncates its noise is on one that does not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CLAMPS = frozenset(f"{name}{place}" for name in ("clamp", "clip", "clamp_min", "clamp_max") for place in ("", "_"))
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"


class WithoutClamps(TorchFunctionMode):
    """While active, what clamps a tensor of this shape (batch, *event) gives it back where it would change it, if
    entries of the batch differ: a time or a level for each of them, all alike, is clamped as it is. `lines`: where that
    happened, FILE:LINE."""

    def __init__(self, shape: torch.Size, lines: list[str]) -> None:
        super().__init__()
        self.shape, self.lines = shape, lines

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in _CLAMPS:
            return func(*args, **kwargs)
        given = args[0] if args else kwargs["input"]
        if not isinstance(given, Tensor) or given.shape != self.shape or bool((given == given[:1]).all()):
            return func(*args, **kwargs)
        before = given.clone()
        clamped = func(*args, **kwargs)
        if bool(((clamped == before) | before.isnan()).all()):
            return clamped
        if (line := _line()) not in self.lines:
            self.lines.append(line)
        if clamped is given:  # in place
            return given.copy_(before)
        return before if kwargs.get("out") is None else clamped.copy_(before)


def _line() -> str:
    """The line that called, outside of torch."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"

"""Constants and tables in float64, in the place of the float32 that a library writes into them.

A library's schedule is often computed in float32 on purpose, and its states are cast to it. That is rounding, and says
nothing of the method: so the method is judged with float32 read as float64, and what the shipped code does beside that
is the rounding, measured.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode


class _Numpy:
    """numpy with float64 for float32."""

    def __getattr__(self, name: str) -> Any:
        return np.float64 if name == "float32" else getattr(np, name)


class _Lift(TorchFunctionMode):
    """torch with float64 for float32 wherever a dtype is given."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def lift(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        kwargs = {name: lift(value) for name, value in (kwargs or {}).items()}
        if getattr(func, "__name__", "") == "float":
            return args[0].double()
        return func(*map(lift, args), **kwargs)


@contextlib.contextmanager
def float64_throughout(package: str) -> Iterator[None]:
    """While active, float32 means float64 in torch, and in numpy as the modules of `package` see it."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if (name == package or name.startswith(f"{package}.")) and getattr(module, "np", None) is np
    ]
    default, lifted = torch.get_default_dtype(), _Numpy()
    for module in modules:
        module.np = lifted  # type: ignore[attr-defined]
    torch.set_default_dtype(torch.float64)
    try:
        with _Lift():
            yield
    finally:
        torch.set_default_dtype(default)
        for module in modules:
            module.np = np  # type: ignore[attr-defined]

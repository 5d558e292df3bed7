"""Draws as inputs at a tenth of the cost, for samplers that have been watched before.

A torch function mode sees every call that a sampler makes, a hundred a step, which takes as long as half of them do. A
sampler that draws a second time what it drew under `NoiseAsInput` needs less: while `stand_ins` last, torch's random
functions and methods are ours, and hand over to whichever `LightNoise` is active in their thread. What a sampler draws
past them, by a name that it took before, moves torch's own generator or leaves a draw missing, and is noticed: call it
once more under `NoiseAsInput` then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from .draws import WATCHED, NoiseAsInput

_here = threading.local()
_lasting = 0


class LightNoise(NoiseAsInput):
    """`NoiseAsInput` for what is drawn by the names of torch; only while `stand_ins` last."""

    def __enter__(self) -> LightNoise:
        self.begin()
        _here.noise = self
        return self

    def __exit__(self, *error: object) -> None:
        _here.noise = None
        self.end()


@contextmanager
def stand_ins() -> Iterator[None]:
    """Torch's random functions are ours while this lasts; without an active `LightNoise` they do what they ever did."""
    global _lasting
    _lasting += 1
    try:
        if _lasting == 1:
            for (owner, name), ours in _STAND_INS.items():
                setattr(owner, name, ours)
        yield
    finally:
        _lasting -= 1
        if _lasting == 0:
            for (owner, name), original in _ORIGINALS.items():
                if name in _OWN[owner]:
                    setattr(owner, name, original)
                else:
                    delattr(owner, name)  # inherited


def are_in_place() -> bool:
    """Whether `stand_ins` last."""
    return _lasting > 0


def _stand_in(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)  # a mode looks functions up among torch's own, and goes by their names
    def drawn(*args: Any, **kwargs: Any) -> Any:
        noise = getattr(_here, "noise", None)
        if noise is None:
            return original(*args, **kwargs)
        _here.noise = None  # what the answer takes of torch is torch's
        try:
            return noise.answer(name, args, kwargs)
        finally:
            _here.noise = noise

    return drawn


_ORIGINALS = {
    (owner, name): getattr(owner, name) for owner in (torch, torch.Tensor) for name in WATCHED if hasattr(owner, name)
}
_STAND_INS = {place: _stand_in(place[1], original) for place, original in _ORIGINALS.items()}
_OWN = {owner: frozenset(vars(owner)) & WATCHED for owner in (torch, torch.Tensor)}

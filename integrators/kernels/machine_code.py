"""What is compiled by numba, and how it is kept."""

from __future__ import annotations

from typing import Any

from numba import njit


def compiled(function: Any) -> Any:
    """The function in machine code, without the interpreter's lock; kept on disk, so that it is compiled once."""
    return _kept(function)


def compiled_sum(function: Any) -> Any:
    """As `compiled`, with terms added in any order, as many at once as the processor takes, and fused to products."""
    return _kept(function, fastmath={"reassoc", "contract"})


def _kept(function: Any, **options: Any) -> Any:
    try:
        return njit(function, nogil=True, error_model="numpy", cache=True, **options)
    except RuntimeError:  # no folder that compiled code could be kept in
        return njit(function, nogil=True, error_model="numpy", **options)

"""What is compiled by numba: how it is kept, and rows shared out over threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


# Rows are shared out over as many threads as torch works with. They are Python's, which a fork or a call from several
# threads at once does not disturb.

_pool: ThreadPoolExecutor | None = None
_size = 0


def split_rows(work: Callable[[int, int], int | None], batch: int, worth: float) -> int:
    """Call work(begin, end) on parts of the rows 0, ..., batch - 1; the sum of what it returns.

    worth: the part of a row in the least work that a thread is worth.
    """
    import torch  # which not all that is compiled works with

    parts = max(1, min(torch.get_num_threads(), batch, int(batch * worth)))
    if parts == 1:
        return work(0, batch) or 0
    ends = [batch * part // parts for part in range(parts + 1)]
    others = [_threads(parts - 1).submit(work, ends[part], ends[part + 1]) for part in range(1, parts)]
    return (work(0, ends[1]) or 0) + sum(other.result() or 0 for other in others)


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool, _size
    if _pool is None or _size < count:
        _pool, _size = ThreadPoolExecutor(count, thread_name_prefix="weakorder"), count
    return _pool


def _forget_threads() -> None:
    """A child process has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)

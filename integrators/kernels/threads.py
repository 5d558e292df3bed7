"""Rows shared out over torch's own threads.

torch's threads (OpenMP's) stay awake for some milliseconds to wait for its next operation: a second pool beside them
finds every core taken, and work that follows a score gains nothing from it. So the pool is the one that torch is linked
to, entered by the call that compilers write for it. Where there is none (another backend, a child of a fork, to which a
parent's OpenMP threads are lost), threads of Python do the work.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import Any

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_child = False  # of a fork
_pool: ThreadPoolExecutor | None = None
_size = 0


def split_rows(work: Callable[[int, int], int | None], batch: int, worth: float) -> int:
    """Call work(begin, end) on parts of the rows 0, ..., batch - 1, in as many threads as torch works with; the sum of
    what it returns. What work raises is raised here, when all have ended.

    worth: the part of a row in the least work that a thread is worth.
    """
    import torch  # which not all that is compiled works with

    parts = max(1, min(torch.get_num_threads(), batch, int(batch * worth)))
    if parts == 1:
        return work(0, batch) or 0
    ends = [batch * part // parts for part in range(parts + 1)]
    team = None if _child else _torch_team()
    if team is None:
        others = [_threads(parts - 1).submit(work, ends[part], ends[part + 1]) for part in range(1, parts)]
        return (work(0, ends[1]) or 0) + sum(other.result() or 0 for other in others)
    done: list[int] = []
    raised: list[BaseException] = []
    following = count().__next__

    def body(_: object) -> None:
        # A team may be smaller than asked for (one, within another's work), so parts are taken, not given.
        try:
            while (part := following()) < parts:
                done.append(work(ends[part], ends[part + 1]) or 0)
        except BaseException as error:  # which C would lose
            raised.append(error)

    team(_BODY(body), None, parts, 0)
    if raised:
        raise raised[0]
    return sum(done)


@cache
def _torch_team() -> Callable[..., None] | None:
    """GOMP_parallel(body, data, threads, flags) of the OpenMP that torch is linked to, if it has it."""
    import torch

    try:
        team: Any = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return None
    team.argtypes, team.restype = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return team


def _threads(number: int) -> ThreadPoolExecutor:
    global _pool, _size
    if _pool is None or _size < number:
        _pool, _size = ThreadPoolExecutor(number, thread_name_prefix="weakorder"), number
    return _pool


def _forget_threads() -> None:
    """A child process has none of its parent's threads."""
    global _child, _pool
    _child, _pool = True, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)

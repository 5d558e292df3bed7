"""Interrupts that let a step end first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Within it a first SIGINT or SIGTERM is only noted; the second acts as ever. Yields its number, or 0."""
    came = 0
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        nonlocal came
        came = number
        for number, handler in earlier.items():
            signal.signal(number, handler)

    for number in earlier:
        signal.signal(number, note)
    try:
        yield lambda: came
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

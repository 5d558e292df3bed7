"""A limit on the time of a study: what is done by then is judged, and the answer says that it was cut short.

A level of a black box may take hours, in code that is not ours (an adaptive solver with a fine tolerance). So the limit
is an alarm of the system, which stops whatever runs; where there are none (in threads, on Windows) it is looked at
between levels. A study runs its levels through `completed`, which gives those that were done. On these

    FAIL          only by what needs no further level: an inconsistency, or an order or limit of four levels
    PASS          only from four levels on, by the rules of the study
    INCONCLUSIVE  otherwise, with how long the rest takes
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, Protocol, TypeVar

from .verdicts import Verdict

T = TypeVar("T")
LONGEST = 1e8  # seconds: three years
ENOUGH = 4  # levels that an order takes
_AGAIN = 1.0  # seconds after which the alarm comes again, if somebody's code caught it


class Study(Protocol):
    """What is judged here: an order study of exact errors."""

    @property
    def steps(self) -> Any:
        """The levels that were done, (levels,)."""
        ...

    @property
    def problems(self) -> tuple[Any, ...]:
        """What makes it fail, whatever its errors are."""
        ...

    @property
    def verdict(self) -> Verdict:
        """The verdict on these levels."""
        ...

    @property
    def reason(self) -> str:
        """And its sentence."""
        ...


class TimeUp(BaseException):
    """The limit was reached. No Exception: what catches all of those, in anybody's code, must not go on."""


class TimeLimit:
    """A limit that runs, and what was done under it. seconds: None without a limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.begun = seconds, time.monotonic()
        self.levels: Sequence[int] = ()
        self.durations: list[float] = []  # of the levels that were done
        self.was_reached = self.is_armed = False

    @property
    def is_up(self) -> bool:
        """Whether the time is over."""
        return self.seconds is not None and time.monotonic() - self.begun >= self.seconds

    @property
    def sentence(self) -> str:
        """What is said of a study that was cut short."""
        done, all_levels = len(self.durations), len(self.levels)
        text = f"the time limit of {self.seconds:g} s was reached"
        if not done:
            return f"{text} before the first number of steps was done; allow more"
        text += f" after {done} of {all_levels} numbers of steps, at {self.levels[done - 1]}"
        return f"{text}; the others would take about {duration(sum(forecast(self.levels, self.durations)))} more"

    def judge(self, study: Study) -> tuple[Verdict, str]:
        """The verdict and the reason of a study, or of as much of it as was done."""
        if not self.was_reached or study.problems:
            return study.verdict, study.reason
        few = len(study.steps) < ENOUGH
        if few or getattr(study, "diverged", False):
            what = f"{ENOUGH} are needed for an order" if few else f"{study.reason}, and with more steps it may not"
            return Verdict.INCONCLUSIVE, f"{self.sentence}; {what}"
        return study.verdict, f"{study.reason}; {self.sentence}"


_LIMIT: ContextVar[TimeLimit | None] = ContextVar("limit", default=None)


def check_time_limit(seconds: float | None) -> None:
    """Raises ValueError on a limit that is none."""
    if seconds is not None and not 0 < seconds <= LONGEST:
        raise ValueError(f"time limit = {seconds:g}: give seconds above 0, up to {LONGEST:g}, or none")


@contextmanager
def time_limit(seconds: float | None) -> Iterator[TimeLimit]:
    """Within it, `TimeUp` is raised after so many seconds; None: never. Studies take it through `completed`, and it is
    the caller's where not even one level was done. Raises ValueError on a limit that is none."""
    check_time_limit(seconds)
    limit = TimeLimit(seconds)
    token = _LIMIT.set(limit)
    try:
        with _alarm(limit):
            yield limit
    finally:
        _LIMIT.reset(token)


@contextmanager
def _alarm(limit: TimeLimit) -> Iterator[None]:
    """The system's alarm at the limit; an alarm that somebody else had set goes on afterwards."""
    if limit.seconds is None or not hasattr(signal, "setitimer"):
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_: int, __: FrameType | None) -> None:
        if limit.is_armed:
            limit.was_reached = True
            raise TimeUp

    handler = signal.signal(signal.SIGALRM, ring)
    limit.is_armed = True
    before, interval = signal.setitimer(signal.ITIMER_REAL, limit.seconds, _AGAIN)
    try:
        yield
    finally:
        limit.is_armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before:
            left = before - (time.monotonic() - limit.begun)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3), interval)


def completed(
    run: Callable[[int], T], levels: Sequence[int], progress: Callable[[Sequence[int]], Iterable[int]] = iter
) -> dict[int, T]:
    """run(N) for every N of the levels, or for those that were done when time was up. Raises TimeUp without one."""
    limit = _LIMIT.get() or TimeLimit(None)
    limit.levels, limit.durations = levels, []
    done: dict[int, T] = {}
    started = time.monotonic()
    try:
        for level in progress(levels):
            if limit.is_up:
                limit.was_reached = True
                raise TimeUp
            started = time.monotonic()
            done[level] = run(level)
            limit.durations.append(time.monotonic() - started)
    except TimeUp:
        if not done:
            raise
        if len(limit.durations) < len(done):  # it came between a level and the note of it
            limit.durations.append(time.monotonic() - started)
    finally:
        limit.is_armed = False
    return done


# --- How long it takes --------------------------------------------------------------------------------------------


def forecast(levels: Sequence[int], durations: Sequence[float]) -> list[float]:
    """The seconds of the levels that are left, from those of the levels that were done.

    Durations grow as a power of the number of steps: 1 for steps, which are probed one by one, and up to 2 for
    trajectories, which are probed whole; the last two levels tell which. nan where none was done.
    """
    left = levels[len(durations) :]
    if not durations:
        return [math.nan] * len(left)
    last, power = levels[len(durations) - 1], 1.0
    if len(durations) > 1 and min(durations[-2:]) > 0:
        growth = math.log(durations[-1] / durations[-2]) / math.log(last / levels[len(durations) - 2])
        power = min(max(growth, 1.0), 2.0)
    return [durations[-1] * (level / last) ** power for level in left]


def duration(seconds: float) -> str:
    """Seconds in words of two digits or three."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""Independent studies of a page, side by side: one process per worker, or one after the other in this one.

Processes, not threads: most studies are many numpy calls on small arrays, which hold Python's lock.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.pool import Pool
from typing import Any

Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(eq=False)
class Job:
    """A call to be made, and its result once `Jobs.run` has returned; here: only in this process."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    here: bool = False
    result: Any = None

    def call(self) -> Any:
        """The result, computed now."""
        return self.function(*self.arguments)


class Jobs:
    """Calls that do not depend on one another, started in the order in which they are added."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def add(self, function: Callable[..., Any], *arguments: Any, here: bool = False) -> Job:
        """Ask for `function(*arguments)`. here: it, or an argument, cannot travel to another process."""
        self._jobs.append(Job(function, arguments, here))
        return self._jobs[-1]

    def run(self, progress: Progress = iter, workers: int | Workers = 1) -> None:
        """Make all calls; progress wraps them as they finish. What a call raises ends the others and is raised."""
        if isinstance(workers, int):
            with Workers(workers) as own:
                self.run(progress, own)
            return
        finished = self._alone() if workers.count <= 1 or len(self._jobs) <= 1 else self._side_by_side(workers)
        for _ in progress(_Counted(finished, len(self._jobs))):
            pass

    def _alone(self) -> Iterator[Job]:
        for job in self._jobs:
            job.result = job.call()
            yield job

    def _side_by_side(self, workers: Workers) -> Iterator[Job]:
        away = [(place, job) for place, job in enumerate(self._jobs) if not job.here]
        answers = workers.answers([(place, job.function, job.arguments) for place, job in away])
        for job in self._jobs:
            if job.here:
                job.result = job.call()
                yield job
        for place, result in answers:
            self._jobs[place].result = result
            yield self._jobs[place]


class Workers:
    """So many processes, which end with the context: later jobs find them warm.

    They are started for the first jobs; where `modules` are named, at once, and import these while this process does
    something else.
    """

    def __init__(self, count: int, modules: Sequence[str] = ()) -> None:
        self.count, self.modules = count, tuple(modules)
        self._pool: Pool | None = None

    def __enter__(self) -> Workers:
        if self.modules and self.count > 1:
            self._start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._pool is None:
            return
        if error is None:
            self._pool.close()  # so that they give back what they hold: bars of libraries have locks
        else:
            self._pool.terminate()
        self._pool.join()

    def answers(self, asked: list[tuple[int, Callable[..., Any], tuple[Any, ...]]]) -> Iterator[tuple[int, Any]]:
        """The places and results of calls, as they come."""
        return (self._pool or self._start()).imap_unordered(_answer, asked)

    def _start(self) -> Pool:
        # a fresh interpreter each: a copy of this one would have its locks, but not the threads that hold them
        self._pool = get_context("spawn").Pool(self.count, _prepare, (self.modules,))
        return self._pool


class _Counted(Sequence[Any]):
    """An iterator of a known length, which bars show."""

    def __init__(self, items: Iterator[Any], length: int) -> None:
        self._items, self._length = items, length

    def __iter__(self) -> Iterator[Any]:
        return self._items

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, _: Any) -> Any:
        raise TypeError("jobs come as they finish")


def _prepare(modules: Sequence[str]) -> None:
    def follow() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)  # nobody waits for the answer

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers it, and ends the others
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy and torch are imported
    for module in modules:
        import_module(module)


def _answer(asked: tuple[int, Callable[..., Any], tuple[Any, ...]]) -> tuple[int, Any]:
    place, function, arguments = asked
    return place, function(*arguments)

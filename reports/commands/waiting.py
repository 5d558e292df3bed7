"""How long a study will take: on a terminal a line that is kept up to date, in a log a line now and then.

A black box's level may take hours inside code that is not ours, so a thread of its own speaks, from what the levels
that were done say of those that are left (`time_limit.forecast`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import click

FIRST = 30.0  # seconds before the first line in a log; each later one waits twice as long as was waited before
ON_TERMINAL = 2.0  # before the line on a terminal, which changes every second
_ALREADY = "..."


class Waiting:
    """A study's progress: `with Waiting("verify") as progress: study(..., progress=progress)`."""

    def __init__(self, what: str, limit: float | None = None) -> None:
        self.what, self.limit = what, limit
        self.levels: Sequence[int] = ()
        self.durations: list[float] = []
        self.begun = self.started = time.monotonic()
        self._ended = threading.Event()
        self._shown = False
        self._thread = threading.Thread(target=self._speak, daemon=True)

    def __enter__(self) -> Waiting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def __call__(self, levels: Sequence[int]) -> Iterator[int]:
        """The levels, whose durations are noted."""
        self.levels, self.durations = levels, []
        for level in levels:
            self.started = time.monotonic()
            yield level
            self.durations.append(time.monotonic() - self.started)

    @property
    def sentence(self) -> str:
        """What is being done, and how long it will take."""
        from ...verification.time_limit import duration, forecast

        passed = time.monotonic() - self.begun
        text = f"{self.what}: {duration(passed)}"
        done = len(self.durations)
        if not self.levels:
            text += ", single steps are taken apart; the time of the runs is not known yet"
        elif done < len(self.levels):
            text += f", {self.levels[done]} steps ({done + 1} of {len(self.levels)} runs)"
            if done:
                now, *later = forecast(self.levels, self.durations)
                left = max(now - (time.monotonic() - self.started), 0) + sum(later)
                text += f", about {duration(left)} left"
            else:
                text += "; the time left is known after it"
        if self.limit is not None:
            return f"{text}; it stops after {duration(self.limit)}"
        return text if done >= len(self.levels) > 0 else f"{text}; --time-limit SECONDS stops earlier with an answer"

    def _speak(self) -> None:
        wait, terminal = (ON_TERMINAL if sys.stderr.isatty() else FIRST), sys.stderr.isatty()
        while not self._ended.wait(wait):
            with suppress(OSError, ValueError):  # stderr was closed: nobody listens
                if terminal:
                    self._shown, wait = True, 1.0
                    click.echo(f"\r\x1b[K{self.sentence}", nl=False, err=True)
                else:
                    click.echo(self.sentence, err=True)
                    wait = time.monotonic() - self.begun

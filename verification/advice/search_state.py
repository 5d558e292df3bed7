"""What a long computation has done so far, in one file that is written whole or not at all: it goes on where it was
stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ..files import write_atomically

_EVERY = 5.0  # seconds between two writings


class SearchState:
    """Answers by name, JSON values, of a search with these `settings`: `with SearchState(path, settings) as state`.

    Without a path nothing is kept. What is new is written every few seconds, and at the end, an interrupted one too.
    Raises ValueError, in one line, on a file of other settings or one that cannot be read, OSError where it cannot be
    written.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.done: dict[str, Any] = {} if path is None or not path.exists() else self._read(path)
        self._written, self._changed = time.monotonic(), False

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text("utf-8"))
            settings, done = found["settings"], dict(found["done"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(path)!r} cannot be read; remove it, and the search begins anew") from error
        if settings != self.settings:
            other = sorted(
                name for name in {*settings, *self.settings} if settings.get(name) != self.settings.get(name)
            )
            raise ValueError(
                f"{str(path)!r} is of a search with another {' and '.join(other)}; choose another folder with -o, or "
                "remove it"
            )
        return done

    def __enter__(self) -> SearchState:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write()

    def __contains__(self, name: str) -> bool:
        return name in self.done

    def __getitem__(self, name: str) -> Any:
        return self.done[name]

    def keep(self, name: str, value: Any) -> None:
        """Note an answer."""
        self.done[name] = value
        self._changed = True
        if time.monotonic() - self._written > _EVERY:
            self.write()

    def write(self) -> None:
        """Write what is new."""
        if self.path is not None and self._changed:
            content = json.dumps({"settings": self.settings, "done": self.done})
            write_atomically(self.path, content.encode())
            self._written, self._changed = time.monotonic(), False

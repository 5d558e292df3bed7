"""Files that are never seen half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises OSError, in one line, if a file cannot be written there: better before a long run than after it."""
    path = Path(path).resolve()
    if path.exists() and not path.is_file():
        raise OSError(f"{str(path)!r} is not a plain file; choose another place")
    if not path.parent.is_dir():
        raise OSError(f"there is no folder {str(path.parent)!r}; make it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {str(path.parent)!r}: {error.strerror}; choose another place") from error


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all: beside it first, then in its place; a link is followed. Raises OSError."""
    path = Path(path).resolve()
    check_writable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

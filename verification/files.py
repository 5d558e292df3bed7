"""Files that are never seen half written, and what to say where the system does not let them be written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

# What helps, by what the system says.
_NO_ROOM = "make room there, then repeat the command"
_NOT_ALLOWED = "choose a place that you may write to, or change its permissions"
_CURES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), then repeat the command",
    errno.EROFS: "choose a place that is not read-only",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EMFILE: "raise the limit on open files (ulimit -n), then repeat the command",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "choose another folder",
}


def explained(error: OSError, path: str | os.PathLike[str] | None = None) -> str:
    """What the system said, for one line: the file (`path`, or the one that the error names), the reason, the cure.
    An error that this package has worded already stays as it is."""
    if error.errno is None:
        return str(error)
    name = error.filename if path is None else os.fspath(path)
    where = "" if name is None else f"{str(name)!r}: "
    return f"{where}{error.strerror or type(error).__name__}; {_CURES.get(error.errno, 'choose another place')}"


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
        raise OSError(f"cannot write to {explained(error, path.parent)}") from error


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it, unless it is there. Raises OSError, in one line."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {explained(error, path)}") from error


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all: beside it first, then in its place; a link is followed.

    Raises OSError, in one line, if that is not possible (a full disk, a quota, a place that is read-only): what stood
    there before is then as it was, and nothing is left beside it.
    """
    path = Path(path).resolve()
    check_writable(path)
    try:
        _replace(path, content)
    except OSError as error:
        kept = "; the file that was there is kept" if path.exists() else ""
        raise OSError(f"cannot write {explained(error, path)}{kept}") from error


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

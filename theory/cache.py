"""Answers to questions that sympy derives, so that nobody waits for it twice.

What is built in is answered from the file that ships (theory.derivations). The user's own words are kept on disk: an
entry is valid for one question, one version of this package's code and one version of sympy. The folder is the user's
cache folder, or WEAKORDER_CACHE_DIR; if it cannot be written, everything still works, only slower.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from . import derivations

_afresh: list[dict[str, Any]] = []


@cache
def _code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@cache
def _sympy() -> str:
    from importlib import metadata

    return metadata.version("sympy")


def cached(question: tuple[Any, ...], derive: Callable[[], Any], keep: bool = True) -> Any:
    """`derive()`, or what it returned before: a JSON value, which ships or was kept under `question`.

    keep: whether a new answer is worth a file; what takes milliseconds is not.
    """
    if _afresh:
        return _afresh[-1].setdefault(derivations.digest(question), json.loads(json.dumps(derive())))
    if (answer := derivations.known(question)) is not None:
        return answer
    return _kept(question, derive) if keep else derive()


@contextmanager
def afresh() -> Iterator[dict[str, Any]]:
    """While open, every question is derived, nothing is read and nothing is kept; gives the answers by digest."""
    answers: dict[str, Any] = {}
    _afresh.append(answers)
    try:
        yield answers
    finally:
        _afresh.pop()


def _kept(question: tuple[Any, ...], derive: Callable[[], Any]) -> Any:
    path = _folder() / f"{derivations.digest([_code(), _sympy(), *question])}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # absent or damaged: derive again
        entry = json.loads(path.read_text())
        if entry["checksum"] == _checksum(entry["answer"]):
            return entry["answer"]
    answer = json.loads(json.dumps(derive()))  # as it will be read back
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            name = Path(file.name)
        try:
            name.write_text(json.dumps({"question": question, "checksum": _checksum(answer), "answer": answer}))
            name.replace(path)
        except OSError:
            name.unlink()
    return answer


def _folder() -> Path:
    if chosen := os.environ.get("WEAKORDER_CACHE_DIR"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("weakorder"))


def _checksum(answer: Any) -> str:
    return hashlib.sha256(json.dumps(answer).encode()).hexdigest()

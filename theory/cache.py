"""Derivations kept on disk, so that no command waits for sympy twice.

An entry is valid for one question, one version of this package's code and one version of sympy. The folder is
the user's cache folder, or WEAKORDER_CACHE_DIR; if it cannot be written, everything still works, only slower.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import sympy


@cache
def _code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def cached(key: tuple[str, ...], derive: Callable[[], Any]) -> Any:
    """`derive()`, or what it returned before: a JSON value, kept under `key` and the version of the code."""
    question = json.dumps([_code(), sympy.__version__, *key])
    folder = Path(os.environ.get("WEAKORDER_CACHE_DIR") or platformdirs.user_cache_dir("weakorder"))
    path = folder / f"{hashlib.sha256(question.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # absent or damaged: derive again
        entry = json.loads(path.read_text())
        if entry["checksum"] == _checksum(entry["answer"]):
            return entry["answer"]
    answer = json.loads(json.dumps(derive()))  # as it will be read back
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            name = Path(file.name)
        try:
            name.write_text(json.dumps({"key": key, "checksum": _checksum(answer), "answer": answer}))
            name.replace(path)
        except OSError:
            name.unlink()
    return answer


def _checksum(answer: Any) -> str:
    return hashlib.sha256(json.dumps(answer).encode()).hexdigest()

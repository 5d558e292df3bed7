"""The parts of a prepared run, each in a process of its own, and what such a process records (tests/benchmarks/gpu)."""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

EVENT = (3, 32, 32)


@dataclass(frozen=True)
class Part:
    """`module`.`function` in a process of its own, at most `limit` seconds; None: what is left. early: it starts with
    the first part, and waits for its turn when it has compiled."""

    letter: str
    title: str
    module: str
    function: str
    limit: float | None
    early: bool = False


PARTS = (
    Part("a", "correctness", "correctness", "correctness", 75),
    Part("b", "the sampling loop", "loop", "sampling_loop", 60),
    Part("f", "the kernels", "kernels", "kernels", 60),
    Part("c", "the published network", "network", "published_network", 100, early=True),
    Part("d", "precision", "precision", "precision", 100, early=True),
    Part("e", "training", "training", "training", None, early=True),
)


class Context:
    """What a part knows, and where it records what it finds."""

    def __init__(self, options: argparse.Namespace, part: Part) -> None:
        self.options, self.part = options, part
        self.out, self.work = Path(options.out), Path(options.work)
        self.tiny, self.device = options.tiny, options.device
        self.found: dict[str, Any] = {}
        self.end = time.time() + 1e6

    def record(self, name: str, value: Any) -> None:
        """Keep an entry of the part's results; the file is whole at any time."""
        self.found[name] = value
        write(self.work / f"{self.part.letter}.json", json.dumps(self.found, default=str).encode())
        print(f"[{self.part.letter}] {name}: {json.dumps(value, default=str)[:600]}", flush=True)

    def attempt(self, name: str, measure: Callable[[], Any]) -> Any:
        """Record what `measure()` returns, or its error; the part goes on."""
        began = time.time()
        try:
            value = measure()
        except Exception as error:
            traceback.print_exc()
            value = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
        self.record(name, value)
        self.found.setdefault("took", {})[name] = round(time.time() - began, 2)
        return value

    def prepared(self) -> None:
        """Compiled: wait for this part's turn."""
        (self.work / f"{self.part.letter}.prepared").touch()
        go = self.work / f"{self.part.letter}.go"
        while not go.exists():
            time.sleep(0.02)
        while not (text := go.read_text()):
            time.sleep(0.01)
        self.end = float(text)

    def left(self) -> float:
        """Seconds to the end of this part's turn."""
        return self.end - time.time()


def write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


def run_part(options: argparse.Namespace) -> None:
    """Be the process of a part."""
    part = next(part for part in PARTS if part.letter == options.be)
    context = Context(options, part)
    module = import_module(f".{part.module}", __package__)
    if not part.early:
        context.prepared()
    getattr(module, part.function)(context)
    context.record("finished", True)

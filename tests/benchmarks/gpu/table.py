"""A short table of what a prepared run found (tests/benchmarks/gpu)."""

from __future__ import annotations

from typing import Any


def lines(results: dict[str, Any]) -> list[str]:
    """The results, a line each."""
    found = [f"date {results['date']}, commit {results['commit']}, {results.get('seconds', 0):.0f} s"]
    for letter, part in results["parts"].items():
        found.append(f"{letter}. {part['title']}: {part['outcome']}, {part.get('seconds', 0):.1f} s")
        for name, value in part.items():
            if name in ("title", "outcome", "seconds", "took", "finished"):
                continue
            found.append(f"   {name:58} {short(value)}")
    return found


KEYS = (
    "error", "pairs_per_second", "bytes_per_second", "evaluations_per_second", "words_equal", "worst", "change",
    "memory", "normals_largest_difference", "float64", "float32", "exit", "seconds", "images_per_second", "images",
    "value", "loss", "share", "new", "old", "new - old", "compared", "equal", "largest", "pair_steps_per_second",
    "update", "RVV", "ROBA", "rms_channel_mean", "name", "graph",
)  # fmt: skip


def short(value: Any) -> str:
    """What matters of an entry."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {short(value[key])}" for key in KEYS if value.get(key) is not None)[:160]
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:100]

"""The self-test: what the checks say of samplers broken on purpose, and of correct ones.

run_self_test     runs the library of mutants and the correct variations; all that the page shows, as JSON's own types
render            the page, from the results alone
write_self_test   both, into a folder: self-test.json and self-test.html (self-contained)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ...verification.blackbox import MUTANTS, Mutant, Outcome, mutation, run_mutant, variations
from ...verification.files import make_folder, write_atomically
from .strict_json import dumps
from .templates import template

Results = dict[str, Any]
Progress = Callable[[Sequence[Any]], Iterable[Any]]

# Correct variations that a self-test runs: enough to see a false alarm that comes once in a hundred.
VARIATIONS = 300
# The order of the kill table, and what its sections are called.
SECTIONS = {
    "verify": "Failed by verify",
    "refused": "Refused as samplers that cannot be verified",
    "baseline": "Consistent, and different from the baseline",
    "warned": "Passed with a warning",
}


def run_self_test(progress: Progress = iter, mutants: Sequence[Mutant] = MUTANTS, correct: int = VARIATIONS) -> Results:
    """Run every mutant and `correct` variations. progress wraps each sequence of runs."""
    outcomes = [run_mutant(mutant) for mutant in progress(mutants)]
    alarms = []
    for variation in progress(list(variations(correct))):
        if said := variation.alarms():
            alarms.append({"sampler": variation.name, "said": list(said)})
    faults = [outcome for outcome in outcomes if not outcome.mutant.equivalent]
    killed = [outcome for outcome in faults if outcome.check]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("weakorder", "numpy", "torch")},
        "steps": list(mutation.STEPS),
        "t_end": mutation.T_END,
        "effect_steps": mutation.EFFECT_STEPS,
        "smallest_effect": mutation.SMALLEST_EFFECT,
        "models": {
            name: {"beta_min": model.params.beta_min, "beta_max": model.params.beta_max, "grid": model.grid}
            for name, model in mutation.MODELS.items()
        },
        "faults": len(faults),
        "killed": [_row(outcome) for outcome in sorted(killed, key=_rank)],
        "survivors": [_row(outcome) for outcome in faults if outcome.survived],
        "pointed": sum(outcome.points for outcome in killed),
        "equivalents": [_row(outcome) for outcome in outcomes if outcome.mutant.equivalent],
        "wrong": [outcome.mutant.name for outcome in outcomes if not outcome.right],
        "correct": correct,
        "false_alarms": alarms,
    }


def render(results: Results) -> str:
    """The page: counts, the kill table by check and size, the survivors, the equivalents and the false alarms."""
    return template("self_test.html.j2", {"size": _size}).render(sections=SECTIONS, **results)


def write_self_test(
    directory: str | os.PathLike[str],
    progress: Progress = iter,
    mutants: Sequence[Mutant] = MUTANTS,
    correct: int = VARIATIONS,
) -> Path:
    """Run the self-test and write it into `directory`, made if need be; the path of its page. Raises OSError."""
    directory = Path(directory)
    make_folder(directory)
    results = run_self_test(progress, mutants, correct)
    page = directory / "self-test.html"
    write_atomically(directory / "self-test.json", dumps(results).encode())
    write_atomically(page, render(results).encode())
    return page


def _rank(outcome: Outcome) -> tuple[int, float]:
    """By check, then the largest effects first; what has no effect that could be measured last."""
    size = -outcome.effect if math.isfinite(outcome.effect) else (math.inf if math.isnan(outcome.effect) else -math.inf)
    return list(SECTIONS).index(outcome.check), size


def _row(outcome: Outcome) -> Results:
    mutant = outcome.mutant
    lines = [*outcome.message.split("\n"), *outcome.explanation]
    return {
        "name": mutant.name,
        "base": mutant.base,
        "fault": mutant.fault,
        "check": outcome.check,
        "model": outcome.model,
        "effect": outcome.effect if math.isfinite(outcome.effect) else None,
        "overflows": math.isinf(outcome.effect),
        "points": outcome.points,
        "said": lines,
        "reason": outcome.reason,
        "right": outcome.right,
    }


def _size(effect: float | None) -> str:
    return "–" if effect is None else "0" if effect == 0 else f"{effect:.1e}"

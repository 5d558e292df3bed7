"""What a study of a network answers at each budget, before any order is settled: which schemes are nearer to the
reference's law than the one that all are compared with, which are further, and which these samples do not tell apart.

The quantity is the power spectrum, whose weak error is relative. Of a scheme the ratio R of its error to that of the
compared one has a standard error s that what the samples have in common does not blur (cifar10.study.ratios):

    nearer      R + SURE s < 1
    further     R - SURE s > 1

where the compared scheme's own error stands above its noise; elsewhere nothing is ranked. Four budgets, as an order
takes, are not needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...verification.verdicts import SURE

QUANTITY = "spectrum"


@dataclass(frozen=True)
class Answer:
    """At `nfe` evaluations: the compared scheme's weak error, relative, with its standard error (None: not above its
    noise, or it diverged). nearer, further: (scheme, ratio, standard error), nearest first; then the schemes that are
    not told apart from it, and those that diverged."""

    nfe: int
    against: str
    error: tuple[float, float] | None
    nearer: tuple[tuple[str, float, float], ...] = ()
    further: tuple[tuple[str, float, float], ...] = ()
    open: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line."""
        start = f"{self.nfe} evaluations: {self.against}'s"
        if self.error is None:
            return f"{start} weak error is not above its noise: no ranking; give more samples (-n)"
        said = [f"{start} power spectrum is off by {_uncertain(*self.error)}"]
        for name, found in (("nearer", self.nearer), ("further", self.further)):
            entries = [f"{scheme} ({_uncertain(*ratio)} of that)" for scheme, *ratio in found]
            said += [f"{name}: {', '.join(entries)}"] if entries else []
        said += [f"not told apart: {', '.join(self.open)}"] if self.open else []
        said += [f"diverged: {', '.join(self.diverged)}"] if self.diverged else []
        return "; ".join(said)


def answers(results: Mapping[str, Any]) -> list[Answer]:
    """Of each budget, from the results of a study (cifar10.study.reading); none where no cell has a weak error."""
    name, schemes = results["settings"].get("against"), results["schemes"]
    against = next((scheme["label"] for scheme in schemes if scheme["name"] == name), None)
    found = [cell for scheme in schemes for cell in scheme["cells"] if cell]
    if against is None or not any(map(_weak, found)):
        return []
    return [_answer(schemes, against, nfe) for nfe in sorted({cell["nfe"] for cell in found})]


def _answer(schemes: list[dict[str, Any]], against: str, nfe: int) -> Answer:
    cells = {scheme["label"]: cell for scheme in schemes for cell in scheme["cells"] if cell and cell["nfe"] == nfe}
    diverged = tuple(name for name, cell in cells.items() if cell.get("diverged"))
    own = _weak(cells.get(against, {}))
    if not own.get("sure"):
        return Answer(nfe, against, None, diverged=diverged)
    others = {name: _weak(cell).get("ratio") for name, cell in cells.items() if name not in (against, *diverged)}
    ratios = [(name, found["value"], found["standard_error"]) for name, found in others.items() if found]
    nearer = sorted((entry for entry in ratios if entry[1] + SURE * entry[2] < 1), key=lambda entry: entry[1])
    further = sorted((entry for entry in ratios if entry[1] - SURE * entry[2] > 1), key=lambda entry: entry[1])
    told = {name for name, *_ in (*nearer, *further)}
    untold = tuple(name for name in others if name not in told)
    error = own["standard_error"] * own["relative"] / own["value"]
    return Answer(nfe, against, (own["relative"], error), tuple(nearer), tuple(further), untold, diverged)


def _weak(cell: Mapping[str, Any]) -> dict[str, Any]:
    return (cell.get("weak") or {}).get(QUANTITY) or {}


def _uncertain(value: float, error: float) -> str:
    """To the first digit of the error."""
    digits = max(0, -math.floor(math.log10(error))) if error > 0 else 2
    return f"{value:.{digits}f} ± {error:.{digits}f}"

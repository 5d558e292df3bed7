"""What a search found: the words that are kept, the catalogue beside them, and the front of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION
from ...theory.scheme import Scheme
from .search_judging import Judged
from .search_settings import Search

Point = tuple[int, float, str]  # evaluations, distance, label


@dataclass(frozen=True)
class Found:
    """A scheme of the answer.

    name: the catalogue's, else None. steps: that the budget buys; judged: its distance there, None if it diverged, and
    its stability; is_stable: whether that is what the search asks for. order: proven, None where it was not, and then
    `unproven` says why. others: words with the same maps. curve: (evaluations, distance) at the budgets of the front.
    """

    scheme: Scheme
    name: str | None
    steps: int
    judged: Judged
    is_stable: bool
    order: int | None = None
    unproven: str = ""
    others: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()

    @property
    def nfe(self) -> int:
        """The evaluations of its run, the denoising step's included."""
        return self.steps * self.scheme.nfe_per_step + 1

    @property
    def growth(self) -> float:
        """The growth that is judged: of a word with memory, that of a perturbation which the run begins with."""
        return self.judged.growth if self.scheme.memory == 1 else self.judged.from_start

    @property
    def label(self) -> str:
        """Its name in the catalogue, or its word with splitting and sub-flows."""
        return self.name or described(self.scheme)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        scheme = self.scheme
        return {
            "label": self.label,
            "name": self.name,
            "word": scheme.word,
            "splitting": scheme.splitting.name,
            "flow": scheme.flow,
            "frozen": scheme.frozen.name,
            "memory": scheme.memory,
            "sub_flows": scheme.sub_flows,
            "nfe_per_step": scheme.nfe_per_step,
            "palindrome": scheme.is_palindrome,
            "steps": self.steps,
            "nfe": self.nfe,
            "distance": self.judged.distance,
            "growth": self.growth,
            "growth_anywhere": self.judged.growth,
            "stable": self.is_stable,
            "order": self.order,
            "unproven": self.unproven,
            "same": list(self.others),
            "curve": [{"nfe": nfe, "distance": distance} for nfe, distance in self.curve],
        }


@dataclass(frozen=True)
class Findings:
    """The answer of a search.

    kept: the nearest words, in the order of their distances; catalogue: its schemes, alike. counts: what became of the
    words, by what it is. filter_error, filter_ratio: how far the filter's distances were from those on the whole
    spectrum, over these, and over the filter's own estimates: at most 1 where the estimates hold.
    """

    search: Search
    kept: tuple[Found, ...]
    catalogue: tuple[Found, ...]
    counts: dict[str, Any]
    filter_error: float
    filter_ratio: float

    @property
    def front(self) -> list[Point]:
        """What no scheme of at most its cost is nearer than, by cost: of stable ones, at the budgets of their
        curves."""
        stable = [found for found in (*self.kept, *self.catalogue) if found.is_stable]
        return pareto([(nfe, distance, found.label) for found in stable for nfe, distance in found.curve])

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "settings": self.search.settings(),
            "budgets": self.search.budgets,
            "counts": self.counts,
            "filter": {"error": self.filter_error, "ratio": self.filter_ratio},
            "best": [found.as_dict() for found in self.kept],
            "catalogue": [found.as_dict() for found in self.catalogue],
            "front": [{"nfe": nfe, "distance": distance, "label": label} for nfe, distance, label in self.front],
        }


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points than which none of at most their cost is nearer, by cost; of equals the first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: point[:2]):
        if not found or point[1] < found[-1][1]:
            found.append(point)
    return found


def described(scheme: Scheme) -> str:
    """A scheme as its word, with splitting and sub-flows."""
    return f"{scheme.word} ({scheme.splitting.name}, {scheme.sub_flows})"


def name_of(scheme: Scheme) -> str | None:
    """What the catalogue calls a scheme; None if it does not have it."""
    name = _named().get(described(scheme))
    known = None if name is None else (CATALOGUE | EXPONENTIAL | POSITION)[name]
    same = known is not None and (known.splitting, known.lambda_s) == (scheme.splitting, scheme.lambda_s)
    return name if same else None


@cache
def _named() -> dict[str, str]:
    return {described(scheme): name for name, scheme in (CATALOGUE | EXPONENTIAL | POSITION).items()}

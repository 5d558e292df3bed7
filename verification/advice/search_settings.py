"""What a search is asked: which words, at which cost, held to what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from ...integrators.grids import time_grid
from ...theory.frozen import SCORE_HELD, Frozen
from ...theory.model import Diffusion, Parameters
from ...theory.scheme import Scheme
from ...theory.splitting import PSLD, Splitting
from ..stability import growth as stability
from ..verdicts import Array
from .words import TIMES, WEIGHTS, Family

LADDER = (10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500, 1000)
FORMAT = 1  # of what is kept of a search: the next number whenever the same settings would give others
MOST_ORDER = 4  # that is looked for, as by theory.weak_order


@dataclass(frozen=True)
class Search:
    """What is searched: words of up to `length` letters over each splitting, with each sub-flow, quantity held and
    memory that go together, on CIFAR-10's spectrum at `nfe` evaluations, the denoising step's included, on `grid`.

    weights, times: of parts and of S (advice.words). order: the least order that is asked for; growth > 1: the most
    that a perturbation may grow. Raises ValueError on what makes no search.
    """

    splittings: tuple[Splitting, ...] = (PSLD,)
    nfe: int = 50
    length: int = 6
    flows: tuple[str, ...] = ("euler", "exact")
    frozen: tuple[Frozen, ...] = (SCORE_HELD,)
    memories: tuple[int, ...] = (1,)
    weights: tuple[Fraction, ...] = WEIGHTS
    times: tuple[Fraction, ...] = TIMES
    grid: str = "quadratic"
    order: int = 1
    growth: float = stability.FACTOR
    params: Parameters = field(default_factory=Parameters)
    families: tuple[Family, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.nfe < 2:
            raise ValueError(f"nfe = {self.nfe}: a step and the denoising step take 2 evaluations at least")
        if not 1 <= self.order <= MOST_ORDER:
            raise ValueError(f"order = {self.order}: ask for 1 to {MOST_ORDER}")
        if not self.growth > 1:
            raise ValueError(f"growth = {self.growth:g}: the exact dynamics have growth 1; allow more than that")
        if len({splitting.diffusion.name for splitting in self.splittings}) != 1:
            names = ", ".join(splitting.name for splitting in self.splittings) or "none"
            raise ValueError(f"splittings {names}: give at least one, and all of one diffusion")
        if any(not splitting.diffusion.forward.has_noise for splitting in self.splittings):
            raise ValueError(
                f"splitting {self.splittings[0].name!r}: its diffusion adds no noise to take away; give psld"
            )
        for name in ("splittings", "flows", "frozen", "memories"):
            given = [str(getattr(value, "name", value)) for value in getattr(self, name)]
            if len(set(given)) < len(given):
                raise ValueError(f"{name} {', '.join(given)}: give each once")
        time_grid(self.grid, 8, self.params)  # a bad grid is said at once
        object.__setattr__(self, "families", tuple(self._families()))
        if not self.families:
            raise ValueError(
                "no words: euler sub-flows hold the score, and remember where one part of a splitting uses it; choose "
                "another flow, frozen or memory"
            )

    def _families(self) -> Iterator[Family]:
        for splitting in self.splittings:
            users = [part for part in splitting.parts if part.sde.uses_score]
            for flow in self.flows:
                for frozen in self.frozen:
                    for memory in self.memories:
                        if flow == "euler" and (frozen != SCORE_HELD or (memory > 1 and len(users) > 1)):
                            continue
                        family = Family(splitting, self.length, flow, frozen, memory, self.weights, self.times)
                        _ = family.sub_flows  # a memory that is none is said at once
                        yield family

    @property
    def diffusion(self) -> Diffusion:
        """What the words sample."""
        return self.splittings[0].diffusion

    def settings(self) -> dict[str, Any]:
        """All of it as JSON values: what an interrupted search has in common with the one that goes on."""
        return {
            "format": FORMAT,
            "splittings": [s.name for s in self.splittings],
            "parts": [[[part.name, *part.declaration] for part in s.parts] for s in self.splittings],
            "nfe": self.nfe,
            "length": self.length,
            "flow": list(self.flows),
            "frozen": [frozen.name for frozen in self.frozen],
            "memory": list(self.memories),
            "weights": [str(weight) for weight in self.weights],
            "times": [str(time) for time in self.times],
            "grid": self.grid,
            "order": self.order,
            "growth": self.growth,
            "parameters": asdict(self.params),
        }

    def is_stable(self, memory: int, growth: float, from_start: float) -> bool:
        """Whether perturbations of a run grow little enough: of a word with memory, one that the run begins with."""
        return (growth if memory == 1 else from_start) <= self.growth

    @property
    def budgets(self) -> list[int]:
        """The budgets that costs are compared at: up to the search's."""
        return [*(nfe for nfe in LADDER if nfe < self.nfe), self.nfe]

    def taus(self, scheme: Scheme, nfe: int | None = None) -> Array | None:
        """The times of the run that `nfe` evaluations buy (default: the search's), denoising's aside; None if that is
        no step."""
        steps = ((self.nfe if nfe is None else nfe) - 1) // scheme.nfe_per_step
        return time_grid(self.grid, steps, self.params) if steps >= 1 else None

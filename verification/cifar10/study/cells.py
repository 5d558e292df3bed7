"""Cells of a study: a scheme at a number of steps, the reference whose noise it shares, and all that a study takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ....integrators.catalogue import EXPONENTIAL
from ....integrators.grids import MOST_STEPS
from ....integrators.sampler import Score
from ....theory.model import PSLD_DIFFUSION, Parameters
from ....theory.scheme import FROZEN_FLOWS, Scheme
from ..model import FLOAT32, PRECISIONS, Config

Images = NDArray[np.float32]
# The fine run of each kind of dynamics. Of all schemes they come closest to the exact law of CIFAR-10's spectrum for
# the same evaluations (exact moments, quadratic grid). Their order is 2: a run of 8 times the steps has 1/64 of their
# own error. ROBA's has 1/8 of its own, which from 50 evaluations on is more than theirs without more steps.
REFERENCES = {
    "stochastic": EXPONENTIAL["SDE-DPM-Solver++2M"],
    "deterministic": EXPONENTIAL["DPM-Solver++2M"],
}
REFINEMENT = 8  # how many times the steps of the finest cell a reference takes, at least
TOO_LARGE = 1e3  # a position this far out, in units where data are within 1, has diverged


def kind_of(scheme: Scheme) -> str:
    """The dynamics a scheme approximates: "stochastic" (the reverse SDE) or "deterministic" (the flow)."""
    return "stochastic" if scheme.splitting.whole.has_noise else "deterministic"


@dataclass(frozen=True)
class Model:
    """What is sampled: `score(u, t)`, made anew for each device; `fingerprint` tells one network from another."""

    fingerprint: str
    params: Parameters
    config: Config
    score: Callable[[torch.device], Score]

    @property
    def event(self) -> tuple[int, int, int]:
        """The shape of an image."""
        return self.config.in_ch // 2, self.config.image_size, self.config.image_size


@dataclass(frozen=True)
class Cell:
    """A scheme at `steps` steps of `grid`, on the noise of `reference`, or on its own (None); `precision`: of the
    network's products; `eps`: its cut-off (None: the model's); `denoises`: whether the denoising step follows.

    Raises ValueError on fewer than 1 step, other dynamics than PSLD's, and sub-flows that are not sampled.
    """

    scheme: Scheme
    steps: int
    grid: str
    reference: Cell | None = None
    precision: str = FLOAT32
    eps: float | None = None
    denoises: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(
                f"{self.scheme.name} at {self.steps} steps: a run takes 1 to {MOST_STEPS:,}; give a smaller --nfe, "
                "--refinement or --reference-steps"
            )
        if self.scheme.splitting.diffusion != PSLD_DIFFUSION:
            raise ValueError(
                f"scheme {self.scheme.name!r} moves under {self.scheme.splitting.diffusion.name!r}; the network's "
                f"dynamics are {PSLD_DIFFUSION.name!r}; give a scheme of those: its score is that of (x, m) together, "
                "and what x alone has is the average of that over m, which no evaluation gives"
            )
        if self.scheme.flow not in FROZEN_FLOWS or self.scheme.nfe_per_step == 0:
            raise ValueError(
                f"scheme {self.scheme.name!r} ({self.scheme.flow} sub-flows, {self.scheme.nfe_per_step} NFE/step) is "
                f"not sampled from a network; its word needs an S, and its sub-flows are {' or '.join(FROZEN_FLOWS)}"
            )

    @property
    def nfe(self) -> int:
        """The evaluations it should take, the denoising step's included; what it takes is counted."""
        return self.scheme.nfe_per_step * self.steps + self.denoises

    @property
    def kind(self) -> str:
        """See `kind_of`."""
        return kind_of(self.scheme)

    def description(self) -> list[object]:
        """All that tells it from other cells."""
        scheme = self.scheme
        words = [scheme.word, repr(scheme.splitting.parts), scheme.flow, scheme.lambda_s, self.steps, self.grid]
        words += [*scheme.held_key, *(part.name for part in scheme.parts if part.euler)]
        words += [] if self.eps is None and self.denoises else [self.eps, self.denoises]
        return [*words, self.precision, self.reference.description() if self.reference and self.noise else None]

    def parameters(self, params: Parameters) -> Parameters:
        """The model's parameters with the cell's own cut-off."""
        return params if self.eps is None else replace(params, eps=self.eps)

    @property
    def noise(self) -> Cell | None:
        """The run whose noise it is sampled on: its reference, or itself; None of a deterministic one."""
        return (self.reference or self) if self.kind == "stochastic" else None


def plan(
    schemes: Sequence[Scheme],
    budgets: Sequence[int],
    grid: str,
    refinement: int = REFINEMENT,
    reference_steps: int | None = None,
    precision: str = FLOAT32,
) -> dict[tuple[int, int], Cell]:
    """The cells by place of the scheme and budget: as many whole steps as the evaluations buy, one of them denoising.

    References take `refinement` times the steps of the finest cell of their kind, or `reference_steps` if that is not
    fewer; refinement 0: there are none, and every cell has its own noise. precision: of the cells; references have
    float32. A budget that does not buy a step has no cell. Raises ValueError on bad schemes, budgets, steps.
    """
    if not schemes or len({scheme.name for scheme in schemes}) < len(schemes):
        names = [scheme.name for scheme in schemes]
        twice = next((name for name in names if names.count(name) > 1), "none")
        raise ValueError(f"schemes: {twice}: give at least one, and each once")
    if not budgets or list(budgets) != sorted(set(budgets)) or budgets[0] < 2:
        raise ValueError(f"budgets {list(budgets)}: give increasing numbers of evaluations, from 2 (a step, denoising)")
    if refinement != 0 and refinement < 2:
        raise ValueError(f"refinement = {refinement}: a reference takes at least 2 times the steps; 0 is none")
    cells = {
        (place, budget): Cell(scheme, (budget - 1) // max(1, scheme.nfe_per_step), grid, precision=precision)
        for place, scheme in enumerate(schemes)
        for budget in budgets
        if budget > max(1, scheme.nfe_per_step)
    }
    if poor := [scheme.name for place, scheme in enumerate(schemes) if not any(at == place for at, _ in cells)]:
        raise ValueError(f"{', '.join(poor)}: no budget of {list(budgets)} buys a step; give a larger --nfe")
    if not refinement:
        return cells
    finest: dict[str, int] = {}
    for cell in cells.values():
        finest[cell.kind] = max(finest.get(cell.kind, 0), refinement * cell.steps)
    if reference_steps is not None and reference_steps < max(finest.values()):
        raise ValueError(
            f"reference_steps = {reference_steps}: {refinement} times the steps of the finest cell are "
            f"{max(finest.values())}; give at least as many, or a smaller --refinement"
        )
    references = {kind: Cell(REFERENCES[kind], reference_steps or steps, grid) for kind, steps in finest.items()}
    return {place: replace(cell, reference=references[cell.kind]) for place, cell in cells.items()}


def is_bounded(x: Images) -> bool:
    """Whether positions are finite, and within `TOO_LARGE`."""
    return bool(x.min() >= -TOO_LARGE and x.max() <= TOO_LARGE)  # False for nan

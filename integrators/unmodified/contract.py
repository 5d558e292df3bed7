"""Samplers as people use them: with a grid of their own, around a network of their own kind.

Such a sampler is called once for a whole run: it takes the network's answers in its own parametrisation, tells the
network the time in its own unit, chooses its times for N steps, starts at its own largest noise and ends where it ends.
What its author states is what the network answers (`PREDICTIONS`) and which noise it was trained on at each time
(theory.paths). States are one component, (batch, *event).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ...theory.paths import GaussianPath, Level

# The network as a sampler calls it: the input, and the time in the sampler's own unit.
Network = Callable[[Tensor, "float | Tensor"], Tensor]
# What a network answers, as numbers (z, x_0): the answer is z times its state alpha x_0 + sigma eps, and x_0 times the
# data that it predicts.
Prediction = Callable[[Level], tuple[float, float]]

# With z = alpha x_0 + sigma eps: eps = (z - alpha x_0) / sigma; v = alpha eps - sigma x_0 (Salimans and Ho 2022);
# the score is -eps / sigma; a flow's velocity is eps - x_0 (Liu et al. 2023).
PREDICTIONS: dict[str, Prediction] = {
    "eps": lambda at: (1 / at.sigma, -at.alpha / at.sigma),
    "data": lambda _: (0.0, 1.0),
    "denoiser": lambda _: (0.0, 1.0),
    "v": lambda at: (at.alpha / at.sigma, -(at.alpha**2) / at.sigma - at.sigma),
    "score": lambda at: (-1 / at.sigma**2, at.alpha / at.sigma**2),
    "flow": lambda at: (1 / at.sigma, -at.alpha / at.sigma - 1),
}


class Prepared(Protocol):
    """A sampler that has chosen its times.

    start(first): the level of the law that its first state is drawn from, x = scale (alpha x_0 + sigma eps) in the
    sampler's own coordinates, given the first time that the network is asked for; prior: the standard deviation of the
    pure noise that is drawn in its place in practice, None for that of data of variance 1; level(time): the noise that
    the network was trained on at a time it is told; run(network, x): a whole run from the states x (batch, *event),
    fresh whenever it is called.
    """

    @property
    def prior(self) -> float | None: ...

    def start(self, first: float) -> Level: ...

    def level(self, time: float) -> Level: ...

    def run(self, network: Network, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Unmodified:
    """A sampler with a grid of its own.

    name: for people. prepare(steps, exact): the sampler for so many steps; exact: its constants and tables in float64,
    and a table of times as fine as the study needs, in the place of what it ships with. predicts: what the network
    answers, a name of `PREDICTIONS` for the verdict's line. order: the weak order that it is held to, None if none is;
    claim: who claims which order, or why it is held to that one, in a phrase.
    event: the shape of one data point. notes: what is not as shipped, in sentences. path: the smooth one whose t is its
    time, None where there is none. instead: what else its author may have meant to state of the network, in a sentence.
    clamps: the lines that clamp states, or numbers drawn for all of them, which runs leave out, as they come upon them.
    """

    name: str
    prepare: Callable[[int, bool], Prepared]
    prediction: Prediction
    predicts: str
    order: int | None = None
    event: tuple[int, ...] = (1, 1, 1)
    notes: tuple[str, ...] = ()
    path: GaussianPath | None = None
    claim: str = ""
    instead: str = ""
    clamps: list[str] = field(default_factory=list, compare=False)

    @property
    def clamped(self) -> str:
        """That clamps were met and left out, in a sentence; "" if none was."""
        if not self.clamps:
            return ""
        verb = "clamps" if len(self.clamps) == 1 else "clamp"
        return f"{' and '.join(self.clamps)} {verb} states or noise, which is nonlinear, and is off here"

    @property
    def said(self) -> tuple[str, ...]:
        """What is not as shipped: `notes`, and clamps that were met so far."""
        return (*self.notes, self.clamped) if self.clamps else self.notes

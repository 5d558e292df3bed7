"""One call of a black box on rows of states and noise: which cells they fill, and which numbers act on those.

A batch of states (batch, n, *event) is batch x event cells of n coordinates each, and a row fills a cell. Numbers in
the state's layout act on the cell they stand at; where that fails, which of them act where is found (blackbox.layout).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...integrators.blackbox import BlackBoxError, Response, Run, Score, call
from ...integrators.draws import Law, stepwise_normal
from ...integrators.planes import shape_of
from ..verdicts import Array
from .layout import Ask, Layout, NamedCause, Recorded, find_layout

SAME_DRAWS = "draw the same in every call"


class _Draw(NamedTuple):
    """What was answered to a draw: of which law, whether it was noise, and the values."""

    law: Law
    is_noise: bool
    values: Tensor

    def fits(self, shape: torch.Size, law: Law, label: object) -> bool:
        """Whether it is the answer to this draw, too."""
        same = law.nodes is self.law.nodes or (
            law.nodes is not None and self.law.nodes is not None and np.array_equal(law.nodes, self.law.nodes)
        )
        return (
            same and law.source == self.law.source and self.values.shape == shape and self.is_noise == (label is None)
        )


@dataclass
class Prepared:
    """What calls on the same rows share: the rows, the states that they fill, and the answers to draws by number."""

    rows: Array
    states: Tensor | None = None
    draws: dict[int, _Draw] = field(default_factory=dict)


class Spare(NamedTuple):
    """The cells that no row fills: their states (n, components), their numbers by draws (n, width), of discrete laws
    which value, and what became of them (n, components)."""

    states: Array
    draws: list[Array]
    result: Array


@dataclass
class _Cells:
    """The cells of a batch, which the rows of every target fill first; placed: whether in an order of their own."""

    copies: int
    rows: int
    batch: int
    elements: int
    placed: bool
    spare: list[Array] = field(default_factory=list)  # what `fill` put where no row is, of discrete laws which value

    @cached_property
    def filler(self) -> np.random.Generator:
        """Of what no row fills."""
        return np.random.default_rng(self.rows)

    def fill(self, values: Array, order: NDArray[np.int64], law: Law | None = None) -> Array:
        """Values (rows, width) of every target in the cells they belong to: (cells, width).

        What fills up the last event, and a batch of at least two, is no zero, nor the same in another call: entries
        that mix show then.
        """
        cells, width, used = self.batch * self.elements, values.shape[1], self.copies * self.rows
        given = np.empty((cells, width))
        nodes = None if law is None else law.nodes
        whole = values if nodes is None else nodes[values.astype(int)]
        given[:used].reshape(self.copies, self.rows, width)[:] = whole
        if cells > used:
            filler, rest = self.filler, (cells - used, width)
            if nodes is None:
                # numbers of eight bits, which draws in any precision hold as well
                given[used:] = some = np.round(filler.uniform(-2, 2, rest) * 64) / 64
            else:
                which = filler.integers(0, len(nodes), rest)
                given[used:], some = nodes[which], which.astype(float)
            self.spare.append(some)
        if not self.placed:
            return given
        placed = np.empty_like(given)
        placed[order] = given
        return placed

    def pack(self, values: Array) -> Tensor:
        """Values (cells, width) as a batch (batch, width, elements)."""
        stood = values.reshape(self.batch, self.elements, -1).transpose(0, 2, 1)
        return torch.as_tensor(np.ascontiguousarray(stood))


class Calls:
    """Calls of a black box on rows, and how they are laid out; `labels`, what `label` was when each draw was made.

    copies: how many score functions are asked at once, V; score(rows, batch): the score of all of them, for `rows`
    rows each, in a batch of that size. event: the shape of one data point; components: of a state, which is
    (batch, *event) if it has one. Raises ValueError on a bad event.
    """

    def __init__(
        self, copies: int, score: Callable[[int, int], Score], event: tuple[int, ...], components: int = 2
    ) -> None:
        if any(size < 1 for size in event):
            raise ValueError(f"event {event}: the shape of a data point is positive numbers, such as 3,4,4")
        self.copies, self.score, self.event, self.components = copies, score, event, components
        self.by_state = False  # see `NoiseAsInput`
        self.label: object = None
        self.labels: list[object] = []
        # How draws are read: where their numbers act, None as they stand; whether Gaussians are used stepwise.
        self.layouts: dict[int, Layout] | None = None
        self.is_stepwise = False
        self.light = False  # whether calls are watched by the names of torch alone
        self.order = 0  # of the cells of a batch, where some share numbers
        self.spare: Spare | None = None  # of the last call, where no cells share numbers

    def respond(
        self, run: Run, states: Array, noise: Callable[[int, int, Law], Array], same: Prepared | None = None
    ) -> tuple[Array, Response]:
        """`run` on every row for every target: (V, rows, components). The rows fill the cells of a batch.

        same: what was made of these states and noises in a call before, and will be of those of this one: nothing is
        made twice, where the numbers stand where they act.
        """
        rows, elements = len(states), math.prod(self.event)
        batch = max(2, math.ceil(self.copies * rows / elements)) if rows > 1 or self.copies > 1 else 1
        made, layout = same if same is not None and self.layouts is None else Prepared(states), None
        if self.layouts is not None:
            batch, layout = self._layout(self.layouts, run, rows, batch)
        order = (
            np.arange(batch * elements) if layout is None else layout.orders[min(self.order, len(layout.orders) - 1)]
        )
        cells = _Cells(self.copies, rows, batch, elements, layout is not None)
        labels: list[object] = []
        pool = np.empty(0) if layout is None else np.zeros(sum(layout.recorded.sizes))
        if layout is not None:
            for k, group in enumerate(layout.groups):
                values = cells.fill(noise(k, group.places.shape[1], group.law), order, group.law)
                # of the cells that share a number the first in order has its way
                pool[group.places[order[::-1]]] = values[order[::-1]]
                labels.append(None)
        taken = drawn = 0

        def draw(_: int, shape: torch.Size, law: Law) -> Tensor:
            nonlocal taken, drawn
            label, self.label = self.label, None
            law = self._read_as(law, label)
            if layout is not None and label is None:
                if drawn >= len(layout.recorded.shapes) or layout.recorded.shapes[drawn] != tuple(shape):
                    raise BlackBoxError(f"the sampler draws {tuple(shape)} where it did not before; {SAME_DRAWS}")
                drawn, taken = drawn + 1, taken + math.prod(shape)
                return torch.as_tensor(pool[taken - math.prod(shape) : taken].reshape(shape))
            width, rest = divmod(math.prod(shape[1:]), elements)
            if not shape or shape[0] != batch or rest:
                raise BlackBoxError(
                    f"the sampler draws noise of shape {tuple(shape)} for a state of shape {self.shape(batch)}: "
                    "which numbers belong to which entry cannot be told, or several entries share them; draw noise of "
                    "the state's shape, in one call"
                )
            labels.append(label)
            if (known := made.draws.get(len(labels))) is not None and known.fits(shape, law, label):
                return known.values.clone()
            # a score that is reordered answers, and draws its answer, in the order of the rows
            own = order if label is None else np.arange(len(order))
            xi = cells.pack(cells.fill(noise(len(labels) - 1, width, law), own, law)).reshape(shape)
            if same is not None:
                made.draws[len(labels)] = _Draw(law, label is None, xi.clone())
            return xi

        score = self.score(rows, batch)
        if layout is not None and len(layout.orders) > 1:
            score = _reordered(score, order, self.shape(batch), self.components)
        if made.states is None:
            made.states = cells.pack(cells.fill(states, order)).reshape(self.shape(batch))
        self.label = None  # a call that was broken off may have left one
        response = call(run, made.states.clone(), score, draw, self.by_state, self.light)
        self.labels, self.spare = labels, None
        if cells.spare and (layout is None or layout.live == layout.cells):
            groups = 0 if layout is None else len(layout.groups)
            draws = [*cells.spare[:groups], *cells.spare[groups + 1 :]]
            self.spare = Spare(cells.spare[groups], draws, self.cells(response.state)[order][self.copies * rows :])
        return self.unpack(response.state, rows, order), response

    def unpack(self, state: Tensor, rows: int, order: NDArray[np.int64] | None = None) -> Array:
        """A state as (V, rows, components); order: of its cells."""
        cells = self.cells(state) if order is None else self.cells(state)[order]
        return cells[: self.copies * rows].reshape(self.copies, rows, self.components)

    def shape(self, batch: int) -> tuple[int, ...]:
        """Of a batch of states."""
        return (batch, *shape_of(self.components, self.event))

    def cells(self, state: Tensor) -> Array:
        """A state as (cells, components)."""
        n = self.components
        stood = state.detach().double().clone().numpy(force=True).reshape(len(state), n, -1)
        return np.ascontiguousarray(stood.transpose(0, 2, 1)).reshape(-1, n)

    def _read_as(self, law: Law, label: object) -> Law:
        """A Gaussian that is no answer of a score, as steps of a law if it is tried so."""
        return stepwise_normal() if self.is_stepwise and label is None and law.nodes is None else law

    # --- Where numbers act --------------------------------------------------------------------------------------------

    def next_order(self) -> bool:
        """Go on to cells that were not looked at; False, and back to the first, if there are none."""
        layouts = (self.layouts or {}).values()
        self.order = self.order + 1 if self.order + 1 < max((len(each.orders) for each in layouts), default=1) else 0
        return self.order > 0

    def _layout(self, layouts: dict[int, Layout], run: Run, rows: int, batch: int) -> tuple[int, Layout]:
        """A batch with room for the rows, at cells that share no numbers, and its layout, which `layouts` keeps."""
        needed, elements = self.copies * rows, math.prod(self.event)
        batch = batch if batch == 1 else max(batch, 5)  # no size of an axis that means something else
        for _ in range(2):
            if batch not in layouts:
                like = next(iter(layouts.values()), None)
                ask: Ask = lambda on, n=batch: self._ask(run, n, on)  # noqa: E731
                layouts[batch] = find_layout(ask, elements, self.event, like)
            if (layout := layouts[batch]).live >= needed:
                return batch, layout
            batch = 2 * math.ceil(needed / elements / 2) * 2
        raise NamedCause("several entries share their noise; draw noise of the state's shape")

    def draws_per_entry(self) -> bool:
        """Whether each entry of a batch draws for itself: no draw has a number for each of them."""
        several = [layout for batch, layout in (self.layouts or {}).items() if batch > 1]
        return any(layout.recorded.sizes and max(layout.recorded.sizes) < layout.cells for layout in several)

    def _ask(self, run: Run, batch: int, switches: Array | None) -> tuple[Array, Recorded]:
        """For `find_layout`."""
        sizes = np.random.default_rng(0).uniform(1, 2, 1 if switches is None else len(switches))
        shapes, laws, taken = list[tuple[int, ...]](), list[Law](), 0

        def draw(_: int, shape: torch.Size, law: Law) -> Tensor:
            nonlocal taken
            label, self.label = self.label, None
            if label is not None:
                return torch.zeros(shape, dtype=torch.float64)
            law = self._read_as(law, label)
            shapes.append(tuple(shape))
            laws.append(law)
            taken += (count := math.prod(shape))
            rest, acting = (0.0, 1.0) if law.nodes is None else (law.nodes[0], law.nodes[-1])
            values = np.full(count, rest)
            if switches is not None:
                if taken > len(switches):
                    raise BlackBoxError(f"the sampler draws more than it did before; {SAME_DRAWS}")
                part = slice(taken - count, taken)
                values += switches[part] * (acting - rest) * (sizes[part] if law.nodes is None else 1.0)
            return torch.as_tensor(values.reshape(shape))

        # so many rows that the batch is theirs: the cells' own numbers are all that matters
        rows = max(1, batch * math.prod(self.event) // self.copies)
        states = np.random.default_rng(batch).uniform(-2, 2, self.shape(batch))
        self.label = None
        response = call(run, torch.as_tensor(states), self.score(rows, batch), draw, self.by_state)
        return self.cells(response.state), Recorded(tuple(shapes), tuple(laws))


def _reordered(score: Score, order: NDArray[np.int64], shape: tuple[int, ...], components: int) -> Score:
    """A score that is asked with its cells in another order."""
    back, batch = np.argsort(order), shape[0]

    def arranged(u: Tensor, cells: NDArray[np.int64]) -> Tensor:
        flat = u.reshape(batch, components, -1).transpose(1, 2).reshape(-1, components)[torch.as_tensor(cells)]
        return flat.reshape(batch, -1, components).transpose(1, 2).reshape(shape)

    return lambda u, t: arranged(score(arranged(u, order), t), back).reshape(u.shape)

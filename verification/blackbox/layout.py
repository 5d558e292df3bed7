"""Which of the numbers that a sampler draws acts where, found and not assumed.

A batch (batch, n, *event) has batch x event cells of n coordinates each. A sampler may draw its noise in any layout:
component last, all steps ahead, one call for each image, for half of the batch and its mirror image. All draws of one
shape are stacked, and the axes of the stack are tried one by one: with the numbers at rest but for those whose index
along an axis has a certain bit, a cell moves as far as it does when all of them act, or not at all, if it reads one
index of that axis. Its bits then are that index. Other axes, of components or of steps, stay with every cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...integrators.blackbox import BlackBoxError
from ...integrators.draws import Law
from ..verdicts import Array

Indices = NDArray[np.int64]
# A cell moves not at all, or all the way, to within this part of its way; float32 rounds at 1e-7.
_SAME = 1e-4
# Draws of one shape that are looked at one by one.
_ONE_BY_ONE = 64
_SHARED = (
    "several entries share their noise, so that samples of a batch are not independent; draw noise of the state's shape"
)


class NamedCause(BlackBoxError):
    """A refusal whose cause was seen at work."""


class Recorded(NamedTuple):
    """What a call drew, apart from scores: shapes and laws, in order."""

    shapes: tuple[tuple[int, ...], ...]
    laws: tuple[Law, ...]

    @property
    def sizes(self) -> list[int]:
        """How many numbers each draw has."""
        return [math.prod(shape) for shape in self.shapes]


class Group(NamedTuple):
    """Draws of one shape: places (cells, width) of each cell's numbers among all that a call draws, and their law."""

    places: Indices
    law: Law


class Layout(NamedTuple):
    """Where numbers act in a batch: by groups of draws; orders of the cells, each beginning with `live` cells that
    share no number, and every cell is among those of some order; stacks: which draws each group is made of."""

    recorded: Recorded
    groups: tuple[Group, ...]
    orders: tuple[Indices, ...]
    live: int
    stacks: tuple[tuple[int, ...], ...]

    @property
    def cells(self) -> int:
        """Of the batch."""
        return len(self.orders[0])


Ask = Callable[[Array | None], tuple[Array, Recorded]]


def find_layout(ask: Ask, elements: int, event: tuple[int, ...], like: Layout | None = None) -> Layout:
    """The layout of a call: `ask(switches)` runs it with the numbers at rest (0) or acting (1), None for at rest, and
    returns the cells (cells, n) and what was drawn; elements: cells of an entry of the batch; like: a layout of it
    in another batch, whose draws are grouped alike.

    Raises NamedCause where entries or pixels share numbers, BlackBoxError where no axis tells cells apart.
    """
    rest, recorded = ask(None)
    cells = len(rest)
    groups, shared = [], []
    stacks: list[tuple[int, ...]] = []
    for stack in _stacks(recorded, like):
        apart = [(k,) for k in stack]
        found: list[tuple[Group, Indices | None]] = []
        try:
            found.append(_group(ask, rest, recorded, stack, elements, event))
            stacks.append(stack)
        except BlackBoxError:  # draws of one shape that act at different places: one by one, if they are few
            if not 1 < len(stack) <= _ONE_BY_ONE:
                raise
            found += [_group(ask, rest, recorded, each, elements, event) for each in apart]
            stacks += apart
        groups += [group for group, _ in found]
        shared += [keys for _, keys in found if keys is not None]
    orders = [_order(shared, range(cells)), _order(shared, range(cells)[::-1])]
    live = min(count for _, count in orders)
    return Layout(
        recorded, tuple(groups), tuple(o for o, _ in (orders if live < cells else orders[:1])), live, tuple(stacks)
    )


def _group(
    ask: Ask, rest: Array, recorded: Recorded, members: tuple[int, ...], elements: int, event: tuple[int, ...]
) -> tuple[Group, Indices | None]:
    """Draws of one shape, and which numbers each cell reads, as an integer; None if they are drawn and not used."""
    cells, starts = len(rest), np.cumsum([0, *recorded.sizes])
    places = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in members])
    law = recorded.laws[members[0]]

    def moved(on: NDArray[np.bool_]) -> Array:
        switches = np.zeros(starts[-1])
        switches[places[on]] = 1.0
        return ask(switches)[0] - rest

    everything = moved(np.ones(len(places), dtype=bool))
    if not everything.any():
        return Group(np.empty((cells, 0), dtype=np.int64), law), None
    if not everything.any(1).all():
        raise NamedCause("the sampler treats the entries of a batch differently: some get no noise, and others do")
    shape = (len(members), *recorded.shapes[members[0]])
    keys, cell_keys = _Axes(moved, everything, shape, (cells // elements, elements, *event)).keys()
    _check_shared(cell_keys, everything, elements)
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], cell_keys)
    width = len(keys) // len(np.unique(keys))
    return Group(places[order[first[:, None] + np.arange(width)]], law), cell_keys


def _stacks(recorded: Recorded, like: Layout | None) -> Sequence[tuple[int, ...]]:
    """Which draws to look at together: those of the other layout, where there are as many; in a batch of one, where a
    draw for each entry is one draw and may have the shape of another, one by one; else those of one shape."""
    if like is not None and len(like.recorded.shapes) == len(recorded.shapes):
        return like.stacks
    if like is not None and len(like.groups) == len(recorded.shapes):
        return [(k,) for k in range(len(recorded.shapes))]
    return _by_shape(recorded)


def _by_shape(recorded: Recorded) -> list[tuple[int, ...]]:
    found: dict[tuple[object, ...], list[int]] = {}
    for k, (shape, law) in enumerate(zip(recorded.shapes, recorded.laws, strict=True)):
        size = 0 if law.nodes is None else len(law.nodes)
        found.setdefault((shape, law.source, size), []).append(k)
    return [tuple(members) for members in found.values()]


class _Axes:
    """The axes of a stack of draws, of `shape`: which of them tell cells apart; parts: sizes of axes of the state."""

    def __init__(
        self,
        moved: Callable[[NDArray[np.bool_]], Array],
        everything: Array,
        shape: tuple[int, ...],
        parts: tuple[int, ...],
    ) -> None:
        self.moved, self.everything, self.total = moved, everything, math.prod(shape)
        self.parts = [size for size in dict.fromkeys(parts) if size > 1]
        self.tolerance = _SAME * np.abs(everything).max(1)
        self.found: list[tuple[Indices, int, Indices]] = []
        for axis, index in enumerate(np.indices(shape).reshape(len(shape), -1)):
            self._try(index, shape[axis])

    def keys(self) -> tuple[Indices, Indices]:
        """For each number, and for each cell, the index along all axes that tell cells apart, as one integer."""
        if not self.found and self.total < len(self.everything):
            raise NamedCause(_SHARED)
        if not self.found and len(self.everything) > 1:
            raise BlackBoxError("which numbers belong to which entry of the batch cannot be told")
        numbers, cells = np.zeros(self.total, np.int64), np.zeros(len(self.everything), np.int64)
        for index, size, code in self.found:
            numbers, cells = numbers * size + index, cells * size + code
        return numbers, cells

    def _try(self, index: Indices, size: int) -> None:
        """Keep the axis if a cell reads one index of it; else one that is folded into it."""
        if size == 1:
            return
        if (code := self._read(index, size)) is not None:
            self.found.append((index, size, code))
            return
        for part, inner in self._folds(size):
            folded = index // inner % part
            if (code := self._read(folded, part)) is not None and len(np.unique(code)) > 1:
                self.found.append((folded, part, code))
                self._try(index // (part * inner), size // (part * inner))
                self._try(index % inner, inner)
                return

    def _folds(self, size: int) -> Iterator[tuple[int, int]]:
        """(part, inner): an axis of that part of the state, and how many numbers lie between its indices."""
        for part in self.parts:
            rest, remainder = divmod(size, part)
            if not remainder and rest > 1:
                yield from ((part, inner) for inner in range(1, rest + 1) if rest % inner == 0)

    def _read(self, index: Indices, size: int) -> Indices | None:
        """The index that each cell reads, if each reads one."""
        code = np.zeros(len(self.everything), dtype=np.int64)
        for bit in range((size - 1).bit_length()):
            moved = self.moved((index >> bit & 1).astype(bool))
            all_the_way = np.abs(moved - self.everything).max(1) <= self.tolerance
            if not (all_the_way | (np.abs(moved).max(1) <= self.tolerance)).all():
                return None
            code |= all_the_way.astype(np.int64) << bit
        return code


def _check_shared(keys: Indices, everything: Array, elements: int) -> None:
    """Raises NamedCause unless cells have numbers of their own, or are pairs of entries that mirror each other."""
    for cells in (np.flatnonzero(keys == key) for key in np.unique(keys)):
        if len(cells) == 1:
            continue
        if len(np.unique(cells // elements)) < len(cells):
            raise NamedCause(
                "several pixels of an image share their noise; draw noise of the state's shape, a number for each"
            )
        # the other way; whether as far is seen when both are read
        mirrored = float(everything[cells[0]] @ everything[cells[-1]]) < 0
        if len(cells) > 2 or not mirrored:
            raise NamedCause(_SHARED)


def _order(shared: list[Indices], sequence: range) -> tuple[Indices, int]:
    """The cells in sequence, those first that share no number with one before; and how many these are."""
    taken: list[set[int]] = [set() for _ in shared]
    live, rest = [], []
    for cell in sequence:
        own = [int(keys[cell]) for keys in shared]
        if any(key in used for key, used in zip(own, taken, strict=True)):
            rest.append(cell)
        else:
            live.append(cell)
            for key, used in zip(own, taken, strict=True):
                used.add(key)
    return np.array(live + rest, dtype=np.int64), len(live)

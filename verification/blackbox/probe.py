"""Probes: a black box as a function of its state and of each number that it draws, read off column by column.

One call on a batch of rows does it: a zero state, unit states, and for each number drawn a unit, or where its law is
discrete every value, all others at rest. Nothing is taken on trust. Further rows, with random states and numbers of two
sizes, must come out as the columns say: a departure of a few float32 roundings is measured and reported, a larger one
is refused. The same rows alone, in another batch and in another call, must come out the same, or entries of the batch
mix or state is left over.

A batch of states (batch, 2, *event) is batch x event cells of two coordinates each, and a row fills a cell. Numbers in
the state's layout act on the cell they stand at; where that fails, which of them act where is found (blackbox.layout).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...integrators.blackbox import BlackBoxError, NotAState, Response, Run, SamplerRaised, Score, call
from ...integrators.draws import Law, stepwise_normal
from ...integrators.other_sources import other_source
from ..exact import AffineMap
from ..verdicts import Array
from .layout import Ask, Layout, NamedCause, Recorded, find_layout

# Rows that check a map: states and noises of size up to 2, and as many of 64 times that size.
CHECKS, _LARGE = 4, 64
# How well they must agree: float64 steps agree to 1e-13 or so. A few roundings to float32, 2^-24 each, are reported.
_TOLERANCE, _FLOAT32 = 1e-10, 64 * 2.0**-24
# A larger departure that keeps its relative size when states are 64 times larger is coarser rounding, or a branch; that
# of a quadratic term grows 64-fold. One below _FLOAT32 even there moves a state by no more than rounding would.
_GROWTH = 8
# Coordinates (rows times targets) in one call: a few MB of intermediate results.
_BATCH = 1 << 17
# The same where each entry of a batch draws for itself, and the most such draws, each a call of some microseconds.
_SMALL_BATCH, _MOST_DRAWS = 64, 4_000_000
# A run that makes a state of size 1 as large as this diverges; float64 keeps no digit of an affine map beyond it.
_OVERFLOW = 1e15
# Values of discrete draws to try in one map; a few thousand rows are a call of a second.
_MOST_VALUES = 1 << 14
_SAME_DRAWS = "draw the same in every call"


class _Checks:
    """The checking rows: states of all bits, which rounding of any kind changes, and noises of so few bits that drawing
    them in a lower precision is not taken for rounding; of a discrete law, some of its values."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)  # any numbers will do
        self.states = self._rng.uniform(-2, 2, (2 * CHECKS, 2))
        self.states[CHECKS:] *= _LARGE
        self.noises: list[Array] = []
        self.laws: list[Law] = []

    def noise(self, k: int, width: int, law: Law) -> Array:
        """The noise of draw k, (2 CHECKS, width), the same whenever it is asked for: numbers, or of a discrete law
        which of its nodes."""
        while len(self.noises) <= k:
            rows = self._rng.integers(-16, 17, (2 * CHECKS, width)) / 8.0
            rows[CHECKS:] *= _LARGE
            if law.nodes is not None:
                rows = self._rng.integers(0, len(law.nodes), (2 * CHECKS, width)).astype(float)
            self.noises.append(rows)
            self.laws.append(law)
        return self.noises[k]

    def clear(self) -> None:
        """Forget the noises."""
        self.noises.clear()
        self.laws.clear()


class Increment(NamedTuple):
    """A number of a discrete law, and what it adds to the next state, less its mean: weights (n,), values (V, n, 2)."""

    weights: Array
    values: Array


class Columns(NamedTuple):
    """An affine map read off: u' = offset + rows of `state` times u + rows of `draws` times independent numbers of
    mean 0 and variance 1.

    offset (V, 2), state (V, 2, 2) and draws (V, width, 2), the last axis that of u'; is_of (width,): which draw of the
    call each row belongs to; increments: of the draws that are not Gaussian, whose rows are as many as they have values
    and add up to their covariance; rounding: its departure from being affine where that is float32 rounding, else 0;
    response: of the call.
    """

    offset: Array
    state: Array
    draws: Array
    is_of: NDArray[np.int64]
    increments: tuple[Increment, ...]
    rounding: float
    response: Response

    @property
    def map(self) -> AffineMap:
        """As a map whose draws have mean 0 and variance 1; nan if the run overflowed."""
        cov = np.einsum("vki,vkj->ijv", self.draws, self.draws)
        return AffineMap(np.ascontiguousarray(self.state.transpose(2, 1, 0)), np.ascontiguousarray(self.offset.T), cov)


class Probe:
    """A black box as a function of its state and of what it draws; `widths` of its draws, numbers a coordinate, once
    known, and `labels`, what `label` was when each of them was made.

    copies: how many score functions are probed at once, V; score(rows, batch): the score of all of them, for `rows`
    rows each, in a batch of that size. event: the shape of one data point; sampler: whose run it is, to name what it
    draws from. Raises ValueError on a bad event.
    """

    def __init__(
        self, copies: int, score: Callable[[int, int], Score], event: tuple[int, ...], sampler: object = None
    ) -> None:
        if any(size < 1 for size in event):
            raise ValueError(f"event {event}: the shape of a data point is positive numbers, such as 3,4,4")
        self.copies, self.score, self.event, self.sampler = copies, score, event, sampler
        self.checks = _Checks()
        self.widths: list[int] | None = None
        self.alone: Array | None = None
        self.label: object = None
        self.labels: list[object] = []
        # How draws are read: where their numbers act, None as they stand; whether Gaussians are used stepwise.
        self.layouts: dict[int, Layout] | None = None
        self.is_stepwise = False
        self.order = 0  # of the cells of a batch, where some share numbers

    @property
    def laws(self) -> list[Law]:
        """Of the draws."""
        return self.checks.laws

    def columns_of(self, run: Run, discover: bool = True) -> Columns:
        """The map of `run`, of nan if it diverges; discover: run the checking rows alone first.

        Numbers are taken to stand where they act, and Gaussians to be used linearly; where that fails, the places are
        found, and Gaussians tried as steps of a law. Raises BlackBoxError.
        """
        try:
            if discover or self.widths is None:
                self.discover(run)
            return self.read(run)
        except (SamplerRaised, NotAState):
            raise
        except BlackBoxError as error:
            columns, named = self._otherwise(run)
            if columns is not None:
                return columns
            raise named or self._named(error, run) from error

    def _otherwise(self, run: Run) -> tuple[Columns | None, BlackBoxError | None]:
        """The map by the other ways to read draws, or the error of one that names a cause."""
        given, named = (self.layouts is not None, self.is_stepwise), None
        for found, stepwise in ((True, False), (False, True), (True, True)):
            if (found, stepwise) == given or self.widths == []:
                continue
            self.layouts, self.is_stepwise, self.widths, kept = {} if found else None, stepwise, None, self.widths
            try:
                self.discover(run)
                return self.read(run), None
            except NamedCause as error:
                named = named or error
            except BlackBoxError:
                pass
            self.widths = kept
        self.layouts, self.is_stepwise = ({} if given[0] else None), given[1]
        return None, named

    def _named(self, error: BlackBoxError, run: Run) -> BlackBoxError:
        """The error, or another that names a cause which has been seen at work."""
        states = torch.as_tensor(np.zeros((max(3, self.copies), 2, *self.event)))
        score = self.score(1, max(3, self.copies))

        def again() -> None:
            call(run, states, score, lambda _, shape, law: torch.full(shape, 0 if law.nodes is None else law.nodes[0]))

        sentence = other_source(self.sampler, again) if self.sampler is not None else None
        return error if sentence is None else BlackBoxError(sentence)

    def discover(self, run: Run) -> Response:
        """Run the checking rows alone; tells the draws."""
        self.checks.clear()
        widths: list[int] = []

        def noise(k: int, width: int, law: Law) -> Array:
            widths.append(width)
            return self.checks.noise(k, width, law)[:CHECKS]

        # The small ones alone: what is taken of the batch, its mean or its largest entry, is another one then.
        self.alone, response = self._respond(run, self.checks.states[:CHECKS], noise)
        if self.copies == 1 and not self.event:
            self._check_a_batch_of_one(run)
        if self.widths is not None and widths != self.widths:
            raise BlackBoxError(
                f"the sampler draws {_sizes(widths)}, and {_sizes(self.widths)} in its first call; {_SAME_DRAWS}"
            )
        self.widths = widths
        return response

    def _check_a_batch_of_one(self, run: Run) -> None:
        """A state alone must go where it goes in company."""
        alone = self.alone if self.alone is not None else self.checks.states[None]
        try:
            out, _ = self._respond(run, self.checks.states[:1], lambda *draw: self.checks.noise(*draw)[:1])
        except BlackBoxError as error:
            raise BlackBoxError(f"{error}; another batch went through: is state left over from it?") from error
        error = float(np.abs(out[:, 0] - alone[:, 0]).max() / max(1.0, float(np.abs(out).max())))
        if not error <= _FLOAT32:
            raise BlackBoxError(
                f"the sampler does something else with a batch of one: it differs by {error:.1e}; it mixes the entries "
                "of a batch, as a mean over them does, or branches on their number"
            )

    def read(self, run: Run) -> Columns:
        """The map of `run`, of nan if it diverges. Raises BlackBoxError."""
        columns, several = self._read(run), False
        while self._next_order():  # the cells that share numbers with those before, and do the same
            other, several = self._read(run), True
            for name in ("offset", "state", "map"):
                one, two = (np.asarray(getattr(each, name)[-1 if name == "map" else ...]) for each in (columns, other))
                if not np.abs(one - two).max() <= max(_TOLERANCE, 4 * columns.rounding) * max(1.0, np.abs(one).max()):
                    raise NamedCause("entries that share their noise are treated differently; draw noise for each")
        # who listens to the scores' states hears those of the map that is returned
        return self._read(run) if several else columns

    def _read(self, run: Run) -> Columns:
        widths = self.widths or []
        try:
            out, response = self._respond_in_blocks(run, widths)
        except SamplerRaised as error:
            raise SamplerRaised(f"{error}; another batch went through: is state left over from it?") from error
        values = [1 if law.nodes is None else len(law.nodes) for law in self.laws[: len(widths)]]
        counts = [width * each for width, each in zip(widths, values, strict=True)]
        width = sum(counts)
        offset, checked = out[:, 0], out[:, 3 + width :]
        columns = out[:, 1 : 3 + width] - offset[:, None]
        if not (np.abs(out) <= _OVERFLOW).all():
            columns, rounding = np.full(columns.shape, math.nan), 0.0
        else:
            given = [self.checks.states]
            for noise, law in zip(self.checks.noises[: len(widths)], self.laws, strict=False):
                given.append(noise if law.nodes is None else _one_hot(noise, len(law.nodes)))
            rounding = self._departure(checked, offset[:, None] + np.concatenate(given, axis=1) @ columns)
            self._check_alone(checked, rounding)
        offset, draws, increments = self.centred(offset, columns[:, 2:])
        is_of = np.repeat(np.arange(len(counts)), counts)
        return Columns(offset, columns[:, :2], draws, is_of, increments, rounding, response)

    def centred(self, offset: Array, draws: Array) -> tuple[Array, Array, tuple[Increment, ...]]:
        """Offset (V, 2) and rows of draws (V, rows, 2) as they were read, with numbers of mean 0 and variance 1 in the
        place of the values of discrete laws; and what those add."""
        widths = self.widths or []
        counts = [w * (1 if law.nodes is None else len(law.nodes)) for w, law in zip(widths, self.laws, strict=False)]
        settled, increments = list[Array](), list[Increment]()
        for block, law in zip(
            np.split(draws, np.cumsum(counts)[:-1], axis=1) if counts else [], self.laws, strict=False
        ):
            if law.nodes is None or law.weights is None:
                settled.append(block)
                continue
            moved, weights = block.reshape(len(block), -1, len(law.nodes), 2), law.weights[:, None]
            _check_steps(moved, law)
            mean = (weights * moved).sum(2)[:, :, None]
            offset = offset + mean.sum((1, 2))
            increments += [Increment(law.weights, slot) for slot in np.moveaxis(moved - mean, 1, 0)]
            settled.append((np.sqrt(weights) * (moved - mean)).reshape(block.shape))
        return offset, np.concatenate(settled, axis=1) if settled else draws, tuple(increments)

    def _departure(self, checked: Array, predicted: Array) -> float:
        """0 if the map is affine to float64, the relative departure if that is float32 rounding; raises otherwise."""
        small, large = (
            float(np.abs(checked[:, rows] - predicted[:, rows]).max() / max(1.0, np.abs(checked[:, rows]).max()))
            for rows in (slice(0, CHECKS), slice(CHECKS, None))
        )
        worst = max(small, large)
        if worst <= _TOLERANCE:
            return 0.0
        if worst <= _FLOAT32:
            return worst
        kind = "it rounds to half precision, or branches" if large <= _GROWTH * small else "it is nonlinear"
        drawn = sorted({law.source for law in self.laws if law.nodes is not None and law.source != "randn"})
        if drawn:
            kind = f"what it draws from torch.{drawn[0]} must be added to its state, each number by itself"
        raise BlackBoxError(
            "the sampler is not an affine map of its state and noise on a Gaussian target: it departs by "
            f"{small:.1e} of its size for states of size 2 and by {large:.1e} for states of size {2 * _LARGE}; {kind}"
        )

    def _check_alone(self, checked: Array, rounding: float) -> None:
        if self.alone is None:
            return
        small = checked[:, :CHECKS]
        error = float(np.abs(self.alone - small).max() / max(1.0, float(np.abs(small).max())))
        if not error <= max(_TOLERANCE, 4 * rounding):
            raise BlackBoxError(
                f"the sampler gives other results in another batch or when called again: they differ by {error:.1e}; "
                "it mixes the entries of a batch, or keeps state between calls: give it a reset() then"
            )
        self.alone = None

    def _respond_in_blocks(self, run: Run, widths: list[int]) -> tuple[Array, Response]:
        """All probes, in as many calls as their number needs: (V, rows, 2). Row 0 is zero, rows 1 and 2 unit states,
        then come a unit in each slot of each draw, or each value of a discrete law, and the checking rows."""
        values = [1 if law.nodes is None else len(law.nodes) for law in self.laws[: len(widths)]]
        offsets = np.cumsum([3, *(width * each for width, each in zip(widths, values, strict=True))])
        checking = int(offsets[-1])  # the first row that checks
        if max(values, default=1) > 1 and checking > _MOST_VALUES:
            raise BlackBoxError(
                f"the sampler draws {sum(widths)} numbers a coordinate in a run, not all Gaussians, whose values "
                "are tried one by one; verify fewer steps at once, or its step"
            )
        size = max(1, _BATCH // self.copies)
        if self.layouts and self._draws_per_entry():
            size = max(1, _SMALL_BATCH // self.copies)
            cost = (checking + 2 * CHECKS) * self.copies * sum(widths) // 2
            if cost > _MOST_DRAWS:
                raise BlackBoxError(
                    f"the sampler draws once for each entry of a batch, {cost:.1e} times to be verified; give fewer "
                    "steps, such as --steps 10,20,40,80"
                )
        calls = []
        for first in range(0, checking + 2 * CHECKS, size):
            rows = np.arange(first, min(first + size, checking + 2 * CHECKS))
            calls.append(self._respond_block(run, rows, offsets, checking))
        return np.concatenate([out for out, _ in calls], axis=1), calls[0][1]

    def _respond_block(
        self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64], checking: int
    ) -> tuple[Array, Response]:
        check = np.maximum(rows - checking, 0)
        is_check = (rows >= checking)[:, None]
        widths, drawn = self.widths or [], 0

        def noise(k: int, width: int, law: Law) -> Array:
            nonlocal drawn
            drawn += 1
            if k >= len(widths) or width != widths[k]:
                raise BlackBoxError(
                    f"draw {k + 1} of the sampler, {width} Gaussians a coordinate, is not that of its first call; "
                    f"{_SAME_DRAWS}"
                )
            # whose turn it is: a unit, or a value of a discrete law; at rest is 0, or the first value
            values = 1 if law.nodes is None else len(law.nodes)
            turn = rows[:, None] - offsets[k] - np.arange(width) * values
            moved = np.where((turn >= 0) & (turn < values), turn + (law.nodes is None), 0).astype(float)
            return np.where(is_check, self.checks.noise(k, width, law)[check], moved)

        units = (rows[:, None] == np.array([1, 2])).astype(float)
        out, response = self._respond(run, np.where(is_check, self.checks.states[check], units), noise)
        if drawn != len(widths):
            raise BlackBoxError(
                f"the sampler draws {drawn} times, and {len(widths)} times in its first call; {_SAME_DRAWS}"
            )
        return out, response

    # --- One call -----------------------------------------------------------------------------------------------------

    def _respond(self, run: Run, states: Array, noise: Callable[[int, int, Law], Array]) -> tuple[Array, Response]:
        """`run` on every row for every target: (V, rows, 2). The rows fill the cells of a batch."""
        V, rows = self.copies, len(states)
        elements = math.prod(self.event)
        # What fills up the last event, and a batch of at least two, is no zero, nor the same in another call: entries
        # that mix show then.
        batch = max(2, math.ceil(V * rows / elements)) if rows > 1 or V > 1 else 1
        filler = np.random.default_rng(rows)
        layout = None
        if self.layouts is not None:
            batch, layout = self._layout(run, rows, batch)
        cells = batch * elements
        order = np.arange(cells) if layout is None else layout.orders[min(self.order, len(layout.orders) - 1)]

        def fill(values: Array, law: Law | None = None, order: NDArray[np.int64] = order) -> Array:
            """Values (rows, width) of every target in the cells they belong to: (cells, width)."""
            width = values.shape[1]
            given = filler.uniform(-2, 2, (cells, width))
            if law is not None and law.nodes is not None:
                values, given = (
                    law.nodes[values.astype(int)],
                    law.nodes[filler.integers(0, len(law.nodes), given.shape)],
                )
            given[: V * rows] = np.tile(values, (V, 1))
            placed = np.empty_like(given)
            placed[order] = given
            return placed

        def pack(values: Array) -> Tensor:
            stood = values.reshape(batch, elements, -1).transpose(0, 2, 1)
            return torch.as_tensor(np.ascontiguousarray(stood))

        labels: list[object] = []
        pool = np.empty(0) if layout is None else np.zeros(sum(layout.recorded.sizes))
        if layout is not None:
            for k, group in enumerate(layout.groups):
                values = fill(noise(k, group.places.shape[1], group.law), group.law)
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
                    raise BlackBoxError(f"the sampler draws {tuple(shape)} where it did not before; {_SAME_DRAWS}")
                drawn, taken = drawn + 1, taken + math.prod(shape)
                return torch.as_tensor(pool[taken - math.prod(shape) : taken].reshape(shape))
            width, rest = divmod(math.prod(shape[1:]), elements)
            if not shape or shape[0] != batch or rest:
                raise BlackBoxError(
                    f"the sampler draws noise of shape {tuple(shape)} for a state of shape {(batch, 2, *self.event)}: "
                    "which numbers belong to which entry cannot be told, or several entries share them; draw noise of "
                    "the state's shape, in one call"
                )
            labels.append(label)
            # a score that is reordered answers, and draws its answer, in the order of the rows
            own = order if label is None else np.arange(cells)
            return pack(fill(noise(len(labels) - 1, width, law), law, own)).reshape(shape)

        score = self.score(rows, batch)
        if layout is not None and len(layout.orders) > 1:
            score = _reordered(score, order, batch, self.event)
        response = call(run, pack(fill(states)).reshape(batch, 2, *self.event), score, draw)
        self.labels = labels
        return self.unpack(response.state, rows, order), response

    def unpack(self, state: Tensor, rows: int, order: NDArray[np.int64] | None = None) -> Array:
        """A state `(batch, 2, *event)` as (V, rows, 2); order: of its cells."""
        cells = state.detach().double().clone().numpy(force=True).reshape(len(state), 2, -1).transpose(0, 2, 1)
        cells = cells.reshape(-1, 2) if order is None else cells.reshape(-1, 2)[order]
        return cells[: self.copies * rows].reshape(self.copies, rows, 2)

    def _read_as(self, law: Law, label: object) -> Law:
        """A Gaussian that is no answer of a score, as steps of a law if it is tried so."""
        return stepwise_normal() if self.is_stepwise and label is None and law.nodes is None else law

    # --- Where numbers act --------------------------------------------------------------------------------------------

    def _next_order(self) -> bool:
        """Go on to cells that were not looked at; False, and back to the first, if there are none."""
        layouts = (self.layouts or {}).values()
        self.order = self.order + 1 if self.order + 1 < max((len(each.orders) for each in layouts), default=1) else 0
        return self.order > 0

    def _layout(self, run: Run, rows: int, batch: int) -> tuple[int, Layout]:
        """A batch with room for the rows, at cells that share no numbers, and its layout."""
        assert self.layouts is not None
        needed, elements = self.copies * rows, math.prod(self.event)
        batch = batch if batch == 1 else max(batch, 5)  # no size of an axis that means something else
        for _ in range(2):
            if batch not in self.layouts:
                like = next(iter(self.layouts.values()), None)
                ask: Ask = lambda on, n=batch: self._ask(run, n, on)  # noqa: E731
                self.layouts[batch] = find_layout(ask, elements, self.event, like)
            if (layout := self.layouts[batch]).live >= needed:
                return batch, layout
            batch = 2 * math.ceil(needed / elements / 2) * 2
        raise NamedCause("several entries share their noise; draw noise of the state's shape")

    def _draws_per_entry(self) -> bool:
        """Whether the number of draws grows with the batch."""
        layouts = self.layouts or {}
        counts = [len(layouts[batch].recorded.shapes) for batch in sorted(layouts) if batch > 1]
        return bool(counts) and 1 in layouts and counts[-1] > len(layouts[1].recorded.shapes)

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
                    raise BlackBoxError(f"the sampler draws more than it did before; {_SAME_DRAWS}")
                part = slice(taken - count, taken)
                values += switches[part] * (acting - rest) * (sizes[part] if law.nodes is None else 1.0)
            return torch.as_tensor(values.reshape(shape))

        # so many rows that the batch is theirs: the cells' own numbers are all that matters
        rows = max(1, batch * math.prod(self.event) // self.copies)
        states = np.random.default_rng(batch).uniform(-2, 2, (batch, 2, *self.event))
        response = call(run, torch.as_tensor(states), self.score(rows, batch), draw)
        out = response.state.detach().double().numpy(force=True).reshape(batch, 2, -1).transpose(0, 2, 1)
        return out.reshape(-1, 2).copy(), Recorded(tuple(shapes), tuple(laws))


def _one_hot(codes: Array, values: int) -> Array:
    """(rows, width) numbers of values as (rows, width x values)."""
    return (codes[..., None] == np.arange(values)).astype(float).reshape(len(codes), -1)


def _check_steps(moved: Array, law: Law) -> None:
    """Raises NamedCause unless what a number adds (V, width, values, 2) is constant on each part of its law, or, of a
    uniform number, linear there."""
    if not law.cells:
        return
    parts = moved.reshape(*moved.shape[:2], law.cells, -1, 2)
    rest = parts - parts[..., :1, :]
    if law.is_uniform:
        across = np.array(
            [0, *(np.diff(law.nodes.reshape(law.cells, -1)[0]).cumsum() if law.nodes is not None else ())]
        )
        rest = rest - rest[..., -1:, :] * (across / across[-1])[:, None]
    if not np.abs(rest).max(initial=0.0) <= _FLOAT32 * max(1e-3, float(np.abs(moved).max(initial=0.0))):
        what = (
            "neither linear nor steps at twelfths"
            if law.is_uniform
            else "neither linear nor steps of equal probability"
        )
        raise NamedCause(
            f"the sampler takes a function of what it draws from torch.{law.source} that is {what}; draw from "
            "torch.randn, or a two- or three-point law from torch.randint"
        )


def _reordered(score: Score, order: NDArray[np.int64], batch: int, event: tuple[int, ...]) -> Score:
    """A score that is asked with its cells in another order."""
    back, shape = np.argsort(order), (batch, 2, *event)

    def arranged(u: Tensor, cells: NDArray[np.int64]) -> Tensor:
        flat = u.reshape(batch, 2, -1).transpose(1, 2).reshape(-1, 2)[torch.as_tensor(cells)]
        return flat.reshape(batch, -1, 2).transpose(1, 2).reshape(shape)

    return lambda u, t: arranged(score(arranged(u, order), t), back).reshape(u.shape)


def _sizes(widths: list[int]) -> str:
    return f"{len(widths)} times ({sum(widths)} Gaussians a coordinate)"

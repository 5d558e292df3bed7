"""Probes: a black box as a function of its state and of each number that it draws, read off column by column.

One call on a batch of rows does it: a zero state, unit states, and for each number drawn a unit, or where its law is
discrete every value, all others at rest. Nothing is taken on trust. Further rows, with random states and numbers of two
sizes, must come out as the columns say: a departure of a few float32 roundings is measured and reported, a larger one
is refused. The same rows alone, in another batch and in another call, must come out the same, or entries of the batch
mix or state is left over.

How rows become a batch is the business of blackbox.calls, what is made of the columns that of blackbox.columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...integrators.blackbox import BlackBoxError, NotAState, NotFinite, Response, Run, SamplerRaised, Score
from ...integrators.draws import Law
from ...integrators.light_draws import are_in_place
from ..verdicts import Array
from .calls import SAME_DRAWS, Calls, Prepared
from .causes import NOT_ALIKE, NotAffine, cause_of, dependence
from .columns import FLOAT32, Columns, Increment, centred
from .layout import NamedCause

# Rows that check a map: states and noises of size up to 2, and as many of 64 times that size.
CHECKS, _LARGE = 4, 64
# How well they must agree: float64 steps agree to 1e-13 or so. What is within FLOAT32 is reported.
_TOLERANCE = 1e-10
# One below FLOAT32, also where states are 64 times larger, moves a state by no more than rounding would.
# Coordinates (rows times targets) in one call: a few MB of intermediate results.
_BATCH = 1 << 17
# The most draws where each entry of a batch draws for itself, each a call of some microseconds.
_MOST_DRAWS = 4_000_000
# A run that makes a state of size 1 as large as this diverges; float64 keeps no digit of an affine map beyond it.
_OVERFLOW = 1e15
_LEFT_OVER = (
    "the sampler does something else when it is called again with the same state and the same numbers: state is left "
    "over from its former runs; begin each run afresh"
)
# Values of discrete draws to try in one map; a few thousand rows are a call of a second.
_MOST_VALUES = 1 << 14


class LeftOver(BlackBoxError):
    """A run that is another one when it is called again."""


class _Checks:
    """The checking rows: states of all bits, which rounding of any kind changes, and noises of so few bits that drawing
    them in a lower precision is not taken for rounding; of a discrete law, some of its values."""

    def __init__(self, components: int) -> None:
        self._rng = np.random.default_rng(0)  # any numbers will do
        self.states = self._rng.uniform(-2, 2, (2 * CHECKS, components))
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


class Probe(Calls):
    """A black box as a function of its state and of what it draws; `widths` of its draws, numbers a coordinate, once
    known.

    copies, score, event, components: of `Calls`; sampler: whose run it is, to name what it draws from; again: whether
    it is run twice on the same, and once more in the first way where another way to read its draws is taken: what is
    left over from a run shows.
    """

    def __init__(
        self,
        copies: int,
        score: Callable[[int, int], Score],
        event: tuple[int, ...],
        sampler: object = None,
        components: int = 2,
        again: bool = False,
    ) -> None:
        super().__init__(copies, score, event, components)
        self.sampler, self.again = sampler, again
        self.checks = _Checks(components)
        self.widths: list[int] | None = None
        self.alone: Array | None = None
        self.uneven = False  # whether some of what no probe fills went elsewhere
        self.repeats = False  # whether run after run is read, each with the same draws
        self._prepared = dict[int, Prepared]()  # of the probes, by their first row
        self._known: tuple[list[int], Array] | None = None

    @property
    def laws(self) -> list[Law]:
        """Of the draws."""
        return self.checks.laws

    def columns_of(self, run: Run, discover: bool = True) -> Columns:
        """The map of `run`, of nan if it diverges; discover: run the checking rows alone first.

        Numbers are taken to stand where they act, and Gaussians to be used linearly; where that fails, the places are
        found, and Gaussians tried as steps of a law. Raises BlackBoxError.
        """
        if self.widths is not None and (columns := self.lightly(run, discover)) is not None:
            return columns
        try:
            if discover or self.widths is None:
                self.discover(run)
                if self.again:
                    self._check_again(run)
            return self.lightly(run) or self.read(run)
        except (SamplerRaised, NotAState, NotFinite, LeftOver):
            raise
        except BlackBoxError as error:
            if (cause := dependence(self, run)) is not None:
                raise cause from error
            columns, named = self._otherwise(run)
            if columns is not None:
                return columns
            cause = cause_of(error, self, run, self.sampler)
            if named is not None and str(cause) == NOT_ALIKE:  # the least that can be said
                cause = named
            raise (cause or named or error) from error

    def lightly(self, run: Run, discover: bool = False) -> Columns | None:
        """`columns_of` a run of known draws, watched by the names of torch alone (`light_draws`); None where that
        cannot be, or something is wrong: its cause shows where all that is called is watched."""
        if not are_in_place():
            return None
        self.light = True
        try:
            if discover:
                self.discover(run)
            return self.read(run)
        except BlackBoxError:
            return None
        finally:
            self.light = False

    def _otherwise(self, run: Run) -> tuple[Columns | None, BlackBoxError | None]:
        """The map by the other ways to read draws, or the error of one that names a cause."""
        given, named = (self.layouts is not None, self.is_stepwise), None
        for found, stepwise in ((True, False), (False, True), (True, True)):
            if (found, stepwise) == given or self.widths == []:
                continue
            kept = self.widths
            try:
                columns = self._in_a_way(run, found, stepwise)
                if not self.again:
                    return columns, None
                try:
                    self._in_a_way(run, *given)
                except BlackBoxError:
                    return self._in_a_way(run, found, stepwise), None  # who listens hears the run that is returned
                raise LeftOver(_LEFT_OVER)
            except LeftOver:
                raise
            except NamedCause as error:
                named = named or error
            except BlackBoxError:
                pass
            self.widths = kept
        self.layouts, self.is_stepwise = ({} if given[0] else None), given[1]
        return None, named

    def _in_a_way(self, run: Run, found: bool, stepwise: bool) -> Columns:
        """The map, with the places of draws found or as they stand, and Gaussians stepwise or linearly."""
        self.layouts, self.is_stepwise, self.widths = {} if found else None, stepwise, None
        self.discover(run)
        return self.read(run)

    def _check_again(self, run: Run) -> None:
        """The same run must be the same, to rounding: what a library makes ready at first may be in float32."""
        out, _ = self.respond(run, self.checks.states[:CHECKS], lambda *draw: self.checks.noise(*draw)[:CHECKS])
        first, near = (out if self.alone is None else self.alone), FLOAT32 * max(1.0, float(np.abs(out).max()))
        if len(self.labels) != len(self.widths or []) or not np.allclose(out, first, 0, near, equal_nan=True):
            raise LeftOver(_LEFT_OVER)
        self.alone = out

    def discover(self, run: Run) -> Response:
        """Run the checking rows alone; tells the draws."""
        self.checks.clear()
        self._prepared.clear()
        self._known = None
        widths: list[int] = []

        def noise(k: int, width: int, law: Law) -> Array:
            widths.append(width)
            return self.checks.noise(k, width, law)[:CHECKS]

        # The small ones alone: what is taken of the batch, its mean or its largest entry, is another one then.
        self.alone, response = self.respond(run, self.checks.states[:CHECKS], noise)
        if self.copies == 1 and not self.event:
            self._check_a_batch_of_one(run)
        if self.widths is not None and widths != self.widths:
            raise BlackBoxError(
                f"the sampler draws {_sizes(widths)}, and {_sizes(self.widths)} in its first call; {SAME_DRAWS}"
            )
        self.widths = widths
        return response

    def _check_a_batch_of_one(self, run: Run) -> None:
        """A state alone must go where it goes in company."""
        alone = self.alone if self.alone is not None else self.checks.states[None]
        try:
            out, _ = self.respond(run, self.checks.states[:1], lambda *draw: self.checks.noise(*draw)[:1])
        except NotAState:
            raise
        except BlackBoxError as error:
            raise BlackBoxError(f"{error}; another batch went through: is state left over from it?") from error
        error = float(np.abs(out[:, 0] - alone[:, 0]).max() / max(1.0, float(np.abs(out).max())))
        if not error <= FLOAT32:
            raise BlackBoxError(
                f"the sampler does something else with a batch of one: it differs by {error:.1e}; it mixes the entries "
                "of a batch, as a mean over them does, or branches on their number"
            )

    def read(self, run: Run) -> Columns:
        """The map of `run`, of nan if it diverges. Raises BlackBoxError."""
        self.uneven = False
        columns, several = self._read(run), False
        while self.next_order():  # the cells that share numbers with those before, and do the same
            other, several = self._read(run), True
            for name in ("offset", "state", "map"):
                one, two = (np.asarray(getattr(each, name)[-1 if name == "map" else ...]) for each in (columns, other))
                if not np.abs(one - two).max() <= max(_TOLERANCE, 4 * columns.rounding) * max(1.0, np.abs(one).max()):
                    raise NamedCause("entries that share their noise are treated differently; draw noise for each")
        if self.uneven:  # and not because they share their noise
            raise NamedCause(NOT_ALIKE)
        # who listens to the scores' states hears those of the map that is returned
        return self._read(run) if several else columns

    def _read(self, run: Run) -> Columns:
        widths = self.widths or []
        try:
            out, response = self._respond_in_blocks(run, widths)
        except SamplerRaised as error:
            raise SamplerRaised(f"{error}; another batch went through: is state left over from it?") from error
        counts, given = self._given
        width = sum(counts)
        n = self.components
        offset, checked = out[:, 0], out[:, 1 + n + width :]
        columns = out[:, 1 : 1 + n + width] - offset[:, None]
        if not (np.abs(out) <= _OVERFLOW).all():
            columns, rounding = np.full(columns.shape, math.nan), 0.0
        else:
            rounding = self._departure(checked, offset[:, None] + given @ columns)
            self._check_alone(checked, rounding)
            self.uneven |= not self._spare_agree(offset, columns, rounding)
        offset, draws, increments = self.centred(offset, columns[:, n:])
        is_of = np.repeat(np.arange(len(counts)), counts)
        return Columns(offset, columns[:, :n], draws, is_of, increments, rounding, response)

    @property
    def _given(self) -> tuple[list[int], Array]:
        """How many rows each draw has, and the checking rows in terms of all of them."""
        if self._known is None:
            laws = self.laws[: len(self.widths or [])]
            counts = [
                w * (1 if law.nodes is None else len(law.nodes)) for w, law in zip(self.widths or [], laws, strict=True)
            ]
            given = [self.checks.states]
            for noise, law in zip(self.checks.noises[: len(laws)], laws, strict=True):
                given.append(noise if law.nodes is None else _one_hot(noise, len(law.nodes)))
            self._known = counts, np.concatenate(given, axis=1)
        return self._known

    def centred(self, offset: Array, draws: Array) -> tuple[Array, Array, tuple[Increment, ...]]:
        """As `columns.centred`, of the draws of this box."""
        return centred(offset, draws, self.widths or [], self.laws)

    def _departure(self, checked: Array, predicted: Array) -> float:
        """0 if the map is affine to float64, the relative departure if that is float32 rounding; raises otherwise."""
        small, large = (
            float(np.abs(checked[:, rows] - predicted[:, rows]).max() / max(1.0, np.abs(checked[:, rows]).max()))
            for rows in (slice(0, CHECKS), slice(CHECKS, None))
        )
        worst = max(small, large)
        if worst <= _TOLERANCE:
            return 0.0
        if worst <= FLOAT32:
            return worst
        drawn = sorted({law.source for law in self.laws if law.nodes is not None and law.source != "randn"})
        kind = (
            f"; what it draws from torch.{drawn[0]} must be added to its state, each number by itself" if drawn else ""
        )
        raise NotAffine(
            "the sampler is not an affine map of its state and noise on a Gaussian target: it departs by "
            f"{small:.1e} of its size for states of size 2 and by {large:.1e} for states of size {2 * _LARGE}{kind}"
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

    def _spare_agree(self, offset: Array, columns: Array, rounding: float) -> bool:
        """Whether what no row fills, the last pixels of an image among it, goes where the columns say, too."""
        if self.copies > 1 or self.spare is None:
            return True
        given = [self.spare.states]
        for values, law in zip(self.spare.draws, self.laws, strict=False):
            given.append(values if law.nodes is None else _one_hot(values, len(law.nodes)))
        predicted = offset[0] + np.concatenate(given, axis=1) @ columns[0]
        error = float(np.abs(predicted - self.spare.result).max() / max(1.0, float(np.abs(predicted).max())))
        return error <= (FLOAT32 if rounding else _TOLERANCE)

    def _respond_in_blocks(self, run: Run, widths: list[int]) -> tuple[Array, Response]:
        """All probes, in as many calls as their number needs: (V, rows, components). Row 0 is zero, then come the unit
        states, a unit in each slot of each draw, or each value of a discrete law, and the checking rows."""
        values = [1 if law.nodes is None else len(law.nodes) for law in self.laws[: len(widths)]]
        offsets = np.cumsum([1 + self.components, *(width * each for width, each in zip(widths, values, strict=True))])
        checking = int(offsets[-1])  # the first row that checks
        if max(values, default=1) > 1 and checking > _MOST_VALUES:
            raise BlackBoxError(
                f"the sampler draws {sum(widths)} numbers a coordinate in a run, not all Gaussians, whose values "
                "are tried one by one; verify fewer steps at once, or its step"
            )
        size = max(1, _BATCH // self.copies)
        if self.layouts and self.draws_per_entry():
            size = CHECKS  # a batch whose layout is known: to find another's takes more draws than there are
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
        check, is_check = np.maximum(rows - checking, 0), (rows >= checking)[:, None]
        widths = self.widths or []

        def noise(k: int, width: int, law: Law) -> Array:
            if k >= len(widths) or width != widths[k]:
                raise BlackBoxError(
                    f"draw {k + 1} of the sampler, {width} Gaussians a coordinate, is not that of its first call; "
                    f"{SAME_DRAWS}"
                )
            # whose turn it is: a unit, or a value of a discrete law; at rest is 0, or the first value
            values = 1 if law.nodes is None else len(law.nodes)
            turn = rows[:, None] - offsets[k] - np.arange(width) * values
            moved = np.where((turn >= 0) & (turn < values), turn + (law.nodes is None), 0).astype(float)
            return np.where(is_check, self.checks.noise(k, width, law)[check], moved)

        if (same := self._prepared.get(int(rows[0]))) is None:
            units = (rows[:, None] == np.arange(1, 1 + self.components)).astype(float)
            same = self._prepared[int(rows[0])] = Prepared(np.where(is_check, self.checks.states[check], units))
        out, response = self.respond(run, same.rows, noise, same if self.repeats else None)
        if len(self.labels) != len(widths):
            raise BlackBoxError(
                f"the sampler draws {len(self.labels)} times, and {len(widths)} times in its first call; {SAME_DRAWS}"
            )
        return out, response


def _one_hot(codes: Array, values: int) -> Array:
    """(rows, width) numbers of values as (rows, width x values)."""
    return (codes[..., None] == np.arange(values)).astype(float).reshape(len(codes), -1)


def _sizes(widths: list[int]) -> str:
    return f"{len(widths)} times ({sum(widths)} Gaussians a coordinate)"

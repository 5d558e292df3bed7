"""All words over a splitting up to a length, each scheme once: what a search goes through.

A letter is a part with a weight of a small set, or S at a time of a small set. A word of up to `length` letters is
consistent if the weights of each part sum to 1 (theory.scheme), and then its order is 1 at least. Many consistent words
are one scheme in other letters. The canonical one of them

    merges     P(a) P(b) to P(a + b) where P flows exactly: it has no score, or holds what it takes ("exact"). Explicit
               Euler over two halves is another map than over the whole, and stays.
    drops      an S that no part uses: one of two in a row, one before parts without score alone, one at the end. With a
               memory it is remembered, so that it is used, and stays.
    sorts      neighbours that commute, in the order of the splitting's parts: the lexicographic normal form of a
               partially commutative monoid (Anisimov and Knuth 1979). Parts commute here if, with the score frozen, the
               flows do in both kinds: A_1 A_2 = A_2 A_1, A_1 G_2 = A_2 G_1 and A_1 D_2 = A_2 D_1 = 0.

and has as many letters as the shortest way to write it. What is the same for any other reason is found by its maps
(`have_the_same_maps`): all tables of a run are equal, whatever the score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from ...integrators.compiled import Run, compile_run
from ...theory.frozen import SCORE_HELD, Frozen
from ...theory.model import Parameters
from ...theory.scheme import FROZEN_FLOWS, Scheme
from ...theory.splitting import SCORE, Part, Splitting
from ..verdicts import Array

Letter = tuple[str, Fraction]  # a part and its weight, or S and its time
WEIGHTS = (Fraction(1), Fraction(1, 2))
TIMES = (Fraction(0), Fraction(1, 2), Fraction(1))
# Beyond that words are too many to go through.
LONGEST = 12
# Two sets of parameters in general position: what vanishes at both vanishes.
_GENERIC = (Parameters(), Parameters(gamma=0.7, nu=2.3, kappa=0.3))
# Tables that agree so far, relative to their largest entry, are one.
_SAME = 1e-10


@dataclass(frozen=True)
class Family:
    """The words of up to `length` letters over a splitting, whose parts follow in one way.

    weights, times: of parts and of S, each once. flow: "euler" or "exact"; frozen, memory: as in `Scheme`.
    Raises ValueError on what makes no word.
    """

    splitting: Splitting
    length: int
    flow: str = "euler"
    frozen: Frozen = SCORE_HELD
    memory: int = 1
    weights: tuple[Fraction, ...] = WEIGHTS
    times: tuple[Fraction, ...] = TIMES

    def __post_init__(self) -> None:
        if not 2 <= self.length <= LONGEST:
            raise ValueError(f"length = {self.length}: a word has a part and an S, and {LONGEST} letters at most here")
        if self.flow not in FROZEN_FLOWS:
            raise ValueError(f"flow {self.flow!r} is not sampled from a network; choose {' or '.join(FROZEN_FLOWS)}")
        for name, values, least in (("weights", self.weights, True), ("times", self.times, False)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} {', '.join(map(str, values)) or 'none'}: give at least one, and each once")
            if wrong := [value for value in values if not 0 <= value <= 1 or (least and value == 0)]:
                raise ValueError(f"{name}: {wrong[0]} is outside {'(0, 1]' if least else '[0, 1]'}")
        if 1 not in self._letters_of:
            raise ValueError(
                f"weights {', '.join(map(str, self.weights))}: no sum of them is 1, so that no word is consistent; add "
                "1 or 1/2"
            )

    # --- What there is to count ---

    @property
    def letters(self) -> int:
        """How many letters there are."""
        return len(self.splitting.parts) * len(self.weights) + len(self.times)

    def strings(self) -> list[int]:
        """How many strings of 1, ..., `length` letters there are, legal or not."""
        return [self.letters**count for count in range(1, self.length + 1)]

    def consistent(self) -> list[int]:
        """How many of these are words of the language whose weights sum to 1."""

        @cache
        def ways(left: tuple[Fraction, ...], letters: int, scored: bool) -> int:
            if letters == 0:
                return int(not any(left))
            total = len(self.times) * ways(left, letters - 1, True)
            for place, part in enumerate(self.splitting.parts):
                if part.sde.uses_score and not scored:
                    continue
                for weight in self.weights:
                    if weight <= left[place]:
                        rest = (*left[:place], left[place] - weight, *left[place + 1 :])
                        total += ways(rest, letters - 1, scored)
            return total

        whole = tuple(Fraction(1) for _ in self.splitting.parts)
        return [ways(whole, count, False) for count in range(1, self.length + 1)]

    # --- The canonical words ---

    def words(self) -> Iterator[str]:
        """The canonical words, as text of the language."""
        remaining = {name: Fraction(1) for name in self.splitting.part_names}
        for word in self._grown((), remaining, self.length):
            yield " ".join(_text(*letter) for letter in word)

    def scheme(self, word: str, name: str = "") -> Scheme:
        """A word of the family as a scheme. Raises ValueError where the language refuses it: a memory of evaluations at
        equal times, or of a drift that does not stand behind its S."""
        return Scheme(word, self.splitting, name, self.flow, frozen=self.frozen, memory=self.memory)

    @property
    def sub_flows(self) -> str:
        """How parts flow and what they hold, in words."""
        users_first = sorted(self.splitting.parts, key=lambda part: not part.sde.uses_score)
        return self.scheme(" ".join([SCORE, *(part.name for part in users_first)])).sub_flows

    def merges(self, part: Part) -> bool:
        """Whether two of it in a row are one."""
        return not part.euler and (self.flow == "exact" or not part.sde.uses_score)

    @cached_property
    def commuting(self) -> frozenset[tuple[str, str]]:
        """The pairs of parts that commute, both ways round."""
        pairs = itertools.permutations(self.splitting.parts, 2)
        return frozenset((a.name, b.name) for a, b in pairs if self._commute(a, b))

    def _commute(self, first: Part, second: Part) -> bool:
        holds_score = self.frozen == SCORE_HELD and self.memory == 1
        if not holds_score and (first.sde.uses_score or second.sde.uses_score):
            return False  # their coefficients depend on time
        return all(_commute_at(first, second, params) for params in _GENERIC)

    @cached_property
    def _letters_of(self) -> dict[Fraction, int]:
        """By each sum of weights that is at most 1 the fewest letters that it takes."""
        fewest = {Fraction(0): 0}
        for count in range(1, self.length + 1):
            reached = {before + weight for before in fewest for weight in self.weights}
            fewest |= {total: count for total in reached if total <= 1 and total not in fewest}
        return fewest

    def _grown(
        self, word: tuple[Letter, ...], remaining: dict[str, Fraction], left: int
    ) -> Iterator[tuple[Letter, ...]]:
        """The word, if it is complete, and all that begin with it, of `left` letters more."""
        needed = sum(self._letters_of.get(weight, math.inf) for weight in remaining.values())
        if needed > left:
            return
        used = self._is_used(word)
        if not needed and (used or self.memory > 1):
            yield word
        if not left:
            return
        scored = any(symbol == SCORE for symbol, _ in word)
        to_come = any(remaining[part.name] for part in self.splitting.parts if part.sde.uses_score)
        if self.memory > 1 or (used and to_come):
            for time in self.times:
                yield from self._grown((*word, (SCORE, time)), remaining, left - 1)
        for part in self.splitting.parts:
            if (part.sde.uses_score and not scored) or not self._may_follow(part, word):
                continue
            for weight, cost in self._weights_of(part):
                if weight <= remaining[part.name] and cost <= left:
                    rest = remaining | {part.name: remaining[part.name] - weight}
                    yield from self._grown((*word, (part.name, weight)), rest, left - cost)

    def _weights_of(self, part: Part) -> list[tuple[Fraction, int]]:
        """The weights of one letter, and how many letters it stands for."""
        if self.merges(part):
            return [(weight, cost) for weight, cost in self._letters_of.items() if cost]
        return [(weight, 1) for weight in self.weights]

    def _is_used(self, word: Sequence[Letter]) -> bool:
        """Whether a part has used the last S; True where there is none."""
        for symbol, _ in reversed(word):
            if symbol == SCORE:
                return False
            if self.splitting[symbol].sde.uses_score:
                return True
        return True

    def _may_follow(self, part: Part, word: Sequence[Letter]) -> bool:
        """Whether the part at the word's end leaves it canonical."""
        place = self.splitting.part_names.index
        for symbol, _ in reversed(word):
            if symbol == part.name:
                return not self.merges(part)
            if symbol == SCORE or (symbol, part.name) not in self.commuting:
                return True
            if place(symbol) > place(part.name):
                return False
        return True


def _text(symbol: str, number: Fraction) -> str:
    if symbol == SCORE:
        return symbol if number == 0 else f"{symbol}@{number}"
    return symbol if number == 1 else f"{symbol}({number})"


def _commute_at(first: Part, second: Part, params: Parameters) -> bool:
    A, G, D = first.sde.numbers(params.values())
    B, H, E = second.sde.numbers(params.values())
    size = max(float(np.abs(entry).max()) for entry in (A, B, G, H, D, E)) ** 2
    zero = (A @ B - B @ A, A @ H - B @ G, A @ E, B @ D)
    return all(float(np.abs(entry).max()) <= 1e-14 * size for entry in zero)


# --- What is the same for another reason ---


def have_the_same_maps(first: Scheme, second: Scheme, taus: Array, params: Parameters) -> bool:
    """Whether two words make the same run over the grid, whatever the score: all that they are compiled to agrees, to
    1e-10 of the largest entry of each table."""
    runs = [_tables(compile_run(scheme, taus, params)) for scheme in (first, second)]
    return len(runs[0]) == len(runs[1]) and all(
        a.shape == b.shape
        and bool((np.abs(a - b) <= _SAME * max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))).all())
        for a, b in zip(*runs, strict=True)
    )


def _tables(run: Run) -> list[NDArray[np.float64]]:
    """All that makes a run. What a memory takes from old evaluations may be nothing: then it is none."""
    times, flow, memory = run.updates
    takes = memory is not None and np.abs(memory.gains).max(initial=0) > _SAME * np.abs(flow.score_gain).max(initial=0)
    return [np.asarray(times), *run.prologue, *flow, *(memory if takes and memory is not None else ())]

"""Which word to run: all words up to a length, ranked by the exact distance to the data that a budget buys.

    words      every consistent word once (advice.words), over each splitting, with each sub-flow, quantity held and
               memory. A consistent word has order 1 at least.
    filter     each by exact moments at 64 nodes of the spectrum, with an estimate of what these leave out
               (advice.search_nodes): together a lower bound on its distance.
    judge      in the order of these bounds: stability, the order where more than 1 is asked for, and the distance on
               the whole spectrum (advice.search_judging). It ends where the next bound is larger than the distance of
               the last that is kept: as far as the estimates hold no other word can be among them.
    merge      words with equal maps, for every score, are one.
    prove      the order of those that are kept, as a theorem for every score; what is refuted is dropped.

Beside them stands the catalogue, judged alike, and of both the front: what nothing of at most its cost is nearer than.
A `SearchState` keeps what was done, answer by answer, so that a search goes on where it was stopped.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION
from ...theory.scheme import FROZEN_FLOWS, Scheme
from .search_findings import Findings, Found, described, name_of
from .search_judging import Judged, curve, filtered, judged, proven
from .search_settings import Search
from .search_state import SearchState
from .words import have_the_same_maps

KEPT = 40
# Words that one call filters, and judges; and that are judged before the end is looked for.
_CHUNK, _CALL, _BLOCK = 128, 4, 32
_ALIKE = 1e-9  # relative: words of distances further apart have other maps

# (place, function, arguments) of calls that do not depend on one another, to (place, result) as they come.
Call = tuple[int, Callable[..., Any], tuple[Any, ...]]
Answers = Callable[[list[Call]], Iterator[tuple[int, Any]]]
# What is begun, and how many there are to do; gives what is called with how many more are done.
Progress = Callable[[str, int], Callable[[int], None]]


def alone(calls: list[Call]) -> Iterator[tuple[int, Any]]:
    """The calls, one after the other."""
    for place, function, arguments in calls:
        yield place, function(*arguments)


def silent(*_: Any) -> Callable[[int], None]:
    """No progress."""
    return lambda *_: None


class Ranked(NamedTuple):
    """A word that passed the filter: the bound on its distance, its distance at the nodes, its family's place."""

    bound: float
    distance: float
    family: int
    word: str


def find_words(
    search: Search,
    state: SearchState,
    answers: Answers | None = None,
    progress: Progress = silent,
    keep: int = KEPT,
    beside: Sequence[Scheme] = tuple((CATALOGUE | EXPONENTIAL | POSITION).values()),
) -> Findings:
    """The `keep` nearest words that are stable and of the order asked for, and the schemes `beside` them, the
    catalogue's, as far as they are of the same diffusion.

    answers: makes calls, side by side if it likes; None: one after the other. Raises ValueError on a bad `keep`.
    """
    if keep < 1:
        raise ValueError(f"keep = {keep}: keep at least one word")
    run = _Run(search, state, answers or alone, progress)
    words = [list(family.words()) for family in search.families]
    ranked, ends = run.filtered(words)
    kept, judgements = run.judged(ranked, keep)
    proven_ones = run.with_orders(kept)
    left = [found for found in proven_ones if found.order is None or found.order >= search.order]
    counts = {
        "families": [
            {
                "splitting": family.splitting.name,
                "sub_flows": family.sub_flows,
                "letters": family.letters,
                "strings": family.strings(),
                "consistent": family.consistent(),
                "words": len(found),
            }
            for family, found in zip(search.families, words, strict=True)
        ],
        **ends,
        "ranked": len(ranked),
        "judged": len(judgements),
        "unstable": sum(
            not search.is_stable(memory, entry.growth, entry.from_start) for (_, memory), entry in judgements
        ),
        "slow": sum(entry.slope is not None and entry.slope < search.order - 0.5 for _, entry in judgements),
        "same": sum(len(found.others) for found in left),
        "refuted": len(proven_ones) - len(left),
    }
    errors = [
        (abs(entry.distance - at.distance), entry.distance, at.distance - at.bound)
        for (at, _), entry in judgements
        if entry.distance is not None
    ]
    return Findings(
        search,
        tuple(run.with_curves(left)),
        tuple(run.with_curves(run.with_orders(run.catalogue(beside)))),
        counts,
        max((error / whole for error, whole, _ in errors), default=0.0),
        max((error / estimate for error, _, estimate in errors if estimate > 0), default=0.0),
    )


class _Run:
    """A search that is under way."""

    def __init__(self, search: Search, state: SearchState, answers: Answers, progress: Progress) -> None:
        self.search, self.state, self.answers, self.progress = search, state, answers, progress

    def asked(
        self, what: str | None, calls: dict[str, tuple[int, Callable[..., Any], tuple[Any, ...]]]
    ) -> dict[str, Any]:
        """The answers of calls by name, each of so many things; what is known is not asked. what: they are, where they
        are all that there is to do."""
        tick = silent() if what is None else self.progress(what, sum(size for size, _, _ in calls.values()))
        missing = [name for name in calls if name not in self.state]
        tick(sum(size for name, (size, _, _) in calls.items() if name in self.state))
        for place, answer in self.answers([(i, *calls[name][1:]) for i, name in enumerate(missing)]):
            self.state.keep(missing[place], answer)
            tick(calls[missing[place]][0])
        return {name: self.state[name] for name in calls}

    # --- The steps ----------------------------------------------------------------------------------------------------

    def filtered(self, words: Sequence[Sequence[str]]) -> tuple[list[Ranked], dict[str, int]]:
        """The words that have a distance, by its bound, and how many have none for which reason."""
        calls, places = {}, {}
        for place, (family, own) in enumerate(zip(self.search.families, words, strict=True)):
            for first in range(0, len(own), _CHUNK):
                chunk = own[first : first + _CHUNK]
                name = f"filter {place} {first} {len(chunk)}"
                calls[name] = (len(chunk), filtered, (self.search, family, chunk))
                places[name] = (place, chunk)
        ranked, ends = [], Counter({"refused": 0, "too dear": 0, "diverged": 0})
        for name, found in self.asked("words", calls).items():
            place, chunk = places[name]
            for word, outcome in zip(chunk, found, strict=True):
                if isinstance(outcome, str):
                    ends[outcome] += 1
                else:
                    distance, error = outcome
                    ranked.append(Ranked(distance - error, distance, place, word))
        return sorted(ranked), dict(ends)

    def judged(
        self, ranked: Sequence[Ranked], keep: int
    ) -> tuple[list[Found], list[tuple[tuple[Ranked, int], Judged]]]:
        """The nearest that stand, and what was found of all that were looked at."""
        search, kept, tick = self.search, list[Found](), self.progress("kept", keep)
        judgements: list[tuple[tuple[Ranked, int], Judged]] = []
        for first in range(0, len(ranked), _BLOCK):
            if len(kept) >= keep and ranked[first].bound > _distance(kept[keep - 1]):
                break
            block = ranked[first : first + _BLOCK]
            schemes = [search.families[at.family].scheme(at.word) for at in block]
            calls = {}
            for start in range(0, len(block), _CALL):
                some = schemes[start : start + _CALL]
                calls[f"judge {first + start} {len(some)}"] = (len(some), judged, (search, some))
            asked = self.asked(None, calls)
            answers = [Judged(*entry) for found in asked.values() for entry in found]
            before = len(kept)
            for at, scheme, entry in zip(block, schemes, answers, strict=True):
                judgements.append(((at, scheme.memory), entry))
                if entry.distance is not None:
                    self._enter(kept, scheme, entry)
            tick(min(len(kept), keep) - min(before, keep))
        tick(keep - min(len(kept), keep))
        return kept[:keep], judgements

    def _enter(self, kept: list[Found], scheme: Scheme, entry: Judged) -> None:
        """Put a word where its distance belongs, or beside the one that it is."""
        taus = self.search.taus(scheme)
        if taus is None or entry.distance is None:
            return
        for place, other in enumerate(kept):
            alike = math.isclose(_distance(other), entry.distance, rel_tol=_ALIKE)
            if alike and have_the_same_maps(other.scheme, scheme, taus, self.search.params):
                kept[place] = replace(other, others=(*other.others, described(scheme)))
                return
        insort(kept, Found(scheme, name_of(scheme), len(taus) - 1, entry, True), key=_distance)

    def with_orders(self, schemes: Sequence[Found]) -> list[Found]:
        """With the proofs of their orders."""
        calls = {
            f"order {described(found.scheme)}": (1, proven, (found.scheme, self.search.params)) for found in schemes
        }
        answers = self.asked("proofs", calls).values()
        return [replace(found, order=order, unproven=why) for found, (order, why) in zip(schemes, answers, strict=True)]

    def with_curves(self, schemes: Sequence[Found]) -> list[Found]:
        """With their distances at the front's budgets."""
        budgets = self.search.budgets
        calls = {
            f"curve {described(found.scheme)}": (1, curve, (self.search, found.scheme, budgets)) for found in schemes
        }
        answers = self.asked("curves", calls).values()
        return [
            replace(found, curve=tuple((nfe, distance) for nfe, distance in points))
            for found, points in zip(schemes, answers, strict=True)
        ]

    def catalogue(self, beside: Sequence[Scheme]) -> list[Found]:
        """The schemes that are of the same diffusion, judged whether they are stable or not, the nearest first."""
        search = self.search
        schemes = [
            scheme
            for scheme in beside
            if scheme.splitting.diffusion == search.diffusion
            and scheme.flow in FROZEN_FLOWS
            and scheme.nfe_per_step < search.nfe
        ]
        anyone = replace(search, growth=math.inf, order=1)
        calls = {f"catalogue {scheme.name}": (1, judged, (anyone, [scheme])) for scheme in schemes}
        found = []
        for scheme, (answer,) in zip(schemes, self.asked("catalogue", calls).values(), strict=True):
            entry = Judged(*answer)
            stable = search.is_stable(scheme.memory, entry.growth, entry.from_start)
            found.append(Found(scheme, scheme.name, (search.nfe - 1) // scheme.nfe_per_step, entry, stable))
        return sorted(found, key=_distance)


def _distance(found: Found) -> float:
    return math.inf if found.judged.distance is None else found.judged.distance

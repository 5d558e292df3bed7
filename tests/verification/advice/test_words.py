"""Words are counted as the language counts them, and every scheme is gone through once: against all strings of letters,
each read by the language itself and compiled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from selection import nightly_but
from weakorder.integrators.compiled import compile_run
from weakorder.integrators.grids import time_grid
from weakorder.theory.frozen import FROZEN
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, VP_LINEAR, Part, Splitting
from weakorder.verification.advice.words import Family, have_the_same_maps

# In general position: no two words agree by chance, as they may where beta is constant.
PARAMS = Parameters(beta_min=3.0, beta_max=5.0, eps=0.1)
TAUS = time_grid("quadratic", 3, PARAMS)
THIRDS = (Fraction(1, 3), Fraction(1))
REVERSE = PSLD_DIFFUSION.reverse()
# Noise in position and noise in momentum act on their own, and commute.
NOISES = Splitting(
    "noises",
    PSLD_DIFFUSION,
    REVERSE,
    (
        Part("F", REVERSE.drift),
        Part("N", (0, 0), (0, REVERSE.diffusion[1])),
        Part("L", (0, 0), (REVERSE.diffusion[0], 0)),
    ),
)
CASES = [
    Family(PSLD_LINEAR, 4),
    Family(PSLD_LINEAR, 4, "exact"),
    Family(PSLD_FLOW, 4),
    Family(PSLD_WHOLE, 4, "exact", FROZEN["data"]),
    Family(PSLD_WHOLE, 3, "exact", FROZEN["data"], memory=2),
    Family(PSLD_WHOLE, 4, "euler", memory=2, times=(Fraction(0), Fraction(1, 2))),
    Family(PSLD_LINEAR, 4, "exact", weights=THIRDS, times=(Fraction(0),)),
    Family(NOISES, 4, times=(Fraction(0),)),
    Family(PSLD, 5, "exact", times=(Fraction(0), Fraction(1))),
    Family(PSLD_FLOW, 5, "exact"),
    Family(VP_LINEAR, 5, "euler"),
    Family(PSLD_LINEAR, 5),
]


def strings(family: Family) -> Iterator[tuple[int, str]]:
    """All strings of letters, with their number."""
    letters = [f"{part}({weight})" for part in family.splitting.part_names for weight in family.weights]
    letters += [f"S@{time}" for time in family.times]
    for count in range(1, family.length + 1):
        for string in itertools.product(letters, repeat=count):
            yield count, " ".join(string)


def consistent(family: Family) -> Iterator[tuple[int, Scheme]]:
    """The words among them whose weights sum to 1, by what the language says of each; with the memory, those that it
    allows."""
    for count, string in strings(family):
        try:
            plain = Scheme(string, family.splitting, flow=family.flow, frozen=family.frozen)
        except ValueError:
            continue
        if not plain.inconsistencies:
            yield count, plain


def fingerprint(scheme: Scheme) -> bytes:
    """A run's tables, to seven digits of the largest entry of each."""
    run = compile_run(scheme, TAUS, PARAMS)
    tables = [np.asarray(run.updates.time), *run.prologue, *run.updates.flow, *(run.updates.memory or ())]
    rounded = [np.round(table / (np.abs(table).max(initial=0) or 1), 7) + 0.0 for table in tables]
    return b"".join(table.tobytes() for table in rounded)


def check_counts(family: Family) -> None:
    found = [0] * family.length
    for count, _ in consistent(family):
        found[count - 1] += 1
    assert family.consistent() == found
    assert family.strings() == [family.letters**count for count in range(1, family.length + 1)]


def check_words(family: Family) -> None:
    """The canonical words make each run of a string once; strings with an S that nothing uses make runs that a cheaper
    string makes, but for what a memory does with it."""
    runs = set()
    for _, plain in consistent(family):
        if family.memory == 1 and any("no part uses" in warning for warning in plain.warnings):
            continue
        try:
            scheme = family.scheme(plain.word)
        except ValueError:
            continue
        runs.add(fingerprint(scheme))
    own = []
    for word in family.words():
        try:
            own.append(fingerprint(family.scheme(word)))
        except ValueError:
            assert family.memory > 1, word
    assert len(set(own)) == len(own), "a scheme twice"
    assert set(own) == runs


KEPT = CASES[:8]
IDS = [f"{case.splitting.name}-{case.length}-{case.flow}-{case.frozen}-{case.memory}" for case in CASES]


@pytest.mark.parametrize("family", nightly_but(lambda case: case in KEPT, CASES), ids=IDS)
def test_words_are_counted_as_the_language_counts_them(family: Family) -> None:
    check_counts(family)


@pytest.mark.parametrize("family", nightly_but(lambda case: case in KEPT, CASES), ids=IDS)
def test_every_scheme_is_gone_through_once(family: Family) -> None:
    check_words(family)


def test_parts_commute_where_their_flows_do() -> None:
    assert Family(NOISES, 4).commuting == {("N", "L"), ("L", "N")}
    assert not Family(PSLD, 4).commuting
    assert not Family(PSLD_FLOW, 4).commuting


MUTANTS = {
    "Euler's halves are taken for the whole": ("merges", lambda self, part: True, CASES[0]),
    "halves of an exact flow are two": ("merges", lambda self, part: False, CASES[1]),
    "an S that nothing uses is kept": ("_is_used", lambda self, word: True, CASES[0]),
    "what commutes is listed in both orders": ("commuting", frozenset(), CASES[7]),
    "what does not commute is sorted": ("commuting", frozenset({("A", "B"), ("B", "A")}), CASES[2]),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_pruning_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, value, family = MUTANTS[name]
    broken = Family(
        family.splitting, family.length, family.flow, family.frozen, family.memory, family.weights, family.times
    )
    monkeypatch.setattr(Family, attribute, value)
    with pytest.raises(AssertionError):
        check_words(broken)


def test_a_miscounted_letter_is_caught() -> None:
    family = Family(PSLD_LINEAR, 4)
    longer = Family(PSLD_LINEAR, 4, times=(*family.times, Fraction(1, 4)))
    assert longer.consistent() != family.consistent()


def test_words_with_the_same_maps_are_known_whatever_their_letters() -> None:
    """E's drift is its gain times the residual against the prior: held, it is constant, and Euler is exact."""
    euler = Scheme("U(1/2) S E U(1/2)", PSLD_LINEAR)
    exact = Scheme("U(1/2) S E U(1/2)", PSLD_LINEAR, flow="exact", frozen=FROZEN["residual"])
    assert have_the_same_maps(euler, exact, TAUS, PARAMS)
    other = Scheme("U(1/2) S E U(1/2)", PSLD_LINEAR, flow="exact")
    assert not have_the_same_maps(euler, other, TAUS, PARAMS)
    later = Scheme("U(1/2) S@1/2 E U(1/2)", PSLD_LINEAR)
    assert not have_the_same_maps(euler, later, TAUS, PARAMS)


def test_a_memory_that_takes_nothing_is_none() -> None:
    """The line through two drifts, the last of them in the middle of a step, has its integral by that alone."""
    middle, start = (Scheme(word, PSLD_WHOLE, memory=2) for word in ("S@1/2 F", "S F"))
    steady = Parameters(eps=0.1)
    assert have_the_same_maps(middle, middle.remembering(1), TAUS, steady)
    assert not have_the_same_maps(start, start.remembering(1), TAUS, steady)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 1}, "length = 1"),
        ({"length": 13}, "12 letters"),
        ({"flow": "true"}, "not sampled"),
        ({"weights": ()}, "at least one"),
        ({"weights": (Fraction(1), Fraction(1))}, "each once"),
        ({"weights": (Fraction(3, 2),)}, r"outside \(0, 1\]"),
        ({"weights": (Fraction(0),)}, r"outside \(0, 1\]"),
        ({"weights": (Fraction(2, 3),)}, "no sum of them is 1"),
        ({"times": (Fraction(2),)}, r"outside \[0, 1\]"),
    ],
)
def test_what_makes_no_word_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Family(**({"splitting": PSLD_LINEAR, "length": 4} | change))


def test_the_catalogues_words_are_among_them() -> None:
    """Each at the length that it has, and at no smaller one."""
    from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL

    for scheme in (CATALOGUE | EXPONENTIAL).values():
        length = len(scheme.tokens)
        if length > 6:
            continue
        family = Family(scheme.splitting, length, scheme.flow, scheme.frozen, scheme.memory)
        assert [word for word in family.words() if word == scheme.word] == [scheme.word], scheme.name
        if length > 2:
            shorter = Family(scheme.splitting, length - 1, scheme.flow, scheme.frozen, scheme.memory)
            assert scheme.word not in shorter.words(), scheme.name

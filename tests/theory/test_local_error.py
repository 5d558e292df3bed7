"""The local errors of the symbolic reading, by computation that shares nothing with it.

What `local_error` claims, with the jets of a concrete score put in, is held against the step that
tests/step_by_hand.py carries out: every monomial of the increments, every power of h. The comparison is ==. Steps with
one fault show that it can fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import brute_force
import pytest
from hypothesis import assume, given, settings
from selection import nightly_but
from specimens import BAOAB, STRANG
from step_by_hand import MODEL, Powers, at_the_point, exact_moments_of_increments, forward_moments, score_of
from strategies import FEW, schemes
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.local_error import local_error
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, Splitting

IRREGULAR = "S@1/4 B(2/3)@1/5 O(1/3) A(3/4) S@1 B(1/3) A(1/4)@1/2 O(2/3)"


def disagreements(
    scheme: Scheme, n: int, dims: int = 1, parts: Mapping[str, brute_force.Part] | None = None
) -> list[tuple[int, Powers]]:
    """Where the claimed local error is not forward minus exact: (power of h, monomial)."""
    truth = brute_force.parts_of(scheme.splitting.name, MODEL)
    score = score_of(scheme.splitting.name, dims)
    forward = forward_moments(scheme.word, parts or truth, scheme.flow, n, dims, score)
    exact = exact_moments_of_increments(truth, n, dims, score)
    claimed = local_error(scheme, n, dims)
    assert all(sum(powers) <= 2 * n for error in claimed for powers in error)
    return [
        (k, powers)
        for k in range(1, n + 1)
        for powers in exact
        if at_the_point(claimed[k - 1], powers, score) != forward[powers][k - 1] - exact[powers][k - 1]
    ]


BY_HAND = [
    ("S F", PSLD_WHOLE, {"euler": 2, "exact": 2, "midpoint": 2}),
    ("U(1/2) S E U(1/2)", PSLD_LINEAR, {"euler": 2}),
    (STRANG, PSLD_LINEAR, {"exact": 2, "midpoint": 3, "true": 2}),
    ("U(1/2) S@1/2 E U(1/2)@0", PSLD_LINEAR, {"true": 2}),
    ("O S B(1/2) A S@1 B(1/2)", PSLD, {"euler": 2, "exact": 2, "midpoint": 2, "true": 2}),
    (IRREGULAR, PSLD, {"euler": 2, "midpoint": 2, "true": 2}),
    ("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, {"euler": 2, "exact": 2, "midpoint": 2, "true": 3}),
    (BAOAB, LANGEVIN, {"euler": 3}),
    ("O S B A(1/2)", PSLD, {"euler": 2}),
]


HAND = [(word, splitting, flow, n) for word, splitting, flows in BY_HAND for flow, n in flows.items()]


@pytest.mark.parametrize(
    ("word", "splitting", "flow", "n"),
    nightly_but(HAND[::2].__contains__, HAND),
)
def test_the_local_error_is_what_a_step_by_hand_leaves(word: str, splitting: Splitting, flow: str, n: int) -> None:
    """Claim: up to h^n, for every monomial of the increments up to degree 2n, as a rational number."""
    assert disagreements(Scheme(word, splitting, flow=flow), n) == []


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("word", "splitting", "flow"),
    [(word, splitting, flow) for word, splitting, flows in BY_HAND for flow, n in flows.items() if n == 2],
)
def test_the_local_error_up_to_h3_is_what_a_step_by_hand_leaves(word: str, splitting: Splitting, flow: str) -> None:
    """Claim: the same up to h^3 for the words that take long."""
    assert disagreements(Scheme(word, splitting, flow=flow), 3) == []


@pytest.mark.parametrize(
    ("word", "splitting", "flow", "n"),
    [
        ("O S B(1/2) A S@1 B(1/2)", PSLD, "euler", 2),
        (STRANG, PSLD_LINEAR, "true", 2),
        pytest.param("S@1/2 F", PSLD_WHOLE, "midpoint", 2, marks=pytest.mark.nightly),
        pytest.param(STRANG, PSLD_LINEAR, "true", 3, marks=pytest.mark.nightly),
        pytest.param("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, "midpoint", 3, marks=pytest.mark.nightly),
    ],
)
def test_the_local_error_in_two_dimensions_is_what_a_step_by_hand_leaves(
    word: str, splitting: Splitting, flow: str, n: int
) -> None:
    """Claim: the same with two data dimensions and a score whose components depend on all four coordinates."""
    assert disagreements(Scheme(word, splitting, flow=flow), n, dims=2) == []


def noisy_true(scheme: Scheme) -> bool:
    """Whether a part follows its score under noise, which the second source cannot do."""
    return scheme.flow == "true" and any(part.sde.uses_score and part.sde.has_noise for part in scheme.parts)


@FEW
@given(schemes(consistent=False))
def test_any_words_local_error_is_what_a_step_by_hand_leaves(scheme: Scheme) -> None:
    """Claim: up to h^2, also for words that are not consistent, with any clocks and any times of their S."""
    assume(not noisy_true(scheme))
    assert disagreements(scheme, 2) == []


@pytest.mark.nightly
@settings(max_examples=50)
@given(schemes(consistent=False))
def test_any_words_local_error_is_what_a_step_by_hand_leaves_up_to_h3(scheme: Scheme) -> None:
    """Claim: the same up to h^3."""
    assume(not noisy_true(scheme))
    assert disagreements(scheme, 3) == []


def _mutants() -> dict[str, tuple[Scheme, dict[str, brute_force.Part]]]:
    """A scheme, and parts for the step by hand that are wrong in one place."""
    scheme = CATALOGUE["ROBAB"]
    parts = brute_force.parts_of("psld", MODEL)
    A, B, O = (parts[name] for name in "ABO")  # noqa: E741

    def negative(matrix: Any) -> Any:
        return [[-entry for entry in row] for row in matrix]

    return {
        "the sign of A's drift": (scheme, parts | {"A": A._replace(A=negative(A.A))}),
        "the sign of A's score": (scheme, parts | {"A": A._replace(G=negative(A.G))}),
        "the sign of B's score": (scheme, parts | {"B": B._replace(G=negative(B.G))}),
        "no noise": (scheme, parts | {"O": O._replace(D=[[0, 0], [0, 0]])}),
        "a clock": (replace(scheme, word="O S B(1/2) A@1/2 S@1 B(1/2)"), parts),
        "the time of an S": (replace(scheme, word="O S B(1/2) A S B(1/2)"), parts),
        "the sub-flow": (replace(scheme, flow="exact"), parts),
    }


@pytest.mark.parametrize("mutation", _mutants())
def test_a_step_by_hand_with_one_fault_disagrees(mutation: str) -> None:
    """Claim: the comparison can fail: a wrong sign, noise, clock, time or sub-flow on either side is seen by h^2."""
    wrong, parts = _mutants()[mutation]
    scheme = CATALOGUE["ROBAB"]
    score = score_of("psld", 1)
    by_hand = forward_moments(wrong.word, parts, wrong.flow, 2, 1, score)
    exact = exact_moments_of_increments(brute_force.parts_of("psld", MODEL), 2, 1, score)
    claimed = local_error(scheme, 2)
    assert any(
        at_the_point(claimed[k], powers, score) != by_hand[powers][k] - exact[powers][k]
        for k in range(2)
        for powers in exact
    )

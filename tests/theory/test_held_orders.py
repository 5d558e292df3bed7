"""Orders of schemes that hold another quantity than the score, or hold it over several evaluations: proven.

Known answers are theorems, and each way to get the mechanics wrong lowers the proven order. That what is proven is what
one step does in numbers is in test_held_steps.py, what whole runs say in tests/verification/exact/test_prediction.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from numpy.typing import NDArray
from selection import nightly_but
from specimens import held, whole
from weakorder.theory import weak_order
from weakorder.theory.calculus import Calculus
from weakorder.theory.frozen import DATA_HELD, FROZEN, SCORE_HELD, Frozen
from weakorder.theory.local_error import expand, first_error, holds_for_any_steps
from weakorder.theory.polynomials import ONE, Polynomial, number
from weakorder.theory.splitting import PSLD, PSLD_FLOW, PSLD_FLOW_WHOLE, PSLD_LINEAR, PSLD_WHOLE, Splitting
from weakorder.theory.weak_order import OrderProof, prove_order

Array = NDArray[np.float64]


# --- Known answers ----------------------------------------------------------------------------------------------------

WHOLES = pytest.mark.parametrize("splitting", [PSLD_WHOLE, PSLD_FLOW_WHOLE], ids=lambda splitting: splitting.name)
# What is held, sub-flow, memory: the order of the steps on the SDE and on the flow.
KNOWN = [
    *((frozen, "exact", 1, (1, 1)) for frozen in FROZEN.values()),
    (SCORE_HELD, "exact", 2, (2, 2)),
    (DATA_HELD, "exact", 2, (2, 2)),
    (SCORE_HELD, "euler", 2, (2, 2)),
    (SCORE_HELD, "exact", 3, (2, 3)),
    (SCORE_HELD, "euler", 3, (2, 3)),
    pytest.param(DATA_HELD, "exact", 3, (2, 3), marks=pytest.mark.nightly),
]


@WHOLES
@pytest.mark.parametrize(("frozen", "flow", "memory", "orders"), KNOWN, ids=str)
def test_the_known_answers_are_theorems(
    splitting: Splitting, frozen: Frozen, flow: str, memory: int, orders: tuple[int, int]
) -> None:
    """Claim: memory 1 has order 1 and memory 2 order 2, whatever is held; memory 3 has order 3 on the flow and still 2
    on the SDE. All for steps of any lengths. A run has 2 at most: its first step, of order 1, leaves h^2, but h^4 on a
    graded grid."""
    proof = prove_order(whole(splitting, frozen, memory, flow))
    assert proof.order_of_steps == orders[splitting is PSLD_FLOW_WHOLE]
    assert proof.order == min(proof.order_of_steps, 2)
    assert proof.order_if_graded == proof.order_of_steps
    assert proof.coefficients
    assert proof.any_steps
    assert proof.start == (prove_order(whole(splitting, frozen, 1, flow)).coefficients if memory > 1 else ())


def test_the_flow_has_order_3_whatever_is_held() -> None:
    """Claim: no error up to h^3, for any Phi and Psi and steps of any lengths (one in h^4: see the nightly test)."""
    assert holds_for_any_steps(whole(PSLD_FLOW_WHOLE, memory=3), 3)


def test_memory_2_has_order_2_for_coupled_coordinates() -> None:
    """Claim: in two data dimensions, with q and its derivatives depending on all four coordinates."""
    assert holds_for_any_steps(whole(PSLD_WHOLE, memory=2), 2, dims=2)
    assert holds_for_any_steps(whole(PSLD_FLOW_WHOLE, memory=2), 2, dims=2)


@pytest.mark.parametrize(
    ("word", "splitting"),
    [
        ("U(1/2) S E U(1/2)", PSLD_LINEAR),
        ("U(1/2) S@1/2 E U(1/2)", PSLD_LINEAR),
        ("O S B A", PSLD),
        ("S B A", PSLD_FLOW),
        ("O S@1/4 B(1/2) A S@3/4 B(1/2)", PSLD),
    ],
)
def test_memory_does_not_mend_a_splitting(word: str, splitting: Splitting) -> None:
    """Claim: where parts share the dynamics, order 1 stays."""
    assert prove_order(held(word, splitting, SCORE_HELD, 2)).order == 1


def test_all_that_may_be_held_share_one_proof() -> None:
    """Claim: the theorem is for any Phi and Psi, and kept once."""
    questions = [weak_order._question(whole(PSLD_WHOLE, frozen), 1, True) for frozen in FROZEN.values()]
    score, residual, eps, data = questions
    assert residual == eps == data != score
    with_memory = [weak_order._question(whole(PSLD_WHOLE, DATA_HELD, k), 1, True) for k in (1, 2, 3)]
    assert len({str(question) for question in with_memory}) == 3


# --- Why the SDE stays at order 2 -------------------------------------------------------------------------------------


def rough_remainder(letter: str) -> dict[tuple[int, int], sp.Expr]:
    """p^T (G q') D (G q')^T p / 24, times beta^3, for the whole reverse SDE."""
    sde = PSLD_WHOLE["F"].sde
    slope = sp.Matrix(2, 2, [sp.Symbol(f"{letter}_{row},{column}") for row in "xm" for column in "xm"])
    form = sde.score_gain * slope * sde.noise * (sde.score_gain * slope).T * sp.Symbol("beta") ** 3 / 24
    return {(2, 0): form[0, 0], (1, 1): form[0, 1] + form[1, 0], (0, 2): form[1, 1]}


@pytest.mark.parametrize(
    ("frozen", "memory"),
    nightly_but(lambda case: case == (DATA_HELD, 3), [(SCORE_HELD, 3), (DATA_HELD, 3), (DATA_HELD, 4)]),
    ids=str,
)
def test_beyond_memory_2_the_sde_is_left_with_its_path_s_roughness(frozen: Frozen, memory: int) -> None:
    """Claim: the leading error is beta^3 p^T (G q') D (G q')^T p / 24, and nothing else, however much is remembered:
    the mean of the steps has order 3."""
    found = first_error(whole(PSLD_WHOLE, frozen, memory), 3)
    expected = rough_remainder("s" if frozen == SCORE_HELD else "q")
    assert set(found) == set(expected)
    for powers, value in expected.items():
        assert sp.cancel(found[powers] - value) == 0


# --- Steps that are wrong in one thing --------------------------------------------------------------------------------

Offsets = Sequence[Polynomial]
RIGHT = Calculus.interpolated
HALF = number(Fraction(1, 2))


def wrong_weight(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """The older evaluation counts 1.1 times."""
    right = RIGHT(calculus, evaluations, offset)
    last = [calculus.constant(q) for q in calculus.held[0]]
    return [
        [a * number(Fraction(11, 10)) - b * number(Fraction(1, 10)) for a, b in zip(entry, q, strict=True)]
        for entry, q in zip(right, last, strict=True)
    ]


def wrong_time(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """The older evaluation is taken to be half a step older than it is."""
    return RIGHT(calculus, [evaluations[0], *(e - HALF for e in evaluations[1:])], offset)


def equal_steps(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """The grid is taken to be uniform."""
    return RIGHT(calculus, [evaluations[0] - number(j) for j in range(len(evaluations))], offset)


def too_old(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """Of three that are remembered, the oldest is taken for the one before the last."""
    if len(evaluations) < 3:
        return RIGHT(calculus, evaluations, offset)
    held = calculus.held
    calculus.held = [held[0], held[2]]
    try:
        return RIGHT(calculus, evaluations[:2], offset)
    finally:
        calculus.held = held


@pytest.mark.parametrize(
    ("slip", "memory", "any_steps"),
    [(wrong_weight, 2, False), (wrong_time, 2, False), (too_old, 3, False), (equal_steps, 2, True)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("splitting", [PSLD_WHOLE, PSLD_FLOW_WHOLE], ids=lambda splitting: splitting.name)
def test_a_polynomial_that_is_wrong_in_one_thing_has_no_order_2(
    slip: Callable[..., Any], memory: int, any_steps: bool, splitting: Splitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim: a wrong weight, an old q at a wrong time or one step too old leave h^2; so does a grid taken for uniform,
    but not where it is."""
    scheme = whole(splitting, memory=memory)
    monkeypatch.setattr(Calculus, "interpolated", slip)
    assert holds_for_any_steps(scheme, 1)
    assert not holds_for_any_steps(scheme, 2)
    assert bool(first_error(scheme, 2)) != any_steps


@pytest.mark.parametrize("name", ["Phi", "Psi"])
def test_a_matrix_at_a_wrong_time_has_no_order_2(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: Phi or Psi of parts, half a step late, leave h^2; the process is left as it is."""
    scheme = whole(PSLD_WHOLE, memory=2)
    right, reading = Calculus._matrix_function, Calculus.reading

    def late(calculus: Calculus, of: str, row: int, column: int, offset: Polynomial) -> Any:
        return right(calculus, of, row, column, offset + HALF if of == name else offset)

    def read(calculus: Calculus, held: Any, offset: Polynomial, state: Any = None) -> Any:
        of_the_process = held == calculus.held_function(offset)
        with pytest.MonkeyPatch.context() as patch:
            if not of_the_process:
                patch.setattr(Calculus, "_matrix_function", late)
            return reading(calculus, held, offset, state)

    assert not first_error(scheme, 2)
    monkeypatch.setattr(Calculus, "reading", read)
    assert not first_error(scheme, 1)
    assert first_error(scheme, 2)


def test_a_start_that_is_forgotten_is_not_proven_to_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: order 3 of the flow's steps is not an order of its runs: the first step counts."""
    scheme = whole(PSLD_FLOW_WHOLE, SCORE_HELD, 3)
    first = prove_order(whole(PSLD_FLOW_WHOLE, SCORE_HELD))
    better = OrderProof(2, first.searched, first.coordinates, first.coefficients, 2)
    right = weak_order.prove_order
    monkeypatch.setattr(weak_order, "prove_order", lambda s, *a: better if s.memory == 1 else right(s, *a))
    assert right(scheme).order == 3
    monkeypatch.undo()
    assert prove_order(scheme).order == 2


def test_one_stands_for_a_step() -> None:
    """Claim: a step's own length is 1 in its offsets."""
    _, last, _ = expand(whole(PSLD_WHOLE, memory=2), 1)
    assert (last.start, last.length) == (ONE, ONE)

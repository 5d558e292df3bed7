"""Which levels an order is fitted to, and which order and verdict are reported."""

from __future__ import annotations

import pytest
from weakorder.verification.fits import MARGIN, Fit, last_run, lowest
from weakorder.verification.verdict import Verdict, order_sentence, weigh


def fit(order: float, half: float = 0.1) -> Fit:
    return Fit(order, order - half, order + half, (10, 80))


@pytest.mark.parametrize(
    ("sure", "run"),
    [("", ""), ("...", ""), ("xxx", "xxx"), ("xx.x", "...x"), ("x.xx.", "..xx"), ("xxx..", "xxx"), (".x", ".x")],
)
def test_the_last_run_is_of_neighbours_up_to_the_finest_sure_level(sure: str, run: str) -> None:
    found = last_run([level == "x" for level in sure])
    assert "." * found.start + sure[found] == run


def test_the_lowest_order_is_that_of_the_first_set_that_has_any() -> None:
    fits = {"mean": fit(2.0), "covariance": fit(1.0), "third": fit(0.5)}
    assert lowest(fits) == fits["third"]
    assert lowest(fits, ("mean", "covariance"), ("third",)) == fits["covariance"]
    assert lowest(fits, (), ("mean",)) == fits["mean"]
    assert lowest(fits, (), ()) == fits["third"]
    assert lowest({}) is None


def test_an_interval_misses_reaches_or_does_neither() -> None:
    low, high, wide = fit(1 - 2 * MARGIN), fit(1.0), fit(1.0, 2 * MARGIN)
    assert [f.misses(1) for f in (low, high, wide)] == [True, False, False]
    assert [f.reaches(1) for f in (low, high, wide)] == [False, True, False]
    assert [f.is_settled for f in (low, high, wide)] == [True, True, False]


def test_only_a_proof_of_the_expected_order_outranks_what_speaks_against_it() -> None:
    assert weigh(True, True, 2, None) is Verdict.FAIL
    assert weigh(True, True, 2, 1) is Verdict.FAIL
    assert weigh(True, True, 2, 2) is Verdict.INCONCLUSIVE
    assert weigh(False, True, 2, 2) is Verdict.PASS
    assert weigh(False, False, 2, None) is Verdict.INCONCLUSIVE


def test_the_sentence_leaves_out_what_is_not_known() -> None:
    assert order_sentence(fit(0.98), 1, 1) == "measured order 0.98 in [0.88, 1.08], proven 1, expected 1"
    assert order_sentence(None, 2, None) == "expected 2"

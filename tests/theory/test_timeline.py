"""A step on a line of time: intervals are those that samplers integrate over, and evaluations those that they take."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW, schemes
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION
from weakorder.integrators.grids import time_grid
from weakorder.integrators.held import evaluations_before
from weakorder.integrators.stages import PartStage, ScoreStage, stages
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD_FLOW
from weakorder.theory.timeline import Act, Evaluation, timeline

HALF = Fraction(1, 2)


def _spans(acts: tuple[Act, ...]) -> list[tuple[str, Fraction, Fraction]]:
    return [(act.token.symbol, act.start, act.end) for act in acts]


def _takes(scheme: Scheme) -> dict[int, tuple[tuple[int, Fraction], ...]]:
    """Of every part that takes a score, by its place in the word."""
    return {place: tuple(map(tuple, act.takes)) for place, act in enumerate(timeline(scheme)) if act.takes}


def test_a_half_kick_at_the_end_takes_the_score_of_the_end() -> None:
    robab = CATALOGUE["ROBAB"]
    assert _spans(timeline(robab)) == [
        ("O", 0, 1), ("S", 0, 0), ("B", 0, HALF), ("A", 0, 1), ("S", 1, 1), ("B", HALF, 1),
    ]  # fmt: skip
    assert _takes(robab) == {2: ((1, 0),), 3: ((1, 0),), 5: ((4, 1),)}


def test_a_memory_reaches_into_the_steps_before() -> None:
    assert _takes(EXPONENTIAL["DEIS-2"]) == {1: ((0, 0), (0, -1))}
    assert _takes(POSITION["vp-DEIS-3"]) == {1: ((0, 0), (0, -1), (0, -2))}
    twice = Scheme("S A S@1/2 B", PSLD_FLOW, flow="exact", memory=3)
    assert _takes(twice) == {1: ((0, 0), (2, -HALF), (0, -1)), 3: ((2, HALF), (0, 0), (2, -HALF))}


def test_the_last_evaluation_alone_is_another_answer() -> None:
    assert _takes(EXPONENTIAL["DEIS-2"].remembering(1)) == {1: ((0, 0),)}


@FEW
@given(st.data())
def test_intervals_are_those_that_samplers_integrate_over(data: st.DataObject) -> None:
    """Under constant beta, on equal steps, an interval's length is its part of int beta."""
    params = Parameters()
    scheme = data.draw(schemes())
    taus = time_grid("uniform", 4, params, 0.5)
    h, beta = float(taus[1]), params.beta_min
    for act, stage in zip(timeline(scheme), stages(scheme, taus, params), strict=True):
        if isinstance(stage, ScoreStage):
            assert params.T - stage.time[0] == pytest.approx(float(act.start) * h, abs=1e-14)
        else:
            assert isinstance(stage, PartStage)
            assert params.T - stage.begin[0] == pytest.approx(float(act.start) * h, abs=1e-14)
            assert stage.length[0] == pytest.approx(float(act.end - act.start) * h * beta, rel=1e-12)


@pytest.mark.parametrize("memory", [1, 2, 3, 4])
def test_evaluations_are_those_that_samplers_look_back_on(memory: int) -> None:
    """Of a late step, whose run has enough of them."""
    scheme = Scheme("S A S@1/2 B", PSLD_FLOW, flow="exact", memory=memory)
    params = Parameters()
    taus = time_grid("uniform", 8, params, 0.5)
    found = stages(scheme, taus, params)
    evaluated = [stage.time for stage in found if isinstance(stage, ScoreStage)]
    begin, h = params.T - taus[5], taus[1]
    acts = timeline(scheme)
    for place, act in enumerate(acts):
        if act.takes:
            number = sum(entry.token.is_score for entry in acts[:place]) - 1
            times = (begin - evaluations_before(evaluated, number, memory)[5]) / h
            np.testing.assert_allclose(times, [float(taken.time) for taken in act.takes], atol=1e-12)
    assert Evaluation(0, Fraction(0)) in acts[1].takes

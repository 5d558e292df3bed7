"""Passes over a law's points: machine code does what numpy does, to rounding, and sees what is not finite."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.exact import compiled_passes
from weakorder.verification.exact.passes import ByNumpy, passes
from weakorder.verification.targets.named_mixtures import bimodal

J = 1001
generator = np.random.default_rng(4)
POINTS, SCORE = generator.standard_normal((2, 2, J)) * np.array([1e3, 1.0])[:, None]
WEIGHTS = generator.standard_normal(J)
P, K, LOWER = (generator.standard_normal((2, 2)) for _ in range(3))
NUMPY = ByNumpy()


def test_machine_code_is_what_is_used() -> None:
    assert passes() is compiled_passes


def test_points_move_and_their_terms_have_the_size_that_numpy_finds() -> None:
    found, expected = (which.move(POINTS, SCORE, P, K) for which in (compiled_passes, NUMPY))
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert (np.abs(one - other) <= 1e-15 * expected[1]).all()
    assert found[2] is expected[2] is True


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, J - 1])
def test_one_point_that_is_not_finite_is_seen(bad: float, place: int) -> None:
    score = SCORE.copy()
    score[1, place] = bad
    assert not compiled_passes.move(POINTS, score, P, K)[2]
    assert not NUMPY.move(POINTS, score, P, K)[2]


def test_points_seen_in_a_frame_have_the_moments_that_numpy_finds() -> None:
    origin = np.array([3.0, -1.0])
    found, expected = (which.see(POINTS, WEIGHTS, origin, LOWER) for which in (compiled_passes, NUMPY))
    scale = np.abs(LOWER) @ np.abs(POINTS - origin[:, None])
    assert (np.abs(found[0] - expected[0]) <= 1e-15 * scale).all()
    assert (np.abs(found[1] - expected[1]) <= 1e-13 * (scale * np.abs(WEIGHTS)) @ scale.T).all()
    length, other = (which.mean_length(LOWER, np.abs(POINTS), WEIGHTS) for which in (compiled_passes, NUMPY))
    assert length == pytest.approx(other, rel=1e-13)


def test_a_mixtures_score_in_the_plane_is_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    target = bimodal(1, Parameters(), PSLD_DIFFUSION)
    states = np.stack([POINTS[0] / 1e3, POINTS[1]])
    found = target.score_in_plane(states, 0.3)
    monkeypatch.setitem(sys.modules, "weakorder.verification.targets.compiled_mixture", None)
    np.testing.assert_allclose(found, target.score_in_plane(states, 0.3), rtol=0, atol=1e-13 * np.abs(found).max())

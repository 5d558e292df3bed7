"""The bound on the rounding of exact moments, on runs that have no other error.

Two kinds of words are without an error. Langevin dynamics as one part, cut into pieces of any length with its true
flow, is the solution itself. And data that is the prior, N(0, 1) with kappa = 1, leaves the part E of psld-linear
nothing to do at a fresh score, while U keeps the law. Whatever such runs are off by is rounding.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection import examples
from specimens import WHOLE_LANGEVIN
from strategies import parameters, shares
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import FLOWS, Scheme
from weakorder.theory.splitting import PSLD_LINEAR
from weakorder.verification.exact.moments import exact_moments, rounding_bound
from weakorder.verification.targets.gaussian import GaussianTarget

T_END = 0.1
STEPS = (100, 400, 1600, 6400, 25600)


def ratio(scheme: Scheme, target: GaussianTarget, steps: int, bounded: int | None = None) -> float:
    """The largest error of an entry, over its bound, which may be that of another number of steps."""
    grid, other = (time_grid("uniform", n, target.params, T_END) for n in (steps, bounded or steps))
    got = exact_moments(scheme, target, grid)
    bounds = rounding_bound(scheme, target, other)
    errors = [np.abs(a - b) for a, b in zip(got.computed, got.exact, strict=True)]
    return max(
        float(np.divide(error, bound, out=np.zeros(error.shape), where=error > 0).max())
        for error, bound in zip(errors, bounds, strict=True)
    )


def solution(weights: list[Fraction]) -> Scheme:
    """Langevin dynamics in pieces."""
    return Scheme("S " + " ".join(f"W({weight})" for weight in weights), WHOLE_LANGEVIN, flow="true")


@st.composite
def exact_runs(draw: st.DrawFn) -> tuple[Scheme, GaussianTarget]:
    """A word without an error, of at most 25 tokens, on data on which it has none."""
    params = draw(parameters())
    if draw(st.booleans()):
        scheme = solution(draw(shares(draw(st.integers(1, 12)))))
        means = [k / 10 for k in draw(st.lists(st.integers(-20, 20), min_size=2, max_size=2))]  # nothing underflows
        variances = draw(st.lists(st.floats(0.1, 3.0), min_size=2, max_size=2))
        return scheme, GaussianTarget.of(means, variances, scheme.splitting.diffusion, params)
    count = draw(st.integers(1, 6))
    kicks, drifts = (draw(shares(count)) for _ in range(2))
    word = " ".join(f"S@{k}/7 E({e}) U({u})" for k, (e, u) in enumerate(zip(kicks, drifts, strict=True)))
    scheme = Scheme(word, PSLD_LINEAR, flow=draw(st.sampled_from(FLOWS)))
    stationary = Parameters(params.gamma, params.nu, 1.0, params.beta_min, params.beta_max)
    return scheme, GaussianTarget.of(0.0, 1.0, scheme.splitting.diffusion, stationary)


@examples(8)
@given(exact_runs(), st.sampled_from(STEPS))
def test_words_without_an_error_stay_within_the_bound(run: tuple[Scheme, GaussianTarget], steps: int) -> None:
    """Claim: every entry of mean and covariance, for any cut, sub-flow, parameters, data and number of steps."""
    assert ratio(*run, steps) <= 1


TWELVE = solution([Fraction(1, 12)] * 12)
TARGET = GaussianTarget.of([0.5, -1.0], [0.25, 1.5], TWELVE.splitting.diffusion, Parameters())


@pytest.mark.parametrize("steps", [12800, pytest.param(51200, marks=pytest.mark.nightly)])
def test_rounding_grows_with_the_steps_and_so_must_a_bound(steps: int) -> None:
    """Claim: a twelfth of a step rounds alike 12 times as often as there are steps: so many are within their own bound,
    and beyond that of 100 steps or any other that does not grow."""
    assert ratio(TWELVE, TARGET, steps) <= 1 < ratio(TWELVE, TARGET, steps, bounded=100)


@pytest.mark.parametrize("steps", STEPS)
def test_the_bound_hides_no_error_of_a_part_in_a_hundred_million(steps: int) -> None:
    """Claim: position noise so much too strong is beyond the bound at every number of steps."""
    target = GaussianTarget.of(0.0, 1.0, PSLD_LINEAR.diffusion, Parameters(kappa=1.0))
    plain = Scheme("S E U", PSLD_LINEAR)
    assert ratio(plain, target, steps) <= 1 < ratio(replace(plain, lambda_s=1 + 1e-8), target, steps)

"""What short runs say beyond consistency, of increments, curvature, step sizes and rounding; and what is right."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from plain_step import deviation, drawing, drift
from selection import nightly_but
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.anatomy import dissect
from weakorder.verification.blackbox.examination import examine
from weakorder.verification.blackbox.study import study_black_box
from weakorder.verification.verdicts.verdict import Verdict

PARAMS = Parameters()


def three_points(u, p=1 / 6):
    v = torch.rand_like(u)
    return torch.where(v < p, -1.0, torch.where(v > 1 - p, 1.0, 0.0)).to(u) / (2 * p) ** 0.5


WEAK = {
    "two points by randint": lambda u: 2.0 * torch.randint(0, 2, u.shape) - 1,
    "two points by sign": lambda u: torch.sign(torch.randn_like(u)),
    "two points by coins": lambda u: 2 * torch.bernoulli(torch.full_like(u, 0.5)) - 1,
    "two points by where": lambda u: torch.where(torch.rand_like(u) < 0.5, 1.0, -1.0),
    "three points by rand": three_points,
    "three points by randint": lambda u: (
        ((k := torch.randint(6, u.shape)) == 0).to(u) * 3**0.5 - (k == 5).to(u) * 3**0.5
    ),
    "uniform": lambda u: (torch.rand_like(u) - 0.5) * 12**0.5,
}


@pytest.mark.parametrize("law", nightly_but(lambda law: law == next(iter(WEAK)), WEAK))
def test_weak_increments_have_the_covariance_of_gaussians_and_order_1(law: str) -> None:
    draw = WEAK[law]
    taus = np.array([0.3, 0.32, 0.35])
    weak, gaussian = (dissect(drawing(each), taus) for each in (draw, torch.randn_like))
    np.testing.assert_allclose(weak.noise_cov, gaussian.noise_cov, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(weak.offset, 0, atol=1e-14)
    assert examine(drawing(draw), PARAMS, 1).problems == ()


BAD_INCREMENTS = {
    "a skew law": (
        lambda u: (torch.bernoulli(torch.full_like(u, 0.2)) - 0.2) / 0.4,
        1,
        r"third moment .* is 1\.5 where",
    ),
    "another variance": (
        lambda u: three_points(u) * 1.1,
        1,
        "noise covariance of x and x is 1.21",
    ),
    "two points for order 2": (
        WEAK["two points by sign"],
        2,
        "fourth moment of the increments of x is 1 where",
    ),
}


@pytest.mark.parametrize(("draw", "order", "said"), BAD_INCREMENTS.values(), ids=BAD_INCREMENTS)
def test_increments_that_lack_a_moment_are_told(draw, order: int, said: str) -> None:
    (first, *_) = examine(drawing(draw), PARAMS, order).problems
    assert re.search(said, first)


def heun(louder: float):
    def step(u, tau, h, score):
        xi, zeta = deviation(u, h) * torch.randn_like(u), deviation(u, h) * torch.randn_like(u)
        b = drift(u, score(u, 1 - tau))
        there = u + h * b + xi + (louder - 1) ** 0.5 * zeta
        return u + h / 2 * (b + drift(there, score(there, 1 - tau - h))) + xi

    return step


@pytest.mark.nightly
def test_order_2_is_held_to_the_second_derivative_of_the_score() -> None:
    """Heun's predictor with noise of twice the variance is of order 2 for affine scores alone."""
    right = examine(heun(1.0), PARAMS, 2)
    assert (right.problems, right.any_score) == ((), True)
    (problem,) = examine(heun(2.0), PARAMS, 2).problems
    assert "order 1 where the score is not affine: the weight of its second derivative in m and m is 2 times" in str(
        problem
    )
    assert examine(heun(2.0), PARAMS, 1).problems == ()


@pytest.mark.parametrize("threshold", nightly_but(lambda threshold: threshold == 0.006, (0.001, 0.006, 0.05)))
def test_a_branch_on_the_step_size_is_found_where_it_is(threshold: float) -> None:
    def coarse(u, tau, h, score):
        return drawing(lambda v: (0.9 if h > threshold else 1.0) * torch.randn_like(v))(u, tau, h, score)

    (problem, *_) = examine(coarse, PARAMS, 1).problems
    assert f"jumps with the step size: in steps longer than {threshold:.4g} it is 0.81 times" in problem


@pytest.mark.parametrize(("part", "named"), [("gain", "the gain of"), ("noise", "noise covariance of x and x")])
@pytest.mark.parametrize("dtype", nightly_but(lambda dtype: dtype is torch.float32, [torch.float32, torch.float64]))
def test_a_hundredth_in_long_steps_is_found_above_what_float32_is_measured_to_round(dtype, part: str, named) -> None:
    def coarse(u, tau, h, score, size=0.01):
        more = 1 + size * (h > 0.006)
        gain, noise = (more if part == name else 1.0 for name in ("gain", "noise"))
        scale = torch.tensor([noise, 1.0], dtype=dtype).reshape(2, *(1,) * (u.ndim - 2))
        return drawing(lambda v: scale * torch.randn_like(v))(u.to(dtype), tau, h, lambda v, t: gain * score(v, t))

    (problem, *_) = examine(coarse, PARAMS, 1).problems
    assert re.search(rf"{named}.* jumps with the step size: in steps longer than 0\.006 it is 1\.0[12] times", problem)
    assert examine(lambda *a: coarse(*a, size=0.0), PARAMS, 1).problems == ()


@pytest.mark.parametrize("keeps", nightly_but((False).__eq__, (False, True)))
def test_float32_hides_no_fault_of_a_small_part(keeps: bool) -> None:
    """Claim: each part is held to what float32 makes of it, not to what it makes of the largest."""

    def step(u, tau, h, score, size=0.004):
        scale = torch.tensor([1 + size, 1.0]).reshape(2, *(1,) * (u.ndim - 2))
        return drawing(lambda v: scale * torch.randn_like(v))(u.float(), tau, h, score)

    kind = as_multistep if keeps else lambda made: made
    (problem, *_) = examine(kind(step), PARAMS, 1).problems
    assert re.search(r"the noise covariance of x and x is (1\.008|0\.0806)", str(problem))
    assert examine(kind(lambda *a: step(*a, size=0.0)), PARAMS, 1).problems == ()


@pytest.mark.parametrize("power", [0.5, 0.25])
def test_a_rate_that_reaches_its_limit_too_slowly_is_of_that_order(power: float) -> None:
    """Claim: such errors of noise or drift stay below what a few levels show, and are none of order 1."""

    def noisy(u, tau, h, score, more=1.0):
        return drawing(lambda v: (1 + 0.01 * h ** (more * power)) ** 0.5 * torch.randn_like(v))(u, tau, h, score)

    def pulled(u, tau, h, score):
        return drawing(torch.randn_like)(u, tau, h, score) + 0.02 * h**1.5

    for step, part in ((noisy, "the noise covariance of x and x"), (pulled, "the constant drift of x")):
        (problem,) = examine(step, PARAMS, 1).problems
        like = power if step is noisy else 0.5
        assert f"{part} reaches its limit like h^{like:.2g} as h -> 0, and the order is no higher" in str(problem)
    assert examine(lambda *a: noisy(*a, more=1 / power), PARAMS, 1).problems == ()


def test_a_late_fault_is_found_down_to_the_cut_off() -> None:
    for t in (0.03, 0.003):

        def late(u, tau, h, score, t=t):
            return drawing(lambda v: (1.01 if 1 - tau < t else 1.0) * torch.randn_like(v))(u, tau, h, score)

        (first, *_) = examine(late, PARAMS, 1).problems
        assert re.search(r"noise covariance of x and x is 1\.0201 times what is right .* tau = 0\.9", first)


GRIDS = {
    "thousandths": (lambda t: round(1000 * t) / 1000, "1/1000"),
    "rounded down": (lambda t: int(1000 * t) / 1000, "1/1000"),
    "256 times": (lambda t: round(256 * t) / 256, "1/256"),
    "bfloat16": (lambda t: float(torch.tensor(t, dtype=torch.bfloat16)), "bfloat16"),
}


@pytest.mark.parametrize("name", nightly_but(("thousandths", "bfloat16").__contains__, GRIDS))
def test_rounded_times_are_named_with_their_grid_and_are_no_inconsistency(name: str) -> None:
    rounded, grid = GRIDS[name]

    def step(u, tau, h, score):
        return drawing(torch.randn_like)(u, tau, h, lambda v, t: score(v, rounded(t)))

    found = examine(step, PARAMS, 1)
    assert found.problems == ()
    assert f"rounds the times of its scores to {grid}: they are off by up to" in found.rounding[0].text


def test_of_times_that_are_not_rounded_nothing_is_said() -> None:
    assert examine(drawing(), PARAMS, 1).rounding == ()


def test_a_clock_that_stops_is_not_taken_for_rounding() -> None:
    found = examine(
        lambda u, tau, h, score: drawing(torch.randn_like)(u, tau, h, lambda v, t: score(v, max(t, 0.2))), PARAMS, 1
    )
    assert "the score's time t is 0.2 where 0.05 is right" in found.problems[0]
    assert found.rounding == ()


def test_constants_of_the_noise_in_float32_by_differences_are_named() -> None:
    def step(u, tau, h, score, dtype=torch.float32):
        scale = torch.stack([1 - torch.exp(torch.tensor(-2 * rate * h, dtype=dtype)) for rate in (0.04, 4.01)])
        scale = (scale * torch.tensor([1.0, 1.0], dtype=dtype)).sqrt().to(u).reshape(2, *(1,) * (u.ndim - 2))
        return u + h * drift(u, score(u, 1 - tau)) + scale * torch.randn_like(u)

    found = examine(step, PARAMS, 1)
    assert found.problems == ()
    assert "rounds constants of its noise: the noise covariance of" in found.rounding[0].text
    assert examine(lambda *a: step(*a, dtype=torch.float64), PARAMS, 1).rounding == ()


# --- What keeps state, and whole runs ---------------------------------------------------------------------------------


def as_run(step):
    """The same as a trajectory."""

    def sample(score, u, taus):
        for tau, later in itertools.pairwise(taus.tolist()):
            u = step(u, tau, later - tau, score)
        return u

    return sample


def as_multistep(step):
    """The same as an object that could remember."""

    class Remembering:
        def reset(self):
            self.last = None

        def __call__(self, u, tau, h, score):
            self.last = step(u, tau, h, score)
            return self.last

    return Remembering()


KINDS = {"multistep": as_multistep, "trajectory": as_run}


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_branch_on_the_step_size_is_found_in_runs_of_every_kind(kind) -> None:
    def coarse(u, tau, h, score):
        return drawing(lambda v: (0.9 if h > 0.006 else 1.0) * torch.randn_like(v))(u, tau, h, score)

    (problem, *_) = examine(kind(coarse), PARAMS, 1).problems
    assert "jumps with the step size: in steps longer than 0.006 it is 0.81 times" in problem
    assert examine(kind(drawing()), PARAMS, 1).problems == ()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_rounded_constants_are_named_in_runs_of_every_kind(kind) -> None:
    def step(u, tau, h, score, dtype=torch.float32):
        scale = torch.stack([1 - torch.exp(torch.tensor(-2 * rate * h, dtype=dtype)) for rate in (0.04, 4.01)])
        noise = scale.sqrt().to(u).reshape(2, *(1,) * (u.ndim - 2)) * torch.randn_like(u)
        return u + h * drift(u, score(u, 1 - tau)) + noise

    found = examine(kind(step), PARAMS, 1)
    assert found.problems == ()
    assert "rounds constants of its noise" in found.rounding[0].text
    assert examine(kind(lambda *a: step(*a, dtype=torch.float64)), PARAMS, 1).rounding == ()


ROUNDED_STEPS = {
    "to nearest": (lambda h: round(1000 * h) / 1000, 1000),
    "down": (lambda h: int(500 * h) / 500, 500),
    "finely": (lambda h: round(h, 4), 10_000),
}


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ROUNDED_STEPS)
def test_a_rounded_step_size_is_named_with_its_grid_and_is_no_missing_noise(kind, name: str) -> None:
    rounded, number = ROUNDED_STEPS[name]

    def step(u, tau, h, score, size=1.0):
        return drawing(lambda v: size * (rounded(h) / h) ** 0.5 * torch.randn_like(v))(u, tau, h, score)

    for sampler in (step, kind(step)):
        found = examine(sampler, PARAMS, 1)
        assert found.problems == ()
        assert f"rounds the step size to 1/{number} in the noise covariance" in found.rounding[0].text
    assert examine(kind(drawing()), PARAMS, 1).rounding == ()
    (problem, *_) = examine(lambda *a: step(*a, size=1.1), PARAMS, 1).problems  # in steps of its own grid
    assert "the noise covariance of x and x is 1.21 times what is right" in problem


@pytest.mark.nightly
def test_a_rounded_step_size_forbids_a_pass_where_it_shows_and_more_steps_are_not_advised() -> None:
    def step(u, tau, h, score):
        return drawing(lambda v: (round(h, 3) / h) ** 0.5 * torch.randn_like(v))(u, tau, h, score)

    study = study_black_box("rounded", step, PARAMS, steps=(25, 50, 100, 200))
    assert study.verdict is Verdict.INCONCLUSIVE
    assert "use fewer steps, where errors stand above rounding: it rounds the step size to 1/1000" in study.reason


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_order_2_of_runs_is_held_to_the_second_derivative_of_the_score(kind) -> None:
    right = examine(kind(heun(1.0)), PARAMS, 2)
    assert (right.problems, right.any_score) == ((), True)
    (problem,) = examine(kind(heun(2.0)), PARAMS, 2).problems
    assert re.search(r"order 1 where the score is not affine: .* relative error of 0\.\d+ / n in a run", str(problem))
    assert examine(kind(heun(2.0)), PARAMS, 1).problems == ()


@pytest.mark.nightly
@pytest.mark.parametrize("rounding", [round, math.floor])
def test_what_rounding_of_times_changes_is_what_errors_are_said_to_scatter_by(rounding) -> None:
    """Claim: errors at rounded times are off by some times their measured scatter at most, and it is not much larger;
    a sampler whose times are not rounded has none."""
    steps = (10, 20, 40, 80)

    def step(u, tau, h, score):
        return drawing(torch.randn_like)(u, tau, h, lambda v, t: score(v, rounding(300 * t) / 300))

    study = study_black_box("table", step, PARAMS, steps=steps)
    plain = study_black_box("plain", drawing(), PARAMS, steps=steps)
    assert plain.scatter == {}
    for quantity, scatter in study.scatter.items():
        off = np.abs(study.errors[quantity] - plain.errors[quantity])
        assert (off <= 6 * scatter).all(), quantity
        assert scatter.max() <= 6 * off.max(), quantity
    assert any("rounds the times of its scores to 1/300" in said for said in (study.reason, *study.warnings))


# --- Causes that are seen at work -------------------------------------------------------------------------------------


def adaptive(score, u, taus):
    """Heun's method on the probability flow with steps that its own error chooses."""
    tau, stop, h = float(taus[0]), float(taus[-1]), 0.01
    flow = lambda v, at: drift(v, score(v, 1 - at) / 2)  # noqa: E731
    while tau < stop - 1e-12:
        h = min(h, stop - tau)
        first = flow(u, tau)
        second = flow(u + h * first, tau + h)
        error = float((h / 2 * (second - first)).abs().max() / u.abs().max())
        if error <= 1e-3:
            u, tau = u + h / 2 * (first + second), tau + h
        h *= min(2.0, max(0.3, 0.9 * (1e-3 / (error + 1e-16)) ** 0.5))
    return u


def rejecting(u):
    z = torch.randn_like(u)
    while bool((z.abs() > 3).any()):
        z = torch.where(z.abs() > 3, torch.randn_like(u), z)
    return z


CAUSES = {
    "adaptive steps": (adaptive, "at times that depend on its states .* adapts its steps"),
    "adaptive steps inside a step": (
        lambda u, tau, h, score: adaptive(score, u, torch.tensor([tau, tau + h])),
        "at times that depend on its states .* adapts its steps",
    ),
    "rejected draws": (drawing(rejecting), "draws again where a number is too large"),
    "rejected draws in a run": (as_run(drawing(rejecting)), "draws again where a number is too large"),
}


@pytest.mark.parametrize(("sampler", "said"), CAUSES.values(), ids=CAUSES)
def test_what_depends_on_states_and_draws_is_named_by_its_own_test(sampler, said: str) -> None:
    with pytest.raises(BlackBoxError, match=said):
        study_black_box("box", sampler, PARAMS, steps=(25, 50, 100, 200))

"""What short runs say beyond consistency, of increments, curvature, step sizes and rounding; and what is right."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.anatomy import dissect
from weakorder.verification.blackbox.examination import examine

PARAMS = Parameters()


def drift(u, s):
    (x, m), (s_x, s_m) = u.unbind(1), s.unbind(1)
    return torch.stack([4 * (0.01 * x - 4 * m + 0.02 * s_x), 4 * (x + 4.01 * m + 2.005 * s_m)], dim=1)


def deviation(u, h):
    return h**0.5 * torch.tensor([0.08, 8.02], dtype=u.dtype).sqrt().reshape(2, *(1,) * (u.ndim - 2))


def drawing(draw):
    return lambda u, tau, h, score: u + h * drift(u, score(u, 1 - tau)) + deviation(u, h) * draw(u)


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


@pytest.mark.parametrize("draw", WEAK.values(), ids=WEAK)
def test_weak_increments_have_the_covariance_of_gaussians_and_order_1(draw) -> None:
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


def test_order_2_is_held_to_the_second_derivative_of_the_score() -> None:
    """Heun's predictor with noise of twice the variance is of order 2 for affine scores alone."""
    right = examine(heun(1.0), PARAMS, 2)
    assert (right.problems, right.any_score) == ((), True)
    (problem,) = examine(heun(2.0), PARAMS, 2).problems
    assert "order 1 where the score is not affine: the weight of its second derivative in m and m is 2 times" in problem
    assert examine(heun(2.0), PARAMS, 1).problems == ()


@pytest.mark.parametrize("threshold", [0.001, 0.006, 0.05])
def test_a_branch_on_the_step_size_is_found_where_it_is(threshold: float) -> None:
    def coarse(u, tau, h, score):
        return drawing(lambda v: (0.9 if h > threshold else 1.0) * torch.randn_like(v))(u, tau, h, score)

    (problem, *_) = examine(coarse, PARAMS, 1).problems
    assert f"jumps with the step size: in steps longer than {threshold:.4g} it is 0.81 times" in problem


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


@pytest.mark.parametrize(("rounded", "grid"), GRIDS.values(), ids=GRIDS)
def test_rounded_times_are_named_with_their_grid_and_are_no_inconsistency(rounded, grid: str) -> None:
    def step(u, tau, h, score):
        return drawing(torch.randn_like)(u, tau, h, lambda v, t: score(v, rounded(t)))

    found = examine(step, PARAMS, 1)
    assert found.problems == ()
    assert f"rounds the times of its scores to {grid}: they are off by up to" in found.rounding[0]
    assert examine(drawing(torch.randn_like), PARAMS, 1).rounding == ()


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
    assert "rounds constants of its noise: the noise covariance of" in found.rounding[0]
    assert examine(lambda *a: step(*a, dtype=torch.float64), PARAMS, 1).rounding == ()

"""What short runs say of second derivatives, of steps of other sizes, and of the start of a run; and what is right."""

from __future__ import annotations

import pytest
import torch
from plain_step import deviation, drawing, drift
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.examination import examine
from weakorder.verification.verdicts import Finding, Weight

PARAMS = Parameters()


def heun(u, tau, h, score):
    xi, b = deviation(u, h) * torch.randn_like(u), drift(u, score(u, 1 - tau))
    there = u + h * b + xi
    return u + h / 2 * (b + drift(there, score(there, 1 - tau - h))) + xi


def displaced(power: float, differences: float = 0.0):
    """The mean of the scores at u +- h^power (1, -1), and so many times their second difference over h."""

    def scored(u, h, score, t):
        d = h**power * torch.tensor([1.0, -1.0], dtype=u.dtype).reshape(2, *(1,) * (u.ndim - 2))
        one, two = score(u + d, t), score(u - d, t)
        return (one + two) / 2 + (differences * (one - 2 * score(u, t) + two) / h if differences else 0)

    return lambda u, tau, h, score: (
        u + h * drift(u, scored(u, h, score, 1 - tau)) + deviation(u, h) * torch.randn_like(u)
    )


def test_differences_of_scores_that_do_not_vanish_are_told() -> None:
    """Claim: a second difference over h at states that tend to u is nothing for affine scores, and of order 0 else."""
    assert examine(displaced(0.5), PARAMS, 1).problems == ()
    (problem,) = examine(displaced(0.5, 0.3), PARAMS, 1).problems
    assert "not consistent where the score is not affine: as h -> 0 the weight in m of the second derivative" in problem


def test_third_differences_of_scores_are_not_passed_over() -> None:
    """Claim: what no second derivative shows forbids a PASS, as nothing bounds it for every score."""

    def third(u, tau, h, score):
        d = h**0.5 * torch.tensor([1.0, -1.0], dtype=u.dtype).reshape(2, *(1,) * (u.ndim - 2))
        s = [score(u + k * d, 1 - tau) for k in (2, 1, -1, -2)]
        s = score(u, 1 - tau) + 0.3 * (s[0] - 2 * s[1] + 2 * s[2] - s[3]) / h**1.5
        return u + h * drift(u, s) + deviation(u, h) * torch.randn_like(u)

    (problem,) = examine(third, PARAMS, 1).problems
    assert isinstance(problem, Finding)
    assert problem.weight is Weight.FORBIDS
    assert "weights that do not vanish with h" in problem.text


@pytest.mark.nightly
def test_order_2_is_held_to_displaced_states_as_well() -> None:
    def moved(u, tau, h, score):
        d = h**0.5 * torch.tensor([1.0, -1.0], dtype=u.dtype).reshape(2, *(1,) * (u.ndim - 2))
        return heun(u, tau, h, lambda v, t: (score(v + d, t) + score(v - d, t)) / 2)

    (problem,) = examine(moved, PARAMS, 2).problems
    assert "of order 1 where the score is not affine" in str(problem)


def test_order_2_names_the_part_that_is_of_order_1_and_not_the_scores_second_derivative() -> None:
    def unlike(u, tau, h, score):  # the predictor's noise is not the corrector's
        b = drift(u, score(u, 1 - tau))
        there = u + h * b + deviation(u, h) * torch.randn_like(u)
        return u + h / 2 * (b + drift(there, score(there, 1 - tau - h))) + deviation(u, h) * torch.randn_like(u)

    (problem,) = examine(unlike, PARAMS, 2).problems
    assert "of order 1 where 2 is expected: the noise covariance of m and m has a relative error of" in str(problem)


def test_a_small_jump_is_found_in_what_changes_with_the_step_size_and_another_method_is_none() -> None:
    """Claim: one per cent of the noise in long steps is a fault; Euler in long steps and Heun in short ones is not."""

    def coarse(u, tau, h, score):
        return heun(u, tau, h, score) + (0.1 * deviation(u, h) * torch.randn_like(u) if h > 0.006 else 0)

    def both(u, tau, h, score):
        return (drawing(torch.randn_like) if h > 0.006 else heun)(u, tau, h, score)

    (problem,) = examine(coarse, PARAMS, 1).problems
    assert "noise covariance of x and x jumps with the step size: in steps longer than 0.006 it is 1.008 times" in str(
        problem
    )
    assert examine(both, PARAMS, 1).problems == ()


SIZES = {
    "an offset of each step": (
        lambda u, h: deviation(u, h) * torch.randn_like(u) + 1e-3,
        "as h -> 0, the constant offset of the next x is 0.001 where 0 is right",
    ),
    "the fourth root of h": (
        lambda u, h: deviation(u, h) / h**0.25 * torch.randn_like(u),
        "the noise covariance of m and m grows like h^-0.5 as h -> 0, and has no limit",
    ),
    "coins of mean 1": (
        lambda u, h: deviation(u, h) * 2 * torch.randint(0, 2, u.shape),
        "the constant drift of m grows like h^-0.5 as h -> 0, and has no limit",
    ),
}


@pytest.mark.parametrize(("noise", "said"), SIZES.values(), ids=SIZES)
def test_what_is_not_of_the_size_of_a_step_is_named(noise, said: str) -> None:
    def step(u, tau, h, score):
        return u + h * drift(u, score(u, 1 - tau)) + noise(u, h)

    assert any(said in str(problem) for problem in examine(step, PARAMS, 1).problems)


def test_an_early_fault_is_found_and_a_first_step_of_its_own_is_none() -> None:
    def louder(when):
        return lambda u, tau, h, score: drawing(lambda v: (2 if when(tau) else 1) * torch.randn_like(v))(
            u, tau, h, score
        )

    (problem, *_) = examine(louder(lambda tau: tau < 0.02), PARAMS, 1).problems
    assert (
        "the noise covariance of x and x is 4 times what is right (0.32 where 0.08 is right) at tau = 0.0047" in problem
    )
    assert examine(louder(lambda tau: tau == 0), PARAMS, 1).problems == ()

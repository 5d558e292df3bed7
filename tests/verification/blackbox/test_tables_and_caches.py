"""What a sampler looks up, keeps, or takes from elsewhere than from the times that it is given."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from plain_step import deviation, drawing, drift
from selection import nightly_but
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.anatomy import Dissection
from weakorder.verification.blackbox.consistency import Inconsistency, departures
from weakorder.verification.blackbox.examination import examine
from weakorder.verification.blackbox.short_runs import STEPS, look
from weakorder.verification.blackbox.smoothness import _treads
from weakorder.verification.blackbox.study import study_black_box
from weakorder.verification.verdicts.verdict import Verdict

CONSTANT, LINEAR = Parameters(), Parameters(beta_min=0.1, beta_max=20.0)


def scheduled(beta):
    """Euler-Maruyama at a schedule beta(t), as a part of the constant one's."""

    def step(u, tau, h, score):
        part = beta(1 - tau) / 8
        return u + part * h * drift(u, score(u, 1 - tau)) + deviation(u, part * h) * torch.randn_like(u)

    return step


class Keeping:
    """Euler-Maruyama that asks for another score where `is_old` of the steps and the time since the last one."""

    def __init__(self, is_old) -> None:
        self.is_old = is_old

    def reset(self) -> None:
        self.kept, self.steps, self.time = None, 0, 0.0

    def __call__(self, u, tau, h, score):
        if self.kept is None or self.is_old(self.steps, self.time):
            self.kept, self.steps, self.time = score(u, 1 - tau), 0, 0.0
        self.steps, self.time = self.steps + 1, self.time + h
        return drawing(torch.randn_like)(u, tau, h, lambda *_: self.kept)


@pytest.mark.nightly
@pytest.mark.parametrize("age", [0.02, 0.002])
def test_a_score_that_is_kept_for_a_time_of_its_own_is_told_and_for_some_steps_is_right(age: float) -> None:
    (problem,) = examine(Keeping(lambda steps, time: time >= age), CONSTANT, 1).problems
    assert "it keeps its scores for a time of its own, whatever the step size: 8 steps of 0.0625 take 8" in problem
    assert examine(Keeping(lambda steps, _: steps >= 3), CONSTANT, 1).problems == ()


def test_some_treads_rule_out_what_is_smooth_and_no_staircase() -> None:
    """Claim: of stairs of any width that are looked for, begun anywhere, level or nearly, and beside a smooth part, all
    treads are looked at; of smooth parts some, and of one that does not move all."""
    at = np.linspace(2.0**-7, 2.0**-6, 64)
    tread, asked = at[1] - at[0], list[float]()

    def smooth(h: float) -> np.ndarray:
        asked.append(h)
        return np.array([np.exp(-9 * h) - 1, h**2, h / (1 + 3 * h), 0.0])

    assert _treads(smooth, at, 1e-12) is None
    assert len(asked) < len(at) / 3
    assert _treads(lambda _: np.ones(2), at, 1e-12) is not None
    for width, begun, slope in itertools.product(np.linspace(2.5, 31, 58), np.linspace(0, 0.9, 7), (0.0, 0.05, -0.1)):

        def stairs(h: float, width=width * tread, begun=begun, slope=slope) -> np.ndarray:
            return np.array([h**2, width * np.floor(h / width + begun) + slope * h])

        found = _treads(stairs, at, 1e-12)
        assert found is not None, (width, begun, slope)
        np.testing.assert_array_equal(found, [stairs(h) for h in at])


TABLES = {  # of beta, by t: the spacings
    "the nearest of 1,000": (lambda t, b: b(round(999 * t) / 999), "0.001"),
    "the one before, of 500": (lambda t, b: b(int(500 * t) / 500), "0.002"),
    "from the cut-off on": (lambda t, b: b(1e-3 + 0.999 * round(100 * (t - 1e-3) / 0.999) / 100), "0.00999"),
}


@pytest.mark.parametrize("name", nightly_but(lambda name: name == next(iter(TABLES)), TABLES))
def test_a_table_of_betas_is_named_with_its_spacing_and_is_no_inconsistency(name: str) -> None:
    table, spacing = TABLES[name]
    found = examine(scheduled(lambda t: table(t, LINEAR.beta)), LINEAR, 1)
    assert found.problems == ()
    (rounding,) = found.rounding
    assert f"takes the rates of its steps from a table of times, which are {spacing} apart" in rounding.text
    wrong = examine(scheduled(lambda t: 1.05 * table(t, LINEAR.beta)), LINEAR, 1)
    assert any("rate of everything" in str(problem) for problem in wrong.problems)


@pytest.mark.nightly
def test_the_levels_above_a_table_are_judged() -> None:
    table, _ = TABLES["the nearest of 1,000"]
    study = study_black_box("table", scheduled(lambda t: table(t, LINEAR.beta)), LINEAR, steps=(25, 50, 100, 200))
    assert study.verdict is Verdict.PASS
    assert any("from a table of times" in warning for warning in study.warnings)


@pytest.mark.nightly
def test_steps_that_are_not_those_of_the_times_given_are_told() -> None:
    def sample(score, u, taus, own=True):
        grid = time_grid("uniform", len(taus) - 1, CONSTANT, 0.1) if own else taus
        for tau, later in itertools.pairwise(grid):
            u = drawing(torch.randn_like)(u, float(tau), float(later - tau), score)
        return u

    (problem,) = examine(sample, CONSTANT, 1).problems
    assert "its steps are not those of the times that it is given: a short run does the same whatever" in problem
    assert examine(lambda score, u, taus: sample(score, u, taus, own=False), CONSTANT, 1).problems == ()


def test_a_schedule_that_runs_backward_is_told() -> None:
    (problem,) = examine(scheduled(lambda t: LINEAR.beta(1 - t)), LINEAR, 1).problems
    assert "beta is taken at tau, not at t = T - tau" in problem
    (other,) = examine(scheduled(lambda t: 1.1 * LINEAR.beta(1 - t)), LINEAR, 1).problems
    assert "beta or a step size" in other


def test_what_is_off_by_little_is_shown_with_the_digits_that_tell_it() -> None:
    fault = Inconsistency("a rate", (0.1, 0.2), (1.0, 1.0 + 2e-9), (1.0, 1.0), (0.1, 0.2))
    assert str(fault) == "a rate is 1.000000002 times what is right (1.000000002 where 1 is right) at all times"


def test_roundings_of_a_part_that_is_nothing_are_no_rounded_step_size() -> None:
    def three_points(u):
        k = torch.randint(0, 6, u.shape)
        return torch.where(k == 0, -(3**0.5), torch.where(k == 1, 3**0.5, 0.0)).to(u)

    assert examine(drawing(lambda u: 1.02 * three_points(u)), CONSTANT, 1).rounding == ()
    rounded = drawing(lambda u: 0.0 * u)

    def step(u, tau, h, score):  # a constant drift of next to nothing, in rounded steps
        return rounded(u, tau, h, score) + 1e-3 * round(h, 3)

    assert "rounds the step size to 1/1000" in str(examine(step, CONSTANT, 1).rounding)


def integer_times(keeps_the_stride: bool, table: int = 500):
    """Euler-Maruyama at integer times of a table, the next of which is looked up, or a fixed stride away."""

    def sample(score, u, taus):
        times = [round(table * (1 - tau)) for tau in taus.tolist()]
        stride = round(table * float(taus[-1] - taus[0])) // (len(taus) - 1)
        for now, later in itertools.pairwise(times):
            h = (stride if keeps_the_stride else now - later) / table
            u = drawing(torch.randn_like)(u, 1 - now / table, h, score)
        return u

    return sample


@pytest.mark.nightly
@pytest.mark.parametrize("keeps", [False, True])
def test_integer_times_are_judged_on_their_own_grid_and_up_to_the_steps_it_resolves(keeps: bool) -> None:
    """Claim: looked at on their grid both samplers are consistent, and known down to steps of two spacings. Short runs
    off the grid, the broken variant, call both inconsistent."""
    found = examine(integer_times(keeps), CONSTANT, 1)
    assert found.problems == ()
    (rounding,) = found.rounding
    assert "rounds the times of its scores to 1/500" in rounding.text
    assert rounding.shortest == pytest.approx(0.004)
    assert departures(look(Dissection(integer_times(keeps)), CONSTANT, STEPS), CONSTANT) != []


@pytest.mark.nightly
def test_integer_times_converge_up_to_their_spacing_and_a_fixed_stride_does_not() -> None:
    looked_up = study_black_box("looked up", integer_times(False), CONSTANT, steps=(20, 40, 80, 160, 240), t_end=0.3)
    assert looked_up.verdict is Verdict.PASS
    assert "up to 160 steps, beyond which its rounding shows: it rounds the times" in looked_up.reason
    fixed = study_black_box("fixed stride", integer_times(True, 1000), CONSTANT, steps=(25, 50, 100, 200, 400))
    assert fixed.verdict is Verdict.FAIL
    assert "does not converge: the error of the" in fixed.reason

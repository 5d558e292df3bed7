"""What people who write samplers reported of their own, transposed to PSLD: each is told what it is, from pytest too.

The right sampler beside each wrong one is told nothing.
"""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.anatomy import dissect
from weakorder.verification.blackbox.consistency import inconsistencies
from weakorder.verification.blackbox.images import on_images
from weakorder.verification.testing import WeakorderWarning, assert_weak_order

PARAMS = Parameters()
FEW = (20, 40, 80, 160)
SHORT = np.array([0.4, 0.41])


def drift(u, s, weight=1.0):
    """weight: 1 for the reverse SDE, 1/2 for the probability flow."""
    (x, m), (s_x, s_m) = u.unbind(1), s.unbind(1)
    dx, dm = 0.01 * x - 4 * m + 0.02 * weight * s_x, x + 4.01 * m + 2.005 * weight * s_m
    return 4 * torch.stack([dx, dm], dim=1)


def deviation(u, h):
    return h**0.5 * torch.tensor([0.08, 8.02], dtype=u.dtype).sqrt().reshape(2, *(1,) * (u.ndim - 2))


def drawing(draw, of=lambda u: u):
    return lambda u, tau, h, score: u + h * drift(u, score(of(u), 1 - tau)) + deviation(u, h) * draw(u)


plain = drawing(lambda u: torch.randn_like(u))


class Leapfrog:
    """On the probability flow; the momentum is kept at half steps, and its first kick is half as long."""

    def reset(self):
        self.first = True

    def __call__(self, u, tau, h, score):
        kick, self.first = h * (0.5 if self.first else 1.0), False
        s = score(u, 1 - tau)
        u = u + kick * drift(u, s, 0.5) * torch.tensor([0.0, 1.0], dtype=u.dtype).reshape(2, *(1,) * (u.ndim - 2))
        return u + h * drift(u, s, 0.5) * torch.tensor([1.0, 0.0], dtype=u.dtype).reshape(2, *(1,) * (u.ndim - 2))


def leapfrog_run(score, u, taus):
    step = Leapfrog()
    step.reset()
    for tau, later in itertools.pairwise(taus.tolist()):
        u = step(u, tau, later - tau, score)
    return u


@pytest.mark.nightly
@pytest.mark.parametrize(
    "sampler",
    [pytest.param(Leapfrog(), id="multistep", marks=pytest.mark.nightly), pytest.param(leapfrog_run, id="trajectory")],
)
def test_a_start_of_its_own_is_no_inconsistency(sampler) -> None:
    """Claim: what the first step changes vanishes over a run; what every step does wrong does not."""
    assert inconsistencies(sampler, PARAMS) == []

    def late(score, u, taus):
        return leapfrog_run(lambda v, t: 1.01 * score(v, t), u, taus)

    assert "gain of m from s_m is 1.01 times" in "; ".join(map(str, inconsistencies(late, PARAMS)))


class HeavyBall:
    """The drift's running mean on the probability flow, from nothing: what it lacks at first dies out over steps."""

    def __init__(self, kept, weight=None):
        self.kept, self.weight = kept, 1 - kept if weight is None else weight

    def reset(self):
        self.mean = 0.0

    def __call__(self, u, tau, h, score):
        self.mean = self.kept * self.mean + self.weight * drift(u, score(u, 1 - tau), 0.5)
        return u + h * self.mean


@pytest.mark.nightly
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_start_that_dies_out_over_steps_is_no_inconsistency(kept: float) -> None:
    """Claim: however many steps it takes; weights that add up to 1.03 do not die out."""
    assert inconsistencies(HeavyBall(kept), PARAMS) == []
    assert inconsistencies(HeavyBall(0.5, 0.515), PARAMS) != []


# --- A cause is named by its own test ---------------------------------------------------------------------------------

GENERATOR = np.random.default_rng(0)


def kick(u, scale):
    return u + scale * torch.randn_like(u)


with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    scripted_kick = torch.jit.script(kick)

CAUSES = {
    "NaN": (drawing(lambda u: torch.randn_like(u) * torch.tensor(-1.0).sqrt()), r"returns NaN from step 1 on"),
    "a numpy Generator": (
        drawing(lambda u: torch.from_numpy(GENERATOR.standard_normal(u.shape))),
        r"draws from numpy\.random \(Generator\)",
    ),
    "a numpy Generator made in the step": (
        drawing(lambda u: torch.from_numpy(np.random.default_rng().standard_normal(u.shape))),
        r"draws from numpy\.random \(default_rng made inside it\)",
    ),
    # in the test, as torch's compiler takes seconds to load
    "compiled": (None, "is compiled by torch.compile; give the plain function"),
    "scripted": (
        lambda u, tau, h, score: scripted_kick(u + h * drift(u, score(u, 1 - tau)), deviation(u, h)),
        "is compiled by torch.jit; give the plain function",
    ),
    "one draw under vmap": (
        drawing(lambda u: torch.vmap(torch.randn_like, randomness="same")(u)),
        "several entries share their noise",
    ),
}


@pytest.mark.parametrize(("sampler", "said"), CAUSES.values(), ids=CAUSES)
def test_what_cannot_be_verified_is_named_and_is_an_assertion_in_pytest(sampler, said: str) -> None:
    with pytest.raises(AssertionError, match=said) as caught:
        assert_weak_order(sampler or torch.compile(plain, backend="eager"), steps=FEW)
    assert isinstance(caught.value.__cause__, BlackBoxError | None)
    assert "\n" not in str(caught.value)


# --- Numbers are found where they act ---------------------------------------------------------------------------------


def drawn_ahead(score, u, taus):
    z = torch.randn(len(taus) - 1, *u.shape, dtype=u.dtype)
    for k, (tau, later) in enumerate(itertools.pairwise(taus.tolist())):
        u = u + (later - tau) * drift(u, score(u, 1 - tau)) + deviation(u, later - tau) * z[k]
    return u


class OfEachImage:
    """One generator for each image, so that it does not depend on its batch."""

    def reset(self):
        self.generators = None

    def __call__(self, u, tau, h, score):
        if self.generators is None:
            self.generators = [torch.Generator().manual_seed(k) for k in range(len(u))]
        z = torch.cat([torch.randn((1, *u.shape[1:]), generator=g, dtype=u.dtype) for g in self.generators])
        return u + h * drift(u, score(u, 1 - tau)) + deviation(u, h) * z


def momenta_one_by_one(u):
    m = torch.cat([torch.randn((1, *u.shape[2:]), dtype=u.dtype) for _ in u])
    return torch.stack([torch.randn_like(u[:, 0]), m], dim=1)


LAYOUTS = {"ahead": drawn_ahead, "of each image": OfEachImage(), "momenta one by one": drawing(momenta_one_by_one)}


@pytest.mark.parametrize("event", [(), (3, 4, 4)], ids=["state", "image"])
@pytest.mark.parametrize("sampler", LAYOUTS.values(), ids=LAYOUTS)
def test_draws_of_any_layout_are_read_as_those_of_the_states(sampler, event: tuple[int, ...]) -> None:
    right = dissect(plain, SHORT, event).noise_cov
    np.testing.assert_allclose(dissect(sampler, SHORT, event).noise_cov, right, rtol=1e-12, atol=1e-15)


# --- The claim is no wider than what was tried ------------------------------------------------------------------------


def test_scores_of_displaced_states_are_told_though_they_are_right_where_affine() -> None:
    """Claim: the mean of the scores at u + d and u - d is that at u for affine scores alone; at d = 0 it is right."""

    def displaced(by):
        def step(u, tau, h, score):
            d = by * torch.tensor([1.0, -1.0], dtype=u.dtype).reshape(2, *(1,) * (u.ndim - 2))
            s = (score(u + d, 1 - tau) + score(u - d, 1 - tau)) / 2
            return u + h * drift(u, s) + deviation(u, h) * torch.randn_like(u)

        return step

    found = "; ".join(map(str, inconsistencies(displaced(1.0), PARAMS)))
    assert "the constant offset of the x of score 1 is 1 where 0 is right at all times" in found
    assert inconsistencies(displaced(0.0), PARAMS) == []


def test_one_number_for_all_pixels_fails_without_being_asked_for_images_in_pytest_too() -> None:
    shared = drawing(lambda u: torch.randn(u.shape[:2], dtype=u.dtype).reshape(*u.shape[:2], *(1,) * (u.ndim - 2)))
    found = on_images(shared)
    assert found is not None
    assert found.is_wrong
    assert on_images(plain) is None
    with pytest.raises(AssertionError, match="FAIL, wrong on images of 3 x 4 x 4: several pixels of an image share"):
        assert_weak_order(shared, steps=FEW)


def test_what_the_command_line_warns_of_is_a_pytest_warning() -> None:
    single = drawing(torch.randn_like, of=lambda u: u.float().double())
    with pytest.warns(WeakorderWarning, match="rounds to float32: over a run it departs by up to"):
        assert_weak_order(single, steps=(25, 50, 100, 200))

"""A cause is named by a test of its own: what a refused sampler does, told apart from what looks the same."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from plain_step import deviation, drawing, drift
from selection import nightly_but
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.integrators.other_sources import compiled, reachable
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.anatomy import check_repeats, dissect
from weakorder.verification.blackbox.examination import examine
from weakorder.verification.blackbox.images import on_images
from weakorder.verification.testing import assert_weak_order

PARAMS = Parameters()
SHORT = np.array([0.4, 0.41])


def then(change):
    """Euler-Maruyama, and a change of the next state."""
    return lambda u, *rest: change(drawing(torch.randn_like)(u, *rest))


plain = drawing()


class OfTheSameBatch:
    """Keeps the last drift as long as the batch has one size, and is no object that can be reset."""

    def __init__(self):
        self.last = None

    def __call__(self, u, tau, h, score):
        d = drift(u, score(u, 1 - tau))
        old = d if self.last is None or self.last.shape != d.shape else self.last
        self.last = d
        return u + h * (1.5 * d - 0.5 * old) + deviation(u, h) * torch.randn_like(u)


def of_the_clock(u):
    return torch.sin(torch.arange(u.numel(), dtype=u.dtype) * (time.perf_counter_ns() % 1000003)).reshape(u.shape)


def of_a_sequence():
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=0)
    normal = torch.distributions.Normal(0.0, 1.0)
    return lambda u: normal.icdf(sobol.draw(len(u)).to(u).clamp(1e-6, 1 - 1e-6))


def of_the_batch(u):
    z = torch.randn_like(u)
    return z - z.mean(0, keepdim=True)


def cut_off(u):
    return u.clamp(-1.5, 1.5)


AGAIN = "another result when it is called again with the same state"
CAUSES = {
    "state that another batch clears": (OfTheSameBatch(), AGAIN),
    "noise of the clock": (drawing(of_the_clock), AGAIN),
    "a sequence that goes on": (drawing(of_a_sequence()), AGAIN),
    "noise less its mean": (
        drawing(of_the_batch),
        "mixes the entries of a batch, as a mean over them does: one number",
    ),
    "states drawn to their mean": (
        then(lambda u: u - 1e-3 * u.mean(0, keepdim=True)),
        "mixes the entries of a batch: changing the state of one",
    ),
    "a state cut off": (then(cut_off), "it branches on its state, as what clamps or thresholds does"),
    "a state that saturates": (then(lambda u: u.tanh()), "it is nonlinear"),
    "bfloat16": (
        lambda u, tau, h, score: plain(u.bfloat16(), tau, h, score).double(),
        "it rounds to half precision: verify it in float32",
    ),
    "a network in half precision": (
        lambda u, tau, h, score: plain(u, tau, h, lambda v, t: score(v.half().double(), t).half().double()),
        "it rounds to half precision: verify it in float32",
    ),
    "seeds of numpy, the same in every call": (
        lambda u, tau, h, score: drawing(
            lambda v: torch.from_numpy(np.random.default_rng(int(1e6 * tau)).standard_normal(v.shape))
        )(u, tau, h, score),
        r"draws from numpy\.random \(default_rng made inside it\)",
    ),
}


@pytest.mark.parametrize(("sampler", "said"), CAUSES.values(), ids=CAUSES)
def test_what_is_refused_is_told_by_its_own_test_in_one_line(sampler, said: str) -> None:
    with pytest.raises(AssertionError, match=said) as caught:
        assert_weak_order(sampler, steps=(20, 40, 80, 160))
    assert "\n" not in str(caught.value)


def test_the_plain_sampler_beside_them_is_told_nothing() -> None:
    check_repeats(plain)
    assert examine(plain, PARAMS, 1).problems == ()


def test_noise_that_numba_draws_is_named() -> None:
    numba = pytest.importorskip("numba")

    @numba.njit
    def noise(n):
        found = np.empty(n)
        for i in range(n):
            found[i] = np.random.normal()  # noqa: NPY002 - numba's own
        return found

    with pytest.raises(AssertionError, match="compiled by numba"):
        assert_weak_order(drawing(lambda u: torch.from_numpy(noise(u.numel())).reshape(u.shape)), steps=(1, 2, 4, 8))


def test_objects_of_any_library_are_looked_through() -> None:
    """Claim: one whose __dict__ is no dictionary, as those of C libraries, is an object like others."""

    class Odd:
        __dict__ = 3  # type: ignore[assignment]

    odd = Odd()
    assert compiled(odd) is None
    assert odd in list(reachable([odd]))


IMAGES = {
    "transposed": lambda u: u.transpose(-1, -2),
    "blurred": lambda u: u + 1e-3 * (u.roll(1, -1) - u),
    "mirrored": lambda u: u.flip(-1),
    "colours turned": lambda u: u.roll(1, 2),
}


@pytest.mark.parametrize("of", nightly_but(lambda of: of is IMAGES["mirrored"], IMAGES.values()), ids=IMAGES)
def test_a_step_that_mixes_pixels_is_told_so_without_being_asked_for_images(of) -> None:
    sampler = then(lambda u: of(u) if u.ndim > 3 else u)
    with pytest.raises(AssertionError, match="wrong on images of 3 x 4 x 4: the sampler mixes the pixels of an image"):
        assert_weak_order(sampler, steps=(20, 40, 80, 160))


def louder_at(part):
    """The plain step, where some numbers of the noise are 1.2 times as large."""

    def noise(u):
        z = torch.randn_like(u)
        z[part(u)] *= 1.2
        return z

    return drawing(noise)


SOME_CELLS = {
    "the last colour": louder_at(lambda u: (slice(None), slice(None), slice(-1, None)) if u.ndim == 5 else slice(0)),
    "the last row": louder_at(lambda u: (..., slice(-1, None), slice(None)) if u.ndim == 5 else slice(0)),
}
SOME_ENTRIES = {
    "the last entry": louder_at(lambda u: slice(-1, None)),
    "every seventh entry": louder_at(lambda u: slice(6, None, 7)),
    "the second half": louder_at(lambda u: slice(len(u) // 2, None)),
}
NOT_ALIKE = "treats the entries of a batch, or the pixels of an image, differently"


@pytest.mark.parametrize("sampler", SOME_CELLS.values(), ids=SOME_CELLS)
def test_what_is_done_to_some_pixels_alone_is_told_of_images(sampler) -> None:
    found = on_images(sampler)
    assert found is not None
    assert found.is_wrong
    assert NOT_ALIKE in found.text
    assert on_images(plain) is None


@pytest.mark.parametrize("sampler", SOME_ENTRIES.values(), ids=SOME_ENTRIES)
def test_what_is_done_to_some_entries_alone_is_told_so(sampler) -> None:
    with pytest.raises(BlackBoxError, match=NOT_ALIKE):
        dissect(sampler, SHORT)


def test_antithetic_entries_are_alike() -> None:
    def halves(u):
        z = torch.randn_like(u[: (len(u) + 1) // 2])
        return torch.cat([z, -z])[: len(u)]

    np.testing.assert_allclose(dissect(drawing(halves), SHORT).noise_cov, dissect(plain, SHORT).noise_cov, rtol=1e-12)


def test_a_shape_that_is_lost_in_a_batch_of_one_is_no_state_left_over() -> None:
    with pytest.raises(
        BlackBoxError, match=r"returns \(2,\) for a state of shape \(1, 2\); it must return the next state$"
    ):
        dissect(then(lambda u: u.squeeze()), SHORT)


RANDN_LIKE = torch.randn_like  # a name that was taken before anyone watches


def test_a_call_that_was_broken_off_leaves_nothing_for_the_next() -> None:
    """Claim: noise that is drawn by a name of its own, before scores, is read as noise."""

    def heun(draw):
        def step(u, tau, h, score):
            xi = deviation(u, h) * draw(u)
            b = drift(u, score(u, 1 - tau))
            return u + h / 2 * (b + drift(u + h * b + xi, score(u + h * b + xi, 1 - tau - h))) + xi

        return step

    taken, plainly = (dissect(heun(draw), SHORT) for draw in (RANDN_LIKE, lambda u: torch.randn_like(u)))
    assert taken.nfe == len(taken.places) == 2
    np.testing.assert_allclose(taken.noise_cov, plainly.noise_cov, rtol=1e-13)
    np.testing.assert_allclose(taken.places[1].noise_cov, plainly.places[1].noise_cov, rtol=1e-13)


class OfEachEntry:
    """One generator for each entry of the batch; `drawn` counts its draws."""

    drawn = 0

    def reset(self):
        self.generators = None

    def __call__(self, u, tau, h, score):
        if self.generators is None:
            self.generators = [torch.Generator().manual_seed(k) for k in range(len(u))]
        OfEachEntry.drawn += len(u)
        z = torch.stack([torch.randn(u.shape[1:], generator=g, dtype=u.dtype) for g in self.generators])
        return u + h * drift(u, score(u, 1 - tau)) + deviation(u, h) * z


@pytest.mark.nightly
def test_draws_of_each_entry_are_not_looked_for_in_batches_as_large_as_all_that_is_asked() -> None:
    """Claim: reading 25 steps for 8 targets takes fewer draws than finding the layout of one batch of them did."""
    from weakorder.theory.model import PSLD_DIFFUSION
    from weakorder.verification.blackbox.probing import probed_moments
    from weakorder.verification.exact import gaussian_targets

    OfEachEntry.drawn, target, taus = 0, gaussian_targets(PSLD_DIFFUSION, PARAMS), np.linspace(0, 0.9, 26)
    each = probed_moments(OfEachEntry(), target, taus)
    assert OfEachEntry.drawn < 50_000  # with one batch for all rows it was 230,000

    def run(score, u, taus):
        for tau, later in itertools.pairwise(taus.tolist()):
            u = plain(u, tau, later - tau, score)
        return u

    np.testing.assert_allclose(each.computed.cov, probed_moments(run, target, taus).computed.cov, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.nightly)], ids=str)
def test_draws_of_few_digits_are_no_uneven_treatment(dtype: torch.dtype) -> None:
    """What fills the cells that no probe does are numbers that such draws hold."""
    few = drawing(lambda u: torch.randn(u.shape, dtype=dtype).to(u.dtype))
    assert_weak_order(few, steps=(25, 50, 100, 200))

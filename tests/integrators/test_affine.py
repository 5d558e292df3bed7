"""A score that is affine goes into the tables, and the run is the same run."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from kernel_cases import DTYPES, SAMPLES, SEED, SIZES, TIERS, device_of, some
from selection import nightly_but
from weakorder.integrators.affine import AffineScore
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION
from weakorder.integrators.grids import time_grid
from weakorder.integrators.kernels import Draw, gpu
from weakorder.integrators.kernels.tiers import one_by_one
from weakorder.integrators.sampler import sample
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.targets import GaussianTarget

PARAMS = Parameters(beta_min=0.5, beta_max=12.0)
TAUS = time_grid("quadratic", 20, PARAMS)
TARGET = GaussianTarget.of(3.0, 0.25, PSLD_DIFFUSION, PARAMS)
SCORE = TARGET.as_score()


def black_box(u: torch.Tensor, t: float) -> torch.Tensor:
    """The same numbers, from a function that says nothing of itself."""
    return SCORE(u, t)


def table(rows: int) -> np.ndarray:
    """Updates without score, some without noise."""
    c = some(rows, 11, dtype=torch.float64).numpy() / 2
    c[:, 4:8] = 0
    c[1::3, 8:] = 0
    return c


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["EM", "ROBA", "SSCS", "ROBAB", "RVV", "SDE-DPM-Solver++1"])
def test_a_folded_run_is_the_run_with_the_same_score(name: str, dtype: torch.dtype) -> None:
    """Claim: to the rounding of its steps; with a centre that is 1e-3 off it is not."""
    scheme = (CATALOGUE | EXPONENTIAL)[name]
    for event in ((1,), (7,), (3, 4, 4), (300,)):
        u = some(9, 2, *event, dtype=dtype)
        numbers = torch.arange(9) * 12345
        folded = sample(scheme, SCORE, u, TAUS, PARAMS, samples=numbers, seed=3, denoise=True)
        called = sample(scheme, black_box, u, TAUS, PARAMS, samples=numbers, seed=3, denoise=True)
        off = AffineScore(lambda t: (SCORE.at(t)[0], SCORE.at(t)[1] + 1e-3))
        moved = sample(scheme, off, u, TAUS, PARAMS, samples=numbers, seed=3, denoise=True)
        bound = 1e4 * torch.finfo(dtype).eps if dtype == torch.float64 else 1e-4
        assert float((folded - called).abs().max()) < bound < float((moved - called).abs().max())


@pytest.mark.parametrize(  # what is interpreted takes seconds
    ("tier", "dtype"), nightly_but(lambda case: case != (gpu, torch.float32), product(TIERS, DTYPES))
)
def test_updates_at_once_have_the_bits_of_one_after_the_other(tier, dtype: torch.dtype) -> None:
    for n in SIZES[:3] if tier is gpu else SIZES:  # which is interpreted here
        u = some(len(SAMPLES), 2, n, dtype=dtype).to(device_of(tier))
        draw = Draw(SEED, torch.tensor(SAMPLES, device=u.device), 2**31)
        at_once = tier.march(table(7), u, draw)
        assert torch.equal(at_once, one_by_one(tier.Updates(table(7), u), table(7), u, draw))
        later = tier.march(table(7), u, draw._replace(interval=2**31 + 1))
        assert not torch.equal(at_once, later)


def test_no_bit_depends_on_batch_order_length_or_threads() -> None:
    u, numbers = some(40, 2, 300, dtype=torch.float64), torch.arange(40) + 7
    whole = sample(CATALOGUE["ROBA"], SCORE, u, TAUS, PARAMS, samples=numbers, seed=3)
    rows = torch.tensor([31, 0, 5])
    part = sample(CATALOGUE["ROBA"], SCORE, u[rows, :, :33], TAUS, PARAMS, samples=numbers[rows], seed=3)
    assert torch.equal(part, whole[rows, :, :33])
    try:
        torch.set_num_threads(3)
        assert torch.equal(sample(CATALOGUE["ROBA"], SCORE, u, TAUS, PARAMS, samples=numbers, seed=3), whole)
    finally:
        torch.set_num_threads(1)


def test_the_state_that_a_run_begins_with_is_left_as_it_was() -> None:
    u = some(3, 2, 5, dtype=torch.float64)
    before = u.clone()
    for scheme in (CATALOGUE["ROBA"], CATALOGUE["RVV"]):
        sample(scheme, SCORE, u, TAUS, PARAMS)
        assert torch.equal(u, before)


def test_a_memory_or_another_number_of_components_takes_the_score_as_any_other() -> None:
    u = some(3, 2, 5, dtype=torch.float64)
    scheme = EXPONENTIAL["SDE-DPM-Solver++2M"]
    assert torch.equal(sample(scheme, SCORE, u, TAUS, PARAMS), sample(scheme, black_box, u, TAUS, PARAMS))
    one = POSITION["vp-DDIM"]
    unit = AffineScore(lambda _: (-np.eye(1), np.ones(1)))
    x = some(3, 5, dtype=torch.float64)
    assert torch.allclose(
        sample(one, unit, x, TAUS, PARAMS), sample(one, lambda u, _: 1 - u, x, TAUS, PARAMS), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (lambda _: (-np.eye(3), np.zeros(3)), r"the slope \(3, 3\) and the centre \(3,\) at t = .*\(2, 2\) and \(2,\)"),
        (lambda _: (-np.eye(2), np.zeros(())), r"the centre \(\)"),
        (lambda _: (np.nan * np.eye(2), np.zeros(2)), r"not finite at t = "),
    ],
)
def test_what_is_no_affine_score_is_refused(at, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sample(CATALOGUE["ROBA"], AffineScore(at), torch.zeros(3, 2, 5), TAUS, PARAMS)


def test_a_batch_of_gaussians_has_no_one_score() -> None:
    with pytest.raises(ValueError, match="a batch of 2 Gaussians has as many scores; take one of them"):
        GaussianTarget.of([0.0, 1.0], 1.0, PSLD_DIFFUSION, PARAMS).as_score()

"""A run given the anchor's normals has with the anchor the exact law of the coupling: shown on the images."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from anchored_specimens import (
    ROUNDING,
    as_coupling,
    assert_joint_law_is_exact,
    forgetful,
    independent,
    law_error,
    shifted,
)
from coupled_specimens import coupled_runs
from hypothesis import given
from selection import nightly_but
from weakorder.integrators import anchored as module
from weakorder.integrators import coupling as coupling_module
from weakorder.integrators.anchored import Anchor, AnchoredRun, anchor_to, sample_anchored
from weakorder.integrators.catalogue import CATALOGUE, STOCHASTIC
from weakorder.integrators.coupling import couple, run_coupled
from weakorder.integrators.grids import time_grid
from weakorder.integrators.noise import START, normal_pairs
from weakorder.integrators.planes import draw_normals
from weakorder.integrators.sampler import ScoreError, integrate, sample
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme, parse
from weakorder.theory.splitting import LANGEVIN
from weakorder.verification.sampled.calibration import exact_coupled_moments
from weakorder.verification.targets.gaussian import GaussianTarget

PARAMS = Parameters()
MODELS = (PARAMS, Parameters(gamma=0.0, nu=4.0), Parameters(gamma=0.5, nu=3, beta_min=0.1, beta_max=15.9))
ROBA, SSCS, EM, NOBA = (CATALOGUE[name] for name in ("ROBA", "SSCS", "EM", "NOBA"))


def scaled(scheme: Scheme) -> Scheme:
    return replace(scheme, lambda_s=1.3)


@pytest.mark.parametrize(
    ("scheme", "grid"),
    [
        *nightly_but(
            lambda case: case in ((CATALOGUE["ROBAB"], "quadratic"), (CATALOGUE["SSCS"], "uniform")),
            itertools.product(STOCHASTIC, ("quadratic", "uniform")),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Scheme) else value,
)
def test_the_noises_of_run_and_anchor_have_the_joint_law_of_the_coupling(scheme, grid) -> None:
    for params in MODELS:
        anchors = [Anchor(ROBA, time_grid(grid, 70, params), params), Anchor(SSCS, time_grid(grid, 36, params), params)]
        for steps, chosen in ((5, scheme), (7, scaled(scheme)), (9, scheme), (33, scaled(scheme))):
            taus = time_grid(grid, steps, params)
            for anchor in anchors:
                assert law_error(anchor_to(anchor, chosen, taus), chosen, taus) <= ROUNDING


@given(coupled_runs())
def test_the_joint_law_is_exact_for_any_word_and_either_run_as_the_anchor(case) -> None:
    runs, params = case
    for (scheme, taus), anchor in ((runs[0], Anchor(*runs[1], params)), (runs[1], Anchor(*runs[0], params))):
        assert_joint_law_is_exact(anchor_to(anchor, scheme, taus), scheme, taus)


@pytest.mark.parametrize("broken", [independent, forgetful, shifted])
@pytest.mark.parametrize("scheme", [ROBA, EM, SSCS], ids=lambda scheme: scheme.name)
def test_the_joint_law_tells_a_coupling_that_is_not_exact(scheme, broken: Callable[[AnchoredRun], AnchoredRun]) -> None:
    taus = time_grid("quadratic", 9, PARAMS)
    run = anchor_to(Anchor(ROBA, time_grid("quadratic", 70, PARAMS), PARAMS), scheme, taus)
    assert law_error(run, scheme, taus) <= ROUNDING
    assert law_error(broken(run), scheme, taus) > 1e-4


@pytest.mark.parametrize("scheme", [*STOCHASTIC, scaled(ROBA), CATALOGUE["RVV"]], ids=lambda scheme: scheme.name)
def test_on_gaussian_data_run_and_anchor_have_the_exact_joint_moments_of_the_coupling(scheme) -> None:
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], PSLD_DIFFUSION, PARAMS)
    fine, taus = time_grid("quadratic", 64, PARAMS), time_grid("quadratic", 9, PARAMS)
    run = anchor_to(Anchor(ROBA, fine, PARAMS), scheme, taus)
    computed = exact_coupled_moments(as_coupling(run), target)
    expected = exact_coupled_moments(couple([(ROBA, fine), (scheme, taus)], PARAMS), target)
    np.testing.assert_allclose(computed.mean, expected.mean, rtol=ROUNDING)
    np.testing.assert_allclose(computed.cov, expected.cov, rtol=0, atol=ROUNDING * np.abs(expected.cov).max())
    if scheme.splitting.whole.has_noise:  # the last states are correlated, and less without the coupling
        apart = exact_coupled_moments(as_coupling(shifted(forgetful(run))), target)
        assert np.abs(apart.cov - expected.cov).max() > 1e-3 * np.abs(expected.cov).max()


@pytest.mark.parametrize("name", [*CATALOGUE])
def test_a_run_nested_in_an_anchor_of_its_kind_draws_nothing(name) -> None:
    scheme = CATALOGUE[name]
    for params in MODELS:
        anchor = Anchor(scheme, time_grid("uniform", 60, params), params)
        # A half-step of SSCS ends where one of the anchor's does: of its steps an odd number make one of the run's.
        for steps in (12, 20):
            assert not anchor_to(anchor, scheme, time_grid("uniform", steps, params)).draws
        not_nested = anchor_to(anchor, scheme, time_grid("uniform", 7, params))
        assert not_nested.draws == scheme.splitting.whole.has_noise


def test_a_part_whose_rate_is_zero_has_no_noise() -> None:
    params, taus = Parameters(gamma=1, nu=0), np.array([0.1, 0.3, 0.4])
    frictionless = Scheme("O S B A", LANGEVIN)
    anchor = Anchor(frictionless, taus, params)
    assert len(anchor.intervals) == 0
    assert not anchor_to(anchor, frictionless, taus[::2]).draws
    for scheme, other in ((EM, frictionless), (frictionless, EM)):
        assert law_error(anchor_to(Anchor(scheme, taus, params), other, taus), other, taus) <= ROUNDING


def test_a_nested_runs_normals_are_the_anchors_added_up() -> None:
    """For increments, over steps of lengths h_j in one of length h: y = sum_j (h_j / h)^1/2 z_j."""
    fine = time_grid("quadratic", 28, PARAMS)
    run = anchor_to(Anchor(EM, fine, PARAMS), EM, fine[::4])
    for k, image in enumerate(run.known):
        assert (image.first, image.last) == (4 * k, 4 * k + 4)
        shares = np.sqrt(np.diff(fine)[4 * k : 4 * k + 4] / (fine[4 * k + 4] - fine[4 * k]))
        np.testing.assert_allclose(image.matrix, np.kron(shares, np.eye(2)), rtol=0, atol=1e-14)


def test_a_run_of_another_kind_is_mostly_known() -> None:
    """An increment and a damped integral over one step differ by theta^2 / 12 of their variance, to leading order in
    rate theta; the anchor's 200 steps have theta = 0.04, and rates of 2 in momentum."""
    taus = time_grid("uniform", 200, PARAMS)
    run = anchor_to(Anchor(ROBA, taus, PARAMS), EM, taus)
    left = np.array([image.matrix @ image.matrix.T for image in run.own])[:, 1, 1]
    rate, theta = PARAMS.nu / 2, PARAMS.theta(1.0, taus[1])
    np.testing.assert_allclose(left, (rate * theta) ** 2 / 12, rtol=2 * rate * theta)


# --- Sampling ---------------------------------------------------------------------------------------------------------


def score(u: torch.Tensor, t: float) -> torch.Tensor:
    return -torch.tanh(u) * (1 + t)


@pytest.mark.parametrize("event", [(), (1,), (2, 3)])
@pytest.mark.parametrize("scheme", [SSCS, NOBA, CATALOGUE["RVV"]], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("fine", [ROBA, CATALOGUE["RSE"]], ids=lambda scheme: scheme.name)
def test_a_run_is_sampled_with_just_these_images(scheme, event, fine) -> None:
    anchor = Anchor(fine, time_grid("quadratic", 40, PARAMS), PARAMS)
    run = anchor_to(anchor, scheme, time_grid("quadratic", 7, PARAMS))
    numbers, count = torch.tensor([3, 1, 4, 15]), len(anchor.intervals)
    u = torch.randn(4, 2, *event, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    normals = anchor.draw(numbers, event, 7, torch.float64)
    assert normals.shape == (4, count, 2, *event)

    def column(k: int) -> torch.Tensor:
        if k < count:
            return normals[:, k]
        return normal_pairs(7, numbers + (1 << 40), START + 1 + k - count, event)

    reference, expected = run_coupled(as_coupling(run), score, u, column)
    sampled = sample_anchored(run, score, u, normals, numbers, 7)
    torch.testing.assert_close(sampled, expected, rtol=1e-11, atol=1e-11)
    alone = sample(fine, score, u, anchor.taus, PARAMS, samples=numbers, seed=7)
    torch.testing.assert_close(reference, alone, rtol=1e-11, atol=1e-11)
    if run.draws:  # the comparison sees the run's own normals and the anchor's
        assert (sample_anchored(run, score, u, normals, numbers, 8) - expected).abs().max() > 1e-3
    if count and len(run.known):
        assert (sample_anchored(run, score, u, normals.flip(1), numbers, 7) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_anchor_on_its_drawn_normals_is_the_samplers_run_bit_for_bit(dtype) -> None:
    anchor = Anchor(ROBA, time_grid("quadratic", 20, PARAMS), PARAMS)
    numbers = torch.tensor([5, 0, 2])
    u = torch.ones(3, 2, 4, dtype=dtype)
    normals = anchor.draw(numbers, (4,), 3, dtype)
    drawn = integrate(anchor.run, score, u, anchor.noise(normals, dtype))
    assert torch.equal(drawn, sample(ROBA, score, u, anchor.taus, PARAMS, samples=numbers, seed=3))
    assert not torch.equal(drawn, sample(ROBA, score, u, anchor.taus, PARAMS, samples=numbers, seed=4))


def test_normals_may_be_stored_in_float32_for_states_in_float64() -> None:
    anchor = Anchor(ROBA, time_grid("quadratic", 40, PARAMS), PARAMS)
    run = anchor_to(anchor, SSCS, time_grid("quadratic", 7, PARAMS))
    numbers, u = torch.arange(3), torch.ones(3, 2, 5, dtype=torch.float64)
    short, long = (
        sample_anchored(run, score, u, anchor.draw(numbers, (5,), 0, dtype), numbers)
        for dtype in (torch.float32, torch.float64)
    )
    assert short.dtype == torch.float64
    difference = (short - long).abs().max()
    # 2^-24 of each normal, none of which is beyond 9, in each of 40 noises of a variance that sums to order 1.
    assert 0 < difference < 40 * 9 * 2.0**-24


def test_a_path_depends_on_its_seed_and_number_alone() -> None:
    anchor = Anchor(ROBA, time_grid("quadratic", 40, PARAMS), PARAMS)
    run = anchor_to(anchor, SSCS, time_grid("quadratic", 7, PARAMS))

    def path(numbers: list[int], seed: int) -> torch.Tensor:
        samples, u = torch.tensor(numbers), torch.ones(len(numbers), 2, 2, dtype=torch.float64)
        return sample_anchored(run, score, u, anchor.draw(samples, (2,), seed), samples, seed)

    whole = path([3, 1, 4, 15, 9], 7)
    torch.testing.assert_close(path([15, 3], 7), whole[[3, 0]], rtol=1e-13, atol=1e-13)
    assert (path([3, 1, 4, 15, 9], 8) != whole).all()
    assert len(whole.unique()) == whole.numel()


def test_a_runs_own_normals_are_none_of_the_anchors(monkeypatch) -> None:
    anchor = Anchor(ROBA, time_grid("quadratic", 40, PARAMS), PARAMS)
    run = anchor_to(anchor, SSCS, time_grid("quadratic", 7, PARAMS))
    numbers, drawn = torch.tensor([0, 1, 7]), []

    def recorded(seed: int, samples: torch.Tensor, interval: int, *args) -> None:
        drawn.append({(number, interval) for number in samples.tolist()})
        draw_normals(seed, samples, interval, *args)

    monkeypatch.setattr(module, "draw_normals", recorded)
    normals = anchor.draw(numbers, (1,))
    known = set().union(*drawn)
    drawn.clear()
    sample_anchored(run, score, torch.ones(3, 2, 1), normals, numbers)
    assert drawn
    assert not known & set().union(*drawn)
    assert len(drawn) == len(run.own)  # each pair once
    start = {(number, START) for number in numbers.tolist()}
    assert not start & set().union(*drawn)


def test_a_path_that_overflows_ends_so_and_leaves_the_others_alone() -> None:
    anchor = Anchor(ROBA, time_grid("uniform", 40, PARAMS), PARAMS)
    run = anchor_to(anchor, SSCS, time_grid("uniform", 7, PARAMS))
    numbers, u = torch.arange(3), torch.ones(3, 2, 2, dtype=torch.float64)
    u[1] = 1e200

    def explosive(u: torch.Tensor, t: float) -> torch.Tensor:
        return -(u**3)

    normals = anchor.draw(numbers, (2,)) * 1e-3
    with pytest.raises(ScoreError, match=r"NaN or infinite at step 1 of 7, .* finite, up to 4e\+199; correct the"):
        integrate(run.run, explosive, u, run.noise(normals, numbers, 0, u.dtype))
    u = sample_anchored(run, explosive, u, normals, numbers)
    assert not u[1].isfinite().any()
    assert u[[0, 2]].isfinite().all()


# --- Bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    taus = time_grid("uniform", 8, PARAMS)
    with pytest.raises(ValueError, match="increase strictly"):
        Anchor(ROBA, np.array([0.1, 0.1]), PARAMS)
    with pytest.raises(ValueError, match="midpoint sub-flow"):
        Anchor(replace(ROBA, flow="midpoint"), taus, PARAMS)
    anchor = Anchor(ROBA, taus, PARAMS)
    with pytest.raises(ValueError, match="must stay within"):
        anchor_to(anchor, ROBA, np.array([0.1, 1.0]))
    run = anchor_to(anchor, ROBA, taus[::2])
    u = torch.ones(2, 2, 3)
    with pytest.raises(
        ValueError, match=r"of shape \(2, 7, 2, 3\): 2 samples of this anchor have \(2, 8, 2, \*event\)"
    ):
        sample_anchored(run, score, u, torch.zeros(2, 7, 2, 3), torch.arange(2))
    with pytest.raises(ValueError, match=r"number the samples below 2\^40"):
        sample_anchored(run, score, u, torch.zeros(2, 8, 2, 3), torch.tensor([0, 1 << 40]))


def test_a_word_that_uses_a_clock_twice_is_an_anchor_and_one_noise_used_twice_is_not(monkeypatch) -> None:
    scheme, taus = parse("U(1/2) S E U(1/2)@0"), time_grid("uniform", 12, PARAMS)
    run = anchor_to(Anchor(scheme, taus, PARAMS), SSCS, taus[::3])
    assert law_error(run, SSCS, taus[::3]) <= ROUNDING
    shares = coupling_module._shares
    monkeypatch.setattr(
        coupling_module, "_shares", lambda *args: shares(*args)._replace(replica=np.zeros_like(shares(*args).replica))
    )
    with pytest.raises(ValueError, match=r"scheme 'U\(1/2\) S E U\(1/2\)@0' uses one noise in two segments"):
        anchor_to(Anchor(scheme, taus, PARAMS), SSCS, taus[::3])

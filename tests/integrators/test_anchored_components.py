"""Anchored runs of one component and of three: the joint law on images, exact moments, samples, and what is refused."""

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
    noise_cov,
    shifted,
)
from coupled_specimens import coupled_runs
from diffusions import PARTED_THIRD, WHOLE_THIRD
from hypothesis import given
from selection import examples
from weakorder.integrators.anchored import Anchor, AnchoredRun, anchor_to, sample_anchored
from weakorder.integrators.catalogue import CATALOGUE, POSITION
from weakorder.integrators.coupling import couple, run_coupled
from weakorder.integrators.grids import time_grid
from weakorder.integrators.noise import START
from weakorder.integrators.planes import normals, shape_of
from weakorder.integrators.sampler import integrate, sample
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_LINEAR, VP_WHOLE, Part, Splitting
from weakorder.verification.sampled.calibration import exact_coupled_moments
from weakorder.verification.targets.gaussian import GaussianTarget

PARAMS = Parameters()
OTHERS: tuple[Splitting, ...] = (VP_WHOLE, VP_LINEAR, WHOLE_THIRD, PARTED_THIRD)
VP_EM, VP_DDPM, VP_TWO = (POSITION[name] for name in ("vp-EM", "vp-DDPM", "vp-SDE-DPM-Solver++2M"))
VP_U = Scheme("U(1/2) S E U(1/2)", VP_LINEAR, "U S E U", flow="exact")
THIRD_EM, THIRD_EXACT = (Scheme("S F", WHOLE_THIRD, f"third-{flow}", flow=flow) for flow in ("euler", "exact"))
THIRD_PARTS = Scheme("S O B A", PARTED_THIRD, "third-SOBA")
# (anchor, run) of the same kind of noise, and of another.
PAIRS = [
    (VP_EM, VP_EM),
    (VP_EM, VP_DDPM),
    (VP_U, VP_TWO),
    (THIRD_EM, THIRD_EM),
    (THIRD_EXACT, THIRD_PARTS),
    (THIRD_PARTS, THIRD_EXACT),
]
NAMES = [f"{run.name} on {fine.name}" for fine, run in PAIRS]


def anchored(fine: Scheme, scheme: Scheme, steps: int = 9, fine_steps: int = 40) -> AnchoredRun:
    anchor = Anchor(fine, time_grid("quadratic", fine_steps, PARAMS), PARAMS)
    return anchor_to(anchor, scheme, time_grid("quadratic", steps, PARAMS))


# --- The joint law ----------------------------------------------------------------------------------------------------


@examples(5)
@given(coupled_runs(OTHERS, OTHERS))
def test_the_joint_law_is_exact_for_any_word_of_one_and_of_three_components(case) -> None:
    runs, params = case
    for (scheme, taus), anchor in ((runs[0], Anchor(*runs[1], params)), (runs[1], Anchor(*runs[0], params))):
        assert_joint_law_is_exact(anchor_to(anchor, scheme, taus), scheme, taus)


@pytest.mark.parametrize(("fine", "scheme"), PAIRS, ids=NAMES)
def test_the_noises_have_the_joint_law_of_the_coupling_and_broken_ones_have_not(fine: Scheme, scheme: Scheme) -> None:
    taus = time_grid("quadratic", 9, PARAMS)
    run = anchored(fine, scheme)
    assert_joint_law_is_exact(run, scheme, taus)
    broken: list[Callable[[AnchoredRun], AnchoredRun]] = [shifted]
    if run.draws:
        broken += [forgetful, independent]
    for variant in broken:
        assert law_error(variant(run), scheme, taus) > 1e-4


@pytest.mark.parametrize(("fine", "scheme"), PAIRS, ids=NAMES)
def test_on_gaussian_data_the_last_states_have_the_exact_joint_moments(fine: Scheme, scheme: Scheme) -> None:
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], fine.splitting.diffusion, PARAMS)
    run, runs = anchored(fine, scheme), [(s, time_grid("quadratic", n, PARAMS)) for s, n in ((fine, 40), (scheme, 9))]
    computed = exact_coupled_moments(as_coupling(run), target)
    expected = exact_coupled_moments(couple(runs, PARAMS), target)
    size = np.abs(expected.cov).max()
    np.testing.assert_allclose(computed.mean, expected.mean, rtol=ROUNDING)
    np.testing.assert_allclose(computed.cov, expected.cov, rtol=0, atol=ROUNDING * size)
    apart = exact_coupled_moments(as_coupling(shifted(forgetful(run))), target)
    assert np.abs(apart.cov - expected.cov).max() > 1e-3 * size


@pytest.mark.parametrize("scheme", [VP_EM, VP_DDPM, VP_U, THIRD_EM, THIRD_EXACT], ids=lambda scheme: scheme.name)
def test_a_run_nested_in_an_anchor_of_its_kind_draws_nothing(scheme: Scheme) -> None:
    anchor = Anchor(scheme, time_grid("uniform", 60, PARAMS), PARAMS)
    # A half of U ends where one of the anchor's does: of its steps an odd number make one of the run's.
    for steps, draws in ((12, False), (20, False), (15, scheme is VP_U), (7, True)):
        assert anchor_to(anchor, scheme, time_grid("uniform", steps, PARAMS)).draws == draws


def test_noise_of_rank_one_in_three_components_has_one_normal() -> None:
    """Claim: over `O B A` of Euler's the noise of a alone moves m and x with it, and only the first normal is used."""
    run = anchored(THIRD_EM, THIRD_PARTS)
    assert all(np.linalg.matrix_rank(Q, tol=1e-9 * np.trace(Q)) == 1 for Q in noise_cov(run.run)[1:])
    whole = np.array([np.abs(image.matrix).max(axis=1) for image in run.known])
    assert (whole[:, 0] > 0.1).all()
    assert (whole[:, 1:] == 0).all()
    exact = anchored(THIRD_EM, THIRD_EXACT)
    assert (np.array([np.abs(image.matrix).max(axis=1) for image in exact.known]) > 1e-3).all()


# --- Sampling ---------------------------------------------------------------------------------------------------------


def score(u: torch.Tensor, t: float) -> torch.Tensor:
    return -torch.tanh(u) * (1 + t)


@pytest.mark.parametrize("event", [(), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize(("fine", "scheme"), PAIRS, ids=NAMES)
def test_a_run_is_sampled_with_just_these_images(fine: Scheme, scheme: Scheme, event: tuple[int, ...]) -> None:
    run = anchored(fine, scheme, 7)
    anchor, size = run.anchor, run.anchor.size
    numbers, count = torch.tensor([3, 1, 4, 15]), len(anchor.intervals)
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(4, *shape_of(size, event), generator=generator, dtype=torch.float64)
    drawn = anchor.draw(numbers, event, 7, torch.float64)
    assert drawn.shape == (4, count, *shape_of(size, event))

    def column(k: int) -> torch.Tensor:
        one = drawn[:, k] if k < count else normals(7, numbers + (1 << 40), START + 1 + k - count, size, event)
        return one.reshape(4, size, *event)

    reference, expected = run_coupled(as_coupling(run), score, u, column)
    sampled = sample_anchored(run, score, u, drawn, numbers, 7)
    torch.testing.assert_close(sampled, expected, rtol=1e-11, atol=1e-11)
    alone = sample(fine, score, u, anchor.taus, PARAMS, samples=numbers, seed=7)
    torch.testing.assert_close(reference, alone, rtol=1e-11, atol=1e-11)
    assert (sample_anchored(run, score, u, drawn, numbers, 8) - expected).abs().max() > 1e-3 or not run.draws
    assert (sample_anchored(run, score, u, drawn.flip(1), numbers, 7) - expected).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("scheme", "dtype"),
    [*itertools.product((VP_DDPM, VP_TWO, THIRD_EXACT), (torch.float32, torch.float64))],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_the_anchor_on_its_drawn_normals_is_the_samplers_run_bit_for_bit(scheme: Scheme, dtype: torch.dtype) -> None:
    anchor = Anchor(scheme, time_grid("quadratic", 12, PARAMS), PARAMS)
    numbers, u = torch.tensor([5, 0, 2]), torch.ones(3, *shape_of(anchor.size, (5,)), dtype=dtype)
    drawn = integrate(anchor.run, score, u, anchor.noise(anchor.draw(numbers, (5,), 3, dtype), dtype))
    assert torch.equal(drawn, sample(scheme, score, u, anchor.taus, PARAMS, samples=numbers, seed=3))
    assert not torch.equal(drawn, sample(scheme, score, u, anchor.taus, PARAMS, samples=numbers, seed=4))


def test_a_path_depends_on_its_seed_and_number_alone() -> None:
    for fine, scheme in (PAIRS[1], PAIRS[5]):
        run = anchored(fine, scheme, 7)

        def path(numbers: list[int], seed: int, run: AnchoredRun = run) -> torch.Tensor:
            samples = torch.tensor(numbers)
            u = torch.ones(len(numbers), *shape_of(run.anchor.size, (2,)), dtype=torch.float64)
            return sample_anchored(run, score, u, run.anchor.draw(samples, (2,), seed), samples, seed)

        whole = path([3, 1, 4, 15, 9], 7)
        torch.testing.assert_close(path([15, 3], 7), whole[[3, 0]], rtol=1e-13, atol=1e-13)
        assert (path([3, 1, 4, 15, 9], 8) != whole).all()


# --- Bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    for (fine, scheme), layout in ((PAIRS[1], r"\(2, 40, \*event\)"), (PAIRS[3], r"\(2, 40, 3, \*event\)")):
        run = anchored(fine, scheme)
        with pytest.raises(ValueError, match=rf"of shape \(2, 7, 4\): 2 samples of this anchor have {layout}"):
            sample_anchored(run, score, torch.ones(2, 4), torch.zeros(2, 7, 4), torch.arange(2))
    taus = time_grid("uniform", 8, PARAMS)
    with pytest.raises(ValueError, match="states of 'ROBA' have 2 components and those of 'vp-EM' 1"):
        anchor_to(Anchor(VP_EM, taus, PARAMS), CATALOGUE["ROBA"], taus)
    whole = VP_WHOLE.diffusion.reverse("1 - t/2")
    changing = Splitting("less and less", VP_WHOLE.diffusion, whole, (Part.of("F", whole),))
    with pytest.raises(ValueError, match="changes with time"):
        anchor_to(Anchor(replace(VP_EM, splitting=changing), taus, PARAMS), VP_EM, taus)

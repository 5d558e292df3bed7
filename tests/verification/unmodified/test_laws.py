"""Transcripts and laws of samplers with a grid of their own, against recursions written out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from weakorder.examples import own_grid
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.integrators.unmodified import function_sampler
from weakorder.theory.paths import PATHS
from weakorder.verification.unmodified import Data, laws_of, transcribe

DATA = Data(np.array([0.0, 0.7, -1.0]), np.array([0.04, 1.0, 3.0]))


def vp(sample, predicts="eps", time="t"):
    return function_sampler("a sampler", sample, PATHS["vp"], predicts, time)


def eps_of(t, data=DATA):
    """The exact network's answer at time t as a slope and an offset, (V,) each."""
    at = PATHS["vp"].level(t)
    total = at.alpha**2 * data.variance + at.sigma**2
    return at.sigma / total, -at.sigma * at.alpha * data.mean / total


def test_the_laws_of_ddim_are_those_of_its_recursion():
    steps = 12
    sampler = vp(own_grid.ddim)
    found = laws_of(sampler, transcribe(sampler, steps), DATA)
    grid = own_grid.times(steps)
    at = PATHS["vp"].level(grid[0])
    slope, offset = np.ones(3), np.zeros(3)
    for t, later in itertools.pairwise(grid):
        gain, constant = eps_of(t)
        a, b = own_grid.alpha_of(t), own_grid.alpha_of(later)
        of_eps = math.sqrt(1 - b**2) - b / a * math.sqrt(1 - a**2)
        slope, offset = (b / a + of_eps * gain) * slope, (b / a + of_eps * gain) * offset + of_eps * constant
    variance = at.alpha**2 * DATA.variance + at.sigma**2
    assert found.last.mean == pytest.approx(slope * at.alpha * DATA.mean + offset, rel=1e-10)
    assert found.last.variance == pytest.approx(slope**2 * variance, rel=1e-10)


def test_the_laws_of_ancestral_sampling_are_those_of_its_recursion():
    steps = 12
    sampler = vp(own_grid.ancestral)
    run = transcribe(sampler, steps)
    found = laws_of(sampler, run, DATA)
    grid = own_grid.times(steps)
    at = PATHS["vp"].level(grid[0])
    mean, variance = at.alpha * DATA.mean, at.alpha**2 * DATA.variance + at.sigma**2
    for t, later in itertools.pairwise(grid):
        gain, constant = eps_of(t)
        a, b = own_grid.alpha_of(t) ** 2, own_grid.alpha_of(later) ** 2
        spread = (1 - b) / (1 - a) * (1 - a / b)
        of_eps = math.sqrt(1 - b - spread) - math.sqrt(b / a) * math.sqrt(1 - a)
        slope = math.sqrt(b / a) + of_eps * gain
        mean, variance = slope * mean + of_eps * constant, slope**2 * variance + spread
    assert run.draws == steps
    assert found.last.mean == pytest.approx(mean, rel=1e-10)
    assert found.last.variance == pytest.approx(variance, rel=1e-10)


def test_a_transcript_knows_no_target_and_serves_all_of_them():
    sampler = vp(own_grid.ancestral)
    run = transcribe(sampler, 8)
    alone = [laws_of(sampler, run, Data(DATA.mean[k : k + 1], DATA.variance[k : k + 1])) for k in range(3)]
    together = laws_of(sampler, run, DATA)
    assert together.final.variance == pytest.approx([law.final.variance[0] for law in alone], rel=1e-13)


def test_the_gain_of_ancestral_sampling_tends_to_that_of_the_reverse_sde_and_of_ddim_is_one():
    errors = []
    for steps in (40, 80):
        sampler = vp(own_grid.ancestral)
        found = laws_of(sampler, transcribe(sampler, steps), DATA)
        errors.append(np.abs(found.last.gain - found.exact.gain).max())
    assert errors[1] < 0.6 * errors[0] < 0.01
    flow = vp(own_grid.ddim)
    assert laws_of(flow, transcribe(flow, 8), DATA).last.gain == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("predicts", ["eps", "data", "v", "score", "flow"])
def test_what_a_network_predicts_is_read_from_its_state(predicts):
    """A sampler that undoes the parametrisation is DDIM, whichever it is."""

    def undone(model, x, steps):
        def eps(z, t):
            a = own_grid.alpha_of(t)
            s, answer = math.sqrt(1 - a**2), model(z, t)
            return {
                "eps": lambda: answer,
                "data": lambda: (z - a * answer) / s,
                "v": lambda: s * z + a * answer,
                "score": lambda: -s * answer,
                "flow": lambda: (z + a * answer) / (a + s),
            }[predicts]()

        return own_grid.ddim(eps, x, steps)

    reference = vp(own_grid.ddim)
    expected = laws_of(reference, transcribe(reference, 10), DATA)
    sampler = vp(undone, predicts)
    found = laws_of(sampler, transcribe(sampler, 10), DATA)
    assert found.final.variance == pytest.approx(expected.final.variance, rel=1e-9)
    assert found.final.mean == pytest.approx(expected.final.mean, abs=1e-9)


def test_a_generator_that_is_seeded_again_gives_the_same_numbers_again():
    """As a Brownian tree does for its nodes: the two draws are one, and add up as one."""

    def twice(seed):
        return lambda model, x, steps: (
            model(x, 0.5)
            + sum(torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(s)) for s in (1, seed))
        )

    same, other = (transcribe(vp(twice(seed)), 1) for seed in (1, 2))
    assert (same.draws, other.draws) == (1, 2)
    assert same.noise[-1] == pytest.approx([2.0])
    assert other.noise[-1] == pytest.approx([1.0, 1.0])


def test_one_integer_of_a_wide_range_is_a_seed_and_no_number_of_the_law():
    def seeded(model, x, steps):
        seed = torch.randint(0, 2**63 - 1, []).item()
        return model(x, 0.5) + torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))

    assert transcribe(vp(seeded), 1).draws == 1


def test_a_network_that_is_asked_off_its_path_is_refused():
    with pytest.raises(BlackBoxError, match=r"is told 1\.5: t = 1\.5 is not on the path"):
        transcribe(vp(lambda model, x, steps: model(x, 1.5)), 1)


def test_a_sampler_that_never_asks_is_refused():
    with pytest.raises(BlackBoxError, match="never asks the network"):
        transcribe(vp(lambda model, x, steps: 2 * x), 1)

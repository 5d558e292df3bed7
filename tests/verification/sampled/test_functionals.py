"""The expectations of test functions: quadratures, exact samples, and numbers of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusions import THIRD
from weakorder.integrators.noise import START, normal_pairs
from weakorder.theory.model import DIFFUSIONS, PSLD_DIFFUSION, Diffusion, Parameters
from weakorder.verification.sampled.functionals import Functionals, gaussian_moments, powers_of
from weakorder.verification.targets.named import make_target
from weakorder.verification.verdicts.estimates import BlockMeans, threshold

PARAMS = Parameters()
NAMES = {
    1: ("x", "x^2", "x^3", "x^4", "fourier 1"),
    2: ("x", "m", "x^2", "xm", "m^2", "x^3", "x^2m", "xm^2", "m^3", "x^4", "x^3m", "x^2m^2", "xm^3", "m^4"),
    3: ("x", "m", "a", "x^2", "xm", "xa", "m^2", "ma", "a^2", "x^3", "x^2m", "x^2a", "xm^2", "xma", "xa^2", "m^3"),
}


def test_gaussian_moments_are_those_of_a_quadrature() -> None:
    mean, root = np.array([0.3, -0.7]), np.array([[0.8, 0.0], [0.5, 0.6]])
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij")).reshape(2, -1)
    weight = np.outer(weights, weights).ravel() / (2 * math.pi)
    x, m = mean[:, None] + root @ grid
    found = gaussian_moments(mean[None, :, None], (root @ root.T)[None, :, :, None])
    for a, b in powers_of(2):
        assert found[a, b][0, 0] == pytest.approx(weight @ (x**a * m**b), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "dim", "diffusion"),
    [
        ("mixture", 1, PSLD_DIFFUSION),
        ("mixture", 3, PSLD_DIFFUSION),
        ("banana", None, PSLD_DIFFUSION),
        ("student", None, PSLD_DIFFUSION),
        ("mixture", 3, DIFFUSIONS["vp"]),
        ("mixture", 2, THIRD),
    ],
    ids=str,
)
def test_the_expectations_are_those_of_exact_samples(name: str, dim: int | None, diffusion: Diffusion) -> None:
    target = make_target(name, PARAMS, dim, diffusion=diffusion)
    functionals = Functionals(target, 0.1)
    assert functionals.names[: len(NAMES[diffusion.size])] == NAMES[diffusion.size]
    values = functionals.values(target.sample(0.1, torch.arange(40_000), 5)).numpy()
    blocks = BlockMeans(values.reshape(400, 100, -1).mean(1), 100)
    z = (blocks.mean - functionals.expectations) / blocks.standard_error
    assert len(functionals.names) == len(functionals.quantities) == len(z)
    assert np.abs(z).max() < threshold()
    other = Functionals(target, 0.2).expectations
    assert np.abs((blocks.mean - other) / blocks.standard_error).max() > threshold()


def test_the_expectations_on_images_are_those_of_exact_samples() -> None:
    target = make_target("empirical-cifar10", PARAMS)
    functionals = Functionals(target, 0.1)
    values = functionals.values(target.sample(0.1, torch.arange(200), 5)).numpy()
    z = (values.mean(0) - functionals.expectations) / (values.std(0) / math.sqrt(len(values)))
    assert np.abs(z).max() < threshold()


def test_waves_are_not_made_of_the_numbers_that_samples_are_made_of() -> None:
    """Under seed 0, the default, those of the same numbers would start along them."""
    dim = 96
    target = make_target("mixture", PARAMS, dim)
    omega, _ = Functionals(target, 0.1)._waves
    starts = normal_pairs(0, torch.arange(len(omega)), START, (dim,))
    along = (omega * starts).flatten(1).sum(1) / omega.flatten(1).norm(dim=1)
    assert along.abs().max() < threshold()  # standard normal; the same numbers would give about sqrt(2 dim)
    assert math.sqrt(2 * dim) > 2 * threshold()

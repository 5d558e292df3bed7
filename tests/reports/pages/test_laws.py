"""The picture of weak order: its densities are laws that tend to the exact one, and what ships is drawn anew."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import trapezoid
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.grids import time_grid
from weakorder.reports.figures import as_svg, drifting_laws
from weakorder.reports.pages.laws import DRAWN, X, collect, law_of
from weakorder.verification.exact import exact_moments
from weakorder.verification.targets import GaussianTarget, MixtureTarget

SHIPPED = Path(__file__).parents[3] / "docs" / "figures" / "laws.svg"


def _gaussian(name: str) -> MixtureTarget:
    diffusion = POSITION[name].splitting.diffusion
    return MixtureTarget.of([1], [[0.5]], [[[0.25]]], diffusion.parameters(), diffusion)


def _normal(mean: float, variance: float) -> np.ndarray:
    return np.exp(-((X - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


@pytest.mark.parametrize("name", ["vp-EM", "vp-SDE-DPM-Solver++2M"])
def test_the_density_of_gaussian_data_is_that_of_the_exact_moments(name: str) -> None:
    """On a line and, of a scheme that remembers, on a plane; the exact law is another, and told from it."""
    scheme, target = POSITION[name], _gaussian(name)
    law = GaussianTarget.of(0.5, 0.25, target.diffusion, target.params)
    found = exact_moments(scheme, law, time_grid("uniform", 10, target.params, 0.1))
    density = law_of(scheme, target, 10)
    expected = _normal(found.computed.mean.item(), found.computed.cov.item())
    assert np.abs(density - expected).max() < 1e-5
    other = _normal(found.exact.mean.item(), found.exact.cov.item())
    assert np.abs(density - other).max() > 1e-2


def test_a_law_holds_all_probability_and_more_steps_bring_it_nearer() -> None:
    found = collect({"vp-EM": (10, 40)}, (10, 40))
    exact, (scheme,) = np.array(found["exact"]), found["schemes"]
    coarse, fine = (np.array(law["density"]) for law in scheme["laws"])
    for density in (exact, coarse, fine):
        assert abs(trapezoid(density, X) - 1) < 1e-2
    assert np.abs(fine - exact).sum() < 0.5 * np.abs(coarse - exact).sum()
    assert abs(scheme["errors"][1]) < 0.5 * abs(scheme["errors"][0])


def _numbers(svg: bytes) -> tuple[str, np.ndarray]:
    """What stands in a picture without its numbers, and they. Names of clips, made of coordinates' last bits, go."""
    number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    text = re.sub(r"\bp[0-9a-f]{10}\b", "", svg.decode())
    return re.sub(number, "", text), np.array(re.findall(number, text), dtype=float)


def _same(one: bytes, other: bytes) -> bool:
    """Whether two pictures are, to a hundredth of a point."""
    (text, numbers), (there, others) = _numbers(one), _numbers(other)
    return text == there and len(numbers) == len(others) and np.allclose(numbers, others, rtol=0, atol=0.01)


@pytest.mark.nightly
def test_the_picture_that_ships_is_the_one_that_is_drawn() -> None:
    """Where the style of figures has changed, run the module again."""
    assert _same(SHIPPED.read_bytes(), as_svg(drifting_laws(collect())))
    assert not _same(SHIPPED.read_bytes(), as_svg(drifting_laws(collect({**DRAWN, "vp-EM": (5, 10, 20, 41)}))))

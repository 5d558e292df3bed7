"""Laws on lattices, on one Gaussian: their moments are known, and so is what may keep a lattice from holding them.

The reference knows nothing of lattices. The same comparison with a slightly other scheme must fail.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from one_dimensional import bimodal, one_gaussian
from strategies import PHASE_SPACE, parameters, words
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import FROZEN_FLOWS, Scheme
from weakorder.verification.exact import lattice
from weakorder.verification.exact.lattice import RESOLUTIONS, Cloud, TooCoarse, Unresolved, carried_law
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.order import T_END
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.targets.mixture import MixtureTarget

Array = NDArray[np.float64]
PARAMS = Parameters()
SOME = settings(max_examples=max(15, settings().max_examples // 4))


# --- Moments ----------------------------------------------------------------------------------------------------------


def moments_of(law: Cloud) -> tuple[Array, Array]:
    """Mean (2,) and covariance (2, 2)."""
    mean = law.points @ law.weights
    centred = law.points - mean[:, None]
    return mean, (centred * law.weights) @ centred.T


def deviation(law: Cloud, reference: Scheme, params: Parameters, taus: Array) -> float:
    """How far a law's moments are from the exact ones of `reference` on N(0.5, 0.25), in its standard deviations."""
    mean, cov = moments_of(law)
    gaussian = GaussianTarget.of(0.5, 0.25, reference.splitting.diffusion, params)
    exact = exact_moments(reference, gaussian, taus).computed
    size = np.sqrt(np.diagonal(exact.cov[..., 0])) + np.abs(exact.mean[:, 0])
    return max(
        float(np.abs((mean - exact.mean[:, 0]) / size).max()),
        float(np.abs((cov - exact.cov[..., 0]) / np.outer(size, size)).max()),
    )


@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_gaussian_data_have_their_exact_moments(scheme: Scheme) -> None:
    """Claim: to 1e-9, for the whole catalogue; a hundredth of a step in the time of the reference's score is seen."""
    taus = time_grid("uniform", 12, PARAMS, T_END)
    law = carried_law(scheme, one_gaussian(PARAMS, scheme.splitting.diffusion), taus, RESOLUTIONS[1])
    assert deviation(law, scheme, PARAMS, taus) < 1e-9
    slipped = replace(scheme, word=scheme.word.replace("S", "S@1/99", 1))
    assert deviation(law, slipped, PARAMS, taus) > 1e-6


@st.composite
def gaussian_runs(draw: st.DrawFn) -> tuple[Scheme, Parameters, Array]:
    """Any word that can be sampled, its parameters, and a grid of one to six steps."""
    splitting = draw(st.sampled_from(list(PHASE_SPACE.values())))
    word = draw(words(splitting, consistent=draw(st.booleans()), within_step=True))
    scheme = Scheme(word, splitting, flow=draw(st.sampled_from(FROZEN_FLOWS)))
    if any(part.sde.noise[0, 0] != 0 for part in scheme.parts):
        scheme = replace(scheme, lambda_s=draw(st.sampled_from([1.0, 0.8, 1.16])))
    params = draw(parameters())
    grid = draw(st.sampled_from(["uniform", "quadratic"]))
    return scheme, params, time_grid(grid, draw(st.integers(1, 6)), params, T_END)


@SOME
@given(gaussian_runs())
def test_random_words_have_their_exact_moments_on_gaussian_data(run: tuple[Scheme, Parameters, Array]) -> None:
    """Claim: to 1e-8 of the law's own size, for any word that can be sampled, consistent or not, stable or not.

    Singular noise (Gamma = 0 or nu = 0) and overlapping intervals are among them. A law may be refused, by raising,
    only where the rounding of its points, bounded from their cancellation, exceeds what a lattice drops; no width is
    too small, and none large enough.
    """
    scheme, params, taus = run
    try:
        law = carried_law(scheme, one_gaussian(params, scheme.splitting.diffusion), taus, RESOLUTIONS[1])
    except TooCoarse as refusal:
        law, rounding = None, refusal.rounding
    else:
        rounding = 0.0
    assert rounding > 1 if law is None else deviation(law, scheme, params, taus) < 1e-8


# --- What is refused --------------------------------------------------------------------------------------------------


def frequencies_off(scheme: Scheme, target: MixtureTarget, taus: Array, believed: float = 1.0) -> float:
    """On one Gaussian: how far any lattice's phi, before a search for more frequencies, is from exp(-k.k / 2), over
    what is allowed.

    That is |k| D, times `believed`, and for each lattice so far four times the size at which frequencies are dropped:
    once for these, and for the tail, a tenth as large, whose distance 60 = R^2 in deviations takes up to 6 from the
    variance and 6 max k^2 exp(-k^2 / 2) / 2 = 2.2 from phi.
    """
    resolution, ratios, roundings = RESOLUTIONS[1], [0.0], [0.0]
    original_spread, original_coefficients = lattice._spread, lattice._coefficients
    lattices = itertools.count(1)

    def spread(*arguments: Any, rounding: float = 0.0) -> Any:
        roundings.append(rounding)
        return original_spread(*arguments, rounding=rounding)

    def coefficients(cloud: Cloud, low: Array, width: Array, counts: Array) -> Array:
        phi = original_coefficients(cloud, low, width, counts)
        if len(roundings) > 1:
            first, second = (2 * math.pi / w * np.arange(n + 1) for w, n in zip(width, counts, strict=True))
            k = np.hypot(np.concatenate([first, -first[:0:-1]])[:, None], second)
            allowed = believed * k * roundings.pop() + 4 * next(lattices) * resolution.spectrum
            ratios.append(float((np.abs(np.abs(phi) - np.exp(-(k**2) / 2)) / allowed).max()))
        return phi

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Unresolved):  # refused, of any kind
        patch.setattr(lattice, "_spread", spread)
        patch.setattr(lattice, "_coefficients", coefficients)
        carried_law(scheme, target, taus, resolution)
    return max(ratios)


@SOME
@given(gaussian_runs())
def test_rounding_shows_in_the_frequencies_no_more_than_its_bound(run: tuple[Scheme, Parameters, Array]) -> None:
    """Claim: of any law that is held, and of one that is refused."""
    scheme, params, taus = run
    assert frequencies_off(scheme, one_gaussian(params, scheme.splitting.diffusion), taus) <= 1


@pytest.mark.parametrize(
    ("word", "of", "flow", "rates"),
    [
        ("S O(1/12) O(1/12) B(1/4) B(1/6)", "ROBA", "euler", {"gamma": 2.0, "nu": 0.0, "beta_min": 18.5}),
        ("S U(1/3) U(1/3) E U(1/3)", "SSCS", "exact", {"gamma": 0.0, "nu": 5.0, "beta_min": 6.0}),
    ],
)
def test_a_variance_that_rounds_below_nothing_is_nothing(word: str, of: str, flow: Any, rates: dict[str, Any]) -> None:
    """Claim: of noise in one component alone, in a frame where none is left of it."""
    scheme = Scheme(word, CATALOGUE[of].splitting, flow=flow)
    params = Parameters(kappa=1.0, beta_max=rates["beta_min"], eps=0.03125, **rates)
    assert frequencies_off(scheme, one_gaussian(params, scheme.splitting.diffusion), np.array([0.0, 0.9])) <= 1


def test_a_law_that_rounding_hides_is_refused_for_that() -> None:
    """Claim: one whose mean is 1e9 and its deviation 1; a thousandth of the bound would be too little."""
    roba, taus = CATALOGUE["ROBA"], time_grid("uniform", 3, PARAMS, T_END)
    target = one_gaussian(PARAMS, roba.splitting.diffusion, mean=1e9)
    with pytest.raises(TooCoarse, match="or cancel, so that their rounding shows") as refusal:
        carried_law(roba, target, taus, RESOLUTIONS[1])
    assert refusal.value.rounding > 1
    assert frequencies_off(roba, target, taus) <= 1 < frequencies_off(roba, target, taus, believed=1e-3)


def test_a_law_that_is_refused_for_anything_else_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: rounding is below what is dropped on the mixture, where a score's nonlinearity adds frequencies; and on a
    Gaussian, where nothing does, if a lattice forgets four fifths of them."""

    def forgetful(*arguments: Any, **options: Any) -> tuple[Cloud, Array]:
        cloud, band = original_spread(*arguments, **options)
        return cloud, 0.2 * band

    original_spread = lattice._spread
    roba, taus = CATALOGUE["ROBA"], time_grid("uniform", 25, PARAMS, T_END)
    with pytest.raises(TooCoarse, match=r"nonlinearity adds$") as refusal:
        carried_law(roba, bimodal(roba, PARAMS), taus, RESOLUTIONS[0])
    assert refusal.value.rounding < 1
    monkeypatch.setattr(lattice, "_spread", forgetful)
    with pytest.raises(TooCoarse, match=r"nonlinearity adds$") as refusal:
        carried_law(roba, one_gaussian(PARAMS, roba.splitting.diffusion), taus, RESOLUTIONS[1])
    assert refusal.value.rounding < 1


@pytest.mark.parametrize("width", [1e-6, 1e-9, 1e-12])
def test_the_frame_of_a_line_is_found(width: float) -> None:
    """Claim: points on an ellipse up to 1e12 times as long as wide are round in it, to the rounding of the points; one
    Cholesky factor of their covariance has lost that from 1e-9 on."""
    angles = np.arange(1000) * 2 * math.pi / 1000
    line = np.array([[1.0, 0.0], [1.0, width]]) @ np.stack([np.cos(angles), np.sin(angles)])
    cloud = Cloud(line, np.full(1000, 1e-3), np.zeros((2, 2)))
    (round_,) = lattice._frame([cloud]).clouds
    assert np.abs(round_.points @ round_.points.T / 1000 - np.eye(2)).max() < 1e-9
    cov = line @ line.T / 1000
    lost = abs(cov[0, 0] * cov[1, 1] - cov[0, 1] ** 2 - width**2 / 4) > 0.1 * width**2
    assert lost == (width < 1e-8)

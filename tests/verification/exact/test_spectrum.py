"""The CIFAR-10 spectrum study: its data, its distance, and what it says of schemes."""

from __future__ import annotations

import dataclasses
import re
from importlib import resources

import numpy as np
import pytest
from weakorder.integrators.catalogue import CATALOGUE, STOCHASTIC
from weakorder.integrators.grids import GRIDS, time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import parse
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.spectrum import Spectrum, cifar10_spectrum, denoised, study_spectrum
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget

PARAMS = Parameters()
SCHEME = CATALOGUE["ROBA"]

# From the project's notes on the data, computed elsewhere: the place of an eigenvalue, and its value.
KNOWN = {1: 224.5, 2: 85.3, 11: 10.3, 101: 0.565, 501: 0.040, 1001: 0.0068, 2001: 0.00024}


@pytest.fixture(scope="module")
def few() -> Spectrum:
    """Every 200th eigenvalue: fast, and as wide as the whole."""
    whole = cifar10_spectrum()
    return Spectrum(whole.variances[::200], whole.mean[::200], whole.images)


@pytest.fixture
def target(few: Spectrum) -> GaussianTarget:
    """The same as a target."""
    return GaussianTarget(few.mean, few.variances, SCHEME.splitting.diffusion, PARAMS)


@pytest.mark.parametrize(("place", "value"), KNOWN.items())
def test_the_data_file_has_the_known_eigenvalues(place: int, value: float) -> None:
    """To the digits that are known independently."""
    digits = len(f"{value:g}".replace(".", "").lstrip("0"))
    assert float(f"{cifar10_spectrum().variances[place - 1]:.{digits - 1}e}") == value


def test_the_data_file_is_a_spectrum() -> None:
    """3,072 positive values in descending order, the mean's coefficients >= 0 by the convention on signs."""
    spectrum = cifar10_spectrum()
    assert spectrum.variances.shape == spectrum.mean.shape == (3072,)
    assert spectrum.variances.dtype == spectrum.mean.dtype == np.float64
    assert np.all(np.diff(spectrum.variances) <= 0)
    assert spectrum.variances[-1] > 0
    assert np.all(spectrum.mean >= 0)


def test_the_readme_states_what_the_data_file_holds() -> None:
    """Number of images, extreme eigenvalues, total variance and the mean's norm."""
    spectrum = cifar10_spectrum()
    text = resources.files("weakorder.verification.data").joinpath("README.md").read_text("utf-8")
    numbers = set(re.findall(r"\d[\d.]*(?:e-\d+)?\d|\d", text))
    stated = (
        f"{spectrum.images}",
        *(f"{spectrum.variances[place - 1]:.4g}" for place in (1, 2, 11, 101, 501, 1001, 2001, 3072)),
        f"{spectrum.variances.sum():.2f}",
        f"{(spectrum.mean**2).sum():.3f}",
    )
    assert set(stated) <= numbers


@pytest.mark.parametrize("grid", GRIDS)
def test_the_study_equals_a_direct_computation(few: Spectrum, target: GaussianTarget, grid: str) -> None:
    """The distance from moments eigenvalue by eigenvalue, and the evaluations counted by hand: the denoising step's
    one, and two a step."""
    scheme = CATALOGUE["ROBAB"]
    (curve,) = study_spectrum([scheme], PARAMS, (20, 51), (grid,), few).curves
    assert curve.steps.tolist() == [9, 25]
    assert curve.nfe.tolist() == [19, 51]
    for steps, distance in zip(curve.steps, curve.distance, strict=True):
        total = 0.0
        for mean, variance in zip(few.mean, few.variances, strict=True):
            one = GaussianTarget.of(mean, variance, target.diffusion, PARAMS)
            law = exact_moments(scheme, one, time_grid(grid, steps, PARAMS), "prior", True).computed
            total += (law.mean[0, 0] - mean) ** 2 + (np.sqrt(law.cov[0, 0, 0]) - np.sqrt(variance)) ** 2
        assert distance == pytest.approx(total, rel=1e-10)


def test_the_distance_of_the_data_to_itself_is_zero(few: Spectrum) -> None:
    """And that of a shift is its square, whatever the momentum does."""
    cov = np.ones((2, 2, few.mean.size))
    cov[0, 0] = few.variances
    assert few.distance(GaussianLaw(np.stack([few.mean, few.mean + 3]), cov)) == 0
    assert few.distance(GaussianLaw(np.stack([few.mean + 2, few.mean]), cov)) == pytest.approx(4 * few.mean.size)


@pytest.mark.parametrize("name", ["EM", "ROBA", "RVV"])
def test_an_exact_sampler_is_at_the_floor(few: Spectrum, name: str) -> None:
    """A run from the exact law over ever less time does nothing but the denoising step: it lands at the floor."""
    scheme = CATALOGUE[name]
    target = GaussianTarget(few.mean, few.variances, scheme.splitting.diffusion, PARAMS)
    taus = np.array([PARAMS.T - PARAMS.eps - 1e-9, PARAMS.T - PARAMS.eps])
    law = exact_moments(scheme, target, taus, "exact", denoise=True).computed
    (curve,) = study_spectrum([scheme], PARAMS, (20,), ("uniform",), few).curves
    assert few.distance(law) == pytest.approx(curve.floor, rel=1e-5)
    assert few.distance(denoised(target, scheme, PARAMS)) == curve.floor


def test_a_converged_stochastic_run_ends_near_the_floor() -> None:
    """The noise makes it forget the prior, and the denoising step is what is left."""
    (curve,) = study_spectrum([CATALOGUE["EM"]], PARAMS, (50, 4001), ("quadratic",)).curves
    assert curve.distance[1] == pytest.approx(curve.floor, rel=0.15)
    assert curve.distance[0] > 100 * curve.floor


def test_a_biased_scheme_is_further_away_at_1000_evaluations() -> None:
    """lambda_s = 1.1 puts 21 % too much noise into the position; EM has no error of the other sign to cancel it."""
    assert _cost_of_noise("EM") > 1.5


def test_a_bias_can_cancel_the_error_of_time_steps() -> None:
    """ROBA's finite steps leave the position's variance too small, and the same noise makes up for half of it: a
    smaller distance is not a better order, which is why the verdict does not rest on it."""
    assert _cost_of_noise("ROBA") < 0.6


def _cost_of_noise(name: str) -> float:
    """The distance with lambda_s = 1.1 over that of the plain scheme, at 1000 evaluations."""
    schemes = [CATALOGUE[name], dataclasses.replace(CATALOGUE[name], lambda_s=1.1)]
    plain, biased = study_spectrum(schemes, PARAMS, (1000,), ("uniform",)).curves
    return float(biased.distance[0] / plain.distance[0])


def test_runs_that_diverge_are_marked_and_have_no_distance(few: Spectrum) -> None:
    """One step of the explicit kick overshoots the prior; enough of them do not."""
    (curve,) = study_spectrum([CATALOGUE["NOBA"]], PARAMS, (3, 200), ("uniform",), few).curves
    assert curve.diverged.tolist() == [True, False]
    assert np.isnan(curve.distance[0])
    assert np.isfinite(curve.distance[1])


def test_a_run_that_overflows_is_marked(few: Spectrum) -> None:
    """Steps far outside the stable range, so many that float64 overflows."""
    stiff = Parameters(beta_min=4e4, beta_max=4e4)
    (curve,) = study_spectrum([CATALOGUE["EM"]], stiff, (300,), ("uniform",), few).curves
    assert curve.diverged.all()
    assert np.isnan(curve.distance).all()


def test_budgets_that_do_not_buy_a_step_have_no_level(few: Spectrum) -> None:
    """Three evaluations a step and one for denoising need a budget of four; a word without S buys nothing."""
    curve, free = study_spectrum(
        [CATALOGUE["NOBAB"], parse("U(1/2) U(1/2)")], PARAMS, (2, 3, 4), ("uniform",), few
    ).curves
    assert curve.budgets.tolist() == [4]
    assert free.budgets.size == 0


def test_curves_come_in_the_order_of_schemes_and_grids(few: Spectrum) -> None:
    """And do not depend on what else is studied."""
    study = study_spectrum(STOCHASTIC[:3], PARAMS, (20, 50), spectrum=few)
    assert [(c.name, c.grid) for c in study.curves] == [(s.name, g) for s in STOCHASTIC[:3] for g in GRIDS]
    (alone,) = study_spectrum(STOCHASTIC[1:2], PARAMS, (20, 50), ("uniform",), few).curves
    assert np.array_equal(alone.distance, study.curves[2].distance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schemes": []}, "at least one scheme"),
        ({"grids": ()}, "at least one scheme"),
        ({"budgets": (50, 20)}, "increasing"),
        ({"budgets": (1, 20)}, "from 2"),
        ({"budgets": ()}, "increasing"),
        ({"grids": ("log",)}, "unknown"),
    ],
)
def test_bad_input_is_named(few: Spectrum, change: dict, message: str) -> None:
    """One line, with the value or the rule."""
    with pytest.raises(ValueError, match=message):
        study_spectrum(**({"schemes": [SCHEME], "params": PARAMS, "budgets": (20,), "spectrum": few} | change))


@pytest.mark.parametrize(
    ("variances", "mean"), [(np.ones(3), np.zeros(2)), (np.ones((2, 2)), np.zeros((2, 2))), (-np.ones(2), np.zeros(2))]
)
def test_a_spectrum_checks_itself(variances: np.ndarray, mean: np.ndarray) -> None:
    """Shapes agree and variances are not negative."""
    with pytest.raises(ValueError, match=r"one axis|negative"):
        Spectrum(variances, mean, 1)

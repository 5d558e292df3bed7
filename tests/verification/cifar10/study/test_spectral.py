"""The spectral Frechet distance: known laws, no bias, honest errors.

Images are Gaussian from fixed generators. Statistical assertions: at `Z` standard errors, false alarms below 1e-9 each.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.cifar10.study.rings import rings
from weakorder.verification.cifar10.study.spectral import spectral_distance
from weakorder.verification.cifar10.study.statistics import DISTANCES, compare_images
from weakorder.verification.exact.spectrum import Spectrum
from weakorder.verification.targets.gaussian import GaussianTarget

SIDE, N, Z = 8, 40, 6.2


def falling(side: int = SIDE) -> np.ndarray:
    """A standard deviation for each wavenumber, falling as natural images' does, (side, side)."""
    k = np.fft.fftfreq(side) * side
    return 2 / (1 + np.hypot(k[:, None], k))


def images(generator: np.random.Generator, count: int = N, scale: np.ndarray | None = None) -> np.ndarray:
    """Gaussian images whose modes have the standard deviations `scale`, (count, 3, SIDE, SIDE)."""
    white = np.fft.fft2(generator.standard_normal((count, 3, SIDE, SIDE)))
    return np.fft.ifft2(white * (falling() if scale is None else scale)).real


def exact(first: np.ndarray, second: np.ndarray, shift: float = 0.0) -> float:
    """The distance of the laws: modes are independent."""
    return 3 * float(((first - second) ** 2).sum()) + 3 * SIDE**2 * shift**2


def test_a_scheme_that_scales_modes_and_shifts_the_mean_is_as_far_as_the_gaussians_are() -> None:
    y = images(np.random.default_rng(2), 400)
    length = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(SIDE) * SIDE]))
    gain = np.where(np.rint(length) <= 1, 0.6, 1.1)  # by rings, as the distance sees them
    x = np.fft.ifft2(np.fft.fft2(y) * gain).real + 0.05
    found = spectral_distance(x, y)
    wanted = exact(gain * falling(), falling(), 0.05)
    assert abs(found.value - wanted) < Z * found.standard_error + 0.02 * wanted  # power varies a little within a ring
    assert found.standard_error < 0.1 * wanted
    other = exact(np.where(np.rint(length) <= 1, 0.8, 1.1) * falling(), falling(), 0.05)
    assert abs(found.value - other) > Z * found.standard_error + 0.02 * wanted


def test_equal_laws_are_at_distance_zero_without_the_bias_of_few_samples() -> None:
    generator = np.random.default_rng(3)
    pairs = [(images(generator), images(generator)) for _ in range(60)]
    found = np.array([spectral_distance(x, y).value for x, y in pairs])
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean()) < Z * error
    biased = np.array([plain(x, y) for x, y in pairs])
    assert biased.mean() > Z * biased.std(ddof=1) / np.sqrt(len(biased))


def plain(x: np.ndarray, y: np.ndarray) -> float:
    """The broken variant: estimated means and powers put into the formula."""
    means = float(((x.mean(0) - y.mean(0)) ** 2).sum())
    powers = [np.abs(np.fft.fft2(z - z.mean(0))) ** 2 @ np.eye(SIDE) / SIDE**2 for z in (x, y)]
    rows = [(p.reshape(N, 3, -1) @ rings(SIDE).average).sum(0) / (N - 1) for p in powers]
    return means + float((rings(SIDE).counts * (np.sqrt(rows[0]) - np.sqrt(rows[1])) ** 2).sum())


def test_95_percent_intervals_hold_the_distance_in_95_percent() -> None:
    generator, gain, repetitions = np.random.default_rng(4), 1.3, 300
    wanted, held = exact(gain * falling(), falling()), 0
    for _ in range(repetitions):
        y = images(generator)
        found = spectral_distance(gain * y, y)
        held += abs(found.value - wanted) < 2.02 * found.standard_error  # Student's, 39 degrees of freedom
    # coverage may be 0.90 to 0.99 (the jackknife's own error); then these counts are left once in 1e9
    assert binom.ppf(1e-9, repetitions, 0.90) <= held <= binom.ppf(1 - 1e-9, repetitions, 0.99)


def test_the_left_out_distances_are_those_of_the_sets_without_the_row() -> None:
    from weakorder.verification.cifar10.study.spectral import _shape

    generator = np.random.default_rng(5)
    x, y = images(generator, 6), images(generator, 6)
    _, without = _shape(x, y)
    for j in range(6):
        fewer, _ = _shape(np.delete(x, j, 0), np.delete(y, j, 0))
        assert without[j] == pytest.approx(fewer, rel=1e-10)


def test_it_is_the_sum_that_the_prediction_has_over_eigenvalues() -> None:
    variances = np.sort((falling() ** 2).reshape(-1))[::-1]
    law = GaussianTarget.of(0.05, 1.21 * variances, PSLD_DIFFUSION, Parameters()).law(0.0)
    predicted = Spectrum(variances, np.zeros(SIDE**2), 1).distance(law)
    assert 3 * predicted == pytest.approx(exact(1.1 * falling(), falling(), 0.05), rel=1e-9)


def test_equal_sets_are_at_distance_zero_and_colours_and_shifts_do_not_matter() -> None:
    generator = np.random.default_rng(6)
    x, y = images(generator), images(generator)
    assert spectral_distance(x, x) == (0.0, 0.0)
    found = spectral_distance(x, y)
    for change in (lambda z: z + 0.3, lambda z: np.roll(z, 3, axis=2), lambda z: np.flip(z, 3)):
        assert spectral_distance(change(x), change(y)).value == pytest.approx(found.value, rel=1e-9)
    statistics = compare_images(x.astype(np.float32), y.astype(np.float32))
    assert statistics.distances[DISTANCES[-1]].value == pytest.approx(found.value, rel=1e-4)

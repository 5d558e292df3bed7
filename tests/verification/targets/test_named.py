"""The targets by name: what the names promise, and the law that each of them is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import special, stats
from weakorder.theory.model import Parameters
from weakorder.verification.targets import named_mixtures
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.targets.named import TARGETS, make_target
from weakorder.verification.targets.named_mixtures import banana, bimodal, gaussian, student

PARAMS = Parameters()
NAMES = [name for name in TARGETS if name != "empirical-cifar10"]


@pytest.mark.parametrize("name", NAMES)
def test_a_named_target_knows_its_name_and_shape(name: str) -> None:
    target = make_target(name, PARAMS)
    assert target.name == name
    assert target.event == ((2,) if name in {"banana", "student"} else (1,))
    assert target.weights.sum() == pytest.approx(1, abs=1e-15)
    u = target.sample(0.1, torch.arange(3), 0)
    assert u.shape == (3, 2, *target.event)
    assert target.responsibilities(u, 0.1).shape == (3, len(target.weights))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mixtur", {}, "'mixtur' is unknown.*did you mean 'mixture'"),
        ("mixture", {"dim": 0}, "dim = 0: the dimension of the data is an integer from 1 to 4096"),
        ("mixture", {"dim": 5000}, "dim = 5000"),
        ("banana", {"dim": 3}, "dim = 3: target 'banana' has dimension 2; leave dim out"),
        ("student", {"data": "x.npz"}, "'student' reads no data"),
    ],
)
def test_a_name_dimension_or_file_that_does_not_fit_is_refused(name, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_target(name, PARAMS, **arguments)


def test_the_default_mixture_is_the_documented_one() -> None:
    target = bimodal(1, PARAMS)
    assert target.weights.tolist() == [0.4, 0.6]
    assert target.means.tolist() == [[-1], [1]]
    np.testing.assert_allclose(target.covariances.ravel(), [0.2, 0.05], rtol=1e-15)
    only = gaussian(1, PARAMS)
    assert (only.means.item(), only.covariances.item()) == (0.5, pytest.approx(0.25, rel=1e-15))


@pytest.mark.parametrize("dim", [2, 5, 40])
def test_the_mixture_in_more_dimensions_has_the_documented_spectra(dim: int) -> None:
    target = bimodal(dim, PARAMS)
    for cov, (first, last) in zip(target.covariances, [(0.2, 0.05), (0.05, 0.2)], strict=True):
        np.testing.assert_allclose(np.linalg.eigvalsh(cov), np.sort(np.geomspace(first, last, dim)), rtol=1e-12)
        assert np.abs(cov - np.diag(np.diagonal(cov))).max() > 0.01
    assert np.linalg.norm(target.means[1] - target.means[0]) == pytest.approx(2, rel=1e-14)


PINNED_COVARIANCES = [
    [[0.195726238, 0.024955945], [0.024955945, 0.054273762]],
    [[0.061725094, -0.0402652], [-0.0402652, 0.188274906]],
]
PINNED_MEAN = [-0.068246451, 0.997668493]


def test_the_fixed_covariances_stay_what_they_are() -> None:
    """Six digits of the first construction, so that results can be compared over versions and machines."""
    np.testing.assert_allclose(bimodal(2, PARAMS).covariances, PINNED_COVARIANCES, rtol=0, atol=1e-6)
    np.testing.assert_allclose(bimodal(2, PARAMS).means[1], PINNED_MEAN, rtol=0, atol=1e-6)


def data_density(target: MixtureTarget, points: np.ndarray) -> np.ndarray:
    """p_0 at points (n, 2), by scipy."""
    parts = zip(target.weights, target.means, target.covariances, strict=True)
    return sum(w * stats.multivariate_normal(mean, cov).pdf(points) for w, mean, cov in parts)


def test_the_student_mixture_is_the_student_law_over_ten_scales() -> None:
    """The trapezoid rule with step h integrates e^(a y) exp(-e^y) with the relative error 2 |Gamma(a + 2 pi i / h)| /
    Gamma(a) (Poisson summation): a = (n + 2) / 2 for the density in 2-D, n / 2 for the sum of the weights."""
    n, h = named_mixtures.STUDENT_FREEDOM, 0.5
    alias = sum(2 * abs(special.gamma(a + 2j * np.pi / h)) / special.gamma(a) for a in ((n + 2) / 2, n / 2))
    target = student(PARAMS)
    location, scale = named_mixtures.STUDENT_LOCATION, named_mixtures.STUDENT_SCALE
    axis = np.linalg.cholesky(np.array(scale))[:, 0]
    points = np.array(location) + np.linspace(0, 10, 200)[:, None] * axis
    density = stats.multivariate_t(location, scale, n).pdf(points)
    assert alias < 1e-5
    np.testing.assert_allclose(data_density(target, points), density, rtol=alias + 1e-6)  # and the ends of the rule
    other = stats.multivariate_t(location, scale, n + 0.01).pdf(points)
    assert np.abs(other / density - 1).max() > 100 * alias


def test_the_student_mixture_has_a_heavy_tail() -> None:
    """The fourth moment of a Student law with n degrees of freedom is 3 (n - 2) / (n - 4) of the variance squared; the
    mixture's is that of the rule, a little smaller, and three times a Gaussian's."""
    target = student(PARAMS)
    variances = target.covariances[:, 0, 0]
    kurtosis = 3 * (target.weights @ variances**2) / (target.weights @ variances) ** 2
    assert 8 < kurtosis < 9


def test_the_banana_is_smooth_along_its_curve() -> None:
    """Twice as many nodes of the same width draw the same banana; half as many draw beads."""
    z = np.linspace(-2, 2, 401)
    curve = np.stack([0.8 * z, 0.5 * z**2 - 0.5], axis=1)
    log_density = np.log(data_density(banana(PARAMS), curve))
    assert np.diff(log_density, 2).max() < 0
    target = banana(PARAMS)
    beads = MixtureTarget.of(
        target.weights[::2] / target.weights[::2].sum(), target.means[::2], target.covariances[::2], PARAMS
    )
    assert np.diff(np.log(data_density(beads, curve)), 2).max() > 0


def test_the_names_need_no_torch() -> None:
    script = "import sys; from weakorder.verification.targets import TARGETS; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)

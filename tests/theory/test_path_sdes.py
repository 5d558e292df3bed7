"""Gaussian paths as SDEs, and as the diffusion vp in another time: the solvers of each are those of vp."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
from weakorder.integrators.catalogue import POSITION
from weakorder.theory.paths import PATHS, GaussianPath, as_vp, table_of
from weakorder.theory.splitting import VP_WHOLE
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.targets.gaussian import GaussianTarget

VP = VP_WHOLE.diffusion
MEAN, VARIANCE = 0.7, 0.3
TABLE = table_of(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))


def law_of_the_sde(path: GaussianPath, begin: float, end: float, louder: float = 1.0) -> tuple[float, float]:
    """alpha and sigma^2 at `end`, carried by the SDE's moment equations from `begin`."""
    start = path.level(begin)

    def slope(t: float, y: np.ndarray) -> list[float]:
        f, g2 = path.sde(t)
        return [float(f * y[0]), float(2 * f * y[1] + louder * g2)]

    found = scipy.integrate.solve_ivp(
        slope, (begin, end), [start.alpha, start.sigma**2], "DOP853", rtol=1e-10, atol=1e-12
    )
    return found.y[0, -1], found.y[1, -1]


@pytest.mark.parametrize("name", PATHS)
def test_the_sde_of_a_path_has_the_paths_laws(name: str) -> None:
    path = PATHS[name]
    begin, end = 0.05 * path.end, 0.9 * path.end
    want = (path.level(end).alpha, path.level(end).sigma ** 2)
    np.testing.assert_allclose(law_of_the_sde(path, begin, end), want, rtol=1e-7)
    assert abs(law_of_the_sde(path, begin, end, louder=1.001)[1] / want[1] - 1) > 1e-5
    with pytest.raises(ValueError, match="is known inside"):
        path.sde(0.0)


@pytest.mark.parametrize(("name", "close"), [("vp", 1e-9), ("cosine", 1e-4)])
def test_the_sde_of_a_table_is_that_of_the_schedule_it_was_taken_from(name: str, close: float) -> None:
    """At rows and between them, up to row 900 of 1,000; that of its levels, linear in log(alpha / sigma), is not.

    log alpha^2 of vp is a quadratic; of cosine a row squared times its third derivative, over 6, is 3.5e-5 of the first
    one at row 900.
    """
    path = PATHS[name]
    times = (np.arange(1000) + 1) / 1001
    table = table_of(path.alpha(times) ** 2)
    rows = np.array([0.3, 1, 1.5, 5, 5.5, 50.3, 500, 900.7])
    drift, noise = table.sde(rows)
    f, g2 = path.sde((rows + 1) / 1001)
    np.testing.assert_allclose(drift, f / 1001, rtol=close)
    np.testing.assert_allclose(noise, g2 / 1001, rtol=close)
    kinked = replace(table, drift=None).sde(rows)[0]
    assert np.abs(kinked / drift - 1)[:3].max() > 0.05
    assert [table.level(row).alpha ** 2 for row in (0, 500, 999)] == pytest.approx(
        path.alpha(times[[0, 500, 999]]) ** 2
    )


@pytest.mark.parametrize("path", [*PATHS.values(), TABLE], ids=lambda path: path.name)
def test_a_path_is_vp_in_another_time_and_scale(path: GaussianPath) -> None:
    times = np.linspace(0.9, 0.05, 6) * path.end
    run = as_vp(path, times)
    law = GaussianTarget.of(MEAN, VARIANCE, VP, run.params).law(1 - run.taus)
    np.testing.assert_allclose(run.scale * law.mean[0, :, 0], path.alpha(times) * MEAN, rtol=1e-12)
    want = path.alpha(times) ** 2 * VARIANCE + path.sigma(times) ** 2
    np.testing.assert_allclose(run.scale**2 * law.cov[0, 0, :, 0], want, rtol=1e-12)


def exact_network(path: GaussianPath, t: float) -> tuple[np.ndarray, np.ndarray]:
    """E[x_0 | x_t = x] and E[eps | x_t = x] on Gaussian data, as (slope, offset)."""
    alpha, sigma, _ = path.level(t)
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    data = np.array([gain, MEAN - gain * alpha * MEAN])
    return data, (np.array([1.0, 0.0]) - alpha * data) / sigma


def run_of_vp(name: str, path: GaussianPath, times: np.ndarray) -> tuple[float, float]:
    """Mean and variance of x of the path after a run of a scheme on vp."""
    run = as_vp(path, times)
    law = exact_moments(POSITION[name], GaussianTarget.of(MEAN, VARIANCE, VP, run.params), run.taus).computed
    return float(run.scale[-1] * law.mean[0, 0]), float(run.scale[-1] ** 2 * law.cov[0, 0, 0])


def start_of(path: GaussianPath, t: float) -> tuple[float, float]:
    alpha, sigma, _ = path.level(t)
    return alpha * MEAN, alpha**2 * VARIANCE + sigma**2


@pytest.mark.parametrize(("name", "first"), [("flow", 0.98), ("edm", 80.0)])
def test_euler_on_the_ode_of_rectified_flow_and_of_edm_is_ddim(name: str, first: float) -> None:
    """x <- x + (t' - t) v with v = eps - x_0 (Liu et al. 2023); v = eps in EDM's time sigma (Karras et al. 2022)."""
    path = PATHS[name]
    times = np.linspace(first, 0.05 * path.end, 8)
    mean, variance = start_of(path, times[0])
    for t, after in itertools.pairwise(times):
        data, eps = exact_network(path, t)
        slope, offset = (after - t) * (eps - data if name == "flow" else eps)
        mean, variance = (1 + slope) * mean + offset, (1 + slope) ** 2 * variance
    np.testing.assert_allclose(run_of_vp("vp-DDIM", path, times), (mean, variance), rtol=1e-11)
    assert abs(run_of_vp("vp-Euler", path, times)[1] / variance - 1) > 1e-3


def test_ancestral_ddpm_on_its_table_is_vp_ddpm() -> None:
    """Ho, Jain and Abbeel 2020, algorithm 2, every 100th row of their table, with the posterior's variance."""
    times = np.array([999.0, 900, 700, 500, 300, 100, 10])
    mean, variance = start_of(TABLE, times[0])
    for t, after in itertools.pairwise(times):
        bar, before = float(TABLE.alpha(np.array(t))) ** 2, float(TABLE.alpha(np.array(after))) ** 2
        beta = 1 - bar / before
        data, _ = exact_network(TABLE, t)
        slope = np.sqrt(1 - beta) * (1 - before) / (1 - bar) + np.sqrt(before) * beta / (1 - bar) * data[0]
        mean = slope * mean + np.sqrt(before) * beta / (1 - bar) * data[1]
        variance = slope**2 * variance + (1 - before) / (1 - bar) * beta
    np.testing.assert_allclose(run_of_vp("vp-DDPM", TABLE, times), (mean, variance), rtol=1e-10)


def test_times_without_data_or_without_noise_are_refused() -> None:
    for times in ([1.0, 0.5], [0.9, 0.0], [0.3, 0.5]):
        with pytest.raises(ValueError, match="must fall from a finite value to one above 0"):
            as_vp(PATHS["flow"], times)

"""Gaussian paths: the noise that a network was trained on at each time."""

import numpy as np
import pytest
from weakorder.theory.paths import PATHS, betas_of, refined, table_of

# Stable Diffusion's table.
TABLE = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


@pytest.mark.parametrize("name", ["vp", "cosine"])
def test_these_paths_preserve_variance_to_the_last_digits(name):
    t = np.linspace(1e-6, 0.999, 400)
    path = PATHS[name]
    assert path.alpha(t) ** 2 + path.sigma(t) ** 2 == pytest.approx(1, abs=4e-16)


def test_the_vp_path_has_the_slope_of_its_beta():
    t, h = np.linspace(0.1, 0.9, 9), 1e-5
    slope = (np.log(PATHS["vp"].alpha(t + h)) - np.log(PATHS["vp"].alpha(t - h))) / (2 * h)
    assert slope == pytest.approx(-(0.1 + 19.9 * t) / 2, rel=1e-8)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_every_path_goes_from_data_to_noise(path):
    t = np.linspace(0, path.end, 200)[1:-1]
    ratio = path.sigma(t) / path.alpha(t)
    assert (np.diff(ratio) > 0).all()
    assert path.sigma(t[:1]) < 0.5 < path.sigma(t[-1:])


def test_a_time_off_the_path_is_refused():
    with pytest.raises(ValueError, match="not on the path 'vp', which goes from 0 to 1"):
        PATHS["vp"].level(1.5)


def test_a_table_is_met_at_its_rows_and_between_them():
    path = table_of(TABLE)
    level = path.level(500)
    assert level.alpha**2 == pytest.approx(TABLE[500], rel=1e-13)
    assert level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-15)
    between = path.level(500.5)
    ratios = [np.log(at.alpha / at.sigma) for at in (level, between, path.level(501))]
    assert ratios[1] == pytest.approx((ratios[0] + ratios[2]) / 2, rel=1e-12)


@pytest.mark.parametrize("table", [[0.5], [0.9, 0.95], [1.0, 0.5], [0.9, 0.0], [[0.9, 0.5]]])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(ValueError, match="give 2 or more falling numbers between 0 and 1"):
        table_of(table)


def test_more_rows_are_the_same_curve():
    fine = refined(TABLE, 7 * 999 + 1)
    assert fine[::7] == pytest.approx(TABLE, rel=1e-12)
    assert (np.diff(fine) < 0).all()
    assert np.cumprod(1 - betas_of(fine)) == pytest.approx(fine, rel=1e-10)

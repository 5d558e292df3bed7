"""Compiled moments and growth bounds: the numbers of the recursions in numpy, to rounding, and those where there is no
numba."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from selection import is_representative, nightly_but
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification import exact
from weakorder.verification.exact import moments
from weakorder.verification.exact.moments import Moments, exact_moments, rounding_bound
from weakorder.verification.stability import compiled_growth, growth
from weakorder.verification.targets import GaussianTarget

PARAMS = Parameters(beta_min=0.1, beta_max=15.9)


def target_of(scheme: Scheme) -> GaussianTarget:
    return GaussianTarget.of([0.0, 1.0, -30.0], [0.05, 1.0, 4.0], scheme.splitting.diffusion, PARAMS)


def both(scheme: Scheme, monkeypatch: pytest.MonkeyPatch, start: str = "exact") -> tuple[Moments, Moments]:
    """Compiled, and in numpy."""
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr(moments, "_LARGE", least)
        taus = time_grid("quadratic", 60, PARAMS, 0.1)
        found.append(exact_moments(scheme, target_of(scheme), taus, start, denoise=start == "prior"))
    return found[0], found[1]


def excess(one: Moments, two: Moments, scheme: Scheme) -> float:
    """How far two runs are apart, in units of what rounding may do to either."""
    bound = rounding_bound(scheme, target_of(scheme), time_grid("quadratic", 60, PARAMS, 0.1))
    law = one.exact
    sizes = np.abs(law.mean).max(0) + 1, np.abs(law.cov).max((0, 1)) + 1
    pairs = zip(one.computed, two.computed, bound, sizes, strict=True)
    return max(float((np.abs(a - b) / (b_ + 1e-15 * size)).max()) for a, b, b_, size in pairs)


@pytest.mark.parametrize("start", ["exact", "prior"])
@pytest.mark.parametrize("name", nightly_but(is_representative, CATALOGUE))
def test_compiled_moments_are_those_of_numpy(name: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = CATALOGUE[name]
    assert excess(*both(scheme, monkeypatch, start), scheme) <= 2


def test_a_part_in_ten_billion_more_noise_is_more_than_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = CATALOGUE["EM"]
    compiled, _ = both(replace(scheme, lambda_s=1 + 1e-10), monkeypatch)
    _, plain = both(scheme, monkeypatch)
    assert excess(compiled, plain, scheme) > 2


def test_a_word_without_evaluations_has_its_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = Scheme("U(1/2) U(1/2)", CATALOGUE["SSCS"].splitting)
    assert excess(*both(scheme, monkeypatch), scheme) <= 2


def test_what_is_not_of_frozen_scores_is_left_to_numpy() -> None:
    scheme = CATALOGUE["ROBA"]
    assert moments._fused_for(scheme, target_of(scheme)) is not None
    assert moments._fused_for(replace(scheme, flow="true"), target_of(scheme)) is None
    assert moments._fused_for(replace(CATALOGUE["EM"], memory=2), target_of(scheme)) is None
    still = growth.stop_clock(1.0, 0.5, scheme.splitting.diffusion, PARAMS)
    assert moments._fused_for(scheme, still) is None


def test_without_numba_the_numbers_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> None:
        raise ImportError("no numba")

    monkeypatch.setattr(moments, "import_module", missing)
    one, two = both(CATALOGUE["EM"], monkeypatch)
    assert np.array_equal(one.computed.cov, two.computed.cov)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_compiled_growth_bounds_are_those_of_numpy(size: int) -> None:
    steps = np.random.default_rng(0).normal(size=(size, size, 60, 40)) / max(1, size - 1) ** 0.5
    steps[0, 0, 3, 5] = np.nan
    steps[..., 7] *= 1e200
    with np.errstate(all="ignore"):
        expected = growth.growth_bound(steps)
    np.testing.assert_allclose(compiled_growth.growth_bound(steps), expected, rtol=1e-13)
    assert np.isinf(expected[[5, 7]]).all()
    assert not np.allclose(compiled_growth.growth_bound((1 + 1e-12) * steps), expected, rtol=1e-13, atol=0)
    remembering = np.zeros((2 * size, 2 * size, 60, 40))
    assert np.isinf(compiled_growth.growth_bound(remembering, size)).all()
    assert np.isinf(growth.growth_bound(remembering, size)).all()
    assert growth.fastest(growth.growth_bound) is compiled_growth.growth_bound


@pytest.mark.parametrize(("size", "state"), [(2, 2), (4, 2), (6, 2), (1, 1), (3, 1), (3, 3), (6, 3)])
def test_compiled_growth_is_that_of_numpy_over_the_same_interval(size: int, state: int) -> None:
    """Of runs whose norms rise and fall, of one that overflows, and of one that never was a number."""
    random = np.random.default_rng(size)
    steps = random.normal(size=(size, size, 40, 30)) * np.geomspace(0.1, 0.7, 30) * random.choice([0.5, 1, 2], (40, 1))
    steps[0, 0, 3, 5] = np.nan
    steps[..., 7] *= 1e200
    with np.errstate(all="ignore"):
        expected = growth.transient_growth(steps, size=state)
    found = compiled_growth.transient_growth(steps, size=state)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    some = np.isfinite(expected[0])
    assert some.sum() == 28
    assert len(np.unique(expected[1][some])) > 5
    for ours, numpys in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(ours[some], numpys[some])
    middle = float(np.median(expected[0][some]))
    least, first, last = compiled_growth.transient_growth(steps, middle, state)
    np.testing.assert_allclose(least, np.maximum(expected[0], middle), rtol=1e-12)
    assert not (first + last)[least == middle].any()
    for factor in (0.999999 * expected[0][some].max(), 1.000001 * expected[0][some].max()):
        both = (of.grows_beyond(steps[..., some], factor, state) for of in (compiled_growth, growth))
        assert len(set(both)) == 1


def test_a_bound_that_forgets_the_memory_gives_up_starts_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered alone grows: the state is 0 for a step, and a hundred times as large after it."""
    step, back = np.zeros((4, 4)), np.zeros((4, 4))
    step[2, 0] = step[3, 1] = 1.0
    back[0, 2] = back[1, 3] = 100.0
    steps = np.stack([step, back], axis=2)[..., None]
    assert compiled_growth.transient_growth(steps, size=2)[0][0] == growth.transient_growth(steps, size=2)[0][0] == 100
    broken = compiled_growth._intervals.py_func
    forgetful = dict(
        broken.__globals__, _norm=lambda matrix, first, last: growth.spectral_norm(matrix) if last == 2 else 0
    )
    found = np.ones(1), np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    type(broken)(broken.__code__, forgetful)(np.moveaxis(steps, (0, 1), (-2, -1)).swapaxes(0, 1).copy(), 2, 1.0, *found)
    assert found[0][0] == 1


def test_compiled_steps_and_their_units_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: to 1e-11, near the data too, with data variances from 1e-6 to 1e3; of another grid they are not."""
    scheme, taus = CATALOGUE["NOBAB"], time_grid("quadratic", 20, PARAMS)
    target = GaussianTarget.of(0.0, np.geomspace(1e-6, 1e3, 7), scheme.splitting.diffusion, PARAMS)
    matrix = moments.step_matrices(scheme, target, taus)
    scaled = growth.in_law_units(matrix, target, taus)
    off = growth.in_law_units(matrix, target, taus * (1 - 1e-9))
    monkeypatch.setattr(moments, "_fused_for", lambda *_: None)
    monkeypatch.setitem(sys.modules, "weakorder.verification.exact.fused", None)
    monkeypatch.delitem(vars(exact), "law_units", raising=False)
    plain = moments.step_matrices(scheme, target, taus)
    np.testing.assert_allclose(matrix, plain, rtol=0, atol=1e-11)
    units = growth.in_law_units(plain, target, taus)
    np.testing.assert_allclose(scaled, units, rtol=0, atol=1e-11)
    assert np.abs(off - units).max() > 1e-11
    assert not np.array_equal(scaled, units), "both are the same code"

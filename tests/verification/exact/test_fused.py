"""Compiled moments and growth bounds: the numbers of the recursions in numpy, to rounding, and those where there is no
numba."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from selection import is_representative, nightly_but
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.exact import moments
from weakorder.verification.exact.moments import Moments, exact_moments, rounding_bound
from weakorder.verification.stability import compiled_growth, fewest_steps, growth
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


def test_compiled_growth_bounds_are_those_of_numpy() -> None:
    steps = np.random.default_rng(0).normal(size=(2, 2, 60, 40))
    steps[0, 0, 3, 5] = np.nan
    steps[..., 7] *= 1e200
    with np.errstate(all="ignore"):
        expected = growth.growth_bound(steps)
    np.testing.assert_allclose(compiled_growth.growth_bound(steps), expected, rtol=1e-13)
    assert np.isinf(expected[[5, 7]]).all()
    assert not np.allclose(compiled_growth.growth_bound((1 + 1e-12) * steps), expected, rtol=1e-13, atol=0)
    remembering = np.zeros((4, 4, 60, 40))
    assert np.isinf(compiled_growth.growth_bound(remembering)).all()
    assert np.isinf(growth.growth_bound(remembering)).all()
    assert fewest_steps._compiled_bound() is compiled_growth.growth_bound

"""A black box is studied as its scheme is: the same moments, cost, order and spectrum."""

from __future__ import annotations

import numpy as np
import pytest
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.blackbox.subject import BlackBox, order_study_of
from weakorder.verification.exact.spectrum import Spectrum, study_spectrum
from weakorder.verification.exact.subject import moments_of
from weakorder.verification.targets.gaussian import GaussianTarget

PARAMS = Parameters()
ROBA = CATALOGUE["ROBA"]


def box(name: str = "ROBA") -> BlackBox:
    return BlackBox(name, as_black_box(CATALOGUE[name], PARAMS))


@pytest.mark.parametrize("denoise", [False, True])
def test_moments_and_cost_are_those_of_the_scheme(denoise: bool) -> None:
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], PSLD_DIFFUSION, PARAMS)
    taus = time_grid("quadratic", 20, PARAMS)
    mine, expected = (moments_of(subject, target, taus, "prior", denoise) for subject in (box(), ROBA))
    for one, other in zip(mine.computed, expected.computed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)
    assert mine.nfe == expected.nfe == 20 + denoise
    other = moments_of(CATALOGUE["RBAO"], target, taus, "prior", denoise).computed
    assert np.abs(other.cov - mine.computed.cov).max() > 1e-3


@pytest.mark.parametrize("name", ["ROBA", "NOBAB", "RVV"])
def test_evaluations_per_step_are_counted(name: str) -> None:
    assert box(name).nfe_per_step == CATALOGUE[name].nfe_per_step
    assert box(name).is_stepwise


def test_a_multistep_box_costs_what_a_later_step_costs() -> None:
    class Warming:
        """Two evaluations in the first step, one in each later one."""

        def reset(self) -> None:
            self.first = True

        def __call__(self, u, tau, h, score):
            extra = score(u, 1 - tau) * 0 if self.first else 0
            self.first = False
            return u + h * score(u, 1 - tau) + extra

    subject = BlackBox("warming", Warming())
    assert subject.nfe_per_step == 1
    assert not subject.is_stepwise


def test_the_order_study_and_the_spectrum_agree_with_the_schemes() -> None:
    steps = (5, 10, 20, 40)
    mine, expected = (order_study_of(subject, PARAMS, steps=steps) for subject in (box(), ROBA))
    np.testing.assert_allclose(mine.errors["w2"], expected.errors["w2"], rtol=1e-9)
    data = Spectrum(np.array([2.0, 0.1]), np.array([0.3, 0.0]), 10)
    curves = [study_spectrum([s], PARAMS, (20, 50), ("quadratic",), data).curves[0] for s in (box(), ROBA)]
    np.testing.assert_allclose(curves[0].distance, curves[1].distance, rtol=1e-9)
    np.testing.assert_array_equal(curves[0].nfe, curves[1].nfe)
    assert curves[0].floor != 0

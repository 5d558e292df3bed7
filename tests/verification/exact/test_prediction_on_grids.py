"""Predicted error constants on grids that are not uniform: of dense and sparse steps, and of graded starts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from error_constants import BALANCED, T_END, Constants, disagreement, gaussians, measured_constants
from selection import nightly_but
from weakorder.integrators.catalogue import CATALOGUE, CONJUGATE_WORDS, EXPONENTIAL, conjugate_scheme
from weakorder.integrators.grids import time_grid
from weakorder.theory.frozen import SCORE_HELD
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD_FLOW_WHOLE
from weakorder.theory.weak_order import prove_order
from weakorder.verification.exact import prediction
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.prediction import predicted_constants
from weakorder.verification.targets.gaussian import GaussianLaw

CUBIC = "1 - (1 - s)**3"
CASES = [
    (CATALOGUE["ROBA"], "quadratic"),
    (EXPONENTIAL["SDE-DPM-Solver++2M"], "quadratic"),
    (EXPONENTIAL["SAB2"], CUBIC),
    (EXPONENTIAL["DPM-Solver++2M"], "0, 0.2, 0.45, 0.7, 0.9"),
    (CATALOGUE["RVV"], CUBIC),
    (EXPONENTIAL["DEIS-2"], "quadratic"),
]


def measured(scheme: Scheme, grid: str, order: int) -> Constants:
    return measured_constants(scheme, gaussians(scheme, BALANCED), order, steps=400, grid=grid)


def off(predicted: GaussianLaw, found: GaussianLaw) -> float:
    """The disagreement, of the covariance alone where the mean has no constant: there nothing is measured but
    rounding."""
    if float(np.abs(predicted.mean).max()) > 1e-10:
        return disagreement(predicted, found)
    assert float(np.abs(found.mean).max()) < 1e-3
    nothing = np.zeros_like(predicted.mean) + 1
    return disagreement(predicted._replace(mean=nothing), found._replace(mean=nothing))


@pytest.mark.parametrize(
    ("scheme", "grid"),
    nightly_but(lambda case: case is CASES[2], CASES),
    ids=lambda value: getattr(value, "name", value),
)
def test_constants_are_predicted_on_grids_of_any_density(scheme: Scheme, grid: str) -> None:
    """Claim: mean and covariance, every entry, to 1e-4, and that of equal steps is off by more than 10%: steps count by
    their lengths where they are made, and the first ones too."""
    target = gaussians(scheme, BALANCED)
    proof, predicted = predicted_constants(scheme, target, T_END, grid)
    values = measured(scheme, grid, proof.order).values
    assert off(predicted, values) < 1e-4
    assert off(predicted_constants(scheme, target, T_END)[1], values) > 0.1


THREE = Scheme("S F", PSLD_FLOW_WHOLE, "memory 3 of scores", "exact", frozen=SCORE_HELD, memory=3)


@pytest.mark.nightly
@pytest.mark.nightly
def test_a_graded_start_leaves_the_constant_of_the_steps() -> None:
    """Claim: memory 3 on the flow has order 3 and the constant of its steps, to 1e-3, where h is the length of those
    that are not cut; without the grid's start it has the first step's, of order 2."""
    grid, target = "graded uniform", gaussians(THREE, BALANCED)
    proof, predicted = predicted_constants(THREE, target, T_END, grid)
    assert (proof.order, proof.order_if_graded) == (2, 3)
    found, lengths = [], []
    for steps in (400, 800):
        got = exact_moments(THREE, target, time_grid(grid, steps, target.params, T_END))
        lengths.append((target.params.T - T_END) / (steps - math.ceil(math.log2(steps))))
        found.append([(a - b) / lengths[-1] ** 3 for a, b in zip(got.computed, got.exact, strict=True)])
    share = lengths[1] / (lengths[0] - lengths[1])
    limit = GaussianLaw(*(fine + share * (fine - coarse) for coarse, fine in zip(*found, strict=True)))
    assert off(predicted, limit) < 1e-3
    assert off(predicted_constants(THREE, target, T_END)[1], limit) > 0.1


def test_what_more_than_the_density_of_steps_decides_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: in one line, with a grid that has a prediction."""
    four = Scheme("S F", PSLD_FLOW_WHOLE, "memory 4", "exact", frozen=SCORE_HELD, memory=4)
    with pytest.raises(ValueError, match=r"start of 'memory 4' limits it on the grid 'graded uniform' too.* 'uniform'"):
        predicted_constants(four, gaussians(four, BALANCED), T_END, "graded uniform")
    equal = prove_order(THREE)
    monkeypatch.setattr(prediction, "prove_order", lambda *_, **__: replace(equal, any_steps=False))
    with pytest.raises(ValueError, match="proven for equal steps alone"):
        predicted_constants(THREE, gaussians(THREE, BALANCED), T_END, "quadratic")


@pytest.mark.parametrize("name", nightly_but(lambda name: name == "CSPS-S", CONJUGATE_WORDS))
def test_conjugate_integrators_have_their_predicted_constants(name: str) -> None:
    """Claim: to 1e-3, on equal steps."""
    scheme = conjugate_scheme(name)
    target = gaussians(scheme, BALANCED)
    proof, predicted = predicted_constants(scheme, target, T_END)
    assert off(predicted, measured(scheme, "uniform", proof.order).values) < 1e-3
    other = conjugate_scheme(name, 0.3)
    assert off(predicted_constants(other, target, T_END)[1], measured(scheme, "uniform", 1).values) > 0.01

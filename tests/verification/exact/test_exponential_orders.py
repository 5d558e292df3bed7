"""Exponential integrators are held to the orders that the catalogue claims: proven, measured, and predicted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from selection import nightly_but
from weakorder.integrators.catalogue import CONJUGATE_WORDS, EXPONENTIAL, conjugate_scheme
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.weak_order import prove_order
from weakorder.verification.exact import gaussian_targets, predicted_errors, study_order
from weakorder.verification.verdicts import Verdict

PARAMS = Parameters()
STEPS = (100, 200, 400, 800, 1600)


def _stands_for_all(scheme: Scheme) -> bool:
    return scheme.name in ("DDIM", "SDE-DPM-Solver++2M")


@pytest.mark.parametrize("scheme", nightly_but(_stands_for_all, EXPONENTIAL.values()), ids=lambda scheme: scheme.name)
def test_every_exponential_integrator_has_its_claimed_order_and_its_predicted_error(scheme: Scheme) -> None:
    study = study_order(scheme, PARAMS, steps=STEPS)
    assert study.verdict is Verdict.PASS, study.reason
    assert study.proven == scheme.order
    assert round(study.measured.order) == scheme.order
    predicted = predicted_errors(scheme, gaussian_targets(scheme.splitting.diffusion, PARAMS), 0.1)["w2"]
    assert math.isclose(study.constants()[-1], predicted, rel_tol=0.05)


@pytest.mark.parametrize("scheme", nightly_but(_stands_for_all, EXPONENTIAL.values()), ids=lambda scheme: scheme.name)
def test_no_exponential_integrator_passes_for_one_order_more(scheme: Scheme) -> None:
    study = study_order(replace(scheme, order=None), PARAMS, expected=(scheme.order or 0) + 1, steps=STEPS)
    assert study.verdict is Verdict.FAIL


@pytest.mark.parametrize("name", nightly_but(lambda name: name == "lambda-DDIM-I", CONJUGATE_WORDS))
def test_the_orders_of_conjugate_integrators_are_theorems(name: str) -> None:
    scheme = conjugate_scheme(name)
    assert prove_order(scheme, linear_beta=False).order == scheme.order

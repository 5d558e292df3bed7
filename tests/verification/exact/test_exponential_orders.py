"""Exponential integrators are held to the orders that the catalogue claims: proven, measured, and predicted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from selection import nightly_but
from weakorder.integrators.catalogue import CONJUGATE_WORDS, EXPONENTIAL, conjugate_scheme
from weakorder.integrators.grids import time_grid
from weakorder.theory.frozen import FROZEN, SCORE_HELD, Frozen
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD_FLOW_WHOLE, PSLD_WHOLE
from weakorder.theory.weak_order import prove_order
from weakorder.verification.exact import gaussian_targets, order, predicted_errors, study_order
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


# --- On graded grids --------------------------------------------------------------------------------------------------

THREE = Scheme("S F", PSLD_FLOW_WHOLE, flow="exact", memory=3)
COARSE = (50, 100, 200, 400, 800)


@pytest.mark.parametrize("frozen", nightly_but(lambda frozen: frozen is SCORE_HELD, FROZEN.values()), ids=str)
def test_on_a_graded_grid_the_verdict_holds_a_memory_of_three_to_the_order_that_it_keeps_there(frozen: Frozen) -> None:
    scheme = replace(THREE, frozen=frozen)
    study = study_order(scheme, PARAMS, expected=3, steps=COARSE, grid="graded uniform")
    assert (study.verdict, study.proven) == (Verdict.PASS, 3), study.reason
    assert study.measured is not None
    assert study.measured.order == pytest.approx(3, abs=0.1)
    plain = study_order(scheme, PARAMS, expected=3, steps=COARSE)
    assert (plain.verdict, plain.reason) == (Verdict.FAIL, "proven order 2, expected 3")


def test_a_graded_grid_that_is_none_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof holds for graded starts; steps that are not are told by their errors."""
    monkeypatch.setattr(order, "time_grid", lambda grid, *rest: time_grid(grid.removeprefix("graded "), *rest))
    study = study_order(THREE, PARAMS, expected=3, steps=COARSE, grid="graded uniform")
    assert study.proven == 3
    assert study.verdict is not Verdict.PASS


def test_noise_limits_a_memory_of_three_on_a_graded_grid_too() -> None:
    study = study_order(replace(THREE, splitting=PSLD_WHOLE), PARAMS, expected=3, steps=COARSE, grid="graded uniform")
    assert (study.verdict, study.reason) == (Verdict.FAIL, "proven order 2, expected 3")


@pytest.mark.parametrize("name", nightly_but(lambda name: name == "lambda-DDIM-I", CONJUGATE_WORDS))
def test_the_orders_of_conjugate_integrators_are_theorems(name: str) -> None:
    scheme = conjugate_scheme(name)
    assert prove_order(scheme, linear_beta=False).order == scheme.order

"""Conjugate integrators are the words they are said to be, and hold eps alone where lambda is 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from held_by_hand import forward_kernel
from scipy.integrate import quad_vec
from scipy.linalg import expm
from weakorder.integrators.catalogue import CONJUGATE_WORDS, conjugate_scheme
from weakorder.integrators.compiled import compile_run
from weakorder.integrators.grids import time_grid
from weakorder.integrators.loading import find_scheme
from weakorder.theory.conjugate import conjugate
from weakorder.theory.frozen import EPS_HELD
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW, PSLD_FLOW_WHOLE, Part, Splitting
from weakorder.verification.exact import errors_of, exact_moments, gaussian_targets

PARAMS = Parameters(gamma=0.3, nu=2.1, kappa=0.1, beta_min=0.5, beta_max=9.0)
TAUS = np.array([0.1, 0.3, 0.38, 0.61])
WITHOUT = {
    "lambda-DDIM-I": Scheme("S F", PSLD_FLOW_WHOLE, flow="exact", frozen=EPS_HELD),
    "lambda-DDIM-II": Scheme("S F", PSLD_FLOW_WHOLE, flow="exact", frozen=EPS_HELD),
    "CSPS-D": Scheme("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, flow="exact", frozen=EPS_HELD),
    "CSPS-S": Scheme("O S B A", PSLD, flow="exact", frozen=EPS_HELD),
}


@pytest.mark.parametrize("name", CONJUGATE_WORDS)
def test_without_lambda_a_conjugate_integrator_holds_eps_and_nothing_else(name: str) -> None:
    found = compile_run(conjugate_scheme(name, 0.0), TAUS, PARAMS)
    expected = compile_run(WITHOUT[name], TAUS, PARAMS)
    for a, b in zip(found.updates.flow, expected.updates.flow, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15 * max(1.0, float(np.abs(b).max())))
    np.testing.assert_array_equal(found.updates.time, expected.updates.time)


@pytest.mark.parametrize(("name", "B"), [("lambda-DDIM-I", np.eye(2)), ("lambda-DDIM-II", np.ones((2, 2)))])
def test_a_conjugate_integrator_takes_b_by_euler_in_transformed_coordinates(name: str, B: np.ndarray) -> None:
    """z = exp((B + A) theta) u: Euler on B z, the integral of eps' coefficient exactly, and back."""
    strength, scheme = 0.7, conjugate_scheme(name, 0.7)
    t, h = 0.4, 0.2
    A, G, _ = PSLD_FLOW_WHOLE.whole.numbers(PARAMS.values())
    length = float(PARAMS.theta(t, h))
    transformed = A + strength * B

    def coefficient(tau: float) -> np.ndarray:
        theta = float(PARAMS.theta(t, tau))
        _, cov = forward_kernel(scheme, PARAMS, t - tau)
        gain = -G @ np.linalg.inv(np.linalg.cholesky(cov)).T
        return PARAMS.beta(t - tau) * expm(-transformed * theta) @ gain

    integral, _ = quad_vec(coefficient, 0, h, epsabs=1e-12)
    back = expm(transformed * length)
    eps_of_score = -np.linalg.cholesky(forward_kernel(scheme, PARAMS, t)[1]).T
    run = compile_run(scheme, np.array([1 - t, 1 - t + h]), PARAMS).updates.flow
    np.testing.assert_allclose(run.propagator[0], back @ (np.eye(2) - strength * length * B), rtol=1e-11)
    np.testing.assert_allclose(run.score_gain[0], back @ integral @ eps_of_score, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CONJUGATE_WORDS)
def test_conjugate_integrators_have_the_order_they_claim(name: str) -> None:
    params = Parameters()
    scheme = find_scheme(name)
    target = gaussian_targets(PSLD_DIFFUSION, params)
    unit = np.sqrt(PSLD_DIFFUSION.prior_variances(params.values()))
    runs = [exact_moments(scheme, target, time_grid("uniform", steps, params, 0.1)) for steps in (400, 800)]
    first, second = (errors_of(run.computed, run.exact, unit)["w2"] for run in runs)
    assert scheme.order is not None
    assert abs(np.log2(first / second) - scheme.order) < 0.05


def test_only_what_the_scheme_does_not_say_is_said_by_a_part() -> None:
    split = conjugate(PSLD_FLOW, 0.5)
    assert [part.name for part in split.parts] == ["NA", "A", "NB", "B"]
    assert [part.euler for part in split.parts] == [True, False, True, False]
    exact = tuple(replace(part, euler=False) if part.euler else part for part in (Part(*_of(p)) for p in split.parts))
    assert Splitting("other", split.diffusion, split.whole, exact).parts != split.parts
    with pytest.raises(ValueError, match="part 'F' uses the score: the scheme's flow says how it is followed"):
        Part("F", PSLD_FLOW_WHOLE.whole.drift, euler=True)
    with pytest.raises(ValueError, match="lambda = inf: it is a finite number"):
        conjugate(PSLD_FLOW, float("inf"))


def _of(part: Part) -> tuple:
    return part.name, part.drift, part.diffusion, part.euler

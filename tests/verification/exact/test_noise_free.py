"""Weak errors without sampling, on the mixture: against nested quadrature, which knows nothing of lattices.

The same comparison with a slightly other scheme must fail.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from one_dimensional import bimodal
from scipy.special import ndtr
from selection import nightly_but
from weakorder.integrators.catalogue import CATALOGUE, LANGEVIN_CONTROLS
from weakorder.integrators.compiled import compile_run, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import PSLD_DIFFUSION, STATIONARY, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD_FLOW, PSLD_WHOLE
from weakorder.verification.exact.lattice import RESOLUTIONS, carried_law
from weakorder.verification.exact.noise_free import (
    NoiseFreeErrors,
    NoiseFreeStudy,
    noise_free_errors,
    study_noise_free,
)
from weakorder.verification.exact.observables import OBSERVABLES, Observable, expectation
from weakorder.verification.exact.order import T_END
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.targets.named import make_target
from weakorder.verification.verdicts.verdict import Verdict

Array = NDArray[np.float64]
PARAMS = Parameters()
ENTIRE = OBSERVABLES[:-1]  # without the steep mode weight, for which the rules below have too few nodes


# --- Arranging --------------------------------------------------------------------------------------------------------


def nested_quadrature(scheme: Scheme, target: MixtureTarget, taus: Array) -> Array:
    """E f(u_N) by Gauss-Hermite rules in the start's components and in every noise but the score-free first."""

    def rule(count: int) -> tuple[Array, Array]:
        nodes, mass = np.polynomial.hermite_e.hermegauss(count)
        return np.stack(np.meshgrid(nodes, nodes)).reshape(2, -1), np.outer(mass, mass).ravel() / (2 * math.pi)

    run = compile_run(scheme, taus, target.params)
    grid, mass = rule(44)
    noise, noise_mass = rule(14)
    P, _, Q = run.prologue
    points, weights = [], []
    components = target.components(target.params.T - float(taus[0]))
    for w, mean, cov in zip(*(a.numpy() for a in components), strict=True):
        points.append(P @ mean + noise_factor(P @ cov[:, 0, :, 0] @ P.T + Q) @ grid)
        weights.append(w * mass)
    u, w = np.concatenate(points, axis=1), np.concatenate(weights)
    for t, P, K, Q in zip(run.updates.time, *run.updates.flow, strict=True):
        s = target.score(torch.from_numpy(u.T.copy())[..., None], float(t))[..., 0].numpy().T
        u = P @ u + K @ s
        if Q.any():
            u = (u[:, :, None] + (noise_factor(Q) @ noise)[:, None]).reshape(2, -1)
            w = np.outer(w, noise_mass).ravel()
    return np.array([w @ observable.function(*u) for observable in ENTIRE])


# --- Against nested quadrature: the mixture ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps"),
    [("EM", 1), ("SSCS", 1), ("NOBA", 2), ("ROBAB", 2), ("RBAO", 1), ("NSE", 3), ("RVV", 3)],
)
def test_a_few_steps_on_the_mixture_agree_with_nested_quadrature(name: str, steps: int) -> None:
    """Claim: to 1e-7, what the rules are good for, where the score is far from affine; a hundredth of a step in
    the score's time is seen."""
    scheme, taus = CATALOGUE[name], np.linspace(0.75, 0.75 + 0.03 * steps, steps + 1)
    target = bimodal(scheme, PARAMS)
    reference = nested_quadrature(scheme, target, taus)
    result = noise_free_errors(scheme, target, taus, ENTIRE)
    assert not result.problem
    assert np.abs(result.computed - reference).max() < 1e-7
    slipped = replace(scheme, word=scheme.word.replace("S", "S@1/100", 1))
    assert np.abs(noise_free_errors(slipped, target, taus, ENTIRE).computed - reference).max() > 1e-5


@pytest.mark.parametrize("name", ["SSCS", "RVV"])
def test_a_refinement_estimate_covers_what_finer_resolutions_still_move(name: str) -> None:
    """Claim: at a much finer resolution no answer has moved by more than the estimate it came with."""
    scheme = CATALOGUE[name]
    taus = time_grid("uniform", 25, PARAMS, T_END)
    result = noise_free_errors(scheme, bimodal(scheme, PARAMS), taus)
    finer = carried_law(scheme, bimodal(scheme, PARAMS), taus, RESOLUTIONS[3])
    reference = np.array([finer.weights @ observable.function(*finer.points) for observable in OBSERVABLES])
    moved = np.abs(result.computed - reference)
    assert (result.estimates <= 1e-7).all()
    assert (moved <= result.estimates + 1e-13).all()
    assert moved.max() > 0


def test_a_symmetric_target_has_no_error_in_odd_functions() -> None:
    """Claim: x, x^3 and m stay zero, and half the mass stays in either mode; a shift of the data breaks it."""
    scheme, taus = CATALOGUE["ROBA"], time_grid("uniform", 25, PARAMS, T_END)

    def odd_errors(left: float) -> Array:
        target = MixtureTarget.of([0.5, 0.5], [[left], [1]], [[[0.1]], [[0.1]]], PARAMS, PSLD_DIFFUSION)
        result = noise_free_errors(scheme, target, taus)
        return result.errors[[result.names.index(name) for name in ("x", "x^3", "m", "mode x > 0")]]

    assert np.abs(odd_errors(-1.0)).max() < 1e-8
    assert np.abs(odd_errors(-1.1)).min() > 1e-5


# --- The exact side ---------------------------------------------------------------------------------------------------


def test_exact_expectations_are_those_of_the_closed_forms() -> None:
    """Claim: moments, characteristic function and distribution function of the components, to 1e-12."""
    target = make_target("mixture", PARAMS)
    weights, means, covs = (a.numpy() for a in target.components(T_END))
    (mx, mm), (xx, xm, mm2) = means[:, :, 0].T, (covs[:, 0, 0, 0, 0], covs[:, 0, 0, 1, 0], covs[:, 1, 0, 1, 0])
    closed = {
        "x": mx,
        "x^2": mx**2 + xx,
        "x^3": mx**3 + 3 * mx * xx,
        "x^4": mx**4 + 6 * mx**2 * xx + 3 * xx**2,
        "m": mm,
        "x m": mx * mm + xm,
        "m^2": mm**2 + mm2,
        "cos 2x": np.cos(2 * mx) * np.exp(-2 * xx),
        "mode x > 0": ndtr(mx / np.sqrt(0.25**2 + xx)),
    }
    exact, estimates = expectation(OBSERVABLES, target, T_END)
    assert [observable.name for observable in OBSERVABLES] == list(closed)
    np.testing.assert_allclose(exact, [weights @ value for value in closed.values()], rtol=0, atol=1e-12)
    assert estimates.max() < 1e-10


def test_a_test_function_that_is_not_smooth_is_not_vouched_for() -> None:
    """Claim: a sharp step's estimate is far above the accuracy, and the result says so."""
    sharp = Observable("x > 0.3", lambda x, _: (x > 0.3).astype(float))
    scheme = CATALOGUE["RSE"]
    result = noise_free_errors(scheme, bimodal(scheme, PARAMS), time_grid("uniform", 5, PARAMS, T_END), [sharp])
    assert result.estimates[0] > 1e-4
    assert result.problem.startswith("not resolved to 1e-07")


# --- Orders -----------------------------------------------------------------------------------------------------------

FEW = (25, 50, 100, 200)


def assert_order(scheme: Scheme, target: MixtureTarget, steps: tuple[int, ...], t_end: float = T_END) -> None:
    """Every error is proved to 1e-7 at every level; that of x^2 has the claimed order, and none has a lower one."""
    assert_order_of(study_noise_free(scheme, target, steps, t_end=t_end), scheme)


def assert_order_of(study: NoiseFreeStudy, scheme: Scheme) -> None:
    assert all(not level.problem and (level.estimates <= 1e-7).all() for level in study.levels)
    assert study.fit("x^2").order == pytest.approx(scheme.order, abs=0.1)
    assert study.measured.order > scheme.order - 0.25


@pytest.fixture(scope="module")
def plain() -> NoiseFreeStudy:
    """RSE, a deterministic scheme, on the mixture."""
    return study_noise_free(CATALOGUE["RSE"], bimodal(CATALOGUE["RSE"], PARAMS), FEW)


def test_a_scheme_without_noise_has_order_one_on_the_mixture(plain: NoiseFreeStudy) -> None:
    assert_order_of(plain, CATALOGUE["RSE"])


def test_a_scheme_with_noise_has_order_one_on_the_mixture() -> None:
    assert_order(CATALOGUE["SSCS"], bimodal(CATALOGUE["SSCS"], PARAMS), FEW)


@pytest.mark.nightly
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue_has_order_one_on_the_mixture(name: str) -> None:
    assert_order(CATALOGUE[name], bimodal(CATALOGUE[name], PARAMS), (50, 100, 200, 400))


@pytest.mark.nightly
def test_baoab_has_order_two_in_a_double_well() -> None:
    """Claim: the published order of Langevin dynamics, from its stationary law."""
    (baoab,) = (scheme for scheme in LANGEVIN_CONTROLS if scheme.name == "BAOAB")
    double_well = MixtureTarget.of([0.4, 0.6], [[-0.7], [0.7]], [[[0.4]], [[0.35]]], PARAMS, STATIONARY)
    assert_order(baoab, double_well, (8, 16, 32, 64), t_end=0.8)


# For errors of 1e-3 and more, which do not vanish: they are known to 1%.
ROUGH = 1e-5
BROKEN = {
    "a lost half-step": Scheme("S B A(1/2)", PSLD_FLOW),
    "a quarter too much of everything": Scheme("S F(3/4) F(1/2)", PSLD_WHOLE),
}


@pytest.mark.parametrize("name", nightly_but(lambda name: "lost" in name, BROKEN))
def test_an_inconsistent_scheme_has_order_zero_on_the_mixture(name: str) -> None:
    scheme = BROKEN[name]
    fit = study_noise_free(scheme, bimodal(scheme, PARAMS), FEW, OBSERVABLES[1:2], accuracy=ROUGH).measured
    assert fit is not None
    assert fit.order < 0.5


@pytest.mark.nightly
def test_position_noise_a_tenth_too_strong_leaves_a_bias_that_steps_do_not_remove() -> None:
    """Claim: what lambda_s = 1.1 adds to the error of x^2 hardly changes from 50 to 100 steps; the rest halves."""
    roba = CATALOGUE["ROBA"]
    errors, broken = (
        study_noise_free(scheme, bimodal(scheme, PARAMS), (50, 100), OBSERVABLES[1:2], accuracy=ROUGH).errors["x^2"]
        for scheme in (roba, replace(roba, lambda_s=1.1))
    )
    bias = broken - errors
    assert bias[1] > 1e-3
    assert 0.8 < bias[1] / bias[0] < 1.25
    assert 0.4 < errors[1] / errors[0] < 0.7


def test_a_score_conditioned_at_another_time_keeps_order_one_with_another_constant(plain: NoiseFreeStudy) -> None:
    """Claim: S@1 in place of RSE's S moves the error by a term of first order, so by another factor than 1."""
    slipped = study_noise_free(Scheme("S@1 B A", PSLD_FLOW), bimodal(CATALOGUE["RSE"], PARAMS), FEW, OBSERVABLES[1:2])
    for study in (plain, slipped):
        assert study.fit("x^2").order == pytest.approx(1, abs=0.1)
    error = plain.errors["x^2"][-1]
    assert abs(error - slipped.errors["x^2"][-1]) > 0.1 * abs(error)


def test_errors_keep_their_sign_and_a_change_of_sign_is_not_fitted(plain: NoiseFreeStudy) -> None:
    """Claim: computed less exact, and levels of the other sign than the finest are left out of a fit."""
    assert (plain.errors["x^2"] < 0).all()
    assert plain.fit("x^2") is not None
    flipped = [replace(level, computed=2 * level.exact - level.computed) for level in plain.levels[:2]]
    assert replace(plain, levels=(*flipped, *plain.levels[2:])).fit("x^2") is None


# --- What cannot be resolved, and bad input ---------------------------------------------------------------------------


def test_a_run_that_overflows_or_cannot_be_resolved_says_so() -> None:
    """Claim: an unstable run ends as a problem and an infinite or large estimate, never as a quiet number."""
    scheme = Scheme("O S B A", LANGEVIN)
    params = Parameters(beta_min=1e3, beta_max=1e3)
    result = noise_free_errors(scheme, bimodal(scheme, params), time_grid("uniform", 25, params, T_END))
    assert result.problem.startswith("not resolved")
    assert (result.estimates > 1e-7).any()
    study = study_noise_free(scheme, bimodal(scheme, params), (10, 20, 40, 80))
    assert study.measured is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": make_target("mixture", PARAMS, dim=2)}, r"event shape \(2,\): .*; sample the others"),
        ({"target": make_target("mixture", PARAMS, diffusion=STATIONARY)}, "'stationary'; give the target"),
        ({"scheme": replace(CATALOGUE["EM"], flow="true")}, "true sub-flow"),
        ({"observables": ()}, "no test function"),
        ({"accuracy": 1e-12}, "accuracy = 1e-12"),
        ({"accuracy": math.nan}, "accuracy = nan"),
        ({"taus": np.array([0.0, 0.2, 0.1])}, "must increase"),
    ],
)
def test_bad_input_is_refused_by_name(change: dict, message: str) -> None:
    good = {"scheme": CATALOGUE["EM"], "target": make_target("mixture", PARAMS), "taus": np.linspace(0, 0.9, 6)}
    with pytest.raises(ValueError, match=message):
        noise_free_errors(**(good | change))


def test_a_study_needs_steps() -> None:
    with pytest.raises(ValueError, match="no numbers of steps"):
        study_noise_free(CATALOGUE["EM"], make_target("mixture", PARAMS), ())


def synthetic(**errors: Array) -> NoiseFreeStudy:
    """Of errors by function at 25, 50, ... steps, each known to 1e-9."""
    steps = 25 * 2 ** np.arange(len(next(iter(errors.values()))))
    columns = zip(steps.tolist(), np.array(list(errors.values())).T, strict=True)
    levels = [
        NoiseFreeErrors("s", tuple(errors), count, count, column, np.zeros(len(column)), np.full(len(column), 1e-9), 9)
        for count, column in columns
    ]
    return NoiseFreeStudy("synthetic", 1, 0.9, tuple(levels), proven=1)


def test_a_pass_leaves_no_function_open_and_an_open_one_forbids_it() -> None:
    """Claim: an order is told by the constant where the error changes its sign, and by nothing where it goes up and
    down; an error that vanishes by symmetry is no matter."""
    h = 0.9 / (25 * 2.0 ** np.arange(5))
    plain, crossing, vanishing = 2 * h + h**2, h - 60 * h**2, 1e-10 * np.array([1, -1, 1, 1, -1])
    settled = synthetic(x=plain, m=crossing, s=vanishing)
    assert settled.fit("m") is None or not settled.fit("m").is_settled
    assert settled.open == ()
    assert settled.verdict is Verdict.PASS
    assert "not settled" not in settled.reason
    swinging = h * np.array([1.0, -0.5, 1.2, -0.3, 0.9])
    unsettled = synthetic(x=plain, m=swinging)
    assert unsettled.open == ("m",)
    assert unsettled.verdict is Verdict.INCONCLUSIVE
    assert "not settled at 400 steps: m" in unsettled.reason
    half = synthetic(x=plain, m=h**0.5)
    assert half.verdict is not Verdict.PASS

"""Orders and exact moments of diffusions with one and with three components: claimed, proven, measured, predicted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from selection import nightly_but
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.grids import time_grid
from weakorder.theory.clock import THETA
from weakorder.theory.frozen import FROZEN
from weakorder.theory.model import DIFFUSIONS, Diffusion, LinearSDE, Parameters, a, m, x
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_LINEAR, Part, Splitting
from weakorder.verification.exact.errors import errors_of
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.order import T_END, gaussian_targets, study_order
from weakorder.verification.exact.prediction import predicted_errors
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget
from weakorder.verification.verdicts.algebra import congruence
from weakorder.verification.verdicts.verdict import Verdict

VP = DIFFUSIONS["vp"]
STEPS = (200, 400, 800, 1600)
ONE = sp.S.One


def whole(diffusion: Diffusion, noise: float = 1) -> Splitting:
    dynamics = diffusion.reverse(noise)
    return Splitting("whole", diffusion, dynamics, (Part("F", dynamics.drift, dynamics.diffusion),))


def copies(n: int) -> Diffusion:
    """n independent copies of vp, the others' data of variance 1/4, 1/9."""
    forward = LinearSDE(tuple(-c / 2 for c in (x, m, a)[:n]), (ONE,) * n)
    return Diffusion("copies", forward, (sp.Rational(1, 4), sp.Rational(1, 9))[: n - 1], (ONE,) * n)


THIRD = Diffusion(
    "third order",
    LinearSDE((m, -x + 10 * a, -m - 6 * a), (sp.S.Zero, sp.S.Zero, sp.sqrt(sp.Rational(6, 5)))),
    (sp.Rational(1, 4), sp.Rational(1, 90)),
    (ONE, ONE, sp.Rational(1, 10)),
)


# Of order 2 by their first step alone, whose error is small where the law is the prior's already, and 3 without it.
SLOW_STARTERS = ("vp-DEIS-3", "vp-UniP-3")


@pytest.mark.parametrize("scheme", POSITION.values(), ids=lambda scheme: scheme.name)
def test_a_solver_in_position_alone_has_the_order_that_it_claims_and_is_proven(scheme: Scheme) -> None:
    params = VP.parameters()
    study = study_order(scheme, params, steps=STEPS)
    assert study.verdict is Verdict.PASS
    assert study.proven == scheme.order == study.expected
    assert study.measured is not None
    if scheme.name in SLOW_STARTERS:
        assert study.measured.order > scheme.order - 0.02
        graded = study_order(scheme, params, steps=STEPS, grid="graded uniform").measured
        assert graded is not None
        assert graded.order == pytest.approx(3, abs=0.05)
        return
    assert abs(study.measured.order - scheme.order) < 0.02
    predicted = predicted_errors(scheme, gaussian_targets(VP, params), T_END)["w2"]
    limit = study.constant("w2")
    assert limit is not None
    assert limit.value == pytest.approx(predicted * (1 - T_END) ** scheme.order, rel=0.005)
    assert study_order(scheme, params, expected=scheme.order + 1, steps=STEPS).verdict is Verdict.FAIL


def test_an_inconsistent_word_in_position_alone_fails() -> None:
    study = study_order(Scheme("S U E(1/2)", VP_LINEAR), VP.parameters(), steps=STEPS)
    assert study.verdict is Verdict.FAIL
    assert "the weights of E sum to 1/2" in study.reason


@pytest.mark.parametrize("noise", [0.0, 0.25, 2.0])
def test_any_amount_of_noise_has_the_same_laws(noise: float) -> None:
    scheme = Scheme("S F", whole(VP, noise), flow="exact", frozen=POSITION["vp-DDPM"].frozen, memory=2, order=2)
    study = study_order(scheme, VP.parameters(), steps=STEPS)
    assert study.verdict is Verdict.PASS
    wrong = replace(scheme, memory=1, lambda_s=1.0 if noise == 0 else 1.01)
    assert study_order(wrong, VP.parameters(), expected=2, steps=STEPS).verdict is Verdict.FAIL


@pytest.mark.parametrize("name", ["vp-EM", "vp-DDIM", "vp-SDE-DPM-Solver++2M"])
@pytest.mark.parametrize("n", [2, 3])
def test_components_that_do_not_meet_are_sampled_as_alone(n: int, name: str) -> None:
    """Claim: in n copies of vp each component has the moments that it has alone, whatever n is. (What is held of the
    others is not what is held of x: at the data they have a law, not a value. Nor is the log-SNR of all that of x.)"""
    scheme, params = replace(POSITION[name], clock=THETA), VP.parameters()
    noise = 1 if scheme.splitting.whole.has_noise else 0
    taus = time_grid("quadratic", 12, params)
    target = GaussianTarget.of(0.7, 2.0, copies(n), params)
    together = exact_moments(replace(scheme, splitting=whole(copies(n), noise)), target, taus)
    data = [(0.7, 2.0), (0.0, 0.25), (0.0, 1 / 9)][:n]
    for i, (mean, variance) in enumerate(data):
        if i and not scheme.holds_score:
            continue
        alone = exact_moments(scheme, GaussianTarget.of(mean, variance, VP, params), taus)
        for got, want in ((together.computed, alone.computed), (together.exact, alone.exact)):
            np.testing.assert_allclose(got.mean[i], want.mean[0], rtol=1e-11, atol=1e-14)
            np.testing.assert_allclose(got.cov[i, i], want.cov[0, 0], rtol=1e-11)
            assert np.abs(np.delete(got.cov[i], i, axis=0)).max() <= 1e-13


@pytest.mark.parametrize(("memory", "held"), nightly_but(lambda case: case[0] == 1, [(1, "score"), (2, "data")]))
def test_a_third_order_langevin_sampler_is_verified(memory: int, held: str) -> None:
    scheme = Scheme("S F", whole(THIRD), "third", "exact", frozen=FROZEN[held], memory=memory, order=memory)
    params = Parameters(beta_min=2.0, beta_max=2.0)
    study = study_order(scheme, params, steps=STEPS, t_end=0.5)
    assert study.verdict is Verdict.PASS
    assert study.proven == memory
    predicted = predicted_errors(scheme, gaussian_targets(THIRD, params), 0.5)["covariance"]
    limit = study.constant("covariance")
    assert limit is not None
    assert limit.value == pytest.approx(predicted * 0.5**memory, rel=0.005)


def test_distances_do_not_depend_on_how_many_components_there_are() -> None:
    """Claim: the distances of one, two and three components are one function: laws side by side have the root of the
    sum of squares, and a rotation of the state changes nothing."""
    rng = np.random.default_rng(0)
    A, B = (rng.uniform(0.5, 2.0, (3, 4)) for _ in range(2))
    mean = rng.normal(size=(3, 4))

    def law(variances: np.ndarray, mean: np.ndarray, turn: np.ndarray) -> GaussianLaw:
        diagonal = np.einsum("ij,iv->ijv", np.eye(len(variances)), variances)
        return GaussianLaw(np.einsum("ij,jv->iv", turn, mean), congruence(turn[..., None], diagonal))

    alone = [
        errors_of(law(A[i : i + 1], mean[i : i + 1], np.eye(1)), law(B[i : i + 1], 0 * mean[:1], np.eye(1)), np.ones(1))
        for i in range(3)
    ]
    for n in (2, 3):
        turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
        both = errors_of(law(A[:n], mean[:n], turn), law(B[:n], 0 * mean[:n], turn), np.ones(n))
        for quantity, value in both.items():
            assert value == pytest.approx(np.sqrt(sum(one[quantity] ** 2 for one in alone[:n])), rel=1e-12)
    near = law(B * (1 + 1e-9), 0 * mean, np.linalg.qr(rng.normal(size=(3, 3)))[0])
    turned = GaussianLaw(near.mean, near.cov / (1 + 1e-9))
    small = errors_of(near, turned, np.ones(3))["w2"]
    assert small == pytest.approx(np.sqrt((B.sum(0)).mean()) * 5e-10, rel=1e-6)  # no digits are lost near zero

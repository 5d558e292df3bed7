"""Error budgets: the terms add up, and what is between a scheme and the exact dynamics is what it is called.

It is held to the scheme language wherever that can say it, and to the exact law where nothing is approximated; the
ends of a run are held to laws that no budget made, and fail for a budget that leaves a replacement out. The terms of
the steps are held to the proof in test_budget_leading.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from budget_cases import leave_out, params_of
from diffusions import THIRD
from error_constants import BALANCED
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from selection import examples, nightly_but
from strategies import PHASE_SPACE, words
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION, conjugate_scheme
from weakorder.integrators.grids import time_grid
from weakorder.theory.flows import exact_flow
from weakorder.theory.frozen import DATA_HELD, EPS_HELD, RESIDUAL_HELD
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import FLOWS, Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, Part, Splitting
from weakorder.verification.advice.budget import Budget, budget_of, first_of, replacements
from weakorder.verification.advice.budget_between import Between, merged
from weakorder.verification.advice.budget_measures import OnGaussian, OnSpectrum
from weakorder.verification.blackbox.subject import BlackBox
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.spectrum import Spectrum, cifar10_spectrum, study_spectrum
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget

Array = NDArray[np.float64]

_reverse = THIRD.reverse()
THIRD_EULER = Scheme("S F", Splitting("third", THIRD, _reverse, (Part("F", _reverse.drift, _reverse.diffusion),)))

WORDS = (
    CATALOGUE["ROBA"],
    CATALOGUE["ROBAB"],
    CATALOGUE["RVV"],
    CATALOGUE["SSCS"],
    CATALOGUE["EM"],
    replace(CATALOGUE["ROBAB"], flow="midpoint"),
    replace(CATALOGUE["ROBAB"], flow="true"),
    replace(CATALOGUE["ROBA"], flow="exact"),
    Scheme("S@1/2 B(1/3) O S@1/4 A B(2/3)@1/4", PSLD, "clocks"),
    Scheme("U(1/2) S E U(1/2)", PSLD_LINEAR, "residual", "exact", frozen=RESIDUAL_HELD),
    Scheme("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, "eps", "exact", frozen=EPS_HELD),
    EXPONENTIAL["SDE-DPM-Solver++2M"],
    EXPONENTIAL["SAB2"],
    Scheme("S F(1/3) S@1/2 F(2/3)", PSLD_WHOLE, "two answers", "exact", frozen=DATA_HELD, memory=3),
    POSITION["vp-SDE-DPM-Solver++2M"],
    POSITION["vp-DEIS-2"],
    POSITION["vp-EM"],
    THIRD_EULER,
)
FEW = ("ROBAB", "RVV", "clocks", "two answers", "vp-DEIS-2", "S F")


def target_of(scheme: Scheme) -> GaussianTarget:
    return GaussianTarget.of([0.5, -1.0, 0.3], [0.25, 1.5, 0.04], scheme.splitting.diffusion, params_of(scheme))


def named(scheme: Scheme) -> str:
    return f"{scheme.name}-{scheme.flow}"


def difference(first: GaussianLaw, second: GaussianLaw) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


# --- Samplers between -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", nightly_but(lambda scheme: scheme.name in FEW, WORDS), ids=named)
def test_with_nothing_replaced_it_is_the_scheme(scheme: Scheme) -> None:
    target = target_of(scheme)
    taus = time_grid("quadratic", 6, target.params, 0.05)
    computed = first_of(scheme).law(target, taus, target.prior())
    assert difference(computed, exact_moments(scheme, target, taus, "prior").computed) < 1e-12


@examples(5)
@given(st.data())
def test_with_nothing_replaced_any_word_is_itself(data: st.DataObject) -> None:
    """Claim: whatever its parts, times, clocks and sub-flows, consistent or not."""
    splitting = PHASE_SPACE[data.draw(st.sampled_from(list(PHASE_SPACE)))]
    word = data.draw(words(splitting, consistent=data.draw(st.booleans()), within_step=True))
    scheme = Scheme(word, splitting, flow=data.draw(st.sampled_from(FLOWS)))
    target = GaussianTarget.of([0.5, -1.0], [0.25, 1.5], splitting.diffusion, BALANCED)
    taus = time_grid("uniform", 2, BALANCED, 0.05)
    expected = exact_moments(scheme, target, taus).computed
    found = first_of(scheme).law(target, taus, target.law(1.0))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10 * np.abs(other).max())


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (Between(CATALOGUE["ROBA"], own=frozenset("AB")), Scheme("O S B S A", PSLD)),
        (Between(CATALOGUE["ROBAB"], own=frozenset("AB")), Scheme("O S B(1/2) S A S@1 B(1/2)", PSLD)),
        (
            Between(CATALOGUE["ROBAB"], followed=frozenset("AB"), exact=frozenset("AB")),
            replace(CATALOGUE["ROBAB"], flow="true"),
        ),
        (
            Between(replace(CATALOGUE["RVV"], flow="exact"), own=frozenset("AB")),
            Scheme("S B(1/2) S A S@1 B(1/2)", PSLD_FLOW, flow="exact"),
        ),
        (
            Between(conjugate_scheme("CSPS-D"), exact=frozenset({"NA", "NB"})),
            Scheme(
                conjugate_scheme("CSPS-D").word,
                Splitting(
                    "conjugate, followed exactly",
                    PSLD_FLOW.diffusion,
                    PSLD_FLOW.whole,
                    tuple(Part.of(part.name, part.sde) for part in conjugate_scheme("CSPS-D").splitting.parts),
                ),
                flow="exact",
                frozen=EPS_HELD,
            ),
        ),
    ],
    ids=["sharing", "sharing-S@1", "freezing-and-sub-flow", "sharing-exact", "sub-flow-without-score"],
)
def test_where_the_language_can_say_it_it_is_that_scheme(between: Between, said: Scheme) -> None:
    target = target_of(said)
    taus = time_grid("uniform", 5, target.params, 0.05)
    expected = exact_moments(said, target, taus, "prior").computed
    assert difference(between.law(target, taus, target.prior()), expected) < 1e-11
    plain = Between(between.scheme).law(target, taus, target.prior())
    assert difference(plain, expected) > 1e-4, "nothing was replaced"


@pytest.mark.parametrize(
    "scheme", [CATALOGUE["EM"], POSITION["vp-DEIS-2"], POSITION["vp-SDE-DPM-Solver++2M"], THIRD_EULER], ids=named
)
def test_one_part_with_nothing_approximated_keeps_the_exact_law(scheme: Scheme) -> None:
    """Claim: to 1e-11 in three steps down to the cut-off, along the last of the replacements and as `merged`."""
    target = target_of(scheme)
    *_, (_, last) = replacements(scheme)
    taus = time_grid("quadratic", 3, target.params)
    start = target.law(target.params.T)
    end = target.law(target.params.eps)
    assert difference(last.law(target, taus, start), end) < 1e-11
    assert difference(merged(scheme.splitting, target, taus, start), end) < 1e-11


def test_from_the_prior_the_exact_reverse_sde_is_the_time_reversal() -> None:
    """Claim: u_eps given u_T has the gain C_eps E^T C_T^-1 (Bayes), E the propagator of the forward SDE."""
    target = target_of(CATALOGUE["EM"])
    params = target.params
    law = merged(PSLD_WHOLE, target, time_grid("uniform", 4, params), target.prior())
    first, last = target.law(params.T), target.law(params.eps)
    E = exact_flow(target.diffusion.forward)(params.theta(params.T, params.T - params.eps), params.values()).propagator
    for v in range(target.mean.size):
        gain = last.cov[..., v] @ E.T @ np.linalg.inv(first.cov[..., v])
        mean = last.mean[:, v] - gain @ first.mean[:, v]
        cov = last.cov[..., v] + gain @ (target.prior().cov[..., v] - first.cov[..., v]) @ gain.T
        np.testing.assert_allclose(law.mean[:, v], mean, atol=1e-12)
        np.testing.assert_allclose(law.cov[..., v], cov, atol=1e-12)


# --- The sum ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme",
    nightly_but(
        lambda scheme: scheme.name in FEW, [*WORDS, Scheme("O S B A(1/2)", PSLD, "lost"), conjugate_scheme("CSPS-S")]
    ),
    ids=named,
)
def test_the_terms_add_up_to_the_whole(scheme: Scheme) -> None:
    scheme = replace(scheme, lambda_s=1.3) if any(part.sde.noisy[0] for part in scheme.parts) else scheme
    found = budget_of(scheme, OnGaussian(0.5, 0.25, scheme.splitting.diffusion, params_of(scheme)), 7)
    total = np.sum([term.values for term in found.terms], axis=0)
    size = np.max([np.abs(term.values) for term in found.terms], axis=0)
    assert (np.abs(total - found.whole) <= 1e-14 * size).all()
    assert str(found.terms[-1].source) == "cut-off"
    assert (np.abs(found.whole) > 1e-6).all()


def test_on_the_spectrum_the_whole_is_the_studys_distance() -> None:
    scheme = CATALOGUE["ROBAB"]
    found = budget_of(scheme, OnSpectrum(cifar10_spectrum(), scheme.splitting.diffusion, Parameters()), 9)
    (curve,) = study_spectrum([scheme], Parameters(), [20], ["uniform"]).curves
    assert found.whole[0] == pytest.approx(curve.distance[0], rel=1e-12)
    assert found.nfe == curve.nfe[0] == 19
    assert sum(term.values[0] for term in found.terms) == pytest.approx(found.whole[0], rel=1e-12)
    assert found["denoising"].values[0] + found["cut-off"].values[0] == pytest.approx(curve.floor, rel=1e-9)
    assert found.whole[1] + found.whole[2] == pytest.approx(found.whole[0], rel=1e-12)


def test_chebyshev_points_say_what_all_eigenvalues_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: every term, to 1e-9 of the whole; and where no points are tried all eigenvalues are taken."""
    full = cifar10_spectrum()
    some = Spectrum(full.variances[::60], full.mean[::60], full.images)
    measure = OnSpectrum(some, PSLD.diffusion, Parameters())
    fast = budget_of(CATALOGUE["ROBAB"], measure, 6, "quadratic")
    monkeypatch.setattr("weakorder.verification.advice.budget_measures._POINTS", ())
    slow = budget_of(CATALOGUE["ROBAB"], measure, 6, "quadratic")
    for one, other in zip(fast.terms, slow.terms, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-9 * abs(slow.whole[0]), rtol=1e-7)


# --- The ends ---------------------------------------------------------------------------------------------------------


def ends(found: Budget, scheme: Scheme, steps: int, t_end: float) -> None:
    """Claim: what prior, denoising and cut-off are, from laws that no budget made."""
    params = params_of(scheme)
    measure = OnGaussian(0.5, 0.25, scheme.splitting.diffusion, params)
    target, data = measure.target, measure.of
    taus = time_grid("uniform", steps, params, t_end)
    law = target.law(t_end)
    np.testing.assert_allclose(found["cut-off"].values, data(law), atol=1e-13)
    length = t_end * params.beta(t_end)
    A, G, _ = scheme.splitting.whole.numbers(params.values())
    P, K = np.eye(len(A)) + length * A, length * G

    def denoised(law: GaussianLaw) -> Array:
        precision = np.linalg.inv(target.law(t_end).cov[..., 0])
        matrix = P - K @ precision
        mean = matrix @ law.mean[:, 0] + K @ precision @ target.law(t_end).mean[:, 0]
        return data(GaussianLaw(mean[:, None], (matrix @ law.cov[..., 0] @ matrix.T)[..., None]))

    np.testing.assert_allclose(found["denoising"].values, denoised(law) - data(law), atol=1e-13)
    prior = merged(scheme.splitting, target, taus, target.prior())
    np.testing.assert_allclose(found["prior"].values, denoised(prior) - denoised(law), atol=1e-12)
    assert np.abs([found[name].values for name in ("prior", "denoising", "cut-off")]).max(1).min() > 1e-6


ENDS = CATALOGUE["ROBA"], 6, 0.02


def of_ends() -> Budget:
    scheme, steps, t_end = ENDS
    return budget_of(scheme, OnGaussian(0.5, 0.25, PSLD.diffusion, params_of(scheme)), steps, t_end=t_end)


def test_the_ends_are_what_they_are_called() -> None:
    ends(of_ends(), *ENDS)


@pytest.mark.parametrize("name", ["prior", "denoising", "cut-off"])
def test_an_end_that_is_not_replaced_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out(name, monkeypatch)
    with pytest.raises(AssertionError):
        ends(of_ends(), *ENDS)


def test_without_prior_and_denoising_step_there_are_no_such_terms() -> None:
    found = budget_of(CATALOGUE["ROBA"], OnGaussian(0, 1, PSLD.diffusion, BALANCED), 5, start="exact", denoise=False)
    assert [term.source.kind for term in found.terms[-2:]] == ["splitting", "cut-off"]
    assert found.nfe == 5


# --- Black boxes ------------------------------------------------------------------------------------------------------


def test_a_black_box_has_the_scheme_s_ends_and_its_steps_as_one_term() -> None:
    scheme = CATALOGUE["ROBA"]
    measure = OnGaussian(0.5, 0.25, PSLD.diffusion, Parameters())
    word, box = (
        budget_of(subject, measure, 8) for subject in (scheme, BlackBox("mine", as_black_box(scheme, Parameters())))
    )
    assert [str(term.source) for term in box.terms] == ["steps", "prior", "denoising", "cut-off"]
    np.testing.assert_allclose(box.whole, word.whole, atol=1e-9)
    steps = np.sum([term.values for term in word.terms[:-3]], axis=0)
    np.testing.assert_allclose(box["steps"].values, steps, atol=1e-9)
    for name in ("prior", "denoising", "cut-off"):
        np.testing.assert_allclose(box[name].values, word[name].values, atol=1e-12)


def test_a_run_that_overflows_says_so() -> None:
    found = budget_of(CATALOGUE["EM"], OnGaussian(0, 1e-6, PSLD.diffusion, Parameters(beta_min=2e3, beta_max=2e3)), 500)
    assert found.diverged
    assert np.isnan(found.whole).all()
    assert not budget_of(CATALOGUE["EM"], OnGaussian(0, 1e-6, PSLD.diffusion, Parameters()), 20).diverged

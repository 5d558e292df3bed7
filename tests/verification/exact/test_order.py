"""The order study: what it measures, and that its verdicts can fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection import nightly_but
from specimens import WHOLE_LANGEVIN
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_LINEAR, PSLD_WHOLE
from weakorder.verification.exact import moments
from weakorder.verification.exact.errors import wasserstein
from weakorder.verification.exact.moments import Moments
from weakorder.verification.exact.order import OrderStudy, measure, study_order
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget
from weakorder.verification.verdicts.evidence import Finding, Kind, State, Weight
from weakorder.verification.verdicts.fits import Fit
from weakorder.verification.verdicts.verdict import Verdict

CONSTANT, LINEAR = Parameters(), Parameters(beta_min=0.1, beta_max=15.9)
UNIT = np.ones(2)


def synthetic(
    errors: list[float], expected: int = 1, problems: tuple[str, ...] = (), rounding: float = 0.0, stiff: float = 0.0
) -> OrderStudy:
    """A study of a sampler whose mean is off by `errors` at 100, 200, 400, ... steps, and nothing else; rounding: to
    float32, at every level."""
    steps = [100 * 2**k for k in range(len(errors))]

    def run(count: int) -> Moments:
        error = errors[steps.index(count)]
        cov = np.eye(2)[..., None]
        law = GaussianLaw(np.array([[error], [0.0]]), cov)
        return Moments(law, GaussianLaw(np.zeros((2, 1)), cov), count, rounding)

    return measure("synthetic", run, expected, steps, 1.0, UNIT, problems, stiff=lambda _: stiff)


@pytest.mark.parametrize("params", [CONSTANT, LINEAR], ids=["constant", "linear"])
@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_every_scheme_of_the_catalogue_has_its_claimed_order(scheme: Scheme, params: Parameters) -> None:
    study = study_order(scheme, params)
    assert study.verdict is Verdict.PASS, study.reason
    assert scheme.order is not None
    assert round(study.measured.order) == scheme.order, "the claim is lower than what was measured"


@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_no_scheme_of_the_catalogue_passes_for_one_order_more(scheme: Scheme) -> None:
    assert study_order(scheme, CONSTANT, expected=scheme.order + 1).verdict is Verdict.FAIL


# The four known answers: constant beta, beta 0.1 to 15.9. A palindrome alone does not give order 2: the accuracy of
# the kick, the time of the score and the clock each destroy it.
KNOWN_ANSWERS = [
    ("U(1/2) S E U(1/2)@0", "euler", 1, 1),
    ("U(1/2) S E U(1/2)", "true", 1, 1),
    ("U(1/2) S@1/2 E U(1/2)@0", "true", 2, 1),
    ("U(1/2) S@1/2 E U(1/2)", "true", 2, 2),
]


@pytest.mark.parametrize("which", [0, 1], ids=["constant", "linear"])
@pytest.mark.parametrize(("word", "flow", "constant", "linear"), KNOWN_ANSWERS)
def test_the_known_answers_pass_at_their_order_and_fail_at_the_next(word, flow, constant, linear, which) -> None:
    scheme = Scheme(word, PSLD_LINEAR, flow=flow)
    params, order = ((CONSTANT, constant), (LINEAR, linear))[which]
    one = GaussianTarget.of(0.5, 0.25, PSLD_LINEAR.diffusion, params)
    study = study_order(scheme, params, order, target=one)
    fit = study.fits["covariance"]
    assert study.verdict is Verdict.PASS, study.reason
    assert fit.low <= order <= fit.high
    assert fit.high - fit.low < 0.05
    assert study_order(scheme, params, order + 1, steps=FEW, target=one).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("word", "order"),
    [
        ("S B(1/2) A(1/2) O A(1/2) S@1 B(1/2)", 2),  # BAOAB
        ("A(1/2) S B(1/2) O B(1/2) A(1/2)", 2),  # ABOBA
        ("O(1/2) S B(1/2) A S B(1/2) O(1/2)", 2),  # OBABO
        ("O(1/2) A(1/2) S B A(1/2) O(1/2)", 2),  # OABAO
        ("O S B A", 1),
        ("S B A O", 1),
    ],
)
def test_underdamped_langevin_has_its_published_orders(word: str, order: int) -> None:
    scheme = Scheme(word, LANGEVIN)
    assert study_order(scheme, CONSTANT, order).verdict is Verdict.PASS
    assert study_order(scheme, CONSTANT, order + 1).verdict is Verdict.FAIL


BROKEN = {
    "a lost half-step": Scheme("O S B A(1/2)", PSLD),
    "a part done twice": Scheme("O S B A B", PSLD),
    "a part forgotten": Scheme("S B A", PSLD),
    "noise one percent too strong": Scheme("O S B A", PSLD, lambda_s=1.01),
}


@pytest.mark.parametrize("scheme", BROKEN.values(), ids=BROKEN)
def test_an_inconsistent_word_fails_and_the_reason_names_the_fault(scheme: Scheme) -> None:
    study = study_order(scheme, CONSTANT)
    assert study.verdict is Verdict.FAIL
    assert scheme.inconsistencies[0] in study.reason


def test_the_errors_alone_betray_an_inconsistent_word() -> None:
    """The lost half-step fails on its slopes as well, not only because its weights were counted."""
    study = study_order(BROKEN["a lost half-step"], CONSTANT)
    assert study.measured.high < 0.1


def test_a_slope_is_never_taken_in_absolute_value() -> None:
    """An error that grows like h^-2 has order -2, and fails."""
    study = synthetic([1e-3 * 4**k for k in range(5)])
    assert study.measured.order == pytest.approx(-2)
    assert study.verdict is Verdict.FAIL


@given(st.integers(1, 3), st.floats(0.1, 10), st.floats(-0.3, 1))
def test_the_interval_of_an_asymptotic_error_holds_its_order(order, constant, correction) -> None:
    h = 0.01 * 0.5 ** np.arange(5)
    study = synthetic([float(constant * e) for e in h**order * (1 + 30 * correction * h)], order)
    fit = study.fit("mean")
    assert isinstance(fit, Fit)
    assert fit.low - 1e-6 <= order <= fit.high + 1e-6
    assert study.verdict is Verdict.PASS


def test_a_range_that_is_not_asymptotic_is_inconclusive_and_asks_for_more_steps() -> None:
    study = synthetic([0.1, 0.099, 0.09, 0.06, 0.03])
    assert study.verdict is Verdict.INCONCLUSIVE
    assert "run up to about" in study.reason


def test_levels_at_round_off_are_not_fitted() -> None:
    study = synthetic([1e-2, 2.5e-3, 6e-13, 3e-13, 8e-13], 2)
    assert study.fitted["mean"].tolist() == [True, True, False, False, False]
    assert study.fit("mean") is None
    assert study.verdict is Verdict.PASS
    assert study.reason == "exact to round-off"


def test_three_levels_above_round_off_do_not_make_a_fit() -> None:
    study = synthetic([1e-2, 2.5e-3, 6e-4, float("nan"), 6e-5])
    assert study.verdict is Verdict.INCONCLUSIVE
    assert "fewer than four levels" in study.reason


def test_a_run_that_diverges_at_the_finest_level_fails() -> None:
    study = synthetic([1e-2, 5e-3, 2.5e-3, 1.25e-3, float("inf")])
    assert study.verdict is Verdict.FAIL
    assert study.reason == "diverges at 1600 steps"


def test_declared_problems_fail_a_study_whatever_its_errors() -> None:
    assert synthetic([1e-2 / 2**k for k in range(5)]).verdict is Verdict.PASS
    assert synthetic([1e-2 / 2**k for k in range(5)], problems=("wrong",)).verdict is Verdict.FAIL


@pytest.mark.parametrize("steps", [[100, 200, 400], [100, 100, 200, 400], [400, 200, 100, 50], [0, 1, 2, 4]])
def test_fewer_than_four_increasing_levels_are_refused(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="4 or more increasing numbers of steps"):
        study_order(CATALOGUE["EM"], CONSTANT, steps=steps)


def _laws(data: st.DataObject) -> tuple[np.ndarray, np.ndarray]:
    entry = st.floats(-2, 2, allow_subnormal=False)
    root = np.array(data.draw(st.lists(entry, min_size=4, max_size=4))).reshape(2, 2)
    mean = np.array(data.draw(st.lists(entry, min_size=2, max_size=2)))
    return mean, root @ root.T + 0.05 * np.eye(2)


@given(st.data())
def test_wasserstein_is_the_trace_formula_in_high_precision(data: st.DataObject) -> None:
    """W2^2 = |difference|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), in 50 digits, where its cancellation does no harm."""
    import mpmath

    (mean_1, cov_1), (mean_2, cov_2) = _laws(data), _laws(data)
    with mpmath.workdps(50):
        first, second = mpmath.matrix(cov_1.tolist()), mpmath.matrix(cov_2.tolist())
        product = first * second
        cross = mpmath.sqrt(product[0, 0] + product[1, 1] + 2 * mpmath.sqrt(mpmath.det(product)))
        traces = first[0, 0] + first[1, 1] + second[0, 0] + second[1, 1]
        square = sum((mpmath.mpf(a) - mpmath.mpf(b)) ** 2 for a, b in zip(mean_1, mean_2, strict=True))
        expected = float(mpmath.sqrt(abs(square + traces - 2 * cross)))
    laws = (GaussianLaw(mean[:, None], cov[..., None]) for mean, cov in ((mean_1, cov_1), (mean_2, cov_2)))
    assert float(wasserstein(*laws)[0]) == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_a_small_wasserstein_distance_keeps_its_digits() -> None:
    """Standard deviations 1 and 1 + 1e-10 lie 1e-10 apart; the trace formula in float64 would give 0 or 1e-8."""
    near, unit = np.diag([(1 + 1e-10) ** 2, 1.0])[..., None], np.eye(2)[..., None]
    zero = np.zeros((2, 1))
    distance = float(wasserstein(GaussianLaw(zero, near), GaussianLaw(zero, unit))[0])
    assert distance == pytest.approx(1e-10, rel=1e-5)


def test_the_study_for_json_holds_its_levels_slopes_and_verdict() -> None:
    answer = study_order(CATALOGUE["ROBA"], CONSTANT).as_dict()
    assert answer["verdict"] == "PASS"
    assert answer["order"]["expected"] == 1
    assert answer["order"]["ci"][0] < answer["order"]["measured"] < answer["order"]["ci"][1]
    errors = [level["error"] for level in answer["levels"]]
    slopes = [level["slope"] for level in answer["levels"]]
    np.testing.assert_allclose(slopes[1:], np.log2(np.array(errors[:-1]) / errors[1:]))


# --- What contradicts, and what does not -----------------------------------------------------------------------------

FEW = (50, 100, 200, 400, 800)
ROUNDED = Finding("rounds times to 1/1000", Weight.NOTES, Kind.ROUNDING)


@pytest.mark.parametrize("broken", ["noise_cov", "offset", "matrix"])
def test_exact_evidence_overrules_a_proof(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Claim: an implementation a tenth off what its proof is about fails, and the sentence says which of the two is
    wrong; the right one beside it passes."""
    assert study_order(CATALOGUE["ROBA"], CONSTANT, steps=FEW).state is State.SUPPORTED
    right, factor = moments.closed_map, {"noise_cov": 1.1, "offset": 1.1, "matrix": 0.999}[broken]

    def closed_map(*given: object) -> moments.AffineMap:
        found = right(*given)
        return found._replace(**{broken: factor * getattr(found, broken)})

    monkeypatch.setattr(moments, "closed_map", closed_map)
    study = study_order(CATALOGUE["ROBA"], CONSTANT, steps=FEW)
    assert study.state is State.CONTRADICTED, study.reason
    assert "contradicts the proof of order 1" in study.reason
    assert "run" not in study.reason


def test_a_run_that_is_too_stiff_refutes_nothing_and_is_told_how_many_steps_it_takes() -> None:
    stiff = Parameters(beta_min=20000, beta_max=20000)
    study = study_order(CATALOGUE["EM"], stiff, steps=FEW)
    assert study.diverged
    assert study.verdict is Verdict.INCONCLUSIVE
    assert "too stiff" in study.reason
    assert synthetic([1e-2, 5e-3, 2.5e-3, 1.25e-3, float("inf")]).verdict is Verdict.FAIL


@pytest.mark.parametrize("finest", nightly_but((12800).__eq__, (12800, 25600)))
def test_an_exact_scheme_is_exact_however_many_steps_round_alike(finest: int) -> None:
    """Claim: the floor grows with the steps as rounding does; one that does not would leave nothing to judge."""
    word = "S " + " ".join(["W(1/12)"] * 12)
    scheme = Scheme(word, WHOLE_LANGEVIN, flow="true")
    study = study_order(scheme, CONSTANT, steps=(50, 400, 3200, finest))
    assert study.verdict is Verdict.PASS
    assert study.reason.startswith("exact to round-off")
    assert replace(study, floors={q: 0 * floor for q, floor in study.floors.items()}).verdict is not Verdict.PASS


def test_a_pass_says_what_was_covered() -> None:
    study = study_order(CATALOGUE["EM"], CONSTANT, steps=FEW, t_end=0.2)
    assert study.reason.endswith("t from 1 to 0.2; any score by proof, measured on affine ones")


STALLS = {
    "stagnates": [0.4, 0.18, 0.083, 0.0945, 0.0837],
    "grows": [0.4, 0.18, 0.09, 0.15, 0.3],
    "goes up and down": [0.2, 0.09, 0.18, 0.09, 0.19],
}


@pytest.mark.parametrize("how", STALLS)
def test_errors_that_do_not_fall_do_not_converge_and_no_steps_are_advised(how: str) -> None:
    study = synthetic(STALLS[how])
    assert study.verdict is Verdict.FAIL
    assert f"does not converge: the error of the mean {how}" in study.reason
    assert "run" not in study.reason
    assert synthetic(STALLS[how], stiff=3.0).verdict is Verdict.INCONCLUSIVE, "a stiff run may not have begun to fall"
    assert synthetic([0.4, 0.2, 0.1, 0.05, 0.025]).verdict is Verdict.PASS


def test_the_levels_up_to_which_a_sampler_is_as_claimed_are_said() -> None:
    assert "as claimed from 100 to 400 steps only" in synthetic([0.4, 0.18, 0.083, 0.0945, 0.0837]).reason
    assert "over no three levels it falls as claimed" in synthetic([0.4, 0.5, 0.4, 0.5, 0.4]).reason
    same = "the error of the mean is the same from 400 to 3200 steps; it is as claimed from 100 to 400 steps only"
    assert synthetic([0.4, 0.2, 0.1, 0.1, 0.1, 0.1]).reason.startswith(f"does not converge: {same}")
    assert "is the same" not in synthetic([0.4, 0.2, 0.1, 0.1, 0.10001, 0.1]).reason


@pytest.mark.parametrize("coarsest", np.geomspace(1.5, 12, 13))
def test_an_error_that_changes_its_sign_with_h_is_not_taken_for_one_that_stagnates(coarsest: float) -> None:
    """Claim: h - h^2, which dips where it crosses 0 and rises again, never fails."""
    h = coarsest * 0.5 ** np.arange(6)
    assert synthetic((1e-2 * np.abs(h - h**2)).tolist()).verdict is not Verdict.FAIL


def test_known_rounding_leaves_the_levels_above_it_to_decide_and_the_last_line_says_where_it_begins() -> None:
    """Claim: what is known to scatter hides what is below it and nothing above; unknown, it fails."""
    errors = [0.4, 0.2, 0.1, 0.05, 0.0076, 0.0079, 0.0075]
    assert synthetic(errors).verdict is Verdict.FAIL

    def scattered(errors: list[float], by: float) -> OrderStudy:
        study = synthetic(errors)
        scatter = {quantity: np.full(len(errors), by) for quantity in study.errors}
        return replace(study, findings=(ROUNDED,), scatter=scatter, signed_rounding=study.signed_rounding + by)

    study = scattered(errors, 2e-3)
    assert study.verdict is Verdict.PASS, study.reason
    assert "up to 800 steps, beyond which its rounding shows: it rounds times to 1/1000" in study.reason
    shortest = replace(ROUNDED, shortest=1 / 800)
    assert replace(synthetic(errors), findings=(shortest,)).kept.tolist() == [True] * 4 + [False] * 3
    assert scattered(errors, 1e-4).verdict is Verdict.FAIL, "a smaller scatter explains no error that ceases to fall"
    assert scattered([0.083, 0.0945, 0.0837, 0.09, 0.085], 2e-3).verdict is Verdict.FAIL


def test_a_fault_at_few_steps_is_said_though_the_fit_leaves_them_out() -> None:
    study = synthetic([0.61, 0.67, 0.70, 0.04, 0.02, 0.01, 0.005])
    assert study.verdict is Verdict.PASS
    assert "at 400 steps and fewer the error of the mean does not follow its order" in study.reason
    assert "does not follow" not in synthetic([0.61, 0.28, 0.16, 0.08, 0.04, 0.02, 0.01]).reason


def test_a_hint_forbids_a_pass_and_is_the_reason() -> None:
    right = synthetic([1e-2 / 2**k for k in range(5)])
    hinted = replace(right, hints=("not consistent: the noise is 1.005 times what is right",))
    assert right.verdict is Verdict.PASS
    assert hinted.verdict is Verdict.INCONCLUSIVE
    assert "1.005 times" in hinted.reason


def test_below_rounding_to_float32_nothing_is_known() -> None:
    """Claim: a sampler in float32 whose errors are below its rounding is not exact, and not wrong: fewer steps tell.
    One whose errors stop falling above its rounding fails."""
    hidden = synthetic([7e-4, 5.6e-4, 4e-4, 4.2e-4], rounding=1e-3)
    assert hidden.verdict is Verdict.INCONCLUSIVE
    assert "use fewer steps" in hidden.reason
    assert "exact" not in hidden.reason
    right = synthetic([0.4, 0.2, 0.1, 0.05, 0.025, 7e-4, 5e-4], rounding=1e-3)
    assert right.verdict is Verdict.PASS, right.reason
    assert any("rounds to float32" in warning for warning in right.warnings)
    assert synthetic([7e-3, 4.2e-3, 4e-3, 4.1e-3, 4e-3], rounding=1e-4).verdict is Verdict.FAIL


def test_the_quantity_that_fails_is_the_one_that_is_named() -> None:
    """Claim: an unsettled order beside it, lower still, is not what the sentence gives."""
    levels = np.array([100.0 * 2**k for k in range(5)])
    study = synthetic([1e-2 / 2**k for k in range(5)], expected=2)
    moving = np.array([1e-2, 1.4e-2, 1e-2, 1.5e-2, 1e-2])
    study = replace(study, errors=study.errors | {"covariance": moving}, steps=levels)
    assert "the order of the mean is 1.00 in [1.00, 1.00]" in study.reason
    assert "inf" not in study.reason


def narrow(width: float) -> OrderStudy:
    """A study of a sampler whose law is N(0, width^2) and whose variance is off by h."""
    exact = GaussianLaw(np.zeros((2, 1)), width**2 * np.eye(2)[..., None])

    def run(count: int) -> Moments:
        return Moments(GaussianLaw(exact.mean, exact.cov + np.eye(2)[..., None] / count), exact, count)

    return measure("narrow", run, 1, (100, 200, 400, 800, 1600), 1.0, UNIT)


def test_near_a_point_mass_mean_and_covariance_are_judged_and_w2_is_not() -> None:
    """Claim: where W2 is the square root of a smooth error its order of 1/2 speaks against nobody, and that is said;
    of a wide law it is judged as before."""
    study = narrow(1e-4)
    assert study.slopes("w2") == pytest.approx([0.5] * 4, abs=0.01)
    assert study.slopes("covariance") == pytest.approx([1.0] * 4)
    assert study.verdict is Verdict.PASS, study.reason
    assert any("W2 is not judged" in warning for warning in study.warnings)
    wide = narrow(1.0)
    assert "w2" in wide.fits
    assert wide.verdict is Verdict.PASS
    assert wide.warnings == ()


@pytest.mark.parametrize("variance", [4.0, 1e4, 1e7, 1e9])
def test_wasserstein_keeps_its_digits_where_laws_are_ill_conditioned(variance: float) -> None:
    """Claim: eight digits of what 60 give, of laws whose variances differ a billionfold; the trace formula in float64,
    and that through the roots of matrices, have none."""
    import mpmath

    scheme = Scheme("S@1/2 F", PSLD_WHOLE, flow="true")
    target = GaussianTarget.of([0.0], [variance], PSLD_WHOLE.diffusion, CONSTANT)
    got = moments.exact_moments(scheme, target, time_grid("uniform", 1600, CONSTANT, 0.1))
    with mpmath.workdps(60):
        A, B = (mpmath.matrix(law.cov[..., 0].tolist()) for law in (got.computed, got.exact))
        for matrix in (A, B):  # in units of the prior: the momentum's variance is 1/4
            matrix[0, 1] = matrix[1, 0] = 2 * matrix[0, 1]
            matrix[1, 1] = 4 * matrix[1, 1]
        root = mpmath.sqrt(mpmath.det(A) * mpmath.det(B))
        traces = A[0, 0] + A[1, 1] + B[0, 0] + B[1, 1]
        product = A * B
        expected = mpmath.sqrt(traces - 2 * mpmath.sqrt(product[0, 0] + product[1, 1] + 2 * root))
    centred = (GaussianLaw(np.zeros((2, 1)), law.cov) for law in (got.computed, got.exact))
    assert float(wasserstein(*centred, np.array([1.0, 0.5]))[0]) == pytest.approx(float(expected), rel=1e-8)

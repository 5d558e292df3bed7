"""The order study: what it measures, and that its verdicts can fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_LINEAR
from weakorder.verification.exact.errors import wasserstein
from weakorder.verification.exact.moments import Moments
from weakorder.verification.exact.order import measure, study_order
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget
from weakorder.verification.verdicts.fits import Fit
from weakorder.verification.verdicts.verdict import Verdict

CONSTANT, LINEAR = Parameters(), Parameters(beta_min=0.1, beta_max=15.9)
UNIT = np.ones(2)


def synthetic(errors: list[float], expected: int = 1, problems: tuple[str, ...] = ()) -> object:
    """A study of a sampler whose mean is off by `errors` at 100, 200, 400, ... steps, and nothing else."""
    steps = [100 * 2**k for k in range(len(errors))]

    def run(count: int) -> Moments:
        error = errors[steps.index(count)]
        cov = np.eye(2)[..., None]
        return Moments(GaussianLaw(np.array([[error], [0.0]]), cov), GaussianLaw(np.zeros((2, 1)), cov), count)

    return measure("synthetic", run, expected, steps, 1.0, UNIT, problems)


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
    assert study_order(scheme, params, order + 1, target=one).verdict is Verdict.FAIL


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

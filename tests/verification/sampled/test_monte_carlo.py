"""The coupled Monte Carlo against exact answers: moments, variances, costs, coverage, limits.

Every comparison of a sample with an exact answer is at `threshold()`, z = 6.6 standard errors, at which the whole suite
gives a false alarm once in a million; coverages are compared by the binomial law at a rate of 1e-9.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from weakorder.integrators.catalogue import CATALOGUE, LANGEVIN_CONTROLS
from weakorder.integrators.coupling import couple
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.noise_free import noise_free_errors
from weakorder.verification.exact.observables import Observable
from weakorder.verification.sampled import calibration
from weakorder.verification.sampled.calibration import (
    SecondMoment,
    calibrate,
    exact_coupled_moments,
    exact_second_moment,
)
from weakorder.verification.sampled.functionals import Functionals, powers_of
from weakorder.verification.sampled.monte_carlo import MonteCarloStudy, study_target
from weakorder.verification.sampled.multilevel import telescope
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.targets.named import make_target
from weakorder.verification.verdicts.estimates import ALARM_RATE, COMPARISONS, Norm, threshold
from weakorder.verification.verdicts.fits import window_fit
from weakorder.verification.verdicts.verdict import Verdict

PARAMS = Parameters()
ROBA, SSCS, EM = (CATALOGUE[name] for name in ("ROBA", "SSCS", "EM"))
LAW = GaussianTarget.of(0.0, 0.25, PSLD_DIFFUSION, PARAMS)
TARGET = MixtureTarget.of([1], [[0.0]], [[[0.25]]], PARAMS, name="gaussian")
SMALL = {"steps": (10, 20, 40, 80), "evaluations": 1.0}


@pytest.fixture(scope="module")
def study() -> MonteCarloStudy:
    return study_target(ROBA, TARGET, **SMALL)


# --- On Gaussian data, exactly ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_each_run_of_a_coupling_has_its_exact_moments(name) -> None:
    grids = [time_grid("quadratic", n, PARAMS, 0.1) for n in (10, 20)]
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], PSLD_DIFFUSION, PARAMS)
    runs = [(CATALOGUE[name], grid) for grid in grids]
    joint = exact_coupled_moments(couple(runs, PARAMS), target)
    for k, (scheme, grid) in enumerate(runs):
        own, alone = slice(2 * k, 2 * k + 2), exact_moments(scheme, target, grid).computed
        np.testing.assert_allclose(joint.mean[own], alone.mean, rtol=0, atol=1e-11 * np.abs(alone.mean).max())
        np.testing.assert_allclose(joint.cov[own, own], alone.cov, rtol=0, atol=1e-11 * np.abs(alone.cov).max())


def test_the_known_costs_of_oba_are_reproduced() -> None:
    """To 0.1% of the weak error of x^2 at t = eps, x_0 ~ N(0, 0.25), plain sampling needs 6e5 paths at N = 25 and 5e8
    at 400; the coupled variance is 34 times smaller at 100 and 640 times at 400; the multilevel sum of five differences
    is 26 times cheaper at 400, and dearer at 50."""
    levels = [25 * 2**k for k in range(9)]
    found = {n: exact_second_moment(ROBA, LAW, *(time_grid("uniform", k, PARAMS) for k in (n, 2 * n))) for n in levels}

    def bias(n: int) -> float:
        law = exact_moments(ROBA, LAW, time_grid("uniform", n, PARAMS))
        return float(law.computed.cov[0, 0, 0] - law.exact.cov[0, 0, 0])

    def gain(n: int) -> float:
        chain = [k for k in levels if n <= k < 32 * n]
        return found[n].plain_variance * n / sum(math.sqrt(found[k].coupled_variance * 3 * k) for k in chain) ** 2

    for n, paths in ((25, 6e5), (400, 5e8)):
        assert found[n].plain_variance / (1e-3 * bias(n)) ** 2 == pytest.approx(paths, rel=0.1)
    for n, times in ((100, 34), (400, 641)):
        assert found[n].plain_variance / found[n].coupled_variance == pytest.approx(times, rel=0.01)
    assert gain(400) == pytest.approx(27, rel=0.05)
    assert gain(50) < 1 < gain(100)


@pytest.mark.parametrize(("first", "second"), [(ROBA, ROBA), (SSCS, SSCS), (EM, EM), (ROBA, SSCS), (EM, SSCS)])
def test_coupled_paths_come_together_like_h_and_independent_ones_do_not(first, second) -> None:
    distances = []
    for steps in (100, 200):
        runs = [
            (first, time_grid("uniform", steps, PARAMS, 0.1)),
            (second, time_grid("uniform", 2 * steps, PARAMS, 0.1)),
        ]
        cov = exact_coupled_moments(couple(runs, PARAMS), LAW).cov[..., 0]
        distances.append(math.sqrt(cov[0, 0] + cov[2, 2] - 2 * cov[0, 2]))
    assert 1.7 < distances[0] / distances[1] < 2.3  # C h (1 + O(h)) over two levels at 100 steps
    independent = math.sqrt(cov[0, 0] + cov[2, 2])
    assert distances[1] < independent / 10


@pytest.mark.nightly
def test_the_reference_may_be_of_another_splitting_and_bridges_to_the_exact_law() -> None:
    reference = study_target(ROBA, TARGET, steps=(5, 10, 20, 40), evaluations=1.0, reference=SSCS, refinement=4)
    value, error, systematic = reference.multilevel(3)
    ours, theirs = exact_errors(ROBA, 40), exact_errors(SSCS, 160)
    for name, own, other in zip(("x^2", "m^2"), ours, theirs, strict=True):
        k = reference.names.index(name)
        assert abs(value[k] - (own - other)) < threshold() * error[k]
        assert abs(value[k] - own) < threshold() * error[k] + systematic[k]
        assert systematic[k] == pytest.approx(abs(value[k]) / 3)  # four times the steps at order 1: 1/4 over 3/4


def test_a_reference_of_the_same_scheme_is_corrected_by_its_own_order() -> None:
    study = study_target(ROBA, TARGET, steps=(5, 10, 20, 40), evaluations=1.0, reference=ROBA, refinement=4)
    value, error, systematic = study.multilevel(3)
    difference = exact_errors(ROBA, 40) - exact_errors(ROBA, 160)
    for name, answer in zip(("x^2", "m^2"), difference, strict=True):
        k = study.names.index(name)
        assert abs(value[k] - 4 / 3 * answer) < threshold() * error[k]
    assert not systematic.any()


@pytest.mark.nightly
def test_only_the_finest_run_decides_whether_a_study_diverges() -> None:
    """At beta = 300 the run of 100 steps overflows, and that of 200 does not."""
    stiff = make_target("mixture", Parameters(beta_min=300, beta_max=300), 1)
    study = study_target(CATALOGUE["EM"], stiff, steps=(25, 50, 100, 200), t_end=0.02, evaluations=1.0)
    assert not np.isfinite(study.coupled[-1].mean).all()
    assert not study.diverged
    assert study.verdict is Verdict.INCONCLUSIVE


def exact_errors(scheme: Scheme, steps: int) -> np.ndarray:
    """The weak errors of x^2 and m^2, in the prior's variances, on the centred Gaussian target."""
    law = exact_moments(scheme, LAW, time_grid("uniform", steps, PARAMS, 0.1))
    error = (law.computed.cov - law.exact.cov)[..., 0]
    return np.array([error[0, 0], error[1, 1] / PARAMS.M])


# --- Sampled against exact --------------------------------------------------------------------------------------------


def coverage_bounds(repetitions: int, rate: float = 1e-9) -> tuple[int, int]:
    low, high = stats.binom.ppf([rate / 2, 1 - rate / 2], repetitions, 0.95)
    # Student's interval of a mean of n squares is off by a term of order 1/n in its coverage: half a percent for 128.
    return int(low - 0.005 * repetitions), int(high + 0.005 * repetitions)


def test_the_95_percent_interval_holds_the_exact_difference_in_95_percent_of_repetitions() -> None:
    found = calibrate(ROBA, TARGET, LAW, steps=10, repetitions=600, paths=128)
    low, high = coverage_bounds(600)
    assert low <= found.contained <= high


def test_the_calibration_tells_an_estimate_that_is_off(monkeypatch) -> None:
    exact = exact_second_moment

    def biased(*args) -> SecondMoment:
        moment = exact(*args)
        return moment._replace(difference=moment.difference + 2 * math.sqrt(moment.coupled_variance / 128))

    monkeypatch.setattr(calibration, "exact_second_moment", biased)
    assert calibrate(ROBA, TARGET, LAW, steps=10, repetitions=600, paths=128).contained < coverage_bounds(600)[0]


@pytest.mark.nightly
def test_the_calibration_study_of_2000_repetitions_is_within_1_5_percent() -> None:
    found = calibrate(ROBA, TARGET, LAW)
    assert abs(found.coverage - 0.95) < 0.024  # 4.9 standard errors; the report shows 1.5%


def test_the_weak_errors_of_a_gaussian_are_the_exact_ones(study) -> None:
    z = threshold()
    for level, steps in enumerate(study.steps.astype(int)):
        _, value, error, systematic = study.weak_error(level)
        plain = study.level(level)
        for name, answer in zip(("x^2", "m^2"), exact_errors(ROBA, steps), strict=True):
            k = study.names.index(name)
            assert abs(value[k] - answer) < z * error[k] + systematic[k]
            assert abs(plain.mean[k] - answer) < z * plain.standard_error[k]
        k = study.names.index("x^2")  # and not the error of another scheme
        assert abs(value[k] - exact_errors(EM, steps)[0]) > z * error[k] + systematic[k]


def test_the_reported_costs_are_those_of_one_percent_of_the_weak_error(study) -> None:
    """Var f / (1% of e)^2 paths, along the direction of the error, at `steps` evaluations each."""
    for level, steps in enumerate(study.steps[:-1].astype(int)):
        cost = study.cost("covariance", level)
        assert cost.steps == steps
        assert cost.plain_evaluations == pytest.approx(cost.plain_paths * steps)
        assert cost.ratio == pytest.approx(cost.plain_evaluations / cost.coupled_evaluations)
        exact = study.columns("covariance")
        error = study.weak_error(level)[1][exact]
        value = study.level(level).take(exact)
        variance = error @ value.cov @ error / (error @ error)
        assert cost.plain_paths == pytest.approx(variance / (0.01**2 * (error @ error)), rel=1e-9)


def test_measured_variances_are_the_exact_ones(study) -> None:
    """The variance of a variance of n blocks is about (2 + excess) / n relative; blocks of 512 are near normal."""
    k = study.names.index("x^2")
    for level, steps in enumerate(study.steps[:-1].astype(int)):
        exact = exact_second_moment(ROBA, LAW, *(time_grid("uniform", n, PARAMS, 0.1) for n in (steps, 2 * steps)))
        sample = study.differences[level].take([k])
        spread = threshold() * math.sqrt(2.5 / len(sample.values))
        assert abs(math.log(sample.cov[0, 0] / exact.coupled_variance)) < spread
        if level == 2:  # and not the variance of independent runs
            assert abs(math.log(sample.cov[0, 0] / exact.plain_variance)) > spread


def test_a_scheme_of_the_catalogue_passes_with_its_order(study) -> None:
    assert study.fits["covariance"].low < 1.1
    assert study.fits["covariance"].high > 0.8
    assert not study.wrong_limits
    assert study.verdict is not Verdict.FAIL
    answer = study.as_dict()
    assert json.loads(json.dumps(answer))["verdict"] == str(study.verdict)
    assert {"verdict", "reason", "order", "levels", "costs", "limits"} <= answer.keys()
    assert [level["steps"] for level in answer["levels"]] == [10, 20, 40, 80]


def test_a_wrong_score_converges_to_a_wrong_law_and_is_found() -> None:
    class Tilted:
        def __getattr__(self, name: str):
            return getattr(TARGET, name)

        def score(self, u: torch.Tensor, t: float) -> torch.Tensor:
            return 0.9 * TARGET.score(u, t)

    study = study_target(ROBA, Tilted(), **SMALL)
    assert study.wrong_limits
    assert study.verdict is Verdict.INCONCLUSIVE
    assert "against the proof" in study.reason
    unproven = dataclasses.replace(study, proven=None)
    assert unproven.verdict is Verdict.FAIL
    assert "wrong law" in unproven.reason


def test_inconsistent_schemes_fail_and_diverging_ones_unless_a_proof_says_that_fewer_steps_are_to_blame() -> None:
    few = {"steps": (2, 4, 8, 16), "evaluations": 1.0}
    scaled = study_target(Scheme("O S B A", PSLD, lambda_s=1.1, order=1), TARGET, **few)
    assert scaled.verdict is Verdict.FAIL
    assert "not consistent" in scaled.reason
    stiff = MixtureTarget.of([1], [[0.0]], [[[0.25]]], Parameters(beta_min=1e6, beta_max=1e6))
    blown = study_target(EM, stiff, steps=(4, 8, 16, 32), evaluations=1.0)
    assert blown.verdict is Verdict.INCONCLUSIVE  # EM is proven: too stiff a run refutes no proof
    assert "diverges at 32 steps, against the proof of order 1: the dynamics are too stiff" in blown.reason
    assert dataclasses.replace(blown, proven=None).verdict is Verdict.FAIL


def test_too_small_a_budget_is_inconclusive_and_names_the_cost_of_a_conclusion() -> None:
    study = study_target(ROBA, TARGET, steps=(5, 10, 20, 40), evaluations=1.0, accuracy=1e-4)
    assert study.verdict is Verdict.INCONCLUSIVE
    assert "paths" in study.reason
    assert "score evaluations" in study.reason
    paths, evaluations, seconds = study.conclusion("covariance")
    assert paths > 1e5
    assert evaluations > study.spent
    assert seconds > 0


def test_on_a_bimodal_law_the_weak_errors_are_those_computed_without_noise() -> None:
    target = make_target("mixture", PARAMS, 1)
    study = study_target(ROBA, target, steps=(10, 20, 40, 80), evaluations=1.0)
    z, (x, m) = threshold(), Functionals(target, 0.1).unit
    observables = [
        Observable(name, lambda u, v, a=a, b=b: (u / x) ** a * (v / m) ** b)
        for name, (a, b) in zip(study.names, powers_of(2), strict=False)
    ]
    moments = slice(0, len(powers_of(2)))
    for level, steps in enumerate((10, 20)):
        grid = time_grid("uniform", steps, PARAMS, 0.1)
        answer = noise_free_errors(ROBA, target, grid, observables, 1e-5).errors
        plain, (_, value, error, systematic) = study.level(level), study.weak_error(level)
        assert (np.abs(plain.mean[moments] - answer) < z * plain.standard_error[moments]).all()
        assert (np.abs(value[moments] - answer) < (z * error + systematic)[moments]).all()
    wrong = noise_free_errors(EM, target, grid, observables, 1e-5).errors
    assert (np.abs(plain.mean[moments] - wrong) > z * plain.standard_error[moments]).any()


# --- Stopping and going on --------------------------------------------------------------------------------------------


def test_a_study_that_is_stopped_and_resumed_ends_in_the_same_bits(tmp_path: Path) -> None:
    setting = {"steps": (2, 4, 8, 16), "evaluations": 4e5}
    whole = study_target(ROBA, TARGET, **setting)
    file = tmp_path / "study.npz"
    stopped = study_target(ROBA, TARGET, **setting, seconds=1e-9, checkpoint=file)
    assert not stopped.complete
    assert stopped.spent < whole.spent
    resumed = study_target(ROBA, TARGET, **setting, checkpoint=file)
    assert resumed.complete
    for one, other in zip((*whole.coupled, whole.plain[0]), (*resumed.coupled, resumed.plain[0]), strict=True):
        assert one.values.tobytes() == other.values.tobytes()
    assert whole.reason == resumed.reason
    other = study_target(ROBA, TARGET, **setting, seed=1)
    assert other.coupled[0].values.tobytes() != whole.coupled[0].values.tobytes()
    with pytest.raises(ValueError, match="of another study"):
        study_target(ROBA, TARGET, **setting, seed=1, checkpoint=file)
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for broken in (file.read_bytes()[:100], b"", b"no archive", array.getvalue()):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"study\.npz' cannot be read \(.+\); remove it to start anew"):
            study_target(ROBA, TARGET, **setting, checkpoint=file)
    assert [path.name for path in tmp_path.iterdir()] == ["study.npz"]


def test_progress_ends_with_nothing_left() -> None:
    seen = []
    study_target(ROBA, TARGET, steps=(2, 4, 8, 16), evaluations=1.0, progress=seen.append)
    assert seen[-1].done == pytest.approx(seen[-1].planned)
    assert seen[-1].seconds_left == pytest.approx(0)
    assert all(earlier.done < later.done for earlier, later in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": (10, 20, 40)}, "4 or more"),
        ({"steps": (10, 20, 40, 60)}, "one ratio"),
        ({"accuracy": 0.0}, "accuracy"),
        ({"grid": "cubic"}, "grid 'cubic'"),
    ],
)
def test_bad_input_is_named(setting, message) -> None:
    with pytest.raises(ValueError, match=message):
        study_target(ROBA, TARGET, **setting)
    with pytest.raises(ValueError, match="moves under 'stationary'"):
        study_target(LANGEVIN_CONTROLS[-1], TARGET)


# --- Statistics -------------------------------------------------------------------------------------------------------


@given(st.floats(0.5, 3.0), st.floats(-0.4, 0.4), st.integers(3, 6), st.booleans())
def test_the_interval_of_a_fit_holds_the_order_of_slopes_that_settle(order, bend, count, last_slope) -> None:
    """Slopes p + a r^-j, without noise: the estimate is off by just what the interval allows."""
    logs = np.log(50 * 2.0 ** np.arange(count))
    slopes = order + bend * 0.5 ** np.arange(count - 1)
    norms = np.concatenate([[0.0], -np.cumsum(slopes * math.log(2))])
    resampled = norms[:, None] + 1e-9 * np.random.default_rng(0).standard_normal((count, 50))
    estimate, half = window_fit(logs, norms, resampled, threshold(), last_slope)
    assert abs(estimate - order) <= half + 1e-6
    if abs(bend) > 0.01 and not last_slope:  # and no more: a narrower interval would miss it
        assert abs(estimate - order) > 0.999 * half - 1e-6


def test_the_norm_of_noise_is_not_sure_and_that_of_a_signal_is_its_size() -> None:
    noise = np.random.default_rng(3).standard_normal((400, 5))
    assert not Norm.of(noise).is_sure
    signal = Norm.of(noise + np.array([3.0, 4.0, 0, 0, 0]))
    assert signal.is_sure
    assert abs(signal.value - 5) < threshold() * signal.standard_error
    assert signal.standard_error == pytest.approx(1 / 20, rel=0.3)


@given(st.integers(1, 3), st.sampled_from([2.0, 1.5, 3.0]), st.integers(4, 7))
def test_the_telescope_removes_two_powers_of_h(order, ratio, levels) -> None:
    h = ratio ** -np.arange(levels, dtype=float)
    errors = 0.7 * h**order - 0.3 * h ** (order + 1)
    weights = telescope(levels, ratio, order, ROBA, None, 16)
    np.testing.assert_allclose(weights @ (errors[:-1] - errors[1:]), errors, rtol=1e-10, atol=1e-12)
    third = h ** (order + 2)  # the third is left over
    assert np.abs(weights @ (third[:-1] - third[1:]) - third).max() > 0.1 * third[-1]


def test_the_threshold_shares_one_false_alarm_in_a_million() -> None:
    assert 2 * stats.norm.sf(threshold(1)) == pytest.approx(1e-6)
    assert 2 * stats.norm.sf(threshold()) * COMPARISONS == pytest.approx(ALARM_RATE)
    assert 6 < threshold() < 7
    assert 2 * stats.t.sf(threshold(rows=32), 31) * COMPARISONS == pytest.approx(ALARM_RATE)
    assert threshold(rows=10**9) == pytest.approx(threshold(), rel=1e-6)

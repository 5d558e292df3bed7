"""Orders and verdicts from cells whose law is known, predictions against exact moments, and rank correlations.

Statistical comparisons are at `threshold()`, z = 6.6, or by the binomial law at a rate of 1e-9.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.cifar10.study import comparison
from weakorder.verification.cifar10.study.analysis import CONCLUSIVE, Level, Reference, SchemeVerdict, judge
from weakorder.verification.cifar10.study.comparison import predict
from weakorder.verification.cifar10.study.statistics import QUANTITIES, CellStatistics, WeakError, compare_images
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.spectrum import Spectrum
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.algebra import Array
from weakorder.verification.verdicts.estimates import Norm
from weakorder.verification.verdicts.fits import MARGIN, resampled_norms
from weakorder.verification.verdicts.verdict import Verdict

PARAMS = Parameters()
ROBA, EM = CATALOGUE["ROBA"], CATALOGUE["EM"]
BUDGETS = (20, 40, 80, 160, 320)
Error = Callable[[int], float]


def cell(mean_error: float, strong: float = 0.0, n: int = 64, seed: int = 0, scale: float = 1.0) -> CellStatistics:
    """A cell whose rows have a known mean, and noise in common with other cells."""
    if not math.isfinite(mean_error):
        return compare_images(np.full((n, 1, 2, 2), np.inf), np.zeros((n, 1, 2, 2)))
    rng = np.random.default_rng(seed)
    direction, noise = np.full(12, 12**-0.5), rng.standard_normal((n, 12))
    rows = (mean_error * direction + strong * noise).astype(np.float32)
    weak = WeakError(Norm.of(rows), scale)
    small = compare_images(np.ones((n, 1, 2, 2)), np.zeros((n, 1, 2, 2)))
    return dataclasses.replace(small, weak=dict.fromkeys(QUANTITIES, weak), rows=dict.fromkeys(QUANTITIES, rows))


def verdict_of(
    error: Error,
    budgets: Sequence[int] = BUDGETS,
    strong: float = 0.0,
    reference_steps: int = 16 * 320,
    reference_error: float | None = None,
    proven: int | None = 1,
    n: int = 64,
    seed: int = 0,
) -> SchemeVerdict:
    """Of a scheme with this true weak error, against a reference of this error (default: the scheme's own at so many
    steps), coupled to it with a strong error ~ N^-1/2."""
    bias = error(reference_steps) if reference_error is None else reference_error
    levels = {nfe: Level(nfe - 1, cell(error(nfe - 1) - bias, strong / math.sqrt(nfe), n, seed)) for nfe in budgets}
    own = list(levels.values())[-1] if reference_error is None else None
    return SchemeVerdict("test", 1, proven, (), levels, Reference(ROBA, reference_steps, own))


# --- Order ------------------------------------------------------------------------------------------------------------


def test_a_clean_first_order_error_passes_and_its_order_is_one() -> None:
    found = verdict_of(lambda N: 1 / N, strong=0.01)
    assert found.verdict is Verdict.PASS
    assert found.measured is not None
    assert found.measured.low <= 1 <= found.measured.high
    assert "measured order" in found.reason


@pytest.mark.parametrize("power", [0.4, 2.0])
def test_another_order_than_the_proven_one_does_not_pass(power: float) -> None:
    found = verdict_of(lambda N: N**-power, strong=1e-4, reference_error=0.0)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert ("against the proof" if power < 1 else "faster than the proven order") in found.reason
    assert all(fit.low <= power <= fit.high for fit in found.fits.values())


def test_without_a_proof_a_low_order_fails_from_enough_levels_only() -> None:
    assert verdict_of(lambda N: N**-0.4, strong=1e-4, reference_error=0.0, proven=None).verdict is Verdict.FAIL
    assert (
        verdict_of(lambda N: N**-0.4, BUDGETS[:3], strong=1e-4, reference_error=0.0, proven=None).measured is not None
    )
    assert verdict_of(lambda N: 1 / N, strong=1e-4, proven=None).verdict is Verdict.PASS


def test_three_budgets_have_an_order_with_an_interval_and_do_not_pass_by_luck() -> None:
    found = verdict_of(lambda N: 1 / N, BUDGETS[:3], strong=1e-4)
    assert found.fits
    assert found.ordered
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "may agree by chance" in found.reason
    assert verdict_of(lambda N: 1 / N, BUDGETS[:4], strong=1e-4).verdict is Verdict.PASS


def test_the_budgets_of_the_command_are_enough_for_a_verdict() -> None:
    from weakorder.reports.commands.cifar10_study import BUDGETS as DEFAULT

    assert len(DEFAULT) >= CONCLUSIVE
    assert verdict_of(lambda N: 1 / N, DEFAULT, strong=1e-4).verdict is Verdict.PASS
    assert verdict_of(lambda N: 1 / N, DEFAULT[:-1], strong=1e-4).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("budgets", "second"), [((20, 40, 80, 160), 60.0), ((20, 50, 100), -12.0), ((20, 50, 100), 20.0)]
)
def test_moving_slopes_are_not_an_order(budgets: tuple[int, ...], second: float) -> None:
    """C / N + D / N^2 with a large second term."""
    found = verdict_of(lambda N: 1 / N + second / N**2, budgets, strong=1e-5, reference_steps=16 * budgets[-1])
    slopes = [found.slopes[nfe]["mean"] for nfe in budgets[1:]]
    assert found.slopes[budgets[0]]["mean"] is None
    assert all(a is not None and b is not None and abs(a - b) > 0.1 for a, b in itertools.pairwise(slopes))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert f"add a budget of about {2 * budgets[-1]} evaluations" in found.reason


def test_errors_in_their_noise_are_not_fitted_and_the_samples_needed_are_named() -> None:
    # sure needs 4 noises: 64 samples have 4 * 0.02 * sqrt(12 / 64) / sqrt(N) against 1 / N
    noisy = verdict_of(lambda N: 1 / N, (20, 40, 80), strong=0.15)
    assert noisy.verdict is Verdict.INCONCLUSIVE
    assert not noisy.fits
    assert "samples" in noisy.reason
    many = verdict_of(lambda N: 1 / N, (20, 40, 80), strong=0.15, n=600)
    assert many.fits


def test_divergence_at_the_finest_budget_fails_what_is_not_proven_and_at_a_coarse_one_is_left_out() -> None:
    finest = {"error": lambda N: math.inf if N > 300 else 1 / N, "reference_error": 0.0}
    assert verdict_of(**finest, proven=None).verdict is Verdict.FAIL
    proven = verdict_of(**finest)  # too stiff a run refutes no proof
    assert proven.verdict is Verdict.INCONCLUSIVE
    assert "diverges at 320 evaluations, against the proof of order 1: too stiff for so few steps" in proven.reason
    coarse = verdict_of(lambda N: math.inf if N < 30 else 1 / N, strong=1e-4)
    assert coarse.verdict is Verdict.PASS
    assert coarse.fits["mean"].steps == (39, 319)
    few = verdict_of(lambda N: math.inf if N < 100 else 1 / N, strong=1e-4)
    assert few.verdict is Verdict.INCONCLUSIVE
    assert "diverges at 80" in few.reason
    assert few.slopes[160]["mean"] is None


def test_the_reference_s_own_error_is_estimated_and_widens_the_interval() -> None:
    near, far = (verdict_of(lambda N: 1 / N, strong=1e-5, reference_steps=ratio * 319) for ratio in (2, 64))
    for found, ratio in ((near, 2), (far, 64)):
        # of the reference's own scheme: d R^-1 / (1 - R^-1) is its error exactly
        assert found.systematic["mean"] == pytest.approx(1 / (ratio * 319), rel=1e-3)
        fit = found.fits["mean"]
        assert fit.low <= 1 <= fit.high
    assert near.fits["mean"].high - near.fits["mean"].low > 3 * (far.fits["mean"].high - far.fits["mean"].low)
    # the broken variant, a reference taken for exact, is sure of a wrong order
    exact = dataclasses.replace(near, reference=dataclasses.replace(near.reference, steps=10**9))
    assert not exact.fits["mean"].low <= 1 <= exact.fits["mean"].high


def test_levels_near_the_reference_s_error_are_not_fitted() -> None:
    found = verdict_of(lambda N: 1 / N, strong=1e-5, reference_steps=2 * 319)
    assert found.usable["mean"] == BUDGETS[:3]  # 1 / 159 - 1 / 638 is 3 times 1 / 638, and 1 / 79 - 1 / 638 is 7 times
    assert found.levels[320].statistics.weak["mean"].norm.is_sure


def test_common_resamples_know_slopes_better_than_separate_ones() -> None:
    """Levels share the Brownian motion; resampling each on its own forgets it."""
    levels = [cell(1 / N, 0.02 / math.sqrt(N)).rows["mean"].astype(float) for N in (20, 40)]
    draws = [resampled_norms(rows)[1] for rows in levels]
    slope = np.log(draws[0] / draws[1]) / 2
    apart = np.log(draws[0] / np.random.default_rng(1).permutation(draws[1])) / 2
    assert slope.std() < 0.5 * apart.std()


def test_resamples_are_free_of_noise_on_average() -> None:
    rows = cell(0.0, 1.0).rows["mean"].astype(float)
    norm, squares = resampled_norms(rows, 20_000)
    size = float((rows.mean(0) ** 2).sum()) - norm.noise**2
    error = squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - size) < 6.6 * error
    assert abs(squares.mean() + norm.noise**2 - size) > 6.6 * error  # with the noise removed once only


def test_intervals_hold_the_order_and_wrong_orders_do_not_pass_in_many_noisy_studies() -> None:
    """z = 6.6 in the intervals: no interval may miss, but with a probability far below 1e-9."""
    budgets, studies = BUDGETS[:4], 25
    for power in (1.0, 0.5):
        found = [
            verdict_of(lambda N, p=power: N**-p, budgets, 0.02, 16 * 159, 0.0, seed=seed) for seed in range(studies)
        ]
        fits = [fit for study in found for fit in study.fits.values()]
        assert fits
        assert all(fit.low <= power <= fit.high for fit in fits)
        if power == 0.5:
            assert all(study.verdict is not Verdict.PASS for study in found)


def test_images_of_a_known_order_are_read_through() -> None:
    """From images to verdict: x = y (1 + 1/N) less the reference's own error."""
    rng = np.random.default_rng(3)
    exact, n = rng.standard_normal((200, 3, 4, 4)) + 1.0, 16 * 160
    y = exact * (1 + 1 / n)
    levels = {N + 1: Level(N, compare_images(exact * (1 + 1 / N), y)) for N in (20, 40, 80, 160)}
    found = judge(ROBA, PARAMS, levels, Reference(ROBA, n, levels[161]))
    assert found.proven == 1
    assert found.verdict is Verdict.PASS
    assert {"mean", "spectrum", "higher moments"} <= set(found.fits)
    assert found.measured is not None
    assert abs(found.measured.order - 1) < MARGIN


def test_schemes_that_are_not_consistent_fail_without_a_look() -> None:
    levels = verdict_of(lambda N: 1 / N).levels
    tuned = dataclasses.replace(ROBA, lambda_s=1.2)
    found = judge(tuned, PARAMS, levels, Reference(ROBA, 16 * 320))
    assert found.verdict is Verdict.FAIL
    assert "lambda_s" in found.reason
    assert judge(ROBA, PARAMS, levels, Reference(ROBA, 16 * 320), expected=2).verdict is Verdict.FAIL


def test_the_verdict_for_json_has_the_study_s_fields() -> None:
    for found in (verdict_of(lambda N: 1 / N), verdict_of(lambda N: 1 / N, (20,)), verdict_of(lambda _: 0.0)):
        values = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        assert set(values) == {"verdict", "reason", "order", "fits", "systematic"}
        assert set(values["order"]) == {"expected", "proven", "measured", "ci"}
        assert all(set(fit) == {"order", "low", "high", "steps"} for fit in values["fits"].values())
        assert "\n" not in values["reason"]
        assert json.dumps(found.slopes, allow_nan=False)


def test_budgets_that_buy_the_same_steps_count_once() -> None:
    good = verdict_of(lambda N: 1 / N)
    doubled = {nfe + extra: level for nfe, level in good.levels.items() for extra in (0, 1)}
    found = dataclasses.replace(good, levels=doubled)
    assert found.fits == good.fits
    assert set(found.slopes) == set(doubled)
    assert found.slopes[41]["mean"] is None
    assert found.slopes[40] == good.slopes[40]


def test_bad_levels_are_named() -> None:
    good = verdict_of(lambda N: 1 / N)
    with pytest.raises(ValueError, match="no cell"):
        dataclasses.replace(good, levels={})
    with pytest.raises(ValueError, match="increasing"):
        dataclasses.replace(good, levels=dict(reversed(good.levels.items())))
    with pytest.raises(ValueError, match="must have more"):
        dataclasses.replace(good, reference=Reference(ROBA, 319))
    with pytest.raises(ValueError, match="samples"):
        dataclasses.replace(good, levels={**good.levels, 640: Level(639, cell(0.1, n=10))})


# --- Prediction -------------------------------------------------------------------------------------------------------

SMALL = Spectrum(np.array([1.0, 0.1, 0.01]), np.array([0.2, 0.0, -0.1]), 100)


def test_predictions_are_the_frechet_distances_of_exact_moments() -> None:
    fine = Reference(ROBA, 400)
    found = predict([ROBA, EM], PARAMS, (20, 50), "quadratic", [fine, fine], SMALL)
    target = GaussianTarget(SMALL.mean, SMALL.variances, PSLD_DIFFUSION, PARAMS)

    def law(scheme: Scheme, steps: int) -> tuple[Array, Array]:
        moments = exact_moments(scheme, target, time_grid("quadratic", steps, PARAMS), "prior", denoise=True).computed
        return moments.mean[0], moments.cov[0, 0]

    mean, variance = law(EM, 49)
    exact_mean, exact_variance = law(ROBA, 400)
    reading = found["EM", 50]
    assert reading is not None
    expected = ((mean - exact_mean) ** 2 + (np.sqrt(variance) - np.sqrt(exact_variance)) ** 2).sum()
    assert reading.to_reference == pytest.approx(expected, rel=1e-12)
    assert reading.to_data == pytest.approx(
        SMALL.distance(exact_moments(EM, target, time_grid("quadratic", 49, PARAMS), "prior", denoise=True).computed),
        rel=1e-12,
    )
    assert reading.to_data != pytest.approx(reading.to_reference, rel=1e-3)
    itself = predict([ROBA], PARAMS, [401], "quadratic", [fine], SMALL)["ROBA", 401]
    assert itself is not None
    assert itself.to_reference == 0.0


def test_lambda_s_and_the_grid_change_a_prediction_and_divergence_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = Reference(ROBA, 400)
    tuned = dataclasses.replace(ROBA, name="tuned", lambda_s=1.3)
    found = predict([ROBA, tuned], PARAMS, [50], "quadratic", [fine, fine], SMALL)
    uniform = predict([ROBA], PARAMS, [50], "uniform", [fine], SMALL)
    readings = [found["ROBA", 50], found["tuned", 50], uniform["ROBA", 50]]
    assert len({reading and round(reading.to_data, 9) for reading in readings}) == 3
    assert predict([EM], PARAMS, [1], "quadratic", [fine], SMALL) == {}
    with pytest.raises(ValueError, match="own"):
        predict([EM], PARAMS, [20], "quadratic", [], SMALL)
    monkeypatch.setattr(comparison, "TOO_LARGE", 5.0)
    few = predict([ROBA], PARAMS, [5, 50], "quadratic", [fine], SMALL)
    assert few["ROBA", 5] is None
    assert few["ROBA", 50] == found["ROBA", 50]

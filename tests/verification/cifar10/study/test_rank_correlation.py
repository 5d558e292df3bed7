"""Predicted against measured rankings: rank correlations, their p values and intervals, and where they disagree."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.verification.cifar10.study import comparison
from weakorder.verification.cifar10.study.comparison import PUBLISHED_FID, measured_values, rank_correlations
from weakorder.verification.cifar10.study.statistics import QUANTITIES, compare_images


def values(numbers: Sequence[float | None], nfe: int = 50) -> dict[tuple[str, int], float | None]:
    return {(f"s{k}", nfe): number for k, number in enumerate(numbers)}


def test_the_correlation_is_spearman_s_and_skips_what_diverged() -> None:
    first, second = [1.0, 5.0, 2.0, 7.0, 7.0, None, 3.0], [2.0, 3.0, 2.5, 9.0, 1.0, 4.0, None]
    found = rank_correlations(values(first), {"q": values(second)}).quantities["q"]
    assert len(found) == 1
    assert found[0].schemes == ("s0", "s1", "s2", "s3", "s4")
    assert found[0].correlation == pytest.approx(stats.spearmanr(first[:5], second[:5])[0])
    assert found[0].interval is None


def test_the_p_value_is_that_of_all_permutations() -> None:
    first, second = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]
    found = rank_correlations(values(first), {"q": values(second)}).quantities["q"][0]
    all_of_them = [abs(stats.spearmanr(first, p)[0]) for p in itertools.permutations(second)]
    exact = float(np.mean(np.array(all_of_them) >= found.correlation - 1e-9))
    error = math.sqrt(exact * (1 - exact) / comparison.PERMUTATIONS)
    assert abs(found.p_value - exact) < 6.6 * error + 1 / comparison.PERMUTATIONS
    assert found.p_value < 0.1


def test_unrelated_rankings_are_seldom_significant() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((150, 2, 6))
    p = [rank_correlations(values(a), {"q": values(b)}).quantities["q"][0].p_value for a, b in rows.tolist()]
    count = sum(value <= 0.05 for value in p)
    assert stats.binom.sf(count - 1, len(p), 0.05) > 1e-9


def test_budgets_together_are_ranked_within_each() -> None:
    """Errors that fall with the budget and are ranked the other way round within it: a pooled ranking would agree."""
    first = values([1, 2, 3], 20) | values([0.1, 0.2, 0.3], 50)
    second = values([3, 2, 1], 20) | values([0.3, 0.2, 0.1], 50)
    found = rank_correlations(first, {"q": second}).quantities["q"]
    assert [entry.nfe for entry in found] == [20, 50, None]
    assert found[-1].correlation == pytest.approx(-1)
    assert stats.spearmanr(list(first.values()), list(second.values()))[0] > 0.5  # the broken variant


def test_intervals_come_from_the_resamples() -> None:
    first, second = values([1, 2, 3, 4]), values([1, 2, 3, 4])
    rng = np.random.default_rng(1)
    calm = {key: value + 0.01 * rng.standard_normal(300) for key, value in second.items() if value}
    wild = {key: value + 3 * rng.standard_normal(300) for key, value in second.items() if value}
    found = rank_correlations(first, {"calm": second, "wild": second}, {"calm": calm, "wild": wild}).quantities
    assert found["calm"][0].interval == pytest.approx((1, 1))
    low, high = found["wild"][0].interval or (1, 1)
    assert low < 0.5 < high


def test_disagreements_name_the_scheme_the_budget_and_both_ranks() -> None:
    found = rank_correlations(values([1, 2, 3, 4, 5]), {"energy": values([6, 2, 3, 4, 5]), "same": values(range(5))})
    assert found.disagreements == ("at 50 evaluations s0 ranks 1st of 5 by prediction and 5th by energy",)
    assert json.dumps(found.as_dict(), allow_nan=False)


def test_too_few_schemes_have_no_correlation() -> None:
    assert rank_correlations(values([1, 2]), {"q": values([1, 2])}).quantities == {}
    assert rank_correlations(values([1, 2, None]), {"q": values([1, 2, 3])}).quantities == {}


def test_published_fids_are_of_schemes_in_the_catalogue_and_rank_five() -> None:
    assert {name for name, _ in PUBLISHED_FID} <= set(CATALOGUE)
    found = rank_correlations(PUBLISHED_FID, {"FID": PUBLISHED_FID}).quantities["FID"]
    assert [(entry.nfe, len(entry.schemes), round(entry.correlation, 9)) for entry in found] == [
        (50, 5, 1),
        (100, 3, 1),
        (None, 6, 1),
    ]


def test_measured_values_hold_what_cells_say_and_resamples_of_their_weak_errors() -> None:
    rng = np.random.default_rng(4)
    y = rng.standard_normal((40, 3, 4, 4))
    cells = {(name, 50): compare_images(y * scale, y) for name, scale in (("a", 1.1), ("b", 1.2), ("c", math.inf))}
    found, resampled = measured_values(cells)
    distances = ("energy distance", "sliced Wasserstein distance", "spectral Fréchet distance")
    assert set(found) == {*QUANTITIES, "strong error", *distances}
    assert set(resampled) == set(QUANTITIES)
    assert set(found["spectrum"]) == {("a", 50), ("b", 50)}
    assert found["spectrum"]["a", 50] == cells["a", 50].weak["spectrum"].relative
    middle = float(np.median(resampled["spectrum"]["a", 50]))
    assert middle == pytest.approx(found["spectrum"]["a", 50], rel=0.3)
    assert (resampled["spectrum"]["a", 50] < resampled["spectrum"]["b", 50]).all()


def test_weak_errors_that_do_not_stand_above_their_noise_are_not_ranked() -> None:
    rng = np.random.default_rng(5)
    y, other = rng.standard_normal((2, 40, 3, 4, 4))
    found, _ = measured_values({("far", 50): compare_images(2 * y, y), ("same law", 50): compare_images(other, y)})
    assert found["spectrum"]["same law", 50] is None
    assert found["spectrum"]["far", 50] is not None


@pytest.mark.nightly
def test_the_pooled_p_value_allows_for_schemes_that_keep_their_place() -> None:
    """Without any relation p < 0.05 is to happen in 5% of 200 trials: more than the bound once in 1e9 (binomial)."""
    rng, small = np.random.default_rng(7), 0
    names, budgets = [f"s{k}" for k in range(8)], (20, 50, 100)
    for _ in range(200):
        effects = rng.standard_normal((2, len(names)))
        both = [
            {
                (name, nfe): float(effect[k] + 0.1 * rng.standard_normal())
                for k, name in enumerate(names)
                for nfe in budgets
            }
            for effect in effects
        ]
        pooled = rank_correlations(both[0], {"q": both[1]}).quantities["q"][-1]
        assert pooled.nfe is None
        small += pooled.p_value < 0.05
    assert small <= stats.binom.isf(1e-9, 200, 0.05)

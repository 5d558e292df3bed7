"""Weak errors over those of another scheme: the value, and how well it is known.

Statistical assertions are of a fixed seed, with bounds at more than four standard deviations of what they bound.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import CPU, SCHEMES, gaussian
from weakorder.verification.cifar10.study.comparison import PUBLISHED_FID
from weakorder.verification.cifar10.study.design import Design
from weakorder.verification.cifar10.study.frechet import Moments
from weakorder.verification.cifar10.study.ratios import compared_with, ratios
from weakorder.verification.cifar10.study.reading import Data, read
from weakorder.verification.cifar10.study.sampling import Store, missing_work, run_work
from weakorder.verification.cifar10.study.statistics import QUANTITIES, CellStatistics, WeakError
from weakorder.verification.verdicts.estimates import Estimate, Norm

# the room offers its function by the same name
module = importlib.import_module("weakorder.verification.cifar10.study.ratios")

SAMPLES, FUNCTIONALS, STUDIES = 64, 10, 400
SMALL, LARGE = np.full(FUNCTIONALS, 0.3), np.full(FUNCTIONALS, 0.5)


def cell(rows: np.ndarray) -> CellStatistics:
    """A cell whose weak errors, of each quantity, are the mean of these rows."""
    weak = {quantity: WeakError(Norm.of(rows), 1.0) for quantity in QUANTITIES}
    return CellStatistics(
        len(rows), weak, dict.fromkeys(QUANTITIES, rows.astype(np.float32)), strong=Estimate(1.0, 0.1)
    )


def studies(in_common: float) -> list[dict[str, float]]:
    """The ratio of errors 0.3 and 0.5 sqrt(10), in studies whose two cells share so much of their noise."""
    rng, found = np.random.default_rng(1), []
    for _ in range(STUDIES):
        shared, *own = rng.normal(size=(3, SAMPLES, FUNCTIONALS))
        pair = [
            mean + in_common * shared + (1 - in_common) * noise for mean, noise in zip((SMALL, LARGE), own, strict=True)
        ]
        found.append(ratios(*map(cell, pair))["spectrum"])
    return found


def spread(found: list[dict[str, float]]) -> float:
    """The standard deviation of ratios in units of their error bars."""
    return float(np.std([(entry["value"] - 0.6) / entry["standard_error"] for entry in found]))


@pytest.mark.parametrize("in_common", [0.0, 0.8])
def test_the_ratio_is_that_of_the_errors_and_its_bar_is_as_long_as_it_scatters(in_common: float) -> None:
    found = studies(in_common)
    values = [entry["value"] for entry in found]
    assert abs(np.mean(values) - 0.6) < 0.02
    assert 0.85 < spread(found) < 1.15


def test_a_bar_that_forgets_what_samples_have_in_common_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_along", lambda rows: np.zeros(len(rows)))
    assert spread(studies(0.8)) < 0.7


def test_a_ratio_is_sure_where_both_errors_are_and_the_schemes_own_is_one() -> None:
    rng = np.random.default_rng(2)
    large, other, noise = (mean + rng.normal(size=(SAMPLES, FUNCTIONALS)) for mean in (20.0, 30.0, 0.0))
    assert ratios(cell(large), cell(other))["mean"]["sure"] is True
    assert ratios(cell(noise), cell(other))["mean"]["sure"] is False
    same = cell(large)
    assert ratios(same, same)["mean"] == {"value": 1.0, "standard_error": 0.0, "sure": True}


def test_what_diverged_and_what_is_divided_by_nothing_has_no_ratio() -> None:
    one, none = cell(np.ones((4, 3))), cell(np.zeros((4, 3)))
    assert ratios(CellStatistics(4), one) == ratios(one, CellStatistics(4)) == ratios(one, none) == {}
    with pytest.raises(ValueError, match="cells of 4 and 5 samples: give both the same number"):
        ratios(one, replace(one, samples=5))


def test_the_scheme_compared_with_is_the_one_wanted_or_the_best_published_or_the_first() -> None:
    names = ["EM", "RVV", "ROBA", "mine"]
    best = min(
        (name for name, _ in PUBLISHED_FID), key=lambda n: min(v for (m, _), v in PUBLISHED_FID.items() if m == n)
    )
    assert compared_with(names) == best == "ROBA"
    assert compared_with(["mine", "yours"]) == "mine"
    assert compared_with(["EM", "RVV"]) == "EM"
    assert compared_with(names, "mine") == "mine"
    with pytest.raises(ValueError, match="against 'SSCS': no scheme of the study; choose one of EM, RVV, ROBA, mine"):
        compared_with(names, "SSCS")


@pytest.mark.parametrize("against", [None, "RVV"])
def test_a_study_s_cells_have_ratios_to_the_cells_of_one_scheme_at_the_same_budget(
    against: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = "weakorder.verification.cifar10.study.reading"
    monkeypatch.setattr(f"{of}._Reader.predictions", {})
    monkeypatch.setattr(f"{of}.features", lambda x: x)
    moments = Moments.of_samples(np.random.default_rng(1).standard_normal((9, 3, 8, 8)))
    monkeypatch.setattr(f"{of}.feature_moments", lambda _: moments)
    design = Design(SCHEMES, (4, 6), samples=4, refinement=4, against=against)
    store = Store(tmp_path, gaussian()[0], batch=4)
    run_work(store, missing_work(store, [*design.cells.values()], design.samples), CPU, 1)
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
    results = read(design, store, Data(images, "noise"))[0]
    name = against or "ROBA"
    assert results["settings"]["against"] == name
    found = {(s["name"], cell["nfe"]): cell["weak"] for s in results["schemes"] for cell in s["cells"] if cell["weak"]}
    ratios_found = 0
    for (_, nfe), weak in found.items():
        for quantity, entry in weak.items():
            divisor = found.get((name, nfe), {}).get(quantity, {}).get("value")
            assert ("ratio" in entry) is bool(divisor and entry["value"] is not None)
            if divisor and entry["value"] is not None:
                assert entry["ratio"]["value"] == entry["value"] / divisor
                ratios_found += entry["ratio"]["value"] not in (0.0, 1.0)
    assert ratios_found > 8
    json.dumps(results, allow_nan=False)

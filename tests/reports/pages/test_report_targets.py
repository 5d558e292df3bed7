"""The report's section on nonlinear targets: its numbers are the studies', its counts can tell a wrong answer."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.figures.targets import drawings
from weakorder.reports.pages import targets
from weakorder.reports.pages.jobs import Jobs
from weakorder.reports.pages.models import Models
from weakorder.reports.pages.strict_json import dumps
from weakorder.reports.pages.targets import MIXTURE, PUBLISHED, Sampling, Settings
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.exact.noise_free import study_noise_free
from weakorder.verification.targets.named import make_target

PARAMS = Parameters()
SETTINGS = Settings(
    steps=(4, 8, 16, 32),
    accuracy=1e-3,
    sampling={MIXTURE: Sampling((5, 10, 20, 40), 1.0), "student": Sampling((2, 4, 8, 16), 1.0)},
    schemes=("ROBA", "RSE"),
    known_steps=(25,),
    repetitions=200,
    paths=64,
)
FEW = dataclasses.replace(  # for what does not come from the numbers
    SETTINGS, sampling=dict.fromkeys((MIXTURE, "student"), Sampling((2, 4, 8, 16), 1.0)), repetitions=20
)
Results = dict[str, Any]


def _collect(schemes: list[Scheme], settings: Settings = SETTINGS) -> tuple[Results, list[Results]]:
    jobs = Jobs()
    asked = targets.ask(jobs, schemes, Models(schemes, PARAMS), 0.1, settings)
    jobs.run()
    study, rows = targets.answer(asked, 0.1, settings)
    return json.loads(dumps(study)), json.loads(dumps(rows))


@pytest.fixture(scope="module")
def found() -> tuple[Results, list[Results]]:
    return _collect([CATALOGUE["ROBA"], CATALOGUE["RSE"]])


def test_the_first_scheme_is_sampled_on_all_targets_and_the_others_on_the_mixture(found) -> None:
    study, _ = found
    assert [(e["scheme"], e["target"]) for e in study["sampled"]] == [(0, MIXTURE), (1, MIXTURE), (0, "student")]
    assert [e["dimensions"] for e in study["sampled"]] == [1, 1, 2]
    assert all(e["refused"] is None for e in study["sampled"])


def test_the_noise_free_row_is_the_study(found) -> None:
    _, rows = found
    study = study_noise_free(CATALOGUE["RSE"], make_target(MIXTURE, PARAMS), SETTINGS.steps, accuracy=SETTINGS.accuracy)
    assert rows[1]["order"]["measured"] == study.measured.order  # type: ignore[union-attr]
    h = (PARAMS.T - 0.1) / SETTINGS.steps[-1]
    for name, errors in study.errors.items():
        assert rows[1]["constants"][name] == pytest.approx(errors[-1] / h, rel=1e-12)
    assert rows[1]["known_to"] == max(level.estimates.max() for level in study.levels)
    assert rows[1]["constants"]["x^2"] != pytest.approx(rows[0]["constants"]["x^2"], rel=1e-3)  # of its own scheme


def test_most_of_the_95_percent_intervals_hold_the_exact_answers(found) -> None:
    """Of 20 functions at 4 levels. Plain and difference estimates are means of 32 or more blocks; those of one level
    share their paths, so that at worst levels, not functions, are independent: 3 of 3 levels outside has 1e-4, and
    fewer than half of all intervals held has less."""
    study, _ = found
    for entry in study["sampled"][:2]:
        for name, of in (("plain", 80), ("multilevel", 80), ("difference", 60)):
            assert entry["held"][name]["of"] == of
            assert entry["held"][name]["held"] > of / 2
    assert study["sampled"][2]["held"] is None


def test_the_count_tells_answers_that_are_off() -> None:
    """An interval holds what is within its half-width; nan, where the law is not resolved, is not counted."""
    value, half = np.array([1.0, 1.0, 1.0]), np.array([0.5, 0.1, 0.5])
    level = {"plain": (value, half), "multilevel": (value, half), "exact": np.array([1.4, 1.4, math.nan])}
    difference = {"difference": (value, half), "exact_difference": np.array([1.6, 1.05, 1.0])}
    assert targets._held([level | difference, level]) == {
        "plain": {"held": 2, "of": 4},
        "multilevel": {"held": 2, "of": 4},
        "difference": {"held": 2, "of": 3},
    }


def test_the_exact_answers_are_those_of_the_sampled_functions(found) -> None:
    """The exact differences of neighbouring levels; in the prior's units, where x is x: those of the lattice itself."""
    study, _ = found
    levels = study["sampled"][1]["estimates"]["x^2"]
    own = study_noise_free(CATALOGUE["RSE"], make_target(MIXTURE, PARAMS), (5, 10, 20, 40), accuracy=1e-6)
    scale = own.errors["x^2"][0] / levels[0]["exact"]
    assert [level["exact"] for level in levels] == pytest.approx(own.errors["x^2"] / scale, abs=2e-6)


def test_the_published_costs_are_met() -> None:
    """To the digits they were published with; of another data variance they are others."""
    rows = {row["steps"]: row for row in targets.known_costs((25, 100, 400))["levels"]}
    for name, published in PUBLISHED.items():
        for steps, value in published.items():
            assert rows[steps][name] == pytest.approx(value, rel=0.1)
            assert rows[steps]["published"][name] == value
    assert rows[25]["gain"] < 1 < rows[100]["gain"]


def test_other_data_have_other_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "KNOWN_VARIANCE", 1.0)
    (row,) = targets.known_costs((25,))["levels"]
    assert row["plain_paths"] != pytest.approx(PUBLISHED["plain_paths"][25], rel=0.5)


def test_the_calibration_s_interval_is_that_of_its_count(found) -> None:
    """Clopper and Pearson's ends are where the count has a tail of 2.5%."""
    from scipy.stats import binom

    calibration = found[0]["calibration"]
    contained, repetitions = calibration["contained"], calibration["repetitions"]
    low, high = calibration["interval"]
    assert calibration["coverage"] == contained / repetitions == pytest.approx(0.95, abs=0.1)  # 6 standard errors
    assert binom.sf(contained - 1, repetitions, low) == pytest.approx(0.025, rel=1e-6)
    assert binom.cdf(contained, repetitions, high) == pytest.approx(0.025, rel=1e-6)
    assert calibration["within"] == (abs(calibration["coverage"] - 0.95) <= 0.015)


def test_a_scheme_that_a_study_does_not_take_is_named_with_the_reason() -> None:
    """A finer study than float64 can prove is refused, scheme by scheme, and the rest goes on."""
    scheme = CATALOGUE["RSE"]
    study, rows = _collect([scheme], dataclasses.replace(FEW, accuracy=1e-12))
    assert "accuracy" in rows[0]["refused"]
    assert [entry["scheme"] for entry in study["sampled"]] == [0, 0]


@pytest.mark.nightly
def test_a_report_without_the_named_schemes_samples_its_first() -> None:
    study, _ = _collect([CATALOGUE["NSE"]], FEW)
    assert [(e["scheme"], e["target"]) for e in study["sampled"]] == [(0, MIXTURE), (0, "student")]


def test_wide_numbers_leave_the_panels_their_room(found) -> None:
    """Claim: of errors beyond 1e5 h no label is wider than five characters, and none leaves the page."""
    study, _ = json.loads(json.dumps(found))
    for entry in study["sampled"]:
        sizes = [abs(level["multilevel"]["value"]) for level in entry["estimates"]["x^2"]]
        scale = 2e5 * entry["levels"][0]["h"] / max(sizes)
        for level in [level for levels in entry["estimates"].values() for level in levels]:
            for part in ("plain", "multilevel"):
                level[part] = {name: scale * value for name, value in level[part].items()}
    figure = drawings()["targets-sampled"]({"targets_study": study, "schemes": []})
    figure.canvas.draw()
    for axes in figure.axes:
        shown = [label for label in axes.get_yticklabels() if axes.bbox.y0 <= label.get_window_extent().y1]
        assert axes.get_yscale() == "log" or max(len(label.get_text()) for label in shown) <= 5
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *shown]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)

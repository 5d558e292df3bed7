"""The figures of the CIFAR-10 study: every point, bar and bound is the results', and what diverged has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic_study import FEW, NAMES, WEAK, Results, synthetic, with_precisions
from weakorder.reports.figures import cifar10_figures, cifar10_scatter
from weakorder.reports.figures import style as figures


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic(NAMES, compared=FEW)


def _drawn(axes: Any, label: str) -> list[tuple[float, float]]:
    """The points of the line of a scheme, in data's coordinates."""
    lines = [line for line in axes.get_lines() if line.get_label() == label]
    return [tuple(map(float, point)) for line in lines for point in zip(*line.get_data(), strict=True)]


def _bars(axes: Any, gid: str) -> set[tuple[float, ...]]:
    return {(line.get_xdata()[0], *map(float, line.get_ydata())) for line in axes.get_lines() if line.get_gid() == gid}


def test_the_figure_of_weak_errors_shows_the_results(results: Results) -> None:
    """Points that are sure, with bars of two standard errors; the others as upper bounds from the edge, by the larger
    of standard error and noise; the reference's own error; nothing of diverged cells."""
    figure = cifar10_figures.errors(results, WEAK)
    assert figure is not None
    panels = iter(figure.axes)
    unsure = 0
    for quantity in WEAK:
        for kind in figures.KINDS:
            axes = next(panels)
            bottom = axes.get_ylim()[0]
            bars, bounds = set(), set()
            for scheme in (scheme for scheme in results["schemes"] if scheme["kind"] == kind):
                there = [cell for cell in scheme["cells"] if not cell["diverged"]]
                entries = [(cell["evaluations"], cell["weak"][quantity]) for cell in there]
                assert _drawn(axes, scheme["label"]) == [(x, e["value"]) for x, e in entries if e["sure"]]
                for x, entry in entries:
                    value, error = entry["value"], 2 * entry["standard_error"]
                    if entry["sure"]:
                        bars.add((x, max(value - error, bottom), value + error))
                    else:
                        bounds.add((x, bottom, value + 2 * max(entry["standard_error"], entry["noise"])))
                        unsure += 1
            assert _bars(axes, "bar") == bars
            assert _bars(axes, "bound") == bounds
            (band,) = [patch for patch in axes.patches if patch.get_gid() == "reference"]
            assert band.get_extents().transformed(axes.transData.inverted()).y1 == pytest.approx(
                results["schemes"][0]["systematic"][quantity], rel=1e-6
            )
    assert unsure


def test_a_point_within_its_noise_is_a_bound_and_one_above_is_a_point() -> None:
    """The same cell, once below and once above: from line to bound."""
    study = synthetic(("RVV",), (20,), noise=1e-6)
    for sure, points in ((True, 1), (False, 0)):
        study["schemes"][0]["cells"][0]["weak"]["mean"]["sure"] = sure
        figure = cifar10_figures.errors(study, ["mean"])
        assert figure is not None
        assert len(_drawn(figure.axes[0], "RVV")) == points
        assert len(_bars(figure.axes[0], "bound")) == 1 - points
    point = cifar10_figures.measured({"strong": {"value": -1.0, "standard_error": 2.0}})["strong"]
    assert not point["sure"]
    assert cifar10_figures.upper(point) == 3.0


def test_the_figure_of_power_shows_the_mean_of_the_channels(results: Results) -> None:
    """A panel per scheme, a line per budget that did not diverge, wavenumber 0 at the left of the log axis."""
    figure = cifar10_figures.power(results)
    assert figure is not None
    for axes, scheme in zip(figure.axes, results["schemes"], strict=False):
        assert axes.get_title(loc="left") == scheme["label"]
        for cell in scheme["cells"]:
            drawn = _drawn(axes, str(cell["nfe"]))
            if cell["diverged"]:
                assert drawn == []
                continue
            k = [max(k, 0.6) for k in cell["power"]["wavenumber"]]
            ratio = np.mean(cell["power"]["ratio"], axis=0)
            assert np.array(drawn) == pytest.approx(np.transpose([k, ratio]), rel=1e-12)


def test_the_figure_of_predictions_pairs_each_cell_with_its_prediction(results: Results) -> None:
    """Every measured quantity that the comparison names, and the published FIDs."""
    figure = cifar10_scatter.theory(results)
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == len(FEW)
    cells = [cell for scheme in results["schemes"] for cell in scheme["cells"] if cell["predicted"] is not None]
    for name, axes in zip(FEW, panels, strict=True):
        points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines() if line.get_gid() == "point"}
        if name == "published FID":
            assert points == {(cell["predicted"], cell["published_fid"]) for cell in cells if cell["published_fid"]}
            continue
        found = [(cell["predicted"], cifar10_figures.measured(cell).get(name)) for cell in cells]
        assert points == {(x, point["value"]) for x, point in found if point and point["sure"]}


@pytest.mark.parametrize(("name", "other"), [("strong error", "strong"), ("energy distance", "energy")])
def test_a_compared_quantity_is_found_by_its_longer_name(results: Results, name: str, other: str) -> None:
    assert cifar10_scatter._pairs(results, name) == cifar10_scatter._pairs(results, other) != []
    assert cifar10_scatter._pairs(results, f"{other} of another kind") == []


def test_the_figure_of_rounding_has_a_point_for_every_change_beside_a_sure_error() -> None:
    results = with_precisions(synthetic(NAMES, noise=0.002, compared=FEW))
    figure = cifar10_scatter.rounding(results)
    assert figure is not None
    sure = {
        name: [
            (cell["weak"][name]["value"], cell["precisions"]["bfloat16"]["change"][name]["value"])
            for scheme in results["schemes"]
            for cell in scheme["cells"]
            if cell["weak"] and cell["weak"][name]["sure"]
        ]
        for name in WEAK
    }
    panels = [axes for axes in figure.axes if (place := axes.get_subplotspec()) and place.rowspan.start == 1]
    assert panels[0].get_ylabel() == "change by bfloat16"
    assert len(panels) == len(WEAK)
    for axes, name in zip(panels, WEAK, strict=True):
        drawn = [
            (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
            for line in axes.lines
            if line.get_gid() in ("point", "unsure")
        ]
        np.testing.assert_allclose(sorted(drawn), sorted(sure[name]))
        (equal,) = (line for line in axes.lines if line.get_gid() == "equal")
        np.testing.assert_array_equal(equal.get_xdata(), equal.get_ydata())
    assert cifar10_scatter.rounding(synthetic(NAMES, compared=FEW)) is None

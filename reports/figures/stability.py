"""The stability figures, from the report's results alone: growth over runs, and the steps that are unstable."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...integrators.grids import time_grid
from ...theory.model import Parameters
from . import style

Results = dict[str, Any]

DESCRIPTIONS = {
    "stability-growth": "largest growth of a perturbation against network evaluations, log-log, a line per scheme",
    "stability-last-step": "excess of the last step's spectral radius by data variance and step, a panel per scheme",
    "stability-trajectory": "excess of a step's spectral radius over time and step size, a panel per scheme",
}
_LEVELS = (1.5, 2, 4, 8)
_SHADES = ("#fee6ce", "#fdbe85", "#fd8d3c", "#d94801", "#7f2704")
_PATHS = {"uniform": ("#0072B2", "-"), "quadratic": ("#0072B2", (0, (3, 1.4)))}
_TOP = 1e3


def drawings() -> dict[str, Callable[[Results], Figure]]:
    """What draws each stability figure, by file name, from the report's results."""
    return {
        "stability-growth": growth,
        "stability-last-step": last_step,
        "stability-trajectory": trajectory,
    }


def growth(results: Results) -> Figure:
    """Growth against NFE: a row of panels per kind of scheme, a column per grid."""
    study, groups = results["stability_study"], style._groups(results)
    top = _highest(results)
    with style.mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 0.5 + 2.9 * len(groups))
        panels = []
        grid_of_axes = figure.subplots(len(groups), len(study["grids"]), sharex=True, sharey=True, squeeze=False)
        for row, (kind, schemes) in zip(grid_of_axes, groups, strict=True):
            for axes, grid in zip(row, study["grids"], strict=True):
                axes.set_title(f"{kind}, {grid} grid")
                axes.set_xscale("log")
                axes.set_yscale("log")
                ends = []
                for place, scheme in schemes:
                    runs = scheme["stability"]["growth"][grid]
                    values = [np.nan if run["growth"] is None else run["growth"] for run in runs]
                    shown = [value if value <= _TOP else np.nan for value in values]
                    ends.append(style._curve(axes, place, scheme["label"], [run["nfe"] for run in runs], shown))
                panels.append((axes, [end for end in ends if end]))
        for axes, _ in panels:
            axes.set_xlim(0.85 * study["budgets"][0], 1.12 * study["budgets"][-1])
            axes.set_ylim(0.9, top)
            style._nfe_ticks(axes, study["budgets"])
            axes.yaxis.set_major_formatter(style.FuncFormatter(lambda value, _: f"{value:g}"))
        for index, axes in np.ndenumerate(grid_of_axes):
            style._level(axes, study["factor"], f"stable: at most {study['factor']:g}" if index[1] == 0 else "")
        for axes in grid_of_axes[-1]:
            axes.set_xlabel("network evaluations (NFE)")
        for axes in grid_of_axes[:, 0]:
            axes.set_ylabel("largest growth of a perturbation")
    return style._finish(figure, panels)


def _highest(results: Results) -> float:
    """The top of the panels: the decade that holds all runs, up to `_TOP`."""
    runs = [run for s in results["schemes"] for runs in s["stability"]["growth"].values() for run in runs]
    if any(run["growth"] is None for run in runs):  # overflowed
        return _TOP
    largest = max((run["growth"] for run in runs), default=1.0)
    return float(min(_TOP, 10 ** np.ceil(np.log10(1.2 * max(largest, 1)))))


def last_step(results: Results) -> Figure:
    """The step that ends at the cut-off, over (data variance, h)."""
    study = results["stability_study"]
    budget, low_high = study["budget"], study["variances"]

    def paths(axes: Axes, scheme: Results) -> None:
        for grid, run in scheme["stability"]["budget"].items():
            if run:
                axes.axhline(run["last_h"], color=_PATHS[grid][0], linestyle=_PATHS[grid][1], linewidth=1.3)
        for edge in low_high:
            axes.axvline(edge, color="#555555", linewidth=0.8, linestyle=(0, (1, 1.5)))

    return _regions(
        results, "last_step", "variance", "data variance $s^2$", "length $h$ of the last step", paths,
        [(f"last step at {budget} NFE, {grid} grid", _PATHS[grid]) for grid in study["grids"]]
        + [("CIFAR-10: smallest, largest", ("#555555", (0, (1, 1.5))))],
    )  # fmt: skip


def trajectory(results: Results) -> Figure:
    """A step from t, at the worst eigenvalue, over (t, h), with the grids' steps."""
    study = results["stability_study"]
    eps, T = results["parameters"]["eps"], results["parameters"]["T"]
    models = [
        Parameters(**{k: v for k, v in model["parameters"].items() if k not in ("M_inv", "T")})
        for model in results["models"]
    ]

    def paths(axes: Axes, scheme: Results) -> None:
        t = np.geomspace(2 * eps, T, 200)
        axes.fill_between(
            t, t - eps, 2 * T, color="#f2f2f2", hatch="////", edgecolor="#cccccc", linewidth=0, zorder=0.5
        )
        for grid, run in scheme["stability"]["budget"].items():
            if run:
                taus = time_grid(grid, run["steps"], models[scheme["model"]])
                axes.plot(
                    T - taus[:-1], np.diff(taus), color=_PATHS[grid][0], linestyle=_PATHS[grid][1], linewidth=1.3,
                    marker=".", markersize=2.2,
                )  # fmt: skip

    budget = study["budget"]
    return _regions(
        results, "trajectory", "t", "time $t$ at which the step begins (the data are at the left)", "step $h$", paths,
        [(f"steps at {budget} NFE, {grid} grid", _PATHS[grid]) for grid in study["grids"]],
    )  # fmt: skip


def _regions(
    results: Results, name: str, across: str, xlabel: str, ylabel: str, paths: Any, legend: list[tuple[str, Any]]
) -> Figure:
    """Small multiples of a region, one panel per scheme, all on the same axes."""
    study = results["stability_study"]
    schemes = [scheme for _, group in style._groups(results) for _, scheme in group]
    columns = min(4, len(schemes))
    rows = -(-len(schemes) // columns)
    levels = [study["excess"], *_LEVELS]
    x, h = (np.array(study["axes"][axis], dtype=float) for axis in (across, "h"))
    with style.mpl.rc_context({**style._STYLE, "axes.grid": False, "hatch.linewidth": 0.4}):
        figure = style._figure(style._WIDTH, 0.9 + 1.65 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(schemes) :]:
            axes.set_visible(False)
        for index, scheme in enumerate(schemes):
            axes = grid.flat[index]
            values = np.array(scheme["stability"]["regions"][name], dtype=float)
            axes.set_xscale("log")
            axes.set_yscale("log")
            if (values > levels[0]).any():
                axes.contourf(x, h, values, levels=[*levels, 1e10], colors=_SHADES, zorder=1)
            if (values > levels[0]).any() and (values < levels[0]).any():
                axes.contour(x, h, values, levels=levels[:1], colors="black", linewidths=1.1, zorder=2)
            paths(axes, scheme)
            axes.set_xlim(x[0], x[-1])
            axes.set_ylim(h[0], h[-1])
            cost = scheme["nfe_per_step"]
            title = f"{style._short(scheme['label'], 18)}, {cost} NFE"
            axes.set_title(title, parse_math=False, fontsize=8 if len(title) < 22 else 6.8)
            axes.tick_params(labelbottom=index + columns >= len(schemes))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_locator(style.NullLocator())
        figure.supxlabel(xlabel, fontsize=8)
        figure.supylabel(ylabel, fontsize=8)
        shades = [
            Patch(color=shade, label=f"{low:g} to {high:g}" if high < 1e9 else f"above {low:g}")
            for shade, (low, high) in zip(_SHADES, pairwise([*levels, 1e10]), strict=True)
        ]
        lines = [Line2D([], [], color=c, linestyle=line, linewidth=1.3, label=text) for text, (c, line) in legend]
        figure.legend(
            handles=[*shades, *lines], loc="outside upper center", ncols=5, fontsize=6.8, frameon=False,
            title="spectral radius of the step over that of the dynamics (white: stable)", title_fontsize=7.2,
            handlelength=2.2, columnspacing=1.4,
        )  # fmt: skip
    return style._finish(figure, [])

"""The figure of a survey: distance to the data against evaluations, the samplers that differ most in colour."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import style

Results = dict[str, Any]


def distances(results: Results, shown: int = 8) -> Figure:
    """The Frechet distance to CIFAR-10's Gaussian against NFE, a panel per grid: grey for all samplers, in colour the
    `shown` nearest at 50 evaluations of different names."""
    grids = [grid for grid in results["grids"] if any(grid in entry["distances"] for entry in results["samplers"])]
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 3.9)
        row = figure.subplots(1, len(grids), sharex=True, sharey=True, squeeze=False)[0]
        panels = []
        for axes, grid in zip(row, grids, strict=True):
            axes.set_title(f"{grid} grid")
            axes.set_xscale("log")
            axes.set_yscale("log")
            entries = [entry for entry in results["samplers"] if grid in entry["distances"]]
            for entry in entries:
                axes.plot(*_points(entry, grid), color="#cfcfcf", linewidth=0.6, zorder=1)
            best = sorted(entries, key=lambda entry: _at(entry, grid, 50))[:shown]
            ends = [
                style._curve(axes, place, _short(entry["sampler"]), *_points(entry, grid))
                for place, entry in enumerate(best)
            ]
            panels.append((axes, [end for end in ends if end]))
            budgets = results["budgets"]
            axes.xaxis.set_major_locator(FixedLocator(budgets))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlim(0.85 * min(budgets), 1.15 * max(budgets))
            axes.set_xlabel("network evaluations (NFE)")
        row[0].set_ylabel("Fréchet distance to the data")
    return style._finish(figure, panels)


def _short(name: str) -> str:
    """A sampler's name and settings, short enough for a label and still its own: DPM-multi, sde-dpm++, order 3."""
    called, *settings = name.split(" ")
    for word in ("sample_", "Scheduler", "Discrete", "Solver"):
        called = called.replace(word, "")
    called = called.replace("Multistep", "-multi").replace("Singlestep", "-single")
    values = [
        key.removeprefix("use_").replace("_", " ")
        if value == "True"
        else value
        if len(value) > 4
        else f"{key.split('_')[-1]} {value}"
        for key, _, value in (s.partition("=") for s in settings)
    ]
    return ", ".join([called, *(value.replace("dpmsolver++", "dpm++") for value in values)])


def _points(entry: Results, grid: str) -> tuple[list[float], list[float]]:
    levels = [level for level in entry["distances"][grid] if level["nfe"] is not None]
    return [level["nfe"] for level in levels], [
        np.nan if level["distance"] is None else level["distance"] for level in levels
    ]


def _at(entry: Results, grid: str, budget: int) -> float:
    found = [level["distance"] for level in entry["distances"][grid] if level["budget"] == budget]
    return found[0] if found and found[0] is not None else np.inf

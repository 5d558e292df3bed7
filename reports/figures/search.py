"""The figure of a search: the distance to the data against evaluations, the front in colour."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from . import style

Results = dict[str, Any]


def front(results: Results) -> Figure:
    """The Frechet distance to CIFAR-10's Gaussian against NFE: grey for the words that are kept, blue for the stable
    schemes of the catalogue, and the front of both, each of its schemes with its own mark: by its name in the
    catalogue, or its number among the words."""
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 4.2)
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for entry in results["best"]:
            axes.plot(*_points(entry["curve"]), color="#cfcfcf", linewidth=0.6, zorder=1)
        for entry in results["catalogue"]:
            if entry["stable"]:
                axes.plot(*_points(entry["curve"]), color="#56B4E9", linewidth=0.7, zorder=1.5)
        curves = {entry["label"]: entry["curve"] for entry in (*results["catalogue"], *results["best"])}
        short = {entry["label"]: entry["name"] or f"no. {place}" for place, entry in enumerate(results["best"], 1)}
        labels = dict.fromkeys(point["label"] for point in results["front"])
        ends = [
            style._curve(axes, place, short.get(label, label), *_points(curves[label]))
            for place, label in enumerate(labels)
        ]
        axes.step(*_points(results["front"]), where="post", color=style._GREY, linewidth=2.4, alpha=0.4, zorder=1.2)
        style._nfe_ticks(axes, results["budgets"])
        axes.set_xlim(0.85 * min(results["budgets"]), 1.1 * max(results["budgets"]))
        axes.set_xlabel("network evaluations (NFE)")
        axes.set_ylabel("Fréchet distance to the data")
    return style._finish(figure, [(axes, [end for end in ends if end])])


def _points(curve: list[Results]) -> tuple[list[float], list[float]]:
    return [point["nfe"] for point in curve], [point["distance"] for point in curve]

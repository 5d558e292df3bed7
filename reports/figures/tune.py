"""The figures of `tune`: the distance around each optimum, and what tuning does to every scheme of a study."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import style

Results = dict[str, Any]
_LABELS = {
    "lambda_s": "$\\lambda_s$",
    "eps": "cut-off $\\epsilon$",
    "rho": "exponent $\\rho$ of the grid",
    "blend": "one exponent (0) to free grid (1)",
}
_STABLE, _GROWS = "#0072B2", "#D55E00"


def tuned_curves(scheme: Results, settings: Results) -> Figure:
    """The distance around the optimum of one scheme: a row of panels for each budget, a column for each setting.

    Solid where the run is stable, dotted where a perturbation grows by more than the limit; a dot at the optimum, a
    grey level at the published settings, a band where the distance is near the optimum's."""
    budgets = scheme["budgets"]
    names = [name for name in _LABELS if any(c["name"] == name for entry in budgets for c in entry["curves"])]
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 0.6 + 1.75 * len(budgets))
        grid = figure.subplots(len(budgets), max(1, len(names)), sharey="row", squeeze=False)
        for row, entry in zip(grid, budgets, strict=True):
            for axes, name in zip(row, names, strict=False):
                found = [curve for curve in entry["curves"] if curve["name"] == name]
                if not found:
                    axes.set_visible(False)
                    continue
                _panel(axes, found[0], settings["limit"])
                axes.axhline(entry["published"]["distance"], color=style._GREY, linewidth=0.8, linestyle=(0, (4, 2)))
            row[0].set_ylabel(f"distance, {entry['nfe']} NFE")
        for column, name in zip(grid.T, names, strict=False):
            [axes for axes in column if axes.get_visible()][-1].set_xlabel(_LABELS[name])
        figure.suptitle(
            f"{scheme['name']}: around the optimum (dotted: growth above {settings['limit']:g}; dashed: as published)",
            fontsize=8.5,
        )
    return style._finish(figure, [])


def _panel(axes: Any, curve: Results, limit: float) -> None:
    values, distance, growth = (
        np.array([np.nan if v is None else v for v in curve[key]], dtype=float)
        for key in ("values", "distance", "growth")
    )
    stable = growth <= limit
    axes.set_yscale("log")
    if curve["name"] != "blend":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sorted({values[0], curve["at"], values[-1]})))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.plot(values, distance, color=_GROWS, linestyle=(0, (1, 1.2)), linewidth=1)
    axes.plot(values, np.where(stable, distance, np.nan), color=_STABLE, linewidth=1.4)
    low, high = (edge if edge is not None else values[i] for edge, i in zip(curve["near"], (0, -1), strict=True))
    axes.axvspan(low, high, color=_STABLE, alpha=0.12, linewidth=0)
    at = int(np.nanargmin(np.abs(values - curve["at"])))
    axes.plot([values[at]], [distance[at]], color="black", marker="o", markersize=3.5)


def tuned_distances(results: Results) -> Figure:
    """The distance against evaluations, as published and tuned, one exponent: a line per scheme, one scale for both."""
    groups = style._groups({"schemes": [s | {"label": s["name"]} for s in results["schemes"]]})
    budgets = results["settings"]["nfe"]
    columns = [("as published", "published"), ("tuned, one exponent", "family"), ("tuned, free grid", "free")]
    columns = [(t, k) for t, k in columns if any(e[k] for s in results["schemes"] for e in s["budgets"])]
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 0.5 + 2.9 * len(groups))
        grid = figure.subplots(len(groups), len(columns), sharex=True, sharey=True, squeeze=False)
        panels = []
        for row, (kind, schemes) in zip(grid, groups, strict=True):
            for axes, (title, key) in zip(row, columns, strict=True):
                axes.set_title(f"{kind}, {title}")
                axes.set_xscale("log")
                axes.set_yscale("log")
                ends = []
                for place, scheme in schemes:
                    found = [entry[key] for entry in scheme["budgets"]]
                    values = [np.nan if one is None or one["distance"] is None else one["distance"] for one in found]
                    shown = [value if value < _TOO_FAR else np.nan for value in values]
                    ends.append(style._curve(axes, place, scheme["name"], budgets, shown))
                    open_ones = [
                        (nfe, value)
                        for nfe, value, one in zip(budgets, shown, found, strict=True)
                        if one is not None and not one["stable"] and np.isfinite(value)
                    ]
                    if open_ones:
                        axes.plot(*zip(*open_ones, strict=True), linestyle="", marker="x", color=_GROWS, markersize=7)
                panels.append((axes, [end for end in ends if end] if key == columns[-1][1] else []))
        for axes, _ in panels:
            style._nfe_ticks(axes, budgets)
            axes.set_xlim(0.85 * min(budgets), 1.12 * max(budgets))
        for axes in grid[-1]:
            axes.set_xlabel("network evaluations (NFE)")
        for axes in grid[:, 0]:
            axes.set_ylabel("Fréchet distance to the data")
        limit = results["settings"]["limit"]
        figure.suptitle(f"{results['data']['name']}'s spectrum (cross: growth above {limit:g})", fontsize=8.5)
    return style._finish(figure, panels)


_TOO_FAR = 1e4

"""The figures of the section on nonlinear targets (targets), drawn from its results alone, in the style of `figures`.

noise-free    |error| against network evaluations, filled where positive and open where negative
sampled       the first sampled scheme on every target: |error| above, error over h^p below
intervals     the sampled schemes on the mixture: error over h^p, 95% intervals and the exact answer
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import style as style
from .functions import FUNCTIONS, MIXTURE, SAMPLED_FUNCTIONS

Results = dict[str, Any]

DESCRIPTIONS = {
    "targets-noise-free": "weak error on the bimodal mixture against network evaluations, log-log, a line per scheme",
    "targets-sampled": "weak error with 95% intervals against the number of steps, a column of panels per target",
    "targets-intervals": "scaled weak error with 95% intervals and the exact answer, a column of panels per scheme",
}
_PLAIN, _COUPLED, _EXACT = "#8a8a8a", "#0072B2", "#D55E00"


def drawings() -> dict[str, Callable[[Results], Figure]]:
    """What draws each figure of the section, by file name, from the report's results."""
    return {
        "targets-noise-free": noise_free_errors,
        "targets-sampled": sampled_errors,
        "targets-intervals": intervals,
    }


def noise_free_errors(results: Results) -> Figure:
    """|error| against NFE: a row of panels per kind of scheme, a column per function; open markers are negative."""
    groups, steps = style._groups(results), results["targets_study"]["steps"]
    with style.mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 0.5 + 3.1 * len(groups))
        grid = figure.subplots(len(groups), len(FUNCTIONS), sharex=True, sharey="col", squeeze=False)
        panels = []
        for row, (kind, schemes) in zip(grid, groups, strict=True):
            for axes, (function, label) in zip(row, FUNCTIONS.items(), strict=True):
                axes.set_title(f"{kind}: error of E {label}")
                axes.set_xscale("log")
                axes.set_yscale("log")
                ends = [_signed(axes, place, scheme, function) for place, scheme in schemes]
                panels.append((axes, [end for end in ends if end]))
        for column in grid.T:  # of one scale
            shown = np.concatenate([style._shown(axes)[1] for axes in column])
            bottom, top = (shown.min() / 4, shown.max() * 1.6) if shown.size else (0.1, 1.0)
            for axes in column:
                axes.set_ylim(bottom, top)
                style._reference_slopes(axes, bottom)
                style._nfe_ticks(axes, [*steps, 2 * steps[-1]])
        for axes in grid[-1]:
            axes.set_xlabel("network evaluations (NFE)")
        for axes in grid[:, 0]:
            axes.set_ylabel("|weak error|")
    return style._finish(figure, panels)


def _signed(axes: Axes, place: int, scheme: Results, function: str) -> tuple[str, str, float, float] | None:
    """A scheme's errors: filled where positive, open where negative, joined where neighbours have one sign."""
    levels = scheme["noise_free"].get("levels", [])
    points = [(level["nfe"], level["weak_errors"][function]["value"]) for level in levels]
    drawn = [(x, value) for x, value in points if value and x]
    if not drawn:
        return None
    colour, marker, line, _ = style._style(place)
    for (x, value), (later, after) in pairwise(points):
        if value and after and value * after > 0:
            axes.plot([x, later], np.abs([value, after]), color=colour, linestyle=line)
    for sign, fill in ((1, colour), (-1, "white")):
        chosen = [(x, abs(value)) for x, value in drawn if value * sign > 0]
        axes.plot(*np.array(chosen).reshape(-1, 2).T, linestyle="", marker=marker, color=colour, markersize=4.2,
                  markerfacecolor=fill, markeredgewidth=0.9)  # fmt: skip
    return scheme["label"], colour, drawn[-1][0], abs(drawn[-1][1])


def sampled_errors(results: Results) -> Figure:
    """The first sampled scheme on every target: |error of E x^2| on top, error over h^p below."""
    first = results["targets_study"]["sampled"]
    entries = {entry["target"]: entry for entry in reversed(first) if not entry["refused"]}
    entries = {name: entries[name] for name in reversed(results["targets_study"]["targets"]) if name in entries}
    function, label = next(iter(SAMPLED_FUNCTIONS.items()))
    with style.mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 4.3)
        if not entries:
            return _empty(figure)
        grid = figure.subplots(2, len(entries), sharex="col", squeeze=False)
        for column, (name, entry) in enumerate(entries.items()):
            top, bottom = grid[:, column]
            top.set_title(f"{name}\n({_dimensions(entry)})", fontsize=8)
            _bars(top, entry, function, absolute=True)
            _bars(bottom, entry, function, absolute=False)
            bottom.set_xlabel("number of steps $N$")
        grid[0, 0].set_ylabel(f"|error of E {label}|")
        grid[1, 0].set_ylabel("error $/\\,h^p$")
        _legend(figure, any(level["exact"] is not None for e in entries.values() for level in e["estimates"][function]))
    return style._finish(figure, [])


def intervals(results: Results) -> Figure:
    """The sampled schemes on the mixture: error over h^p with 95% intervals, and the exact one; a row per function."""
    study = results["targets_study"]
    entries = [entry for entry in study["sampled"] if entry["target"] == MIXTURE and not entry["refused"]]
    with style.mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH if len(entries) > 1 else 0.6 * style._WIDTH, 4.3)
        if not entries:
            return _empty(figure)
        grid = figure.subplots(len(SAMPLED_FUNCTIONS), len(entries), sharex=True, squeeze=False)
        for column, entry in enumerate(entries):
            grid[0, column].set_title(style._short(results["schemes"][entry["scheme"]]["label"]), parse_math=False)
            grid[-1, column].set_xlabel("number of steps $N$")
            for axes, function in zip(grid[:, column], SAMPLED_FUNCTIONS, strict=True):
                _bars(axes, entry, function, absolute=False)
        for axes, label in zip(grid[:, 0], SAMPLED_FUNCTIONS.values(), strict=True):
            axes.set_ylabel(f"error of E {label} $/\\,h^p$")
        _legend(figure, exact=True)
    return style._finish(figure, [])


def _bars(axes: Axes, entry: Results, function: str, absolute: bool) -> None:
    """Plain and multilevel estimates with their intervals, and the exact answers, of one function."""
    levels, order = entry["estimates"][function], entry["order"]["expected"]
    steps = np.array([level["steps"] for level in levels], dtype=float)
    h = np.array([level["h"] for level in entry["levels"]], dtype=float)
    scale = np.ones_like(h) if absolute else h**order

    def column(name: str, part: str) -> np.ndarray:
        return np.array([level[name][part] for level in levels], dtype=float) / scale

    axes.set_xscale("log")
    axes.set_xlim(steps[0] / 1.4, steps[-1] * 1.4)
    axes.set_xticks(steps, [f"{count:g}" for count in steps])
    axes.xaxis.set_minor_locator(style.NullLocator())
    exact = np.array([np.nan if level["exact"] is None else level["exact"] for level in levels], dtype=float) / scale
    sets = [
        ("plain", _PLAIN, "o", "white", 1.07, column("plain", "value"), column("plain", "half")),
        ("multilevel", _COUPLED, "s", _COUPLED, 1 / 1.07, column("multilevel", "value"), column("multilevel", "half")),
    ]
    if absolute:
        axes.set_yscale("log", nonpositive="clip")
        sizes = np.abs(np.concatenate([sets[1][5], exact]))
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        if sizes.size:
            axes.set_ylim(sizes.min() / 8, sizes.max() * 4)
    else:
        axes.axhline(0, color=style._GREY, linewidth=0.7, zorder=1)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))  # wider labels would push what is beside them off the page
    for _, colour, marker, fill, shift, value, half in sets:
        middle = np.abs(value) if absolute else value
        axes.errorbar(
            steps * shift, middle, half, color=colour, marker=marker, markerfacecolor=fill, markersize=3.6,
            linestyle="", elinewidth=1, capsize=2, capthick=0.9, zorder=3,
        )  # fmt: skip
    axes.plot(steps, np.abs(exact) if absolute else exact, color=_EXACT, linewidth=1.1, zorder=4)
    if not absolute:
        _scaled_limits(axes, np.concatenate([sets[1][5] - sets[1][6], sets[1][5] + sets[1][6], exact, [0]]))


def _scaled_limits(axes: Axes, values: np.ndarray) -> None:
    """Room for the multilevel intervals, twice over: plain ones grow like N and may leave the panel."""
    values = values[np.isfinite(values)]
    middle, reach = (values.max() + values.min()) / 2, (values.max() - values.min()) or 1.0
    axes.set_ylim(middle - 0.85 * reach, middle + 0.85 * reach)


def _legend(figure: Figure, exact: bool) -> None:
    handles = [
        Line2D([], [], color=_PLAIN, marker="o", markerfacecolor="white", markersize=4, label="plain, 95%"),
        Line2D([], [], color=_COUPLED, marker="s", markersize=4, label="coupled, multilevel, 95%"),
        *([Line2D([], [], color=_EXACT, label="exact, without sampling")] if exact else []),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=7, frameon=False)


def _empty(figure: Figure) -> Figure:
    figure.text(0.5, 0.5, "no study", ha="center")
    return style._finish(figure, [])


def _dimensions(entry: Results) -> str:
    count = entry["dimensions"]
    return f"{count:,} dimension{'' if count == 1 else 's'}"

"""The cells of the CIFAR-10 study as points, one of their numbers against another, log-log.

theory      across, the Gaussian reading's Frechet distance to the reference law; up, what was measured, or the FID
            published of another network: a panel for each quantity that the results compare
rounding    across, the weak error in float32; up, what a lower precision of the network changes of the same
            expectations: a row of panels for each precision

Colour and line are the scheme's, filled where it is stochastic and open where it is deterministic; the marker is the
budget's. Bars and bounds: `cifar10_figures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from . import style as style
from .cifar10_figures import bar, budgets, cells, few_ticks, limits, measured, names, numbered, subtitled

Results = dict[str, Any]
Pair = tuple[int, int, float, Results]  # the scheme's place, the budget, what is across, the point

DESCRIPTIONS = {
    "cifar10-theory": "measured errors against predicted distances, log-log, a panel per measured quantity",
    "cifar10-rounding": "changes by rounding against weak errors, log-log, a panel per precision and quantity",
}
PUBLISHED = "published FID"
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★"}  # of budgets, and as text


def draw(results: Results) -> dict[str, Figure]:
    """The figures that any cell has both numbers for, by file name."""
    drawn = {"cifar10-theory": theory(results), "cifar10-rounding": rounding(results)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def theory(results: Results) -> Figure | None:
    """Every quantity of the comparison, and the published FIDs, against the prediction, log-log."""
    compared = (results.get("comparison") or {}).get("quantities") or {}
    every = {name: _pairs(results, name) for name in dict.fromkeys([*compared, PUBLISHED])}
    panels = {name: pairs for name, pairs in every.items() if pairs}
    if not panels:
        return None
    across = [x for pairs in panels.values() for _, _, x, _ in pairs]
    columns = 3  # whatever there is, so that a panel has one size
    rows = -(-len(panels) // columns)
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 0.7 + 2.3 * rows)
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for index, (name, pairs) in enumerate(panels.items()):
            axes = grid.flat[index]
            _scatter(axes, results, pairs, across, limits([point for *_, point in pairs]))
            axes.tick_params(labelbottom=index + columns >= len(panels))
            axes.set_ylabel("published" if name == PUBLISHED else "measured", labelpad=1)
            subtitled(axes, "\n".join(textwrap.wrap(name, 24)), _correlations(compared.get(name) or []))
        label = "predicted Fréchet distance to the reference law (Gaussian reading, pixel²)"
        figure.supxlabel(label, fontsize=8, x=0.5 if len(panels) > 1 else 0.28)
        _legend(figure, results, {place for pairs in panels.values() for place, *_ in pairs})
    return style._finish(figure, [])


def rounding(results: Results) -> Figure | None:
    """What each precision changes of each quantity, against its weak error; on the diagonal they are as large."""
    precisions = [name for name in results["settings"]["precisions"][1:] if _changes(results, name)]
    quantities = [name for name in names(results, "weak") if any(name in _changes(results, p) for p in precisions)]
    if not quantities:
        return None
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 0.75 + 1.9 * len(precisions))
        grid = figure.subplots(len(precisions), len(quantities), sharex="col", squeeze=False)
        for column, quantity in enumerate(quantities):
            found = [_changes(results, precision).get(quantity, []) for precision in precisions]
            points = [point for pairs in found for *_, point in pairs]
            across = [x for pairs in found for _, _, x, _ in pairs]
            low, high = limits(points)
            for row, pairs in enumerate(found):
                axes = grid[row, column]
                _scatter(axes, results, pairs, across, (low, max(high, 1.6 * max(across))))
                ends = [min(across) / 3, 3 * max(across)]
                axes.plot(ends, ends, color=style._GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1, gid="equal")
                axes.tick_params(labelbottom=row + 1 == len(precisions))
                if row == 0:
                    axes.set_title(quantity, parse_math=False)
                if column == 0:
                    axes.set_ylabel(f"change by {precisions[row]}")
        figure.supxlabel("weak error in float32 (units of Figure 1)", fontsize=8)
        _legend(figure, results, {place for p in precisions for q in _changes(results, p).values() for place, *_ in q})
    return style._finish(figure, [])


def _changes(results: Results, precision: str) -> dict[str, list[Pair]]:
    """By quantity, of the cells whose weak error stands above its noise: that, and what the precision changes."""
    found: dict[str, list[Pair]] = {}
    for place, scheme in enumerate(results["schemes"]):
        for nfe, cell in sorted(cells(scheme).items()):
            errors, twin = measured(cell), (cell.get("precisions") or {}).get(precision) or {}
            for quantity, point in numbered(twin.get("change") or {}).items():
                if quantity in errors and errors[quantity]["sure"] and max(point["value"], point["noise"] or 0) > 0:
                    found.setdefault(quantity, []).append((place, nfe, errors[quantity]["value"], point))
    return found


def _scatter(
    axes: Axes, results: Results, pairs: Sequence[Pair], across: Sequence[float], height: tuple[float, float]
) -> None:
    """All schemes' points in a log-log panel that `across` and `height` fit into."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(across) / 1.6, 1.6 * max(across))
    axes.set_ylim(*height)
    for place, scheme in enumerate(results["schemes"]):
        _trace(axes, results, place, scheme, [pair for pair in pairs if pair[0] == place])
    few_ticks(axes)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _pairs(results: Results, name: str) -> list[Pair]:
    """The cells that have both a prediction and the quantity."""
    return [
        (place, nfe, cell["predicted"], point)
        for place, scheme in enumerate(results["schemes"])
        for nfe, cell in sorted(cells(scheme).items())
        if (cell.get("predicted") or 0) > 0 and (point := _point(cell, name))
    ]


def _point(cell: Results, name: str) -> Results | None:
    """A compared quantity of a cell; a comparison may call the "strong" one "strong error", "energy" its distance."""
    if name != PUBLISHED:
        numbers = measured(cell)
        return numbers.get(name) or numbers.get(name.removesuffix(" distance").removesuffix(" error"))
    value = cell.get("published_fid")
    return None if value is None else {"value": value, "standard_error": None, "sure": True}


def _trace(axes: Axes, results: Results, place: int, scheme: Results, pairs: Sequence[Pair]) -> None:
    """A scheme's points, on a thin line through those that are sure."""
    colour, _, line, _ = style._style(place)
    sure = [(x, point["value"]) for *_, x, point in pairs if point["sure"]]
    if len(sure) > 1:
        axes.plot(*zip(*sure, strict=True), color=colour, linestyle=line, linewidth=0.7, alpha=0.55, zorder=1.5)
    for _, nfe, x, point in pairs:
        bar(axes, x, point, colour, axes.get_ylim()[0], axes.transData)
        if point["sure"]:
            axes.plot(
                [x], [point["value"]], color=colour, marker=_marker(results, nfe), markersize=4.2,
                markerfacecolor=colour if scheme["kind"] == "stochastic" else "white", markeredgewidth=0.9,
                linestyle="", zorder=3, gid="point",
            )  # fmt: skip


def _marker(results: Results, nfe: int) -> str:
    return list(MARKERS)[budgets(results).index(nfe) % len(MARKERS)]


def _correlations(entries: Sequence[Results]) -> list[str]:
    """The rank correlation of each budget, with its interval where there is one, in lines that a panel can hold."""
    found = []
    for entry in entries:
        if entry["correlation"] is not None:
            ends = [f"{round(end, 2) + 0.0:.2f}" for end in entry["interval"] or () if end is not None]
            interval = f" [{ends[0]}, {ends[1]}]" if len(ends) == 2 else ""
            budget = "over all" if entry["nfe"] is None else f"at {entry['nfe']}"
            found.append(
                f"{round(entry['correlation'], 2) + 0.0:.2f}{interval} {budget}".replace(" ", "\xa0").replace("-", "−")
            )
    return textwrap.wrap("ρ\xa0=\xa0" + "; ".join(found), 36) if found else []


def _legend(figure: Figure, results: Results, places: set[int]) -> None:
    """Which colour and line is which scheme, and above, which marker is which budget."""
    handles = []
    for place, scheme in enumerate(results["schemes"]):
        if place in places:
            colour, _, line, _ = style._style(place)
            filled = colour if scheme["kind"] == "stochastic" else "white"
            label = style._short(scheme["label"], 20).replace("$", r"\$")  # a legend reads its labels as formulas
            handles.append(
                Line2D([], [], color=colour, linestyle=line, linewidth=1, marker="o", markersize=4.5,
                       markerfacecolor=filled, label=label)
            )  # fmt: skip
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(8, len(handles)), fontsize=6.8, frameon=False,
        handlelength=2.6, columnspacing=1.4, title_fontsize=6.8,
        title="     ".join(f"{MARKERS[_marker(results, nfe)]} {nfe} NFE" for nfe in budgets(results)),
    )  # fmt: skip

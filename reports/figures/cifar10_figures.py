"""The figures of the CIFAR-10 study, drawn from its results: values in, matplotlib figures out, nothing is computed.

A scheme keeps its colour, marker and line everywhere, by its place in the study (`figures` says which they are).
Bars are `BARS` standard errors each way. What cannot be told from zero has an open diamond and a dotted bar from the
panel's lower edge up to `upper`, a bound. Diverged runs have a triangle at the top edge and their names above it, never
a point.

Read here and by the page: `cells`, a scheme's cells by budget; `measured`, a cell's numbers by their names. Prediction
and measurement: `cifar10_scatter`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from . import style as style

Results = dict[str, Any]

BARS = 2.0  # standard errors that a bar reaches each way
LARGEST = 8.0  # the largest power ratio, and the inverse of the smallest, that a panel shows
DESCRIPTIONS = {
    "cifar10-weak": "weak errors against network evaluations with error bars, log-log, a line per scheme",
    "cifar10-power": "radially averaged power over that of the reference against wavenumber, a panel per scheme",
    "cifar10-distances": "distances and strong error against network evaluations with error bars, a line per scheme",
    "cifar10-training": "training loss against training steps, log-log",
}
# What a quantity's axis says: cifar10.study.statistics has the definitions.
_AXES = {
    "mean": "rms error of mean pixels",
    "spectrum": "rms relative error of power",
    "higher moments": "rms error, over powers of σ",
    "Fourier features": "rms error of mean cosines",
    "energy": "energy distance (pixel units)",
    "sliced Wasserstein": "squared distance (pixel²)",
    "spectral Fréchet": "squared distance (pixel², summed)",
    "strong": "rms distance (pixel units)",
}
_DODGE = 2.4  # points between the bars of neighbouring schemes at one budget
_PANEL_WIDTH = 2.45  # inches of a panel of errors, about: its leaders begin at the moved points
_ZERO = 0.6  # where the log axis of wavenumbers has its 0
_BUDGET_LINES = ((0, (1.2, 1.2)), (0, (4, 1.5)), "-")


# --- Reading the results --------------------------------------------------------------------------------------------


def cells(scheme: Results) -> dict[int, Results]:
    """The cells that there are, by budget."""
    return {cell["nfe"]: cell for cell in scheme.get("cells") or () if cell}


def measured(cell: Results) -> dict[str, Results]:
    """A cell's numbers by name: {"value", "standard_error" and "noise": or None, "sure"}; none if it diverged.

    Weak errors and distances have the results' names, the strong error is "strong", and a Frechet distance
    "Fréchet distance of pixels to reference", and so on. A number without "sure" is so where its bar stays above zero.
    """
    if cell.get("diverged"):
        return {}
    found: dict[str, Results] = {**(cell.get("weak") or {}), **(cell.get("distances") or {})}
    found["strong"] = cell.get("strong") or {}
    for space, distances in (cell.get("frechet") or {}).items():
        for target, distance in (distances or {}).items():
            entry = distance if isinstance(distance, dict) else {"value": distance}
            found[f"Fréchet distance of {space} {target.replace('_', ' ')}"] = entry
    return numbered(found)


def numbered(found: Mapping[str, Results]) -> dict[str, Results]:
    """Those of the entries {"value", "standard_error", ...} that have a value, as `measured` gives them."""
    numbers = {}
    for name, entry in found.items():
        if entry and entry.get("value") is not None:
            error = entry.get("standard_error")
            above = entry["value"] > BARS * (error or 0)
            numbers[name] = {
                "value": entry["value"],
                "standard_error": error,
                "noise": entry.get("noise"),
                "sure": entry.get("sure", above),
            }
    return numbers


def upper(point: Results) -> float:
    """Where a point's bar ends. Of one that is not sure, a bound: its noise is all directions', not only its own."""
    spread = point["standard_error"] or 0.0
    return point["value"] + BARS * (spread if point["sure"] else max(spread, point.get("noise") or 0.0))


def names(results: Results, part: str) -> list[str]:
    """The quantities that occur in `part` ("weak", "distances", "moments") of any cell, in order of appearance."""
    found = (cell.get(part) or {} for scheme in results["schemes"] for cell in cells(scheme).values())
    return list(dict.fromkeys(name for entries in found for name in entries))


def budgets(results: Results) -> list[int]:
    """The budgets of evaluations, increasing, whether or not a scheme has a cell there."""
    return sorted(results["settings"]["nfe"])


def _groups(results: Results) -> list[tuple[str, list[tuple[int, Results]]]]:
    """The kinds that occur, each with its schemes and their places in the study, which fix their style."""
    placed = list(enumerate(results["schemes"]))
    kinds = [(kind, [(place, scheme) for place, scheme in placed if scheme["kind"] == kind]) for kind in style.KINDS]
    return [(kind, schemes) for kind, schemes in kinds if schemes]


# --- Figures --------------------------------------------------------------------------------------------------------


def draw(results: Results) -> dict[str, Figure]:
    """Every figure that the results have something for, by file name."""
    drawn = {
        "cifar10-weak": errors(results, names(results, "weak")),
        "cifar10-power": power(results),
        "cifar10-distances": errors(results, [*names(results, "distances"), "strong"]),
        "cifar10-training": training(results["model"]),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def errors(results: Results, quantities: Sequence[str]) -> Figure | None:
    """Quantities against evaluations: a row of panels per quantity, a column per kind of scheme, one scale a row."""
    groups = _groups(results)
    there = {name for scheme in results["schemes"] for cell in cells(scheme).values() for name in measured(cell)}
    rows = [name for name in quantities if name in there]
    if not rows:
        return None
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH if len(groups) > 1 else 0.62 * style._WIDTH, 0.45 + 2.05 * len(rows))
        grid = figure.subplots(len(rows), len(groups), sharex=True, sharey="row", squeeze=False)
        panels: list[style.Panel] = []
        for line, (quantity, axes_of_row) in enumerate(zip(rows, grid, strict=True)):
            bottom, top = _range(results, quantity)
            for axes, (kind, schemes) in zip(axes_of_row, groups, strict=True):
                axes.set_xscale("log")
                axes.set_yscale("log")
                _budget_axis(axes, budgets(results))
                axes.set_ylim(bottom, top)
                few_ticks(axes)
                _reference_band(axes, schemes, quantity, bottom)
                shift = (len(schemes) - 1) / 2
                ends = [
                    _scheme(axes, place, scheme, quantity, bottom, _DODGE * (rank - shift))
                    for rank, (place, scheme) in enumerate(schemes)
                ]
                panels.append((axes, [end for end in ends if end]))
                axes.set_title(f"{quantity}, {kind}", parse_math=False)
                if line == 0:
                    _say_diverged(axes, f"{quantity}, {kind}", schemes)
            axes_of_row[0].set_ylabel(_AXES.get(quantity, quantity), parse_math=False)
        for axes in grid[-1]:
            axes.set_xlabel("network evaluations (NFE)")
    return style._finish(figure, panels)


def power(results: Results) -> Figure | None:
    """The ratio of radially averaged powers against wavenumber: a panel per scheme, a line per budget."""
    schemes = [
        (place, scheme, curves)
        for _, group in _groups(results)
        for place, scheme in group
        if (curves := {nfe: cell["power"] for nfe, cell in cells(scheme).items() if _has_power(cell)})
    ]
    if not schemes:
        return None
    columns = 4  # whatever there is, so that a panel has one size
    rows = -(-len(schemes) // columns)
    means = [_channel_mean(curve["ratio"]) for *_, curves in schemes for curve in curves.values()]
    positive = np.concatenate(means)
    spread = np.abs(np.log(positive[positive > 0])).max(initial=0)
    edge = float(np.exp(np.clip(1.15 * spread, np.log(1.5), np.log(LARGEST))))
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 0.55 + 1.55 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(schemes) :]:
            axes.set_visible(False)
        panels: list[style.Panel] = []
        for index, (place, scheme, curves) in enumerate(schemes):
            axes = grid.flat[index]
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.axhline(1, color=style._GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
            ends = []
            for nfe, curve in sorted(curves.items()):
                colour, line = _budget_style(results, place, nfe)
                k, ratio = np.array(curve["wavenumber"], dtype=float), _channel_mean(curve["ratio"])
                # The channels' errors are not independent: their mean bounds that of the mean, whatever they share.
                half = BARS * _channel_mean(curve["standard_error"])
                k = np.maximum(k, _ZERO)
                axes.plot(k, ratio, color=colour, linestyle=line, linewidth=1.3, label=str(nfe))
                low = np.maximum(ratio - half, 1e-9)
                axes.fill_between(k, low, ratio + half, color=colour, alpha=0.2, linewidth=0)
                if 1 / edge < ratio[-1] < edge:
                    ends.append((str(nfe), colour, k[-1], ratio[-1]))
            axes.set_title(style._short(scheme["label"], 20), parse_math=False, fontsize=8)
            axes.set_ylim(1 / edge, edge)
            _ratio_ticks(axes, edge)
            axes.xaxis.set_major_locator(FixedLocator([_ZERO, 1, 2, 4, 8, 16]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == _ZERO else f"{value:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.tick_params(labelbottom=index + columns >= len(schemes))
            panels.append((axes, ends))
        figure.supxlabel("wavenumber (cycles per image side)", fontsize=8, x=min(1, len(schemes) / columns) / 2)
        figure.supylabel("power / power of the reference", fontsize=8)
    return style._finish(figure, panels)


def training(model: Results) -> Figure | None:
    """The training loss, the mean over blocks of steps at the blocks' ends; the held-out loss, if it is a number."""
    losses = model.get("losses")
    if not losses or not losses["loss"]:
        return None
    with mpl.rc_context(style._STYLE):
        figure = style._figure(0.62 * style._WIDTH, 2.4)
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        steps = losses["steps_per_point"] * np.arange(1, len(losses["loss"]) + 1)
        axes.plot(steps, losses["loss"], color=style.COLOURS[2])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        held = model.get("held_out_loss")
        if isinstance(held, Mapping):
            held = held.get("value")
        if isinstance(held, int | float):
            style._level(axes, held, "held-out images")
        axes.set_xlabel("training step")
        axes.set_ylabel("mean squared error of $\\epsilon$")
    return style._finish(figure, [])


# --- Parts of figures -----------------------------------------------------------------------------------------------


def _scheme(
    axes: Axes, place: int, scheme: Results, quantity: str, bottom: float, dodge: float
) -> tuple[str, str, float, float] | None:
    """A scheme's line with its bars; its label, colour and last point (a bound's end), or None if it has none."""
    colour, marker, line, is_open = style._style(place)
    found = [(cell, measured(cell).get(quantity)) for _, cell in sorted(cells(scheme).items())]
    points = [(cell["evaluations"], point) for cell, point in found if point]
    sure = [(x, point["value"]) for x, point in points if point["sure"]]
    shift = axes.transData + ScaledTranslation(dodge / 72, 0, axes.figure.dpi_scale_trans)  # type: ignore[union-attr]
    if sure:
        axes.plot(
            *zip(*sure, strict=True), color=colour, marker=marker, linestyle=line, markersize=4.4 if is_open else 3.4,
            markerfacecolor="white" if is_open else colour, markeredgewidth=0.9, transform=shift, zorder=3,
            label=scheme["label"],
        )  # fmt: skip
    for x, point in points:
        bar(axes, x, point, colour, bottom, shift)
    for cell in cells(scheme).values():
        if cell.get("diverged"):
            across = axes.get_xaxis_transform() + ScaledTranslation(dodge / 72, 0, axes.figure.dpi_scale_trans)  # type: ignore[union-attr]
            axes.plot([cell["nfe"]], [0.965], color=colour, marker=6, markersize=4.5, linestyle="", transform=across)
    if not points or upper(points[-1][1]) <= bottom:
        return None
    x, last = points[-1]
    left, right = axes.get_xlim()
    moved = x * (right / left) ** (dodge / 72 / _PANEL_WIDTH)  # where the point is seen, about
    return scheme["label"], colour, moved, last["value"] if last["sure"] else upper(last)


def bar(axes: Axes, x: float, point: Results, colour: str, bottom: float, transform: Any) -> None:
    """The bar of a point; one that is not sure becomes an upper bound: from the lower edge, with an open diamond."""
    half = BARS * (point["standard_error"] or 0)
    low, high = point["value"] - half, upper(point)
    if not point["sure"]:
        axes.plot(
            [x, x], [bottom, high], color=colour, linewidth=0.8, linestyle=(0, (1.5, 1)), transform=transform,
            zorder=2.4, gid="bound", marker="_", markevery=[1], markersize=4,
        )  # fmt: skip
        axes.plot(
            [x], [max(point["value"], bottom)], color=colour, marker="d", markersize=4.2, markerfacecolor="white",
            markeredgewidth=0.8, transform=transform, zorder=2.6, gid="unsure", linestyle="",
        )  # fmt: skip
    elif half:
        axes.plot(
            [x, x], [max(low, bottom), high], color=colour, linewidth=0.9, marker="_", markersize=3.4,
            transform=transform, zorder=2.5, gid="bar",
        )  # fmt: skip


def limits(points: Iterable[Results]) -> tuple[float, float]:
    """The range of a log axis that holds the points: sure ones themselves, the others by the ends of their bounds."""
    ends = [(point["value"] if point["sure"] else high, high) for point in points if (high := upper(point)) > 0]
    low = min((low for low, _ in ends if low > 0), default=1.0)
    return low / 2.2, 2 * max((high for _, high in ends), default=1.0)


def _range(results: Results, quantity: str) -> tuple[float, float]:
    found = [
        point
        for scheme in results["schemes"]
        for cell in cells(scheme).values()
        if (point := measured(cell).get(quantity))
    ]
    bottom, top = limits(found)
    own = [value for scheme in results["schemes"] if (value := _own_error(scheme, quantity))]
    return min([bottom, *(value / 1.5 for value in own if value > bottom / 10)]), top


def _own_error(scheme: Results, quantity: str) -> float | None:
    """What a scheme's reference itself may be off by, where the study says."""
    return (scheme.get("systematic") or {}).get(quantity)


def _reference_band(axes: Axes, schemes: Sequence[tuple[int, Results]], quantity: str, bottom: float) -> None:
    """Errors to a reference mean nothing below its own, the largest of what is known of it."""
    own = max((value for _, scheme in schemes if (value := _own_error(scheme, quantity))), default=0.0)
    if own > bottom:
        axes.axhspan(bottom, own, color="#dddddd", linewidth=0, zorder=0.5, gid="reference")
        first, *more = axes.xaxis.get_major_locator()()  # between the budgets there are no bars
        axes.text(
            (first * more[0]) ** 0.5 if more else 1.06 * axes.get_xlim()[0], own, "reference’s own error",
            fontsize=6.2, color=style._SOFT, va="bottom", ha="center" if more else "left",
        )  # fmt: skip


def _say_diverged(axes: Axes, title: str, schemes: Sequence[tuple[int, Results]]) -> None:
    """Under the title, which runs diverged."""
    found = [
        f"{style._short(scheme['label'], 20)} at {', '.join(map(str, at))}"
        for _, scheme in schemes
        if (at := sorted(nfe for nfe, cell in cells(scheme).items() if cell.get("diverged")))
    ]
    if found:
        subtitled(axes, title, textwrap.wrap("▲ diverged: " + "; ".join(found), 58))


def subtitled(axes: Axes, title: str, lines: Sequence[str]) -> None:
    """A panel's title, with smaller lines between it and the panel."""
    axes.set_title(title, parse_math=False, pad=5 + 8.5 * len(lines))
    axes.annotate(
        "\n".join(lines), (0, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points",
        fontsize=6.2, color=style._SOFT, va="bottom", parse_math=False, annotation_clip=False,
    )  # fmt: skip


def _budget_axis(axes: Axes, values: Sequence[int]) -> None:
    axes.set_xlim(0.8 * min(values), 1.25 * max(values))
    style._nfe_ticks(axes, values)


def few_ticks(axes: Axes) -> None:
    """Few ticks with plain labels where the axis spans less than a decade or so."""
    low, high = axes.get_ylim()
    if high / low < 100:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())


def _ratio_ticks(axes: Axes, edge: float) -> None:
    half = next(ticks for limit, ticks in ((2, (1.25, 1.5)), (4, (1.5, 2, 3)), (9, (2, 4))) if edge < limit)
    axes.yaxis.set_major_locator(FixedLocator(sorted([1 / tick for tick in half] + [1, *half])))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _has_power(cell: Results) -> bool:
    return not cell.get("diverged") and bool(cell.get("power"))


def _channel_mean(values: Sequence[Sequence[float | None]]) -> np.ndarray:
    """The mean over the channels, (wavenumbers,)."""
    return np.array(values, dtype=float).mean(0)


def _budget_style(results: Results, place: int, nfe: int) -> tuple[str, Any]:
    """The scheme's colour, paler the fewer the evaluations; the line of the budget, solid for the largest."""
    order = budgets(results)
    back = len(order) - 1 - order.index(nfe)
    share = max(0.45, 1 - 0.27 * back)
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(style.COLOURS[place % len(style.COLOURS)]))
    return to_hex((red, green, blue)), _BUDGET_LINES[max(0, len(_BUDGET_LINES) - 1 - back)]

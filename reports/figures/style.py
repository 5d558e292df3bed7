"""The report's figures, drawn from its results: values in, matplotlib figures out, nothing is computed or run.

A scheme keeps its colour, marker and line style in every figure; the three vary together, so that greyscale and colour
blindness lose nothing (colours: Okabe and Ito 2008, the yellow darkened). Curves are labelled at their ends. Files are
reproducible to the byte.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress, pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from .ticks import placed_once

Results = dict[str, Any]
End = tuple[str, str, float, float]  # a curve's label, colour and last point
Panel = tuple[Axes, list[End]]

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#8C6D00", "#56B4E9", "#6A3D9A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
LINES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
KINDS = ("stochastic", "deterministic")

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "svg.fonttype": "path",
    "svg.hashsalt": "weakorder",
}
_GREY = "#757575"
_INK, _SOFT = "#1b1b1b", "#555555"
_WIDTH = 7.4
_STACK = 0.042
_LABEL_SIZE = 7.0
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def drawings() -> dict[str, Callable[[Results], Figure]]:
    """What draws each figure of the report, by file name, from the report's results."""
    return {
        "convergence-steps": partial(convergence, against="steps", label="number of steps $N$"),
        "convergence-nfe": partial(convergence, against="nfe", label="network evaluations (NFE)"),
        "error-constants": error_constants,
        "local-slopes": local_slopes,
        "cifar10-spectrum": cifar10_spectrum,
    }


def as_svg(figure: Figure) -> bytes:
    """The figure as SVG, reproducible to the byte, text as outlines."""
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE), placed_once(figure):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return buffer.getvalue()


def as_png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE), placed_once(figure):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def convergence(results: Results, against: str, label: str) -> Figure:
    """The W2 error against "steps" or "nfe", log-log, with slopes 1 and 2."""

    def points(scheme: Results) -> tuple[list[float], list[float]]:
        return _column(scheme, against), _column(scheme, "error")

    figure, panels = _panels(results, 4.0, points)
    bottom = min((y for axes, _ in panels for y in _shown(axes)[1]), default=1.0) / 4
    for axes, _ in panels:
        axes.set_xlabel(label)
        axes.set_ylim(bottom, None)
        _reference_slopes(axes, bottom)
    panels[0][0].set_ylabel("$W_2$ error at $t$ = " + f"{results['order_study']['t_end']:g}")
    return _finish(figure, panels)


def error_constants(results: Results) -> Figure:
    """e(h) / h^p against h at the expected order p: flat where the error is asymptotic."""

    def points(scheme: Results) -> tuple[list[float], list[float]]:
        return _column(scheme, "h"), _column(scheme, "constant")

    figure, panels = _panels(results, 3.8, points)
    panels[0][0].invert_xaxis()  # the panels share it
    for axes, _ in panels:
        axes.set_xlabel("step size $h$ (refined to the right)")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    panels[0][0].set_ylabel("error constant $e(h)\\,/\\,h^p$")
    return _finish(figure, panels)


def local_slopes(results: Results) -> Figure:
    """Local slopes of the W2 error against N, a panel per scheme, with the estimated order and its interval."""
    schemes = [(place, scheme) for _, group in _groups(results) for place, scheme in group]
    columns = min(4, len(schemes))
    rows = -(-len(schemes) // columns)
    highest = max(scheme["order"]["expected"] for _, scheme in schemes)
    with mpl.rc_context(_STYLE):
        figure = _figure(_WIDTH, 0.5 + 1.5 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(schemes) :]:
            axes.set_visible(False)
        for index, (place, scheme) in enumerate(schemes):
            axes = grid.flat[index]
            steps, slopes = _column(scheme, "steps"), _column(scheme, "slope")
            colour, marker, _, _ = _style(place)
            expected = scheme["order"]["expected"]
            axes.axhline(expected, color=_GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
            axes.plot(steps, slopes, color=colour, marker=marker, markersize=3.2, linewidth=1)
            _interval(axes, scheme["fits"].get("w2"), 2 * max(steps))
            axes.set_title(_short(scheme["label"], 22), parse_math=False, fontsize=8)
            axes.set_xscale("log")
            axes.set_ylim(-0.1, highest + 1.1)
            axes.set_yticks(range(highest + 2))
            axes.set_xlim(min(steps) / 1.5, 3.5 * max(steps))
            axes.xaxis.set_minor_formatter(NullFormatter())
            below = index + columns >= len(schemes)
            axes.tick_params(labelbottom=below)
        figure.supxlabel("number of steps $N$", fontsize=8)
        figure.supylabel("local slope", fontsize=8)
    return _finish(figure, [])


def cifar10_spectrum(results: Results) -> Figure:
    """The Frechet distance to CIFAR-10's Gaussian against NFE: a column of panels per grid, one scale for all."""
    study, groups = results["spectrum_study"], _groups(results)
    finite = [d for s in results["schemes"] for c in s["spectrum"].values() for d in c["distance"] if d is not None]
    floors = [c["floor"] for s in results["schemes"] for c in s["spectrum"].values()]
    with mpl.rc_context(_STYLE):
        figure = _figure(_WIDTH, 0.5 + 3.3 * len(groups))
        grid = figure.subplots(len(groups), len(study["grids"]), sharex=True, sharey=True, squeeze=False)
        panels, stacks = [], []
        for row, (kind, schemes) in zip(grid, groups, strict=True):
            for axes, name in zip(row, study["grids"], strict=True):
                axes.set_title(f"{kind}, {name} grid")
                axes.set_xscale("log")
                axes.set_yscale("log")
                curves = [(place, scheme["label"], scheme["spectrum"][name]) for place, scheme in schemes]
                ends = [
                    _curve(axes, place, label, curve["nfe"], [np.nan if d is None else d for d in curve["distance"]])
                    for place, label, curve in curves
                ]
                panels.append((axes, [end for end in ends if end]))
                stacks.append(
                    [
                        (label, _style(place)[0], list(compress(curve["budgets"], curve["diverged"])))
                        for place, label, curve in curves
                        if any(curve["diverged"])
                    ]
                )
                floors_here = sorted({curve["floor"] for _, _, curve in curves})
                for floor, above in zip(floors_here, [*floors_here[1:], np.inf], strict=True):
                    _level(axes, floor, "exact sampler" if above > 2 * floor else "")  # names would overlap
        highest = max(map(len, stacks))
        bottom = min([*finite, *floors]) / 2.5
        ceiling = 1.7 * study["prior"]
        # Above the prior's distance, room for the triangles: `_STACK` of the panel's height each.
        top = ceiling * (ceiling / bottom) ** ((room := _STACK * highest) / (1 - room)) if highest < 12 else ceiling
        for (axes, _), stacked in zip(panels, stacks, strict=True):
            axes.set_xlim(0.85 * min(study["budgets"]), 1.12 * max(study["budgets"]))
            axes.set_ylim(bottom, 1.15 * top)
            _nfe_ticks(axes, study["budgets"])
            _level(axes, study["prior"], "prior", right=True)
            _diverged(axes, stacked)
        for axes in grid[-1]:
            axes.set_xlabel("network evaluations (NFE)")
        for axes in grid[:, 0]:
            axes.set_ylabel("Fréchet distance to the data")
    return _finish(figure, panels)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(figure: Figure, panels: list[Panel]) -> Figure:
    """Label the curves' ends, now that limits are final; lay out once, so that every file shows the same."""
    with mpl.rc_context(_STYLE):
        if panels:
            _lay_out(figure)
        for axes, ends in panels:
            _label_ends(axes, ends, axes.get_position().height * figure.get_figheight())
        _lay_out(figure)
        figure.set_layout_engine("none")
    return figure


def _lay_out(figure: Figure) -> None:
    """Places the axes, without drawing anything."""
    if layout := figure.get_layout_engine():
        with placed_once(figure):
            layout.execute(figure)


def _groups(results: Results) -> list[tuple[str, list[tuple[int, Results]]]]:
    """The kinds that occur, each with its schemes and their places among their kind, which fix their style."""
    kinds = [(kind, [s for s in results["schemes"] if s["kind"] == kind]) for kind in KINDS]
    return [(kind, list(enumerate(schemes))) for kind, schemes in kinds if schemes]


def _style(place: int) -> tuple[str, str, Any, bool]:
    """Colour, marker, line style, and whether the marker is open: open ones show what lies under them."""
    turn = place // len(COLOURS)
    marker = MARKERS[(place + turn) % len(MARKERS)]
    return COLOURS[place % len(COLOURS)], marker, LINES[(place + turn) % len(LINES)], place % 2 == 0


def _panels(
    results: Results, height: float, points: Callable[[Results], tuple[list[float], list[float]]]
) -> tuple[Figure, list[Panel]]:
    """A figure with a log-log panel per kind of scheme that occurs, and a line per scheme through its `points`."""
    groups = _groups(results)
    panels = []
    with mpl.rc_context(_STYLE):
        figure = _figure(_WIDTH if len(groups) > 1 else 0.62 * _WIDTH, height)
        row = figure.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (kind, schemes) in zip(row, groups, strict=True):
            axes.set_title(kind)
            axes.set_xscale("log")
            axes.set_yscale("log")
            ends = [_curve(axes, place, scheme["label"], *points(scheme)) for place, scheme in schemes]
            panels.append((axes, [end for end in ends if end]))
    return figure, panels


def _column(scheme: Results, name: str) -> list[float]:
    return [np.nan if level[name] is None else level[name] for level in scheme["levels"]]


def _curve(axes: Axes, place: int, label: str, x: Sequence[float], y: Sequence[float]) -> End | None:
    """Draw a scheme's line; its label, colour and last point, or None if it has no point."""
    drawn = np.flatnonzero(np.isfinite(y) & (np.asarray(y) > 0) & (np.asarray(x) > 0))
    if not drawn.size:
        return None
    colour, marker, line, is_open = _style(place)
    axes.plot(
        x, y, color=colour, marker=marker, linestyle=line, markersize=4.8 if is_open else 3.6,
        markerfacecolor="none" if is_open else colour, markeredgewidth=0.9,
    )  # fmt: skip
    return label, colour, x[drawn[-1]], y[drawn[-1]]


def _shown(axes: Axes) -> np.ndarray:
    """The points of the panel's lines that a log scale can show: (2, points)."""
    curves = [np.zeros((2, 0)), *(np.array(line.get_data(), dtype=float) for line in axes.get_lines())]
    return np.concatenate([curve[:, np.isfinite(curve[1]) & (curve[1] > 0)] for curve in curves], axis=1)


def _label_ends(axes: Axes, ends: Sequence[End], height: float) -> None:
    """Names beside the last points, right of the axes, moved apart just enough not to overlap, with leaders.
    `height`: of the axes, in inches."""
    if not ends:
        return
    low, high = np.log(axes.get_ylim())
    left, right = np.log(axes.get_xlim())
    gap = 1.25 * _LABEL_SIZE / 72 / height
    wanted = np.array([(np.log(y) - low) / (high - low) for *_, y in ends])
    for (label, colour, x, _), want, place in zip(ends, wanted, _spread(wanted, gap), strict=True):
        start = (np.log(x) - left) / (right - left)
        axes.plot(
            [start, 1.015, 1.06], [want, want if start > 0.9 else place, place], transform=axes.transAxes,
            color=colour, linewidth=0.5, clip_on=False, zorder=1.5,
        )  # fmt: skip
        axes.text(
            1.07, place, _short(label), transform=axes.transAxes, color=_INK, fontsize=_LABEL_SIZE,
            va="center", ha="left", parse_math=False,
        )  # fmt: skip


def _spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """The positions nearest to `wanted` (least squares) that keep their order and are `gap` apart."""
    order = np.argsort(wanted, kind="stable")
    shifted = wanted[order] - gap * np.arange(len(wanted))
    pools: list[list[float]] = []
    for value in shifted:  # isotonic regression: pool neighbours that would cross
        pools.append([float(value), 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            before, size = pools.pop()
            pools.append([(before * size + mean * count) / (size + count), size + count])
    placed = np.empty(len(wanted))
    placed[order] = np.concatenate([np.full(int(n), v) for v, n in pools]) + gap * np.arange(len(wanted))
    return placed


def _reference_slopes(axes: Axes, bottom: float) -> None:
    """Slopes -1 and -2 from one corner below the curves' beginnings, down to `bottom`."""
    x, y = _shown(axes)
    if not x.size:
        return
    first, last = x.min(), x.max()
    corner = 0.4 * (x * y).min() / first  # slope 1 from here stays below every curve of slope 1
    for slope in (1, 2):
        reach = min(last, first * max(corner / bottom, 1.0) ** (1 / slope))
        axes.plot(
            [first, reach], [corner, corner * (reach / first) ** -slope], color=_GREY, linewidth=0.8,
            linestyle=(0, (6, 3)), zorder=1,
        )  # fmt: skip
        at = first * (reach / first) ** 0.6
        axes.annotate(
            f"slope {slope}", (at, corner * (at / first) ** -slope), xytext=(-3, -3), textcoords="offset points",
            fontsize=6.5, color=_SOFT, ha="right", va="top",
        )  # fmt: skip


def _level(axes: Axes, value: float, label: str, right: bool = False) -> None:
    """A dotted horizontal line with its name above an end."""
    axes.axhline(value, color=_GREY, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1)
    axes.text(
        0.98 if right else 0.02, value, label, transform=axes.get_yaxis_transform(), color=_SOFT,
        fontsize=6.5, va="bottom", ha="right" if right else "left",
    )  # fmt: skip


def _interval(axes: Axes, fit: Results | None, x: float) -> None:
    """The estimated order with its interval, right of the slopes; an unbounded interval has arrows."""
    if fit is None:
        axes.text(0.95, 0.9, "no fit", transform=axes.transAxes, ha="right", va="top", fontsize=6.5)
        return
    low, high = fit["low"], fit["high"]
    bounds = axes.get_ylim()
    if low is None or high is None:
        axes.plot([x, x], [fit["order"] - 0.6, fit["order"] + 0.6], color="black", linewidth=1.1, linestyle=":")
    else:
        axes.plot([x, x], [low, high], color="black", linewidth=1.1, marker="_", markersize=5)
    axes.plot([x], [fit["order"]], color="black", marker="o", markersize=3.2, markerfacecolor="white")
    axes.set_ylim(bounds)
    text = f"{fit['order']:.2f}"
    if low is not None and high is not None:
        half = (high - low) / 2
        digits = min(4, max(1, -math.floor(math.log10(half)))) if half > 0 else 4  # one digit of the interval
        text = f"{fit['order']:.{digits}f} ± {half:.{digits}f}"
    axes.text(0.97, 0.93, text, transform=axes.transAxes, ha="right", va="top", fontsize=7)


def _diverged(axes: Axes, stacked: Sequence[tuple[str, str, Sequence[int]]]) -> None:
    """Triangles at the top edge, a row of them for each scheme that diverged, with its name beside the last."""
    for row, (label, colour, budgets) in enumerate(stacked):
        height = 0.98 - _STACK * (row + 0.5)
        axes.plot(
            budgets, [height] * len(budgets), transform=axes.get_xaxis_transform(), color=colour, marker=6,
            markersize=5, linestyle="", zorder=3,
        )  # fmt: skip
        axes.annotate(
            _short(label), (budgets[-1], height), xycoords=axes.get_xaxis_transform(), xytext=(5, -1.5),
            textcoords="offset points", fontsize=6.2, color=_INK, va="center", parse_math=False,
        )  # fmt: skip


def _nfe_ticks(axes: Axes, budgets: Sequence[int]) -> None:
    """Ticks at the budgets, dropping those that would stand too close."""
    kept: list[int] = []
    for first, second in pairwise([*budgets, budgets[-1] * 10]):
        if not kept or first / kept[-1] >= 1.6 or second > 5 * first:
            kept.append(first)
    if len(kept) > 1 and kept[-1] / kept[-2] < 1.6:
        del kept[-2]
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _short(label: str, length: int = 26) -> str:
    return label if len(label) <= length else label[: length - 1] + "…"

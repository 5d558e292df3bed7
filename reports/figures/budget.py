"""The figure of an error budget: the whole error against evaluations, and below it the terms, stacked.

Errors fall by decades from few evaluations to many, and terms have signs, so a stack on one axis would show its first
bar alone. A bar has length 1: each term as a part of the sum of the terms' sizes, what adds to the error above 0, what
takes from it below. The mark is the whole error on the same scale: where it is far below the bar's top, terms cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from . import style

Results = dict[str, Any]

# A colour for each kind of term; parts and evaluations of one kind differ in their hatching.
_COLOURS = {
    "lambda_s": "#6A3D9A",
    "sharing": "#CC79A7",
    "freezing": "#0072B2",
    "sub-flow": "#56B4E9",
    "time": "#009E73",
    "splitting": "#D55E00",
    "steps": "#0072B2",
    "prior": "#8C6D00",
    "denoising": "#BDBDBD",
    "cut-off": "#000000",
}
_HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "oo", "++")
_BAR = 0.75


def budgets(results: Results) -> Figure:
    """A column per sampler: the distance to the data, log, over the signed shares of the terms at each length."""
    curves = [curve for curve in results["curves"] if curve["budgets"]]
    faces = _faces(curves)
    with style.mpl.rc_context(style._STYLE):
        width = max(style._WIDTH * 0.62, min(14.0, 0.9 + 3.1 * len(curves)))
        figure = style._figure(width, 4.9 + 0.16 * -(-len(faces) // 4))
        shape = {"sharex": "col", "sharey": "row", "squeeze": False, "height_ratios": (1, 1.7)}
        axes: Any = figure.subplots(2, max(1, len(curves)), **shape)
        for column, curve in enumerate(curves):
            whole, shares = axes[0][column], axes[1][column]
            whole.set_title(style._short(curve["sampler"]), parse_math=False)
            _whole(whole, curve["budgets"])
            _stack(shares, curve["budgets"], faces)
        axes[0][0].set_ylabel("distance to the data")
        axes[1][0].set_ylabel("share of the terms' sizes")
        handles = [Patch(facecolor=c, hatch=h, edgecolor="white", label=name) for name, (c, h) in faces.items()]
        handles.append(style_mark())
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return style._finish(figure, [])


def style_mark() -> Any:
    """The mark of the whole error in the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color="black", marker="_", linestyle="", markersize=9, markeredgewidth=1.6, label="whole")


def _faces(curves: Sequence[Results]) -> dict[str, tuple[str, str]]:
    """The colour and hatching of every term that occurs, in the order of the budget."""
    kinds = list(_COLOURS)
    terms = {(kinds.index(t["kind"]), t["term"]): t for c in curves for b in c["budgets"] for t in b["terms"]}
    faces: dict[str, tuple[str, str]] = {}
    count: dict[str, int] = {}
    for (_, name), term in sorted(terms.items(), key=lambda entry: entry[0][0]):
        turn = count[term["kind"]] = count.get(term["kind"], -1) + 1
        faces[name] = _COLOURS[term["kind"]], _HATCHES[turn % len(_HATCHES)]
    return faces


def _whole(axes: Axes, budgets: Sequence[Results]) -> None:
    places = range(len(budgets))
    values = [budget["whole"]["distance"] for budget in budgets]
    known = [(place, value) for place, value in zip(places, values, strict=True) if _is_known(value) and value > 0]
    axes.plot([p for p, _ in known], [v for _, v in known], color="black", marker="o", markersize=3.5)
    axes.set_yscale("log")


def _stack(axes: Axes, budgets: Sequence[Results], faces: dict[str, tuple[str, str]]) -> None:
    for place, budget in enumerate(budgets):
        values = {term["term"]: term["distance"] for term in budget["terms"]}
        size = sum(abs(value) for value in values.values() if _is_known(value))
        if not all(map(_is_known, values.values())) or size == 0:
            axes.text(place, 0, "diverged", rotation=90, ha="center", va="center", fontsize=6.5)
            continue
        above = below = 0.0
        for name, (colour, hatch) in faces.items():
            share = values.get(name, 0.0) / size
            bottom = above if share >= 0 else below
            axes.bar(place, share, _BAR, bottom, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
            above, below = above + max(share, 0.0), below + min(share, 0.0)
        axes.plot(
            [place], [budget["whole"]["distance"] / size], color="black", marker="_", markersize=13, markeredgewidth=1.8
        )
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set_xticks(range(len(budgets)), [str(budget["nfe"]) for budget in budgets])
    axes.set_xlabel("network evaluations (NFE)")


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)

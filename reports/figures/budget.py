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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from . import style

Results = dict[str, Any]

# A colour for each kind of term; parts and evaluations of one kind are ever paler.
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
_PALER = 0.55
_BAR = 0.75


def budgets(results: Results) -> Figure:
    """A column per sampler: the distance to the data, log, over the signed shares of the terms at each length."""
    curves = [curve for curve in results["curves"] if curve["budgets"]]
    with style.mpl.rc_context(style._STYLE):
        figure = style._figure(max(style._WIDTH * 0.62, min(14.0, 0.9 + 2.7 * len(curves))), 5.3)
        shape = {"sharex": "col", "sharey": "row", "squeeze": False, "height_ratios": (1, 1.7)}
        axes: Any = figure.subplots(2, max(1, len(curves)), **shape)
        for column, curve in enumerate(curves):
            whole, shares = axes[0][column], axes[1][column]
            whole.set_title(style._short(curve["sampler"]), parse_math=False)
            _whole(whole, curve["budgets"])
            _stack(shares, curve["budgets"])
        axes[0][0].set_ylabel("distance to the data")
        axes[1][0].set_ylabel("share of the terms' sizes")
        patches = [Patch(facecolor=colour, edgecolor="white", label=name) for name, colour in _legend(curves).items()]
        mark = {"color": "black", "marker": "_", "linestyle": "", "markersize": 9, "markeredgewidth": 1.6}
        handles: list[Any] = [*patches, Line2D([], [], label="whole", **mark)]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return style._finish(figure, [])


def _faces(budgets: Sequence[Results]) -> dict[str, tuple[str, int]]:
    """The terms of one sampler, in order: their kind, and their place among those of the kind."""
    faces: dict[str, tuple[str, int]] = {}
    for term in (term for budget in budgets for term in budget["terms"]):
        turn = sum(kind == term["kind"] for kind, _ in faces.values())
        faces.setdefault(term["term"], (term["kind"], turn))
    return dict(sorted(faces.items(), key=lambda entry: list(_COLOURS).index(entry[1][0])))


def _colour(kind: str, turn: int) -> tuple[float, float, float]:
    red, green, blue = (1 - (1 - c) * _PALER**turn for c in to_rgb(_COLOURS[kind]))
    return red, green, blue


def _legend(curves: Sequence[Results]) -> dict[str, tuple[float, float, float]]:
    """What each colour stands for, in all samplers: "freezing of F, B"."""
    called: dict[tuple[str, int], dict[str, None]] = {}
    for curve in curves:
        kept = {term["term"]: term["of"] for budget in curve["budgets"] for term in budget["terms"]}
        for name, face in _faces(curve["budgets"]).items():
            called.setdefault(face, {})[kept[name]] = None
    ordered = sorted(called, key=lambda face: (list(_COLOURS).index(face[0]), face[1]))
    names = {face: ", ".join(of for of in called[face] if of) for face in ordered}
    return {f"{face[0]} of {of}" if of else face[0]: _colour(*face) for face, of in names.items()}


def _whole(axes: Axes, budgets: Sequence[Results]) -> None:
    places = range(len(budgets))
    values = [budget["whole"]["distance"] for budget in budgets]
    known = [(place, value) for place, value in zip(places, values, strict=True) if _is_known(value) and value > 0]
    axes.plot([p for p, _ in known], [v for _, v in known], color="black", marker="o", markersize=3.5)
    axes.set_yscale("log")


def _stack(axes: Axes, budgets: Sequence[Results]) -> None:
    faces = {name: _colour(*face) for name, face in _faces(budgets).items()}
    for place, budget in enumerate(budgets):
        values = {term["term"]: term["distance"] for term in budget["terms"]}
        size = sum(abs(value) for value in values.values() if _is_known(value))
        if not all(map(_is_known, values.values())) or size == 0:
            axes.text(place, 0, "diverged", rotation=90, ha="center", va="center", fontsize=6.5)
            continue
        above = below = 0.0
        for name, colour in faces.items():
            if name not in values:
                continue
            share = values[name] / size
            bottom = above if share >= 0 else below
            axes.bar(place, share, _BAR, bottom, color=colour, edgecolor="white", linewidth=0.4)
            above, below = above + max(share, 0.0), below + min(share, 0.0)
        axes.plot(
            [place], [budget["whole"]["distance"] / size], color="black", marker="_", markersize=13, markeredgewidth=1.8
        )
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set_xticks(range(len(budgets)), [str(budget["nfe"]) for budget in budgets])
    axes.set_xlabel("network evaluations (NFE)")


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)

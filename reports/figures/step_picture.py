"""The picture of a step: what acts when, over which stretch of time, and on which evaluations of the score.

Read it from top to bottom, a row for each token of the word (theory.timeline). A dot is an evaluation of the score, at
the time that it is conditioned at; a bar is a part over the stretch that it covers, blue where it takes the score,
hatched where it draws noise. A line leads from an evaluation to each part that takes it; evaluations of the steps
before, which a scheme with memory looks back on, are open dots. An inch of every picture is as much of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...theory.scheme import Scheme
from ...theory.splitting import Part
from ...theory.timeline import Act, Evaluation, timeline
from . import style

# Inches: of a step, of a row, of what stands left and right of the line of time, above and below the rows.
STEP, _ROW = 1.7, 0.27
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.85, 1.95, 0.08, 0.3
_ROOM = 0.12  # beside the first and the last time, in steps
_BAR = 0.52  # of a row's height
_SCORE, _NO_SCORE, _LINE = "#bfd9ee", "#f1f1f1", "#0072B2"
_HOLDS = {"midpoint": "midpoint rule", "true": "true score followed"}


def draw_step(scheme: Scheme) -> Figure:
    """The picture of one step of a scheme. What it draws has names (gid): act-I the bar or dot of the I-th token, from
    0, takes-I-K the line to it from the K-th evaluation that it takes, edge-0 and edge-1 the ends of the step."""
    acts = timeline(scheme)
    times = [time for act in acts for time in (act.start, act.end, *(taken.time for taken in act.takes))]
    first, last = float(min([*times, Fraction(0)])) - _ROOM, float(max([*times, Fraction(1)])) + _ROOM
    wide, high = STEP * (last - first), _ROW * len(acts)
    width, height = _LEFT + wide + _RIGHT, _TOP + high + _BOTTOM
    with mpl.rc_context({**style._STYLE, "axes.grid": False, "hatch.linewidth": 0.5}):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, wide / width, high / height))
        axes.set_xlim(first, last)
        axes.set_ylim(len(acts) - 0.5, -0.5)
        _times(axes, times, first)
        for row, act in enumerate(acts):
            _act(axes, scheme, row, act)
            axes.annotate(
                str(act.token), (0, row), xycoords=axes.get_yaxis_transform(), xytext=(-6, 0), ha="right", va="center",
                textcoords="offset points", fontsize=8, family="DejaVu Sans Mono", color=style._INK,
            )  # fmt: skip
            axes.annotate(
                _said(scheme, act), (1, row), xycoords=axes.get_yaxis_transform(), xytext=(6, 0), ha="left",
                va="center", textcoords="offset points", fontsize=7, color=style._SOFT, parse_math=False,
            )  # fmt: skip
        _older(axes, acts)
    return figure


def describe_step(scheme: Scheme) -> str:
    """The picture in words, for readers who do not see it; without markup."""
    rows = [f"{act.token.symbol} {_where(act)}" for act in timeline(scheme)]
    return f"one step, {scheme.word}: " + "; ".join(rows)


def _times(axes: Axes, times: Sequence[Fraction], first: float) -> None:
    """The line of time with a tick wherever something begins or ends; the steps before in grey."""
    ticks = sorted({Fraction(0), Fraction(1), *times})
    axes.set_xticks([float(tick) for tick in ticks], [_clock(tick) for tick in ticks])
    axes.set_yticks([])
    axes.tick_params(length=2.5, pad=2)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    if first < -_ROOM:
        axes.axvspan(first, 0, color="#fafafa", zorder=0, linewidth=0)
    for tick in ticks:
        edge = tick in (0, 1)
        line = axes.axvline(
            float(tick), color=style._GREY if edge else "#cccccc", linewidth=0.8 if edge else 0.5, zorder=0.5,
            linestyle="-" if edge else (0, (2, 2)),
        )  # fmt: skip
        line.set_gid(f"edge-{tick}" if edge else None)


def _act(axes: Axes, scheme: Scheme, row: int, act: Act) -> None:
    """The dot of an evaluation, or the bar of a part with the lines from what it takes."""
    if act.token.is_score:
        (dot,) = axes.plot([float(act.start)], [row], "o", color=_LINE, markersize=5.5, zorder=4, clip_on=False)
        dot.set_gid(f"act-{row}")
        return
    sde = scheme.splitting[act.token.symbol].sde
    bar = Rectangle(
        (float(act.start), row - _BAR / 2), float(act.end - act.start), _BAR, linewidth=0.8, zorder=2,
        facecolor=_SCORE if sde.uses_score else _NO_SCORE, edgecolor=style._INK, gid=f"act-{row}",
        hatch="//////" if sde.has_noise else None,
    )  # fmt: skip
    axes.add_patch(bar)
    for number, taken in enumerate(act.takes):
        _takes(axes, row, act, taken, f"takes-{row}-{number}")


def _takes(axes: Axes, row: int, act: Act, taken: Evaluation, gid: str) -> None:
    """The line from an evaluation down to the part that takes it, at its own time or, where the part does not cover it,
    on to the nearer end of the bar."""
    time, top = float(taken.time), row - _BAR / 2
    covered = act.start <= taken.time <= act.end
    near = float(min(max(taken.time, act.start), act.end))
    x, y = ([time, time], [taken.place, top]) if covered else ([time, time, near], [taken.place, row, row])
    # Behind the bars, so that it is seen to pass those that do not take it.
    (line,) = axes.plot(x, y, color=_LINE, linewidth=1.1, zorder=1, solid_joinstyle="miter")
    line.set_gid(gid)
    axes.plot(
        [x[-1]], [y[-1]], marker=7 if covered else 5 if time < near else 4, color=_LINE, markersize=4.5, zorder=3,
        markeredgewidth=0,
    )  # fmt: skip


def _older(axes: Axes, acts: Sequence[Act]) -> None:
    """The evaluations of the steps before, in the rows of their tokens."""
    own = {Evaluation(place, act.start) for place, act in enumerate(acts) if act.token.is_score}
    for taken in sorted({taken for act in acts for taken in act.takes} - own):
        axes.plot(
            [float(taken.time)], [taken.place], "o", markersize=5.5, markerfacecolor="white", color=_LINE,
            markeredgewidth=1.1, zorder=4,
        )  # fmt: skip


def _clock(time: Fraction) -> str:
    """tau + time * h as an axis has it."""
    if time == 0:
        return "τ"
    size = abs(time)
    number = "" if size.numerator == 1 else f"{size.numerator}"
    below = "" if size.denominator == 1 else f"/{size.denominator}"
    return f"τ {'+' if time > 0 else '−'} {number}h{below}"


def _where(act: Act) -> str:
    if act.token.is_score:
        return f"conditioned at {_clock(act.start)}"
    taken = " and ".join(_clock(taken.time) for taken in act.takes)
    return f"from {_clock(act.start)} to {_clock(act.end)}" + (f", taking the score of {taken}" if taken else "")


def _said(scheme: Scheme, act: Act) -> str:
    """What a row does, in a few words."""
    if act.token.is_score:
        return f"score, conditioned at {_clock(act.start)}"
    part = scheme.splitting[act.token.symbol]
    return ", ".join(word for word in (_flow(scheme, part), "noise" if part.sde.has_noise else "") if word)


def _flow(scheme: Scheme, part: Part) -> str:
    if not part.sde.uses_score:
        return f"linear, {'Euler' if part.euler else 'exact'}"
    if scheme.flow in _HOLDS:
        return _HOLDS[scheme.flow]
    flow = "Euler" if scheme.flow == "euler" else "exact"
    what = "drift" if scheme.flow == "euler" and scheme.memory > 1 else str(scheme.frozen)
    return f"{flow}, {what} held" if scheme.memory == 1 else f"{flow}, {what} of the last {scheme.memory}"

"""Named curves in log-log panels: what a study's value shows of itself in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from . import style


class Curve(NamedTuple):
    """A label, and the points; what is not finite or not positive is left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def log_log(panels: Mapping[str, Sequence[Curve]], xlabel: str, ylabel: str, slopes: bool = False) -> Figure | None:
    """The curves with their names at their ends, a panel for each title, with slopes 1 and 2 for comparison if
    `slopes`; None where no point can be shown."""
    with mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH * (0.66 if len(panels) == 1 else 1), 2.7)
        row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        drawn = []
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            axes.set_title(title)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel(xlabel)
            ends = [style._curve(axes, place, curve.label, curve.x, curve.y) for place, curve in enumerate(curves)]
            drawn.append((axes, [end for end in ends if end]))
        if not any(ends for _, ends in drawn):
            return None
        row[0].set_ylabel(ylabel)
        x, y = np.concatenate([style._shown(axes) for axes, _ in drawn], axis=1)
        bottom = float(y.min()) / 4
        if slopes:  # room for slope 1 over half of the width, so that the two do not lie on each other
            bottom = min(bottom, 0.4 * float(y.min() * (x.min() / x.max()) ** 0.5))
        row[0].set_ylim(bottom, None)
        style._nfe_ticks(row[0], sorted({int(x) for curves in panels.values() for curve in curves for x in curve.x}))
        for axes, _ in drawn if slopes else ():
            style._reference_slopes(axes, bottom)
    return style._finish(figure, drawn)

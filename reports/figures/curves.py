"""Named curves in one log-log panel: what a study's value shows of itself in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
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


def log_log(curves: Sequence[Curve], xlabel: str, ylabel: str, slopes: bool = False) -> Figure | None:
    """The curves with their names at their ends, with slopes 1 and 2 for comparison if `slopes`; None where no point
    can be shown."""
    with mpl.rc_context(style._STYLE):
        figure = style._figure(0.66 * style._WIDTH, 2.7)
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        drawn = [style._curve(axes, place, curve.label, curve.x, curve.y) for place, curve in enumerate(curves)]
        if not any(drawn):
            return None
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        bottom = float(style._shown(axes)[1].min()) / 4
        axes.set_ylim(bottom, None)
        style._nfe_ticks(axes, sorted({int(x) for curve in curves for x in curve.x if np.isfinite(x)}))
        if slopes:
            style._reference_slopes(axes, bottom)
    return style._finish(figure, [(axes, [end for end in drawn if end])])

"""The picture of weak order: the laws that schemes deliver with few steps and with more, and the error of one number of
them. Values in, a figure out."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import style as style

Results = dict[str, Any]

_SHADES = ("#A6CEE3", "#56B4E9", "#0072B2", "#00395C")


def drifting_laws(results: Results) -> Figure:
    """Above a panel of densities per scheme, a line per number of steps and the exact law in grey; below the weak error
    of one test function against the number of steps, log-log, a line per scheme."""
    schemes = results["schemes"]
    counts = sorted({law["steps"] for scheme in schemes for law in scheme["laws"]})
    with style.mpl.rc_context(style._STYLE):
        figure = style._figure(style._WIDTH, 5.6)
        grid = figure.add_gridspec(2, len(schemes), height_ratios=(1, 1))
        first = None
        for column, scheme in enumerate(schemes):
            axes = figure.add_subplot(grid[0, column], sharex=first, sharey=first)
            first = first or axes
            axes.set_title(scheme["label"], parse_math=False)
            axes.fill_between(results["x"], results["exact"], color="#d9d9d9", linewidth=0, label="exact")
            for law in scheme["laws"]:
                place = counts.index(law["steps"])
                axes.plot(
                    results["x"], law["density"], color=_SHADES[place % 4], linestyle=style.LINES[-1 - place % 4],
                    label=f"{law['steps']} steps",
                )  # fmt: skip
            axes.set_xlabel(f"$x$ at $t$ = {results['t_end']:g}")
            axes.legend(frameon=False, fontsize=6.5, loc="upper left")
        if first is not None:
            first.set_ylabel("density")
            first.set_ylim(bottom=0)
        axes = figure.add_subplot(grid[1, :])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("number of steps $N$")
        axes.set_ylabel(f"|error of E {results['function']}|")
        ends = [
            style._curve(axes, place, scheme["label"], scheme["steps"], np.abs(scheme["errors"]).tolist())
            for place, scheme in enumerate(schemes)
        ]
        bottom = style._shown(axes)[1].min(initial=1.0) / 4
        axes.set_ylim(bottom, None)
        style._reference_slopes(axes, bottom)
        style._nfe_ticks(axes, schemes[0]["steps"])
    return style._finish(figure, [(axes, [end for end in ends if end])])

"""Ticks placed once for each size and range of their axis, where matplotlib would place them a dozen times.

Laying a figure out asks for bounding boxes: of an axis, of its labels, of the title above it and of the spine beside
it, and each of them places all ticks anew, which is half of the time that a figure takes. Between two of these
questions nothing has changed but, at times, the size of the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure

# Of matplotlib's own; a version that has it no longer is as slow as it ever was.
_PLACE = "_update_ticks"


@contextmanager
def placed_once(figure: Figure) -> Iterator[None]:
    """Keep what each axis answers while its range, its place in pixels and the resolution stay; for code that changes
    nothing else of an axis."""
    every = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if hasattr(axis, _PLACE)]
    for axis in every:
        setattr(axis, _PLACE, _remembering(axis, figure))
    try:
        yield
    finally:
        for axis in every:
            delattr(axis, _PLACE)  # the method shows again


def _remembering(axis: Axis, figure: Figure) -> Callable[[], Any]:
    place: Callable[[], Any] = getattr(axis, _PLACE)
    kept: dict[tuple[float, ...], Any] = {}

    def ticks() -> Any:
        key = (*axis.get_view_interval(), *axis.axes.bbox.bounds, figure.dpi)
        if key not in kept:
            kept.clear()  # an axis has one set of ticks, which now stand elsewhere
            kept[key] = place()
        return kept[key]

    return ticks

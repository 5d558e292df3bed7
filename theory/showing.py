"""How values show themselves in a notebook: as what is installed to draw them makes of them.

A value that is `Shown` has Jupyter's `_repr_html_`. Pictures and pages are made above the mathematics, so what makes
them is looked up where packages announce what they add, among the entry points of the group `weakorder.html`:

    [project.entry-points."weakorder.html"]
    Scheme = "weakorder.reports.pages.notebook:scheme_html"

A name is that of a class, and stands for the classes that inherit from it; a function takes the value and returns HTML.
Nothing is imported before a value is shown.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "weakorder.html"


class Shown:
    """A value with a table and a figure in a notebook, where something is installed that makes them."""

    def _repr_html_(self) -> str | None:
        """The value as HTML; None, on which Jupyter shows its text, where nothing makes any."""
        entries = _entries()
        name = next((kind.__name__ for kind in type(self).__mro__ if kind.__name__ in entries), None)
        return None if name is None else entries[name].load()(self)


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}

"""An error budget as files: the figure as SVG and PNG, and all numbers as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...verification.files import make_folder, write_atomically
from .strict_json import dumps


def write_budget(directory: Path, results: dict[str, Any]) -> None:
    """Write budget.json, budget.svg and budget.png into a folder, which is made. Raises OSError, in one line."""
    from ..figures import as_png, as_svg, budgets

    make_folder(directory)
    figure = budgets(results)
    contents = {"json": dumps(results).encode(), "svg": as_svg(figure), "png": as_png(figure)}
    for suffix, content in contents.items():
        write_atomically(directory / f"budget.{suffix}", content)

"""An error budget as files, the figure as SVG and PNG and all numbers as JSON; and what the proof says of its terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...theory.formulas import shown
from ...theory.scheme import Scheme
from ...theory.weak_order import coordinate_names, named
from ...verification.advice import leading_errors
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


def leading_terms(scheme: Scheme, linear_beta: bool) -> list[dict[str, Any]]:
    """The leading local error of every term that comes from steps, as plain values: text and LaTeX by monomial of the
    increments; no coefficients where all vanish up to h^2. Raises ValueError as `leading_errors`."""
    coordinates = coordinate_names(1, scheme.splitting.diffusion.components)
    found = []
    for leading in leading_errors(scheme, linear_beta=linear_beta):
        coefficients = named(coordinates, leading.coefficients)
        found.append(
            {
                "term": str(leading.source),
                "power": leading.order + 1,
                "coefficients": {name: shown(c.text) for name, c in coefficients.items()},
                "latex": {name: c.latex for name, c in coefficients.items()},
            }
        )
    return found


def leading_text(terms: list[dict[str, Any]]) -> str:
    """The same, to be read."""
    lines = []
    for term in terms:
        none = "" if term["coefficients"] else ": none"
        lines.append(f"{term['term']}, times h^{term['power']}{none}")
        lines += [f"  E[{name}]: {error}" for name, error in term["coefficients"].items()]
    return "\n".join(lines)

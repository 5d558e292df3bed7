"""The gallery: a card for each scheme of the catalogue, made from the code, as pages in Markdown (MyST).

    collect         the readings of each scheme, as plain values
    pages           the pages, from these values alone
    write_gallery   both into a folder, with a picture of each scheme's step (figures.step_picture)

`python -m weakorder.reports.pages.gallery FOLDER` writes it; so does the build of the documentation. A file that has
not changed is not written, so that what depends on it is not built again.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...integrators.catalogue import (
    CONJUGATE_WORDS,
    DETERMINISTIC,
    EXPONENTIAL,
    POSITION,
    STOCHASTIC,
    conjugate_scheme,
)
from ...integrators.grids import GRIDS
from ...theory.scheme import Scheme
from ...verification.exact import T_END, gaussian_targets, predicted_errors, spectrum
from ...verification.files import make_folder, write_atomically
from ...verification.stability import BOUND, scan_steps
from .choosing import distance, fewest, when_to_choose
from .orders import order_rows
from .templates import number, template

Results = dict[str, Any]

BUDGETS = (20, 50, 100)


class Family(NamedTuple):
    """Schemes that stand on one page: its file's name, title and first paragraph."""

    key: str
    title: str
    text: str
    schemes: tuple[Scheme, ...]


def families() -> tuple[Family, ...]:
    """The families of the catalogue, every scheme in one. Imports sympy."""
    return (
        Family(
            "splitting",
            "Splitting schemes",
            "They hold the score for a step, or for a part of it: all that they do is in the word. These sample the "
            "reverse SDE in phase space.",
            STOCHASTIC,
        ),
        Family(
            "splitting-flow",
            "Splitting schemes of the flow",
            "The same for the probability flow: no noise is drawn after the start.",
            DETERMINISTIC,
        ),
        Family(
            "exponential",
            "Exponential integrators in phase space",
            "They follow the whole dynamics exactly but for the network's answer, and differ in what they hold of it "
            "and over how many evaluations: solvers published for diffusions in position alone, carried over.",
            tuple(EXPONENTIAL.values()),
        ),
        Family(
            "position",
            "Solvers in position alone",
            "The diffusion of DDPM, each solver with the clock that it is published with.",
            tuple(POSITION.values()),
        ),
        Family(
            "conjugate",
            "Conjugate integrators",
            "A linear part of the dynamics, NF, NA and NB, is split off and followed exactly; of the network's answer "
            "the others hold eps.",
            tuple(conjugate_scheme(name) for name in CONJUGATE_WORDS),
        ),
    )


def collect(schemes: Sequence[Scheme]) -> list[Results]:
    """What the cards say of each scheme, each at the default parameters of its diffusion, as JSON's own types."""
    return [_row(scheme, row) for scheme, row in zip(schemes, order_rows(schemes), strict=True)]


def _row(scheme: Scheme, orders: Results) -> Results:
    diffusion = scheme.splitting.diffusion
    params = diffusion.parameters()
    study = spectrum.study_spectrum([scheme], params, BUDGETS)
    # Without the dense look of `least_steps`, which takes ten times as long; a test holds the two to each other.
    costs = {grid: scan_steps(scheme, params, grid) for grid in GRIDS}
    return orders | {
        "key": key_of(scheme.name),
        "diffusion": diffusion.name,
        "components": list(diffusion.components),
        "kind": "stochastic" if any(part.sde.has_noise for part in scheme.parts) else "deterministic",
        "memory": scheme.memory,
        "predicted": predicted_errors(scheme, gaussian_targets(diffusion, params), T_END)["w2"],
        "stability": {
            grid: {"steps": steps, "nfe": None if steps is None else steps * scheme.nfe_per_step}
            for grid, steps in costs.items()
        },
        "distance": {
            str(budget): {curve.grid: _at(curve, budget) for curve in study.curves if budget in curve.budgets}
            for budget in BUDGETS
        },
        "floor": study.curves[0].floor,
    }


def _at(curve: spectrum.SpectrumCurve, budget: int) -> float | None:
    place = curve.budgets.tolist().index(budget)
    return None if curve.diverged[place] else float(curve.distance[place])


def key_of(name: str) -> str:
    """A scheme's name in addresses and file names: lower case, its plus signs spelled out."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", "p")).strip("-")


def pages(rows: Sequence[Results], shelves: Sequence[Family]) -> dict[str, str]:
    """The pages by their file names: index.md, and one for each family. rows: of all schemes of the `shelves`."""
    of = {row["name"]: row | {"advice": when_to_choose(row, rows)} for row in rows}
    filters = {"digits": _digits, "distance": distance, "fewest": fewest}
    shown = [(family, [of[scheme.name] for scheme in family.schemes]) for family in shelves]
    settings = {"budgets": BUDGETS, "grids": list(GRIDS), "t_end": T_END, "bound": BOUND}
    written = {"index.md": template("gallery.md.j2", filters).render(families=shown, count=len(rows), **settings)}
    for family, own in shown:
        text = template("gallery_family.md.j2", filters).render(family=family, rows=own, **settings)
        written[f"{family.key}.md"] = text
    return written


def _digits(value: float | None) -> str:
    """A number to three digits; where a run diverged there is none."""
    return "diverges" if value is None or math.isinf(value) else number(value)


def write_gallery(folder: Path, shelves: Sequence[Family] | None = None) -> list[Path]:
    """Write the pages and pictures into `folder`, made if need be; returns the paths of all.

    Raises OSError, in one line, where it cannot be written.
    """
    from ..figures import as_svg, draw_step

    shelves = families() if shelves is None else shelves
    schemes = [scheme for family in shelves for scheme in family.schemes]
    contents = {name: text.encode() for name, text in pages(collect(schemes), shelves).items()}
    contents |= {f"figures/{key_of(scheme.name)}.svg": as_svg(draw_step(scheme)) for scheme in schemes}
    make_folder(folder / "figures")
    for name, content in contents.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)
    return [folder / name for name in contents]


if __name__ == "__main__":
    write_gallery(Path(sys.argv[1]))

"""The page of a library's samplers: every configuration's verdict, order and distance to the data, without a network.

run_survey     the studies, side by side; all that the page shows, as JSON's own types
render         the page, from the results alone
write_survey   both, into a folder: LIBRARY.json, LIBRARY.html (self-contained) and the figure
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...verification.files import make_folder, write_atomically
from ...verification.unmodified import BUDGETS, FINDINGS, STEPS, SURVEYS, Configuration, measured, on_mixture, surveyed
from ..figures import as_svg, distances
from .jobs import Jobs, Progress
from .strict_json import dumps
from .templates import inline, number, template

Results = dict[str, Any]
# Of the finest levels that the studies go to: a Brownian tree has hundreds of numbers a step.
LEVELS = STEPS[:4]


def run_survey(
    library: str,
    progress: Progress = iter,
    workers: int = 1,
    configurations: tuple[Configuration, ...] | None = None,
    targets: tuple[str, ...] = ("gaussian",),
) -> Results:
    """Survey a library: `diffusers` or `k-diffusion`.

    configurations: default all of its survey, and then what is known to be wrong in it is measured, too; targets: with
    "mixture" among them each order is confirmed there. Raises ValueError where the library is missing.
    """
    chosen = SURVEYS[library] if configurations is None else configurations
    chosen[0].grids()  # says at once if the library is missing
    jobs = Jobs()
    asked = [jobs.add(surveyed, configuration, LEVELS) for configuration in chosen]
    also = [jobs.add(on_mixture, configuration, LEVELS) for configuration in chosen if "mixture" in targets]
    known = [finding.title for finding in FINDINGS if finding.library == library and configurations is None]
    findings = [jobs.add(measured, title) for title in known]
    jobs.run(progress, workers)
    samplers = [job.result for job in asked]
    for entry, job in zip(samplers, also, strict=False):  # none, or one each
        entry["mixture"] = job.result
    grids = list(dict.fromkeys(grid for entry in samplers for grid in entry["distances"]))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("weakorder", library, "numpy", "torch")},
        "library": library,
        "targets": list(targets),
        "steps": list(LEVELS),
        "budgets": list(BUDGETS),
        "grids": grids,
        "samplers": sorted(samplers, key=_rank),
        "findings": [job.result for job in findings],
    }


def render(results: Results) -> str:
    """The page: the verdicts with their causes, the ranking, the figure."""
    drawn = Markup(inline(as_svg(distances(results)), "survey", "distance to the data against evaluations"))
    filters = {"number": number, "cause": _cause}
    compared = _compared(results)
    more = {"compared": len(compared), "flattered": [row for row in compared if row["flattered"]]}
    more["on_mixture"] = "mixture" in results["targets"]
    return template("survey.html.j2", filters).render(figure=drawn, **more, **results)


def write_survey(
    library: str,
    directory: str | os.PathLike[str],
    progress: Progress = iter,
    workers: int = 1,
    configurations: tuple[Configuration, ...] | None = None,
    targets: tuple[str, ...] = ("gaussian",),
) -> Path:
    """Survey a library into `directory`, made if need be; the path of the page. The rest is as in `run_survey`. Raises
    OSError, ValueError."""
    directory = Path(directory)
    make_folder(directory)
    results = run_survey(library, progress, workers, configurations, targets)
    page = directory / f"{library}.html"
    write_atomically(directory / f"{library}.json", dumps(results).encode())
    write_atomically(page, render(results).encode())
    return page


def _compared(results: Results) -> list[Results]:
    """The rows that have an order on both, Gaussian data and the mixture."""
    rows = [
        {"sampler": entry["sampler"], "grid": grid} | found
        for entry in results["samplers"]
        for grid, found in entry.get("mixture", {}).items()
    ]
    return [row for row in rows if row["order"] is not None and row["gaussian"] is not None]


def _rank(entry: Results) -> tuple[float, str]:
    """By the distance at 50 evaluations on its best grid."""
    found = [
        level["distance"]
        for levels in entry["distances"].values()
        for level in levels
        if level["budget"] == 50 and level["distance"] is not None
    ]
    return min(found, default=float("inf")), entry["sampler"]


def _cause(entry: Results) -> str:
    """What a verdict turns on, or what should be known beside it."""
    if entry["refused"]:
        return str(entry["refused"])
    said = [str(entry["reason"])] if entry["verdict"] != "PASS" else []
    said += [text for text in entry["warnings"] if not said and "the end, on" not in text]
    for grid, found in entry.get("mixture", {}).items():
        if found["why"]:
            said.append(f"no order on the mixture, {grid} grid: {found['why']}")
    return "; ".join(said)

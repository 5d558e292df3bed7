"""The page of a library's samplers: every configuration's verdict, order and distance to data, without a network.

They are ranked within a noise schedule: what a denoiser leaves of the exact law at the smallest noise is the
schedule's, and may be more than a sampler's own error.

run_survey     the studies, side by side; all that the page shows, as JSON's own types
render         the page, from the results alone
write_survey   both, into a folder: LIBRARY.json, LIBRARY.html (self-contained) and the figure
"""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...verification.exact import Spectrum, cifar10_spectrum
from ...verification.files import make_folder, write_atomically
from ...verification.unmodified import (
    BUDGETS,
    FINDINGS,
    STEPS,
    SURVEYS,
    WIDEST,
    Configuration,
    called,
    coverage,
    measured,
    on_mixture,
    surveyed,
)
from ...verification.verdicts import MARGIN
from ..figures import as_svg, distances
from .jobs import Jobs, Progress
from .strict_json import dumps
from .templates import inline, number, template

Results = dict[str, Any]
# Of the finest levels that the studies go to: a Brownian tree has hundreds of numbers a step.
LEVELS = STEPS[:4]
_ORDER, _NONE = re.compile(r"-?\d+\.\d+ in \[(-?\d+\.\d+), (-?\d+\.\d+)\]"), "–*"
# A schedule of fewer samplers has no figure.
_DRAWN = 3


def run_survey(
    library: str,
    progress: Progress = iter,
    workers: int = 1,
    configurations: tuple[Configuration, ...] | None = None,
    targets: tuple[str, ...] = ("gaussian",),
    spectrum: Spectrum | None = None,
    data: str = "CIFAR-10",
) -> Results:
    """Survey a library: `diffusers` or `k-diffusion`.

    configurations: default all of its survey, and then what is known to be wrong in it is measured, too; targets: with
    "mixture" among them each order is confirmed there; spectrum: what distances are to, default CIFAR-10's, and data,
    its name. Raises ValueError where the library is missing.
    """
    chosen = SURVEYS[library] if configurations is None else configurations
    chosen[0].grids()  # says at once if the library is missing
    jobs = Jobs()
    asked = [jobs.add(surveyed, configuration, LEVELS, spectrum) for configuration in chosen]
    also = [jobs.add(on_mixture, configuration, LEVELS) for configuration in chosen if "mixture" in targets]
    known = [finding.title for finding in FINDINGS if finding.library == library and configurations is None]
    findings = [jobs.add(measured, title) for title in known]
    jobs.run(progress, workers)
    samplers = [job.result for job in asked]
    for entry, job in zip(samplers, also, strict=False):  # none, or one each
        entry["mixture"] = job.result
    grids = list(dict.fromkeys(grid for entry in samplers for grid in entry["distances"]))
    known_as = spectrum or cifar10_spectrum()
    schedules = Counter(entry["schedule"] for entry in samplers if not entry["refused"])
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("weakorder", library, "numpy", "torch")},
        "library": library,
        "coverage": coverage(library),
        "targets": list(targets),
        "data": {"name": data, "images": known_as.images, "dimensions": known_as.mean.size},
        "steps": list(LEVELS),
        "budgets": list(BUDGETS),
        "grids": grids,
        "schedules": [name for name, _ in schedules.most_common()],
        "samplers": sorted(samplers, key=_rank),
        "findings": [job.result for job in findings],
    }


def render(results: Results) -> str:
    """The page: for each schedule the ranking with its figure and the verdicts with their causes."""
    compared = _compared(results)
    more = {"compared": len(compared), "flattered": [row for row in compared if row["flattered"]]}
    more["on_mixture"] = "mixture" in results["targets"]
    more["verdicts"] = Counter(entry.get("verdict", "refused") for entry in results["samplers"])
    more["sections"] = [_section(results, name, place) for place, name in enumerate(results["schedules"])]
    more["refused"] = [entry for entry in results["samplers"] if entry["refused"]]
    filters = {"number": number, "cause": _cause, "is_wide": _is_wide, "span": _span}
    return template("survey.html.j2", filters).render(**more, **results)


def _section(results: Results, schedule: str, place: int) -> Results:
    """What the page shows of a schedule: its samplers, nearest first, the sigma / alpha that their runs begin and end
    at, and the figure where there are enough of them."""
    samplers = [entry for entry in results["samplers"] if not entry["refused"] and entry["schedule"] == schedule]
    levels = [level for entry in samplers for grid in entry["distances"].values() for level in grid]
    section: Results = {"schedule": schedule, "samplers": samplers, "figure": "", "spans": _spans(levels)}
    grids = [grid for grid in results["grids"] if any(grid in entry["distances"] for entry in samplers)]
    if len(samplers) >= _DRAWN and levels:
        figure = distances(results | {"samplers": samplers, "grids": grids})
        text = f"distance to the data against evaluations, {schedule}"
        section["figure"] = Markup(inline(as_svg(figure), f"survey{place}", text))
    return section


def _spans(levels: list[Results]) -> list[list[float | None]]:
    """Of the first and of the last sigma / alpha of runs the smallest and the largest; None where it is infinite."""
    seen = [level["span"] for level in levels if level["nfe"] is not None]
    return [
        [None, None] if None in ends or not ends else [min(ends), max(ends)]
        for ends in ([span[k] for span in seen] for k in (0, 1))
    ]


def _span(bounds: list[float | None]) -> str | Markup:
    """Such bounds in words."""
    low, high = bounds
    if low is None or high is None:
        return "∞"
    same = number(low) == number(high)
    return number(low) if same else Markup("{} to {}").format(number(low), number(high))


def write_survey(
    library: str,
    directory: str | os.PathLike[str],
    progress: Progress = iter,
    workers: int = 1,
    configurations: tuple[Configuration, ...] | None = None,
    targets: tuple[str, ...] = ("gaussian",),
    spectrum: Spectrum | None = None,
    data: str = "CIFAR-10",
) -> Path:
    """Survey a library into `directory`, made if need be; the path of the page. The rest is as in `run_survey`. Raises
    OSError, ValueError."""
    directory = Path(directory)
    make_folder(directory)
    results = run_survey(library, progress, workers, configurations, targets, spectrum, data)
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
    """By the distance at 50 evaluations on its better grid, which compares samplers of one schedule."""
    found = [
        level["distance"]
        for levels in entry["distances"].values()
        for level in levels
        if level["budget"] == 50 and level["distance"] is not None
    ]
    return min(found, default=float("inf")), entry["sampler"]


def _is_wide(found: Results) -> bool:
    """Whether what is known of an order is too little to print it."""
    return found["low"] is None or found["high"] is None or found["high"] - found["low"] > WIDEST


def _cause(entry: Results) -> str:
    """What a verdict turns on, and what should be known beside it."""
    fails = entry["verdict"] != "PASS"
    broken = "not finite" in entry["reason"]
    told = [text for text in entry["warnings"] if "the end, on" not in text]
    if broken:  # the step at which it broke, in one sentence with the verdict
        first = next((text.partition(" steps ")[2] for text in told if text.startswith("in a run of")), "")
        told = [text for text in told if not text.startswith("in a run of")]
        said = [f"{entry['reason']}: {first}" if first else str(entry["reason"])]
    else:
        # a PASS may rest on a part of its grid, which the order of the whole does not show
        judged = [fit for fit in entry["constants"].values() if fit["decides"]]
        fails_whole = any(_falls_short(fit, entry["expected"]) for fit in judged)
        said = [str(entry["reason"])] if fails or fails_whole else []
        said += [str(entry["claim"])] if fails and entry["claim"] else []
    for grid, fit in entry["constants"].items():
        if not fails and not fit["decides"] and _falls_short(fit, entry["expected"]):
            told = [text for text in told if "order" not in text or f"on {called(grid)}" not in text]
            said.append(_beside(grid, fit, [name for name, other in entry["constants"].items() if other["decides"]]))
    missing: dict[str, list[str]] = {}
    for grid, found in entry.get("mixture", {}).items():
        if found["why"] and not broken:
            missing.setdefault(str(found["why"]), []).append(called(grid))
    told += [f"no order on the mixture, {' and '.join(grids)}: {why}" for why, grids in missing.items()]
    return _ORDER.sub(_told, "; ".join(said + told))


def _told(found: re.Match[str]) -> str:
    """An order with its interval as a study writes it; the tables' dash where that is wide."""
    low, high = float(found[1]), float(found[2])
    return _NONE if _is_wide({"low": low, "high": high}) else found[0]


def _falls_short(fit: Results, expected: int) -> bool:
    """Whether a grid does not show the order that is claimed."""
    return fit["order"] is None or _is_wide(fit) or fit["order"] < expected - MARGIN


def _beside(grid: str, fit: Results, deciding: list[str]) -> str:
    """Why a PASS stands beside the order on a grid that does not decide."""
    known = fit["order"] is not None and not _is_wide(fit)
    shows = f"shows order {fit['order']:.2f}" if known else "shows no order"
    return (
        f"its order is judged on the {' and '.join(deciding)} grid; {called(grid)} {shows}, since its steps in log σ "
        "near the data do not become small as N grows, where every solver loses its order"
    )

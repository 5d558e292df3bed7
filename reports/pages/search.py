"""The page of a search: the best words beside the catalogue, the front, and what was assumed.

run_search     the search, side by side in processes; all that the page shows, as JSON's own types
render         the page, from the results alone
write_search   both, into a folder: search.json, search.html (self-contained) and the state that it goes on from
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...integrators.grids import label
from ...verification.advice import Search, SearchState, find_words, on_network
from ...verification.files import check_writable, make_folder, write_atomically
from ..figures import as_svg, front
from .jobs import Workers
from .strict_json import dumps
from .templates import inline, number, template

Results = dict[str, Any]
Progress = Callable[[str, int], Callable[[int], None]]
SHOWN = 20


def assumptions(search: Search) -> list[str]:
    """What the ranking takes for granted, in sentences."""
    return [
        "Data are a Gaussian with CIFAR-10's mean and covariance (3,072 eigenvalues), and the network's score is that "
        "Gaussian's, exactly.",
        f"A run starts at the prior, takes the steps that {search.nfe} evaluations buy (grid: {label(search.grid)}) "
        f"down to t = {search.params.eps:g}, and a denoising step, which is one of the evaluations.",
        "The distance is the Fréchet distance of positions to the data, on pixels, not on features of Inception; "
        "errors of time steps, of the prior and of the cut-off may cancel in it.",
        f"Stable is a run in which no perturbation grows more than {search.growth:g}-fold in the law's standard "
        "deviations; of a word with memory, one that the run begins with.",
        "The noise is that of the reverse dynamics (lambda_s = 1), and every word is consistent: it converges as steps "
        "become small, for every score, with the order that is given.",
        "What the filter leaves out is estimated, not bounded: see how far it was off.",
        "A ranking on Gaussians is a guess about a network: in the study of twelve schemes on a network of few images "
        "it agreed with the measured ranking by 0.62, 0.33 and 0.53 at 20, 50 and 100 evaluations (Spearman).",
    ]


def run_search(
    search: Search,
    directory: Path,
    progress: Progress,
    workers: int = 1,
    network: tuple[int, int] | None = None,
) -> Results:
    """Search, from what the folder's state has on. network: of how many words, and samples, a comparison on the network
    is made. Raises ValueError, OSError."""
    with SearchState(directory / "search-state.json", search.settings()) as state, Workers(workers) as pool:
        findings = find_words(search, state, pool.answers if workers > 1 else None, progress)
    results = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("weakorder", "numpy")},
        "shown": SHOWN,
        **findings.as_dict(),
        "assumptions": assumptions(search),
        "network": None,
    }
    if network is not None:
        best, samples = network
        results["network"] = on_network(findings, directory / "network", samples, best, progress)
    return results


def render(results: Results) -> str:
    """The page of JSON's values: the best words, the catalogue, the front, the network, what was assumed."""
    drawn = Markup(inline(as_svg(front(results)), "search", "distance to the data against evaluations"))
    return template("search.html.j2", {"number": number}).render(figure=drawn, **results)


def write_search(
    search: Search,
    directory: str | os.PathLike[str],
    progress: Progress,
    workers: int = 1,
    network: tuple[int, int] | None = None,
) -> tuple[Path, Results]:
    """Search into `directory`, made if need be; the path of the page and what it shows. Raises OSError, ValueError."""
    directory = Path(directory)
    make_folder(directory)
    page = directory / "search.html"
    check_writable(page)
    content = dumps(run_search(search, directory, progress, workers, network))
    results = json.loads(content)  # as a reader of the file has them: without nan and infinity
    write_atomically(directory / "search.json", content.encode())
    write_atomically(page, render(results).encode())
    return page, results

"""The winners of a search on the network that ships, beside the catalogue's nearest: who wins there?

What Gaussians rank is sampled from a network (cifar10.study): the nearest words and the nearest schemes of the
catalogue, from the same starts and on the same Brownian motion as a fine reference of their kind of dynamics. They are
compared by the weak error of the power spectrum, the quantity whose Gaussian twin they were ranked by, with that of
the catalogue's best there. That one is the least of several estimates, so that a word is judged rather hard.

    wins            its error is smaller by more than `CLEAR` standard errors of the difference
    loses           it is larger by more than that, or the run diverged
    not told apart  otherwise

Standard errors of differences are those of independent samples: these share starts, noise and reference, so that what
they tell apart is told. Ratios (cifar10.study.ratios) say how much; of an error that is not told from 0 they say
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...theory.model import PSLD_DIFFUSION
from ...theory.scheme import Scheme
from ..files import make_folder
from .search_findings import Findings

CLEAR = 2.0
REFINEMENT = 8  # steps of the references over those of the finest run
RIVALS = 3  # schemes of the catalogue
WINS, LOSES, OPEN = "wins", "loses", "not told apart"


def rivals(findings: Findings, best: int) -> tuple[list[Scheme], list[Scheme]]:
    """The `best` words that the catalogue does not have, and its nearest schemes of the same dynamics (the SDE or the
    flow, each has a reference of its own) that are stable. Raises ValueError where there is nothing to compare, and on
    a diffusion that the network has not learned."""
    if findings.search.diffusion != PSLD_DIFFUSION:
        raise ValueError(
            f"the network is of {PSLD_DIFFUSION.name}, not {findings.search.diffusion.name}; drop --on-network"
        )
    new = [replace(found.scheme, name=found.label) for found in findings.kept if found.name is None][:best]
    kinds = {scheme.splitting.whole.has_noise for scheme in new}
    known = [
        found.scheme
        for found in findings.catalogue
        if found.is_stable and found.judged.distance is not None and found.scheme.splitting.whole.has_noise in kinds
    ]
    if not new or not known:
        raise ValueError(
            "nothing to compare on the network: no word is kept that the catalogue lacks, or none of its own"
        )
    return new, known[:RIVALS]


def on_network(
    findings: Findings,
    folder: Path,
    samples: int,
    best: int,
    progress: Callable[[str, int], Callable[[int], None]],
) -> dict[str, Any]:
    """The comparison as JSON has it: `against`, the catalogue's best there, and of each scheme the weak error with its
    ratio and how it ends. Samples are kept in the folder, and only what is missing is sampled.

    Raises ValueError on a number of samples, and as `rivals` does, and on parameters that the network was not trained
    with.
    """
    import torch

    make_folder(folder)
    from ..cifar10.study import Processes, Store, reading
    from ..cifar10.study import design as studies

    search = findings.search
    new, known = rivals(findings, best)
    checkpoint, name = studies.open_checkpoint(None, vars(search.params))
    design = studies.Design((*new, *known), (search.nfe,), samples, search.grid, REFINEMENT, against=known[0].name)
    model, device = studies.model_of(checkpoint), torch.device("cpu")
    size = studies.batch_of(folder, design, model, device, None)
    studies.keep_batch(folder, size, samples)
    store = Store(folder, model, batch=size)
    studies.sample(design, store, device, Processes(), lambda total: progress("evaluations", total))
    results, _ = reading.read(design, store, reading.Data(None, None))
    ended = [entry for entry in map(_measured, results["schemes"][len(new) :]) if entry["error"] is not None]
    if not ended:
        raise ValueError("every scheme of the catalogue diverged on the network; search at more evaluations")
    nearest = min(ended, key=lambda entry: entry["error"])
    results, _ = reading.read(replace(design, against=nearest["label"]), store, reading.Data(None, None))
    entries = [_measured(scheme) for scheme in results["schemes"]]
    for entry in entries[: len(new)]:
        entry["ends"] = _ends(entry, nearest)
    return {
        "checkpoint": name,
        "samples": samples,
        "nfe": search.nfe,
        "grid": search.grid,
        "references": results["references"],
        "against": nearest["label"],
        "words": entries[: len(new)],
        "catalogue": entries[len(new) :],
    }


def _measured(scheme: dict[str, Any]) -> dict[str, Any]:
    """A scheme's weak error of the power spectrum at its one budget: None of a run that diverged."""
    (cell,) = scheme["cells"]
    weak = (cell["weak"] or {}).get("spectrum") or {}
    ratio = weak.get("ratio") or {}
    return {
        "label": scheme["label"],
        "steps": cell["steps"],
        "nfe": cell["evaluations"],
        "predicted": cell["predicted"],
        "error": weak.get("relative"),
        "standard_error": weak.get("standard_error"),
        "sure": bool(weak.get("sure")),
        "ratio": ratio.get("value"),
        "ratio_error": ratio.get("standard_error"),
        "ends": None,
    }


def _ends(entry: dict[str, Any], nearest: dict[str, Any]) -> str:
    """How the comparison with the catalogue's best ends."""
    if entry["error"] is None:
        return LOSES
    apart = CLEAR * math.hypot(entry["standard_error"], nearest["standard_error"])
    difference = entry["error"] - nearest["error"]
    return WINS if difference < -apart else LOSES if difference > apart else OPEN

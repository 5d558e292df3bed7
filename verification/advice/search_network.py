"""The winners of a search on the network that ships, beside the catalogue's nearest: who wins there?

What Gaussians rank is sampled from a network (cifar10.study): the nearest words and the nearest schemes of the
catalogue, from the same starts and on the same Brownian motion as a fine reference of their kind of dynamics. They are
compared by the weak error of the power spectrum, the quantity whose Gaussian twin they were ranked by, as ratios to
that of the catalogue's best there, with standard errors that know what samples have in common (cifar10.study.ratios).

    wins            the ratio is below 1 by more than `CLEAR` of its standard errors
    loses           it is above 1 by more than that, or the run diverged
    not told apart  otherwise
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...theory.model import PSLD_DIFFUSION
from ...theory.scheme import Scheme
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
    nearest = min((entry for entry in map(_measured, results["schemes"][len(new) :])), key=lambda entry: entry["error"])
    if not math.isfinite(nearest["error"]):
        raise ValueError("every scheme of the catalogue diverged on the network; search at more evaluations")
    results, _ = reading.read(replace(design, against=nearest["label"]), store, reading.Data(None, None))
    entries = [_measured(scheme) for scheme in results["schemes"]]
    for entry in entries[: len(new)]:
        entry["ends"] = _ends(entry)
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
    """A scheme's weak error of the power spectrum at its one budget: inf of a run that diverged."""
    (cell,) = scheme["cells"]
    weak = (cell["weak"] or {}).get("spectrum") or {}
    ratio = weak.get("ratio") or {}
    error = weak.get("relative")
    return {
        "label": scheme["label"],
        "steps": cell["steps"],
        "nfe": cell["evaluations"],
        "predicted": cell["predicted"],
        "error": math.inf if error is None else error,
        "standard_error": weak.get("standard_error"),
        "sure": bool(weak.get("sure")),
        "ratio": ratio.get("value"),
        "ratio_error": ratio.get("standard_error"),
    }


def _ends(entry: dict[str, Any]) -> str:
    """How the comparison with the catalogue's best ends."""
    if entry["ratio"] is None:
        return LOSES
    apart = CLEAR * entry["ratio_error"]
    return WINS if entry["ratio"] + apart < 1 else LOSES if entry["ratio"] - apart > 1 else OPEN

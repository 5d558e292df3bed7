"""Part d of a prepared run: what the products' precision changes of expectations, on the network that ships
(tests/benchmarks/gpu).

The cells are those of `weakorder cifar10 study --precision float32 tf32 bfloat16`, and so are their weak errors and
what rounding changes of these. What else the command says of its samples (distances between sets of images) takes one
thread of the processor two to three minutes for 512 samples of 12 cells, and is left out.

An H200 makes 12,000 evaluations of this network a second (results/2026-11-27-h200.json). 512 samples of 12 cells of 50
evaluations, and of 2 references of 300, are 606,000: 50 s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.verification.cifar10.model import is_imitated
from weakorder.verification.cifar10.study import Processes, Store, open_checkpoint
from weakorder.verification.cifar10.study import design as studies
from weakorder.verification.cifar10.study.cells import Cell
from weakorder.verification.cifar10.study.rounding import changes, summarise
from weakorder.verification.cifar10.study.statistics import CellStatistics, compare_functionals, waves

from .parts import EVENT, Context

STAGES = (128, 256, 512)  # samples; each goes on from the one before
PRECISIONS = ("float32", "tf32", "bfloat16")


def precision(context: Context) -> None:
    """Part d: a few samples first, so that there is a result; then more, where what those took says that time is left.

    Batches are as large as the first stage, whose samples are not sampled again."""
    stages = (2, 4) if context.tiny else STAGES
    checkpoint, _ = open_checkpoint(None, {})
    waves(EVENT[0], EVENT[1])  # drawn by a kernel that is compiled first
    imitates = is_imitated(PRECISIONS[-1], torch.device(context.device))
    store = Store(context.work / "study", studies.model_of(checkpoint), batch=stages[0], imitates=imitates)
    context.prepared()
    done, pace = 0, 0.0  # seconds for a sample
    for samples in stages:
        if pace * (samples - done) > context.left():
            context.record(f"{samples} samples", f"left out: {context.left():.0f} s are left, and it takes longer")
            return
        began, wanted = time.time(), design(samples, context.tiny)
        context.attempt(f"{samples} samples", lambda d=wanted: study(d, store, context.device))
        done, pace = samples, (time.time() - began) / (samples - done)


def design(samples: int, tiny: bool = False) -> studies.Design:
    """The cells of so many samples."""
    names, budget, refinement = (("EM",), 5, 4) if tiny else (("EM", "SSCS", "ROBA", "RVV"), 50, 8)
    schemes = tuple(CATALOGUE[name] for name in names)
    return studies.Design(schemes, (budget,), samples, refinement=refinement, precisions=PRECISIONS, against=names[0])


def study(wanted: studies.Design, store: Store, device: str) -> dict[str, Any]:
    """Sample what is missing; of rounding what the command's JSON says, and each cell's weak error."""
    began = time.time()
    studies.sample(wanted, store, torch.device(device), Processes(), lambda _: lambda _: None)
    sampled = time.time() - began
    cells = list(entries(wanted, store))
    return {
        "sampling_seconds": sampled,
        "seconds": time.time() - began,
        "batch": store.batch,
        "references": {cell.scheme.name: cell.steps for cell in wanted.references},
        "rounding": summarise((cell["scheme"], cell) for cell in cells),
        "cells": cells,
    }


def entries(wanted: studies.Design, store: Store) -> Iterator[dict[str, Any]]:
    """Of each cell its weak error, and what each precision changes of it."""
    for (place, budget), cell in wanted.cells.items():
        full, seconds = statistics(store, cell, wanted.samples)
        twins: dict[str, Any] = {}
        for name in wanted.precisions[1:]:
            twin, took = statistics(store, wanted.rounded[name, place, budget], wanted.samples)
            twins[name] = {"seconds": took, "diverged": twin.diverged, "change": changes(twin, full)}
        yield {
            "scheme": wanted.schemes[place].name,
            "nfe": budget,
            "seconds": seconds,
            "diverged": full.diverged,
            "weak": full.as_dict()["weak"],
            "precisions": twins,
        }


def statistics(store: Store, cell: Cell, samples: int) -> tuple[CellStatistics, float]:
    """Of a cell against its reference, and the seconds that its samples took. Raises FileNotFoundError if there are
    none."""
    fine = None if cell.reference is None else store.load(cell.reference, samples)
    own = store.load(cell, samples)
    if fine is None or own is None:
        raise FileNotFoundError(f"{store.path(cell).name}: samples are missing, or its reference's")
    return compare_functionals(own.x, fine.x), own.seconds

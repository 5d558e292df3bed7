"""The study of schemes on a network: what is run, and from which model.

design     which schemes, budgets, samples: the cells (cifar10.study.cells)
sample     every cell that is not on disk yet, shared among processes

What the samples say is read in cifar10.study.reading.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from ....integrators.sampler import Score
from ....theory.model import Parameters
from ....theory.scheme import Scheme
from ... import data
from ...files import write_atomically
from ..model import (
    CIFAR10,
    DATASETS,
    FLOAT32,
    Checkpoint,
    DataSet,
    NetworkScore,
    available_threads,
    batch_size,
    fingerprint,
    load_checkpoint,
)
from .cells import REFINEMENT, Cell, Model, plan
from .processes import Processes
from .ratios import compared_with
from .sampling import LARGEST_BATCH, Store, missing_work, run_work

SHIPPED = "cifar10_compact.safetensors"
MOST_SAMPLES = 10_000_000
BATCH = "batch"  # the file that keeps the size of the batches
OUTGROWN = 4  # how many times as large batches must fit for those of a smaller study to be left


def open_checkpoint(
    path: Path | None,
    given: Mapping[str, float],
    weights: Literal["ema", "raw"] = "ema",
    dataset: DataSet = CIFAR10,
    side: int | None = None,
) -> tuple[Checkpoint, str]:
    """The checkpoint of a file, or the one that ships (None), and what to call it.

    given: model parameters that the user named; they must be the file's, where it states them. dataset: what the
    network is of. side: of its images, which the user named. Raises ValueError, also on a network of other images than
    the data set's, as far as the file shows of which, and without a file where none ships.
    """
    if side is not None and not dataset.resized and side != dataset.side:
        raise ValueError(f"side = {side}: {dataset.name}'s images are {dataset.size}, and are not resized; drop it")
    if path is None and not dataset.ships:
        raise ValueError(f"no network of {dataset.name} ships; give yours with --checkpoint FILE")
    if path is None:
        with resources.as_file(resources.files(data) / SHIPPED) as shipped:
            found, name = load_checkpoint(shipped), f"{SHIPPED} (shipped)"
    else:
        known = Parameters(**given) if {"gamma", "nu"} <= given.keys() else None
        assumed = side or dataset.side
        found, name = load_checkpoint(path, known, weights=weights, side=side, assumed=assumed), path.name
        _check_images(found, name, assumed, dataset)
    for symbol, value in given.items():
        if symbol != "eps" and getattr(found.params, symbol) != value:
            raise ValueError(
                f"{symbol} = {value:g}: the network of {name} was trained at {getattr(found.params, symbol):g}; drop it"
            )
    return replace(found, params=replace(found.params, eps=given.get("eps", found.params.eps))), name


def _check_images(checkpoint: Checkpoint, name: str, side: int, dataset: DataSet) -> None:
    """Raises ValueError on a network of other images than those of the side."""
    config = checkpoint.network.config
    if config.image_size != side:
        own, others = config.image_size, [other.key for other in DATASETS.values() if other.side == config.image_size]
        instead = f"weakorder {others[0]} study" if others else "another --checkpoint"
        sure = "" if checkpoint.is_stated else f", or, if it is one of {side} x {side} after all, --side {side}"
        raise ValueError(
            f"{name} is a network of {own} x {own} images ({checkpoint.side_from}), and {dataset.name} is {side} x "
            f"{side}; give {instead}{sure}"
        )
    if config.in_ch != 2 * dataset.channels:
        raise ValueError(
            f"{name} reads {config.in_ch} channels, {dataset.name}'s images have {dataset.channels} in position and in "
            "momentum; give another --checkpoint"
        )


def model_of(checkpoint: Checkpoint) -> Model:
    """The model that cells are sampled from."""

    def score(device: torch.device) -> Score:
        return NetworkScore(checkpoint.network.to(device), checkpoint.params)

    network = checkpoint.network
    return Model(fingerprint(network.state_dict()), checkpoint.params, network.config, score)


@dataclass(frozen=True)
class Design:
    """Which cells: every scheme at every budget of evaluations, `samples` of each; see `sampling.plan`.

    precisions: of the network's products in the cells. With several, the first is float32, which the results are of;
    each cell then has a twin in each of the others (`rounded`), on the same noise, that differs in its rounding alone.
    against: the scheme that weak errors are given as ratios to, `ratios.compared_with` if none is named.
    Raises ValueError on what makes no such design.
    """

    schemes: tuple[Scheme, ...]
    budgets: tuple[int, ...]
    samples: int
    grid: str = "quadratic"
    refinement: int = REFINEMENT
    reference_steps: int | None = None
    precisions: tuple[str, ...] = (FLOAT32,)
    against: str | None = None

    def __post_init__(self) -> None:
        given = self.precisions
        if not given or len(set(given)) < len(given) or (len(given) > 1 and given[0] != FLOAT32):
            raise ValueError(
                f"precision {' '.join(given) or 'none'}: give one, or {FLOAT32}, which the others are compared "
                "with, and others, each once"
            )
        if not 2 <= self.samples <= MOST_SAMPLES:
            raise ValueError(f"samples = {self.samples}: give 2, which a standard error takes, to {MOST_SAMPLES:,}")
        _ = self.cells, self.compared_with

    @cached_property
    def compared_with(self) -> int:
        """The place of the scheme that weak errors are ratios to."""
        names = [scheme.name for scheme in self.schemes]
        return names.index(compared_with(names, self.against))

    @cached_property
    def cells(self) -> dict[tuple[int, int], Cell]:
        """By place of the scheme and budget."""
        return plan(self.schemes, self.budgets, self.grid, self.refinement, self.reference_steps, self.precisions[0])

    @cached_property
    def rounded(self) -> dict[tuple[str, int, int], Cell]:
        """The cells' twins by precision, and place of the scheme and budget."""
        return {
            (precision, *place): replace(cell, precision=precision)
            for precision in self.precisions[1:]
            for place, cell in self.cells.items()
        }

    @property
    def references(self) -> tuple[Cell, ...]:
        """The fine runs, each once."""
        return tuple(dict.fromkeys(cell.reference for cell in self.cells.values() if cell.reference is not None))


class KeptBatch(NamedTuple):
    """What a folder's last study noted of its batches: their `size`, and for how many `samples` it was chosen; None if
    the user chose it, for any number."""

    size: int
    samples: int | None = None


def kept_batch(folder: Path) -> KeptBatch | None:
    """What `keep_batch` noted, None if nothing. Raises ValueError if that cannot be read."""
    path = folder / BATCH
    if not path.is_file():
        return None
    try:
        kept = KeptBatch(*map(int, path.read_text().split()))
        if not 1 <= kept.size <= LARGEST_BATCH:
            raise ValueError(kept.size)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} holds no number of samples; remove it, or give --batch") from error
    return kept


def batch_of(folder: Path, design: Design, model: Model, device: torch.device, wanted: int | None) -> int:
    """The samples of a batch: as wanted, or as the folder's last study had, or as memory allows.

    A study that goes on has the batches that it had, and one of more samples reuses them; unless they were chosen for
    fewer, as in a trial, and `OUTGROWN` times as large ones fit now: what is there is then a small part of what is
    asked for, and not worth that all of it is sampled slowly. Raises ValueError on a number that is none.
    """
    if wanted is not None:
        chosen = wanted
    else:
        kept = kept_batch(folder)
        columns = max((cell.steps for cell in (*design.references, *design.cells.values())), default=1)
        grows = kept is None or (kept.samples is not None and kept.samples < design.samples)
        fits = batch_size(model.config, columns, design.samples, device) if grows else 0
        chosen = fits if kept is None or fits >= OUTGROWN * kept.size else kept.size
    if not 1 <= chosen <= LARGEST_BATCH:
        raise ValueError(f"batch = {chosen}: give 1 to {LARGEST_BATCH} samples")
    return chosen


def keep_batch(folder: Path, size: int, samples: int | None) -> None:
    """Note a batch's size in the folder, so that a study that goes on has the same; samples: see `KeptBatch`."""
    if samples is not None and (kept := kept_batch(folder)) is not None and kept.size == size:
        samples = None if kept.samples is None else max(samples, kept.samples)  # it was chosen as it was
    noted = [size] if samples is None else [size, samples]
    write_atomically(folder / BATCH, " ".join(map(str, noted)).encode())


def sample(
    design: Design,
    store: Store,
    device: torch.device,
    processes: Processes,
    progress: Callable[[int], Callable[[int], None]],
) -> None:
    """Sample this process's share of what is missing. progress(total) is told how many evaluations of a sample there
    are to do, and gives what is called with those that are done."""
    work = missing_work(store, [*design.cells.values(), *design.rounded.values()], design.samples)
    batches = processes.share(sorted({item.batch for item in work}))
    share = [item for item in work if item.batch in batches]
    if share:
        workers = max(1, available_threads() // processes.local_size)
        run_work(store, share, device, workers, progress(sum(item.evaluations for item in share)))


def describe_model(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """The model for the results: what the file says of its training, if it says anything."""
    metadata = checkpoint.metadata
    return {
        "checkpoint": name,
        "weights": sum(weight.numel() for weight in checkpoint.network.parameters()),
        "network": asdict(checkpoint.network.config),
        "side_from": checkpoint.side_from,
        "parameters": asdict(checkpoint.params) | {"M_inv": checkpoint.params.M_inv},
        **{key: metadata.get(key) for key in ("steps", "images_seen")},
        **{key: json.loads(metadata[key]) if key in metadata else None for key in ("held_out_loss", "losses")},
    }

"""What the samples of a study say, as plain values for JSON, and the images that a page shows.

Per cell    its statistics against the reference (cifar10.study.statistics), Frechet distances in pixels and in
            compact features (.frechet, .features), FID where it is asked for (.fid), and what exact moments
            predict; the same of its twins in other precisions, and what rounding changes (.rounding)
Per scheme  order and verdict (.analysis)
Together    how predictions and published FIDs rank the schemes, and how the measurements do
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ....integrators.grids import is_graded
from ....integrators.threads import one_thread
from ... import data as shipped
from ...files import write_atomically
from ...targets import read_images
from ..model import CIFAR10, FLOAT32, DataSet, load_images, prepared, to_unit
from .analysis import Level, Reference, SchemeVerdict, judge
from .cells import Cell, Images, is_bounded, kind_of, plan
from .comparison import PUBLISHED_FID, Prediction, measured_values, predict, rank_correlations
from .design import Design
from .features import count_of_shipped, feature_moments, features
from .fid import fid, find_weights, load_library, to_uint8
from .frechet import ENOUGH, Moments, excess_distance, frechet_distance
from .pixels import PixelLaw, pixel_law
from .ratios import ratios
from .rounding import changes, summarise
from .sampling import Samples, Store
from .statistics import CellStatistics, compare_images

SHOWN = 8  # samples of each cell on the page
MOST_FOR_EXCESS = 512  # rows that a jackknife is affordable for

Results = dict[str, Any]
Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Data:
    """What samples are compared with beside the reference: uint8 images (n, 3, side, side), or None, `name` saying
    which; whether FID is wanted, where Inception's weights are (None: where its library finds them), and the device it
    runs on; the data set they are of, and, in words, how pictures were made its size."""

    images: NDArray[np.uint8] | None
    name: str | None
    is_given: bool = False
    fid: bool = False
    weights: Path | None = None
    device: torch.device | None = None
    dataset: DataSet = CIFAR10
    prepared: str | None = None

    @staticmethod
    def of(
        path: Path | None,
        wants_fid: bool,
        weights: Path | None = None,
        device: torch.device | None = None,
        dataset: DataSet = CIFAR10,
        crop: int | None = None,
    ) -> Data:
        """Of a user's images of the data set, or those that ship, or none (None). crop: of each picture. Raises
        ValueError on what cannot be read, and where FID is wanted of data or a library that are not there."""
        if weights is not None and not wants_fid:
            raise ValueError(f"--inception-weights {str(weights)!r} are for --fid; give both")
        if wants_fid and path is None:
            raise ValueError(f"--fid compares with {dataset.name}'s training images; give them with --data")
        if crop is not None and path is None:
            raise ValueError(f"--crop {crop} is of the pictures of --data; give both")
        if wants_fid:
            load_library()
            find_weights(weights)
        if path is not None:
            images = load_images(path, "train", dataset, crop)
            if len(images) < 2:
                raise ValueError(f"{str(path)!r} holds {len(images)} image; a distance takes at least 2")
            how = prepared(dataset, crop, path.suffix == ".npz") if dataset.resized else None
            return Data(images, path.name, True, wants_fid, weights, device, dataset, how)
        if not dataset.ships:
            return Data(None, None, dataset=dataset)
        images = read_images(resources.files(shipped) / "cifar10_images.npz")
        return Data(images, f"{len(images)} images (shipped), of features to {count_of_shipped():,} (shipped)")

    @cached_property
    def law(self) -> PixelLaw | None:
        """Of the images of a data set whose spectrum does not ship; None where that does, or no images are there."""
        return None if self.dataset.ships or self.images is None else pixel_law(self.images)

    @property
    def is_predicted(self) -> bool:
        """Whether a spectrum is known that predictions can be made from."""
        return self.dataset.ships or self.images is not None

    @property
    def spaces(self) -> dict[str, _Space]:
        """Where Frechet distances are taken: in pixels, and where they ship for such images in compact features."""
        if self.dataset.ships and self.images is not None:
            return {
                "pixels": _Space(lambda x: x, Moments.of_samples(to_unit(self.images).numpy())),
                "features": _Space(features, feature_moments(self.images if self.is_given else None)),
            }
        return {"pixels": _Space(lambda x: x, None if self.law is None else self.law.moments)}


def read(
    design: Design, store: Store, data: Data, progress: Progress = iter
) -> tuple[Results, dict[Any, NDArray[np.uint8]]]:
    """The results, keys date, versions, settings, references, schemes, comparison, rounding, grid_samples; and the
    images that are shown, by (scheme's name, budget) and, of a reference, by its name.

    Cells that are not all there are left out. Raises ValueError on a file that cannot be read.
    """
    small = design.samples <= MOST_FOR_EXCESS  # threads would wait for each other
    with one_thread() if small else nullcontext():
        reader = _Reader(design, store, data)
        found = {place: reader.cell(place, cell) for place, cell in progress(list(design.cells.items()))}
    cells = {place: entry for place, entry in found.items() if entry is not None}
    verdicts = reader.verdicts()
    for (place, budget), entry in cells.items():
        if place in verdicts and (statistics := reader.statistics.get((place, budget))) is not None:
            entry |= statistics.as_dict(verdicts[place].slopes[budget])
            other = reader.statistics.get((design.compared_with, budget))
            for quantity, ratio in ({} if other is None else ratios(statistics, other)).items():
                entry["weak"][quantity]["ratio"] = ratio
    settings = {
        "samples": design.samples,
        "grid": design.grid,
        "nfe": list(design.budgets),
        "seed": store.seed,
        "lambda_s": sorted({scheme.lambda_s for scheme in design.schemes} - {1.0}) or None,
        "refinement": design.refinement,
        "against": design.schemes[design.compared_with].name if design.references else None,
        "precisions": list(design.precisions),
        "imitated": [name for name in design.precisions if store.imitates and name != FLOAT32],
        "batch": store.batch,
        "t_end": store.model.params.eps,
        "data": data.name,
        "dataset": data.dataset.name,
        "training_images": data.dataset.training_images,
        "prepared": data.prepared,
        "is_predicted": data.is_predicted,
    }
    results = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("weakorder", "torch", "numpy")},
        "settings": settings,
        "references": [reader.reference(cell) for cell in design.references],
        "schemes": [
            reader.scheme(place, verdicts.get(place), [entry for (at, _), entry in cells.items() if at == place])
            for place in range(len(design.schemes))
        ],
        "comparison": reader.comparison(cells),
        "rounding": summarise((design.schemes[place].name, entry) for (place, _), entry in cells.items()),
        "grid_samples": list(range(min(SHOWN, design.samples))),
    }
    return results, reader.images


class _Space:
    """Where Frechet distances are taken: `rows` of images, the `data`'s moments there (None: no data), and those of
    references."""

    def __init__(self, rows: Callable[[Images], NDArray[Any]], data: Moments | None) -> None:
        self.rows, self.data = rows, data
        self.references: dict[Cell, tuple[NDArray[Any], Moments]] = {}

    def ranks(self, samples: int) -> bool:
        """Whether so many samples are enough for their distances to compare schemes (cifar10.study.frechet)."""
        return self.data is not None and samples >= ENOUGH * len(self.data.mean)

    def distances(self, x: Images, reference: Cell | None, fine: Images | None) -> Results:
        """Of a cell's images: to the reference's, to the data, and how much further than the reference's these are."""
        rows = self.rows(x)
        own = Moments.of_samples(rows)
        found: Results = {} if self.data is None else {"to_data": frechet_distance(own, self.data)}
        if reference is None or fine is None:
            return found
        if reference not in self.references:
            there = self.rows(fine)
            self.references[reference] = there, Moments.of_samples(there)
        there, moments = self.references[reference]
        found["to_reference"] = frechet_distance(own, moments)
        if self.data is not None and 3 <= len(rows) <= MOST_FOR_EXCESS:
            found["excess"] = excess_distance(rows, there, self.data)._asdict()
        return found


class _Reader:
    """A study's samples, read cell by cell: images are large, what is kept of them is not."""

    def __init__(self, design: Design, store: Store, data: Data) -> None:
        self.design, self.store, self.data = design, store, data
        self.statistics: dict[tuple[int, int], CellStatistics] = {}
        self.images: dict[Any, NDArray[np.uint8]] = {}
        loaded = {cell: store.load(cell, design.samples) for cell in design.references}
        # a reference that diverged is no reference: its cells have images and distances to the data, and no errors
        self.diverged = {cell for cell, samples in loaded.items() if samples is not None and not is_bounded(samples.x)}
        self.fine = {cell: None if cell in self.diverged else samples for cell, samples in loaded.items()}
        self.spaces = data.spaces
        self.published = PUBLISHED_FID if data.dataset == CIFAR10 else {}  # the papers' tables by scheme are CIFAR-10's
        for cell, samples in self.fine.items():
            if samples is not None:
                self.images[cell.scheme.name] = to_uint8(samples.x[:SHOWN]).transpose(0, 2, 3, 1)

    def cell(self, place: tuple[int, int], cell: Cell) -> Results | None:
        """All but what takes other cells; None if samples are missing."""
        samples = self.store.load(cell, self.design.samples)
        if samples is None:
            return None
        name, budget = self.design.schemes[place[0]].name, place[1]
        prediction = self.predictions.get((name, budget))
        measured, statistics = self._measured(cell, samples)
        if statistics is not None:
            self.statistics[place] = statistics
        if not measured["diverged"]:
            self.images[name, budget] = to_uint8(samples.x[:SHOWN]).transpose(0, 2, 3, 1)
        return {
            "nfe": budget,
            "steps": cell.steps,
            "predicted": None if prediction is None else prediction.to_reference,
            "predicted_to_data": None if prediction is None else prediction.to_data,
            "published_fid": self.published.get((name, budget)),
            **measured,
            "precisions": {
                precision: twin
                for precision in self.design.precisions[1:]
                if (twin := self._twin(self.design.rounded[precision, *place], statistics)) is not None
            },
        }

    def _twin(self, cell: Cell, full: CellStatistics | None) -> Results | None:
        """A cell in another precision, and what that changes; None if samples are missing."""
        samples = self.store.load(cell, self.design.samples)
        if samples is None:
            return None
        measured, statistics = self._measured(cell, samples)
        return measured | {"change": {} if full is None or statistics is None else changes(statistics, full)}

    def _measured(self, cell: Cell, samples: Samples) -> tuple[Results, CellStatistics | None]:
        """What its samples alone say, with the reference's: as plain values, and the statistics they are from."""
        fine = None if cell.reference is None else self.fine[cell.reference]
        statistics = None if fine is None else compare_images(samples.x, fine.x)
        entry: Results = {"evaluations": samples.evaluations, "seconds": samples.seconds}
        entry |= {"diverged": not is_bounded(samples.x), "frechet": None}
        entry |= dict.fromkeys(("weak", "power", "moments", "strong", "distances"))
        entry |= {} if statistics is None else statistics.as_dict()
        if not entry["diverged"]:
            against = None if fine is None else fine.x
            frechet: dict[str, Results | None] = {
                space: found.distances(samples.x, cell.reference, against) for space, found in self.spaces.items()
            }
            frechet["inception"] = None if self.data.images is None else self._fid(cell, samples, self.data.images)
            entry["frechet"] = frechet
        return entry, statistics

    def _fid(self, cell: Cell, samples: Samples, images: NDArray[np.uint8]) -> Results | None:
        """The FID, kept beside the cell's samples: it takes an hour on a processor; None where it is not wanted."""
        if not self.data.fid:
            return None
        digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()[:12]
        kept = self.store.path(cell) / f"fid-{len(samples.x)}-{digest}.json"
        if kept.is_file():
            return json.loads(kept.read_text())
        cache = self.store.folder / "fid"
        found = fid(to_uint8(samples.x), images, self.data.weights, cache=cache, device=self.data.device)
        write_atomically(kept, json.dumps({"to_data": found.value, "warning": found.warning}).encode())
        return {"to_data": found.value, "warning": found.warning}

    def reference(self, cell: Cell) -> Results:
        """A fine run."""
        samples = self.fine[cell]
        return {
            "kind": cell.kind,
            "name": cell.scheme.name,
            "word": cell.scheme.word,
            "steps": cell.steps,
            "evaluations": None if samples is None else samples.evaluations,
            "diverged": cell in self.diverged,
        }

    def scheme(self, place: int, verdict: SchemeVerdict | None, cells: list[Results]) -> Results:
        """A scheme with its cells."""
        scheme = self.design.schemes[place]
        nothing = {"verdict": None, "reason": None, "order": None, "fits": {}, "systematic": {}}
        kinds = [reference.kind for reference in self.design.references]
        return {
            "name": scheme.name,
            "label": scheme.name,
            "word": scheme.word,
            "splitting": scheme.splitting.name,
            "lambda_s": scheme.lambda_s,
            "held": scheme.held,
            "nfe_per_step": scheme.nfe_per_step,
            "kind": kind_of(scheme),
            "reference": kinds.index(kind_of(scheme)) if kind_of(scheme) in kinds else None,
            "source": scheme.reference or None,
            "warnings": list(scheme.warnings),
            **(nothing if verdict is None else verdict.as_dict()),
            "cells": cells,
        }

    # --- What takes several cells -------------------------------------------------------------------------------------

    def verdicts(self) -> dict[int, SchemeVerdict]:
        """By place of the scheme, where there is a reference and a cell."""
        levels: dict[int, dict[int, Level]] = {}
        for (place, budget), statistics in self.statistics.items():
            levels.setdefault(place, {})[budget] = Level(self.design.cells[place, budget].steps, statistics)
        found = {}
        for place, own in levels.items():
            scheme = self.design.schemes[place]
            fine = next(cell for cell in self.design.references if cell.kind == kind_of(scheme))
            twin = next((at for at, other in enumerate(self.design.schemes) if other == fine.scheme), None)
            finest = None if twin not in levels else levels[twin][max(levels[twin])]
            reference = Reference(fine.scheme, fine.steps, finest)
            found[place] = judge(scheme, self.store.model.params, own, reference, graded=is_graded(self.design.grid))
        return found

    @cached_property
    def predictions(self) -> Mapping[tuple[str, int], Prediction | None]:
        """The Gaussian reading of every cell, on the spectrum of the data, if one is known; without references, against
        those that the study would have."""
        design = self.design
        if not self.data.is_predicted:
            return {}
        fine = {cell.kind: cell for cell in design.references} or {
            cell.kind: cell.reference
            for cell in plan(design.schemes, design.budgets, design.grid).values()
            if cell.reference is not None
        }
        references = [Reference(fine[kind].scheme, fine[kind].steps) for kind in map(kind_of, design.schemes)]
        spectrum = None if self.data.law is None else self.data.law.spectrum
        return predict(design.schemes, self.store.model.params, design.budgets, design.grid, references, spectrum)

    def comparison(self, cells: Mapping[tuple[int, int], Results]) -> Results:
        """How predictions rank the schemes, and how every measured quantity and the published FIDs do."""
        names = {place: self.design.schemes[place].name for place, _ in cells}
        measured, resampled = measured_values(
            {(names[place], budget): found for (place, budget), found in self.statistics.items()}
        )
        frechet: dict[str, dict[tuple[str, int], float | None]] = {}
        published: dict[tuple[str, int], float | None] = {}
        for (place, budget), entry in cells.items():
            published[names[place], budget] = entry["published_fid"]
            for space, distances in (entry["frechet"] or {}).items():
                if distances and self.spaces[space].ranks(self.design.samples):
                    name = f"Fréchet distance of {space} to data"
                    frechet.setdefault(name, {})[names[place], budget] = distances["to_data"]
        both = self.predictions.items()
        near = {key: None if found is None else found.to_reference for key, found in both}
        far = {key: None if found is None else found.to_data for key, found in both}
        found = rank_correlations(near, measured | frechet, resampled).as_dict()
        fids = rank_correlations(far, {"published FID": published}).as_dict()
        return {
            "quantities": found["quantities"] | fids["quantities"],
            "disagreements": found["disagreements"] + fids["disagreements"],
        }

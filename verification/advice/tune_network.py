"""Tuned settings on a network: does what Gaussians promise hold where the score is learned and data are no Gaussian?

Both runs, as published and tuned, from the same starts and on the same Brownian motion as one fine run of the same
dynamics (cifar10.study.cells), whose cut-off and denoising step are the published ones: what an exact sampler would
make of this network. Their weak errors against it have standard errors, and so has the ratio of the two, in which what
the runs have in common cancels (cifar10.study.ratios).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..cifar10.model import available_threads, batch_size
from ..cifar10.study import Cell, Store, compare_images, kind_of, missing_work, ratios, run_work
from ..cifar10.study import design as studies
from ..files import make_folder
from .tune_settings import Settings

if TYPE_CHECKING:
    import torch

SAMPLES, REFINEMENT = 16, 8
QUANTITY, DISTANCE = "spectrum", "spectral Fréchet"
# Standard errors that tell a ratio from 1.
_TELLING = 2.0


class Candidate(NamedTuple):
    """Settings of a scheme that are run on the network: `label` says which."""

    label: str
    scheme: Scheme
    settings: Settings


@dataclass(frozen=True)
class Validation:
    """A network's study of several budgets: `model` is what the network is called."""

    folder: Path
    samples: int = SAMPLES
    refinement: int = REFINEMENT
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 8:
            raise ValueError(f"samples = {self.samples}: distances and their errors take 8 or more")
        if self.refinement < 2:
            raise ValueError(f"refinement = {self.refinement}: the fine run takes at least 2 times the steps")

    def study(
        self,
        groups: Sequence[Sequence[Candidate]],
        params: Parameters,
        device: torch.device,
        progress: Callable[[int], Callable[[int], None]],
    ) -> dict[str, Any]:
        """Each group's candidates, the first of them as published, and the others' ratios to it, as plain values.

        progress(total) is told how many evaluations of a sample there are to do, and gives what is called with those
        done. What is in the folder is not sampled again. Raises ValueError if the network has other dynamics than the
        parameters', or a candidate is of other dynamics than PSLD's.
        """
        checkpoint, name = studies.open_checkpoint(None, {"eps": params.eps})
        if checkpoint.params != params:
            raise ValueError(
                f"the network that ships has the parameters {asdict(checkpoint.params)}; settings that are tuned at "
                "others say nothing of it: drop --gamma, --nu, --kappa, --beta-min, --beta-max"
            )
        make_folder(self.folder)
        model = studies.model_of(checkpoint)
        cells = self._cells([candidate for group in groups for candidate in group], params)
        store = Store(self.folder, model, self.seed, self._batch(model, list(cells.values()), device))
        work = missing_work(store, list(cells.values()), self.samples)
        if work:
            workers = available_threads()
            run_work(store, work, device, workers, progress(sum(item.evaluations for item in work)))
        found = [self._read(group, cells, store) for group in groups]
        steps = {cell.kind: cell.reference.steps for cell in cells.values() if cell.reference is not None}
        return {"network": name, "samples": self.samples, "reference_steps": steps, "groups": found}

    def _cells(self, candidates: Sequence[Candidate], params: Parameters) -> dict[Candidate, Cell]:
        """The candidates' cells, on references fine enough for all of their kind."""
        from ..cifar10.study import REFERENCES

        finest: dict[str, int] = {}
        for candidate in candidates:
            kind = kind_of(candidate.scheme)
            finest[kind] = max(finest.get(kind, 0), self.refinement * candidate.settings.steps)
        references = {kind: Cell(REFERENCES[kind], steps, "quadratic") for kind, steps in finest.items()}
        found = {}
        for candidate in candidates:
            settings = candidate.settings
            scheme, own, _ = settings.applied(candidate.scheme, params)
            eps = None if own.eps == params.eps else own.eps
            reference = references[kind_of(scheme)]
            grid = settings.grid(params)
            found[candidate] = Cell(scheme, settings.steps, grid, reference, eps=eps, denoises=settings.denoise)
        return found

    def _batch(self, model: Any, cells: Sequence[Cell], device: torch.device) -> int:
        if (kept := studies.kept_batch(self.folder)) is not None:
            return kept.size
        columns = max(cell.reference.steps for cell in cells if cell.reference is not None)
        size = batch_size(model.config, columns, self.samples, device)
        studies.keep_batch(self.folder, size, None)
        return size

    def _read(self, group: Sequence[Candidate], cells: dict[Candidate, Cell], store: Store) -> list[dict[str, Any]]:
        loaded = {}
        for candidate in group:
            cell = cells[candidate]
            pair = [store.load(one, self.samples) for one in (cell, cell.reference) if one is not None]
            x, fine = (one.x for one in pair if one is not None)
            loaded[candidate] = compare_images(x, fine)
        first = loaded[group[0]]
        found = []
        for candidate, statistics in loaded.items():
            entry: dict[str, Any] = {"label": candidate.label, "diverged": statistics.diverged}
            entry |= {"weak": None, "distance": None, "ratio": None}
            if not statistics.diverged:
                entry["weak"] = statistics.weak[QUANTITY].as_dict()
                entry["distance"] = statistics.distances[DISTANCE]._asdict()
                if candidate is not group[0]:
                    entry["ratio"] = ratios(statistics, first).get(QUANTITY)
            found.append(entry | {"says": said(entry, first.diverged)} if candidate is not group[0] else entry)
        return found


def said(entry: dict[str, Any], diverged: bool = False) -> str:
    """What a candidate's ratio to the published settings, which may have `diverged`, says of the advice."""
    if entry["diverged"]:
        return "diverges on the network"
    if (ratio := entry["ratio"]) is None:
        why = "diverge" if diverged else "end within their noise of the fine run"
        return f"no ratio: the published settings {why}"
    away = _TELLING * ratio["standard_error"]
    if ratio["value"] + away < 1:
        return "better on the network too"
    return "worse on the network" if ratio["value"] - away > 1 else "not told apart on the network"

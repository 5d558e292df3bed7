"""What the papers measured of settings, beside the exact distances of the same runs.

They state no lambda_s (ROBA's "is tuned" by FID, arXiv 2402.07211), and two grids. By evaluations, schemes as they were
run are ranked by FID and by exact distance, and Spearman's correlation says how alike: on CIFAR-10's spectrum, at the
model's default parameters.

FIDs by grid: arXiv 2303.01748, table 5, of 10,000 samples of the smaller models, Gamma = 0.01 or 0.02 (EM and SSCS,
quadratic and uniform striding). FIDs by scheme: cifar10.study.comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...integrators.catalogue import CATALOGUE
from ...integrators.grids import time_grid
from ...theory.model import Parameters
from ..exact import Spectrum, exact_moments
from ..targets import GaussianTarget

_BY_EVALUATIONS = (50, 100, 250, 500, 1000)
PUBLISHED_BY_GRID: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("EM", "quadratic"): (19.94, 7.33, 5.26, 5.20, 5.28),
    ("EM", "uniform"): (100.62, 39.96, 11.26, 5.45, 4.82),
    ("SSCS", "quadratic"): (16.12, 7.16, 5.36, 5.35, 5.27),
    ("SSCS", "uniform"): (72.42, 20.46, 5.19, 4.92, 5.29),
}


def by_grid(params: Parameters, data: Spectrum) -> list[dict[str, Any]]:
    """By evaluations: FIDs and exact distances of EM and SSCS on both grids, and the correlation of the ranks."""
    found = []
    for place, nfe in enumerate(_BY_EVALUATIONS):
        entries = [
            {"name": name, "grid": grid, "fid": fids[place], "distance": _distance(name, grid, nfe, params, data)}
            for (name, grid), fids in PUBLISHED_BY_GRID.items()
        ]
        found.append({"nfe": nfe, "entries": entries, "correlation": _correlation(entries)})
    return found


def by_scheme(params: Parameters, data: Spectrum, tuned: Mapping[tuple[str, int], float]) -> list[dict[str, Any]]:
    """By evaluations: FIDs and exact distances of schemes as published but for ROBA's lambda_s, and, where `tuned` has
    it, by scheme and evaluations, the tuned distance; the correlation of the untuned ranks."""
    from ..cifar10.study import PUBLISHED_FID

    found = []
    for nfe in sorted({nfe for _, nfe in PUBLISHED_FID}):
        entries = [
            {
                "name": name,
                "fid": fid,
                "distance": _distance(name, "quadratic", nfe, params, data),
                "tuned": tuned.get((name, nfe)),
            }
            for (name, at), fid in PUBLISHED_FID.items()
            if at == nfe
        ]
        found.append({"nfe": nfe, "entries": entries, "correlation": _correlation(entries)})
    return found


def _distance(name: str, grid: str, nfe: int, params: Parameters, data: Spectrum) -> float:
    scheme = CATALOGUE[name]
    target = GaussianTarget(data.mean, data.variances, scheme.splitting.diffusion, params)
    taus = time_grid(grid, (nfe - 1) // scheme.nfe_per_step, params)
    return data.distance(exact_moments(scheme, target, taus, "prior", True).computed)


def _correlation(entries: list[dict[str, Any]]) -> float:
    from scipy.stats import rankdata

    first, second = (rankdata([entry[key] for entry in entries]) for key in ("fid", "distance"))
    return float(np.corrcoef(first, second)[0, 1])

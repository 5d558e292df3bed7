"""Prediction and measurement: what exact moments foretell of a study, and how alike both rank the schemes.

Prediction. On Gaussian data with CIFAR-10's mean and covariance (exact.spectrum) everything is exact: the law
that a scheme delivers from the prior, after the denoising step, and its Frechet distance to the law of the reference's
scheme at the reference's steps, and to the data. What a network adds is not in it: data that are not Gaussian, and a
score that is not that of any data.

Comparison. A predicted and a measured quantity rank the schemes of a budget; Spearman's correlation of the ranks says
how alike. All budgets together: of the ranks within each budget (more evaluations are better for every scheme, and
pooled values would be praised for that). Its p-value is that of random permutations of the schemes, the same for all
budgets, since a scheme keeps its place from one to the next; two-sided, (1 + at least as large) / (1 + permutations),
which is exact in level where the budgets have the same schemes (Phipson and Smyth 2010, arXiv 1603.05766). Its
interval, where a quantity is given with resamples, that of their correlations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from ....integrators.grids import time_grid
from ....theory.model import Parameters
from ....theory.scheme import Scheme
from ...exact import Spectrum, Subject, cifar10_spectrum, moments_of
from ...targets import GaussianLaw, GaussianTarget
from ...verdicts import Array, resampled_norms
from .analysis import Reference
from .cells import TOO_LARGE
from .statistics import CellStatistics

PERMUTATIONS = 9999
FEWEST_RANKED = 3
MOST_DISAGREEMENTS = 6

# FIDs on CIFAR-10 of the largest PSLD model, 50,000 samples. ROBA is the papers' SPS, its lambda_s tuned by FID.
# arXiv 2310.07894 and 2402.07211.
PUBLISHED_FID: Mapping[tuple[str, int], float] = {
    ("EM", 50): 30.81,
    ("EM", 100): 7.83,
    ("SSCS", 100): 4.83,
    ("NOBA", 50): 36.87,
    ("ROBA", 50): 2.76,
    ("ROBA", 100): 2.36,
    ("NVV", 50): 69.06,
    ("RVV", 50): 14.19,
}


# --- Prediction -------------------------------------------------------------------------------------------------------


class Prediction(NamedTuple):
    """The Frechet distances of a scheme's law: to the law of the reference's run, and to the data."""

    to_reference: float
    to_data: float


def predict(
    schemes: Sequence[Subject],
    params: Parameters,
    nfe: Sequence[int],
    grid: str,
    references: Sequence[Reference],
    spectrum: Spectrum | None = None,
) -> dict[tuple[str, int], Prediction | None]:
    """The Gaussian reading of every scheme at every budget `nfe`, by (name, budget); None where the run diverged (to
    positions beyond `sampling.TOO_LARGE`), no entry where the budget buys no step.

    references: each scheme's own. spectrum: default CIFAR-10's. A scheme's lambda_s is kept; of schemes of one name the
    last counts. Raises ValueError if the references are not as many as the schemes.
    """
    if len(schemes) != len(references):
        raise ValueError(f"{len(schemes)} schemes and {len(references)} references; give each scheme its own")
    data = spectrum or cifar10_spectrum()

    def law(scheme: Subject, steps: int) -> GaussianLaw:
        target = GaussianTarget(data.mean, data.variances, scheme.splitting.diffusion, params)
        return moments_of(scheme, target, time_grid(grid, steps, params), "prior", denoise=True).computed

    fine: dict[tuple[Scheme, int], Spectrum] = {}
    found: dict[tuple[str, int], Prediction | None] = {}
    for scheme, reference in zip(schemes, references, strict=True):
        key = reference.scheme, reference.steps
        if key not in fine:
            exact = law(*key)
            fine[key] = Spectrum(exact.cov[0, 0], exact.mean[0], data.images)
        for budget in nfe:
            if (steps := (budget - 1) // max(scheme.nfe_per_step, 1)) < 1:
                continue
            delivered = law(scheme, steps)
            with np.errstate(over="ignore", invalid="ignore"):
                reach = float((np.abs(delivered.mean[0]) + np.sqrt(delivered.cov[0, 0])).max())
            bounded = reach <= TOO_LARGE  # False for nan
            found[scheme.name, budget] = (
                Prediction(fine[key].distance(delivered), data.distance(delivered)) if bounded else None
            )
    return found


# --- Comparison -------------------------------------------------------------------------------------------------------

Values = Mapping[tuple[str, int], float | None]
Resamples = Mapping[tuple[str, int], Array]


def measured_values(
    cells: Mapping[tuple[str, int], CellStatistics],
) -> tuple[dict[str, Values], dict[str, Resamples]]:
    """What cells by (name, budget) measure, for `rank_correlations`: relative weak errors with their resamples, the
    strong error, the distances; nothing of cells that diverged, and no weak error that is not sure, whose rank would be
    that of its noise."""
    values: dict[str, dict[tuple[str, int], float | None]] = {}
    resampled: dict[str, dict[tuple[str, int], Array]] = {}
    for key, cell in cells.items():
        found: dict[str, float | None] = {
            quantity: weak.relative if weak.norm.is_sure else None for quantity, weak in cell.weak.items()
        }
        found |= {f"{name} distance": distance.value for name, distance in cell.distances.items()}
        if cell.strong is not None:
            found["strong error"] = cell.strong.value
        for quantity, value in found.items():
            values.setdefault(quantity, {})[key] = value
        for quantity, weak in cell.weak.items():
            _, squares = resampled_norms(cell.rows[quantity].astype(float))
            resampled.setdefault(quantity, {})[key] = np.sqrt(np.maximum(squares, 0.0)) / weak.size
    return dict(values), dict(resampled)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of two rankings of schemes at one budget, or within each of all budgets (nfe None).

    interval: the middle 95% of the measured quantity's resamples, None without them; p_value: see the module.
    """

    nfe: int | None
    schemes: tuple[str, ...]
    correlation: float
    p_value: float
    interval: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "schemes": list(self.schemes),
            "interval": None if self.interval is None else list(self.interval),
        }


@dataclass(frozen=True)
class Comparison:
    """Rank correlations by measured quantity, and sentences on where the rankings differ most."""

    quantities: Mapping[str, tuple[RankCorrelation, ...]]
    disagreements: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "quantities": {q: [entry.as_dict() for entry in found] for q, found in self.quantities.items()},
            "disagreements": list(self.disagreements),
        }


def rank_correlations(
    predicted: Values,
    measured: Mapping[str, Values],
    resampled: Mapping[str, Resamples] | None = None,
) -> Comparison:
    """How alike a predicted and each measured quantity, by (scheme, budget), rank the schemes: 1st is the smallest.

    A scheme counts at a budget where both have a value; a budget with `FEWEST_RANKED` such schemes or more. resampled:
    of each quantity, if given for all these schemes, values under resamples of the samples (count,), the same resamples
    for all (`fits.resampled_norms`). A quantity that has no such budget is left out.
    """
    quantities, disagreements = {}, []
    for quantity, values in measured.items():
        budgets = _common(predicted, values)
        resamples = (resampled or {}).get(quantity, {})
        each = [_correlate((nfe,), {nfe: names}, predicted, values, resamples) for nfe, names in budgets.items()]
        if len(budgets) > 1:
            each.append(_correlate(tuple(budgets), budgets, predicted, values, resamples))
        if each:
            quantities[quantity] = tuple(each)
        for nfe, names in budgets.items():
            disagreements += _disagreements(quantity, nfe, names, predicted, values)
    largest = sorted(disagreements, key=lambda entry: -entry[0])[:MOST_DISAGREEMENTS]
    return Comparison(quantities, tuple(sentence for _, sentence in largest))


def _common(predicted: Values, values: Values) -> dict[int, tuple[str, ...]]:
    """By budget, the schemes that have both, if they are enough."""
    both = [key for key, value in predicted.items() if value is not None and values.get(key) is not None]
    budgets = {nfe: tuple(name for name, at in both if at == nfe) for nfe in sorted({nfe for _, nfe in both})}
    return {nfe: names for nfe, names in budgets.items() if len(names) >= FEWEST_RANKED}


def _ranks(values: Iterable[Any]) -> Array:
    """Of values (schemes, ...) along the schemes, ties shared, less their mean."""
    ranks = rankdata(np.array(list(values), dtype=float), axis=0)
    return ranks - ranks.mean(0)


def _correlate(
    nfe: tuple[int, ...],
    budgets: Mapping[int, tuple[str, ...]],
    predicted: Values,
    values: Values,
    resamples: Resamples,
) -> RankCorrelation:
    keys = {at: [(name, at) for name in budgets[at]] for at in nfe}
    first = [_ranks(predicted[key] for key in keys[at]) for at in nfe]
    second = [_ranks(values[key] for key in keys[at]) for at in nfe]
    correlation = float(_correlation(first, [ranks[:, None] for ranks in second])[0])
    names = tuple(dict.fromkeys(name for at in nfe for name in budgets[at]))
    # one permutation of the schemes for all budgets: a scheme keeps its place from budget to budget
    order = dict(zip(names, np.random.default_rng(0).random((len(names), PERMUTATIONS)), strict=True))
    shuffled = [
        ranks[np.argsort(np.stack([order[name] for name in budgets[at]]), axis=0)]
        for ranks, at in zip(second, nfe, strict=True)
    ]
    # equal up to the rounding of sums of ranks
    extreme = np.abs(_correlation(first, shuffled)) >= abs(correlation) - 1e-9
    interval = None
    if all(key in resamples for at in nfe for key in keys[at]):
        draws = _correlation(first, [_ranks(resamples[key] for key in keys[at]) for at in nfe])
        low, high = np.quantile(draws, [0.025, 0.975]).tolist()
        interval = (low, high)
    p_value = (1 + int(extreme.sum())) / (1 + PERMUTATIONS)
    return RankCorrelation(nfe[0] if len(nfe) == 1 else None, names, correlation, p_value, interval)


def _correlation(first: Sequence[Array], second: Sequence[Array]) -> Array:
    """Of centred ranks (schemes,) and (schemes, count), budget after budget: (count,); 0 where all are tied."""
    products = sum(a @ b for a, b in zip(first, second, strict=True))
    squares = sum(float(a @ a) for a in first) * sum((b**2).sum(0) for b in second)
    return np.asarray(products / np.sqrt(np.maximum(squares, np.finfo(float).tiny)))


def _disagreements(
    quantity: str, nfe: int, names: Sequence[str], predicted: Values, values: Values
) -> list[tuple[float, str]]:
    """The scheme whose two ranks differ most, if by more than one place, as the share of the places and a sentence."""
    first, second = (rankdata([v[name, nfe] for name in names]) for v in (predicted, values))
    worst = int(np.abs(first - second).argmax())
    gap = float(abs(first[worst] - second[worst]))
    if gap <= 1:
        return []
    sentence = (
        f"at {nfe} evaluations {names[worst]} ranks {_ordinal(first[worst])} of {len(names)} by prediction and "
        f"{_ordinal(second[worst])} by {quantity}"
    )
    return [(gap / (len(names) - 1), sentence)]


def _ordinal(rank: float) -> str:
    if rank != int(rank):
        return f"{rank:g}th (tied)"
    ending = "th" if int(rank) % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(int(rank) % 10, "th")
    return f"{int(rank)}{ending}"

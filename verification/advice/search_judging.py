"""What a search asks of single words, each a call that knows nothing of the others: distance, stability, order.

filtered    the distance to the spectrum from its nodes (advice.search_nodes), or why there is none
judged      growth of perturbations, the order as Gaussians show it, and the distance on the whole spectrum
proven      the order as a theorem

Stability (verification.stability): no perturbation may grow more than `Search.growth`-fold in the law's standard
deviations. Of a word with memory a perturbed state meets old answers that do not know it, and grows far more than runs
show (docs of verification.stability.growth); there a perturbation that the run begins with is what must not grow, and
the other growth is only said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...integrators.grids import time_grid
from ...integrators.held import keeping_flows
from ...theory.model import Diffusion, Parameters
from ...theory.scheme import Scheme
from ...theory.weak_order import prove_order
from ..exact import Spectrum, cifar10_spectrum, errors_of, exact_moments, gaussian_targets
from ..stability import growth as stability
from ..targets import GaussianTarget
from ..verdicts import Array, matmul, spectral_norm
from .search_nodes import cifar10_nodes
from .search_settings import Search
from .words import Family

# Where Gaussians are asked whether an order is reached: steps, and the time that runs end at.
ORDER_STEPS, ORDER_END = (400, 800), 0.1
# How many times the limit growth at the nodes is where the eigenvalues, which are others, need not be asked.
BEYOND = 1.1
REFUSED, TOO_DEAR, DIVERGED = "refused", "too dear", "diverged"

Filtered = tuple[float, float] | str  # distance and the estimate of its error, or why there is none


class Judged(NamedTuple):
    """A word's run: `growth`, the most that a perturbation grows; of one made at the beginning, `from_start`; `slope`,
    the order that Gaussians show, None where it was not asked for; the `distance` on the whole spectrum, None of a word
    that is dropped."""

    growth: float
    from_start: float
    slope: float | None
    distance: float | None


# --- The filter -------------------------------------------------------------------------------------------------------


def filtered(search: Search, family: Family, words: Sequence[str]) -> list[Filtered]:
    """Each word's distance from the nodes. "refused": the language has no such word with the family's memory; "too
    dear": the budget does not buy a step; "diverged": it ends further from the data than the prior it begins at."""
    with keeping_flows():
        return [_filtered(search, family, word) for word in words]


def _filtered(search: Search, family: Family, word: str) -> Filtered:
    try:
        scheme = family.scheme(word)
    except ValueError:
        return REFUSED
    if (taus := search.taus(scheme)) is None:
        return TOO_DEAR
    nodes = cifar10_nodes()
    target = nodes.target(search.diffusion, search.params)
    distance, error = nodes.distance(exact_moments(scheme, target, taus, "prior", denoise=True).computed)
    if not distance - error <= prior_distance(search.diffusion, search.params):  # False for nan
        return DIVERGED
    return distance, error


@lru_cache(maxsize=4)
def prior_distance(diffusion: Diffusion, params: Parameters) -> float:
    """How far the prior is from the data: a run that ends beyond it has diverged."""
    data = cifar10_spectrum()
    return data.distance(GaussianTarget(data.mean, data.variances, diffusion, params).prior())


# --- Judging ----------------------------------------------------------------------------------------------------------


def judged(search: Search, schemes: Sequence[Scheme]) -> list[Judged]:
    """Stability at the nodes, order as Gaussians show it, and the distance of those that stand both."""
    return [_judged(search, scheme) for scheme in schemes]


def _judged(search: Search, scheme: Scheme) -> Judged:
    taus = search.taus(scheme)
    if taus is None:
        raise ValueError(f"{search.nfe} evaluations buy no step of {scheme.word!r}; only words with a step are judged")
    growth, from_start = growths(scheme, search.params, taus, search.growth)
    slope = slope_on_gaussians(scheme, search.params) if search.order > 1 else None
    stands = search.is_stable(scheme.memory, growth, from_start)
    stands = stands and (slope is None or slope >= search.order - 0.5)
    return Judged(growth, from_start, slope, distance(search, scheme, search.nfe) if stands else None)


def growths(scheme: Scheme, params: Parameters, taus: Array, limit: float) -> tuple[float, float]:
    """The largest growth of a perturbation made at any time, and of one made at the beginning.

    What is judged, the first of a word without memory, the second of one with it, is of the whole spectrum, and the
    other of the nodes; where it is well beyond the limit at the nodes, both are at least what is returned.
    """
    nodes, whole = cifar10_nodes().variances, cifar10_spectrum().variances
    from_start = growth_from_start(scheme, params, taus, nodes)
    if from_start > BEYOND * limit:
        return from_start, from_start
    anywhere = stability.worst_growth(scheme, params, taus, Spectrum(nodes, np.zeros_like(nodes), 1)).growth
    if scheme.memory > 1:
        return anywhere, growth_from_start(scheme, params, taus, whole)
    return stability.worst_growth(scheme, params, taus).growth if anywhere <= BEYOND * limit else anywhere, from_start


def growth_from_start(scheme: Scheme, params: Parameters, taus: Array, variances: Array) -> float:
    """The most that a perturbation of the start is, at any later time of the grid, in the law's standard deviations,
    over what it was in those of the start; at least 1."""
    diffusion = scheme.splitting.diffusion
    target = GaussianTarget.of(0.0, variances, diffusion, params)
    steps = stability.in_law_units(stability.trajectory_maps(scheme, target, taus), target, taus)
    moved = np.eye(len(steps), diffusion.size)[:, :, None]
    largest = 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(steps.shape[2]):
            moved = matmul(steps[:, :, k], moved)
            norm = float(spectral_norm(moved[: diffusion.size]).max())
            largest = max(largest, norm if math.isfinite(norm) else math.inf)
    return largest


def slope_on_gaussians(scheme: Scheme, params: Parameters) -> float:
    """How fast the error of the law falls with the steps, as a power, on the order study's Gaussians; inf where it is
    rounding, -inf where the run diverges."""
    target = gaussian_targets(scheme.splitting.diffusion, params)
    unit = np.sqrt(scheme.splitting.diffusion.prior_variances(params.values()))
    found = []
    for steps in ORDER_STEPS:
        moments = exact_moments(scheme, target, time_grid("uniform", steps, params, ORDER_END))
        errors = errors_of(moments.computed, moments.exact, unit)
        found.append(math.hypot(errors["mean"], errors["covariance"]))
    coarse, fine = found
    if not (math.isfinite(coarse) and math.isfinite(fine)):
        return -math.inf
    if fine < 1e-11:
        return math.inf
    return math.log(coarse / fine) / math.log(ORDER_STEPS[1] / ORDER_STEPS[0])


def distance(search: Search, scheme: Scheme, nfe: int) -> float | None:
    """The Frechet distance to the whole spectrum at a budget, as exact.spectrum has it; None where the budget buys no
    step or the run diverged."""
    if (taus := search.taus(scheme, nfe)) is None:
        return None
    data = cifar10_spectrum()
    target = GaussianTarget(data.mean, data.variances, scheme.splitting.diffusion, search.params)
    found = data.distance(exact_moments(scheme, target, taus, "prior", denoise=True).computed)
    return found if found <= prior_distance(search.diffusion, search.params) else None


def curve(search: Search, scheme: Scheme, budgets: Sequence[int]) -> list[tuple[int, float]]:
    """The evaluations used and the distance at each budget that has one; budgets that buy the same steps count once."""
    found = {}
    for nfe in budgets:
        if (there := distance(search, scheme, nfe)) is not None:
            found[scheme.nfe_per_step * ((nfe - 1) // scheme.nfe_per_step) + 1] = there
    return list(found.items())


# --- The proof --------------------------------------------------------------------------------------------------------


def proven(scheme: Scheme, params: Parameters) -> tuple[int | None, str]:
    """The weak order as a theorem, and an empty text; None and why, where it cannot be proven."""
    try:
        proof = prove_order(scheme, linear_beta=params.beta_min != params.beta_max)
    except ValueError as error:
        return None, str(error)
    return (proof.searched if proof.order is None else proof.order), ""

"""The CIFAR-10 spectrum study: what a sampler's time steps cost on the real data's first two moments.

The model's dynamics act on every coordinate alike, so they commute with the rotation to the eigenbasis of the data's
pixel covariance: there a Gaussian with CIFAR-10's mean and covariance is 3,072 independent Gaussians N(mu_i, s2_i). A
sampler's output is Gaussian and diagonal too, N(m_i, C_i) in position, and its Frechet distance to the data (Heusel et
al. 2017, arXiv 1706.08500, here on pixels instead of Inception features) is

    d = sum_i (m_i - mu_i)^2 + (sqrt(C_i) - sqrt(s2_i))^2,

the square of the 2-Wasserstein distance. It is computed from exact moments, for a run as it is done in practice: from
the prior, down to the cut-off, then the denoising step, which counts as one of the evaluations that a budget allows.
The reference is the data, not the law at the cut-off; what remains for an exact sampler is the floor (not a lower
bound: a sampler's error can cancel part of it).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ...integrators.compiled import denoising_step
from ...integrators.grids import GRIDS, time_grid
from ...theory.model import Parameters
from ...theory.showing import Shown
from .. import data as shipped
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array, components_first, congruence, matmul, matvec
from .subject import Opaque, Subject, moments_of

# Evaluations up to which black boxes are run on 3,072 variances at once: a step is some milliseconds, and the cost of a
# whole trajectory grows as the cube of its steps.
PROBED_BUDGET, TRAJECTORY_BUDGET = 300, 50
BUDGETS = (20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


@dataclass(frozen=True)
class Spectrum:
    """Data as independent Gaussians: `variances` (V,), the covariance's eigenvalues, descending, and `mean` (V,) in the
    eigenbasis, in units of pixels scaled to [-1, 1]; `images`, the number that they were estimated from.

    Raises ValueError if the shapes differ or a variance is negative.
    """

    variances: Array
    mean: Array
    images: int

    def __post_init__(self) -> None:
        if self.variances.shape != self.mean.shape or self.variances.ndim != 1:
            raise ValueError(f"variances {self.variances.shape} and mean {self.mean.shape} must be one axis, the same")
        if (self.variances < 0).any():
            raise ValueError(f"variance {self.variances.min():g} is negative; a covariance's eigenvalues are >= 0")

    def distance(self, law: GaussianLaw) -> float:
        """The Frechet distance of a law's positions (mean (2, V), cov (2, 2, V)) to the data; inf or nan if the law
        overflowed."""
        with np.errstate(over="ignore", invalid="ignore"):
            spread = np.sqrt(law.cov[0, 0]) - np.sqrt(self.variances)
            return float(((law.mean[0] - self.mean) ** 2 + spread**2).sum())


@cache
def cifar10_spectrum() -> Spectrum:
    """The spectrum of CIFAR-10's pixel covariance, V = 3072, from the file that data/README.md describes."""
    path = resources.files(shipped) / "cifar10_spectrum.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        return Spectrum(arrays["eigenvalues"], arrays["mean"], int(arrays["images"]))


@dataclass(frozen=True)
class SpectrumCurve:
    """One scheme on one grid: its distance to the data against the evaluations it used.

    budgets, steps, nfe (levels,), integers: the evaluations allowed, the steps they buy after the denoising step's one,
    and the evaluations used. distance (levels,): nan where `diverged` (levels,), which marks a run that overflowed or
    ended further from the data than the prior it began at. floor: the distance of the exact law at the cut-off after
    the same denoising step, which steps do not remove. A budget that does not buy a step has no level.
    """

    name: str
    grid: str
    budgets: NDArray[np.int64]
    steps: NDArray[np.int64]
    nfe: NDArray[np.int64]
    distance: Array
    diverged: NDArray[np.bool_]
    floor: float


@dataclass(frozen=True)
class SpectrumStudy(Shown):
    """The curves, in the order of the schemes and then the grids; `cutoff` is the distance of the law at the cut-off
    without denoising and `prior` that of the prior, both of the first scheme's diffusion."""

    curves: tuple[SpectrumCurve, ...]
    cutoff: float
    prior: float
    images: int
    dimensions: int


def denoised(target: GaussianTarget, scheme: Subject, params: Parameters) -> GaussianLaw:
    """The exact law at the cut-off after the denoising step of `scheme`'s dynamics: what an exact sampler delivers."""
    step = denoising_step(scheme.splitting, params.eps, params)
    law = target.law(params.eps)
    P, K, _ = (components_first(entry)[:, :, 0] for entry in step.flow)
    # The score has mean zero under its own law, so only the covariance feels it.
    return GaussianLaw(matvec(P, law.mean), congruence(P - matmul(K, target.precision(law)), law.cov))


def study_spectrum(
    schemes: Sequence[Subject],
    params: Parameters,
    budgets: Sequence[int] = BUDGETS,
    grids: Sequence[str] = tuple(GRIDS),
    spectrum: Spectrum | None = None,
    progress: Callable[[Sequence[Future[float]]], Iterable[Future[float]]] = iter,
) -> SpectrumStudy:
    """Every scheme on every grid at every budget of evaluations, from the prior, with the denoising step.

    Black boxes run up to `PROBED_BUDGET` evaluations, or `TRAJECTORY_BUDGET` where whole runs must be probed. spectrum:
    default CIFAR-10's. progress wraps the runs, to show how many are done. Raises ValueError if there is no scheme or
    grid, a grid is unknown, or the budgets do not increase from at least 2.
    """
    if not schemes or not grids:
        raise ValueError("nothing to study; name at least one scheme and one grid")
    if not budgets or list(budgets) != sorted(set(budgets)) or budgets[0] < 2:
        raise ValueError(f"budgets {list(budgets)}: give increasing numbers of evaluations, from 2 (a step, denoising)")
    data = spectrum or cifar10_spectrum()
    targets = [GaussianTarget(data.mean, data.variances, s.splitting.diffusion, params) for s in schemes]
    levels = [
        (scheme, target, grid, _affordable(scheme, budgets))
        for scheme, target in zip(schemes, targets, strict=True)
        for grid in grids
    ]
    boxes = [scheme for scheme in schemes if isinstance(scheme, Opaque)]
    for scheme in schemes:  # sympy derives the flows here, before there are threads
        small = GaussianTarget(data.mean[:1], data.variances[:1], scheme.splitting.diffusion, params)
        _run(scheme, small, grids[0], 1, params)
    # what black boxes draw is intercepted one at a time
    with ThreadPoolExecutor(1 if boxes else os.cpu_count()) as pool:
        runs = [
            [pool.submit(_distance, data, scheme, target, grid, steps, params) for _, steps in affordable]
            for scheme, target, grid, affordable in levels
        ]
        for run in progress([run for level in runs for run in level]):
            run.result()
    curves = []
    for (scheme, target, grid, affordable), level in zip(levels, runs, strict=True):
        steps = np.array([steps for _, steps in affordable], dtype=np.int64)
        distance = np.array([run.result() for run in level], dtype=float)
        diverged = ~(distance <= data.distance(target.prior()))
        curves.append(
            SpectrumCurve(
                scheme.name,
                grid,
                np.array([budget for budget, _ in affordable], dtype=np.int64),
                steps,
                scheme.nfe_per_step * steps + 1,
                np.where(diverged, np.nan, distance),
                diverged,
                data.distance(denoised(target, scheme, params)),
            )
        )
    first = targets[0]
    cutoff, prior = data.distance(first.law(params.eps)), data.distance(first.prior())
    return SpectrumStudy(tuple(curves), cutoff, prior, data.images, data.mean.size)


def _affordable(scheme: Subject, budgets: Sequence[int]) -> list[tuple[int, int]]:
    """The budgets that buy at least one step, with their steps; one evaluation is the denoising step's."""
    if scheme.nfe_per_step == 0:
        return []
    if isinstance(scheme, Opaque):
        most = PROBED_BUDGET if scheme.is_stepwise else TRAJECTORY_BUDGET
        budgets = [budget for budget in budgets if budget <= most]
    pairs = ((budget, (budget - 1) // scheme.nfe_per_step) for budget in budgets)
    return [(budget, steps) for budget, steps in pairs if steps >= 1]


def _run(scheme: Subject, target: GaussianTarget, grid: str, steps: int, params: Parameters) -> GaussianLaw:
    return moments_of(scheme, target, time_grid(grid, steps, params), "prior", denoise=True).computed


def _distance(
    data: Spectrum, scheme: Subject, target: GaussianTarget, grid: str, steps: int, params: Parameters
) -> float:
    return data.distance(_run(scheme, target, grid, steps, params))

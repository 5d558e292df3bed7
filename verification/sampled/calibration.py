"""Coupled runs on Gaussian data, exactly: what the sampled estimates should say, and whether their intervals hold it.

With the target's affine score every run is a linear image of its first state and of the common normals,

    u = R u_0 + b + sum_c G_c z_c,

so that the covariance of all runs together is R cov_0 R^T + sum_c G_c G_c^T (`exact_coupled_moments`): the variance of
a coupled difference without a sample, and the oracle of every estimate of sampled.multilevel. For f = x^2 and
jointly Gaussian x_1, x_2 with means mu_i, by Isserlis,

    Cov(x_1^2, x_2^2) = 2 Cov(x_1, x_2)^2 + 4 mu_1 mu_2 Cov(x_1, x_2)

(`exact_second_moment`). `calibrate` repeats the coupled estimate with new paths and counts the 95% intervals that hold
the exact answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.stats import t as student_t

from ...integrators.compiled import Segment
from ...integrators.coupling import CoupledRun, Coupling, couple, sample_coupled
from ...integrators.grids import time_grid
from ...integrators.threads import one_thread
from ...theory.flows import Flow
from ...theory.scheme import Scheme
from ..exact import T_END, closed_map, starting_law
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array
from .coupled_levels import BATCH_ENTRIES

if TYPE_CHECKING:
    from ..targets import Target


def exact_coupled_moments(coupling: Coupling, target: GaussianTarget, start: str = "exact") -> GaussianLaw:
    """Mean (n runs, V) and covariance (n runs, n runs, V) of the last states of all runs together, on Gaussian data.

    start: "exact" or "prior", at t = T.
    """
    law = starting_law(target, 0.0, start)
    images = [_linear_image(coupled, coupling, target) for coupled in coupling.runs]
    R, b, G = (np.concatenate(entries) for entries in zip(*images, strict=True))
    mean = np.einsum("ijv,jv->iv", R, law.mean) + b
    cov = np.einsum("ijv,jkv,lkv->ilv", R, law.cov, R) + np.einsum("icv,jcv->ijv", G, G)
    return GaussianLaw(mean, cov)


def _linear_image(coupled: CoupledRun, coupling: Coupling, target: GaussianTarget) -> tuple[Array, Array, Array]:
    """R (n, n, V), b (n, V) and G (n, columns width, V) of one run; what is remembered, 0 at first, moves with it."""
    n, size, memory = coupling.size, target.mean.size, coupled.run.scheme.memory
    prologue = Segment(None, Flow(*(entry[None] for entry in coupled.run.prologue)))
    maps = [closed_map(prologue, target, memory), closed_map(coupled.run.updates, target, memory)]
    matrix, offset = (
        np.concatenate([np.broadcast_to(m[i], (*m[i].shape[:-1], size)) for m in maps], axis=-2) for i in (0, 1)
    )
    later = np.broadcast_to(np.eye(n, n * memory)[..., None], (n, n * memory, size))
    suffix = np.empty((n, n, *matrix.shape[2:]))  # what carries the noise of a segment to the end of the run
    total = np.zeros((n, size))
    for k in reversed(range(matrix.shape[2])):
        suffix[:, :, k] = later[:, :n]
        total = total + np.einsum("ijv,jv->iv", later, offset[:, k])
        later = np.einsum("ijv,jkv->ikv", later, matrix[:, :, k])
    G = np.zeros((coupling.columns, n, coupling.width, size))
    np.add.at(G, coupled.column, np.einsum("ijnv,njw->niwv", suffix[:, :, coupled.segment], coupled.image))
    return later[:, :n], total, G.transpose(1, 0, 2, 3).reshape(n, -1, size)


class SecondMoment(NamedTuple):
    """Of f = x^2 at neighbouring levels N and r N, exactly: E f(u_N) - E f(u_rN), its variance, and Var f(u_N)."""

    difference: float
    coupled_variance: float
    plain_variance: float


def exact_second_moment(scheme: Scheme, target: GaussianTarget, coarse: Array, fine: Array) -> SecondMoment:
    """Of x^2 for one Gaussian target, over the grids `coarse` and `fine`."""
    coupling = couple([(scheme, coarse), (scheme, fine)], target.params)
    mean, cov = (entry[:: coupling.size][..., 0] for entry in exact_coupled_moments(coupling, target))
    cov = cov[:, :: coupling.size]
    squares = 2 * cov**2 + 4 * np.outer(mean, mean) * cov  # Cov(x_i^2, x_j^2)
    difference = float(mean[0] ** 2 + cov[0, 0] - mean[1] ** 2 - cov[1, 1])
    return SecondMoment(difference, float(squares[0, 0] + squares[1, 1] - 2 * squares[0, 1]), float(squares[0, 0]))


class Calibration(NamedTuple):
    """How many of `repetitions` 95% intervals held the exact answer."""

    repetitions: int
    contained: int
    paths: int

    @property
    def coverage(self) -> float:
        """As a fraction; its standard error is 0.005 for 2,000 repetitions."""
        return self.contained / self.repetitions


def calibrate(
    scheme: Scheme,
    target: Target,
    law: GaussianTarget,
    steps: int = 25,
    repetitions: int = 2000,
    paths: int = 512,
    t_end: float = T_END,
    seed: int = 0,
) -> Calibration:
    """Repeat the coupled estimate of E x^2 at `steps` less at 2 `steps`, each time with `paths` new paths, and count
    the 95% intervals (Student's) that hold the exact difference. `law` is the target, one-dimensional and Gaussian,
    whose moments are exact."""
    coarse, fine = (time_grid("uniform", count, target.params, t_end) for count in (steps, 2 * steps))
    coupling = couple([(scheme, coarse), (scheme, fine)], target.params)
    exact = exact_second_moment(scheme, law, coarse, fine).difference
    quantile = float(student_t.ppf(0.975, paths - 1))
    contained = 0
    with one_thread():
        for first in range(0, repetitions * paths, chunk := max(1, BATCH_ENTRIES // paths) * paths):
            numbers = torch.arange(first, min(first + chunk, repetitions * paths))
            u = target.sample(target.params.T, numbers, seed)
            last = sample_coupled(coupling, target.score, u, numbers, seed)
            squares = [state.reshape(len(numbers), -1)[:, 0].square() for state in last]
            values = (squares[0] - squares[1]).unflatten(0, (-1, paths)).numpy()
            half = quantile * values.std(1, ddof=1) / math.sqrt(paths)
            contained += int((np.abs(values.mean(1) - exact) <= half).sum())
    return Calibration(repetitions, contained, paths)

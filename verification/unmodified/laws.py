"""The laws of an unmodified sampler on Gaussian data, from its transcript.

Data x_0 ~ N(mu, v); the network is the exact one, whose prediction of x_0 from z = alpha x_0 + sigma eps is
mu + alpha v (z - alpha mu) / (alpha^2 v + sigma^2), so its answers are affine in what it is given. Put into the
transcript they make every state Gaussian, with mean and variance in closed form. A consistency network (Song et al.
2023) predicts another point, the one where the probability flow from z ends, mu + (v / (alpha^2 v + sigma^2))^(1/2)
(z - alpha mu). Three questions are asked of a run:

    last      the last state that the network saw, against the exact law at the noise it was told
    final     what is returned, against the data, and against what the denoiser makes of the exact law at `last`
    gain      how much of a start one deviation off is left at `last`: of the reverse SDE it is
              sd(x_T) cov(x_t, x_T) / var(x_T) / sd(x_t), of the flow 1
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...integrators.unmodified import Unmodified
from ...theory.paths import Level
from ..verdicts import Array
from .transcript import Transcript


class Data(NamedTuple):
    """Gaussian data: means and variances, (V,)."""

    mean: Array
    variance: Array


class Law(NamedTuple):
    """Means and variances (V,), and gain (V,), what is left of a deviation at the start, in deviations."""

    mean: Array
    variance: Array
    gain: Array


class RunLaws(NamedTuple):
    """The laws of a run: computed at the last evaluation and at the end, and the exact ones there: at the evaluation's
    level, the data's, and the denoiser's."""

    last: Law
    final: Law
    exact: Law
    data: Law
    denoised: Law


def law_at(data: Data, at: Level) -> tuple[Array, Array]:
    """Mean and variance of scale (alpha x_0 + sigma eps), (V,) each."""
    scale = at.scale
    return scale * at.alpha * data.mean, scale**2 * (at.alpha**2 * data.variance + at.sigma**2)


def denoiser(data: Data, at: Level) -> Array:
    """The slope of E[x_0 | z] in z, (V,): what networks of diffusions predict."""
    return at.alpha * data.variance / (at.alpha**2 * data.variance + at.sigma**2)


def consistency(data: Data, at: Level) -> Array:
    """The slope in z of where the probability flow from z ends, (V,): what consistency networks predict."""
    return np.sqrt(data.variance / (at.alpha**2 * data.variance + at.sigma**2))


def laws_of(
    sampler: Unmodified,
    run: Transcript,
    data: Data,
    from_prior: bool = False,
    network: Callable[[Data, Level], Array] = denoiser,
) -> RunLaws:
    """The laws of a run on Gaussian data, started from the exact law there, or, from_prior, from pure noise, as people
    do; network: the slope (V,) of its prediction of x_0, whose mean is the data's. Entries that overflow are inf or
    nan."""
    N, V = run.nfe, data.mean.size
    slope, centre = _answers(sampler, run, data, network)
    with np.errstate(all="ignore"):
        start = law_at(data, run.begin)
        if from_prior:
            start = (np.zeros(V), np.full(V, run.prior**2))
        last, final = (_law(run, row, slope, centre, *start) for row in (N - 1, N))
    at = run.levels[-1]
    return RunLaws(
        last,
        final,
        _exact(data, at, run.begin, run.is_stochastic),
        _of_data(data),
        _denoised(data, at, network(data, at)),
    )


def laws_along(
    sampler: Unmodified, run: Transcript, data: Data, place: int
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Mean and variance (V,) of the input of evaluation `place`, counted from 0, started from the exact law, and the
    exact ones at the level that the network is told there."""
    with np.errstate(all="ignore"):
        law = _law(run, place, *_answers(sampler, run, data, denoiser), *law_at(data, run.begin))
    return (law.mean, law.variance), law_at(data, run.levels[place])


def _answers(
    sampler: Unmodified, run: Transcript, data: Data, network: Callable[[Data, Level], Array]
) -> tuple[Array, Array]:
    """The exact network's answers, slope y + centre: (N, V) each."""
    slope, centre = np.empty((run.nfe, data.mean.size)), np.empty((run.nfe, data.mean.size))
    for k, at in enumerate(run.levels):
        of_state, of_data = sampler.prediction(at)
        pull = network(data, at)
        slope[k] = (of_state + of_data * pull) / at.scale
        centre[k] = of_data * data.mean * (1 - pull * at.alpha)
    return slope, centre


def _law(run: Transcript, row: int, slope: Array, centre: Array, mean: Array, variance: Array) -> Law:
    """The law of y_row from a start of that mean and variance (V,). Its weights on the answers, their own answers put
    in, follow backwards: w_j = G_j + sum of w_i slope_i G_ij over later i."""
    N, V = slope.shape
    weights = np.zeros((N, V))
    for j in range(min(row, N) - 1, -1, -1):
        weights[j] = run.gains[row, j] + run.gains[j + 1 : row, j] @ (weights[j + 1 : row] * slope[j + 1 : row])
    through = weights * slope
    start = run.start[row] + run.start[:N] @ through
    offset = run.offset[row] + run.offset[:N] @ through + (weights * centre).sum(0)
    noise = run.noise[row][:, None] + run.noise[:N].T @ through
    spread = start**2 * variance + (noise**2).sum(0)
    return Law(start * mean + offset, spread, start * np.sqrt(variance / spread))


def _exact(data: Data, at: Level, begin: Level, is_stochastic: bool) -> Law:
    mean, variance = law_at(data, at)
    if not is_stochastic:
        return Law(mean, variance, np.ones_like(mean))
    # x_T = (alpha_T / alpha_t) x_t and independent noise: the reverse SDE has the forward one's covariance
    ratio = begin.alpha / at.alpha
    own, first = (law_at(data, level._replace(scale=1.0))[1] for level in (at, begin))
    return Law(mean, variance, ratio * np.sqrt(own / first))


def _of_data(data: Data) -> Law:
    return Law(data.mean, data.variance, np.ones_like(data.mean))


def _denoised(data: Data, at: Level, pull: Array) -> Law:
    """The law of the prediction of x_0 from an exact state."""
    total = at.alpha**2 * data.variance + at.sigma**2
    return Law(data.mean, pull**2 * total, np.ones_like(data.mean))

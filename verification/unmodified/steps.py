"""What happens between the evaluations of a run, of a sampler and of a word.

A network answers with its prediction of the data, whatever it is asked for: let X_k be that at evaluation k. Where the
state is divided by the standard deviation of data of variance 1, v_k = y_k / (scale (alpha^2 + sigma^2)^(1/2)), every
path is the diffusion vp over theta = log(1 + sigma^2 / alpha^2) (theory.paths), and between two evaluations

    v_k+1 = P_k v_k + sum_j<=k G_kj X_j + noise of variance Q_k.

P, G and Q are read off the transcript (unmodified.transcript) and computed for the word (integrators.compiled), for all
targets at once. What holds the network's noise over several evaluations, eps_k = (v_k - alpha_k X_k) / sigma_k, is
looked at with eps_k in the place of X_k: its last few have weights, and no others. What a sampler makes of its last
evaluation, a step to no noise at all, belongs to no word and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...integrators.compiled import Run, compile_runs
from ...integrators.unmodified import Unmodified
from ...theory.parameters import SMALLEST_TIME, Parameters
from ...theory.scheme import Scheme
from ..verdicts import Array
from .transcript import Transcript, transcribe

# Runs are read off to some 1e-13, of shipped tables that are interpolated to 1e-9; two words differ by 1e-3 and more.
AGREES = 1e-8
# A Brownian tree rounds its times by 1e-6, in units of the run: the variance of what it gives is off by that.
AGREES_IN_NOISE = 2e-5
_NO_NOISE = 1e-20  # a variance, of states of variance 1, below which it is what rounding makes of none
_LEAST_SHARED = 1e-3  # a variance that returns is told beside it, or the noise
_LEAST = 1e-10  # a time of vp, relative to the first, below which there is no noise to speak of


class Taken(NamedTuple):
    """A run of a sampler: its transcript; the first evaluation that is not of pure noise; and vp's time of it and of
    those behind it where there is noise (n,), as the network is told."""

    run: Transcript
    first: int
    thetas: Array


@dataclass(frozen=True)
class Steps:
    """Between evaluations: P (n,), G (n, n + 1), of each answer up to then, Q (n,), and shared (n, n), the part of each
    noise that an earlier interval had already."""

    P: Array
    G: Array
    Q: Array
    shared: Array

    @cached_property
    def columns(self) -> Array:
        """What is compared: P, the weights of the answers from the last one on, Q, and noise that returns
        (n, n + 3)."""
        steps = np.arange(len(self.P))
        answer = steps[:, None] - steps
        weights = np.where(answer >= 0, self.G[steps[:, None], np.maximum(answer, 0)], 0)
        return np.column_stack([self.P, weights, self.Q, np.abs(self.shared).sum(1)])

    @cached_property
    def sizes(self) -> Array:
        """Beside what they are told, the larger of two: (n, n + 3)."""
        weights = np.repeat(np.abs(self.G).sum(1)[:, None], len(self.P), axis=1)
        noise = np.maximum(self.Q, _NO_NOISE)
        return np.column_stack([np.abs(self.P), weights, noise, np.maximum(noise, _LEAST_SHARED)])

    def name(self, column: int) -> str:
        """Of a column, for people."""
        weights = ["the weight of the last answer"]
        weights += [f"the weight of the answer {age} before it" for age in range(1, len(self.P))]
        return ["what is kept of the state", *weights, "the variance of the noise", "noise that returns"][column]


def take(sampler: Unmodified, steps: int) -> Taken:
    """The transcript of a run with so many steps. Raises BlackBoxError where it cannot be read off, ValueError where
    its times are no run of a word, or its states are rounded to float32."""
    run = transcribe(sampler, steps)
    if run.rounding > AGREES:
        raise ValueError(
            f"its states are rounded by {run.rounding:.0e} of themselves, as in float32, and no word is told to "
            f"{AGREES:g} in them; compute in the dtype of the state that it is given"
        )
    return Taken(run, *_thetas_of(run))


def _thetas_of(run: Transcript) -> tuple[int, Array]:
    """Raises ValueError unless the times fall."""
    theta = np.array([np.log1p((at.sigma / at.alpha) ** 2) if at.alpha > 0 else np.inf for at in run.levels])
    first = int(np.isinf(theta).sum())
    theta = theta[first:]
    theta = theta[theta > _LEAST * theta.max(initial=0)]
    if len(theta) < 3 or not (np.diff(theta) < 0).all():
        back, twice = np.diff(theta).max(initial=-1) > 0, bool((np.diff(theta) == 0).any())
        why = "goes back to more noise" if back else "asks twice at one time" if twice else "asks less than three times"
        raise ValueError(
            f"it {why}, and is none of the words, which ask at times that fall: its evaluations are at theta = "
            f"{', '.join(f'{x:.4g}' for x in theta[:8])}"
        )
    return first, theta


def steps_of(sampler: Unmodified, taken: Taken, by_noise: bool = False) -> Steps:
    """P, G and Q of a sampler in a run; by_noise: of eps_k, that the network found, in the place of X_k."""
    run, first, count = taken.run, taken.first, len(taken.thetas)
    N = run.nfe
    # Columns: the start, each X or eps, each normal. An answer is of_state y / scale + of_data X.
    rows = np.zeros((N, 1 + N + run.draws))
    unit = np.array([at.scale * np.hypot(at.alpha, at.sigma) for at in run.levels])
    for k in range(first + count):
        rows[k, 0], rows[k, 1 + N :] = run.start[k], run.noise[k]
        for j in range(k):
            at = run.levels[j]
            of_state, of_data = sampler.prediction(at)
            if by_noise and at.alpha > 0:  # X = (y / scale - sigma eps) / alpha
                of_state, of_data = of_state + of_data / at.alpha, -of_data * at.sigma / at.alpha
            rows[k] += run.gains[k, j] * of_state / at.scale * rows[j]
            rows[k, 1 + j] += run.gains[k, j] * of_data
    kept = slice(first, first + count)
    unused = [*range(1, 1 + first), *range(1 + first + count, 1 + N)]
    return between(np.delete((rows / unit[:, None])[kept], unused, axis=1))


def of_word(scheme: Scheme, grids: Sequence[Array], by_noise: bool = False) -> list[Steps]:
    """P, G and Q of a word in runs with their evaluations at those times of vp (N,); by_noise as in `steps_of`."""
    first = max(float(thetas[0]) for thetas in grids)
    params = Parameters(beta_min=first, beta_max=first, eps=SMALLEST_TIME)
    runs = compile_runs(scheme, [1 - thetas / first for thetas in grids], params)
    return [_of_run(run, thetas, by_noise) for run, thetas in zip(runs, grids, strict=True)]


def _of_run(run: Run, thetas: Array, by_noise: bool) -> Steps:
    N = len(thetas)
    rows, answers = np.zeros((N, 1 + N + N)), np.zeros((N, 1 + 2 * N))
    rows[0, 0] = 1.0
    flow, memory = run.updates.flow, run.updates.memory
    held: list[Array] = []
    for k in range(N):
        sigma2 = -np.expm1(-thetas[k])
        if by_noise:  # the score is -eps / sigma, or (alpha X - v) / sigma^2
            answers[k, 1 + k] = -1 / np.sqrt(sigma2)
        else:
            answers[k] = -rows[k] / sigma2
            answers[k, 1 + k] += np.exp(-thetas[k] / 2) / sigma2
        if k == N - 1:
            break
        rows[k + 1] = flow.propagator[k, 0, 0] * rows[k] + flow.score_gain[k, 0, 0] * answers[k]
        rows[k + 1, 1 + N + k] += np.sqrt(flow.noise_cov[k, 0, 0])
        if memory is not None:
            for gain, old in zip(memory.gains[k, :, 0, 0], held, strict=False):
                rows[k + 1] += gain * old
            held.insert(0, memory.reading[k, 0, 0] * rows[k] + memory.reading[k, 0, 1] * answers[k])
    return between(rows)


def between(rows: Array) -> Steps:
    """From states by start, answers and normals (N, 1 + N + draws) to what happens between them."""
    N = len(rows)
    P = rows[1:, 0] / rows[:-1, 0]
    added = rows[1:, 1:] - P[:, None] * rows[:-1, 1:]
    noise = added[:, N:]
    cov = noise @ noise.T
    return Steps(P, added[:, :N], np.diag(cov).copy(), np.tril(cov, -1))


def apart(own: Steps, word: Steps) -> Array:
    """How far each entry of the columns is from the word's, relative to its size."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(
            np.abs(own.columns - word.columns) / np.maximum(own.sizes, word.sizes), nan=np.inf, posinf=np.inf
        )


def misses(off: Array) -> NDArray[np.bool_]:
    """Where what is `apart` is more than rounding."""
    tolerances = np.full(off.shape[1], AGREES)
    tolerances[-2] = AGREES_IN_NOISE
    return off > tolerances


def lines_of(own: Steps, word: Steps, bad: NDArray[np.bool_]) -> list[str]:
    """What differs, column by column."""
    return [
        f"{own.name(column)} {how(own.columns[:, column], word.columns[:, column], bad[:, column])}"
        for column in np.flatnonzero(bad.any(0)).tolist()
    ]


def how(a: Array, b: Array, bad: NDArray[np.bool_]) -> str:
    """In which steps, and by how much."""
    steps = np.flatnonzero(bad) + 1
    where = "in all steps" if len(steps) == len(bad) else f"in step{'s' * (len(steps) > 1)} {listed(steps.tolist())}"
    if (np.abs(b[bad]) < 1e-12).all():
        return f"is not nothing {where}"
    if (np.abs(a[bad]) < 1e-12).all():
        return f"is nothing {where}"
    with np.errstate(all="ignore"):
        ratios = a[bad] / b[bad]
    low, high = float(ratios.min()), float(ratios.max())
    times = f"{low:.6g}" if high - low <= 1e-6 * abs(high) else f"{low:.4g} to {high:.4g}"
    return f"is {times} times the word's {where}"


def listed(steps: list[int]) -> str:
    """Numbers of steps in words: a run without gaps by its ends, others one by one."""
    if len(steps) > 2 and steps == list(range(steps[0], steps[-1] + 1)):
        return f"{steps[0]} to {steps[-1]}"
    return ", ".join(map(str, steps))

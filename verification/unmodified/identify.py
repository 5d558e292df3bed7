"""Which word is it? A run of an unmodified sampler against the runs of words over the same times.

A network answers with its prediction of the data, whatever it is asked for: let X_k be that at evaluation k. Where the
state is divided by the standard deviation of data of variance 1, v_k = y_k / (scale (alpha^2 + sigma^2)^(1/2)), every
path is the diffusion vp over theta = log(1 + sigma^2 / alpha^2) (theory.paths), and between two evaluations

    v_k+1 = P_k v_k + sum_j<=k G_kj X_j + noise of variance Q_k.

P, G and Q are read off the transcript (unmodified.transcript) and computed for the word (integrators.compiled), for all
targets at once; the sampler is the word if they agree. A memory's clock t is the sampler's own time where it has one
that is smooth. What it makes of its last evaluation, a step to no noise at all,
belongs to no word and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...integrators.catalogue import POSITION
from ...integrators.compiled import Run, compile_runs
from ...integrators.unmodified import Unmodified
from ...theory.clock import CLOCKS, THETA, TIME, Clock
from ...theory.frozen import FROZEN
from ...theory.parameters import SMALLEST_TIME, Parameters
from ...theory.paths import GaussianPath
from ...theory.scheme import Scheme
from ...theory.splitting import VP_FLOW, VP_WHOLE
from ..blackbox import Likeness
from ..verdicts import Array
from .transcript import Transcript, transcribe

# Runs are read off to some 1e-13, of shipped tables that are interpolated to 1e-9; two words differ by 1e-3 and more.
AGREES = 1e-8
# A Brownian tree rounds its times by 1e-6, in units of the run: the variance of what it gives is off by that.
AGREES_IN_NOISE = 2e-5
STEPS = (6, 11)
LONGEST = 4  # a memory
_BISECTIONS, _DEGREE = 60, 64  # of a path's t, and of the polynomial through it
_NO_NOISE = 1e-20  # a variance, of states of variance 1, below which it is what rounding makes of none
_LEAST_SHARED = 1e-3  # a variance that returns is told beside it, or the noise
_TOLD = 12  # of the words that X is not, the nearest
_LEAST = 1e-10  # a time of vp, relative to the first, below which there is no noise to speak of


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


@cache
def words() -> tuple[Scheme, ...]:
    """The catalogue's words in position alone, and every other of one evaluation a step that holds a built-in quantity
    over up to `LONGEST` of them, in a built-in clock."""
    found = list(POSITION.values())
    known = {(s.word, s.splitting, s.flow, s.frozen, s.memory, s.clock) for s in found}
    for splitting, frozen, memory in product((VP_FLOW, VP_WHOLE), FROZEN.values(), range(1, LONGEST + 1)):
        for clock in CLOCKS.values() if memory > 1 else (THETA,):
            if ("S F", splitting, "exact", frozen, memory, clock) not in known:
                found.append(Scheme("S F", splitting, flow="exact", frozen=frozen, memory=memory, clock=clock))
    return tuple(found)


def identify(
    sampler: Unmodified, candidates: Iterable[Scheme] | None = None, steps: Sequence[int] = STEPS
) -> list[Likeness]:
    """The candidates (default `words`) from the nearest on, of runs with so many steps: those that agree, and the
    `_TOLD` nearest of the others.

    Raises BlackBoxError where a run cannot be read off, ValueError where its times are no run of a word, or
    its states are rounded to float32.
    """
    grids, runs = list[tuple[float, ...]](), list[Steps]()
    for count in steps:
        run = transcribe(sampler, count)
        if run.rounding > AGREES:
            raise ValueError(
                f"its states are rounded by {run.rounding:.0e} of themselves, as in float32, and no word is told to "
                f"{AGREES:g} in them; compute in the dtype of the state that it is given"
            )
        first, thetas = thetas_of(run)
        grids.append(tuple(thetas.tolist()))
        runs.append(steps_of(run, sampler, first, len(thetas)))
    found = []
    for scheme in words() if candidates is None else candidates:
        if scheme.clock.name == TIME.name and sampler.path is None:
            continue
        theirs = _over(scheme, tuple(grids), sampler.path if scheme.clock.name == TIME.name else None)
        off = [_apart(own, word) for own, word in zip(runs, theirs, strict=True)]
        bad = [entry > tolerance for entry, tolerance in zip(off, map(_tolerance, runs), strict=True)]
        share = sum(float(entry.any(1).mean()) for entry in bad)
        last = next((k for k in reversed(range(len(bad))) if bad[k].any()), None)  # the longest run that differs
        lines = 0 if last is None else int(bad[last].any(0).sum())
        distance = max(float(entry.max()) for entry in off)
        told = () if last is None else (runs[last], theirs[last], bad[last])
        found.append(((last is not None, share, lines, distance), scheme, told))
    found.sort(key=lambda one: one[0])
    kept = sum(not told for *_, told in found) + _TOLD
    return [Likeness(scheme, key[-1], tuple(_lines(*told)) if told else ()) for key, scheme, told in found[:kept]]


@lru_cache(maxsize=4096)  # some 10 kB each: samplers on one grid are beside the same words
def _over(scheme: Scheme, grids: tuple[tuple[float, ...], ...], path: GaussianPath | None) -> list[Steps]:
    """A word over times of vp; path: whose t its clock is, where that is t."""
    if path is not None:
        scheme = replace(scheme, clock=replace(_time_over(path, grids), midpoint=scheme.clock.midpoint))
    return of_word(scheme, [np.array(thetas) for thetas in grids])


@lru_cache(maxsize=8)
def _time_over(path: GaussianPath, grids: tuple[tuple[float, ...], ...]) -> Clock:
    return time_of(path, np.concatenate(grids))


def time_of(path: GaussianPath, thetas: Array) -> Clock:
    """The path's t as a clock of vp, over the times of vp from the least to the largest of `thetas`: by a polynomial in
    log theta."""
    low, high = np.log(thetas.min()), np.log(thetas.max())

    def t_of(log_theta: Array) -> Array:
        below, above = np.zeros_like(log_theta), np.full_like(log_theta, path.end)
        for _ in range(_BISECTIONS):
            middle = (below + above) / 2
            early = path.theta(middle) < np.exp(log_theta)
            below, above = np.where(early, middle, below), np.where(early, above, middle)
        return (below + above) / 2

    fit = np.polynomial.Chebyshev.interpolate(t_of, _DEGREE, domain=[low, high])
    slope = fit.deriv()

    def rate(kernel: Any) -> Array:  # in numbers, at theta
        theta = np.clip(kernel.theta, np.exp(low), np.exp(high))
        return (slope(np.log(theta)) / theta)[..., None, None]

    return Clock(TIME.name, rate)


def thetas_of(run: Transcript) -> tuple[int, Array]:
    """The first evaluation that is not of pure noise, and vp's time of it and of those behind it where there is noise
    (n,). Raises ValueError unless they fall."""
    theta = np.array([np.log1p((at.sigma / at.alpha) ** 2) if at.alpha > 0 else np.inf for at in run.levels])
    first = int(np.isinf(theta).sum())
    theta = theta[first:]
    theta = theta[theta > _LEAST * theta.max(initial=0)]
    if len(theta) < 3 or not (np.diff(theta) < 0).all():
        raise ValueError(
            f"its evaluations are at theta = {', '.join(f'{x:.4g}' for x in theta[:8])}: a word is compared over three "
            "times or more that fall, and a sampler that asks twice at one time, or goes back, is none of the words"
        )
    return first, theta


def steps_of(run: Transcript, sampler: Unmodified, first: int, count: int) -> Steps:
    """P, G and Q of a sampler, of so many evaluations from number `first` on."""
    N = run.nfe
    # Columns: the start, each prediction X, each normal. An answer is of_state y / scale + of_data X.
    rows = np.zeros((N, 1 + N + run.draws))
    unit = np.array([at.scale * np.hypot(at.alpha, at.sigma) for at in run.levels])
    for k in range(first + count):
        rows[k, 0], rows[k, 1 + N :] = run.start[k], run.noise[k]
        for j in range(k):
            of_state, of_data = sampler.prediction(run.levels[j])
            rows[k] += run.gains[k, j] * of_state / run.levels[j].scale * rows[j]
            rows[k, 1 + j] += run.gains[k, j] * of_data
    kept = slice(first, first + count)
    unused = [*range(1, 1 + first), *range(1 + first + count, 1 + N)]
    return _between(np.delete((rows / unit[:, None])[kept], unused, axis=1), count)


def of_word(scheme: Scheme, grids: Sequence[Array]) -> list[Steps]:
    """P, G and Q of a word in runs with their evaluations at those times of vp (N,)."""
    first = max(float(thetas[0]) for thetas in grids)
    params = Parameters(beta_min=first, beta_max=first, eps=SMALLEST_TIME)
    runs = compile_runs(scheme, [1 - thetas / first for thetas in grids], params)
    return [_of_run(run, thetas) for run, thetas in zip(runs, grids, strict=True)]


def _of_run(run: Run, thetas: Array) -> Steps:
    N = len(thetas)
    rows, answers = np.zeros((N, 1 + N + N)), np.zeros((N, 1 + 2 * N))
    rows[0, 0] = 1.0
    flow, memory = run.updates.flow, run.updates.memory
    held: list[Array] = []
    for k in range(N):
        sigma2 = -np.expm1(-thetas[k])
        answers[k] = -rows[k] / sigma2  # the score: (alpha X - v) / sigma^2
        answers[k, 1 + k] += np.exp(-thetas[k] / 2) / sigma2
        if k == N - 1:
            break
        rows[k + 1] = flow.propagator[k, 0, 0] * rows[k] + flow.score_gain[k, 0, 0] * answers[k]
        rows[k + 1, 1 + N + k] += np.sqrt(flow.noise_cov[k, 0, 0])
        if memory is not None:
            for gain, old in zip(memory.gains[k, :, 0, 0], held, strict=False):
                rows[k + 1] += gain * old
            held.insert(0, memory.reading[k, 0, 0] * rows[k] + memory.reading[k, 0, 1] * answers[k])
    return _between(rows, N)


def _between(rows: Array, N: int) -> Steps:
    """From states by start, answers and normals (N, 1 + N + draws) to what happens between them."""
    P = rows[1:, 0] / rows[:-1, 0]
    added = rows[1:, 1:] - P[:, None] * rows[:-1, 1:]
    noise = added[:, N:]
    cov = noise @ noise.T
    return Steps(P, added[:, :N], np.diag(cov).copy(), np.tril(cov, -1))


def _apart(own: Steps, word: Steps) -> Array:
    """How far each entry of the columns is from the word's, relative to its size."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(
            np.abs(own.columns - word.columns) / np.maximum(own.sizes, word.sizes), nan=np.inf, posinf=np.inf
        )


def _tolerance(own: Steps) -> Array:
    """Of each column."""
    tolerances = np.full(own.columns.shape[1], AGREES)
    tolerances[len(own.P) + 1] = AGREES_IN_NOISE
    return tolerances


def _lines(own: Steps, word: Steps, bad: NDArray[np.bool_]) -> list[str]:
    """What differs, column by column."""
    return [
        f"{own.name(column)} {_how(own.columns[:, column], word.columns[:, column], bad[:, column])}"
        for column in np.flatnonzero(bad.any(0)).tolist()
    ]


def _how(a: Array, b: Array, bad: NDArray[np.bool_]) -> str:
    """In which steps, and by how much."""
    steps = np.flatnonzero(bad) + 1
    where = "in all steps" if len(steps) == len(bad) else f"in step{'s' * (len(steps) > 1)} {_listed(steps.tolist())}"
    if (np.abs(b[bad]) < 1e-12).all():
        return f"is not nothing {where}"
    if (np.abs(a[bad]) < 1e-12).all():
        return f"is nothing {where}"
    with np.errstate(all="ignore"):
        ratios = a[bad] / b[bad]
    low, high = float(ratios.min()), float(ratios.max())
    times = f"{low:.6g}" if high - low <= 1e-6 * abs(high) else f"{low:.4g} to {high:.4g}"
    return f"is {times} times the word's {where}"


def _listed(steps: list[int]) -> str:
    if len(steps) > 2 and steps == list(range(steps[0], steps[-1] + 1)):
        return f"{steps[0]} to {steps[-1]}"
    return ", ".join(map(str, steps))

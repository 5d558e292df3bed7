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
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...integrators.catalogue import POSITION
from ...integrators.compiled import compile_run
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
_LEAST = 1e-10  # a time of vp, relative to the first, below which there is no noise to speak of


@dataclass(frozen=True)
class Steps:
    """Between evaluations: P (n,), G (n, n + 1), of each answer up to then, Q (n,), and shared (n, n), the part of each
    noise that an earlier interval had already; size (n,): of each row, sum of what it adds."""

    P: Array
    G: Array
    Q: Array
    shared: Array


def words() -> list[Scheme]:
    """The catalogue's words in position alone, and every other of one evaluation a step that holds a built-in quantity
    over up to `LONGEST` of them, in a built-in clock."""
    found = list(POSITION.values())
    known = {(s.word, s.splitting, s.flow, s.frozen, s.memory, s.clock) for s in found}
    for splitting, frozen, memory in product((VP_FLOW, VP_WHOLE), FROZEN.values(), range(1, LONGEST + 1)):
        for clock in CLOCKS.values() if memory > 1 else (THETA,):
            if ("S F", splitting, "exact", frozen, memory, clock) not in known:
                found.append(Scheme("S F", splitting, flow="exact", frozen=frozen, memory=memory, clock=clock))
    return found


def identify(
    sampler: Unmodified, candidates: Iterable[Scheme] | None = None, steps: Sequence[int] = STEPS
) -> list[Likeness]:
    """The candidates (default `words`) from the nearest on, of runs with so many steps; those that agree come first.

    Raises BlackBoxError where a run cannot be read off, ValueError where its times are no run of a word, or
    its states are rounded to float32.
    """
    runs = []
    for count in steps:
        run = transcribe(sampler, count)
        if run.rounding > AGREES:
            raise ValueError(
                f"its states are rounded by {run.rounding:.0e} of themselves, as in float32, and no word is told to "
                f"{AGREES:g} in them; compute in the dtype of the state that it is given"
            )
        first, thetas = thetas_of(run)
        runs.append((thetas, steps_of(run, sampler, first, len(thetas))))
    time = None if sampler.path is None else time_of(sampler.path, np.concatenate([thetas for thetas, _ in runs]))
    found = []
    for scheme in words() if candidates is None else candidates:
        run_as = scheme
        if scheme.clock.name == TIME.name:
            if time is None:
                continue
            run_as = replace(scheme, clock=replace(time, midpoint=scheme.clock.midpoint))
        compared = [_compare(own, of_word(run_as, thetas)) for thetas, own in runs]
        distance, where = max(size for size, *_ in compared), sum(share for *_, share in compared)
        lines = next((lines for _, lines, _ in reversed(compared) if lines), [])  # of the longest run that differs
        found.append((where, Likeness(scheme, distance, tuple(lines))))
    found.sort(key=lambda one: (bool(one[1].differs), one[0], len(one[1].differs), one[1].distance))
    return [likeness for _, likeness in found]


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


def of_word(scheme: Scheme, thetas: Array) -> Steps:
    """P, G and Q of a word with its evaluations at those times of vp (N,)."""
    N, first = len(thetas), float(thetas[0])
    params = Parameters(beta_min=first, beta_max=first, eps=SMALLEST_TIME)
    run = compile_run(scheme, 1 - thetas / first, params)
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


def _compare(own: Steps, word: Steps) -> tuple[float, list[str], float]:
    """The largest relative difference, what differs, and the share of the steps in which something does."""
    n = len(own.P)
    ages = np.subtract.outer(np.arange(n), np.arange(own.G.shape[1]))
    entries = [("what is kept of the state", own.P, word.P, np.maximum(np.abs(own.P), np.abs(word.P)))]
    size = np.maximum(np.abs(own.G).sum(1), np.abs(word.G).sum(1))
    for age in range(n):
        at = ages == age
        name = "the weight of the last answer" if age == 0 else f"the weight of the answer {age} before it"
        entries.append((name, (own.G * at).sum(1), (word.G * at).sum(1), np.where(at.any(1), size, np.inf)))
    largest = np.maximum(np.maximum(own.Q, word.Q), _NO_NOISE)
    entries.append(("the variance of the noise", own.Q, word.Q, largest))
    entries.append(
        ("noise that returns", np.abs(own.shared).sum(1), np.abs(word.shared).sum(1), np.maximum(largest, 1e-3))
    )
    distance, lines, anywhere = 0.0, [], np.zeros(n, dtype=bool)
    for name, a, b, scale in entries:
        off = np.nan_to_num(np.abs(a - b) / scale, nan=np.inf)
        distance = max(distance, float(off.max()))
        if (bad := off > (AGREES_IN_NOISE if name.endswith("the noise") else AGREES)).any():
            lines.append(f"{name} {_how(a, b, bad)}")
            anywhere |= bad
    return distance, lines, float(anywhere.mean())


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

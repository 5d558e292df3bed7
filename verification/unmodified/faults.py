"""What is wrong with a sampler that is nearly a word: faults that are known, each put into the word.

A fault changes what happens between evaluations (unmodified.steps),

    v_k+1 = P_k v_k + sum_j<=k G_kj X_j + noise of variance Q_k,

in a way that is known to all digits. The sampler has the fault if it is the word with that change, and with no other.

    variance     of the noise: nothing, its square, its root, or that of the step forward, 1 - alpha_k^2 / alpha_k+1^2
    reading      X_k is read off the network's noise as (v_k - s eps_k) / a, with the square or the root of sigma or
                 alpha for it, or 1
    direction    of its old noise the state keeps P_k sigma_k, a standard deviation for which the variance stands
    difference   the n-th difference of the last answers, by which a memory of n + 1 differs from one of n, is weighed
                 by another factor, the same in all steps
    levels       the network is told another noise level than its input has: at levels that are solved for, the sampler
                 is the word

Beside them stands what is no word's fault: a method of two evaluations a step (`two_stages`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...integrators.unmodified import Unmodified
from ...theory.clock import THETA, TIME
from ...theory.paths import Level
from ...theory.scheme import Scheme
from ..verdicts import Array
from .steps import AGREES, Steps, Taken, apart, between, listed, misses, of_word, steps_of

_OF_NOISE = ("eps", "score")  # what is held, that the network's noise alone says
_ITERATIONS, _STEP = 25, 1e-6  # of Newton's method for levels, and of its differences in log theta
_FARTHEST = 1.0  # a change of log theta that is followed at once
_PATIENCE = 3  # of its steps that leave nine tenths and more
_SAME_LEVEL = 1e-6
_SEEN = 1e-3  # of a level: to be told as a factor
_ROUNDED = 0.05  # what rounded timesteps make of a step of two evaluations; other methods differ by 0.2 and more
_ORDINALS = ("", "first", "second", "third")
_POWERS: dict[str, Callable[[Array], Array]] = {
    "its square: a root is forgotten": np.square,
    "its root: a root is taken twice": np.sqrt,
    "left out": np.ones_like,
}
# The sampler in the runs that are looked at, by the network's noise (True) and by the data that it predicts.
Own = Mapping[bool, list[Steps]]
# A scheme in the runs that are looked at, by the network's noise or not.
Over = Callable[[Scheme, bool], list[Steps]]


def reads_noise(scheme: Scheme) -> bool:
    """Whether a word is looked at by the network's noise, in the place of the data that it predicts."""
    return scheme.frozen.name in _OF_NOISE


def fault_of(own: Own, runs: Sequence[Taken], scheme: Scheme, over: Over) -> str:
    """The one fault by which a sampler differs from a word, levels apart, in a sentence; "" where none is known."""
    factor = _weighed(own[reads_noise(scheme)], scheme, over)
    if factor:
        return factor
    data, noise = over(scheme, False), over(scheme, True)
    faulty = [list(_with_faults(*entry)) for entry in zip(noise, data, runs, strict=True)]
    for together in zip(*faulty, strict=True):
        if all(_agree(a, b) for a, (_, b) in zip(own[True], together, strict=True)):
            return together[0][0]
    return ""


def _agree(a: Steps, b: Steps) -> bool:
    return not misses(apart(a, b)).any()


def _with_faults(word: Steps, data: Steps, taken: Taken) -> Iterator[tuple[str, Steps]]:
    """A word by the network's noise with each of the faults, and what that is called; data: by what it predicts."""
    thetas = taken.thetas
    alpha, sigma = np.exp(-thetas / 2), np.sqrt(-np.expm1(-thetas))
    variances = {
        "nothing: none is drawn": np.zeros_like(word.Q),
        "that of the step forward, 1 - alpha_k^2 / alpha_k+1^2": -np.expm1(np.diff(thetas)),
        "the square of what it should be: a root is forgotten": word.Q**2,
        "the root of what it should be: a root is taken twice": np.sqrt(word.Q),
    }
    for which, Q in variances.items():
        yield f"the variance of the noise is {which}", replace(word, Q=Q)
    readings = {f"sigma is {name}": (alpha, power(sigma)) for name, power in _POWERS.items()}
    readings |= {f"alpha is {name}": (power(alpha), sigma) for name, power in _POWERS.items()}
    readings["alpha and sigma are their squares: two roots are forgotten"] = alpha**2, sigma**2
    for which, (a, s) in readings.items():
        said = f"where the data are read off the network's noise, {which}"
        for beside in (None, (alpha, sigma)):
            yield said, _read(data, a, s, beside)
    kept = data.P**2 * sigma[:-1]
    G = data.G.copy()
    here = np.arange(len(kept))
    G[here, here] += (data.P - kept) * alpha[:-1]
    said = "of its old noise the state keeps a variance for a standard deviation: a root is forgotten"
    yield said, _read(replace(data, P=kept, G=G), alpha, sigma)


def _read(data: Steps, alpha: Array, sigma: Array, beside: tuple[Array, Array] | None = None) -> Steps:
    """A word by the network's noise, of which the data are read with these alpha and sigma (N,); beside: the true ones,
    where the state is put together anew of the data that were read and the network's own noise."""
    n = len(data.P)
    rows, X = np.zeros((n + 1, 2 + n + n + 1)), np.zeros((n + 1, 2 + n + n + 1))
    rows[0, 0] = 1
    for k in range(n):
        X[k] = rows[k] / alpha[k]
        X[k, 1 + k] -= sigma[k] / alpha[k]
        state = rows[k]
        if beside is not None:
            state = beside[0][k] * X[k]
            state[1 + k] += beside[1][k]
        rows[k + 1] = data.P[k] * state + data.G[k] @ X
        rows[k + 1, 2 + n + k] += np.sqrt(data.Q[k])
    return between(rows)


def _weighed(own: Sequence[Steps], scheme: Scheme, over: Over) -> str:
    """Which difference of the last answers has another weight, and by which factor, in a sentence, or ""."""
    by_noise = reads_noise(scheme)
    right = over(scheme, by_noise)
    for n in range(1, scheme.memory):
        with_it, without = (over(_of_memory(scheme, m), by_noise) for m in (n + 1, n))
        parts = [a.G - b.G for a, b in zip(with_it, without, strict=True)]
        change = np.concatenate([(a.G - b.G).ravel() for a, b in zip(own, right, strict=True)])
        whole = np.concatenate([part.ravel() for part in parts])
        more = float(change @ whole / (whole @ whole))
        meant = [replace(word, G=word.G + more * part) for word, part in zip(right, parts, strict=True)]
        if abs(1 + more) > AGREES < abs(more) and all(map(_agree, own, meant)):
            return f"the {_ORDINALS[n]} difference of the answers is weighed by {1 + more:.6g} times what it should be"
    return ""


def _of_memory(scheme: Scheme, memory: int) -> Scheme:
    return replace(scheme, name="", order=None, memory=memory, clock=scheme.clock if memory > 1 else THETA)


# --- Two stages -------------------------------------------------------------------------------------------------------


def two_stages(own: Own, runs: Sequence[Taken]) -> str:
    """Which method of two evaluations a step it is, in a sentence, or "". No word is one: a step's second evaluation
    moves the state that was there before the first, and words move the state that is there."""
    for by_noise, name in ((True, "DPM-Solver-2"), (False, "DPM-Solver++(2S)")):
        methods = [two_stage(taken.thetas, by_noise) for taken in runs]
        pairs = list(zip(own[by_noise], methods, strict=True))
        off = max(float(apart(a, b)[:, :-2].max()) for a, b in pairs)
        if off < _ROUNDED and not any(a.Q.any() for a, _ in pairs):
            beside = f" (to {off:.0e}: the levels that the network is told are rounded)" * (off > AGREES)
            return f"it is {name}{beside}: its second evaluation moves the state that each step began with"
    return ""


def two_stage(thetas: Array, by_noise: bool) -> Steps:
    """DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927, algorithm 1) over its evaluations, two a step, or, of the data,
    DPM-Solver++(2S) (arXiv 2211.01095, algorithm 1): what is held is h_0 + (h_1 - h_0) / (2 r), with the second
    evaluation at the part r of the step in log(alpha / sigma)."""
    n, alpha, sigma = len(thetas), np.exp(-thetas / 2), np.sqrt(-np.expm1(-thetas))
    clock, rows = np.log(alpha / sigma), np.zeros((n, 2 + n))
    rows[0, 0] = 1
    size, other = (alpha, sigma) if by_noise else (sigma, alpha)
    for k in range(n - 1):
        start = k - k % 2
        kept = size[k + 1] / size[start]
        weight = other[k + 1] - kept * other[start]
        second = 1.0
        if k % 2:
            second = (clock[k + 1] - clock[start]) / (clock[k] - clock[start]) / 2
        rows[k + 1] = kept * rows[start]
        rows[k + 1, 1 + k] += weight * second
        rows[k + 1, 1 + start] += weight * (1 - second)
    return between(rows)


# --- Levels -----------------------------------------------------------------------------------------------------------


def told_levels(sampler: Unmodified, runs: Sequence[Taken], scheme: Scheme) -> str:
    """What is wrong with the levels that the network is told, in a sentence, if it is the word at others; else ""."""
    if scheme.clock.name == TIME.name or not _may_be(sampler, runs[0], scheme):
        return ""
    said = ""
    for taken in runs:
        own = own_thetas(sampler, taken, scheme)
        if own is None:
            return ""
        said = _said(taken.thetas, own)
    return said


def _may_be(sampler: Unmodified, taken: Taken, scheme: Scheme) -> bool:
    """Whether it has noise, and remembers, as the word does, at whatever levels, and these are not those it is told:
    where the network finds no noise at all, a state shrinks with alpha."""
    own = steps_of(sampler, taken, by_noise=True)
    if np.abs(own.P * np.exp(np.diff(taken.thetas) / 2) - 1).max() < AGREES:
        return False
    older = np.abs(own.columns[:, 2:-2]).max() > AGREES * np.abs(own.G).max()
    return bool(own.Q.any()) == any(part.sde.noisy[0] for part in scheme.parts) and older == (scheme.memory > 1)


def _said(told: Array, own: Array) -> str:
    if np.abs(told[:-1] / own[1:] - 1).max() < _SAME_LEVEL:
        return "the network is told the noise level of the evaluation after, at which it is not asked"
    if np.abs(told[1:] / own[:-1] - 1).max() < _SAME_LEVEL:
        return "the network is told the noise level of the evaluation before"
    ratio = np.sqrt(np.expm1(told) / np.expm1(own))
    off = np.abs(ratio - 1)
    where = listed((np.flatnonzero(off > AGREES) + 1).tolist())
    size = (
        f"{ratio.min():.4g} to {ratio.max():.4g} times its input's" if off.max() > _SEEN else f"off by {off.max():.1e}"
    )
    return f"sigma / alpha that the network is told is {size} at evaluations {where}; at its input's own it is the word"


def own_thetas(sampler: Unmodified, taken: Taken, scheme: Scheme) -> Array | None:
    """The times of vp (n,) at which the sampler is the word, by Newton's method from those that the network is told;
    None where there are none near by."""
    by_noise, x = reads_noise(scheme), np.log(taken.thetas)
    n, size = len(x), None

    def residuals(points: Sequence[Array]) -> Any:
        nonlocal size
        grids = [np.exp(point) for point in points]
        found = []
        for thetas, word in zip(grids, of_word(scheme, grids, by_noise), strict=True):
            own = steps_of(sampler, _at(taken, thetas), by_noise)
            size = np.maximum(own.sizes, word.sizes) if size is None else size
            off, returns = (own.columns - word.columns) / size, (own.shared - word.shared) / size[:, -1:]
            found.append(np.concatenate([off[:, :-1].ravel(), returns.ravel()]))  # without what has a kink at 0
        return np.array(found)

    left = list[float]()
    for _ in range(_ITERATIONS):
        try:
            here, *beside = residuals([x, *(x + _STEP * np.eye(n))])
        except ValueError:
            return None
        left.append(float(np.linalg.norm(here)))
        stalls = len(left) > _PATIENCE and not left[-1] < 0.9 * min(left[:-_PATIENCE])
        if left[-1] < AGREES / 100 or stalls:
            (word,), at = of_word(scheme, [np.exp(x)], by_noise), _at(taken, np.exp(x))
            return np.exp(x) if _agree(steps_of(sampler, at, by_noise), word) else None
        if not np.isfinite(left[-1]):
            return None
        change = np.linalg.lstsq((np.array(beside) - here).T / _STEP, -here, rcond=1e-9)[0]
        x = x + change * min(1, _FARTHEST / np.abs(change).max())
        if not (np.diff(x) < 0).all():
            return None
    return None


def _at(taken: Taken, thetas: Array) -> Taken:
    """A run at other levels, of the same kind as those that are told. Raises ValueError where they are of none."""
    levels = list(taken.run.levels)
    for k, theta in enumerate(thetas, taken.first):
        levels[k] = _like(levels[k], float(theta))
    return Taken(replace(taken.run, levels=tuple(levels)), taken.first, thetas)


def _like(level: Level, theta: float) -> Level:
    ratio = float(np.sqrt(np.expm1(theta)))
    sizes = {
        np.hypot(1, ratio): np.hypot(level.alpha, level.sigma),
        1.0: level.alpha,
        1 + ratio: level.alpha + level.sigma,
    }
    alpha = next((1 / size for size, is_one in sizes.items() if abs(is_one - 1) < _SAME_LEVEL), None)
    if alpha is None:
        raise ValueError(f"alpha = {level.alpha:g} and sigma = {level.sigma:g} are of no path that is known")
    scale = level.scale
    if scale != 1:  # EDM's, of data with another variance
        scale = (1 / scale**2 - level.sigma**2 + (alpha * ratio) ** 2) ** -0.5
    return Level(float(alpha), float(alpha * ratio), scale)

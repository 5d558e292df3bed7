"""Which word is it? A run of an unmodified sampler against the runs of words over the same times.

What happens between evaluations (unmodified.steps) is compared, for all targets at once; the sampler is the word if it
agrees. A memory's clock t is the sampler's own time where it has one that is smooth. Of a sampler that is no word it is
said what differs from the nearest ones, and by which fault (unmodified.faults) where it is one that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import product
from typing import Any

import numpy as np

from ...integrators.catalogue import POSITION
from ...integrators.unmodified import PREDICTIONS, Unmodified
from ...theory.clock import CLOCKS, THETA, TIME, Clock
from ...theory.frozen import FROZEN
from ...theory.paths import GaussianPath
from ...theory.scheme import Scheme
from ...theory.splitting import VP_FLOW, VP_WHOLE
from ..blackbox import Likeness
from ..verdicts import Array
from .faults import fault_of, reads_noise, told_levels, two_stages
from .steps import Steps, Taken, apart, lines_of, misses, of_word, steps_of, take

STEPS = (6, 11)
LONGEST = 4  # a memory
_BISECTIONS, _DEGREE = 60, 64  # of a path's t, and of the polynomial through it
_TOLD = 12  # of the words that X is not, the nearest
_AT_OTHER_LEVELS = 8  # of these, those that are tried at levels of its own


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
    `_TOLD` nearest of the others, of which those come first that differ by a fault that is known.

    Raises BlackBoxError where a run cannot be read off, ValueError where its times are no run of a word, or
    its states are rounded to float32.
    """
    runs = [take(sampler, count) for count in steps]
    schemes = words() if candidates is None else tuple(candidates)
    found = _compared(sampler, runs, schemes)
    if found[0].is_same:
        return found
    for name, prediction in PREDICTIONS.items():
        other = replace(sampler, prediction=prediction, predicts=name)
        if same := _same(other, runs, schemes):
            said = f"it takes the network's answer for {name}, where that is said to be {sampler.predicts}"
            return [*(replace(one, differs=(said,)) for one in _compared(other, runs, same)), *found]
    explained: list[Likeness] = []
    own, over = _own(sampler, runs), _words_over(sampler, runs)
    if said := two_stages(own, runs):
        explained += (replace(one, differs=(said,)) for one in _compared(sampler, runs, [POSITION["vp-DDIM"]]))
    for likeness in found:
        if said := fault_of(own, runs, likeness.scheme, over):
            explained.append(replace(likeness, differs=(said, *likeness.differs)))
    if not explained:
        for likeness in found[:_AT_OTHER_LEVELS]:
            if said := told_levels(sampler, runs, likeness.scheme):
                explained.append(replace(likeness, differs=(said,)))
    explained.sort(key=lambda likeness: likeness.scheme.name == likeness.scheme.word)  # those that have a name first
    names = {likeness.scheme for likeness in explained}
    return [*explained, *(likeness for likeness in found if likeness.scheme not in names)]


def _compared(sampler: Unmodified, runs: Sequence[Taken], schemes: Sequence[Scheme]) -> list[Likeness]:
    found = []
    for scheme, ours, theirs in _beside(sampler, runs, schemes):
        off = [apart(a, b) for a, b in zip(ours, theirs, strict=True)]
        bad = [misses(entry) for entry in off]
        share = sum(float(entry.any(1).mean()) for entry in bad)
        last = next((k for k in reversed(range(len(bad))) if bad[k].any()), None)  # the longest run that differs
        lines = 0 if last is None else int(bad[last].any(0).sum())
        distance = max(float(entry.max()) for entry in off)
        told = () if last is None else (ours[last], theirs[last], bad[last])
        found.append(((last is not None, share, lines, distance), scheme, told))
    found.sort(key=lambda one: one[0])
    kept = sum(not told for *_, told in found) + _TOLD
    return [Likeness(scheme, key[-1], tuple(lines_of(*told)) if told else ()) for key, scheme, told in found[:kept]]


def _same(sampler: Unmodified, runs: Sequence[Taken], schemes: Sequence[Scheme]) -> list[Scheme]:
    """Those that it is."""
    pairs = ((scheme, zip(*both, strict=True)) for scheme, *both in _beside(sampler, runs, schemes))
    return [scheme for scheme, pair in pairs if not any(misses(apart(a, b)).any() for a, b in pair)]


def _beside(
    sampler: Unmodified, runs: Sequence[Taken], schemes: Sequence[Scheme]
) -> Iterator[tuple[Scheme, list[Steps], list[Steps]]]:
    """The words that have a clock here, with the sampler's steps, as the word takes answers, and their own."""
    own, over = _own(sampler, runs), _words_over(sampler, runs)
    for scheme in schemes:
        if scheme.clock.name != TIME.name or sampler.path is not None:
            yield scheme, own[reads_noise(scheme)], over(scheme, reads_noise(scheme))


def _own(sampler: Unmodified, runs: Sequence[Taken]) -> dict[bool, list[Steps]]:
    return {by_noise: [steps_of(sampler, taken, by_noise) for taken in runs] for by_noise in (False, True)}


def _words_over(sampler: Unmodified, runs: Sequence[Taken]) -> Any:
    """Words by their scheme, and by the network's noise or not, over the times of these runs."""
    grids = tuple(tuple(taken.thetas.tolist()) for taken in runs)

    def over(scheme: Scheme, by_noise: bool) -> list[Steps]:
        return _over(scheme, grids, sampler.path if scheme.clock.name == TIME.name else None, by_noise)

    return over


@lru_cache(maxsize=4096)  # some 10 kB each: samplers on one grid are beside the same words
def _over(
    scheme: Scheme, grids: tuple[tuple[float, ...], ...], path: GaussianPath | None, by_noise: bool
) -> list[Steps]:
    """A word over times of vp; path: whose t its clock is, where that is t."""
    if path is not None:
        scheme = replace(scheme, clock=replace(_time_over(path, grids), midpoint=scheme.clock.midpoint))
    return of_word(scheme, [np.array(thetas) for thetas in grids], by_noise)


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

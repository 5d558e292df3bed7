"""Where the error of a sampler's run comes from: a budget, additive and signed.

A run starts from the prior, makes N steps down to the cut-off t = eps, and then a denoising step. Its error, any
measure of its last law that is 0 for the data (advice.budget_measures), is a sum of terms, each the change of the error
when one approximation is replaced by the exact thing, in this order:

    lambda_s     the noise in position has the size that the reverse SDE gives it
    sharing      each part evaluates the score where it acts (the evaluation is not counted)
    freezing     each part follows the score as the state moves: only the time of its S is frozen
    sub-flow     each part follows the rest of its drift, which Euler held, or all of it, for the midpoint rule
    time         the parts behind each S follow time, too
    splitting    the parts are merged: the whole dynamics are followed, with nothing approximated
    prior        the run starts from the exact law p_T
    denoising    the denoising step is left out
    cut-off      the data, where the exact law at t = eps was
    network      not known without a network: everything here has the exact score

so that the terms add up to the whole error, whatever they are (a telescoping sum). Each of those that come from steps
has, as h -> 0, the size that the leading local errors of the two samplers on its sides predict (advice.budget_leading).
Terms depend on the order: the first one in it is what changes if only that is replaced in the sampler as it is, a later
one is what is left of it when those above are gone. A negative term is an approximation that makes up for others.

Of a black box (exact.Opaque) the steps are one term: what is approximate in them is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ...integrators.compiled import denoising_step
from ...integrators.grids import label, time_grid
from ...theory.scheme import FROZEN_FLOWS, Scheme
from ...theory.splitting import Splitting
from ..exact import AffineMap, Subject, closed_map, moments_of, starting_law
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array
from .budget_between import Between, merged
from .budget_measures import Measure, Run

KINDS = ("lambda_s", "sharing", "freezing", "sub-flow", "time", "splitting", "steps", "prior", "denoising", "cut-off")
NETWORK = "not known without your network"
_ORDINALS = ("", "2nd ", "3rd ")


class Source(NamedTuple):
    """One approximation: its kind, one of `KINDS`, and of which part or S, empty where it is of the whole run."""

    kind: str
    of: str = ""

    def __str__(self) -> str:
        return f"{self.kind} of {self.of}" if self.of else self.kind


@dataclass(frozen=True)
class Term:
    """What one approximation adds to the error: `values` (measures,), signed."""

    source: Source
    values: Array


@dataclass(frozen=True)
class Budget:
    """The budget of one run: `whole` (measures,), the error, is the sum of the terms' values; nan where a sampler
    overflowed."""

    name: str
    word: str
    nfe: int
    steps: int
    grid: str
    measures: tuple[str, ...]
    whole: Array
    terms: tuple[Term, ...]

    def __getitem__(self, name: str) -> Term:
        """The term called so, such as "freezing of A". Raises KeyError."""
        for term in self.terms:
            if str(term.source) == name:
                return term
        raise KeyError(name)

    @property
    def diverged(self) -> bool:
        """Whether the run, or one between it and the exact one, overflowed."""
        return not np.isfinite([self.whole, *(term.values for term in self.terms)]).all()

    def as_dict(self) -> dict[str, Any]:
        """The budget for JSON; nan where nothing is known."""
        terms = [
            {"term": str(term.source), "kind": term.source.kind, "of": term.source.of}
            | dict(zip(self.measures, term.values.tolist(), strict=True))
            for term in self.terms
        ]
        return {
            "sampler": self.name,
            "word": self.word,
            "nfe": self.nfe,
            "steps": self.steps,
            "grid": self.grid,
            "whole": dict(zip(self.measures, self.whole.tolist(), strict=True)),
            "terms": terms,
        }


def replacements(scheme: Scheme) -> Iterator[tuple[Source, Between]]:
    """The approximations of a scheme's steps one after the other, without lambda_s and the splitting, each with the
    sampler that is left when it and all before it are gone."""
    scheme = replace(scheme, lambda_s=1.0)
    users = [part.name for part in scheme.parts if part.sde.uses_score]
    now = first_of(scheme)
    for name in users if scheme.flow != "true" else ():
        if name in _sharing(scheme):
            now = replace(now, own=now.own | {name})
            yield Source("sharing", name), now
    for name in users if scheme.flow in FROZEN_FLOWS else ():
        now = replace(now, followed=now.followed | {name})
        yield Source("freezing", name), now
    for part in scheme.parts:
        if part.euler or (part.name in users and scheme.flow == "euler" and scheme.memory == 1):
            now = replace(now, exact=now.exact | {part.name})
            yield Source("sub-flow", part.name), now
        elif part.name in users and scheme.flow == "midpoint":
            now = replace(now, followed=now.followed | {part.name})
            yield Source("sub-flow", part.name), now
    for number in _clocks(scheme):
        now = replace(now, running=now.running | {number})
        yield Source("time", f"{_ORDINALS[number]}S" if number < len(_ORDINALS) else f"{number + 1}th S"), now


def first_of(scheme: Scheme) -> Between:
    """The scheme itself, nothing replaced: under flow "true" parts hold nothing but the time of their S."""
    users = (part.name for part in scheme.parts if part.sde.uses_score)
    return Between(scheme, followed=frozenset(users if scheme.flow == "true" else ()))


def _sharing(scheme: Scheme) -> set[str]:
    """The parts that use, somewhere, a score that was evaluated before another part moved the state."""
    found, moved = set(), False
    for token in scheme.tokens:
        if token.is_score:
            moved = False
            continue
        if moved and scheme.splitting[token.symbol].sde.uses_score:
            found.add(token.symbol)
        moved = True
    return found


def _clocks(scheme: Scheme) -> list[int]:
    """The numbers, from 0, of the S that parts use."""
    found, number = [], -1
    for token in scheme.tokens:
        number += token.is_score
        if not token.is_score and scheme.splitting[token.symbol].sde.uses_score and number not in found:
            found.append(number)
    return found


def is_whole(scheme: Scheme) -> bool:
    """Whether a step is one part, over the step: with nothing else approximated it is the whole dynamics."""
    tokens = [token for token in scheme.tokens if not token.is_score]
    return len(scheme.splitting.parts) == 1 and [(t.start, t.weight) for t in tokens] == [(0, 1)]


def budget_of(
    subject: Subject,
    measure: Measure,
    steps: int,
    grid: str = "uniform",
    start: str = "prior",
    denoise: bool = True,
    t_end: float | None = None,
) -> Budget:
    """The budget of a run of `steps` steps of a scheme or a black box, in a `measure`, whose diffusion is its own.

    start: "prior", or "exact", which has no mismatch. denoise: whether the published denoising step follows, which
    costs one evaluation more. t_end: the cut-off, default eps. Raises ValueError as `time_grid` and `exact_moments`.
    """
    run = _Ends(subject.splitting, measure, time_grid(grid, steps, measure.params, t_end), start, denoise)
    whole = moments_of(subject, measure.target, run.taus, start, denoise)
    sources, errors = [], [measure.of(whole.computed)]
    for source, sampler in _samplers(subject, run):
        sources.append(source)
        errors.append(np.zeros_like(errors[0]) if sampler is None else measure.of_run(sampler))
    terms = [Term(s, before - after) for s, (before, after) in zip(sources, pairwise(errors), strict=True)]
    word = subject.word
    return Budget(subject.name, word, whole.nfe, steps, label(grid), measure.names, errors[0], tuple(terms))


def _samplers(subject: Subject, run: _Ends) -> Iterator[tuple[Source, Run | None]]:
    """All approximations in order, each with the sampler that is left when it is gone; None for the data themselves."""
    replaced: list[tuple[Source, Run]] = []
    if isinstance(subject, Scheme):
        if subject.lambda_s != 1:
            plain = replace(subject, lambda_s=1.0)
            replaced.append((Source("lambda_s"), run.of_scheme(plain)))
        replaced += [(source, run.between(between)) for source, between in replacements(subject)]
        if is_whole(subject):
            replaced[-1:] = [(source, run.exactly) for source, _ in replaced[-1:]]
        else:
            replaced.append((Source("splitting"), run.exactly))
    else:
        replaced.append((Source("steps"), run.exactly))
    yield from replaced
    if run.start == "prior":
        yield Source("prior"), run.exactly_from_exact
    if run.denoise:
        yield Source("denoising"), run.at_cutoff
    yield Source("cut-off"), None


@dataclass(frozen=True)
class _Ends:
    """What all samplers of a budget have in common: the dynamics, the grid, where they start and how they end."""

    splitting: Splitting
    measure: Measure
    taus: Array
    start: str
    denoise: bool

    @cached_property
    def t_end(self) -> float:
        """The cut-off."""
        return float(self.measure.params.T - self.taus[-1])

    def of_scheme(self, scheme: Scheme) -> Run:
        """A scheme as it is."""
        return lambda target: moments_of(scheme, target, self.taus, self.start, self.denoise).computed

    def between(self, between: Between) -> Run:
        """A sampler between."""
        return lambda target: self._finished(target, between.law(target, self.taus, self._first(target)))

    def exactly(self, target: GaussianTarget) -> GaussianLaw:
        """The whole dynamics, followed exactly."""
        if self.start == "exact":
            return self.exactly_from_exact(target)
        return self._finished(target, merged(self.splitting, target, self.taus, self._first(target)))

    def exactly_from_exact(self, target: GaussianTarget) -> GaussianLaw:
        """The same from p_T: the exact law at the cut-off."""
        return self._finished(target, self.at_cutoff(target))

    def at_cutoff(self, target: GaussianTarget) -> GaussianLaw:
        """The exact law at the cut-off, not denoised."""
        return target.law(self.t_end)

    def _first(self, target: GaussianTarget) -> GaussianLaw:
        return starting_law(target, float(self.taus[0]), self.start)

    def _finished(self, target: GaussianTarget, law: GaussianLaw) -> GaussianLaw:
        if not self.denoise:
            return law
        last = closed_map(denoising_step(self.splitting, self.t_end, target.params), target)
        with np.errstate(over="ignore", invalid="ignore"):
            return AffineMap(*(entry[..., 0, :] for entry in last)).apply(law)

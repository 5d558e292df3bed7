"""Nested noise: several runs, of any schemes on any grids, driven by the same Brownian motion.

A run draws one Gaussian xi ~ N(0, Q) for every occurrence of a noisy part P = (A, D) of its word (theory.splitting),
over the interval [a, c] of the part's clock that the occurrence covers. All these Gaussians are integrals over one
Brownian motion w, in theta = int beta:

    exact flow    xi = int_a^c exp(A (c - r)) D^1/2 dw(r)          Euler-Maruyama    xi = D^1/2 (w(c) - w(a)),

that is, the same with A = 0. (A flow that holds another quantity than the score has a drift that depends on time, and
its propagator in exp's place: theory.held_flows.) Cut at the ends of all intervals of all runs they become sums over
the pieces b = [b0, b1]:

    xi_ac = sum_b exp(A (c - b1)) xi_b,         xi_b = int_b exp(A (b1 - r)) D^1/2 dw(r),

so an occurrence over a whole step has the noises of two half-steps composed by the part's own propagator, not added up.
The pieces are independent. Two kinds of noise (A_1, D_1), (A_2, D_2) on one piece of length theta are jointly Gaussian,

    E xi_1 xi_2^T = int_0^theta exp(A_1 r) D_12 exp(A_2 r)^T dr,       D_12 = (D_1 D_2)^1/2 where they share w, else 0,

hence linear images of the same standard normals. A compiled segment (integrators.compiled) composes several parts; its
noise is the sum of theirs, each propagated through what is left of the segment. Altogether every segment of every run
has the noise

    xi_segment = sum_c image_(segment, c) z_c,       z_c ~ N(0, 1), one column of normals per piece,

with n x width matrices computed once, in float64, n the components of a state. `couple` computes them; `run_coupled`
runs all runs side by side and draws each column once, when time reaches it. On its own, each run has exactly the law
that the sampler gives it.

Which runs share which Brownian motion: the parts of one splitting have independent ones. A coordinate's noise that all
belongs to one part is driven by the reverse SDE's own w_x or w_m (or w_a), which every splitting of the SDE has in
common (O of `psld`, U of `psld-linear`, F of `psld-whole`); where parts divide it, each has its own. If a word covers
a piece of a part's clock twice (`U(1/2) S E U(1/2)@0`), the second noise is a second, independent one; what it skips is
not drawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..theory.model import Diffusion, Parameters
from ..theory.scheme import Scheme
from .compiled import Array, Run, ScoreStage, compile_run, compile_step, stages
from .grids import check_grid
from .held import held_propagator
from .noise import START, check_samples
from .noise_kinds import NoiseKind, joint_factor, kind_of
from .planes import Updates, draw_normals, linear_image, updates_for
from .sampler import Score, recall_of
from .stages import position_scale

Integers = NDArray[np.int64]
_Noises = dict[tuple[int, int], Tensor]  # what is there of the noises of segments (run, segment)

# Ends of intervals are sums of a grid's time and a share of its step, with a few roundings of numbers below 1: closer
# than this they are the same. No two grid times that differ on purpose are so close (see theory.model.SMALLEST_TIME).
_SAME_TIME = 16 * np.finfo(float).eps


class CoupledRun(NamedTuple):
    """A run, and its noise as an image of the common normals: of `segment` (entries,), 0 the prologue and k the k-th
    update, the share of `column` (entries,) is `image` (entries, n, width)."""

    run: Run
    segment: Integers
    column: Integers
    image: Array

    @property
    def updates(self) -> int:
        """The number of score evaluations."""
        return len(self.run.updates.flow.propagator)


@dataclass(frozen=True)
class Coupling:
    """Runs on one Brownian motion: `columns` columns of `width` standard normals per element, in order of time; `size`:
    the components of a state."""

    runs: tuple[CoupledRun, ...]
    columns: int
    width: int
    size: int = 2

    @property
    def evaluations(self) -> int:
        """Score evaluations of one path, all runs together."""
        return sum(coupled.updates for coupled in self.runs)

    @property
    def normals(self) -> int:
        """Standard normals that one path draws per element."""
        return len(np.unique(np.concatenate([coupled.column for coupled in self.runs]))) * self.width

    @cached_property
    def plan(self) -> tuple[_Moment, ...]:
        """What to do in order of time: draw a column and share it out, then run every segment that is complete."""
        return _plan(self.runs)


def couple(runs: Sequence[tuple[Scheme, Array]], params: Parameters) -> Coupling:
    """Put the runs (scheme, taus) on one Brownian motion. Schemes and grids may differ in every respect.

    Raises ValueError on states of different numbers of components, a bad grid, a sub-flow that is not sampled (see
    `compile_step`), or noise that changes with time.
    """
    first = runs[0][0]
    diffusion, size = first.splitting.diffusion, first.splitting.diffusion.size
    for scheme, _ in runs:
        if scheme.splitting.diffusion.size != size:
            raise ValueError(
                f"states of {scheme.name!r} have {scheme.splitting.diffusion.size} components and those of "
                f"{first.name!r} {size}; couple schemes of one diffusion"
            )
        if (amount := scheme.splitting.whole.amount) is not None:
            raise ValueError(
                f"noise {amount} of {scheme.name!r} changes with time: two runs have other amounts over one piece of a "
                "Brownian motion, and are not coupled; give a number as noise, or take what needs no sampling"
            )
    drawn = [_occurrences(scheme, check_grid(taus, params), params) for scheme, taus in runs]
    edges = _edges([o for occurrences in drawn for o in occurrences])
    kinds = list(dict.fromkeys(o.kind for occurrences in drawn for o in occurrences))
    factor = joint_factor(kinds, edges, diffusion, params)
    shares = [
        _shares(occurrences, kinds, edges, factor, scheme.splitting.diffusion, params)
        for occurrences, (scheme, _) in zip(drawn, runs, strict=True)
    ]
    replicas = 1 + max((int(share.replica.max(initial=0)) for share in shares), default=0)
    coupled = []
    for (scheme, taus), share in zip(runs, shares, strict=True):
        # One entry for a segment and a column, however many occurrences share them.
        where = np.stack([share.segment, share.piece * replicas + share.replica])
        pairs, inverse = np.unique(where, axis=1, return_inverse=True)
        image = np.zeros((pairs.shape[1], *share.image.shape[1:]))
        np.add.at(image, inverse.reshape(-1), share.image)
        coupled.append(CoupledRun(compile_run(scheme, taus, params), pairs[0], pairs[1], image))
    return Coupling(tuple(coupled), max(0, len(edges) - 1) * replicas, size * len(kinds), size)


# --- Running ----------------------------------------------------------------------------------------------------------


def sample_coupled(coupling: Coupling, score: Score, u: Tensor, samples: Tensor, seed: int = 0) -> list[Tensor]:
    """Run from the states `u` (batch, n, *event), or (batch, *event) of one component, of the samples numbered
    `samples` (batch,): the last state of each run. A path is a function of (seed, its number) and of its first state
    alone."""
    size, samples = coupling.size, check_samples(samples, u.dtype)
    kinds, event = coupling.width // size, u.shape[1 if size == 1 else 2 :]

    def column_of(column: int) -> Tensor:
        drawn = torch.empty(len(samples), size * kinds, math.prod(event), dtype=u.dtype, device=samples.device)
        for k in range(kinds):
            draw_normals(seed, samples, START + 1 + column * kinds + k, size, drawn, size * k)
        return drawn.view(len(samples), size * kinds, *event)

    return run_coupled(coupling, score, u, column_of)


@torch.no_grad()
def run_coupled(coupling: Coupling, score: Score, u: Tensor, normals: Callable[[int], Tensor]) -> list[Tensor]:
    """Run from the states `u`, as `sample_coupled`; `normals(c)` is column c, (batch, width, *event), asked for once.

    score(u, t): grad log p_t(u) in u's shape, t a float. A run that overflows ends in inf or nan.
    """
    size, shape = coupling.size, u.shape
    if size == 1:
        u = u[:, None]
    states, noises = [u] * len(coupling.runs), _Noises()
    recalls = [recall_of(coupled.run, u) for coupled in coupling.runs]
    updates = [_updates(coupled, u, recall is not None) for coupled, recall in zip(coupling.runs, recalls, strict=True)]
    add_up = _images(coupling, u)
    for moment in coupling.plan:
        if moment.shares:
            add_up(moment, normals(moment.column), noises)
        for run, segment in moment.complete:
            tables, noise = coupling.runs[run].run, noises.pop((run, segment), None)
            if segment == 0:
                state = linear_image(tables.prologue.propagator, states[run])
            else:
                s = score(states[run].reshape(shape), float(tables.updates.time[segment - 1]))  # type: ignore[index]
                s = s.reshape(states[run].shape)
                if (recall := recalls[run]) is not None:
                    s = recall(segment - 1, states[run], s)
                state, noise = updates[run](segment - 1, states[run], s, noise), None
            states[run] = state if noise is None else state.add_(noise)
    return [state.reshape(shape) for state in states]


def _images(coupling: Coupling, u: Tensor) -> Callable[[_Moment, Tensor, _Noises], None]:
    """What adds a column's shares to the noises of their segments; as updates of states like u where it has as many
    normals as a state has components."""
    size = coupling.size

    def by_matrix(moment: _Moment, column: Tensor, noises: _Noises) -> None:
        noise = linear_image(moment.image, column)
        for k, share in enumerate(moment.shares):
            part = noise[:, size * k : size * k + size]
            noises[share] = noises[share] + part if share in noises else part

    if coupling.width != size:
        return by_matrix
    images = [moment.image.reshape(-1, size, size) for moment in coupling.plan if moment.shares]
    rows = np.concatenate(images) if images else np.zeros((0, size, size))
    updates, taken = updates_for(_rows(rows, np.zeros_like(rows)), u), itertools.count()

    def by_updates(moment: _Moment, column: Tensor, noises: _Noises) -> None:
        for share in moment.shares:
            noises[share] = updates(next(taken), column, None, noises.get(share))

    return by_updates


def _updates(coupled: CoupledRun, u: Tensor, recalls: bool) -> Updates:
    """Those of a run, to which its noise comes as it is, and, where it recalls, what is recalled with its gains."""
    P, K, _ = coupled.run.updates.flow
    return updates_for(_rows(P, np.broadcast_to(np.eye(P.shape[-1]), K.shape) if recalls else K), u)


def _rows(state: Array, score: Array) -> Array:
    """Rows that `updates_for` takes: the gains (rows, n, n) of a state and of a score, and 1 of the noise."""
    size = state.shape[-1]
    unit = np.broadcast_to(np.eye(size)[np.tril_indices(size)], (len(state), size * (size + 1) // 2))
    flat = (len(state), size * size)
    return np.concatenate([state.reshape(flat), score.reshape(flat), unit], axis=1)


class _Moment(NamedTuple):
    """Draw `column` and add the rows n k, ..., n k + n - 1 of its image to segment `shares[k]` (run, segment); then run
    the segments that are `complete`, in this order."""

    column: int
    shares: list[tuple[int, int]]
    image: Array
    complete: list[tuple[int, int]]


def _plan(runs: Sequence[CoupledRun]) -> tuple[_Moment, ...]:
    shares, complete = dict[int, list[tuple[int, int, Array]]](), dict[int, list[tuple[int, int]]]()
    for number, coupled in enumerate(runs):
        last = np.full(coupled.updates + 1, -1)
        np.maximum.at(last, coupled.segment, coupled.column)
        for segment, column in enumerate(np.maximum.accumulate(last).tolist()):
            complete.setdefault(column, []).append((number, segment))
        for segment, column, image in zip(
            coupled.segment.tolist(), coupled.column.tolist(), coupled.image, strict=True
        ):
            shares.setdefault(column, []).append((number, segment, image))
    plan = []
    for column in sorted({*shares, *complete}):
        found = shares.get(column, [])
        image = np.concatenate([image for *_, image in found]) if found else np.zeros((0, 0))
        plan.append(_Moment(column, [(run, segment) for run, segment, _ in found], image, complete.get(column, [])))
    return tuple(plan)


# --- Compiling --------------------------------------------------------------------------------------------------------


class _Occurrence(NamedTuple):
    """A noisy part's place in the word, in each of the grid's steps: it covers [begin, end] (steps,) in tau, and its
    noise reaches the end of `segment` (steps,) as `transfer` (steps, n, n) times what it was."""

    kind: NoiseKind
    begin: Array
    end: Array
    segment: Integers
    transfer: Array


class _Shares(NamedTuple):
    """`image` (k, n, width) of the normals of `piece` (k,) in the noise of `segment` (k,); `replica` (k,) counts how
    often the part has covered the piece before."""

    segment: Integers
    piece: Integers
    replica: Integers
    image: Array


def _occurrences(scheme: Scheme, taus: Array, params: Parameters) -> list[_Occurrence]:
    """The word's noisy occurrences, in order, as `compile_run` places them in segments."""
    leading = compile_step(scheme, taus, params)[0].flow.propagator
    steps = np.arange(len(taus) - 1)
    h = np.diff(taus)
    position = 0  # of the current segment in its step
    found: list[_Occurrence] = []
    places: list[int] = []
    for token, stage in zip(scheme.tokens, stages(scheme, taus, params), strict=True):
        if isinstance(stage, ScoreStage):
            position += 1
            continue
        P = held_propagator(scheme, stage, params)
        found = [
            o._replace(transfer=P @ o.transfer) if place == position else o
            for o, place in zip(found, places, strict=True)
        ]
        if stage.part.sde.has_noise:
            begin = taus[:-1] + float(token.start) * h
            end = taus[:-1] + float(token.start + (token.weight or 0)) * h
            transfer = np.broadcast_to(np.diag(position_scale(scheme.lambda_s, P.shape[-1])), P.shape)
            found.append(_Occurrence(kind_of(scheme, stage.part), begin, end, steps, transfer))
            places.append(position)
    merged = []
    for o, place in zip(found, places, strict=True):
        transfer = o.transfer.copy()
        if place == position:  # the step's last segment goes on with the next step's first
            transfer[:-1] = leading[1:] @ transfer[:-1]
        if position == 0:  # no score at all: the run is its prologue
            later = np.eye(leading.shape[-1])
            for step in reversed(range(len(steps) - 2)):
                later = later @ leading[step + 2]
                transfer[step] = later @ transfer[step]
        merged.append(o._replace(segment=steps * position + place, transfer=transfer))
    return merged


def _edges(occurrences: list[_Occurrence]) -> Array:
    """The ends of all intervals, each once, increasing."""
    edges = np.sort(np.concatenate([np.zeros(0), *(end for o in occurrences for end in (o.begin, o.end))]))
    return edges[np.diff(edges, prepend=-np.inf) > _SAME_TIME]


def _shares(
    occurrences: list[_Occurrence],
    kinds: list[NoiseKind],
    edges: Array,
    factor: Array,
    diffusion: Diffusion,
    params: Parameters,
) -> _Shares:
    """Cut the occurrences of one run into pieces, and carry each piece's noise to the end of its segment."""
    none, size = np.zeros(0, dtype=int), diffusion.size
    found = [_Shares(none, none, none, np.zeros((0, size, size * len(kinds))))]
    covered = np.zeros((len(kinds), len(edges)), dtype=int)
    for o in occurrences:
        first, last = (np.searchsorted(edges, times - _SAME_TIME) for times in (o.begin, o.end))
        step = np.repeat(np.arange(len(first)), last - first)
        piece = np.arange(len(step)) + np.repeat(last - np.cumsum(last - first), last - first)
        t = params.T - edges[piece + 1]
        rest = params.theta(t, edges[last[step]] - edges[piece + 1])
        kind = kinds.index(o.kind)
        later = o.kind.propagator(t, rest, diffusion, params)
        carried = o.transfer[step] @ later @ factor[piece, size * kind : size * kind + size]
        again = covered[kind, piece] + _repeats(piece)
        np.add.at(covered[kind], piece, 1)
        found.append(_Shares(o.segment[step], piece, again, carried))
    return _Shares(*(np.concatenate(entries) for entries in zip(*found, strict=True)))


def _repeats(values: Integers) -> Integers:
    """How often each entry has occurred before it: 0 0 1 for 3 5 3."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    ranks = np.empty(len(values), dtype=int)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
    return ranks

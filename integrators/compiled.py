"""Schemes compiled to tables: between two evaluations of the score a step is one affine map.

A word and a grid of times become, once and in float64, a sequence of segments

    u <- P u + K s + xi,   xi ~ N(0, Q)

where s is the score evaluated at the segment's beginning. The parts of a segment are composed and their Gaussians
merged into one pair. The first segment of a step precedes its first S and has no score.

Where parts hold another quantity than the score, P and K say so; with a memory of k evaluations a segment adds sum_j
K_j q_j over the k - 1 old ones (integrators.held), and remembers its own.

`compile_step` composes the flows of a word's parts (integrators.stages has their times) step by step; `compile_run`
also merges each step's last segment with the next one's first, so that a run is a prologue and one segment per score
evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..theory.flows import Flow, euler_flow
from ..theory.model import Parameters
from ..theory.scheme import FROZEN_FLOWS, Scheme
from ..theory.splitting import Splitting
from .held import Memory, compile_held
from .stages import PartStage as PartStage
from .stages import ScoreStage, position_scale, stages

Array = NDArray[np.float64]


class Segment(NamedTuple):
    """u <- P u + K s + xi in each of n steps: `flow` has entries (n, d, d), of d components, and `time` (n,) is where s
    is conditioned (None if the segment precedes every S). memory: of schemes that look back on more than the last
    evaluation."""

    time: Array | None
    flow: Flow
    memory: Memory | None = None


class Run(NamedTuple):
    """A whole run of `scheme`: the prologue (no score), then one update per score evaluation, in order."""

    scheme: Scheme
    prologue: Flow
    updates: Segment


def scale_noise(flow: Flow, lambda_s: float) -> Flow:
    """The flow with the standard deviation of its position noise multiplied by lambda_s, all other noise untouched."""
    scale = position_scale(lambda_s, np.shape(flow.noise_cov)[-1])
    return flow._replace(noise_cov=flow.noise_cov * scale[:, None] * scale)


def compile_step(scheme: Scheme, taus: Array, params: Parameters, past: int = 0) -> list[Segment]:
    """The segments of one step, each for all steps of the grid at once: the score-free one, then one per S.

    past: so many first steps of the grid have been made; they say when old evaluations were, and are left out.
    Raises ValueError for sub-flows that evaluate the score inside a part.
    """
    _check_frozen(scheme)
    if not scheme.holds_score:
        return [Segment(*one) for one in compile_held(scheme, stages(scheme, taus, params), params, past)]
    return _composed(scheme, stages(scheme, taus[past:], params), len(taus) - 1 - past, params)


def compile_steps(scheme: Scheme, grids: Sequence[Array], params: Parameters) -> list[Segment]:
    """`compile_step` of several grids, whose steps stand one after the other: one call is far cheaper than many.

    Every grid is a run of its own, which remembers nothing of the one before. Raises ValueError as `compile_step`.
    """
    _check_frozen(scheme)
    resolved = [stages(scheme, taus, params) for taus in grids]
    steps = [len(taus) - 1 for taus in grids]
    joined = [_side_by_side(entries) for entries in zip(*resolved, strict=True)]
    if not scheme.holds_score:
        starts = np.repeat(np.cumsum([0, *steps[:-1]]), steps)
        return [Segment(*one) for one in compile_held(scheme, joined, params, 0, starts)]
    return _composed(scheme, joined, sum(steps), params)


def _side_by_side(entries: Sequence[ScoreStage | PartStage]) -> ScoreStage | PartStage:
    """One token's times on several grids, one after the other."""
    scores = [entry for entry in entries if isinstance(entry, ScoreStage)]
    if scores:
        return ScoreStage(np.concatenate([entry.time for entry in scores]))
    parts = [entry for entry in entries if isinstance(entry, PartStage)]
    length, begin = np.concatenate([part.length for part in parts]), np.concatenate([part.begin for part in parts])
    return PartStage(parts[0].part, length, begin)


def _check_frozen(scheme: Scheme) -> None:
    if scheme.flow not in FROZEN_FLOWS:
        raise ValueError(
            f"the {scheme.flow} sub-flow evaluates the score inside a part and is not sampled; "
            f"use exact moments, or one of {', '.join(FROZEN_FLOWS)}"
        )


def _composed(
    scheme: Scheme, resolved: Sequence[ScoreStage | PartStage], steps: int, params: Parameters
) -> list[Segment]:
    """The segments of so many steps that hold the last score."""
    size = scheme.splitting.diffusion.size
    shape = (steps, size, size)
    identity = Flow(np.broadcast_to(np.eye(size), shape), np.zeros(shape), np.zeros(shape))
    segments = [Segment(None, identity)]
    for stage in resolved:
        if isinstance(stage, ScoreStage):
            segments.append(Segment(stage.time, identity))
        else:
            flow = scale_noise(stage.part.flow(scheme.flow, stage.length, params, stage.begin), scheme.lambda_s)
            before = segments[-1]
            segments[-1] = before._replace(flow=before.flow.then(flow))
    return segments


def compile_run(scheme: Scheme, taus: Array, params: Parameters) -> Run:
    """The whole run as a prologue and one update per score evaluation, in order of time.

    A word without S compiles to its prologue alone: all its steps, composed.
    """
    return _run_of(scheme, compile_step(scheme, taus, params))


def compile_runs(scheme: Scheme, grids: Sequence[Array], params: Parameters) -> list[Run]:
    """`compile_run` of several grids at once, which is far cheaper than one after the other."""
    segments, ends = compile_steps(scheme, grids, params), np.cumsum([0, *(len(taus) - 1 for taus in grids)])
    steps = [slice(first, last) for first, last in pairwise(ends)]
    return [_run_of(scheme, [_some(segment, kept) for segment in segments]) for kept in steps]


def _some(segment: Segment, kept: slice) -> Segment:
    """A segment in some of the steps."""
    memory = segment.memory
    return Segment(
        None if segment.time is None else segment.time[kept],
        Flow(*(entry[kept] for entry in segment.flow)),
        None if memory is None else Memory(*(entry[kept] for entry in memory)),
    )


def _run_of(scheme: Scheme, segments: Sequence[Segment]) -> Run:
    leading, *scored = segments
    if not scored:
        prologue = Flow(*(entry[0] for entry in leading.flow))
        for step in range(1, len(leading.flow.propagator)):
            prologue = prologue.then(Flow(*(entry[step] for entry in leading.flow)))
        empty = Flow(*(np.zeros((0, *prologue.propagator.shape)) for _ in range(3)))
        return Run(scheme, prologue, Segment(np.zeros(0), empty))
    last = scored[-1].flow
    merged = Flow(*(entry[:-1] for entry in last)).then(Flow(*(entry[1:] for entry in leading.flow)))
    scored[-1] = scored[-1]._replace(
        flow=Flow(*(np.concatenate(pair) for pair in zip(merged, (e[-1:] for e in last), strict=True))),
        memory=_behind(scored[-1].memory, leading.flow.propagator[1:]),
    )
    times = np.stack([segment.time for segment in scored if segment.time is not None], axis=1).reshape(-1)
    flow = Flow(
        *(
            np.stack(entries, axis=1).reshape(-1, *np.shape(entries[0])[1:])
            for entries in zip(*(s.flow for s in scored), strict=True)
        )
    )
    memories = [segment.memory for segment in scored if segment.memory is not None]
    updates = Segment(times, flow, _in_order(memories) if memories else None)
    return Run(scheme, Flow(*(entry[0] for entry in leading.flow)), updates)


def _in_order(memories: list[Memory]) -> Memory:
    """The memories of a step's segments, each for all steps, as one for all evaluations in order of time."""
    entries = (np.stack(of, axis=1) for of in zip(*memories, strict=True))
    return Memory(*(entry.reshape(-1, *entry.shape[2:]) for entry in entries))


def _behind(memory: Memory | None, propagator: Array) -> Memory | None:
    """A step's last memory, carried on by the part of the next step that precedes its S, `propagator` (steps - 1,
    d, d)."""
    if memory is None:
        return None
    gains = memory.gains.copy()
    gains[:-1] = propagator[:, None] @ gains[:-1]
    return memory._replace(gains=gains)


def denoising_step(splitting: Splitting, t: float, params: Parameters) -> Segment:
    """The last step of the published samplers: Euler on the whole reverse drift, without noise, from t over a time t
    (arXiv 2303.01748, appendix). One evaluation of the score, at t."""
    flow = euler_flow(splitting.whole, np.array([t * params.beta(t)]), splitting.whole.values(params, np.array([t])))
    return Segment(np.array([t]), flow._replace(noise_cov=np.zeros_like(flow.noise_cov)))


def denoising_run(scheme: Scheme, t: float, params: Parameters) -> Run:
    """The denoising step of `scheme`'s dynamics as a run of its own."""
    size = scheme.splitting.diffusion.size
    nothing = Flow(np.eye(size), *(np.zeros((size, size)) for _ in range(2)))
    return Run(scheme, nothing, denoising_step(scheme.splitting, t, params))


def noise_factor(noise_cov: Array) -> Array:
    """The lower Cholesky factor C of (..., d, d) covariances, C C^T = Q, also where they are singular (Gamma = 0)."""
    if noise_cov.shape[-1] != 2:
        return _semidefinite_factor(noise_cov)
    xx, xm, mm = noise_cov[..., 0, 0], noise_cov[..., 0, 1], noise_cov[..., 1, 1]
    factor = np.zeros(noise_cov.shape)
    factor[..., 0, 0] = np.sqrt(xx)
    factor[..., 1, 0] = np.divide(xm, factor[..., 0, 0], out=np.zeros(xx.shape), where=xx > 0)
    factor[..., 1, 1] = np.sqrt(np.maximum(mm - factor[..., 1, 0] ** 2, 0))
    return factor


def _semidefinite_factor(noise_cov: Array) -> Array:
    """The same of any d: a column whose pivot is 0 is 0."""
    factor = np.zeros(noise_cov.shape)
    for k in range(noise_cov.shape[-1]):
        left = noise_cov[..., k:, k] - (factor[..., k:, :k] @ factor[..., k, :k, None])[..., 0]
        pivot = np.sqrt(np.maximum(left[..., :1], 0))
        factor[..., k:, k] = np.divide(left, pivot, out=np.zeros(left.shape), where=pivot > 0)
        factor[..., k, k] = pivot[..., 0]
    return factor


def coefficients(run: Run) -> Array:
    """The run's segments as rows of P, K (row by row) and the lower triangle of C (1 + updates, 2 n^2 + n (n + 1) / 2),
    of two components 11, the prologue's first: what planes.updates_for takes. Zeros in the last columns: no noise. With
    a memory K is 1: in the score's place stands the pull of all evaluations (integrators.recall)."""
    updates = run.updates.flow
    if run.updates.memory is not None:
        unit = np.eye(updates.score_gain.shape[-1])
        updates = updates._replace(score_gain=np.broadcast_to(unit, updates.score_gain.shape))
    return rows_of(Flow(*(np.concatenate([a[None], b]) for a, b in zip(run.prologue, updates, strict=True))))


def rows_of(flow: Flow) -> Array:
    """P, K and the lower triangle of C of m segments as rows, (m, 2 n^2 + n (n + 1) / 2)."""
    P, K, Q = flow
    i, j = np.tril_indices(P.shape[-1])
    return np.concatenate([P.reshape(len(P), -1), K.reshape(len(K), -1), noise_factor(Q)[:, i, j]], axis=1)

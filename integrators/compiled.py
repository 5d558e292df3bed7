"""Schemes compiled to tables: between two evaluations of the score a step is one affine map.

A word and a grid of times become, once and in float64, a sequence of segments

    u <- P u + K s + xi,   xi ~ N(0, Q)

where s is the score evaluated at the segment's beginning. The parts of a segment are composed and their Gaussians
merged into one pair. The first segment of a step precedes its first S and has no score.

`stages` resolves clocks: which part acts over which theta, and at which time a score is conditioned; every reading
of a scheme starts from it. `compile_step` composes frozen-score flows step by step; `compile_run` also merges each
step's last segment with the next one's first, so that a run is a prologue and one segment per score evaluation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..theory.flows import Flow, euler_flow
from ..theory.model import Parameters
from ..theory.scheme import FROZEN_FLOWS, Scheme, check_holds_score
from ..theory.splitting import Part, Splitting
from .grids import check_grid

Array = NDArray[np.float64]


class ScoreStage(NamedTuple):
    """An S: the time t at which each step's score is conditioned, shape (steps,)."""

    time: Array


class PartStage(NamedTuple):
    """A part acting over `length` = int beta over its interval, in each step, shape (steps,)."""

    part: Part
    length: Array


class Segment(NamedTuple):
    """u <- P u + K s + xi in each of n steps: `flow` has entries (n, 2, 2), and `time` (n,) is where s is conditioned
    (None if the segment precedes every S)."""

    time: Array | None
    flow: Flow


class Run(NamedTuple):
    """A whole run of `scheme`: the prologue (no score), then one update per score evaluation, in order."""

    scheme: Scheme
    prologue: Flow
    updates: Segment


def stages(scheme: Scheme, taus: Array, params: Parameters) -> list[ScoreStage | PartStage]:
    """The word's tokens with their times, for every step of the grid `taus` (steps + 1,), increasing within [0, T].

    Raises ValueError on a bad grid (see `check_grid`) and if an interval runs past t = 0 to where beta is not positive.
    """
    check_holds_score(scheme, "what it does in numbers is")
    taus = check_grid(taus, params)
    t, h = params.T - taus[:-1], np.diff(taus)
    resolved: list[ScoreStage | PartStage] = []
    for position, token in enumerate(scheme.tokens, 1):
        start = t - float(token.start) * h
        if token.weight is None:
            if token.start == 1:
                start = params.T - taus[1:]  # the next step's own time, to the last digit
            resolved.append(ScoreStage(start))
            continue
        length = params.theta(start, float(token.weight) * h)
        if (wrong := params.beta(start - float(token.weight) * h) <= 0).any():
            end = float((start - float(token.weight) * h)[wrong][0])
            raise ValueError(
                f"token {position}, '{token}': its interval runs to t = {end:g}, where beta is not positive; let it "
                "end within the step, or stop the run at a larger t"
            )
        resolved.append(PartStage(scheme.splitting[token.symbol], length))
    return resolved


def scale_noise(flow: Flow, lambda_s: float) -> Flow:
    """The flow with the standard deviation of its position noise multiplied by lambda_s, the momentum's untouched."""
    scale = np.array([lambda_s, 1.0])
    return flow._replace(noise_cov=flow.noise_cov * scale[:, None] * scale)


def compile_step(scheme: Scheme, taus: Array, params: Parameters) -> list[Segment]:
    """The segments of one step, each for all steps of the grid at once: the score-free one, then one per S.

    Raises ValueError for sub-flows that evaluate the score inside a part.
    """
    if scheme.flow not in FROZEN_FLOWS:
        raise ValueError(
            f"the {scheme.flow} sub-flow evaluates the score inside a part and is not sampled; "
            f"use exact moments, or one of {', '.join(FROZEN_FLOWS)}"
        )
    shape = (len(taus) - 1, 2, 2)
    identity = Flow(np.broadcast_to(np.eye(2), shape), np.zeros(shape), np.zeros(shape))
    segments = [Segment(None, identity)]
    for stage in stages(scheme, taus, params):
        if isinstance(stage, ScoreStage):
            segments.append(Segment(stage.time, identity))
        else:
            flow = scale_noise(stage.part.flow(scheme.flow, stage.length, params), scheme.lambda_s)
            time, before = segments[-1]
            segments[-1] = Segment(time, before.then(flow))
    return segments


def compile_run(scheme: Scheme, taus: Array, params: Parameters) -> Run:
    """The whole run as a prologue and one update per score evaluation, in order of time.

    A word without S compiles to its prologue alone: all its steps, composed.
    """
    leading, *scored = compile_step(scheme, taus, params)
    if not scored:
        prologue = Flow(*(entry[0] for entry in leading.flow))
        for step in range(1, len(taus) - 1):
            prologue = prologue.then(Flow(*(entry[step] for entry in leading.flow)))
        empty = Flow(*(np.zeros((0, 2, 2)) for _ in range(3)))
        return Run(scheme, prologue, Segment(np.zeros(0), empty))
    last = scored[-1].flow
    merged = Flow(*(entry[:-1] for entry in last)).then(Flow(*(entry[1:] for entry in leading.flow)))
    scored[-1] = scored[-1]._replace(
        flow=Flow(*(np.concatenate(pair) for pair in zip(merged, (e[-1:] for e in last), strict=True)))
    )
    times = np.stack([segment.time for segment in scored if segment.time is not None], axis=1).reshape(-1)
    flow = Flow(
        *(np.stack(entries, axis=1).reshape(-1, 2, 2) for entries in zip(*(s.flow for s in scored), strict=True))
    )
    return Run(scheme, Flow(*(entry[0] for entry in leading.flow)), Segment(times, flow))


def denoising_step(splitting: Splitting, t: float, params: Parameters) -> Segment:
    """The last step of the published samplers: Euler on the whole reverse drift, without noise, from t over a time t
    (arXiv 2303.01748, appendix). One evaluation of the score, at t."""
    flow = euler_flow(splitting.whole, np.array([t * params.beta(t)]), params.values())
    return Segment(np.array([t]), flow._replace(noise_cov=np.zeros((1, 2, 2))))


def denoising_run(scheme: Scheme, t: float, params: Parameters) -> Run:
    """The denoising step of `scheme`'s dynamics as a run of its own."""
    nothing = Flow(np.eye(2), np.zeros((2, 2)), np.zeros((2, 2)))
    return Run(scheme, nothing, denoising_step(scheme.splitting, t, params))


def noise_factor(noise_cov: Array) -> Array:
    """The lower Cholesky factor C of (..., 2, 2) covariances, C C^T = Q, also where they are singular (Gamma = 0)."""
    xx, xm, mm = noise_cov[..., 0, 0], noise_cov[..., 0, 1], noise_cov[..., 1, 1]
    factor = np.zeros(noise_cov.shape)
    factor[..., 0, 0] = np.sqrt(xx)
    factor[..., 1, 0] = np.divide(xm, factor[..., 0, 0], out=np.zeros(xx.shape), where=xx > 0)
    factor[..., 1, 1] = np.sqrt(np.maximum(mm - factor[..., 1, 0] ** 2, 0))
    return factor


def coefficients(run: Run) -> Array:
    """The run's segments as rows of P, K (row by row), C00, C10 and C11 (1 + updates, 11), the prologue's first: what
    kernels.Updates takes. Zeros in the last three columns: no noise."""
    flow = Flow(
        *(np.concatenate([first[None], rest]) for first, rest in zip(run.prologue, run.updates.flow, strict=True))
    )
    lower = noise_factor(flow.noise_cov)[:, [0, 1, 1], [0, 0, 1]]
    return np.concatenate([flow.propagator.reshape(-1, 4), flow.score_gain.reshape(-1, 4), lower], axis=1)

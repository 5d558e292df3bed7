"""Tables of schemes that hold another quantity than the score, or hold it over several evaluations.

An answer is read as s = Phi u + Psi q (theory.frozen): at the time of its S, q = X u + Y s with X = -Psi^-1 Phi and Y =
Psi^-1. The parts behind it flow with the polynomial through the last k of these q, at their true times
in the scheme's clock (theory.held_flows); composed, a segment is

    u <- P u + K_1 q_1 + sum_(j > 1) K_j q_j + xi,

and as q_1 is of the state that the segment begins with, P + K_1 X and K_1 Y take its place. Under Euler with memory q
is the drift A u + G s of the one part behind S, and P = 1: Adams-Bashforth (Bashforth and Adams 1883). The first
evaluations of a run have fewer behind them, and polynomials of lower degree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..theory.clock import time_at
from ..theory.flows import Flow
from ..theory.frozen import NumericKernel, inverse
from ..theory.held_flows import HeldFlow, extrapolated_flow, held_flow
from ..theory.model import Parameters
from ..theory.scheme import Scheme
from .stages import PartStage, ScoreStage, position_scale

Array = NDArray[np.float64]

_kept: ContextVar[dict[Any, HeldFlow] | None] = ContextVar("kept", default=None)


class Memory(NamedTuple):
    """What a segment remembers, of each of n steps: `reading` (n, d, 2 d) of its own evaluation, q = X u + Y s with (X
    Y) side by side, and the `gains` (n, k - 1, d, d) of the k - 1 evaluations before it, the last one first."""

    reading: Array
    gains: Array


def compile_held(
    scheme: Scheme,
    stages: Sequence[ScoreStage | PartStage],
    params: Parameters,
    past: int,
    starts: NDArray[np.int64] | None = None,
) -> list[tuple[Array | None, Flow, Memory | None]]:
    """The segments of one step, the score-free one first, of the steps from number `past` on: the time of its S, its
    flow, and what it remembers (None for a memory of 1). starts (steps,): of each step the first one of its run, where
    several runs stand one after the other; None: there is one."""
    evaluated = [stage.time for stage in stages if isinstance(stage, ScoreStage)]
    steps = len(stages[0][-1]) - past if stages else 0
    size = scheme.splitting.diffusion.size
    unit = np.broadcast_to(np.eye(size), (steps, size, size))
    nothing = np.zeros((steps, scheme.memory, size, size))
    held = HeldFlow(unit, nothing, np.zeros(unit.shape))
    found: list[tuple[Array | None, HeldFlow]] = [(None, held)]
    for stage in stages:
        if isinstance(stage, ScoreStage):
            found.append((stage.time[past:], held))
            continue
        if stage.part.sde.uses_score:
            last = evaluations_before(evaluated, len(found) - 2, scheme.memory)
            if starts is not None:
                since = (np.arange(len(last)) - starts)[:, None] * len(evaluated) + len(found) - 2
                last = np.where(since >= np.arange(scheme.memory), last, np.nan)
            flow = held_part(scheme, stage, last, params, past)
        else:
            P, _, Q = stage.part.flow("exact", stage.length[past:], params, stage.begin[past:])
            flow = HeldFlow(P, nothing, Q)
        scale = position_scale(scheme.lambda_s, size)
        time, before = found[-1]
        found[-1] = (time, before.then(flow._replace(noise_cov=flow.noise_cov * scale[:, None] * scale)))
    return [_segment(scheme, time, flow, params) for time, flow in found]


def held_propagator(scheme: Scheme, stage: PartStage, params: Parameters) -> Array:
    """What a part makes of noise that was drawn before it in its segment, in each step (steps, d, d): P with q held."""
    if scheme.holds_score or not stage.part.sde.uses_score:
        return stage.part.flow(scheme.flow, stage.length, params, stage.begin).propagator
    nothing = np.full((len(stage.length), 1), np.nan)
    return held_part(scheme, stage, nothing, params, 0).propagator


def evaluations_before(evaluated: list[Array], place: int, memory: int) -> Array:
    """The times t of each step's last `memory` evaluations, that at `place` in the step the first: (steps, memory), nan
    where the run had not begun."""
    times = np.stack(evaluated, axis=1)
    steps, count = times.shape
    order = np.arange(steps)[:, None] * count + place - np.arange(memory)
    return np.where(order >= 0, times.reshape(-1)[np.maximum(order, 0)], np.nan)


def held_part(scheme: Scheme, stage: PartStage, evaluated: Array, params: Parameters, past: int = 0) -> HeldFlow:
    """A part with score in each step from number `past` on, with the times `evaluated` (steps, memory)."""
    begin, length, evaluated = stage.begin[past:], stage.length[past:], evaluated[past:]
    elapsed = params.theta(begin[:, None], begin[:, None] - evaluated)
    begin, diffusion, values = params.theta(begin, begin), scheme.splitting.diffusion, params.values()
    kept, key = _kept.get(), (stage.part.sde, scheme.flow, scheme.frozen, scheme.clock, diffusion, params)
    if kept is not None:
        key += tuple(entry.tobytes() for entry in (begin, length, elapsed))
        if key in kept:
            return kept[key]
    clock = None if scheme.clock.is_theta else scheme.clock.running(diffusion, params)
    if scheme.flow == "euler":
        found = extrapolated_flow(stage.part.sde, begin, length, elapsed, values, clock)
    else:
        noise = stage.part.sde.amount
        amount = None if noise is None else lambda theta: noise.at(time_at(theta, params), params)
        found = held_flow(stage.part.sde, scheme.frozen, diffusion, begin, length, elapsed, values, clock, amount)
    if kept is not None:
        for entry in found:
            entry.setflags(write=False)
        kept[key] = found
    return found


@contextmanager
def keeping_flows() -> Iterator[None]:
    """While open, no flow is computed twice: for many words over one grid, which are made of few flows."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def _segment(
    scheme: Scheme, time: Array | None, flow: HeldFlow, params: Parameters
) -> tuple[Array | None, Flow, Memory | None]:
    if time is None:
        return None, Flow(flow.propagator, np.zeros(flow.propagator.shape), flow.noise_cov), None
    X, Y = reading_at(scheme, time, params)
    first = flow.gains[:, 0]
    now = Flow(flow.propagator + first @ X, first @ Y, flow.noise_cov)
    if scheme.memory == 1:
        return time, now, None
    return time, now, Memory(np.concatenate([X, Y], axis=2), flow.gains[:, 1:])


def reading_at(scheme: Scheme, time: Array, params: Parameters) -> tuple[Array, Array]:
    """X and Y of q = X u + Y s at the times t (n,), each (n, d, d)."""
    size = scheme.splitting.diffusion.size
    shape = (len(time), size, size)
    values = params.values()
    if scheme.flow == "euler":
        (part,) = (part for part in scheme.parts if part.sde.uses_score)
        A, G, _ = part.sde.numbers(values)
        return np.broadcast_to(A, shape), np.broadcast_to(G, shape)
    kernel = NumericKernel(scheme.splitting.diffusion, params.theta(time, time), values)
    gain = inverse(np.broadcast_to(scheme.frozen.psi(kernel), shape))
    return -gain @ np.broadcast_to(scheme.frozen.phi(kernel), shape), gain

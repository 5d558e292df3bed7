"""Samplers between a scheme and the exact dynamics: some of its approximations are made, the others are replaced.

A part that uses the score is approximate in up to four ways, which are taken from it one after the other:

    sharing     it takes the score of a state that other parts have moved since, its S being theirs too
    freezing    it holds what it took (the score, or another q of s = Phi u + Psi q) while it moves itself
    sub-flow    Euler: it holds the rest of its drift, A u, too; or it follows its dynamics by the midpoint rule
    time        what it takes is of the time of its S, or extrapolated from the times of several, not of the time it is

`Between` says which are gone. What is left when all are is the splitting alone: every part follows its own dynamics
exactly, along the true score at the true time, one after the other. On a Gaussian target every one of these samplers
is affine: token by token over (u, q_1, ..., q_k), the state and the last k answers,

    S                     q_1 <- X u + Y s(u, t),  q_2 <- q_1, ...       (integrators.held has X and Y)
    part, nothing gone    u <- P u + K_1 q_1 + ... + K_k q_k + xi
    without sharing       the same with q_1 of the state u that the part begins with
    without freezing      du = (A u_0 + G s(u, t_S)) dtheta + noise, u_0 where it begins, under Euler
    and exact sub-flow    u <- R u + b + xi                              (theory.affine_flows)

The other way round, an exact sub-flow along a score that is held, is far worse than Euler where A grows and the score
holds it back, and overflows in long steps: its terms would cancel to many digits. Under Euler with a memory one drift
is extrapolated as a whole, and freezing is all of it.

Where the scheme language can say such a sampler (flow "true", a word with an S more), it is that scheme, and the tests
hold it to that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ...integrators.held import evaluations_before, held_part, reading_at
from ...integrators.stages import PartStage, ScoreStage, stages
from ...theory.affine_flows import AffineFlow, followed_flow, true_flow
from ...theory.clock import time_at
from ...theory.flows import linear_flow
from ...theory.model import LinearSDE, Parameters
from ...theory.scheme import Scheme
from ...theory.splitting import Splitting
from ..exact import AffineMap, midpoint_rule
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array, components_first, matmul, matvec


@dataclass(frozen=True)
class Between:
    """A scheme (lambda_s = 1) with approximations replaced: `own`, the parts that evaluate the score where they act;
    `followed`, those that hold nothing of the score but the time of their S; `exact`, those that hold nothing of the
    rest of their drift either; `running`, the numbers (from 0) of the S whose parts follow time, too."""

    scheme: Scheme
    own: frozenset[str] = field(default_factory=frozenset)
    exact: frozenset[str] = field(default_factory=frozenset)
    followed: frozenset[str] = field(default_factory=frozenset)
    running: frozenset[int] = field(default_factory=frozenset)

    @cached_property
    def solver(self) -> Scheme:
        """The scheme that says what is held and remembered: the score, once nothing of the drift is."""
        changed = self.scheme.flow != "exact" and (self.scheme.memory == 1 or bool(self.followed))
        return replace(self.scheme, flow="exact") if changed else self.scheme

    def law(self, target: GaussianTarget, taus: Array, law: GaussianLaw) -> GaussianLaw:
        """What the sampler makes of `law`, mean (n, V), over the grid `taus` (steps + 1,)."""
        size, steps = target.diffusion.size, len(taus) - 1
        maps = self.step_maps(target, taus)
        more = size * self.scheme.memory
        law = GaussianLaw(np.pad(law.mean, [(0, more), (0, 0)]), np.pad(law.cov, [(0, more), (0, more), (0, 0)]))
        with np.errstate(over="ignore", invalid="ignore"):  # one that is unstable overflows, and the budget says so
            for i in range(steps):
                law = AffineMap(*(entry[..., i, :] for entry in maps)).apply(law)
        return GaussianLaw(law.mean[:size], law.cov[:size, :size])

    def step_maps(self, target: GaussianTarget, taus: Array) -> AffineMap:
        """The maps of (u, q_1, ..., q_k) of every step: batch (steps, V)."""
        scheme, answers = self.scheme, _Answers(self.solver, target)
        resolved = stages(scheme, taus, target.params)
        evaluated = [stage.time for stage in resolved if isinstance(stage, ScoreStage)]
        number, total = -1, _unit(target.diffusion.size, scheme.memory, (len(taus) - 1, 1))
        for stage in resolved:
            if isinstance(stage, ScoreStage):
                number += 1
                total = total.then(answers.evaluation(stage.time))
                continue
            times = evaluations_before(evaluated, number, scheme.memory) if number >= 0 else None
            total = total.then(self._part(stage, number, times, target, answers))
        return total

    def _part(
        self, stage: PartStage, number: int, times: Array | None, target: GaussianTarget, answers: _Answers
    ) -> AffineMap:
        part, params, memory = stage.part, target.params, self.scheme.memory
        if times is None or not part.sde.uses_score:
            flow = part.exact(stage.length, params.values()) if part.name in self.exact else None
            flow = part.flow("exact", stage.length, params) if flow is None else flow
            return _moving(components_first(flow.propagator), [], None, components_first(flow.noise_cov), memory)
        if number in self.running:
            return _placed(running(part.sde, target, stage.begin, stage.length), memory)
        if part.name in self.followed:
            half = self.scheme.flow == "euler" and memory == 1 and part.name not in self.exact
            return _placed((answers.half_followed if half else answers.followed)(stage, times), memory)
        P, gains, offset, Q = self._held(stage, times, target)
        if part.name not in self.own:
            return _moving(P, gains, offset, Q, memory)
        slope, centre = answers.of_state(times[:, 0])
        moved = matvec(gains[0], centre) + (0 if offset is None else offset)
        return _moving(P + matmul(gains[0], slope), [np.zeros_like(gains[0]), *gains[1:]], moved, Q, memory)

    def _held(
        self, stage: PartStage, times: Array, target: GaussianTarget
    ) -> tuple[Array, list[Array], Array | None, Array]:
        """P, K_1 ... K_k, the offset (None: 0) and Q of a part that holds what it took."""
        scheme, part, params = self.scheme, stage.part, target.params
        if scheme.flow == "midpoint":
            law = target.law(times[:, 0])
            P, K, offset, Q = midpoint_rule(stage, law.mean, target.precision(law), target)
            return P, [K], offset, Q
        if scheme.holds_score:
            P, K, Q = (components_first(entry) for entry in part.flow(scheme.flow, stage.length, params))
            return P, [K], None, Q
        flow = held_part(self.solver, stage, times, params)
        return (
            components_first(flow.propagator),
            [components_first(flow.gains[:, j]) for j in range(scheme.memory)],
            None,
            components_first(flow.noise_cov),
        )


class _Answers:
    """What a scheme's evaluations give on a target: q = X u + Y s, s = -Lambda (u - mean)."""

    def __init__(self, solver: Scheme, target: GaussianTarget) -> None:
        self.solver, self.target = solver, target

    def of_state(self, time: Array) -> tuple[Array, Array]:
        """q = slope u + offset at the times t (n,): slope (d, d, n, V), offset (d, n, V)."""
        X, Y = (components_first(entry) for entry in reading_at(self.solver, time, self.target.params))
        law = self.target.law(time)
        pull = matmul(Y, self.target.precision(law))
        return X - pull, matvec(pull, law.mean)

    def evaluation(self, time: Array) -> AffineMap:
        """S: the last answer is this one, and what was last is one older."""
        memory, slope = self.solver.memory, self.of_state(time)
        d = self.target.diffusion.size
        total = _unit(d, memory, slope[1].shape[1:])
        total.matrix[d:] = 0
        total.matrix[d : 2 * d, :d], total.offset[d : 2 * d] = slope
        for i in range(2 * d, d * (memory + 1)):
            total.matrix[i, i - d] = 1
        return total

    def half_followed(self, stage: PartStage, times: Array) -> AffineFlow:
        """A part that follows the score at the time of its S, t (n, 1), and holds the rest of its drift."""
        A, G, D = stage.part.sde.numbers(self.target.params.values())
        slope, offset = (np.moveaxis(a, range(a.ndim - 2), range(2 - a.ndim, 0)) for a in self.of_state(times[:, 0]))
        E, Phi, Q = linear_flow(G @ slope, D, stage.length[:, None])
        return AffineFlow(E + np.eye(len(A)) + Phi @ A, (Phi @ (offset @ G.T)[..., None])[..., 0], Q)

    def followed(self, stage: PartStage, times: Array) -> AffineFlow:
        """A part that asks for q of the state as it is, at the times t of the last evaluations (n, k)."""
        params, diffusion = self.target.params, self.target.diffusion
        known = np.where(np.isfinite(times), times, times[:, :1])
        slope, offset = self.of_state(known.reshape(-1))
        held = (
            np.moveaxis(slope, (0, 1), (-2, -1)).reshape(*times.shape, -1, *slope.shape[:2]),
            np.moveaxis(offset, 0, -1).reshape(*times.shape, -1, len(offset)),
        )
        clock = None if self.solver.clock.is_theta else self.solver.clock.running(diffusion, params)
        elapsed = params.theta(stage.begin[:, None], stage.begin[:, None] - times)
        begin, values = params.theta(stage.begin, stage.begin), params.values()
        frozen = self.solver.frozen
        return followed_flow(stage.part.sde, frozen, diffusion, begin, stage.length, elapsed, values, held, clock)


def running(sde: LinearSDE, target: GaussianTarget, begin: Array, length: Array) -> AffineFlow:
    """The flow of `sde` along the true score at the true time, over intervals that run down from the times t `begin` by
    theta = `length` (n,)."""
    params: Parameters = target.params

    def score(theta: Array) -> tuple[Array, Array]:
        law = target.law(time_at(theta, params))
        precision = target.precision(law)
        slope, offset = -precision, matvec(precision, law.mean)
        return np.moveaxis(slope, (0, 1), (-2, -1)), np.moveaxis(offset, 0, -1)

    return true_flow(sde, score, params.theta(begin, begin), length, params.values())


def merged(splitting: Splitting, target: GaussianTarget, taus: Array, law: GaussianLaw) -> GaussianLaw:
    """What the whole dynamics make of `law`, with nothing approximated, over the grid `taus` (steps + 1,)."""
    params = target.params
    t = params.T - taus[:-1]
    maps = _placed(running(splitting.whole, target, t, params.theta(t, np.diff(taus))), 0)
    for i in range(len(t)):
        law = AffineMap(*(entry[..., i, :] for entry in maps)).apply(law)
    return law


def _unit(size: int, memory: int, batch: tuple[int, ...]) -> AffineMap:
    d = size * (memory + 1)
    unit = np.zeros((d, d, *batch))
    unit[range(d), range(d)] = 1
    return AffineMap(unit, np.zeros((d, *batch)), np.zeros((d, d, *batch)))


def _moving(P: Array, gains: list[Array], offset: Array | None, Q: Array, memory: int) -> AffineMap:
    """u <- P u + sum_j K_j q_j + offset + xi; the answers stay. Matrices (d, d, n, 1 or V)."""
    d = len(P)
    batch = np.broadcast_shapes(P.shape[2:], Q.shape[2:], () if offset is None else offset.shape[1:])
    total = _unit(d, memory, batch)
    total.matrix[:d, :d], total.noise_cov[:d, :d] = P, Q
    for j, gain in enumerate(gains, 1):
        total.matrix[:d, j * d : j * d + d] = gain
    if offset is not None:
        total.offset[:d] = offset
    return total


def _placed(flow: AffineFlow, memory: int) -> AffineMap:
    P, Q = (np.moveaxis(entry, (-2, -1), (0, 1)) for entry in (flow.propagator, flow.noise_cov))
    return _moving(P, [], np.moveaxis(flow.offset, -1, 0), Q, memory)

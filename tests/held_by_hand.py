"""Schemes that hold another quantity than the score, or remember it, by hand: the second source of their constants.

One Gaussian target at a time, in float64. A step is followed token by token on the extended state

    z = (u, q_0, q_1, ..., q_{k-1}),       q_0 what was evaluated last

as a Gaussian vector. S shifts the q and puts q(u, t) in; a part is the linear SDE

    du = [(A + G Phi(t)) u + G Psi(t) sum_j l_j(theta) q_j] dtheta + D^(1/2) dw,     l_j of Lagrange, in theta,

whose propagator, gains and noise are integrated by Gauss's three-stage Runge-Kutta rule of order 6. Nothing of
weakorder's own flows, compiled tables or moments is used; Phi and Psi are those of theory.frozen, and the laws are the
target's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from weakorder.theory.frozen import NumericKernel
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget

Array = NDArray[np.float64]

_ROOT = 15**0.5
NODES = np.array([0.5 - _ROOT / 10, 0.5, 0.5 + _ROOT / 10])
RULE = np.array(
    [
        [5 / 36, 2 / 9 - _ROOT / 15, 5 / 36 - _ROOT / 30],
        [5 / 36 + _ROOT / 24, 2 / 9, 5 / 36 - _ROOT / 24],
        [5 / 36 + _ROOT / 30, 2 / 9 + _ROOT / 15, 5 / 36],
    ]
)
WEIGHTS = np.array([5, 8, 5]) / 18


@dataclass(frozen=True)
class Slips:
    """What a step by hand gets wrong: nothing, or one thing.

    weight: on what the extrapolation adds. stale: evaluations that what is remembered is too old by. psi: steps by
    which Psi is evaluated too early. uniform: whether steps are taken for equal where the polynomial's nodes are.
    """

    weight: float = 1.0
    stale: int = 0
    psi: float = 0.0
    uniform: bool = False


NO_SLIP = Slips()


def _lagrange(nodes: Sequence[float], theta: float) -> list[float]:
    found = []
    for j, own in enumerate(nodes):
        factors = [(theta - other) / (own - other) for i, other in enumerate(nodes) if i != j]
        found.append(float(np.prod(factors)))
    return found


class Run:
    """A run of `scheme` on one target over the grid of times tau `taus`, from the exact law at its beginning."""

    def __init__(self, scheme: Scheme, target: GaussianTarget, taus: Array, slips: Slips = NO_SLIP) -> None:
        assert target.mean.size == 1
        self.scheme, self.target, self.slips, self.taus = scheme, target, slips, taus
        self.params: Parameters = target.params
        self.values = self.params.values()
        self.kept = scheme.memory + slips.stale
        size = 2 + 2 * self.kept
        law = self.law(1 - taus[0])
        self.mean, self.cov = np.zeros(size), np.zeros((size, size))
        self.mean[:2], self.cov[:2, :2] = law
        self.times: list[float] = []  # of what is remembered, the last first
        for begin, end in itertools.pairwise(taus):
            self._step(float(begin), float(end - begin))

    def law(self, t: float) -> tuple[Array, Array]:
        """The exact mean and covariance at t."""
        law = self.target.law(np.array([t]))
        return law.mean[:, 0, 0], law.cov[:, :, 0, 0]

    def theta(self, t: float) -> float:
        """int_0^t beta."""
        p = self.params
        return p.beta_min * t + (p.beta_max - p.beta_min) * t * t / 2

    def matrices(self, t: float) -> tuple[Array, Array]:
        """Phi and Psi at t."""
        kernel = NumericKernel(self.target.diffusion, self.theta(t), self.values)
        return np.asarray(self.scheme.frozen.phi(kernel)), np.asarray(self.scheme.frozen.psi(kernel))

    def _step(self, tau: float, h: float) -> None:
        for position, token in enumerate(self.scheme.tokens):
            t = 1 - tau - float(token.start) * h
            if token.weight is None:
                self._evaluate(t)
                continue
            part = self.scheme.splitting[token.symbol]
            held = part.sde.uses_score
            before = max((i for i in range(position) if self.scheme.tokens[i].is_score), default=None)
            assert before is not None or not held
            self._flow(part, t, float(token.weight) * h, held, h)

    def _evaluate(self, t: float) -> None:
        mean, cov = self.law(t)
        phi, psi = self.matrices(t)
        precision, inverse = np.linalg.inv(cov), np.linalg.inv(psi)
        R = -inverse @ (precision + phi)
        offset = inverse @ precision @ mean
        if self.scheme.flow == "euler" and self.scheme.memory > 1:
            (part,) = (p for p in self.scheme.parts if p.sde.uses_score)
            A, G, _ = part.sde.numbers(self.values)
            R, offset = A + G @ R, G @ offset
        size = len(self.mean)
        J = np.zeros((size, size))
        J[:2, :2] = np.eye(2)
        J[2:4, :2] = R
        J[4:, 2:-2] = np.eye(size - 4)
        self.mean, self.cov = J @ self.mean, J @ self.cov @ J.T
        self.mean[2:4] += offset
        self.times = [t, *self.times][: self.kept]

    def _flow(self, part: Any, t: float, length: float, held: bool, h: float) -> None:
        """z <- J z + noise over [t - length, t]."""
        A, G, D = part.sde.numbers(self.values)
        drift = held and self.scheme.flow == "euler"
        assert not (drift and self.scheme.memory == 1), "there is nothing to hold"
        size = len(self.mean)
        nodes = self.times if not self.slips.uniform else [self.times[0] + j * h for j in range(len(self.times))]
        known = min(len(self.times), self.scheme.memory)
        chosen = [0, *range(1 + self.slips.stale, known + self.slips.stale)]
        if chosen[-1] >= len(self.times):  # the start: what there is
            chosen = list(range(known))
        places = [self.theta(nodes[j - self.slips.stale if j else 0]) for j in chosen]

        def generator(time: float) -> Array:
            """Of z' = X z, in t from t downwards: X beta."""
            X = np.zeros((size, size))
            X[:2, :2] = A if not drift else 0
            if held:
                phi, psi = self.matrices(time)
                if self.slips.psi:
                    psi = self.matrices(time + self.slips.psi * h)[1]
                if not drift:
                    X[:2, :2] += G @ phi
                weights = _lagrange(places, self.theta(time))
                for j, weight in zip(chosen, weights, strict=True):
                    weight = self.slips.weight * weight if j else 1 - self.slips.weight * (1 - weight)
                    X[:2, 2 + 2 * j : 4 + 2 * j] = weight * (np.eye(2) if drift else G @ psi)
            return X * self.params.beta(time)

        stages = [generator(t - c * length) for c in NODES]
        J = gauss(lambda i, M: stages[i] @ M, np.eye(size), length)
        noise = np.zeros((size, size))
        noise[:2, :2] = D
        betas = [self.params.beta(t - c * length) for c in NODES]
        Q = gauss(lambda i, Q: stages[i] @ Q + Q @ stages[i].T + betas[i] * noise, np.zeros((size, size)), length)
        self.mean, self.cov = J @ self.mean, J @ self.cov @ J.T + Q

    @property
    def error(self) -> tuple[Array, Array]:
        """Mean and covariance of u at the end, minus the exact ones."""
        mean, cov = self.law(1 - self.taus[-1])
        return self.mean[:2] - mean, self.cov[:2, :2] - cov


def gauss(slope: Callable[[int, Array], Array], start: Array, length: float) -> Array:
    """One step of Gauss's rule for y' = slope(i, y), affine, slope at the i-th node; its stages by iteration."""
    stages = [np.zeros_like(start)] * 3
    for _ in range(60):
        moved = [start + length * sum(a * k for a, k in zip(row, stages, strict=True)) for row in RULE]
        new = [slope(i, y) for i, y in enumerate(moved)]
        change = max(float(np.abs(a - b).max()) for a, b in zip(new, stages, strict=True))
        stages = new
        if change == 0:
            break
    return start + length * sum(w * k for w, k in zip(WEIGHTS, stages, strict=True))


def constants(
    scheme: Scheme,
    target: GaussianTarget,
    order: int,
    grid: Callable[[int], Array],
    steps: Sequence[int] = (40, 80, 160),
    slips: Slips = NO_SLIP,
) -> GaussianLaw:
    """e / h^order at h = 0, its terms in h and h^2 removed, h = 1 / steps."""
    ratios = []
    for count in steps:
        run = Run(scheme, target, grid(count), slips)
        ratios.append([error * count**order for error in run.error])
    once = [[2 * fine - coarse for coarse, fine in zip(*pair, strict=True)] for pair in itertools.pairwise(ratios)]
    mean, cov = ((4 * fine - coarse) / 3 for coarse, fine in zip(*once, strict=True))
    return GaussianLaw(mean[:, None], cov[:, :, None])

"""A run as a chain: what each state that the network sees has of the last few, of their answers, and of fresh noise.

Of a transcript (unmodified.transcript)

    y_k = p_k x + b_k + sum_j<k G_kj s_j + sum_n C_kn xi_n

the law has of C no more than C C^T. So with C = L Q, the rows of Q orthonormal and L lower triangular, one normal eta_k
comes in with each state, in the place of however many numbers are drawn (a Brownian tree draws thousands), and

    y_k+1 = c + sum_j<m (a_j y_k-j + g_j s_k-j) + nu eta_k+1

for some m: what y_k+1 has of the start, of older answers and of older noise is told by the last m states. That is a
small system of linear equations for each k, and m is the smallest number that solves it. Two states tell what a solver
of two evaluations a step does in its second half, what one with a memory of two does, and so on. Nothing is known of
the sampler but its transcript.

Where there is noise, the states that are still asked for are a Markov chain, and its law is carried on a lattice
(exact.lattice), in as many dimensions as states, two at most. What the answers are, as functions of the state, is
another's to say (unmodified.mixture).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...integrators.blackbox import BlackBoxError
from ...integrators.unmodified import Unmodified
from ..exact import Cloud, Move, Resolution
from ..verdicts import Array
from .transcript import Transcript

MOST_STATES = 2
# Transcripts are right to some 1e-12; what an older state leaves of an answer is 1e-3 and more.
TOLERANCE = 1e-8
# Noise below this, beside a state, is rounding.
_NO_NOISE = 1e-13

# s_k of states (J,), and how large the terms are that it is made of: the number k of the evaluation, and the states.
Answer = Callable[[int, Array], Array]


@dataclass(frozen=True)
class Link:
    """From evaluation k to k + 1: constant, then of_states and of_answers (m,), of the last states from the newest on,
    and the standard deviation of the noise; kept: how many states are asked for behind it, y_k+1 among them."""

    constant: float
    of_states: Array
    of_answers: Array
    noise: float
    kept: int


@dataclass(frozen=True)
class Chain:
    """A run up to its last evaluation: y_0 = of_start x + constant + noise eta_0, and the links behind it."""

    of_start: float
    constant: float
    noise: float
    links: tuple[Link, ...]

    @property
    def dimensions(self) -> int:
        """Of the lattices that it takes: the most states that are carried at once, but for those within a step."""
        return max((link.kept for link, within in zip(self.links, self._within, strict=True) if not within), default=1)

    @property
    def _within(self) -> list[bool]:
        """Whether each link leads into a step's middle: behind it one state more is asked for than before and after."""
        kept = [1, *(link.kept for link in self.links), 1]
        return [kept[k] == kept[k + 2] == 1 < kept[k + 1] for k in range(len(self.links))]

    def begin(self, start: Sequence[Cloud]) -> list[Cloud]:
        """The law of y_0 of that of x, Gaussians on a line."""
        return [
            Cloud(
                self.of_start * cloud.points + self.constant,
                cloud.weights,
                self.of_start**2 * cloud.noise_cov + self.noise**2,
            )
            for cloud in start
        ]

    def moves(self, answer: Answer, resolution: Resolution) -> list[Move]:
        """What happens to the law of the states, link by link."""
        return [
            _move(link, k, answer, resolution if within else None)
            for k, (link, within) in enumerate(zip(self.links, self._within, strict=True))
        ]


def _move(link: Link, k: int, answer: Answer, resolution: Resolution | None) -> Move:
    """resolution: of the noise as nodes of its own; None: it is left to a lattice."""
    nodes, shares = np.zeros(1), np.ones(1)
    if resolution is not None and link.noise:
        nodes, shares = _normal(resolution)

    def points(states: Array) -> tuple[Array, Array, bool]:
        new, size = np.full(states.shape[1], link.constant), np.full(states.shape[1], abs(link.constant))
        for j, (a, g) in enumerate(zip(link.of_states, link.of_answers, strict=True)):
            s = answer(k - j, states[j])
            new += a * states[j] + g * s
            size += np.abs(a * states[j]) + np.abs(g * s)
        new = np.add.outer(new, link.noise * nodes).ravel()
        past = np.repeat(states[: link.kept - 1], len(nodes), axis=1)
        moved, size = np.concatenate([new[None], past]), np.repeat(size, len(nodes)) + np.abs(new)
        return moved, np.concatenate([size[None], np.abs(past)]), bool(np.isfinite(new).all())

    return Move(points, np.array([[0.0 if len(nodes) > 1 else link.noise**2]]), f"at evaluation {k + 2}", shares)


def _normal(resolution: Resolution) -> tuple[Array, Array]:
    """A standard normal as nodes with weights, by the trapezoid rule: as far as the tail's weight, and as close as the
    nodes of a lattice that holds its frequencies."""
    reach = math.sqrt(-2 * math.log(resolution.tail))
    nodes = np.linspace(-reach, reach, 1 + 2 * math.ceil(reach**2 * resolution.oversampling / math.pi))
    weights = np.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()


def chain_of(sampler: Unmodified, run: Transcript) -> Chain:
    """The chain of a run with noise. Raises BlackBoxError where more than `MOST_STATES` states tell the next one."""
    N = run.nfe
    unit = np.array([at.scale * np.hypot(at.alpha, at.sigma) for at in run.levels])
    rows = np.concatenate([run.start[:N, None], run.gains[:N], _entering(run.noise[:N])], axis=1)
    # in standard deviations, for data of variance 1: of the start, of the answers, of the states
    spread = np.concatenate([[run.begin.scale * np.hypot(run.begin.alpha, run.begin.sigma)], _answers(sampler, run)])
    rows[:, : 1 + N] *= spread
    rows /= unit[:, None]
    found = [_link(rows, k) for k in range(N - 1)]
    kept = [1] * N  # behind link k - 1, that is at evaluation k
    for k in range(N - 2, -1, -1):
        kept[k] = max(len(found[k][0]), kept[k + 1] - 1)
    if (most := max(kept)) > MOST_STATES:
        raise BlackBoxError(
            f"its next state is told by its last {most}: with noise that takes a lattice in {most} dimensions, and "
            f"{MOST_STATES} are the most; without its noise any memory is taken (--set eta=0, if it has that), "
            "and Gaussian data (--target gaussian) take it as it is"
        )
    links = []
    for k, (a, g) in enumerate(found):
        of_states = a * unit[k + 1] / unit[k - np.arange(len(a))]
        of_answers = g * unit[k + 1] / spread[1 + k - np.arange(len(a))]
        constant = run.offset[k + 1] - of_states @ run.offset[k - np.arange(len(a))]
        links.append(
            Link(float(constant), of_states, of_answers, float(rows[k + 1, 2 + N + k] * unit[k + 1]), kept[k + 1])
        )
    return Chain(float(run.start[0]), float(run.offset[0]), float(rows[0, 1 + N] * unit[0]), tuple(links))


def _answers(sampler: Unmodified, run: Transcript) -> Array:
    """The size of each answer, (N,), on data of variance 1."""
    terms = [(sampler.prediction(at), np.hypot(at.alpha, at.sigma)) for at in run.levels]
    return np.array([abs(of_state) * size + abs(of_data) for (of_state, of_data), size in terms])


def _entering(noise: Array) -> Array:
    """L of C (N, draws): (N, N), column k what first comes in with row k; 0 where nothing does."""
    N = len(noise)
    L, basis = np.zeros((N, N)), np.zeros((N, noise.shape[1]))
    for k, row in enumerate(noise):
        left = row.copy()
        for _ in range(2):  # once more for what rounding left
            along = basis[:k] @ left
            L[k, :k] += along
            left -= along @ basis[:k]
        size = float(np.linalg.norm(left))
        if size > _NO_NOISE * max(1.0, float(np.linalg.norm(row))):
            L[k, k], basis[k] = size, left / size
    return L


def _link(rows: Array, k: int) -> tuple[Array, Array]:
    """a and g of the fewest last states that tell row k + 1 but for its new noise; of more than `MOST_STATES`, those
    that would."""
    N = len(rows)
    target = rows[k + 1].copy()
    target[1 + N + k + 1] = 0
    m = 0
    while True:
        m += 1
        window = k - np.arange(m)
        others = np.delete(np.arange(rows.shape[1]), 1 + window)
        a = np.linalg.lstsq(rows[window][:, others].T, target[others], rcond=None)[0]
        left = target - a @ rows[window]
        if np.linalg.norm(left[others]) <= TOLERANCE or m > min(k, MOST_STATES):
            return a, left[1 + window]

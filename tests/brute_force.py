"""The moments of a splitting scheme on a Gaussian target, by brute force: the independent second source of the tests.

Written from the design page (sections 1, 2 and 4) alone, with nothing imported from weakorder: its own tokenizer, its
own numeric parts, and a recursion over steps and tokens, one target at a time. It follows the extended state

    z = (x, m, s_x, s_m, 1)

through every token as a Gaussian vector, with mean (5,) and covariance (5, 5). A token is a linear map z <- J z + xi:

    S       the rows of s become -Lambda_t (u - mean_t)
    part    J = exp(X theta) (exact, true) or 1 + X theta (euler), X the generator of du = A u + G s, or, for a true
            sub-flow, of du = (A - G Lambda_t) u + G Lambda_t mean_t; its noise by Van Loan's block exponential

All numbers are integers in units of 2^-BITS (fixed point, 2^-192 = 1.6e-58): for the float64 parameters, times and
data that it is given, the answer is exact to the last digit of float64.
With every answer goes its condition: how far it moves, to first order, if each entry moves by its own size (see
`_condition`). A float64 computation whose entries are right to 1e-12 is right to 1e-12 times that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from fixed_point import BITS, Fixed, exponential, fixed, floats, inverse, product, times
from numpy.typing import NDArray

Array = NDArray[np.float64]


# --- The model --------------------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The parameters, as exact rationals: the floats that they are given as."""

    gamma: Fraction
    nu: Fraction
    kappa: Fraction
    beta_min: Fraction
    beta_max: Fraction

    @classmethod
    def of(cls, gamma: float, nu: float, kappa: float, beta_min: float, beta_max: float) -> Model:
        """The model with these numbers."""
        return cls(*map(Fraction, (gamma, nu, kappa, beta_min, beta_max)))

    @property
    def mass_inverse(self) -> Fraction:
        """M^-1, critical damping."""
        return (self.gamma - self.nu) ** 2 / 4

    def integral_of_beta(self, begin: Fraction, end: Fraction) -> Fraction:
        """int of beta from t = end up to t = begin: the antiderivative at both ends."""

        def antiderivative(t: Fraction) -> Fraction:
            return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

        return antiderivative(begin) - antiderivative(end)


def model_of(params: Any) -> Model:
    """Of parameters with the fields gamma, nu, kappa, beta_min and beta_max."""
    return Model.of(params.gamma, params.nu, params.kappa, params.beta_min, params.beta_max)


class Part(NamedTuple):
    """du = (A u + G s) dtheta + D^(1/2) dw."""

    A: list[list[Fraction]]
    G: list[list[Fraction]]
    D: list[list[Fraction]]

    @property
    def uses_score(self) -> bool:
        """Whether the drift holds the score, for whatever parameters: a zero G marks a part that is always exact."""
        return self.G is not NO_SCORE


ZERO, HALF, ONE = Fraction(0), Fraction(1, 2), Fraction(1)
NO_SCORE = [[ZERO, ZERO], [ZERO, ZERO]]


def _diagonal(a: Fraction, b: Fraction) -> list[list[Fraction]]:
    return [[a, ZERO], [ZERO, b]]


def parts_of(splitting: str, model: Model) -> dict[str, Part]:
    """The parts of a splitting at the model's parameters, per unit theta; the table of the design page."""
    gamma, nu, W = model.gamma, model.nu, model.mass_inverse
    M = 1 / W
    quiet, noise = _diagonal(ZERO, ZERO), _diagonal(gamma, nu * M)
    if splitting == "psld":
        return {
            "O": Part(_diagonal(-gamma / 2, -nu / 2), NO_SCORE, noise),
            "A": Part([[gamma, -W / 2], [ZERO, ZERO]], _diagonal(gamma, ZERO), quiet),
            "B": Part([[ZERO, ZERO], [HALF, nu]], _diagonal(ZERO, M * nu), quiet),
        }
    if splitting == "psld-linear":
        return {
            "U": Part([[-gamma / 2, -W / 2], [HALF, -nu / 2]], NO_SCORE, noise),
            "E": Part(_diagonal(gamma, nu), _diagonal(gamma, M * nu), quiet),
        }
    if splitting == "psld-whole":
        return {"F": Part([[gamma / 2, -W / 2], [HALF, nu / 2]], _diagonal(gamma, M * nu), noise)}
    if splitting == "psld-flow":
        return {
            "A": Part([[gamma / 2, -W / 2], [ZERO, ZERO]], _diagonal(gamma / 2, ZERO), quiet),
            "B": Part([[ZERO, ZERO], [HALF, nu / 2]], _diagonal(ZERO, M * nu / 2), quiet),
        }
    if splitting == "psld-flow-whole":
        return {"F": Part([[gamma / 2, -W / 2], [HALF, nu / 2]], _diagonal(gamma / 2, M * nu / 2), quiet)}
    if splitting == "langevin":
        return {
            "O": Part(_diagonal(ZERO, -nu), NO_SCORE, _diagonal(ZERO, 2 * nu * M)),
            "A": Part([[ZERO, W], [ZERO, ZERO]], NO_SCORE, quiet),
            "B": Part(_diagonal(ZERO, ZERO), [[ZERO, ZERO], [ONE, ZERO]], quiet),
        }
    raise ValueError(f"no splitting {splitting!r}")


def forward(model: Model) -> tuple[list[list[Fraction]], list[list[Fraction]]]:
    """A and D of the forward SDE, per unit theta."""
    gamma, nu, W = model.gamma, model.nu, model.mass_inverse
    return [[-gamma / 2, W / 2], [-HALF, -nu / 2]], _diagonal(gamma, nu / W)


class Law(NamedTuple):
    """Mean (2,) and covariance (2, 2) of u, in fixed point."""

    mean: Fixed
    cov: Fixed


def marginal(splitting: str, model: Model, mu: float, variance: float, t: Fraction) -> Law:
    """The law of u at time t, of data N(mu, variance): noised, or, for Langevin dynamics, stationary."""
    M = 1 / model.mass_inverse
    if splitting == "langevin":
        return Law(fixed([mu, 0]), fixed(_diagonal(Fraction(variance), M)))
    A, D = forward(model)
    theta = model.integral_of_beta(t, ZERO)
    P = exponential(times(A, theta))
    start = fixed(_diagonal(Fraction(variance), model.kappa * M))
    return Law(
        product(P, fixed([mu, 0])), product(product(P, start), P.T) + noise_covariance(fixed(A), fixed(D), theta)
    )


def noise_covariance(A: Fixed, D: Fixed, theta: Fraction) -> Fixed:
    """int_0^theta exp(A r) D exp(A r)^T dr: the moment equation Q' = A Q + Q A^T + D for (xx, xm, mm), augmented by the
    constant 1 as in Van Loan (1978), so that one exponential solves it."""
    (a, b), (c, d) = A
    one = 1 << BITS
    rows = [[2 * a, 2 * b, 0, D[0, 0]], [c, a + d, b, D[0, 1]], [0, 2 * c, 2 * d, D[1, 1]], [0, 0, 0, 0]]
    xx, xm, mm, _ = product(exponential(times(np.array(rows, dtype=object), theta)), np.array([0, 0, 0, one]))
    return np.array([[xx, xm], [xm, mm]], dtype=object)


# --- Words ------------------------------------------------------------------------------------------------------------


class Letter(NamedTuple):
    """A token: weight None for S; `start` is where it begins, as a fraction of the step."""

    symbol: str
    weight: Fraction | None
    start: Fraction


def read(word: str) -> list[Letter]:
    """The letters of a well-formed word. A part begins where it ended before (at first 0), or at its '@'."""
    clocks: dict[str, Fraction] = {}
    letters = []
    for text in word.split():
        body, _, time = text.partition("@")
        symbol, _, weight_text = body.partition("(")
        if symbol == "S":
            letters.append(Letter("S", None, Fraction(time or 0)))
            continue
        weight = Fraction(weight_text.rstrip(")") or 1)
        start = Fraction(time) if time else clocks.get(symbol, ZERO)
        clocks[symbol] = start + weight
        letters.append(Letter(symbol, weight, start))
    return letters


# --- The recursion ----------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """Mean (2,), covariance (2, 2), the exact ones at the last time, and the cost.

    The conditions are to be multiplied by a relative accuracy of the entries: `_condition`.
    """

    mean: Array
    cov: Array
    exact_mean: Array
    exact_cov: Array
    nfe: int
    mean_condition: Array
    cov_condition: Array


class _Move(NamedTuple):
    """z <- J z + xi, xi ~ N(0, Q). `size` and `noise_size`: how far J and Q move if the entries that they are computed
    from move by their own size; |J| and |Q| themselves, or more where an inverse stands between."""

    J: Fixed
    Q: Fixed
    size: Array
    noise_size: Array


def moments(
    splitting: str,
    letters: Sequence[Letter],
    model: Model,
    taus: Sequence[float],
    mu: float,
    variance: float,
    *,
    flow: str = "euler",
    noise_scale: tuple[float, float] = (1.0, 1.0),
    start: str = "exact",
    denoise: bool = False,
) -> Answer:
    """What the scheme delivers after the steps of the grid. `noise_scale` multiplies the standard deviations of the
    (x, m) that a part draws: (lambda_s, 1)."""
    grid = [Fraction(float(tau)) for tau in taus]

    def at(t: Fraction) -> Law:
        return marginal(splitting, model, mu, variance, t)

    last = 1 - grid[-1]
    prior = Law(fixed([0, 0]), fixed(_diagonal(ONE, 1 / model.mass_inverse)))
    law = at(1 - grid[0]) if start == "exact" else prior
    moves = list(_moves(parts_of(splitting, model), letters, model, grid, at, flow, noise_scale))
    if denoise:
        moves += _denoising(parts_of(splitting, model), model, last, at)
    mean, cov = np.zeros(5, dtype=object), np.zeros((5, 5), dtype=object)
    mean[:2], mean[4], cov[:2, :2] = law.mean, 1 << BITS, law.cov
    states = [(mean, cov)]
    for move in moves:
        mean, cov = product(move.J, mean), product(product(move.J, cov), move.J.T) + move.Q
        states.append((mean, cov))
    parts = parts_of(splitting, model)
    evaluations = [a.weight is None or (flow == "midpoint" and parts[a.symbol].uses_score) for a in letters]
    nfe = sum(evaluations) * (len(grid) - 1) + denoise
    exact = at(last)
    mean_condition, cov_condition = _condition(states, moves)
    return Answer(
        floats(mean[:2]),
        floats(cov[:2, :2]),
        floats(exact.mean),
        floats(exact.cov),
        nfe,
        mean_condition[:2],
        cov_condition[:2, :2],
    )


def _moves(
    parts: dict[str, Part],
    letters: Sequence[Letter],
    model: Model,
    grid: list[Fraction],
    at: Callable[[Fraction], Law],
    flow: str,
    noise_scale: tuple[float, float],
) -> Iterator[_Move]:
    for begin, end in pairwise(grid):
        h = end - begin
        law: Law | None = None
        for letter in letters:
            t = 1 - (begin + letter.start * h)
            if letter.weight is None:
                law = at(t)
                yield _score(law)
                continue
            end_of_part = t - letter.weight * h
            beta = model.beta_min + (model.beta_max - model.beta_min) * end_of_part
            if beta <= 0:  # beta is linear, and smallest at an end; at the other one, t > 0, it is positive
                raise ValueError(f"beta = {float(beta)} at the end of the interval of {letter}")
            theta = model.integral_of_beta(t, end_of_part)
            yield part_move(parts[letter.symbol], theta, flow, law, noise_scale)


def _score(law: Law) -> _Move:
    precision = inverse(law.cov)
    J = fixed(np.eye(5))
    J[2:4, :] = 0
    J[2:4, :2] = -precision
    J[2:4, 4] = product(precision, law.mean)
    # An inverse moves by Lambda dC Lambda: by |Lambda| |C| |Lambda| if the entries of C move by their own size.
    L, C = np.abs(floats(precision)), np.abs(floats(law.cov))
    size = np.abs(floats(J))
    size[2:4, :2] = L @ C @ L
    size[2:4, 4] = L @ C @ L @ np.abs(floats(law.mean))
    return _Move(J, np.zeros((5, 5), dtype=object), size, np.zeros((5, 5)))


def part_move(part: Part, theta: Fraction, flow: str, law: Law | None, noise_scale: tuple[float, float]) -> _Move:
    """The move of a part over `theta`, with the score that `law` has if the sub-flow is true."""
    X = np.zeros((5, 5), dtype=object)
    A, G, D = fixed(part.A), fixed(part.G), fixed(part.D)
    kind = flow if part.uses_score else "exact"
    if kind == "midpoint":
        assert law is not None
        return _midpoint(A, G, D, theta, law, noise_scale)
    moved = np.zeros((5, 5))  # of X, if the entries that it is computed from move by their own size
    if kind == "true":
        assert law is not None
        score = _score(law)
        X[:2, :2], X[:2, 4] = A + product(G, score.J[2:4, :2]), product(G, score.J[2:4, 4])
        moved[:2] = np.abs(floats(G)) @ score.size[2:4]
        moved[:2, :2] += np.abs(floats(A))
    else:
        X[:2, :2], X[:2, 2:4] = A, G
    if kind == "euler":
        J, Q = fixed(np.eye(5)) + times(X, theta), times(D, theta)
    else:
        J, Q = exponential(times(X, theta)), noise_covariance(X[:2, :2], D, theta)
    scale = np.array([Fraction(value) for value in noise_scale], dtype=object)
    noise = np.zeros((5, 5), dtype=object)
    noise[:2, :2] = np.vectorize(int, otypes=[object])(Q * scale[:, None] * scale)
    size, noise_size = np.abs(floats(J)), np.abs(floats(noise))
    if kind == "true":
        more, noise_more = _moved_flow(X, moved, floats(D) * np.array(noise_scale) ** 2, theta)
        size, noise_size[:2, :2] = size + more, noise_size[:2, :2] + noise_more
    return _Move(J, noise, size, noise_size)


def _midpoint(A: Fixed, G: Fixed, D: Fixed, theta: Fraction, law: Law, noise_scale: tuple[float, float]) -> _Move:
    """u_mid = u + theta/2 (A u + G s), then u + theta (A u_mid + G s(u_mid)) + noise, s(u_mid) at the time of s."""
    halfway = fixed(np.eye(5))
    halfway[:2, :2] += times(A, theta / 2)
    halfway[:2, 2:4] += times(G, theta / 2)
    score = _score(law)
    there = product(score.J, halfway)  # its rows 2 and 3 are s(u_mid), its rows 0 and 1 are u_mid
    J = fixed(np.eye(5))
    J[:2] += times(product(A, there[:2]) + product(G, there[2:4]), theta)
    sizes = score.size @ np.abs(floats(halfway))
    size = np.eye(5)
    size[:2] += float(theta) * (np.abs(floats(A)) @ sizes[:2] + np.abs(floats(G)) @ sizes[2:4])
    scale = np.array([Fraction(value) for value in noise_scale], dtype=object)
    noise = np.zeros((5, 5), dtype=object)
    noise[:2, :2] = np.vectorize(int, otypes=[object])(times(D, theta) * scale[:, None] * scale)
    return _Move(J, noise, size, np.abs(floats(noise)))


def _moved_flow(X: Fixed, moved: Array, D: Array, theta: Fraction, nodes: int = 32) -> tuple[Array, Array]:
    """How far exp(X theta) and int exp(A r) D exp(A r)^T dr, A the corner of X, move if X does by `moved`: the first
    order int exp(X (theta - r)) dX exp(X r) dr, by the trapezoidal rule on absolute values."""
    r = float(theta) / nodes
    small = floats(exponential(times(X, theta / nodes)))
    powers = [np.eye(5)]
    for _ in range(nodes):
        powers.append(small @ powers[-1])
    P = np.abs(np.array(powers))
    products = np.einsum("iab,bc,jcd->ijad", P, moved, P)
    shift = np.zeros((nodes + 1, 5, 5))
    for k in range(1, nodes + 1):
        terms = np.array([products[k - j, j] for j in range(k + 1)])
        shift[k] = r * (terms.sum(0) - (terms[0] + terms[-1]) / 2)
    noise = 2 * r * np.einsum("iab,bc,idc->ad", shift[:, :2, :2], D, P[:, :2, :2])
    return shift[-1], noise


def _denoising(parts: dict[str, Part], model: Model, t: Fraction, at: Callable[[Fraction], Law]) -> list[_Move]:
    """The score at t, and Euler on the sum of all drifts, without noise, from t over a time t at the rate beta(t)."""
    theta = t * (model.beta_min + (model.beta_max - model.beta_min) * t)
    A, G = (
        [[sum((getattr(part, name)[i][j] for part in parts.values()), ZERO) for j in range(2)] for i in range(2)]
        for name in "AG"
    )
    whole = Part(A, G, NO_SCORE)
    return [_score(at(t)), part_move(whole, theta, "euler", None, (1.0, 1.0))]


def _condition(states: list[tuple[Fixed, Fixed]], moves: list[_Move]) -> tuple[Array, Array]:
    """How far mean and covariance move, to first order and at worst, if every entry that enters moves by its own size:

        |dz_n| <= sum_k |T_k| |dJ_k| |z_k|,   |dC_n| <= sum_k |T_k| (|dJ_k| |C_k| |J_k|^T + transposed + |dQ_k|) |T_k|^T

    with T_k = J_n ... J_(k+1), the exact product: a property of the problem, and of no way to compute it.
    """
    T = np.eye(5)
    mean_condition, cov_condition = np.zeros(5), np.zeros((5, 5))
    for (mean, cov), move in zip(reversed(states[:-1]), reversed(moves), strict=True):
        J, z, C = floats(move.J), np.abs(floats(mean)), np.abs(floats(cov))
        local = move.size @ C @ np.abs(J).T
        mean_condition += np.abs(T) @ (move.size @ z)
        cov_condition += np.abs(T) @ (local + local.T + move.noise_size) @ np.abs(T).T
        T = T @ J
    mean, cov = (np.abs(floats(entry)) for entry in states[0])
    return mean_condition + np.abs(T) @ mean, cov_condition + np.abs(T) @ cov @ np.abs(T).T

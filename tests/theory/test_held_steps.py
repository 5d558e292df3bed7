"""What is proven of held quantities, in numbers: the leading local error is what one step leaves.

From a random state with a random exact path behind it, coefficient by coefficient; and Phi and Psi have the derivatives
of their values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from held_by_hand import told
from numpy.typing import NDArray
from specimens import whole
from weakorder.theory.clock import LOGSNR, THETA, TIME, Clock
from weakorder.theory.frozen import DATA_HELD, EPS_HELD, FROZEN, RESIDUAL_HELD, SCORE_HELD, Frozen, NumericKernel
from weakorder.theory.held_flows import held_flow
from weakorder.theory.local_error import expand
from weakorder.theory.model import Parameters
from weakorder.theory.polynomials import exponents, number
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD_FLOW_WHOLE, PSLD_WHOLE, Splitting
from weakorder.theory.taylor import TaylorKernel
from weakorder.verification.targets.gaussian import GaussianTarget

Array = NDArray[np.float64]

# --- One step in numbers ----------------------------------------------------------------------------------------------

PARAMS = Parameters(gamma=0.8, nu=3.0, kappa=0.3, beta_min=1.0, beta_max=6.0)
SLOPE = PARAMS.beta_max - PARAMS.beta_min
T, STATE, DUAL = 0.8, np.array([0.6, -0.4]), np.array([0.7, -0.3])


class Numbers:
    """One Gaussian target, and what a scheme holds of its score: q = slope u + offset, by formula."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.target = GaussianTarget.of(0.5, 0.3, scheme.splitting.diffusion, PARAMS)
        self.psi = self.matrices(T)[1]

    def matrices(self, t: float) -> tuple[Array, Array]:
        """Phi and Psi."""
        kernel = NumericKernel(self.target.diffusion, PARAMS.theta(t, t), PARAMS.values())
        return np.asarray(self.scheme.frozen.phi(kernel), float), np.asarray(self.scheme.frozen.psi(kernel), float)

    def score(self, t: float) -> tuple[Array, Array]:
        """s = slope u + offset."""
        law = self.target.law(np.array([t]))
        precision = np.linalg.inv(law.cov[..., 0, 0])
        return -precision, precision @ law.mean[:, 0, 0]

    def held(self, t: float) -> tuple[Array, Array]:
        """q, in units in which Psi(T) = 1."""
        phi, psi = self.matrices(t)
        slope, offset = self.score(t)
        inverse = self.psi @ np.linalg.inv(psi)
        return inverse @ (slope - phi), inverse @ offset

    def jets(self, names: Sequence[str]) -> dict[str, float]:
        """The jets of a formula, by polynomials in time through Chebyshev nodes: a second way to differentiate."""
        nodes = T + 0.1 * np.cos((np.arange(13) + 0.5) * np.pi / 13)
        rows = [(*self.held(t), *self.matrices(t)) for t in nodes]
        slope, offset, phi, psi = (np.array(entries) for entries in zip(*rows, strict=True))
        values = {"x": STATE[0], "m": STATE[1], "beta": PARAMS.beta(T)}
        shown = np.polynomial.Polynomial.fit(nodes, [told(self.scheme, PARAMS, T, t) for t in nodes], 12)
        values |= {f"c_{k}": float(shown.deriv(k)(T) / shown.deriv()(T)) for k in (2, 3, 4)}
        for name in names:
            family, _, rest = name.partition("_")
            if name in values or family not in ("q", "s", "Phi", "Psi"):
                continue
            places, _, letters = rest.partition(",")
            i, k, space = "xm".index(places[0]), letters.count("t"), letters.replace("t", "")
            if family == "Phi":
                of = phi[:, i, "xm".index(places[1])]
            elif family == "Psi":
                of = (psi @ np.linalg.inv(self.psi))[:, i, "xm".index(places[1])]
            elif len(space) > 1:
                of = np.zeros(13)
            else:
                of = slope[:, i, "xm".index(space)] if space else slope[:, i] @ STATE + offset[:, i]
            fit = np.polynomial.Polynomial.fit(nodes, of, 12)
            values[name] = float(fit.deriv(k)(T)) if k else float(fit(T))
        return values

    def law_after(self, lengths: Sequence[float]) -> tuple[Array, Array]:
        """E z and cov z of z = (u_1, u_0, u_-1, ...), the exact process over `lengths` from STATE at T, the last state
        first."""
        mean, cov, t = STATE.copy(), np.zeros((2, 2)), T
        A, G, D = self.scheme.splitting.whole.numbers(PARAMS.values())
        for length in lengths:
            J, b, Q = process(lambda s: (A + G @ self.score(s)[0], G @ self.score(s)[1]), D, t, length)
            size = len(mean)
            step = np.vstack([np.hstack([J, np.zeros((2, size - 2))]), np.eye(size)])
            mean, cov = step @ mean, step @ cov @ step.T
            mean[:2] += b
            cov[:2, :2] += Q
            t -= length
        return mean, cov


def process(
    drift: Callable[[float], tuple[Array, Array]], D: Array, t: float, length: float
) -> tuple[Array, Array, Array]:
    """u <- J u + b + N(0, Q) of du = (B u + c) dtheta + D^(1/2) dw over [t - length, t]: eight steps of the classical
    Runge-Kutta rule for its moment equations."""

    def slope(s: float, y: Array) -> Array:
        B, c = drift(s)
        J, b, Q = y[:, :2], y[:, 2], y[:, 3:]
        return PARAMS.beta(s) * np.hstack([B @ J, (B @ b + c)[:, None], B @ Q + Q @ B.T + D])

    y, h = np.hstack([np.eye(2), np.zeros((2, 3))]), length / 8
    for i in range(8):
        s = t - i * h
        k1 = slope(s, y)
        k2 = slope(s - h / 2, y + h / 2 * k1)
        k3 = slope(s - h / 2, y + h / 2 * k2)
        k4 = slope(s - h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y[:, :2], y[:, 2], y[:, 3:]


def left_by_a_step(scheme: Scheme, ratios: Sequence[float], h: float) -> float:
    """log E exp(p . u) after the scheme's step, minus the same after the exact process, from STATE with an exact path
    behind that is made of steps of `ratios` h: the last one first. What is left of p . u's mean and variance."""
    numbers = Numbers(scheme)
    earlier = [ratio * h for ratio in reversed(ratios)]
    mean, cov = numbers.law_after(earlier)
    times = T - np.concatenate([[0.0], np.cumsum(earlier)])[::-1]  # of the states in `mean`, the last first
    begin = float(times[0])
    (part,) = scheme.splitting.parts
    theta = PARAMS.theta(np.array([begin]), begin)
    known = [float(-PARAMS.theta(t, t - begin)) for t in times]
    flow = held_flow(
        part.sde,
        scheme.frozen,
        numbers.target.diffusion,
        theta,
        PARAMS.theta(np.array([begin]), h),
        [known],
        PARAMS.values(),
        scheme.clock.running(numbers.target.diffusion, PARAMS),
    )
    unit = np.linalg.inv(numbers.psi)
    J, b = np.zeros((2, len(mean))), np.zeros(2)
    J[:, :2] = flow.propagator[0]
    for j, t in enumerate(times):
        slope, offset = numbers.held(float(t))
        J[:, 2 * j : 2 * j + 2] += flow.gains[0, j] @ unit @ slope
        b += flow.gains[0, j] @ unit @ offset
    got = DUAL @ (J @ mean + b) + DUAL @ (J @ cov @ J.T + flow.noise_cov[0]) @ DUAL / 2
    exact_mean, exact_cov = numbers.law_after([*earlier, h])
    return float(got - DUAL @ exact_mean[:2] - DUAL @ exact_cov[:2, :2] @ DUAL / 2)


def claimed(scheme: Scheme, n: int, ratios: Sequence[float]) -> float:
    """The coefficient of h^n in the same: where lower ones vanish, the logarithm's is the expectation's."""
    lengths = [number(Fraction(ratio).limit_denominator(100)) for ratio in ratios]
    word, _, error = expand(scheme, n, lengths=lengths)
    calculus = word.calculus
    symbols = {sp.Symbol(name): value for name, value in PARAMS.values().items()}
    symbols |= {sp.Symbol("dbeta"): SLOPE, sp.Symbol("beta"): PARAMS.beta(T)}
    values = Numbers(scheme).jets(calculus.generators.names) | {"p_x": DUAL[0], "p_m": DUAL[1]}
    values |= {name: float(plain(entry).subs(symbols)) for name, entry in calculus.entries.items()}
    total = 0.0
    for key, coefficient in error[n].terms.items():
        held = [(calculus.generators.names[place], exponent) for place, exponent in exponents(key)]
        if not any(name.startswith(("p0_", "p1_")) for name, _ in held):
            total += float(coefficient) * math.prod(values[name] ** exponent for name, exponent in held)
    return total


def left_in_the_limit(scheme: Scheme, ratios: Sequence[float], n: int) -> float:
    """What a step leaves over h^n, extrapolated to h = 0 by Richardson."""
    sizes = [0.02 / 2**i for i in range(4)]
    table = [left_by_a_step(scheme, ratios, h) / h**n for h in sizes]
    for power in (1, 2, 3):
        table = [(2**power * fine - coarse) / (2**power - 1) for coarse, fine in itertools.pairwise(table)]
    return table[0]


def plain(entry: sp.Expr) -> sp.Expr:
    """With symbols that have names alone."""
    return entry.xreplace({symbol: sp.Symbol(str(symbol)) for symbol in entry.free_symbols})


@pytest.mark.parametrize(
    ("splitting", "frozen", "ratios", "n"),
    [
        (PSLD_WHOLE, DATA_HELD, (), 2),
        (PSLD_WHOLE, EPS_HELD, (), 2),
        (PSLD_WHOLE, RESIDUAL_HELD, (), 2),
        (PSLD_FLOW_WHOLE, EPS_HELD, (), 2),
        (PSLD_WHOLE, SCORE_HELD, (0.7,), 3),
        (PSLD_WHOLE, EPS_HELD, (0.7,), 3),
        (PSLD_FLOW_WHOLE, DATA_HELD, (1.6,), 3),
        (PSLD_WHOLE, SCORE_HELD, (0.7, 1.5), 3),
    ],
    ids=str,
)
def test_the_claimed_error_is_what_a_step_leaves_in_numbers(
    splitting: Splitting, frozen: Frozen, ratios: tuple[float, ...], n: int
) -> None:
    """Claim: the leading coefficient, from one state with an exact path behind it and steps of unequal lengths, to 1e-4
    of itself; the step's is extrapolated to h = 0 by Richardson. Flows are those of the tables, the path and every
    derivative another computation's."""
    scheme = whole(splitting, frozen, len(ratios) + 1)
    assert left_in_the_limit(scheme, ratios, n) == pytest.approx(claimed(scheme, n, ratios), rel=1e-4)


@pytest.mark.parametrize(
    ("splitting", "frozen", "ratios", "n", "clock"),
    [
        (PSLD_WHOLE, EPS_HELD, (0.7,), 3, LOGSNR),
        (PSLD_WHOLE, DATA_HELD, (1.6,), 3, LOGSNR.at_midpoint),
        (PSLD_FLOW_WHOLE, DATA_HELD, (0.7,), 3, TIME),
        (PSLD_FLOW_WHOLE, EPS_HELD, (0.7,), 3, THETA.at_midpoint),
        (PSLD_FLOW_WHOLE, DATA_HELD, (0.7, 1.5), 4, LOGSNR),
    ],
    ids=str,
)
def test_so_is_that_of_every_clock(
    splitting: Splitting, frozen: Frozen, ratios: tuple[float, ...], n: int, clock: Clock
) -> None:
    """Claim: the same, where proofs know a clock by c''/c', c'''/c', ... alone; another's leaves something else."""
    scheme = replace(whole(splitting, frozen, len(ratios) + 1), clock=clock)
    left = left_in_the_limit(scheme, ratios, n)
    assert left == pytest.approx(claimed(scheme, n, ratios), rel=1e-4)
    assert left != pytest.approx(claimed(replace(scheme, clock=THETA), n, ratios), rel=1e-3)


# --- Matrices with their derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=str)
def test_phi_and_psi_have_the_derivatives_of_their_values(frozen: Frozen) -> None:
    """Claim: to 1e-7 of the largest entry, up to the third, against polynomials through their values."""
    diffusion = PSLD_WHOLE.diffusion
    numbers = Numbers(whole(PSLD_WHOLE, frozen))
    kernel = TaylorKernel(diffusion, T, PARAMS, 3)
    nodes = T + 0.1 * np.cos((np.arange(15) + 0.5) * np.pi / 15)
    values = [numbers.matrices(t) for t in nodes]
    for which, matrix in enumerate((frozen.phi, frozen.psi)):
        found = kernel.cov.of(matrix(kernel))
        table = np.array([value[which].ravel() for value in values])
        for k in range(4):
            fitted = [float(np.polynomial.Polynomial.fit(nodes, row, 14).deriv(k)(T)) for row in table.T]
            size = max(1.0, float(np.abs(table).max()))
            assert np.abs(found.derivative(k).ravel() - fitted).max() < 1e-7 * size

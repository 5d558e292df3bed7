"""Orders of schemes that hold another quantity than the score, or hold it over several evaluations: proven.

Known answers are theorems; what is proven is what one step does in numbers, coefficient by coefficient, from a random
state with a random path behind it; and each way to get the mechanics wrong lowers the proven order. What whole runs say
is in tests/verification/exact/test_prediction.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from numpy.typing import NDArray
from weakorder.theory import weak_order
from weakorder.theory.calculus import Calculus
from weakorder.theory.frozen import DATA_HELD, EPS_HELD, FROZEN, RESIDUAL_HELD, SCORE_HELD, Frozen, NumericKernel
from weakorder.theory.held_flows import held_flow
from weakorder.theory.local_error import expand, first_error, holds_for_any_steps
from weakorder.theory.model import Parameters
from weakorder.theory.polynomials import ONE, Polynomial, exponents, number
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW, PSLD_FLOW_WHOLE, PSLD_LINEAR, PSLD_WHOLE, Splitting
from weakorder.theory.taylor import TaylorKernel
from weakorder.theory.weak_order import OrderProof, prove_order
from weakorder.verification.targets.gaussian import GaussianTarget

Array = NDArray[np.float64]


def held(word: str, splitting: Splitting, frozen: Frozen = DATA_HELD, memory: int = 1, flow: str = "exact") -> Scheme:
    """A scheme that holds something."""
    return Scheme(word, splitting, flow=flow, frozen=frozen, memory=memory)


def whole(splitting: Splitting, frozen: Frozen = DATA_HELD, memory: int = 1, flow: str = "exact") -> Scheme:
    """The whole dynamics as one part."""
    return held("S F", splitting, frozen, memory, flow)


# --- Known answers ----------------------------------------------------------------------------------------------------

WHOLES = pytest.mark.parametrize("splitting", [PSLD_WHOLE, PSLD_FLOW_WHOLE], ids=lambda splitting: splitting.name)
# What is held, sub-flow, memory: the order of the steps on the SDE and on the flow.
KNOWN = [
    *((frozen, "exact", 1, (1, 1)) for frozen in FROZEN.values()),
    (SCORE_HELD, "exact", 2, (2, 2)),
    (DATA_HELD, "exact", 2, (2, 2)),
    (SCORE_HELD, "euler", 2, (2, 2)),
    (SCORE_HELD, "exact", 3, (2, 3)),
    (SCORE_HELD, "euler", 3, (2, 3)),
    pytest.param(DATA_HELD, "exact", 3, (2, 3), marks=pytest.mark.nightly),
]


@WHOLES
@pytest.mark.parametrize(("frozen", "flow", "memory", "orders"), KNOWN, ids=str)
def test_the_known_answers_are_theorems(
    splitting: Splitting, frozen: Frozen, flow: str, memory: int, orders: tuple[int, int]
) -> None:
    """Claim: memory 1 has order 1 and memory 2 order 2, whatever is held; memory 3 has order 3 on the flow and still 2
    on the SDE. All for steps of any lengths. A run has 2 at most: its first step, of order 1, leaves h^2."""
    proof = prove_order(whole(splitting, frozen, memory, flow))
    assert proof.order_of_steps == orders[splitting is PSLD_FLOW_WHOLE]
    assert proof.order == min(proof.order_of_steps, 2)
    assert proof.coefficients
    assert proof.any_steps
    assert proof.start == (prove_order(whole(splitting, frozen, 1, flow)).coefficients if memory > 1 else ())


def test_the_flow_has_order_3_whatever_is_held() -> None:
    """Claim: no error up to h^3, for any Phi and Psi and steps of any lengths (one in h^4: see the nightly test)."""
    assert holds_for_any_steps(whole(PSLD_FLOW_WHOLE, memory=3), 3)


def test_memory_2_has_order_2_for_coupled_coordinates() -> None:
    """Claim: in two data dimensions, with q and its derivatives depending on all four coordinates."""
    assert holds_for_any_steps(whole(PSLD_WHOLE, memory=2), 2, dims=2)
    assert holds_for_any_steps(whole(PSLD_FLOW_WHOLE, memory=2), 2, dims=2)


@pytest.mark.parametrize(
    ("word", "splitting"),
    [
        ("U(1/2) S E U(1/2)", PSLD_LINEAR),
        ("U(1/2) S@1/2 E U(1/2)", PSLD_LINEAR),
        ("O S B A", PSLD),
        ("S B A", PSLD_FLOW),
        ("O S@1/4 B(1/2) A S@3/4 B(1/2)", PSLD),
    ],
)
def test_memory_does_not_mend_a_splitting(word: str, splitting: Splitting) -> None:
    """Claim: where parts share the dynamics, order 1 stays."""
    assert prove_order(held(word, splitting, SCORE_HELD, 2)).order == 1


def test_all_that_may_be_held_share_one_proof() -> None:
    """Claim: the theorem is for any Phi and Psi, and kept once."""
    questions = [weak_order._question(whole(PSLD_WHOLE, frozen), 1, True) for frozen in FROZEN.values()]
    score, residual, eps, data = questions
    assert residual == eps == data != score
    with_memory = [weak_order._question(whole(PSLD_WHOLE, DATA_HELD, k), 1, True) for k in (1, 2, 3)]
    assert len({str(question) for question in with_memory}) == 3


# --- Why the SDE stays at order 2 -------------------------------------------------------------------------------------


def rough_remainder(letter: str) -> dict[tuple[int, int], sp.Expr]:
    """p^T (G q') D (G q')^T p / 24, times beta^3, for the whole reverse SDE."""
    sde = PSLD_WHOLE["F"].sde
    slope = sp.Matrix(2, 2, [sp.Symbol(f"{letter}_{row},{column}") for row in "xm" for column in "xm"])
    form = sde.score_gain * slope * sde.noise * (sde.score_gain * slope).T * sp.Symbol("beta") ** 3 / 24
    return {(2, 0): form[0, 0], (1, 1): form[0, 1] + form[1, 0], (0, 2): form[1, 1]}


@pytest.mark.parametrize(("frozen", "memory"), [(SCORE_HELD, 3), (DATA_HELD, 3), (DATA_HELD, 4)], ids=str)
def test_beyond_memory_2_the_sde_is_left_with_its_path_s_roughness(frozen: Frozen, memory: int) -> None:
    """Claim: the leading error is beta^3 p^T (G q') D (G q')^T p / 24, and nothing else, however much is remembered:
    the mean of the steps has order 3."""
    found = first_error(whole(PSLD_WHOLE, frozen, memory), 3)
    expected = rough_remainder("s" if frozen == SCORE_HELD else "q")
    assert set(found) == set(expected)
    for powers, value in expected.items():
        assert sp.cancel(found[powers] - value) == 0


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
    sizes = [0.02 / 2**i for i in range(4)]
    table = [left_by_a_step(scheme, ratios, h) / h**n for h in sizes]
    for power in (1, 2, 3):
        table = [(2**power * fine - coarse) / (2**power - 1) for coarse, fine in itertools.pairwise(table)]
    assert table[0] == pytest.approx(claimed(scheme, n, ratios), rel=1e-4)


# --- Steps that are wrong in one thing --------------------------------------------------------------------------------

Offsets = Sequence[Polynomial]
RIGHT = Calculus.interpolated
HALF = number(Fraction(1, 2))


def wrong_weight(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """The older evaluation counts 1.1 times."""
    right = RIGHT(calculus, evaluations, offset)
    last = [calculus.constant(q) for q in calculus.held[0]]
    return [
        [a * number(Fraction(11, 10)) - b * number(Fraction(1, 10)) for a, b in zip(entry, q, strict=True)]
        for entry, q in zip(right, last, strict=True)
    ]


def wrong_time(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """The older evaluation is taken to be half a step older than it is."""
    return RIGHT(calculus, [evaluations[0], *(e - HALF for e in evaluations[1:])], offset)


def equal_steps(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """The grid is taken to be uniform."""
    return RIGHT(calculus, [evaluations[0] - number(j) for j in range(len(evaluations))], offset)


def too_old(calculus: Calculus, evaluations: Offsets, offset: Polynomial) -> Any:
    """Of three that are remembered, the oldest is taken for the one before the last."""
    if len(evaluations) < 3:
        return RIGHT(calculus, evaluations, offset)
    held = calculus.held
    calculus.held = [held[0], held[2]]
    try:
        return RIGHT(calculus, evaluations[:2], offset)
    finally:
        calculus.held = held


@pytest.mark.parametrize(
    ("slip", "memory", "any_steps"),
    [(wrong_weight, 2, False), (wrong_time, 2, False), (too_old, 3, False), (equal_steps, 2, True)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("splitting", [PSLD_WHOLE, PSLD_FLOW_WHOLE], ids=lambda splitting: splitting.name)
def test_a_polynomial_that_is_wrong_in_one_thing_has_no_order_2(
    slip: Callable[..., Any], memory: int, any_steps: bool, splitting: Splitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim: a wrong weight, an old q at a wrong time or one step too old leave h^2; so does a grid taken for uniform,
    but not where it is."""
    scheme = whole(splitting, memory=memory)
    monkeypatch.setattr(Calculus, "interpolated", slip)
    assert holds_for_any_steps(scheme, 1)
    assert not holds_for_any_steps(scheme, 2)
    assert bool(first_error(scheme, 2)) != any_steps


@pytest.mark.parametrize("name", ["Phi", "Psi"])
def test_a_matrix_at_a_wrong_time_has_no_order_2(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: Phi or Psi of parts, half a step late, leave h^2; the process is left as it is."""
    scheme = whole(PSLD_WHOLE, memory=2)
    right, reading = Calculus._matrix_function, Calculus.reading

    def late(calculus: Calculus, of: str, row: int, column: int, offset: Polynomial) -> Any:
        return right(calculus, of, row, column, offset + HALF if of == name else offset)

    def read(calculus: Calculus, held: Any, offset: Polynomial, state: Any = None) -> Any:
        of_the_process = held == calculus.held_function(offset)
        with pytest.MonkeyPatch.context() as patch:
            if not of_the_process:
                patch.setattr(Calculus, "_matrix_function", late)
            return reading(calculus, held, offset, state)

    assert not first_error(scheme, 2)
    monkeypatch.setattr(Calculus, "reading", read)
    assert not first_error(scheme, 1)
    assert first_error(scheme, 2)


def test_a_start_that_is_forgotten_is_not_proven_to_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: order 3 of the flow's steps is not an order of its runs: the first step counts."""
    scheme = whole(PSLD_FLOW_WHOLE, SCORE_HELD, 3)
    first = prove_order(whole(PSLD_FLOW_WHOLE, SCORE_HELD))
    better = OrderProof(2, first.searched, first.coordinates, first.coefficients, 2)
    right = weak_order.prove_order
    monkeypatch.setattr(weak_order, "prove_order", lambda s, *a: better if s.memory == 1 else right(s, *a))
    assert right(scheme).order == 3
    monkeypatch.undo()
    assert prove_order(scheme).order == 2


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


def test_one_stands_for_a_step() -> None:
    """Claim: a step's own length is 1 in its offsets."""
    _, last, _ = expand(whole(PSLD_WHOLE, memory=2), 1)
    assert (last.start, last.length) == (ONE, ONE)

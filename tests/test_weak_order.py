"""The symbolic reading: proven orders, and the local errors behind them, by computation that shares nothing with it.

The second source of a local error goes forward where the code goes backward: for one concrete score, a polynomial with
all the derivatives that h^3 sees, one step is carried out token by token on polynomials in h and the step's Gaussians,
with the numeric parts and the tokenizer of tests/brute_force.py, and its moments are read off by Isserlis' rule. The
exact moments come from the generator, iterated on monomials. All of it is rational arithmetic: the comparison is ==.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import brute_force
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import random_splittings, words
from sympy.polys.rings import PolyElement, ring
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory import weak_order
from weakorder.theory.model import LANGEVIN_DYNAMICS, STATIONARY, Parameters, gamma
from weakorder.theory.scheme import FLOWS, Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, SPLITTINGS, Part, Splitting
from weakorder.theory.weak_order import OrderProof, local_error, prove_order
from weakorder.verification.fits import Fit
from weakorder.verification.gaussian import GaussianTarget
from weakorder.verification.order import study_order

Powers = tuple[int, ...]

FEW = settings(max_examples=max(10, settings().max_examples // 20))
BAOAB = "S B(1/2) A(1/2) O A(1/2) S@1 B(1/2)"
STRANG = "U(1/2) S@1/2 E U(1/2)"
IRREGULAR = "S@1/4 B(2/3)@1/5 O(1/3) A(3/4) S@1 B(1/3) A(1/4)@1/2 O(2/3)"


# --- The second source: one step, forward -----------------------------------------------------------------------------

MODEL = brute_force.Model.of(Fraction(1, 3), 2, Fraction(1, 5), Fraction(2), Fraction(5))
TIME = Fraction(2, 3)  # t at the begin of the step
POINT = {"x": Fraction(1, 2), "m": Fraction(-3, 4), "x1": Fraction(1, 2), "x2": Fraction(2, 3)} | {
    "m1": Fraction(-3, 4),
    "m2": Fraction(5, 4),
}
BETA, BETA_SLOPE = MODEL.beta_min + (MODEL.beta_max - MODEL.beta_min) * TIME, MODEL.beta_max - MODEL.beta_min

X, M, T = sp.symbols("x m t")
X1, X2, M1, M2 = sp.symbols("x1 x2 m1 m2")
SCORE = {
    "x": -(X**3) + X * M * T + X**2 * M**2 / 4 - X**5 / 7 + T**2 * M,
    "m": -M + X**2 * T + M**3 * T**2 / 3 - X**4 / 5 + X * M**4 / 6,
}
POTENTIAL_SCORE = {"x": -(X**3) + X**2 / 3 - X**5 / 7, "m": sp.S.Zero}
COUPLED_SCORE = {
    "x1": -(X1**3) + X2 * M1 * T + X1 * X2 / 3,
    "x2": -X2 + X1**2 * T + M1 * M2**2 / 4,
    "m1": -M1 + X1 * X2 * M2 + T**2 * X2,
    "m2": -(M2**3) / 5 + M1 * T + X1 * X2**2,
}


def coordinates(dims: int) -> list[str]:
    """The names of the state's entries, positions first."""
    return ["x", "m"] if dims == 1 else ["x1", "x2", "m1", "m2"]


class Step:
    """One step on polynomials in h, a parameter z in [0, 1] of paths, and the Gaussians g_0, g_1, ... of the step.

    A Gaussian counts as sqrt(h), and what is beyond h^n is dropped. `covariances[i]` is that, over h, of g_2i and
    g_2i+1, and no others are correlated.
    """

    def __init__(self, pairs: int, n: int, dims: int, score: Mapping[str, sp.Expr]) -> None:
        self.n, self.dims, self.names = n, dims, coordinates(dims)
        gaussians = [f"g{i}" for i in range(2 * pairs)]
        self.ring, self.h, self.z, *self.gaussians = ring(["h", "z", *gaussians], sp.QQ)
        arguments = [sp.Symbol(name) for name in [*self.names, "t"]]
        self.score_terms = [sp.Poly(score[name], *arguments, domain=sp.QQ).terms() for name in self.names]
        self.state = [self.ring(rational(POINT[name])) for name in self.names]
        self.sigma = [self.ring.zero for _ in self.names]
        self.score_time = self.ring.zero
        self.covariances: list[list[list[PolyElement]]] = []

    def times(self, a: PolyElement, b: PolyElement) -> PolyElement:
        """The product, up to h^n."""
        terms = (a * b).items()
        return self.ring.from_dict({p: c for p, c in terms if 2 * p[0] + sum(p[2:]) <= 2 * self.n})

    def score(self, state: Sequence[PolyElement], time: PolyElement) -> list[PolyElement]:
        """The concrete score at a state and a time."""
        values = []
        for terms in self.score_terms:
            total = self.ring.zero
            for powers, coefficient in terms:
                product = self.ring(sp.QQ.from_sympy(sp.sympify(coefficient)))
                for factor, power in zip([*state, time], powers, strict=True):
                    for _ in range(power):
                        product = self.times(product, factor)
                total += product
            values.append(total)
        return values

    def linear(self, matrix: Any, vector: Sequence[PolyElement]) -> list[PolyElement]:
        """A 2x2 matrix on (positions, momenta), per coordinate of the data."""
        half = self.dims
        return [
            rational(matrix[i // half][0]) * vector[i % half] + rational(matrix[i // half][1]) * vector[half + i % half]
            for i in range(2 * half)
        ]

    def drift(
        self, part: brute_force.Part, state: Sequence[PolyElement], score: Sequence[PolyElement]
    ) -> list[PolyElement]:
        """A u + G s."""
        return [a + b for a, b in zip(self.linear(part.A, state), self.linear(part.G, score), strict=True)]

    def evaluate(self, letter: brute_force.Letter) -> None:
        """S."""
        self.score_time = rational(TIME) - rational(letter.start) * self.h
        self.sigma = self.score(self.state, self.score_time)

    def advance(self, part: brute_force.Part, letter: brute_force.Letter, flow: str) -> None:
        """A part, by its sub-flow."""
        weight, uses_score = letter.weight, part.uses_score
        middle = letter.start + weight / 2
        theta = rational(weight) * self.h * (rational(BETA) - rational(middle * BETA_SLOPE) * self.h)
        theta = self.times(theta, self.ring.one)

        def scaled(vector: list[PolyElement]) -> list[PolyElement]:
            return [self.times(theta, entry) for entry in vector]

        start, exact = self.state, flow == "exact" or not uses_score
        if exact:
            change, total = scaled(self.drift(part, start, self.sigma)), start
            for k in range(2, self.n + 2):
                total = [a + b for a, b in zip(total, change, strict=True)]
                change = [entry * sp.QQ(1, k) for entry in scaled(self.linear(part.A, change))]
            self.state = total
        elif flow == "euler":
            self.state = [a + b for a, b in zip(start, scaled(self.drift(part, start, self.sigma)), strict=True)]
        elif flow == "midpoint":
            halfway = scaled(self.drift(part, start, self.sigma))
            there = [a + b * sp.QQ(1, 2) for a, b in zip(start, halfway, strict=True)]
            change = scaled(self.drift(part, there, self.score(there, self.score_time)))
            self.state = [a + b for a, b in zip(start, change, strict=True)]
        else:
            assert not any(any(row) for row in part.D), "the path of a true flow with noise is no polynomial"
            path = start  # Picard's iteration gains a power of h each time; z runs along the path
            for _ in range(self.n):
                change = scaled(self.drift(part, path, self.score(path, self.score_time)))
                path = [a + integral(self.ring, entry) for a, entry in zip(start, change, strict=True)]
            self.state = [entry.compose(self.z, self.ring.one) for entry in path]
        if any(any(row) for row in part.D):
            self.shake(part, theta, exact)

    def shake(self, part: brute_force.Part, theta: PolyElement, exact: bool) -> None:
        """The noise of a part: theta D, or for the exact flow int_0^theta exp(A s) D exp(A^T s) ds as a series."""
        A, D = sp.Matrix(part.A), sp.Matrix(part.D)
        covariance = [[self.ring.zero, self.ring.zero], [self.ring.zero, self.ring.zero]]
        power, term = theta, D
        for k in range(self.n if exact else 1):
            for i, j in itertools.product(range(2), repeat=2):
                covariance[i][j] += power * sp.QQ.from_sympy(term[i, j] / math.factorial(k + 1))
            power, term = self.times(power, theta), A * term + term * A.T
        for copy in range(self.dims):
            first = 2 * len(self.covariances)
            for row in range(2):
                self.state[row * self.dims + copy] += self.gaussians[first + row]
            self.covariances.append(covariance)

    def gaussian_moment(self, pair: int, i: int, j: int) -> PolyElement:
        """E g_2pair^i g_2pair+1^j, by Isserlis' rule."""
        if (i + j) % 2:
            return self.ring.zero
        if i == j == 0:
            return self.ring.one
        Q = self.covariances[pair]
        if i == 0:
            return (j - 1) * self.times(Q[1][1], self.gaussian_moment(pair, 0, j - 2))
        moment = self.ring.zero
        if i > 1:
            moment += (i - 1) * self.times(Q[0][0], self.gaussian_moment(pair, i - 2, j))
        if j:
            moment += j * self.times(Q[0][1], self.gaussian_moment(pair, i - 1, j - 1))
        return moment

    def moments(self) -> dict[Powers, list[Fraction]]:
        """The coefficients of h^1 ... h^n in E of the monomials of the increments, up to the degree 2n."""
        increments = [now - rational(POINT[name]) for now, name in zip(self.state, self.names, strict=True)]
        products: dict[Powers, PolyElement] = {(0,) * len(self.names): self.ring.one}
        answer = {}
        for powers in monomials(len(self.names), 2 * self.n):
            i = next(i for i, power in enumerate(powers) if power)
            lower = tuple(power - (j == i) for j, power in enumerate(powers))
            products[powers] = self.times(products[lower], increments[i])
            answer[powers] = self.expectation(products[powers])
        return answer

    def expectation(self, g: PolyElement) -> list[Fraction]:
        """E g, the coefficients of h^1 ... h^n."""
        total = [Fraction(0)] * (self.n + 1)
        for powers, coefficient in g.terms():
            factor = self.ring.one
            for pair in range(len(self.covariances)):
                factor = self.times(factor, self.gaussian_moment(pair, *powers[2 + 2 * pair : 4 + 2 * pair]))
            for other, c in factor.terms():
                if powers[0] + other[0] <= self.n:
                    total[powers[0] + other[0]] += fraction(coefficient * c)
        return total[1:]


def rational(value: Any) -> Any:
    """A number of sympy's domain QQ."""
    value = Fraction(value)
    return sp.QQ(value.numerator, value.denominator)


def fraction(value: Any) -> Fraction:
    """The same, back."""
    return Fraction(int(value.numerator), int(value.denominator))


def integral(polynomials: Any, g: PolyElement) -> PolyElement:
    """int_0^z g dz."""
    terms = {}
    for powers, coefficient in g.terms():
        raised = (powers[0], powers[1] + 1, *powers[2:])
        terms[raised] = coefficient / (powers[1] + 1)
    return polynomials.from_dict(terms)


def monomials(size: int, degree: int) -> list[Powers]:
    """The exponents of total degree 1 to `degree`, lower ones first."""
    powers = itertools.product(range(degree + 1), repeat=size)
    return sorted((p for p in powers if 0 < sum(p) <= degree), key=sum)


def forward_moments(
    word: str, parts: Mapping[str, brute_force.Part], flow: str, n: int, dims: int, score: Mapping[str, sp.Expr]
) -> dict[Powers, list[Fraction]]:
    """E of the monomials of the increments after one step of the word: the coefficients of h^1 ... h^n."""
    letters = brute_force.read(word)
    pairs = dims * sum(letter.symbol != "S" and any(any(row) for row in parts[letter.symbol].D) for letter in letters)
    step = Step(pairs, n, dims, score)
    for letter in letters:
        if letter.symbol == "S":
            step.evaluate(letter)
        else:
            step.advance(parts[letter.symbol], letter, flow)
    return step.moments()


def exact_moments_of_increments(
    parts: Mapping[str, brute_force.Part], n: int, dims: int, score: Mapping[str, sp.Expr]
) -> dict[Powers, list[Fraction]]:
    """The same of the exact solution: (L - d/dt)^k / k! of each monomial, at the point."""
    names = coordinates(dims)
    polynomials, *u, t = ring([*names, "t"], sp.QQ)
    A, G, D = (sum((sp.Matrix(getattr(p, name)) for p in parts.values()), sp.zeros(2)) for name in "AGD")
    s = [polynomials.from_expr(score[name]) for name in names]
    beta = rational(BETA) + rational(BETA_SLOPE) * (t - rational(TIME))
    drift = []
    for i in range(2 * dims):
        row, copy = divmod(i, dims)
        entries = [
            sp.QQ.from_sympy(matrix[row, column]) * vector[column * dims + copy]
            for matrix, vector in ((A, u), (G, s))
            for column in range(2)
        ]
        drift.append(sum(entries, polynomials.zero))
    halves = [sp.QQ.from_sympy(D[i // dims, i // dims] / 2) for i in range(2 * dims)]

    def generate(f: PolyElement) -> PolyElement:
        second = sum((half * f.diff(v).diff(v) for half, v in zip(halves, u, strict=True)), polynomials.zero)
        first = sum((b * f.diff(v) for b, v in zip(drift, u, strict=True)), polynomials.zero)
        return beta * (first + second) - f.diff(t)

    at = [*((v, rational(POINT[name])) for v, name in zip(u, names, strict=True)), (t, rational(TIME))]
    answer = {}
    for powers in monomials(2 * dims, 2 * n):
        f = polynomials.one
        for v, name, power in zip(u, names, powers, strict=True):
            f *= (v - rational(POINT[name])) ** power
        answer[powers] = []
        for k in range(1, n + 1):
            f = generate(f) * sp.QQ(1, k)
            value = f.evaluate(at)
            answer[powers].append(fraction(value))
    return answer


def at_the_point(error: Mapping[Powers, sp.Expr], powers: Powers, score: Mapping[str, sp.Expr]) -> Fraction:
    """The claimed local error of a monomial of the increments, with the concrete score's jets put in."""
    expression = error.get(powers, sp.S.Zero)
    values: dict[sp.Basic, sp.Expr] = {}
    numbers = {"gamma": MODEL.gamma, "nu": MODEL.nu, "beta": BETA, "dbeta": BETA_SLOPE} | POINT
    place = {sp.Symbol(name): sp.Rational(value) for name, value in POINT.items()} | {T: sp.Rational(TIME)}
    for symbol in expression.free_symbols:
        name = str(symbol)
        if name in numbers:
            values[symbol] = sp.Rational(numbers[name])
        else:
            component, _, letters = name.removeprefix("s_").partition(",")
            derivative = score[component]
            for letter in re.findall(r"[xm]\d?|t", letters):
                derivative = sp.diff(derivative, sp.Symbol(letter))
            values[symbol] = sp.sympify(derivative).xreplace(place)
    value = sp.sympify(expression).xreplace(values) * math.prod(math.factorial(power) for power in powers)
    return fraction(value)


def score_of(splitting: str, dims: int) -> Mapping[str, sp.Expr]:
    """The concrete score that a splitting's words are tried on."""
    if splitting == "langevin":
        assert dims == 1
        return POTENTIAL_SCORE
    return SCORE if dims == 1 else COUPLED_SCORE


def disagreements(
    scheme: Scheme, n: int, dims: int = 1, parts: Mapping[str, brute_force.Part] | None = None
) -> list[tuple[int, Powers]]:
    """Where the claimed local error is not forward minus exact: (power of h, monomial)."""
    truth = brute_force.parts_of(scheme.splitting.name, MODEL)
    score = score_of(scheme.splitting.name, dims)
    forward = forward_moments(scheme.word, parts or truth, scheme.flow, n, dims, score)
    exact = exact_moments_of_increments(truth, n, dims, score)
    claimed = local_error(scheme, n, dims)
    assert all(sum(powers) <= 2 * n for error in claimed for powers in error)
    return [
        (k, powers)
        for k in range(1, n + 1)
        for powers in exact
        if at_the_point(claimed[k - 1], powers, score) != forward[powers][k - 1] - exact[powers][k - 1]
    ]


BY_HAND = [
    ("S F", PSLD_WHOLE, {"euler": 2, "exact": 2, "midpoint": 2}),
    ("U(1/2) S E U(1/2)", PSLD_LINEAR, {"euler": 2}),
    (STRANG, PSLD_LINEAR, {"exact": 2, "midpoint": 3, "true": 3}),
    ("U(1/2) S@1/2 E U(1/2)@0", PSLD_LINEAR, {"true": 2}),
    ("O S B(1/2) A S@1 B(1/2)", PSLD, {"euler": 2, "exact": 2, "midpoint": 2, "true": 2}),
    (IRREGULAR, PSLD, {"euler": 2, "midpoint": 2, "true": 2}),
    ("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, {"euler": 2, "exact": 2, "midpoint": 3, "true": 3}),
    (BAOAB, LANGEVIN, {"euler": 3}),
    ("O S B A(1/2)", PSLD, {"euler": 2}),
]


@pytest.mark.parametrize(
    ("word", "splitting", "flow", "n"),
    [(word, splitting, flow, n) for word, splitting, flows in BY_HAND for flow, n in flows.items()],
)
def test_the_local_error_is_what_a_step_by_hand_leaves(word: str, splitting: Splitting, flow: str, n: int) -> None:
    """Claim: up to h^n, for every monomial of the increments up to degree 2n, as a rational number."""
    assert disagreements(Scheme(word, splitting, flow=flow), n) == []


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("word", "splitting", "flow"),
    [(word, splitting, flow) for word, splitting, flows in BY_HAND for flow, n in flows.items() if n == 2],
)
def test_the_local_error_up_to_h3_is_what_a_step_by_hand_leaves(word: str, splitting: Splitting, flow: str) -> None:
    """Claim: the same up to h^3 for the words that take long."""
    assert disagreements(Scheme(word, splitting, flow=flow), 3) == []


@pytest.mark.parametrize(
    ("word", "splitting", "flow", "n"),
    [
        ("O S B(1/2) A S@1 B(1/2)", PSLD, "euler", 2),
        (STRANG, PSLD_LINEAR, "true", 2),
        ("S@1/2 F", PSLD_WHOLE, "midpoint", 2),
        pytest.param(STRANG, PSLD_LINEAR, "true", 3, marks=pytest.mark.nightly),
        pytest.param("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, "midpoint", 3, marks=pytest.mark.nightly),
    ],
)
def test_the_local_error_in_two_dimensions_is_what_a_step_by_hand_leaves(
    word: str, splitting: Splitting, flow: str, n: int
) -> None:
    """Claim: the same with two data dimensions and a score whose components depend on all four coordinates."""
    assert disagreements(Scheme(word, splitting, flow=flow), n, dims=2) == []


@st.composite
def schemes(
    draw: st.DrawFn, names: Sequence[str] = tuple(SPLITTINGS), consistent: bool = True, flows: Sequence[str] = FLOWS
) -> Scheme:
    """Any word over a built-in splitting, with any sub-flow."""
    splitting = SPLITTINGS[draw(st.sampled_from(list(names)))]
    return Scheme(draw(words(splitting, consistent=consistent)), splitting, flow=draw(st.sampled_from(list(flows))))


def noisy_true(scheme: Scheme) -> bool:
    """Whether a part follows its score under noise, which the second source cannot do."""
    return scheme.flow == "true" and any(part.sde.uses_score and part.sde.has_noise for part in scheme.parts)


@FEW
@given(schemes(consistent=False))
def test_any_words_local_error_is_what_a_step_by_hand_leaves(scheme: Scheme) -> None:
    """Claim: up to h^2, also for words that are not consistent, with any clocks and any times of their S."""
    assume(not noisy_true(scheme))
    assert disagreements(scheme, 2) == []


@pytest.mark.nightly
@settings(max_examples=50)
@given(schemes(consistent=False))
def test_any_words_local_error_is_what_a_step_by_hand_leaves_up_to_h3(scheme: Scheme) -> None:
    """Claim: the same up to h^3."""
    assume(not noisy_true(scheme))
    assert disagreements(scheme, 3) == []


def _mutants() -> dict[str, tuple[Scheme, dict[str, brute_force.Part]]]:
    """A scheme, and parts for the step by hand that are wrong in one place."""
    scheme = CATALOGUE["ROBAB"]
    parts = brute_force.parts_of("psld", MODEL)
    A, B, O = (parts[name] for name in "ABO")  # noqa: E741

    def negative(matrix: Any) -> Any:
        return [[-entry for entry in row] for row in matrix]

    return {
        "the sign of A's drift": (scheme, parts | {"A": A._replace(A=negative(A.A))}),
        "the sign of A's score": (scheme, parts | {"A": A._replace(G=negative(A.G))}),
        "the sign of B's score": (scheme, parts | {"B": B._replace(G=negative(B.G))}),
        "no noise": (scheme, parts | {"O": O._replace(D=[[0, 0], [0, 0]])}),
        "a clock": (replace(scheme, word="O S B(1/2) A@1/2 S@1 B(1/2)"), parts),
        "the time of an S": (replace(scheme, word="O S B(1/2) A S B(1/2)"), parts),
        "the sub-flow": (replace(scheme, flow="exact"), parts),
    }


@pytest.mark.parametrize("mutation", _mutants())
def test_a_step_by_hand_with_one_fault_disagrees(mutation: str) -> None:
    """Claim: the comparison can fail: a wrong sign, noise, clock, time or sub-flow on either side is seen by h^2."""
    wrong, parts = _mutants()[mutation]
    scheme = CATALOGUE["ROBAB"]
    score = score_of("psld", 1)
    by_hand = forward_moments(wrong.word, parts, wrong.flow, 2, 1, score)
    exact = exact_moments_of_increments(brute_force.parts_of("psld", MODEL), 2, 1, score)
    claimed = local_error(scheme, 2)
    assert any(
        at_the_point(claimed[k], powers, score) != by_hand[powers][k] - exact[powers][k]
        for k in range(2)
        for powers in exact
    )


# --- Proven orders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear_beta", [False, True], ids=["constant", "linear"])
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_every_scheme_of_the_catalogue_is_proven_to_have_its_claimed_order(
    scheme: Scheme, dims: int, linear_beta: bool
) -> None:
    """Claim: the integer itself; with frozen scores no published scheme is better than 1."""
    proof = prove_order(scheme, dims, linear_beta)
    assert proof.order == scheme.order
    assert proof.leading
    assert len(proof.coordinates) == 2 * dims


# word over psld-linear, and its order with an accurate kick for constant and for linear beta; Euler's kick gives 1.
KNOWN_ANSWERS = {
    "U(1/2) S E U(1/2)@0": (1, 1),
    "U(1/2) S E U(1/2)": (1, 1),
    "U(1/2) S@1/2 E U(1/2)@0": (2, 1),
    STRANG: (2, 2),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("word", KNOWN_ANSWERS)
def test_the_known_answers_are_theorems(word: str, flow: str) -> None:
    """Claim: the table of the design page, section 4, for the true flow and the midpoint rule alike; the kick's
    accuracy, the score's time and the clock (where beta is not constant) each destroy order 2."""
    scheme = Scheme(word, PSLD_LINEAR, flow=flow)
    accurate = flow in ("true", "midpoint")
    got = tuple(prove_order(scheme, linear_beta=linear).order for linear in (False, True))
    assert got == (KNOWN_ANSWERS[word] if accurate else (1, 1))


def test_the_clock_slip_is_a_term_in_dbeta_and_nothing_else() -> None:
    """Claim: what the slipped second half-step leaves at h^2 is the generator of U times beta' / 4: it covers
    [t - h/2, t] instead of [t - h, t - h/2], and beta over it is larger by beta' h / 2."""
    slip = prove_order(Scheme("U(1/2) S@1/2 E U(1/2)@0", PSLD_LINEAR, flow="true"))
    dbeta = sp.Symbol("dbeta")
    expected = {powers: c.subs(sp.Symbol("beta"), dbeta / 4) for powers, c in generator(PSLD_LINEAR["U"]).items()}
    assert same(slip.leading, expected)


LANGEVIN_ORDERS = {
    BAOAB: 2,
    "A(1/2) S B(1/2) O B(1/2) A(1/2)": 2,  # ABOBA
    "O(1/2) S B(1/2) A S B(1/2) O(1/2)": 2,  # OBABO
    "O(1/2) A(1/2) S B A(1/2) O(1/2)": 2,  # OABAO
    "A(1/2) O(1/2) S B O(1/2) A(1/2)": 2,  # AOBOA
    "S B(1/2) O(1/2) A O(1/2) S B(1/2)": 2,  # BOAOB
    "S B(1/4) A(1/2) O(1/2) S B(1/2) O(1/2) A(1/2) S B(1/4)": 2,
    **dict.fromkeys(("O S B A", "S B A O", "O A S B", "S B O A", "A S B O", "A O S B"), 1),
    "S B(1/3) A(1/2) O A(1/2) S B(2/3)": 1,  # not symmetric in B
    "S B(1/2) A(1/3) O A(2/3) S B(1/2)": 1,
    "O(1/3) S B(1/2) A S B(1/2) O(2/3)": 1,
    "S B(1/2) A S B(1/2) O": 1,  # velocity Verlet, then the thermostat
    "S B(1/2) A(1/2) O A(1/2) B(1/2)": 1,  # BAOAB that forgot its second evaluation
}


@pytest.mark.parametrize("linear_beta", [False, True], ids=["constant", "linear"])
@pytest.mark.parametrize("word", LANGEVIN_ORDERS)
def test_underdamped_langevin_has_its_published_orders(word: str, linear_beta: bool) -> None:
    """Claim: Leimkuhler and Matthews 2013: the symmetric words have order 2, the others 1."""
    assert prove_order(Scheme(word, LANGEVIN), linear_beta=linear_beta).order == LANGEVIN_ORDERS[word]


@pytest.mark.parametrize("word", [BAOAB, "A(1/2) S B(1/2) O B(1/2) A(1/2)", "O S B A"])
def test_underdamped_langevin_has_its_published_orders_in_two_dimensions(word: str) -> None:
    """Claim: the same with two coupled coordinates."""
    assert prove_order(Scheme(word, LANGEVIN), dims=2).order == LANGEVIN_ORDERS[word]


@pytest.mark.parametrize(
    ("word", "splitting", "flow"),
    [
        ("S@1/2 F", PSLD_WHOLE, "true"),
        ("S@1/2 F", PSLD_WHOLE, "midpoint"),
        pytest.param(STRANG, PSLD_LINEAR, "true", marks=pytest.mark.nightly),
        pytest.param(STRANG, PSLD_LINEAR, "midpoint", marks=pytest.mark.nightly),
    ],
)
def test_order_2_is_proven_in_two_dimensions(word: str, splitting: Splitting, flow: str) -> None:
    """Claim: symmetric words with accurate kicks have order 2 for coupled scores too; the midpoint rule on the whole
    SDE, with its noise, has 1."""
    expected = 1 if (word, flow) == ("S@1/2 F", "midpoint") else 2
    assert prove_order(Scheme(word, splitting, flow=flow), dims=2).order == expected


WHOLE_LANGEVIN = Splitting(
    "one-part", STATIONARY, LANGEVIN_DYNAMICS, (Part("W", LANGEVIN_DYNAMICS.drift, LANGEVIN_DYNAMICS.diffusion),)
)


def test_a_splitting_that_is_its_own_exact_flow_shows_no_error() -> None:
    """Claim: one part that follows the true, timeless score is exact: no order, and nothing left up to h^4."""
    proof = prove_order(Scheme("S W", WHOLE_LANGEVIN, flow="true"))
    assert proof.order is None
    assert proof.leading == proof.monomials() == {}
    assert proof.searched == 4
    assert prove_order(Scheme("S W", WHOLE_LANGEVIN, flow="exact")).order == 1


# --- Words that are not consistent ------------------------------------------------------------------------------------


def jet(name: str) -> sp.Symbol:
    """A symbol of a leading error."""
    return sp.Symbol(name)


@cache
def generator(part: Part) -> dict[Powers, sp.Expr]:
    """The symbol of beta L of a part with the true score, in one dimension, from its declaration."""
    plain = {s: jet(str(s)) for pair in part.drift for s in pair.free_symbols if str(s) in ("x", "m", "s_x", "s_m")}
    terms = {(1, 0): part.drift[0].xreplace(plain), (0, 1): part.drift[1].xreplace(plain)}
    terms |= {(2, 0): part.diffusion[0] ** 2 / 2, (0, 2): part.diffusion[1] ** 2 / 2}
    return {powers: jet("beta") * c for powers, c in terms.items() if c != 0}


def same(a: Mapping[Powers, sp.Expr], b: Mapping[Powers, sp.Expr]) -> bool:
    """Whether two operators are equal, by algebra."""
    return all(sp.cancel(a.get(powers, sp.S.Zero) - b.get(powers, sp.S.Zero)) == 0 for powers in {*a, *b})


def missing(scheme: Scheme) -> dict[Powers, sp.Expr]:
    """Sum over the parts of (sum of its weights - 1) times its generator."""
    total: dict[Powers, sp.Expr] = {}
    for part in scheme.splitting.parts:
        excess = sum((token.weight for token in scheme.tokens if token.symbol == part.name), Fraction(-1))
        for powers, c in generator(part).items() if excess else ():
            total[powers] = total.get(powers, sp.S.Zero) + sp.Rational(excess) * c
    return total


@pytest.mark.parametrize(
    ("word", "splitting", "flow"),
    [
        ("O S B A(1/2)", PSLD, "euler"),  # a lost half-step
        ("O S B A B", PSLD, "exact"),  # a part done twice
        ("S B A", PSLD, "midpoint"),  # the noise forgotten
        ("O", PSLD, "true"),
        ("U(1/2) S E U(1/3)", PSLD_LINEAR, "true"),
        ("S F(99/100)", PSLD_WHOLE, "euler"),
        ("S B(1/2) A", PSLD_FLOW, "midpoint"),
        ("S B(1/2) A(1/2) O A(1/2)", LANGEVIN, "euler"),
    ],
)
@pytest.mark.parametrize("dims", [1, 2])
def test_a_word_whose_weights_do_not_sum_to_1_has_order_0(
    word: str, splitting: Splitting, flow: str, dims: int
) -> None:
    """Claim: order 0, and in one dimension the leading error is the missing drift and diffusion exactly."""
    scheme = Scheme(word, splitting, flow=flow)
    proof = prove_order(scheme, dims)
    assert scheme.inconsistencies
    assert proof.order == 0
    if dims == 1:
        assert same(proof.leading, missing(scheme))


@given(schemes(consistent=False))
def test_the_bias_rate_of_any_word_is_its_missing_weight(scheme: Scheme) -> None:
    """Claim: for any word at all, the error at h^1 is the sum of (weights - 1) beta L over the parts, whatever the
    sub-flow, the clocks and the times of its S; so the order is 0 exactly where some part's weights do not sum to 1."""
    (error,) = local_error(scheme, 1)
    assert same(error, missing(scheme))
    assert bool(error) == bool(scheme.inconsistencies)


@pytest.mark.parametrize("name", ["EM", "SSCS", "NOBA", "NBAO", "NOBAB", "ROBA", "RBAO", "ROBAB"])
@pytest.mark.parametrize("lambda_s", [1.05, 0.5])
def test_a_scaled_position_noise_has_order_0_and_its_bias_is_that_of_the_noise(name: str, lambda_s: float) -> None:
    """Claim: beta gamma (lambda_s^2 - 1) / 2 on p_x^2, and nothing else; the momentum's noise is untouched."""
    scaled = replace(CATALOGUE[name], lambda_s=lambda_s, order=None)
    for dims in (1, 2):
        proof = prove_order(scaled, dims)
        bias = jet("beta") * gamma * (jet("lambda_s") ** 2 - 1) / 2
        positions = [tuple(2 * (i == j) for i in range(2 * dims)) for j in range(dims)]
        assert proof.order == 0
        assert same(proof.leading, dict.fromkeys(positions, bias))


def test_a_scaled_position_noise_adds_to_what_a_word_misses() -> None:
    """Claim: in `O(1/2) S B A` with lambda_s, O's drift and momentum noise lack a half, its position noise
    1 - lambda_s^2 / 2."""
    proof = prove_order(Scheme("O(1/2) S B A", PSLD, lambda_s=1.05))
    expected = {powers: -c / 2 for powers, c in generator(PSLD["O"]).items()}
    expected[2, 0] = jet("beta") * gamma * (jet("lambda_s") ** 2 / 2 - 1) / 2
    assert proof.order == 0
    assert same(proof.leading, expected)


# --- Symmetry ---------------------------------------------------------------------------------------------------------


@st.composite
def symmetric_words(draw: st.DrawFn, splitting: Splitting) -> str:
    """A consistent word that is its own reflection in time: its parts with their intervals read the same backwards, and
    every part that uses the score has one of its own, at a time that is mirrored to 1 - time."""
    names = draw(st.permutations(splitting.part_names))
    sides = [(name, Fraction(size)) for name in names for size in draw(st.lists(st.integers(1, 3), max_size=1))]
    centre = names[-1]
    left = draw(st.permutations([*sides, *((name, Fraction(1)) for name in names if name != centre)]))
    sizes = {name: 2 * sum(size for part, size in left if part == name) + 3 * (name == centre) for name in names}
    half = [(name, size / sizes[name]) for name, size in left]
    times = [draw(st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1), Fraction(1, 3)])) for _ in half]
    letters = [*half, (centre, Fraction(3) / sizes[centre]), *half[::-1]]
    all_times = [*times, Fraction(1, 2), *(1 - time for time in times[::-1])]
    tokens = []
    for (name, weight), time in zip(letters, all_times, strict=True):
        if splitting[name].sde.uses_score:
            tokens.append(f"S@{time}")
        tokens.append(f"{name}({weight})")
    return " ".join(tokens)


@FEW
@given(
    st.sampled_from([PSLD_LINEAR, PSLD_FLOW, PSLD, LANGEVIN]).flatmap(
        lambda s: st.tuples(st.just(s), symmetric_words(s))
    )
)
def test_a_step_that_is_its_own_reflection_has_order_2(drawn: tuple[Splitting, str]) -> None:
    """Claim: with true flows its error is even in h, so the order of a consistent one is even; and 2 it is. The
    midpoint rule, of order 2, is as good."""
    splitting, word = drawn
    assert prove_order(Scheme(word, splitting, flow="true")).order == 2
    assert local_error(Scheme(word, splitting, flow="midpoint"), 2) == [{}, {}]


@FEW
@given(symmetric_words(PSLD_LINEAR), st.sampled_from(FLOWS), st.booleans())
def test_one_asymmetry_costs_an_order(word: str, flow: str, by_clock: bool) -> None:
    """Claim: in a symmetric word, a first token of U that is moved to the end, or a first S that is moved in time, or
    a frozen score leave order 1."""
    tokens = word.split()
    if by_clock:
        first = next(i for i, token in enumerate(tokens) if token.startswith("S"))
        tokens[first] = "S@1/5"
    else:
        first = next(i for i, token in enumerate(tokens) if token.startswith("U"))
        tokens = [*tokens[:first], *tokens[first + 1 :], tokens[first]]
    assert prove_order(Scheme(" ".join(tokens), PSLD_LINEAR, flow=flow)).order == 1
    if flow in ("euler", "exact"):
        assert prove_order(Scheme(word, PSLD_LINEAR, flow=flow)).order == 1


# --- What changes nothing, and what must change something -------------------------------------------------------------


def operators(scheme: Scheme, n: int, linear_beta: bool = True) -> list[dict[Powers, Any]]:
    """What `local_error` holds before the entries of the parts' matrices are put in as functions of the parameters:
    quick, and equal operators are equal errors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weak_order, "_symbolic", lambda _, g: dict(g.terms()))
        return local_error(scheme, n, linear_beta=linear_beta)


def unused_scores(word: str, splitting: Splitting) -> str:
    """The word with evaluations of the score that no part uses: before each S, and at the end."""
    del splitting
    return " ".join(f"S@2/3 {token}" if token.startswith("S") else token for token in word.split()) + " S@1/4"


def halved_free_parts(word: str, splitting: Splitting) -> str:
    """The word with each part without score cut in two adjacent pieces, the second on its clock."""
    scheme = Scheme(word, splitting)
    tokens = []
    for token in scheme.tokens:
        if token.weight is None or splitting[token.symbol].sde.uses_score:
            tokens.append(str(token))
        else:
            weight, time = token.weight, f"@{token.start}" if token.explicit else ""
            tokens += [f"{token.symbol}({weight / 3}){time}", f"{token.symbol}({2 * weight / 3})"]
    return " ".join(tokens)


def repeated_scores(word: str, splitting: Splitting) -> str:
    """The word with each S evaluated again at once, at the same time."""
    del splitting
    return " ".join(f"{token} {token}" if token.startswith("S") else token for token in word.split())


def explicit_clocks(word: str, splitting: Splitting) -> str:
    """The word with every part's begin written out."""
    tokens = [replace(token, explicit=True) for token in Scheme(word, splitting).tokens]
    return " ".join(map(str, tokens)) if all(token.start <= 1 for token in tokens) else word


@pytest.mark.parametrize("rewrite", [unused_scores, halved_free_parts, repeated_scores, explicit_clocks])
@FEW
@given(schemes(consistent=False))
def test_what_a_step_does_not_see_changes_nothing(rewrite, scheme: Scheme) -> None:
    """Claim: unused or repeated evaluations, cutting a score-free part in two, and clocks written out leave every
    coefficient as it is, up to h^2."""
    rewritten = replace(scheme, word=rewrite(scheme.word, scheme.splitting))
    assert operators(rewritten, 2) == operators(scheme, 2)


@pytest.mark.parametrize("flow", ["exact", "true"])
@pytest.mark.parametrize(("whole", "cut"), [("S E U", "S E(1/3) E(2/3) U"), ("U S@1/3 E", "U S@1/3 E(1/2) E(1/2)")])
def test_an_exact_flow_is_its_pieces(whole: str, cut: str, flow: str) -> None:
    """Claim: a frozen or followed score with the flow exact in between makes a semigroup; Euler's does not."""
    first, second = (operators(Scheme(word, PSLD_LINEAR, flow=flow), 3) for word in (whole, cut))
    assert first == second
    first, second = (local_error(Scheme(word, PSLD_LINEAR, flow="euler"), 2)[1] for word in (whole, cut))
    assert not same(first, second)


@pytest.mark.parametrize("word", [BAOAB, "O S B A", "O(1/2) S B(1/2) A S B(1/2) O(1/2)"])
def test_a_kick_that_does_not_move_what_its_score_sees_is_the_same_in_every_sub_flow(word: str) -> None:
    """Claim: in Langevin dynamics B moves m, its score sees x: all sub-flows are one map, if an S stands before B."""
    errors = [local_error(Scheme(word, LANGEVIN, flow=flow), 3) for flow in FLOWS]
    assert all(error == errors[0] for error in errors)


@given(schemes())
def test_clocks_do_not_matter_when_beta_is_constant(scheme: Scheme) -> None:
    """Claim: rewinding every clock changes nothing for constant beta."""
    rewound = [str(t) if t.is_score else str(replace(t, start=Fraction(0), explicit=True)) for t in scheme.tokens]
    slipped = replace(scheme, word=" ".join(rewound))
    assert operators(slipped, 2, linear_beta=False) == operators(scheme, 2, linear_beta=False)


def test_times_do_not_matter_when_the_score_has_none() -> None:
    """Claim: the score of Langevin dynamics has no time, so an S@1/3 is an S."""
    assert local_error(Scheme("S@1/3 B O S@1 A", LANGEVIN), 3) == local_error(Scheme("S B O A", LANGEVIN), 3)


@FEW
@given(schemes(consistent=False))
def test_a_proof_for_constant_beta_is_that_for_linear_beta_without_its_slope(scheme: Scheme) -> None:
    """Claim: dbeta = 0 turns the one into the other."""
    linear = [{p: c.subs(jet("dbeta"), 0) for p, c in error.items()} for error in local_error(scheme, 2)]
    constant = local_error(scheme, 2, linear_beta=False)
    assert all(same(a, b) for a, b in zip(linear, constant, strict=True))


@FEW
@given(schemes(consistent=False))
def test_an_error_does_not_depend_on_how_far_the_expansion_goes(scheme: Scheme) -> None:
    """Claim: h^1 of the expansion up to h^2 and h^2 of that up to h^3 are what the shorter ones give."""
    assert local_error(scheme, 2)[:1] == local_error(scheme, 1)
    if scheme.splitting is LANGEVIN:
        assert local_error(scheme, 3)[:2] == local_error(scheme, 2)


def uncoupled(expression: sp.Expr) -> sp.Expr:
    """A coefficient in two dimensions for a score whose first coordinates do not know of the second, as in one."""
    values: dict[sp.Basic, sp.Basic] = {}
    for symbol in expression.free_symbols:
        if "2" in str(symbol):
            values[symbol] = sp.S.Zero
        elif "1" in str(symbol):
            values[symbol] = jet(str(symbol).replace("1", ""))
    return expression.xreplace(values)


@pytest.mark.parametrize("scheme", [*CATALOGUE.values(), Scheme(BAOAB, LANGEVIN)], ids=lambda scheme: scheme.name)
def test_two_dimensions_contain_one(scheme: Scheme) -> None:
    """Claim: with the second coordinate unseen by the first one's score, the errors of the first coordinate's monomials
    are those of one dimension."""
    one, two = prove_order(scheme), prove_order(scheme, dims=2)
    first = {(p[0], p[2]): uncoupled(c) for p, c in two.leading.items() if p[1] == p[3] == 0}
    assert same(first, one.leading)


@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_the_two_dimensions_are_interchangeable(scheme: Scheme) -> None:
    """Claim: swapping the coordinates' names turns the leading error into itself."""
    leading = prove_order(scheme, dims=2).leading

    def swapped(symbol: sp.Basic) -> sp.Symbol:
        head, comma, letters = str(symbol).translate(str.maketrans("12", "21")).partition(",")
        ordered = sorted(re.findall(r"[xm]\d|t", letters), key=["x1", "x2", "m1", "m2", "t"].index)
        return jet(head + comma + "".join(ordered))

    mirrored = {
        (p[1], p[0], p[3], p[2]): c.xreplace({s: swapped(s) for s in c.free_symbols if not s.is_nonnegative})
        for p, c in leading.items()
    }
    assert same(mirrored, leading)


def test_the_errors_of_monomials_are_the_coefficients_times_factorials() -> None:
    """Claim: E dx^i dm^j is i! j! times the coefficient, under readable names; by hand for Euler-Maruyama's dx^2: it
    lacks the growth of the noise by the drift's own derivative b' = db/dx, beta^2 gamma b' h^2."""
    proof = prove_order(CATALOGUE["EM"])
    names = {"dx": (1, 0), "dm": (0, 1), "dx^2": (2, 0), "dx dm": (1, 1), "dm^2": (0, 2)}
    assert set(proof.monomials()) == set(names)
    for name, (i, j) in names.items():
        assert proof.monomials()[name] == math.factorial(i) * math.factorial(j) * proof.leading[i, j]
    drift = generator(PSLD_WHOLE["F"])[1, 0] / jet("beta")
    growth = sp.diff(drift, jet("x")) + sp.diff(drift, jet("s_x")) * jet("s_x,x")
    by_hand = -(jet("beta") ** 2) * gamma * growth
    assert sp.cancel(proof.monomials()["dx^2"] - by_hand) == 0


def _tilted(sign: int) -> Splitting:
    """PSLD's splitting with nu m taken from B's drift and given to O's, or, with the sign mutated, the other way."""
    extra = sign * sp.Symbol("nu", nonnegative=True) * sp.Symbol("m", real=True)
    O, A, B = PSLD.parts  # noqa: E741
    parts = (
        replace(O, drift=(O.drift[0], O.drift[1] + extra)),
        A,
        replace(B, drift=(B.drift[0], B.drift[1] - extra)),
    )
    return Splitting("tilted", PSLD.diffusion, PSLD.whole, parts)


def test_a_declared_splitting_is_proven_by_its_own_parts() -> None:
    """Claim: a user's splitting of the same SDE has its own leading error, and a sign in its parts changes it."""
    proofs = [prove_order(replace(CATALOGUE["ROBA"], splitting=s)) for s in (PSLD, _tilted(1), _tilted(-1))]
    assert [proof.order for proof in proofs] == [1, 1, 1]
    for a, b in itertools.combinations(proofs, 2):
        assert not same(a.leading, b.leading)


@pytest.mark.parametrize(
    ("right", "wrong", "orders"),
    [
        (STRANG, "U(1/2) S@1/2 E U(1/2)@1/4", (2, 1)),
        (STRANG, "U(1/2) S@2/5 E U(1/2)", (2, 1)),
        (STRANG, "U(1/2) S@1/2 E@1/2 U(1/2)", (2, 1)),
        (STRANG, "U(49/100) S@1/2 E U(51/100)", (2, 1)),
        (STRANG, "U(1/2) S@1/2 E U(49/100)", (2, 0)),
    ],
)
def test_one_fault_in_a_word_of_order_2_is_seen(right: str, wrong: str, orders: tuple[int, int]) -> None:
    """Claim: a clock, a time, a kick's own interval, an asymmetry, a lost hundredth: each changes the order."""
    got = tuple(prove_order(Scheme(word, PSLD_LINEAR, flow="true")).order for word in (right, wrong))
    assert got == orders


# --- Proven and measured ----------------------------------------------------------------------------------------------

GENERIC = st.builds(
    lambda rate, gap, swap, kappa, begin, end: Parameters(
        gamma=rate + gap if swap else rate,
        nu=rate if swap else rate + gap,
        kappa=kappa,
        beta_min=begin,
        beta_max=end,
    ),
    st.floats(0.2, 1.5),
    st.floats(1.0, 2.5),
    st.booleans(),
    st.floats(0.05, 0.8),
    st.floats(1.0, 4.0),
    st.floats(4.5, 8.0),
)
STEPS = tuple(50 * 2**k for k in range(7))


def measured(scheme: Scheme, params: Parameters) -> Fit | None:
    """The order of the worst of mean and covariance on two Gaussians."""
    target = GaussianTarget.of([0.4, -1.1], [0.35, 1.7], scheme.splitting.diffusion, params)
    return study_order(scheme, params, steps=STEPS, target=target, t_end=0.15).measured


@FEW
@given(schemes(), GENERIC)
def test_the_measured_order_is_the_proven_one(scheme: Scheme, params: Parameters) -> None:
    """Claim: for random consistent words and sub-flows and generic parameters and data, both inequalities.

    Measured >= proven always: the proof holds for every score. Equality needs a leading error that Gaussian data can
    see, one whose drift and diffusion coefficients do not average to zero over the exact law. It fails on purpose where
    the leading error has second derivatives of the score in every term, or where a law that does not move is already
    that of the scheme; neither happens for a word over these splittings at parameters drawn from a continuum.
    """
    proof = prove_order(scheme)
    fit = measured(scheme, params)
    assert fit is not None
    assert fit.order >= proof.order - 0.1
    assert fit.order <= proof.order + 0.1


@pytest.mark.parametrize("flow", ["true", "midpoint"])
@pytest.mark.parametrize("word", KNOWN_ANSWERS)
def test_the_known_answers_measure_as_proven(word: str, flow: str) -> None:
    """Claim: for constant and for linear beta the measured order is the proven one, to 0.05."""
    for params in (Parameters(), Parameters(beta_min=0.1, beta_max=15.9)):
        scheme = Scheme(word, PSLD_LINEAR, flow=flow)
        proof = prove_order(scheme, linear_beta=params.beta_min != params.beta_max)
        assert measured(scheme, params).order == pytest.approx(proof.order, abs=0.05)


# --- The cache, and bad input -----------------------------------------------------------------------------------------


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A cache folder of the test's own."""
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    "scheme", [CATALOGUE["ROBA"], replace(CATALOGUE["ROBA"], lambda_s=1.16), Scheme("S W", WHOLE_LANGEVIN, flow="true")]
)
def test_a_second_proof_is_read_from_disk(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: it is not derived again, and it is the same value; a lambda_s is a symbol, so one proof serves all."""
    first = prove_order(scheme)

    def refuse(*_: Any) -> Any:
        raise RuntimeError("derived")

    monkeypatch.setattr(weak_order, "_search", refuse)
    again = prove_order(scheme)
    assert isinstance(again, OrderProof)
    assert again == first
    assert prove_order(replace(scheme, name="other", reference="elsewhere")) == first
    if scheme.lambda_s != 1:
        assert prove_order(replace(scheme, lambda_s=1.05)) == first
    with pytest.raises(RuntimeError, match="derived"):
        prove_order(scheme, linear_beta=False)


@pytest.mark.usefixtures("empty_cache")
def test_proofs_of_different_questions_have_different_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: word, sub-flow, parts, noise scale, dimensions, beta and what the score depends on are all in the key."""
    keys = []

    def remember(key: tuple[str, ...], _: Any) -> Any:
        keys.append(key)
        return 1, []

    monkeypatch.setattr(weak_order, "cached", remember)
    scheme = CATALOGUE["ROBA"]
    timeless = replace(PSLD.diffusion, score_arguments=PSLD.diffusion.score_arguments[:2])
    questions: list[tuple[Scheme, int, bool]] = [
        (scheme, 1, True),
        (scheme, 2, True),
        (scheme, 1, False),
        (replace(scheme, lambda_s=1.1), 1, True),
        (replace(scheme, splitting=_tilted(1)), 1, True),
        (replace(scheme, splitting=replace(PSLD, diffusion=timeless)), 1, True),
        *((replace(scheme, flow=flow), 1, True) for flow in FLOWS if flow != scheme.flow),
        (replace(scheme, word="O S B A@1/2"), 1, True),
        (replace(scheme, word="O S@1 B A"), 1, True),
        (replace(scheme, word="O(1/2) S B A O(1/2)"), 1, True),
    ]
    for scheme_, dims, linear_beta in questions:
        prove_order(scheme_, dims, linear_beta)
    assert len(set(keys)) == len(questions)
    prove_order(replace(scheme, word="O(1.0) S@0 B(2/2) A", splitting=PSLD), 1, True)
    assert len(set(keys)) == len(questions) + 1, "an S with its default time written out is another word"


@pytest.mark.parametrize("dims", [0, -1, 3, 1.5])
def test_other_dimensions_are_refused_by_name(dims: int) -> None:
    """Claim: ValueError that names the value."""
    with pytest.raises(ValueError, match=f"dims = {dims}"):
        prove_order(CATALOGUE["EM"], dims)


@FEW
@given(schemes(consistent=False))
def test_no_word_needs_a_jet_beyond_the_bound(scheme: Scheme) -> None:
    """Claim: up to h^3 no derivative is asked for beyond 2k + l = 2 (n - 1); a violation raises."""
    operators(scheme, 3)


@FEW
@given(random_splittings().flatmap(lambda s: st.tuples(st.just(s), words(s))), st.sampled_from(FLOWS))
def test_no_word_over_any_splitting_needs_a_jet_beyond_the_bound(drawn: tuple[Splitting, str], flow: str) -> None:
    """Claim: nor over random splittings of the reverse SDE, and a consistent word has no error at h^1."""
    splitting, word = drawn
    assert local_error(Scheme(word, splitting, flow=flow), 1) == [{}]
    operators(Scheme(word, splitting, flow=flow), 2)

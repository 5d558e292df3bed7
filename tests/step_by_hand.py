"""One step of a word by hand: the second source of a local error, with nothing imported from weakorder.

The second source of a local error goes forward where the code goes backward: for one concrete score, a polynomial with
all the derivatives that h^3 sees, one step is carried out token by token on polynomials in h and the step's Gaussians,
with the numeric parts and the tokenizer of tests/brute_force.py, and its moments are read off by Isserlis' rule. The
exact moments come from the generator, iterated on monomials. All of it is rational arithmetic.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import brute_force
import sympy as sp
from sympy.polys.rings import PolyElement, ring

Powers = tuple[int, ...]

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

"""The local weak error of a word, expanded in h for every score function: what theory.weak_order proves orders by.

Read the word from right to left as operators on a test function f(u), u = (x, m). With everything smooth,

    E f(u_1 | u_0 = u)  =  (exp(theta_1 L_1) exp(theta_2 L_2) ... f)(u),   theta_k = int beta over the part's interval,

where a part with its score frozen at sigma has the generator L = (A u + G sigma) . grad + 1/2 D : grad grad (a Euler
sub-flow: the same with the whole drift vector frozen), and an S@c substitutes sigma = s(u, t - c h). A part that
follows its true score has sigma = s(u, t - c h) as a function of u. All of it is expanded in h and compared with the
exact one-step expectation,

    exp(h (L - d/dt)) f,   L = beta(t) sum of the parts' generators with the true score,

(tau = T - t runs against t). f is taken as exp(p . u): the coefficient of each power of h is then a polynomial in p,
the symbol of a differential operator, and its coefficients settle all test functions at once: i! j! times that of p_x^i
p_m^j is the local error of (x - x_0)^i (m - m_0)^j. The order is the smallest power of h with a non-zero coefficient,
minus one.

The score enters through its jets (s and its partial derivatives as independent symbols), so a coefficient that
vanishes does so for every score: the order is a lower bound for each score and sharp for a generic one, and lambda_s
is generic too. It is relative to the declared splitting, whose parts add up to its whole. Everything is exact rational
arithmetic. Source: the operator calculus of weak
expansions, e.g. Leimkuhler and Matthews 2013; Talay and Tubaro 1990.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import sympy as sp
from sympy import Expr, Matrix
from sympy.polys.rings import ring

from .scheme import Scheme, Token, check_holds_score
from .splitting import Part, Splitting
from .weak_order import Powers, coordinate_names

Series = list[Any]  # coefficients of h^0, h^1, ...: elements of one polynomial ring


class _Calculus:
    """The polynomial ring that a word is read in, up to h^n, and its derivations.

    Generators: the state u (2d: positions, then momenta), its duals p, the frozen score sigma, a frozen drift b, beta
    and its derivative (beta is linear in t), the entries of the parts' matrices, and the jets of the score.
    """

    def __init__(self, scheme: Scheme, dims: int, n: int, linear_beta: bool) -> None:
        self.n, self.dims, self.size = n, dims, 2 * dims
        splitting = scheme.splitting
        self.coordinates = coordinate_names(dims)
        arguments = splitting.diffusion.score_names
        self.seen = [i for i in range(self.size) if "xm"[i // dims] in arguments]
        self.in_time = "t" in arguments
        # A term of h^n holds a jet with k time and l space derivatives only if 2k + l <= 2(n - 1).
        self.jets = [
            (component, powers, k)
            for k in range(n if self.in_time else 1)
            for order in range(2 * (n - 1 - k) + 1)
            for powers in _multi_indices(self.size, order)
            if all(powers[i] == 0 for i in range(self.size) if i not in self.seen)
            for component in range(self.size)
        ]
        self.entries: dict[str, Expr] = {}
        names = [*self.coordinates, *(f"p_{c}" for c in self.coordinates), *(f"sigma_{c}" for c in self.coordinates)]
        names += [f"b_{c}" for c in self.coordinates]
        for part in splitting.parts:
            for label, matrix in (("A", part.sde.matrix), ("G", part.sde.score_gain), ("D", part.sde.noise)):
                for entry, (i, j) in zip(matrix.flat(), itertools.product(range(2), repeat=2), strict=True):
                    if not entry.is_Rational:
                        self.entries[f"{label}_{part.name}_{i}{j}"] = entry
        names += ["beta", "dbeta", "lambda_s", *self.entries, *(self._jet_name(*jet) for jet in self.jets)]
        self.ring, *generators = ring(names, sp.QQ)
        self.generator = dict(zip(names, generators, strict=True))
        self.index = {name: i for i, name in enumerate(names)}
        take = iter(generators)
        self.u, self.p, self.sigma, self.b = ([next(take) for _ in range(self.size)] for _ in range(4))
        self.zero, self.one = self.ring.zero, self.ring.one
        self.beta, self.dbeta = self.generator["beta"], self.generator["dbeta"] if linear_beta else self.zero
        self.noise_scale = self.one if scheme.lambda_s == 1 else self.generator["lambda_s"] ** 2
        self._shifted = [self._shift_table(direction) for direction in range(self.size + 1)]

    def _jet_name(self, component: int, powers: Powers, k: int) -> str:
        letters = "".join(c * power for c, power in zip(self.coordinates, powers, strict=True)) + "t" * k
        return f"s_{self.coordinates[component]}" + (f",{letters}" if letters else "")

    def jet(self, component: int, k: int = 0) -> Any:
        """The score's component, k times differentiated in t; 0 if the score does not depend on t."""
        if k and not self.in_time:
            return self.zero
        return self.generator[self._jet_name(component, (0,) * self.size, k)]

    def _shift_table(self, direction: int) -> dict[int, int]:
        """For each jet that depends on the direction (a coordinate, or t as the last), the index of its derivative;
        -1 where that lies beyond h^n."""
        table = {}
        for component, powers, k in self.jets:
            if direction == self.size:
                target, seen = (component, powers, k + 1), self.in_time
            else:
                raised = tuple(power + (i == direction) for i, power in enumerate(powers))
                target, seen = (component, raised, k), direction in self.seen
            if seen:
                table[self.index[self._jet_name(component, powers, k)]] = self.index.get(self._jet_name(*target), -1)
        return table

    def _derive_jets(self, g: Any, direction: int) -> Any:
        table = self._shifted[direction]
        result: dict[Powers, Any] = {}
        for monomial, coefficient in g.terms():
            for i, exponent in enumerate(monomial):
                if exponent and i in table:
                    if table[i] < 0:
                        raise AssertionError("a jet beyond the expansion's order")  # the bound in __init__ is wrong
                    shifted = list(monomial)
                    shifted[i] -= 1
                    shifted[table[i]] += 1
                    key = tuple(shifted)
                    result[key] = result.get(key, 0) + coefficient * exponent
        return self.ring.from_dict({key: value for key, value in result.items() if value})

    def d_state(self, g: Any, i: int) -> Any:
        """dg/du_i, through u and through the jets."""
        return g.diff(self.u[i]) + self._derive_jets(g, i)

    def d_time(self, g: Any) -> Any:
        """dg/dt, through beta and through the jets."""
        return self._derive_jets(g, self.size) + g.diff(self.beta) * self.dbeta

    def entry(self, part: Part, label: str, matrix: Matrix, i: int, j: int) -> Any:
        """An entry of a part's matrix: a generator, or a rational number."""
        name = f"{label}_{part.name}_{i}{j}"
        return self.generator[name] if name in self.entries else self.ring(sp.QQ.from_sympy(matrix[i, j]))

    def drift(self, part: Part, score: list[Series], state: list[Series] | None = None) -> list[Series]:
        """The drift A u + G score per coordinate, as series in h; at another state than u if given."""
        state = state or [self.constant(u) for u in self.u]
        result = []
        for i in range(self.size):
            row, copy = divmod(i, self.dims)
            total = self.constant(self.zero)
            for column in range(2):
                j = column * self.dims + copy
                for label, matrix, factor in (("A", part.sde.matrix, state), ("G", part.sde.score_gain, score)):
                    entry = self.entry(part, label, matrix, row, column)
                    total = [a + entry * b for a, b in zip(total, factor[j], strict=True)]
            result.append(total)
        return result

    def constant(self, g: Any) -> Series:
        """g as a series in h."""
        return [g, *(self.zero for _ in range(self.n))]

    def times(self, a: Series, b: Series) -> Series:
        """The product of two series, up to h^n."""
        result = self.constant(self.zero)
        for i, j in itertools.product(range(self.n + 1), repeat=2):
            if i + j <= self.n and a[i] and b[j]:
                result[i + j] += a[i] * b[j]
        return result

    def true_score(self, time: Fraction) -> list[Series]:
        """s(u, t - time h), per component."""
        powers = [(-time) ** k / math.factorial(k) for k in range(self.n)]
        return [
            [*(self.jet(i, k) * sp.QQ(c.numerator, c.denominator) for k, c in enumerate(powers)), self.zero]
            for i in range(self.size)
        ]

    def length(self, weight: Fraction, start: Fraction) -> Series:
        """theta = int beta over [t - (start + w) h, t - start h] = w h (beta - (start + w / 2) h beta'), w = weight."""
        theta = self.constant(self.zero)
        theta[1] = self.beta * _qq(weight)
        if self.n > 1:
            theta[2] = -self.dbeta * _qq(weight * (start + weight / 2))
        return theta

    def generate(self, part: Part, drift: list[Series], g: Series, position_noise: Any) -> Series:
        """L (g exp(p . u)) without the exponential, for L = drift . grad + 1/2 D : grad grad, where D in position is
        multiplied by `position_noise`."""

        def slope(entry: Any, i: int) -> Any:
            return self.d_state(entry, i) + self.p[i] * entry

        result = self.constant(self.zero)
        for i in range(self.size):
            slopes = [slope(entry, i) for entry in g]
            result = [a + b for a, b in zip(result, self.times(drift[i], slopes), strict=True)]
            row = i // self.dims
            half = self.entry(part, "D", part.sde.noise, row, row) * sp.QQ(1, 2) * (self.one if row else position_noise)
            if half:
                result = [a + half * slope(entry, i) for a, entry in zip(result, slopes, strict=True)]
        return result

    def along(self, drift: list[Series], g: Series) -> Series:
        """drift . grad g, for a function g."""
        result = self.constant(self.zero)
        for i in range(self.size):
            moved = self.times(drift[i], [self.d_state(entry, i) for entry in g])
            result = [a + b for a, b in zip(result, moved, strict=True)]
        return result

    def exponential(self, theta: Series, apply: Any, g: Series, order: int | None = None) -> Series:
        """exp(theta L) g up to h^order (default n), for theta = O(h)."""
        order = self.n if order is None else order
        total, term = list(g), list(g)
        for k in range(1, order + 1):
            # theta carries what is left out here beyond h^order
            term = apply([entry if power < order else self.zero for power, entry in enumerate(term)])
            term = [entry * sp.QQ(1, k) for entry in self.times(theta, term)]
            total = [a + b for a, b in zip(total, term, strict=True)]
        return total

    def substitute(self, g: Series, replacements: Mapping[Any, Series]) -> Series:
        """g with generators replaced by series in h."""
        indices = {self.index[str(generator)]: series for generator, series in replacements.items()}
        result = self.constant(self.zero)
        for power, entry in enumerate(g):
            groups: dict[tuple[tuple[int, int], ...], dict[Powers, Any]] = {}
            for monomial, coefficient in entry.terms():
                key = tuple((i, monomial[i]) for i in indices if monomial[i])
                rest = tuple(0 if i in indices else exponent for i, exponent in enumerate(monomial))
                groups.setdefault(key, {})[rest] = coefficient
            for key, terms in groups.items():
                product = self.constant(self.ring.from_dict(terms))
                for i, exponent in key:
                    for _ in range(exponent):
                        product = self.times(product, indices[i])
                for j in range(self.n + 1 - power):
                    result[power + j] += product[j]
        return result


def _qq(value: Fraction) -> Any:
    return sp.QQ(value.numerator, value.denominator)


def _multi_indices(size: int, order: int) -> Iterator[Powers]:
    """All tuples of `size` exponents >= 0 that sum to `order`."""
    for places in itertools.combinations_with_replacement(range(size), order):
        yield tuple(places.count(i) for i in range(size))


def local_error(scheme: Scheme, n: int, dims: int = 1, linear_beta: bool = True) -> list[dict[Powers, Expr]]:
    """The local weak error of one step at h^1 ... h^n, without zero coefficients: {powers of p: coefficient}.

    Powers run over the coordinates, positions first; coefficients are sympy expressions in the state, the parameters,
    beta, its derivative dbeta (0 unless `linear_beta`), lambda_s and the jets of the score. dims: data dimensions;
    every component of the score depends on all of them. A lambda_s other than 1 is carried to first order in h, where
    it decides.
    """
    if dims not in (1, 2) or isinstance(dims, bool):
        raise ValueError(f"dims = {dims}: orders are proven in 1 or 2 data dimensions")
    if n < 1 or (n > 1 and scheme.lambda_s != 1):
        raise ValueError(
            f"h^{n}: the expansion starts at h^1, and ends there if lambda_s is not 1, which decides at h^1"
        )
    check_holds_score(scheme, "a local error is")
    calculus = _Calculus(scheme, dims, n, linear_beta)
    g = calculus.constant(calculus.one)
    for position in reversed(range(len(scheme.tokens))):
        token = scheme.tokens[position]
        if token.weight is None:
            score = calculus.true_score(token.start)
            g = calculus.substitute(g, dict(zip(calculus.sigma, score, strict=True)))
        else:
            last = next((t for t in reversed(scheme.tokens[:position]) if t.is_score), None)
            g = _part(calculus, scheme, token, None if last is None else last.start, g)
    exact = _exact(calculus, scheme.splitting)
    return [_symbolic(calculus, g[k] - exact[k]) for k in range(1, n + 1)]


def _part(calculus: _Calculus, scheme: Scheme, token: Token, score_time: Fraction | None, g: Series) -> Series:
    """g after one part, by the sub-flow of the scheme; `score_time` is that of the S before it."""
    part = scheme.splitting[token.symbol]
    theta = calculus.length(token.weight or Fraction(1), token.start)
    frozen = [calculus.constant(sigma) for sigma in calculus.sigma]
    scale = calculus.noise_scale
    if score_time is None or not part.sde.uses_score or scheme.flow in ("exact", "true"):
        follows = score_time is not None and part.sde.uses_score and scheme.flow == "true"
        drift = calculus.drift(part, calculus.true_score(score_time) if follows and score_time is not None else frozen)
        return calculus.exponential(theta, lambda term: calculus.generate(part, drift, term, scale), g)
    # The drift vector is held fixed while f is expanded, and put in at the end.
    held = [calculus.constant(b) for b in calculus.b]
    drift = calculus.drift(part, frozen)
    if scheme.flow == "midpoint":
        half = [entry * sp.QQ(1, 2) for entry in theta]

        def moved_halfway(function: Series) -> Series:
            # theta multiplies the drift, so that it is needed up to h^(n - 1)
            there = calculus.exponential(half, lambda term: calculus.along(held, term), function, calculus.n - 1)
            return calculus.substitute(there, dict(zip(calculus.b, drift, strict=True)))

        there = [moved_halfway(calculus.constant(u)) for u in calculus.u]
        drift = calculus.drift(part, [moved_halfway(s) for s in calculus.true_score(score_time)], there)
    g = calculus.exponential(theta, lambda term: calculus.generate(part, held, term, scale), g)
    return calculus.substitute(g, dict(zip(calculus.b, drift, strict=True)))


def _exact(calculus: _Calculus, splitting: Splitting) -> Series:
    """exp(h (L - d/dt)) applied to exp(p . u)."""
    score = calculus.true_score(Fraction(0))
    beta = calculus.beta
    drifts = {part.name: calculus.drift(part, score) for part in splitting.parts}
    result, term = calculus.constant(calculus.one), calculus.one
    for k in range(1, calculus.n + 1):
        moved = -calculus.d_time(term)
        for part in splitting.parts:
            moved += beta * calculus.generate(part, drifts[part.name], calculus.constant(term), calculus.one)[0]
        term = moved * sp.QQ(1, k)
        result[k] = term
    return result


def _symbolic(calculus: _Calculus, g: Any) -> dict[Powers, Expr]:
    """The coefficients of an operator's symbol, with the parts' matrices put in, without the zero ones."""
    grouped: dict[Powers, dict[Powers, Any]] = {}
    first = calculus.index[str(calculus.p[0])]
    duals = range(first, first + calculus.size)
    for monomial, coefficient in g.terms():
        key = tuple(monomial[i] for i in duals)
        rest = tuple(0 if i in duals else exponent for i, exponent in enumerate(monomial))
        grouped.setdefault(key, {})[rest] = coefficient
    return {k: e for k, e in ((k, _with_entries(calculus, terms)) for k, terms in grouped.items()) if e != 0}


def _with_entries(calculus: _Calculus, terms: dict[Powers, Any]) -> Expr:
    """A polynomial with the entries of the parts' matrices as functions of the parameters, in terms of the rest."""
    names = list(calculus.index)
    entries = {calculus.index[name]: value for name, value in calculus.entries.items()}
    collected: dict[Expr, Expr] = {}
    for monomial, coefficient in terms.items():
        parameters, rest = sp.QQ.to_sympy(coefficient), sp.S.One
        for i, exponent in enumerate(monomial):
            if exponent and i in entries:
                parameters *= entries[i] ** exponent
            elif exponent:
                rest *= sp.Symbol(names[i]) ** exponent
        collected[rest] = collected.get(rest, sp.S.Zero) + parameters
    return sp.Add(*(sp.factor(sp.cancel(c)) * rest for rest, c in collected.items()))

"""The calculus that a word's weak error is expanded in: symbols of operators, as series in h over one polynomial ring.

A test function is f = exp(p . u), so that g exp(p . u) is known by its polynomial g, and so is an operator by what it
makes of f. Everything is expanded at one time t and in one step length h; an offset e stands for the time t - e h, and
functions of time and state are known by their jets at t (theory.indeterminates).

A flow over an interval of offsets is the time-ordered exponential of a generator L = drift . grad + 1/2 D : grad grad
whose coefficients may change with time: with z from 0 to 1 along the interval, g' = -L g backwards from what is given
at z = 1. The indeterminate y = 1 - z is the distance from the end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from .indeterminates import Indeterminates
from .parameters import COMPONENTS
from .polynomials import ONE, ZERO, Polynomial, add_product, exponents, kept, monomial, number
from .splitting import Part

Series = list[Polynomial]  # coefficients of h^0, h^1, ..., h^n


class Calculus(Indeterminates):
    """Series in the indeterminates up to h^n, their derivations, and the flows of a splitting's parts.

    noise_free: whether test functions are p . u, without the exponential, which say all where nothing is random.
    """

    noise_free = False

    def test_function(self) -> Series:
        """exp(p . u + h sum p_j . q_j), q_j what is held of the j-th evaluation from the last, without exp(p . u)."""
        if self.noise_free:
            return self.constant(sum((p * u for p, u in zip(self.p, self.u, strict=True)), ZERO))
        pairs = zip(itertools.chain(*self.dual), itertools.chain(*self.held), strict=False)
        exponent = sum((dual * held for dual, held in pairs), ZERO)
        powers = itertools.accumulate(range(1, self.n + 1), lambda g, k: g * exponent * sp.QQ(1, k), initial=ONE)
        return list(powers)

    # --- Series -------------------------------------------------------------------------------------------------------

    def constant(self, g: Polynomial) -> Series:
        """g as a series in h."""
        return [g, *(ZERO for _ in range(self.n))]

    def times(self, a: Series, b: Series) -> Series:
        """The product of two series, up to h^n."""
        totals: list[dict[int, Any]] = [{} for _ in range(self.n + 1)]
        for i, j in itertools.product(range(self.n + 1), repeat=2):
            if i + j <= self.n and a[i] and b[j]:
                add_product(totals[i + j], a[i], b[j])
        return [kept(total) for total in totals]

    def at(self, jets: Sequence[Polynomial], offset: Polynomial) -> Series:
        """A function of time with these derivatives at t, at t - offset h."""
        result, factor = self.constant(ZERO), ONE
        for k, jet in enumerate(jets[: self.n]):
            result[k] = jet * factor
            factor = factor * offset * sp.QQ(-1, k + 1)
        return result

    def held_function(self, offset: Polynomial) -> list[Series]:
        """q(u, t - offset h), per component; the score where that is what is held."""
        origin = (0,) * self.size
        found = []
        for i in range(self.size):
            names = [self._jets.get((i, origin, k)) for k in range(self.n)]
            found.append(self.at([self.generators[name] for name in names if name], offset))
        return found

    def reading(
        self, held: Sequence[Series], offset: Polynomial, state: Sequence[Series] | None = None
    ) -> list[Series]:
        """The score Phi u + Psi q at t - offset h of what is held, q, at u or at another state."""
        if not self.general:
            return list(held)
        state = [self.constant(u) for u in self.u] if state is None else state
        rows = []
        for i in range(self.size):
            row, copy = divmod(i, self.dims)
            total = self.constant(ZERO)
            for column in range(self.components):
                j = column * self.dims + copy
                for name, factor in (("Phi", state[j]), ("Psi", held[j])):
                    total = plus(total, self.times(self._matrix_function(name, row, column, offset), factor))
            rows.append(total)
        return rows

    def _matrix_function(self, name: str, row: int, column: int, offset: Polynomial) -> Series:
        base = f"{name}_{COMPONENTS[row]}{COMPONENTS[column]}"
        unit = [number(int(row == column))] if name == "Psi" else [self.generators[base]]
        return self.at(unit + [self.generators[f"{base},{'t' * k}"] for k in range(1, self.n)], offset)

    def drift(self, part: Part, score: Sequence[Series], state: Sequence[Series] | None = None) -> list[Series]:
        """The drift A u + G score per coordinate; at another state than u if given."""
        state = [self.constant(u) for u in self.u] if state is None else state
        result = []
        for i in range(self.size):
            row, copy = divmod(i, self.dims)
            total = self.constant(ZERO)
            for column in range(self.components):
                j = column * self.dims + copy
                for label, matrix, factor in (("A", part.sde.matrix, state), ("G", part.sde.score_gain, score)):
                    if entry := self.entry(part, label, matrix, row, column):
                        total = [a + entry * b for a, b in zip(total, factor[j], strict=True)]
            result.append(total)
        return result

    def half_noise(self, part: Part, position_noise: Polynomial = ONE) -> list[Series]:
        """D / 2 per coordinate, where D in position is multiplied by `position_noise`."""
        halves = []
        for i in range(self.size):
            row = i // self.dims
            half = self.entry(part, "D", part.sde.noise, row, row) * sp.QQ(1, 2)
            halves.append(self.constant(half if row else half * position_noise))
        return halves

    def clock(self, start: Polynomial, length: Polynomial) -> Series:
        """d theta / dz on the offsets [start, start + length]: length h beta(t - e h) at e = start + z length."""
        theta = self.constant(ZERO)
        theta[1] = self.beta * length
        if self.n > 1:
            theta[2] = -(theta[1] * self.rate * (start + length * (ONE - self.y)))
        return theta

    def theta(self, start: Polynomial, length: Polynomial) -> Series:
        """theta = int beta over the offsets [start, start + length]."""
        theta = self.constant(ZERO)
        theta[1] = self.beta * length
        if self.n > 1:
            theta[2] = -(theta[1] * self.rate * (start + length * sp.QQ(1, 2)))
        return theta

    def interpolated(self, evaluations: Sequence[Polynomial], offset: Polynomial) -> list[Series]:
        """What is held at an offset, as the polynomial in the clock through the evaluations at other offsets, the last
        one first."""
        return self._through(evaluations, [offset])

    def interpolated_midway(
        self, evaluations: Sequence[Polynomial], start: Polynomial, end: Polynomial
    ) -> list[Series]:
        """The same where the clock is half way between two offsets."""
        return self._through(evaluations, [start, end])

    def _through(self, evaluations: Sequence[Polynomial], offsets: Sequence[Polynomial]) -> list[Series]:
        """Where the clock is at the mean of what it is at `offsets`. Lagrange's factors are (c(e) - c(e_i)) / (c(e_j) -
        c(e_i)) = (e - e_i) / (e_j - e_i) times the ratio of the `_slope_of_clock`."""
        total = [self.constant(ZERO) for _ in range(self.size)]
        for j, own in enumerate(evaluations):
            weight = self.constant(ONE)
            for i, other in enumerate(evaluations):
                if i != j:
                    passed = self.constant(ZERO)
                    for offset in offsets:
                        length = (offset - other) * sp.QQ(1, len(offsets))
                        passed = plus(passed, [s * length for s in self._slope_of_clock(offset, other)])
                    apart = self._reciprocal(self._slope_of_clock(own, other))
                    weight = self.times(weight, [entry * self.inverse(own - other) for entry in passed])
                    weight = self.times(weight, apart)
            for c in range(self.size):
                total[c] = plus(total[c], [entry * self.held[j][c] for entry in weight])
        return total

    def _slope_of_clock(self, a: Polynomial, b: Polynomial) -> Series:
        """(c(t - a h) - c(t - b h)) / (-c'(t) h (a - b)) = 1 + sum_k>1 c_k (-h)^(k-1) / k! sum_i a^i b^(k-1-i)."""
        slope, sums, power = self.constant(ONE), ONE, ONE
        for k, curvature in enumerate(self.curve[: self.n], 2):
            power = power * b
            sums = sums * a + power
            slope[k - 1] = curvature * sums * sp.QQ((-1) ** (k - 1), math.factorial(k))
        return slope

    def _reciprocal(self, a: Series) -> Series:
        """1 / a of a series that begins with 1."""
        found = self.constant(ONE)
        for k in range(1, self.n + 1):
            found[k] = -sum((a[j] * found[k - j] for j in range(1, k + 1)), ZERO)
        return found

    # --- Operators ----------------------------------------------------------------------------------------------------

    def d_state(self, g: Polynomial, i: int) -> Polynomial:
        """dg/du_i, through u and through the jets."""
        total: dict[int, Any] = {}
        shifts, decoded = self._shift[i], self.decoded
        for key, coefficient in g.terms.items():
            held = decoded.get(key)
            if held is None:
                held = decoded[key] = tuple(exponents(key))
            for place, exponent in held:
                if place in shifts:
                    shift = shifts[place]
                    if shift is None:
                        raise AssertionError(
                            "a jet beyond the expansion's order"
                        )  # the bound in _declare_jets is wrong
                    moved = key + shift
                    total[moved] = total.get(moved, 0) + coefficient * exponent
        return kept(total)

    def evolve(
        self,
        theta: Series,
        drift: Sequence[Series],
        half_noise: Sequence[Series] | None,
        g: Series,
        order: int | None = None,
    ) -> Series:
        """The expectation of g exp(p . u) at the end of a flow, without the exponential, as a function of its start.

        theta: d theta / dz, which may hold y, as the drift may. half_noise: D / 2; None, if g is a plain function,
        without the exponential, that is carried along a drift. order: of h, up to which it is wanted (default n).
        """
        n = self.n if order is None else order
        if self.noise_free:
            half_noise = None
        moves = [self.times(theta, entry) for entry in drift]
        halves = None if half_noise is None else [self.times(theta, entry) for entry in half_noise]
        pending: list[dict[int, Any]] = [{} for _ in range(n + 1)]
        result = list(g)
        for j in range(n + 1):
            result[j] = self._grown(pending[j], g[j])
            if j == n or not result[j]:
                continue
            for i in range(self.size):
                slope = self._slope(result[j], i, halves is not None)
                second = self._slope(slope, i, True) if halves is not None and any(halves[i]) else ZERO
                for k in range(1, n - j + 1):
                    if moves[i][k]:
                        add_product(pending[j + k], moves[i][k], slope)
                    if second and halves is not None and halves[i][k]:
                        add_product(pending[j + k], halves[i][k], second)
        return [self.substituted(entry, {"y": ONE}) for entry in result]

    def _slope(self, g: Polynomial, i: int, dual: bool) -> Polynomial:
        return self.d_state(g, i) + self.p[i] * g if dual else self.d_state(g, i)

    def _grown(self, total: Mapping[int, Any], end: Polynomial) -> Polynomial:
        """end + int_0^y of what is given."""
        y = self.generators.place["y"]
        unit = monomial(y)
        grown = {key + unit: value / (self.generators.exponent(key, y) + 1) for key, value in total.items() if value}
        return end + Polynomial(grown)

    def substituted(self, g: Polynomial, values: Mapping[str, Polynomial]) -> Polynomial:
        """g with generators replaced by polynomials."""
        return self.substitute([g], {name: [value] for name, value in values.items()}, 0)[0]

    def substitute(self, g: Series, replacements: Mapping[str, Series], n: int | None = None) -> Series:
        """g with generators replaced by series in h, up to h^n."""
        n = self.n if n is None else n
        places = {self.generators.place[name]: series for name, series in replacements.items()}
        totals: list[dict[int, Any]] = [{} for _ in range(n + 1)]
        powers: dict[tuple[tuple[int, int], ...], Series] = {(): [ONE, *(ZERO for _ in range(n))]}
        for power, entry in enumerate(g):
            groups: dict[tuple[tuple[int, int], ...], dict[int, Any]] = {}
            for key, coefficient in entry.terms.items():
                found = tuple((i, e) for i in places if (e := self.generators.exponent(key, i)))
                rest = key - sum(e * monomial(i) for i, e in found)
                groups.setdefault(found, {})[rest] = coefficient
            for found, terms in groups.items():
                product = self._product(found, places, powers, n)
                rest = Polynomial(terms)
                for j in range(n + 1 - power):
                    if product[j]:
                        add_product(totals[power + j], product[j], rest)
        return [kept(total) for total in totals]

    def renamed(self, g: Series, old: str, new: str) -> Series:
        """g with the vectors held0, held1, ... under other names."""
        pairs = ((f"{old}{j}", f"{new}{j}") for j in range(len(self.held)))
        names = {a: self.generators[b] for pair in pairs for a, b in zip(*map(self.names, pair), strict=True)}
        _ = [self.generators[name] for name in names]
        return [self.substituted(entry, names) for entry in g]

    def _product(
        self,
        found: tuple[tuple[int, int], ...],
        places: Mapping[int, Series],
        powers: dict[tuple[tuple[int, int], ...], Series],
        n: int,
    ) -> Series:
        """The product of powers of the replacements, kept in `powers`."""
        if found not in powers:
            (i, exponent), rest = found[0], found[1:]
            lower = ((i, exponent - 1), *rest) if exponent > 1 else rest
            before = self._product(lower, places, powers, n)
            totals: list[dict[int, Any]] = [{} for _ in range(n + 1)]
            for a, b in itertools.product(range(n + 1), repeat=2):
                if a + b <= n and before[a] and places[i][b]:
                    add_product(totals[a + b], before[a], places[i][b])
            powers[found] = [kept(total) for total in totals]
        return powers[found]


def plus(a: Series, b: Series) -> Series:
    """The sum of two series."""
    return [x + y for x, y in zip(a, b, strict=True)]

"""The indeterminates of a word's local error: states, duals, what is held, matrices of parts, jets, lengths of steps.

Names are those of formulas (theory.formulas):

    s(u, t) = Phi(t) u + Psi(t) q(u, t)     what is held, q, is any smooth function, Phi and Psi any smooth matrices
    q_x,mt  Phi_xm,t  Psi_xm,t              their jets at t: values and partial derivatives, as independent symbols
    c_2  c_3                                c''/c' and c'''/c' at t of a clock c(t), any smooth one (theory.clock)

q is counted in units in which Psi(t) = 1. A scheme that holds the score has Phi = 0, Psi = 1, and jets s_x,mt.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy import Expr, Matrix

from .polynomials import ZERO, Generators, Polynomial, exponents, monomial, number
from .splitting import Part, Splitting
from .weak_order import Powers, coordinate_names


class Indeterminates:
    """The generators of the ring of a splitting's words up to h^n, and what polynomials in them are in sympy.

    They are the state u (n d: positions, then momenta, ...), its duals p, for each evaluation that is remembered what
    is held and its dual, a frozen drift b, beta and the rate beta' / beta (beta is linear in t), the entries of the
    parts' matrices, the jets. dims: d. general: whether Phi and Psi are any, else 0 and 1. memory: evaluations
    remembered. any_clock: whether the clock is any, else int beta.
    """

    def __init__(
        self,
        splitting: Splitting,
        dims: int,
        n: int,
        linear_beta: bool = True,
        general: bool = False,
        memory: int = 1,
        any_clock: bool = False,
    ) -> None:
        self.components = splitting.diffusion.size
        self.splitting, self.dims, self.n, self.size = splitting, dims, n, self.components * dims
        self.general = general
        self.coordinates = coordinate_names(dims, splitting.diffusion.components)
        arguments = splitting.diffusion.score_names
        self.seen = [i for i in range(self.size) if general or splitting.diffusion.components[i // dims] in arguments]
        self.in_time = general or "t" in arguments
        self.entries: dict[str, Expr] = {"rate": sp.Symbol("dbeta") / sp.Symbol("beta")}
        self._inverses: dict[str, Polynomial] = {}
        self._factored: dict[Expr, Expr] = {}
        self.decoded: dict[int, tuple[tuple[int, int], ...]] = {}  # what monomials hold, once it was asked for
        self.generators = Generators()
        self.u = [self.generators[c] for c in self.coordinates]
        self.p, self.b = self._vector("p"), self._vector("b")
        self.held = [self._vector(f"held{j}") for j in range(memory)]
        self.dual = [self._vector(f"p{j}") for j in range(memory - 1)]
        self.y, self.beta, self.lambda_s = (self.generators[name] for name in ("y", "beta", "lambda_s"))
        self.rate = self.generators["rate"] if linear_beta else ZERO
        self.curve = [self.generators[f"c_{k}"] for k in range(2, n + 1)] if any_clock else [self.rate]
        self._declare_jets(any(part.sde.has_noise for part in splitting.parts))

    def _declare_jets(self, noisy: bool) -> None:
        """The jets that h^n sees, and for each direction what a derivative makes of u and of them.

        A time derivative takes a power of h, and a space derivative half a power where there is noise, else a whole.
        """
        family = "q" if self.general else "s"
        cost, most = (1, 2 * (self.n - 1)) if noisy else (2, 2 * (self.n - 1))
        self._jets: dict[tuple[int, Powers, int], str] = {}
        for k in range(self.n if self.in_time else 1):
            for order in range((most - 2 * k) // cost + 1):
                for powers in _multi_indices(self.size, order):
                    if all(powers[i] == 0 for i in range(self.size) if i not in self.seen):
                        for component in range(self.size):
                            letters = "".join(c * e for c, e in zip(self.coordinates, powers, strict=True)) + "t" * k
                            name = f"{family}_{self.coordinates[component]}" + (f",{letters}" if letters else "")
                            self._jets[component, powers, k] = name
                            _ = self.generators[name]
        # Multiplying by 2^shift takes a generator from a monomial and puts its derivative in; None is beyond h^n.
        self._shift: list[dict[int, int | None]] = []
        for i in range(self.size):
            place = self.generators.place
            shifts: dict[int, int | None] = {place[self.coordinates[i]]: -monomial(place[self.coordinates[i]])}
            for (component, powers, k), name in self._jets.items() if i in self.seen else ():
                raised = (component, tuple(e + (j == i) for j, e in enumerate(powers)), k)
                target = self._jets.get(raised)
                source = place[name]
                shifts[source] = None if target is None else monomial(place[target]) - monomial(source)
            self._shift.append(shifts)

    def entry(self, part: Part, label: str, matrix: Matrix, i: int, j: int) -> Polynomial:
        """An entry of a part's matrix: a generator, or a rational number."""
        value: Any = matrix[i, j]
        if value.is_Rational:
            return number(value)
        self.entries[f"{label}_{part.name}_{i}{j}"] = value
        return self.generators[f"{label}_{part.name}_{i}{j}"]

    def names(self, prefix: str) -> list[str]:
        """The names of the generators of a vector: p, b, held0, p0, ..."""
        return [f"{prefix}_{c}" for c in self.coordinates]

    def _vector(self, prefix: str) -> list[Polynomial]:
        return [self.generators[name] for name in self.names(prefix)]

    def inverse(self, value: Polynomial) -> Polynomial:
        """1 / value, of a number, or of what depends on the lengths of steps alone."""
        if list(value.terms) == [0]:
            return Polynomial({0: 1 / value.terms[0]})
        if value.terms[max(value.terms)] < 0:
            return -self.inverse(-value)
        name = f"1/({self.expression(value)})"
        self._inverses[name] = value
        return self.generators[name]

    def coefficient(self, g: Polynomial, name: str) -> Polynomial:
        """The coefficient of a generator's first power."""
        place = self.generators.place[name]
        terms = g.terms.items()
        return Polynomial({k - monomial(place): c for k, c in terms if self.generators.exponent(k, place) == 1})

    def vanishes(self, g: Polynomial) -> bool:
        """Whether a polynomial is zero, the inverses in it brought to a common denominator."""
        for name, value in self._inverses.items():
            place = self.generators.place[name]
            groups: dict[int, dict[int, Any]] = {}
            for key, coefficient in g.terms.items():
                exponent = self.generators.exponent(key, place)
                groups.setdefault(exponent, {})[key - exponent * monomial(place)] = coefficient
            g = ZERO
            for exponent in range(max(groups, default=0) + 1):  # by Horner's rule: times value^highest in the end
                g = g * value + Polynomial(groups.get(exponent, {}))
        return not g

    def expression(self, g: Polynomial) -> Expr:
        """A polynomial in sympy."""
        return sp.Add(*(c * rest for rest, c in self._symbols(g).items()))

    def operator(self, g: Polynomial, duals: Sequence[Polynomial]) -> dict[Powers, Expr]:
        """The coefficients of an operator's symbol by the powers of its duals, without the zero ones."""
        places = [place for dual in duals for key in dual.terms for place, _ in exponents(key)]
        grouped: dict[Powers, dict[int, Any]] = {}
        for key, coefficient in g.terms.items():
            powers = tuple(self.generators.exponent(key, place) for place in places)
            rest = key - sum(e * monomial(place) for e, place in zip(powers, places, strict=True))
            grouped.setdefault(powers, {})[rest] = coefficient
        found: dict[Powers, Expr] = {}
        for powers, terms in grouped.items():
            parts = self._symbols(Polynomial(terms)).items()
            value: Any = sp.Add(*(self._in_factors(c) * rest for rest, c in parts))
            if value != 0:
                found[powers] = value
        return found

    def _symbols(self, g: Polynomial) -> dict[Expr, Expr]:
        """A polynomial as {product of what is not a parameter: its coefficient}, the entries of the parts' matrices in
        terms of the parameters."""
        collected: dict[Any, Any] = {}
        for key, coefficient in g.terms.items():
            parameters, rest = sp.QQ.to_sympy(coefficient), sp.S.One
            for place, exponent in exponents(key):
                name = self.generators.names[place]
                if name in self.entries and name != "rate":
                    parameters *= self.entries[name] ** exponent
                else:
                    rest *= self.entries.get(name, sp.Symbol(name)) ** exponent
            collected[rest] = collected.get(rest, sp.S.Zero) + parameters
        return collected

    def _in_factors(self, c: Expr) -> Expr:
        """A function of the parameters, factored; most differ by a number alone."""
        content, primitive = c.primitive() if c.is_Add else c.as_coeff_Mul()
        if primitive not in self._factored:  # twice it, so that sympy takes the sign of a sum out of it
            factored: Any = sp.factor(sp.cancel(2 * primitive))
            self._factored[primitive] = factored
        number, factors = self._factored[primitive].as_coeff_Mul()
        number = content * number / 2
        # sympy's product of a number and a sum would be a sum
        return sp.Mul(number, factors, evaluate=False) if factors.is_Add and abs(number) != 1 else number * factors


def _multi_indices(size: int, order: int) -> Iterator[Powers]:
    """All tuples of `size` exponents >= 0 that sum to `order`."""
    for places in itertools.combinations_with_replacement(range(size), order):
        yield tuple(places.count(i) for i in range(size))

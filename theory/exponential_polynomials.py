"""Exponential polynomials in theta, sum_j c_j theta^p_j exp(r_j theta): what the entries of a flow are.

collect, expand, shown      an expression as {(power, rate): coefficient}, and back: term by term, or rate by rate
ExponentialPolynomial       the same over a field; sums and products take no longer than they have terms
in_one_field, expression    flows with such entries from those of sympy's, and an entry's formula

A step is a product of flows. sympy's `simplify`, which looks for a short form of such a product, makes polynomials of
its exponentials: weights without a small common denominator keep it looking for many minutes. Here nothing has to be
found: a product's terms are known, and like ones are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from sympy import Expr

from .flows import Flow
from .symbols import theta

Collected = dict[tuple[int, Expr], Expr]


def collect(entry: Expr) -> Collected:
    """An exponential polynomial in theta as {(power, rate): coefficient}. Raises ValueError on what is none, or is not
    written as one."""
    rates: dict[Any, Any] = {exponential: sp.Dummy() for exponential in sorted(entry.atoms(sp.exp), key=str)}
    try:
        polynomial = sp.Poly(sp.cancel(entry.xreplace(rates)), theta, *rates.values())
    except sp.PolynomialError as error:
        raise ValueError(f"{entry} is not an exponential polynomial in theta") from error
    collected: Collected = {}
    for (power, *multiples), coefficient in polynomial.terms():
        exponent = sp.Add(*(k * e.args[0] for k, e in zip(multiples, rates, strict=True)))
        key = (power, sp.simplify(exponent / theta))
        if key[1].has(theta):
            raise ValueError(f"{entry} is not an exponential polynomial in theta")
        collected[key] = collected.get(key, sp.S.Zero) + coefficient
    simplified: dict[Any, Any] = {key: sp.factor(sp.simplify(c)) for key, c in collected.items()}
    return {key: coefficient for key, coefficient in simplified.items() if coefficient != 0}


def expand(collected: Collected) -> Expr:
    """The expression that `collect` collected."""
    return sp.Add(*(c * theta**power * sp.exp(rate * theta) for (power, rate), c in collected.items()))


class ExponentialPolynomial:
    """{(power, rate): coefficient} without zeros; coefficients and rates are elements of one field. Immutable."""

    def __init__(self, terms: Mapping[tuple[int, Any], Any]) -> None:
        self.terms = {key: coefficient for key, coefficient in terms.items() if coefficient}

    def __add__(self, other: ExponentialPolynomial) -> ExponentialPolynomial:
        return _total((*self.terms.items(), *other.terms.items()))

    def __mul__(self, other: ExponentialPolynomial) -> ExponentialPolynomial:
        return _total(
            ((power + by, rate + faster), coefficient * factor)
            for (power, rate), coefficient in self.terms.items()
            for (by, faster), factor in other.terms.items()
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExponentialPolynomial) and self.terms == other.terms

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def at_multiple(self, weight: Any) -> ExponentialPolynomial:
        """Of weight * theta in theta's place; `weight` is an element of the field."""
        return ExponentialPolynomial({(p, rate * weight): c * weight**p for (p, rate), c in self.terms.items()})


def _total(terms: Iterable[tuple[tuple[int, Any], Any]]) -> ExponentialPolynomial:
    total: dict[tuple[int, Any], Any] = {}
    for key, coefficient in terms:
        total[key] = total[key] + coefficient if key in total else coefficient
    return ExponentialPolynomial(total)


def in_one_field(flows: Sequence[Flow]) -> tuple[Any, list[Flow]]:
    """The field of all coefficients and rates of flows in sympy's matrices, and the flows with an ExponentialPolynomial
    for each entry, as numpy arrays. Raises ValueError on entries that are no exponential polynomials."""
    collected = [[[collect(entry) for entry in matrix.flat()] for matrix in flow] for flow in flows]
    terms = [term for flow in collected for matrix in flow for entry in matrix for term in entry.items()]
    numbers = [number for (_, rate), coefficient in terms for number in (rate, coefficient)]
    field, _ = sp.construct_domain([sp.S.One, *numbers], field=True)

    def of(entries: list[Collected]) -> NDArray[Any]:
        number, matrix = field.from_sympy, np.empty(len(entries), dtype=object)
        matrix[:] = [ExponentialPolynomial({(p, number(r)): number(c) for (p, r), c in e.items()}) for e in entries]
        return matrix.reshape(2 * (math.isqrt(len(entries)),))

    return field, [Flow(*map(of, flow)) for flow in collected]


def unit(field: Any, n: int) -> Flow:
    """The flow that does nothing, n x n."""
    nothing = np.full((n, n), ExponentialPolynomial({}), dtype=object)
    propagator = nothing.copy()
    np.fill_diagonal(propagator, ExponentialPolynomial({(0, field.zero): field.one}))
    return Flow(propagator, nothing, nothing)


def expression(polynomial: ExponentialPolynomial, field: Any) -> Expr:
    """Its formula, as it is shown."""
    number = field.to_sympy
    return shown({(power, number(rate)): number(c) for (power, rate), c in polynomial.terms.items()})


def shown(collected: Collected) -> Expr:
    """Rate by rate, each time a polynomial in theta: in factors or power by power, whichever is shorter."""
    by_rate: dict[Expr, list[Any]] = {}
    for (power, rate), coefficient in collected.items():
        by_rate.setdefault(rate, []).append(sp.factor(coefficient) * theta**power)
    return sp.Add(*(_shorter(sp.Add(*terms)) * sp.exp(sp.factor(rate) * theta) for rate, terms in by_rate.items()))


def _shorter(polynomial: Expr) -> Any:
    factors = sp.collect(sp.factor(polynomial), theta, sp.factor)
    return min((polynomial, factors), key=sp.count_ops)

"""Sparse polynomials with rational coefficients in very many indeterminates: what theory.local_error calculates in.

A monomial is one integer, `_BITS` bits for the exponent of each generator, so that monomials are multiplied by adding
integers. Rings here have hundreds of generators, the jets of a score, of which a term holds a few: as tuples of
exponents, sympy's representation, the same sums take some thirty times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sympy as sp

_BITS = 6
_ONES = (1 << _BITS) - 1


class Polynomial:
    """A polynomial: {monomial: coefficient}, without zero coefficients. Not to be changed once it is made."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[int, Any]) -> None:
        self.terms = terms

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __eq__(self, other: object) -> bool:
        return self.terms == other.terms if isinstance(other, Polynomial) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Polynomial) -> Polynomial:
        if not self.terms or not other.terms:
            return other if not self.terms else self
        total = dict(self.terms)
        add_product(total, other, ONE)
        return Polynomial({key: value for key, value in total.items() if value})

    def __neg__(self) -> Polynomial:
        return Polynomial({key: -value for key, value in self.terms.items()})

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + -other

    def __mul__(self, other: Any) -> Polynomial:
        """The product with a polynomial, or with a rational number."""
        if not isinstance(other, Polynomial):
            return Polynomial({key: value * other for key, value in self.terms.items()} if other else {})
        total: dict[int, Any] = {}
        add_product(total, self, other)
        return Polynomial({key: value for key, value in total.items() if value})


def add_product(total: dict[int, Any], a: Polynomial, b: Polynomial) -> None:
    """total += a b, in place; coefficients that become zero stay."""
    get = total.get
    small, large = (a, b) if len(a.terms) < len(b.terms) else (b, a)
    for key, value in small.terms.items():
        for other, coefficient in large.terms.items():
            monomial = key + other
            total[monomial] = get(monomial, 0) + value * coefficient


def kept(total: Mapping[int, Any]) -> Polynomial:
    """The polynomial of sums that may hold zeros."""
    return Polynomial({key: value for key, value in total.items() if value})


ZERO, ONE = Polynomial({}), Polynomial({0: sp.QQ(1)})


def rational(value: Any) -> Any:
    """A Fraction, an integer or a rational number of sympy as a coefficient."""
    return sp.QQ(value.numerator, value.denominator)


def number(value: Any) -> Polynomial:
    """The constant polynomial of a rational number."""
    return Polynomial({0: rational(value)}) if value else ZERO


class Generators:
    """The generators of a ring by name, each of which comes to be when it is first asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.place: dict[str, int] = {}

    def __getitem__(self, name: str) -> Polynomial:
        """The generator as a polynomial."""
        if name not in self.place:
            self.place[name] = len(self.names)
            self.names.append(name)
        return Polynomial({monomial(self.place[name]): sp.QQ(1)})

    @staticmethod
    def exponent(key: int, place: int) -> int:
        """The exponent of a generator in a monomial."""
        return key >> _BITS * place & _ONES


def monomial(place: int) -> int:
    """The monomial that is one generator."""
    return 1 << _BITS * place


def exponents(key: int) -> Iterator[tuple[int, int]]:
    """(place, exponent) of the generators that a monomial holds."""
    while key:
        place = ((key & -key).bit_length() - 1) // _BITS
        exponent = key >> _BITS * place & _ONES
        yield place, exponent
        key -= exponent << _BITS * place

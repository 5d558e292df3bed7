"""The weak order of a word, as a theorem about every score function, and the leading term of its local error.

theory.local_error expands the weak error of one step in h: the order is the smallest power of h with a non-zero
coefficient, minus one. It holds for each score and is sharp for a generic one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .cache import cached
from .scheme import Scheme, check_holds_score

if TYPE_CHECKING:
    from sympy import Expr

Powers = tuple[int, ...]
# How symbols are set in LaTeX; the jets of the score, s_x,m = ds_x/dm, set themselves.
_LATEX = {"dbeta": r"\beta'", "lambda_s": r"\lambda_s"}
# Orders above 2 need negative weights (Sheng 1989, Suzuki 1991), which the language has not; h^4 is looked at as well.
_HIGHEST = 4


class Coefficient(NamedTuple):
    """The local error of one monomial of the increments, (x - x_0)^i (m - m_0)^j for the powers (i, j): its formula
    (theory.formulas) and its LaTeX."""

    powers: Powers
    text: str
    latex: str


@dataclass(frozen=True)
class OrderProof:
    """The weak order of a word, for every score, and the leading term of its local error.

    order: an integer >= 0, or None if no error shows up to h^`searched`. coefficients: of h^(order + 1), one for each
    monomial of the increments whose error is not zero, with the powers over `coordinates`.
    """

    order: int | None
    searched: int
    coordinates: tuple[str, ...]
    coefficients: tuple[Coefficient, ...]

    @classmethod
    def of(cls, order: int | None, coordinates: tuple[str, ...], leading: Mapping[Powers, Expr]) -> OrderProof:
        """The proof with the leading error `leading`, see the property."""
        return cls(order, _HIGHEST, coordinates, coefficients(leading))

    @cached_property
    def leading(self) -> dict[Powers, Expr]:
        """The leading local error as the symbol of an operator: {powers of p: coefficient}; i! j! times that of
        p_x^i p_m^j is the error of (x - x_0)^i (m - m_0)^j."""
        from .formulas import parse
        from .symbols import PARAMETERS

        symbols = {str(symbol): symbol for symbol in PARAMETERS}
        return {c.powers: parse(c.text, symbols) / _factorials(c.powers) for c in self.coefficients}

    def named(self) -> dict[str, Coefficient]:
        """The coefficients by their monomials, such as "dx^2 dm"."""
        names = {}
        for coefficient in self.coefficients:
            factors = [
                f"d{name}" + (f"^{power}" if power > 1 else "")
                for name, power in zip(self.coordinates, coefficient.powers, strict=True)
                if power
            ]
            names[" ".join(factors)] = coefficient
        return names

    def monomials(self) -> dict[str, Expr]:
        """The leading local error of each monomial of the increments, in sympy."""
        return {name: self.leading[c.powers] * _factorials(c.powers) for name, c in self.named().items()}


def prove_order(scheme: Scheme, dims: int = 1, linear_beta: bool = True) -> OrderProof:
    """The weak order of `scheme`, as a theorem about every smooth score, and its leading local error.

    dims: data dimensions (1 or 2), whose scores are fully coupled. linear_beta: beta linear in t; else constant, for
    which slips of a clock are harmless. Proven once. Raises ValueError on another dims, and on a scheme that holds
    anything but the last score.
    """
    check_holds_score(scheme, "an order as a theorem is")
    declaration = [(part.name, part.sde.declaration) for part in scheme.splitting.parts]
    scaled = "" if scheme.lambda_s == 1 else "lambda_s"
    arguments = scheme.splitting.diffusion.score_names
    question = ("order", scheme.word, scheme.flow, scaled, declaration, arguments, str(dims), linear_beta)
    order, found = cached(question, lambda: _search(scheme, dims, linear_beta))
    leading = tuple(Coefficient(tuple(powers), text, latex) for powers, text, latex in found)
    return OrderProof(order, _HIGHEST, coordinate_names(dims), leading)


def coordinate_names(dims: int) -> tuple[str, ...]:
    """x, m; in two dimensions x1, x2, m1, m2."""
    suffixes = [""] if dims == 1 else [str(i + 1) for i in range(dims)]
    return tuple(f"{name}{suffix}" for name in ("x", "m") for suffix in suffixes)


def coefficients(leading: Mapping[Powers, Expr]) -> tuple[Coefficient, ...]:
    """The local error of each monomial, from the symbol of the operator, see `OrderProof.leading`."""
    import sympy as sp

    from .formulas import text

    found = []
    for powers, value in sorted(leading.items(), key=lambda item: (sum(item[0]), item[0][::-1])):
        error: Any = value * _factorials(powers)
        names = {symbol: _LATEX[str(symbol)] for symbol in error.free_symbols if str(symbol) in _LATEX}
        found.append(Coefficient(powers, text(error), sp.latex(error, symbol_names=names)))
    return tuple(found)


def _factorials(powers: Powers) -> int:
    return math.prod(math.factorial(power) for power in powers)


def _search(scheme: Scheme, dims: int, linear_beta: bool) -> tuple[int | None, tuple[Coefficient, ...]]:
    from .local_error import local_error

    for n in range(1, _HIGHEST + 1):
        if error := local_error(scheme, n, dims, linear_beta)[-1]:
            return n - 1, coefficients(error)
    return None, ()

"""The weak order of a word, as a theorem about every score function, and the leading term of its local error.

theory.local_error expands the weak error of one step in h: the order is the smallest power of h with a non-zero
coefficient, minus one. It holds for each score and is sharp for a generic one.

A scheme that remembers k evaluations has them from its k-th step on; before, it uses what there is. The first steps are
those of the same word with memory 1, 2, ..., k - 1, and each is made once in a run, not 1/h times: an order q of such a
step leaves h^(q + 1) at the end. So the order of a run is

    min(order of the steps with memory k,  1 + order of those with memory j < k),

the error constant of a run has a part from the start where that is what limits, and a word of order 1 with memory 1 has
order 2 at most, whatever it remembers. A start that keeps a higher order p is made of first steps of order p - 1, or of
order q < p - 1 and of length h^(p / (q + 1)): with q = 1, p = 3, one first step of length h^(3/2). On a grid whose
first k - 1 steps have lengths of about h^2 ("graded", integrators.grids) those of order q leave h^(2 (q + 1)), and
2 (q + 1) stands for q + 1 in the minimum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .cache import cached
from .frozen import SCORE_HELD
from .scheme import Scheme

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

    order: that of a run, an integer >= 0, or None if no error shows up to h^`searched`. coefficients: of h^(order + 1),
    one for each monomial of the increments whose error is not zero, with the powers over `coordinates`.
    With memory, order_of_steps is what the order would be but for the start (else the order), and is the one that
    `coefficients` are of; start holds the coefficients of h^order in the error of the first steps, empty where they
    leave less; any_steps is whether the order holds for steps of any lengths (else it is proven for equal ones).
    order_if_graded is that of a run on a graded grid: without memory, the order.
    """

    order: int | None
    searched: int
    coordinates: tuple[str, ...]
    coefficients: tuple[Coefficient, ...]
    order_of_steps: int | None = None
    start: tuple[Coefficient, ...] = ()
    any_steps: bool = True
    order_if_graded: int | None = None

    @classmethod
    def of(cls, order: int | None, coordinates: tuple[str, ...], leading: Mapping[Powers, Expr]) -> OrderProof:
        """The proof with the leading error `leading`, see the property."""
        return cls(order, _HIGHEST, coordinates, coefficients(leading), order, order_if_graded=order)

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
        return named(self.coordinates, self.coefficients)

    def monomials(self) -> dict[str, Expr]:
        """The leading local error of each monomial of the increments, in sympy."""
        return {name: self.leading[c.powers] * _factorials(c.powers) for name, c in self.named().items()}


def named(coordinates: Sequence[str], error: Sequence[Coefficient]) -> dict[str, Coefficient]:
    """Coefficients by their monomials in the increments of `coordinates`, such as "dx^2 dm"."""
    names = {}
    for coefficient in error:
        factors = [
            f"d{name}" + (f"^{power}" if power > 1 else "")
            for name, power in zip(coordinates, coefficient.powers, strict=True)
            if power
        ]
        names[" ".join(factors)] = coefficient
    return names


def prove_order(scheme: Scheme, dims: int = 1, linear_beta: bool = True) -> OrderProof:
    """The weak order of `scheme`, as a theorem about every smooth score, and its leading local error.

    dims: data dimensions (1 or 2), whose scores are fully coupled. linear_beta: beta linear in t; else constant, for
    which slips of a clock are harmless. If anything but the score is held, the theorem is one for all that may be:
    every smooth q, Phi and Psi; and if the memory has a clock other than int beta, one for every smooth clock. Proven
    once. Raises ValueError on another dims, and on words with memory that theory.local_error cannot expand.
    """
    if scheme.memory > 1:
        return _prove_run(scheme, dims, linear_beta)
    order, found = cached(_question(scheme, dims, linear_beta), lambda: _search(scheme, dims, linear_beta))
    return OrderProof(order, _HIGHEST, _coordinates(scheme, dims), _read(found), order, order_if_graded=order)


def _prove_run(scheme: Scheme, dims: int, linear_beta: bool) -> OrderProof:
    question = _question(scheme, dims, linear_beta)
    steps, found, any_steps = cached(question, lambda: _search_with_memory(scheme, dims, linear_beta))
    firsts = [prove_order(scheme.remembering(j), dims, linear_beta) for j in range(1, scheme.memory)]
    left = [None if first.order_of_steps is None else first.order_of_steps + 1 for first in firsts]
    order = min((power for power in (steps, *left) if power is not None), default=None)
    limiting = [first for first, power in zip(firsts, left, strict=True) if power == order is not None]
    start = limiting[0].coefficients if len(limiting) == 1 else coefficients(_sum(limiting))
    left_if_graded = [2 * power for power in left if power is not None]
    graded = min((power for power in (steps, *left_if_graded) if power is not None), default=None)
    return OrderProof(order, _HIGHEST, _coordinates(scheme, dims), _read(found), steps, start, any_steps, graded)


def _sum(proofs: Sequence[OrderProof]) -> dict[Powers, Any]:
    total: dict[Powers, Any] = {}
    for proof in proofs:
        for powers, value in proof.leading.items():
            total[powers] = total.get(powers, 0) + value
    return total


def _question(scheme: Scheme, dims: int, linear_beta: bool) -> tuple[Any, ...]:
    declaration = [(part.name, part.declaration) for part in scheme.splitting.parts]
    scaled = "" if scheme.lambda_s == 1 else "lambda_s"
    arguments = scheme.splitting.diffusion.score_names
    question = ("order", scheme.word, scheme.flow, scaled, declaration, arguments, str(dims), linear_beta)
    if scheme.holds_score:
        return question
    clock = () if scheme.clock.is_theta else ("any clock", scheme.clock.midpoint)
    return (*question, scheme.frozen == SCORE_HELD, scheme.memory, *clock)


def _read(found: Sequence[Any]) -> tuple[Coefficient, ...]:
    return tuple(Coefficient(tuple(powers), text, latex) for powers, text, latex in found)


def _coordinates(scheme: Scheme, dims: int) -> tuple[str, ...]:
    return coordinate_names(dims, scheme.splitting.diffusion.components)


def coordinate_names(dims: int, components: Sequence[str]) -> tuple[str, ...]:
    """Of the components x, m: x, m; in two dimensions x1, x2, m1, m2."""
    suffixes = [""] if dims == 1 else [str(i + 1) for i in range(dims)]
    return tuple(f"{name}{suffix}" for name in components for suffix in suffixes)


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
    from .local_error import first_error

    for n in range(1, _HIGHEST + 1):
        if error := first_error(scheme, n, dims, linear_beta):
            return n - 1, coefficients(error)
    return None, ()


def _search_with_memory(
    scheme: Scheme, dims: int, linear_beta: bool
) -> tuple[int | None, tuple[Coefficient, ...], bool]:
    from .local_error import holds_for_any_steps

    order, found = _search(scheme, dims, linear_beta)
    proven = _HIGHEST if order is None else order
    return order, found, proven == 0 or holds_for_any_steps(scheme, proven, dims, linear_beta)

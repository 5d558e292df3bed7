"""The declaration of a linear SDE checked, and its matrices read off, in sympy."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy import Expr, Matrix

from .formulas import text
from .symbols import PARAMETERS, m, s_m, s_x, x

Pair = tuple[Expr, Expr]


def checked(drift: Any, diffusion: Any) -> dict[str, Pair]:
    """Drift and diffusion as pairs of expressions in what they may use. Raises ValueError, in one line, if they are
    not."""
    parameters: set[sp.Basic] = set(PARAMETERS)
    pairs: dict[str, Pair] = {}
    for name, given in (("drift", drift), ("diffusion", diffusion)):
        pair = tuple(sp.sympify(entry) for entry in given)
        if len(pair) != 2:
            raise ValueError(f"{name} has {len(pair)} entries; it is a pair, (dx, dm)")
        pairs[name] = pair
    for name, allowed in (("drift", parameters | {x, m, s_x, s_m}), ("diffusion", parameters)):
        for entry in pairs[name]:
            if unknown := entry.free_symbols - allowed:
                names = ", ".join(sorted(map(str, unknown)))
                usable = ", ".join(sorted(map(str, allowed)))
                raise ValueError(f"{name} {entry} has the unknown symbol {names}; it may use {usable}")
        for entry in pairs[name]:
            if entry.has(sp.I, sp.nan, sp.oo, -sp.oo, sp.zoo, sp.Piecewise):
                raise ValueError(
                    f"{name} {entry} is not a finite real expression; write it with numbers and parameters"
                )
    return pairs


def facts(drift: Pair, diffusion: Pair) -> dict[str, list[str]]:
    """A, G and D in text, row-major. Raises ValueError if the drift is not A u + G s."""
    A, G = Matrix(drift).jacobian([x, m]), Matrix(drift).jacobian([s_x, s_m])
    linear = A * Matrix([x, m]) + G * Matrix([s_x, s_m])
    difference = (Matrix(drift) - linear).applyfunc(sp.simplify)
    if not (A.free_symbols | G.free_symbols <= set(PARAMETERS) and difference.is_zero_matrix):
        raise ValueError(f"drift {drift} is not linear in x, m, s_x, s_m; add multiples of these alone")
    D = sp.diag(*(sp.simplify(g**2) for g in diffusion))
    return {name: [text(entry) for entry in matrix.flat()] for name, matrix in (("A", A), ("G", G), ("D", D))}

"""The declaration of a linear SDE checked, its matrices read off, and the laws it keeps, in sympy.

The forward SDE du = A_f u dt + noise D_f moves p_t by p' = -div(A_f u p) + D_f : grad grad p / 2. Dynamics
du = (A u + G s) dtau + noise D, s = grad log p, run against time, and move the same laws back if and only if for all p
div((A u + G s) p) - D : grad grad p / 2 = -div(A_f u p) + D_f : grad grad p / 2. As s p = grad p, that is

    A = -A_f,        G = (D_f + D) / 2 + C,    C constant and skew,

for div(C grad p) = 0: D = D_f is the reverse SDE, D = 0 the probability flow. Where the score is of x alone, the law is
p(x) N(m; 0, V) and stays where it is: s_m = -m / V is written out in the drift, and A_f = D_f = 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr, Matrix

from .formulas import text
from .symbols import PARAMETERS, m, s_m, s_x, x

if TYPE_CHECKING:
    from .model import LinearSDE

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


def excess_drift(whole: LinearSDE, forward: LinearSDE, momentum_variance: Expr | None) -> list[str]:
    """What the drifts of x and m of `whole` have too much to keep the laws of a forward SDE, in text; "0" if nothing.

    momentum_variance: V of the law p(x) N(m; 0, V), where the score is of x alone; None where it is of x and m.
    """
    A, G = whole.matrix.as_mutable(), whole.score_gain.as_mutable()
    if momentum_variance is not None:
        G[:, 1] -= momentum_variance * A[:, 1]  # m = -V s_m
        A[:, 1] = sp.zeros(2, 1)
    symmetric = (G + G.T - forward.noise - whole.noise) / 2
    excess = (A + forward.matrix) * Matrix([x, m]) + symmetric * Matrix([s_x, s_m])
    return [text(sp.simplify(entry)) for entry in excess]

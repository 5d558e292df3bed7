"""The declaration of a linear SDE checked, its matrices read off, and the laws it keeps, in sympy.

The forward SDE du = A_f u dt + noise D_f moves p_t by p' = -div(A_f u p) + D_f : grad grad p / 2. Dynamics
du = (A u + G s) dtau + noise D, s = grad log p, run against time, and move the same laws back if and only if for all p
div((A u + G s) p) - D : grad grad p / 2 = -div(A_f u p) + D_f : grad grad p / 2. As s p = grad p, that is

    A = -A_f,        G = (D_f + D) / 2 + C,    C constant and skew,

for div(C grad p) = 0: D = D_f is the reverse SDE, D = 0 the probability flow. Where the score is of x alone, the law is
p(x) N(m; 0, V) and stays where it is: s_m = -m / V is written out in the drift, and A_f = D_f = 0.
Nothing here depends on how many components there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr, Matrix

from .formulas import text
from .symbols import PARAMETERS, SCORE, STATE

if TYPE_CHECKING:
    from .model import LinearSDE

Vector = tuple[Expr, ...]


def checked(drift: Any, diffusion: Any) -> dict[str, Vector]:
    """Drift and diffusion as tuples of expressions in what they may use, none for no noise. Raises ValueError, in one
    line, if they are not."""
    parameters: set[sp.Basic] = set(PARAMETERS)
    found: dict[str, Vector] = {"drift": tuple(sp.sympify(entry) for entry in drift)}
    n = len(found["drift"])
    if not 1 <= n <= len(STATE):
        state = ", ".join(f"d{component}" for component in STATE)
        raise ValueError(f"drift has {n} entries; it is a tuple of one for each component, the first of ({state})")
    found["diffusion"] = tuple(sp.sympify(entry) for entry in diffusion) or (sp.S.Zero,) * n
    if len(found["diffusion"]) != n:
        raise ValueError(f"diffusion has {len(found['diffusion'])} entries; it has as many as drift, {n}")
    for name, allowed in (("drift", parameters | {*STATE[:n], *SCORE[:n]}), ("diffusion", parameters)):
        for entry in found[name]:
            if unknown := entry.free_symbols - allowed:
                names = ", ".join(sorted(map(str, unknown)))
                usable = ", ".join(sorted(map(str, allowed)))
                raise ValueError(f"{name} {entry} has the unknown symbol {names}; it may use {usable}")
        for entry in found[name]:
            if entry.has(sp.I, sp.nan, sp.oo, -sp.oo, sp.zoo, sp.Piecewise):
                raise ValueError(
                    f"{name} {entry} is not a finite real expression; write it with numbers and parameters"
                )
    return found


def facts(drift: Vector, diffusion: Vector, more: Sequence[str] = ()) -> dict[str, list[str]]:
    """A, G and D in text, row-major; more: names of symbols besides the parameters. Raises ValueError if the drift is
    not A u + G s."""
    state, score = STATE[: len(drift)], SCORE[: len(drift)]
    A, G = Matrix(drift).jacobian(state), Matrix(drift).jacobian(score)
    linear = A * Matrix(state) + G * Matrix(score)
    difference = (Matrix(drift) - linear).applyfunc(sp.simplify)
    known = {*map(str, PARAMETERS), *more}
    if not ({str(symbol) for symbol in A.free_symbols | G.free_symbols} <= known and difference.is_zero_matrix):
        names = ", ".join(map(str, (*state, *score)))
        raise ValueError(f"drift {drift} is not linear in {names}; add multiples of these alone")
    D = sp.diag(*(sp.simplify(g**2) for g in diffusion))
    return {name: [text(entry) for entry in matrix.flat()] for name, matrix in (("A", A), ("G", G), ("D", D))}


def excess_drift(whole: LinearSDE, forward: LinearSDE, unseen: Mapping[int, Expr]) -> list[str]:
    """What the drifts of `whole` have too much to keep the laws of a forward SDE, in text; "0" if nothing.

    unseen: the components that the score does not depend on, with their variances V in the law p(x) N(m; 0, V).
    """
    A, G = whole.matrix.as_mutable(), whole.score_gain.as_mutable()
    for i, variance in unseen.items():
        G[:, i] -= variance * A[:, i]  # m = -V s_m
        A[:, i] = sp.zeros(whole.size, 1)
    symmetric = (G + G.T - forward.noise - whole.noise) / 2
    excess = (A + forward.matrix) * Matrix(STATE[: whole.size]) + symmetric * Matrix(SCORE[: whole.size])
    return [text(sp.simplify(entry)) for entry in excess]

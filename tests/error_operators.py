"""Local errors as differential operators, {powers of p: coefficient}: of parts, of words, and when two agree."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import sympy as sp
from weakorder.theory.calculus import Calculus
from weakorder.theory.local_error import local_error
from weakorder.theory.polynomials import exponents
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import Part
from weakorder.theory.weak_order import Powers


def jet(name: str) -> sp.Symbol:
    """A symbol of a leading error."""
    return sp.Symbol(name)


@cache
def generator(part: Part) -> dict[Powers, sp.Expr]:
    """The symbol of beta L of a part with the true score, in one dimension, from its declaration."""
    plain = {s: jet(str(s)) for pair in part.drift for s in pair.free_symbols if str(s) in ("x", "m", "s_x", "s_m")}
    terms = {(1, 0): part.drift[0].xreplace(plain), (0, 1): part.drift[1].xreplace(plain)}
    terms |= {(2, 0): part.diffusion[0] ** 2 / 2, (0, 2): part.diffusion[1] ** 2 / 2}
    return {powers: jet("beta") * c for powers, c in terms.items() if c != 0}


def same(a: Mapping[Powers, sp.Expr], b: Mapping[Powers, sp.Expr]) -> bool:
    """Whether two operators are equal, by algebra."""
    return all(sp.cancel(a.get(powers, sp.S.Zero) - b.get(powers, sp.S.Zero)) == 0 for powers in {*a, *b})


def operators(scheme: Scheme, n: int, linear_beta: bool = True) -> list[dict[Powers, Any]]:
    """What `local_error` holds before the entries of the parts' matrices are put in as functions of the parameters:
    quick, and equal operators are equal errors."""

    def by_name(calculus: Calculus, g: Any, _: Any) -> dict[Any, Any]:
        names = calculus.generators.names
        return {tuple(sorted((names[i], e) for i, e in exponents(key))): c for key, c in g.terms.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Calculus, "operator", by_name)
        return local_error(scheme, n, linear_beta=linear_beta)

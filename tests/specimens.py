"""Words and splittings that more than one file of tests looks at."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp
from weakorder.theory.frozen import DATA_HELD, Frozen
from weakorder.theory.model import LANGEVIN_DYNAMICS, STATIONARY
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, Part, Splitting

BAOAB = "S B(1/2) A(1/2) O A(1/2) S@1 B(1/2)"
STRANG = "U(1/2) S@1/2 E U(1/2)"
WHOLE_LANGEVIN = Splitting(
    "one-part", STATIONARY, LANGEVIN_DYNAMICS, (Part("W", LANGEVIN_DYNAMICS.drift, LANGEVIN_DYNAMICS.diffusion),)
)


def tilted(sign: int) -> Splitting:
    """PSLD's splitting with nu m taken from B's drift and given to O's, or, with the sign mutated, the other way."""
    extra = sign * sp.Symbol("nu", nonnegative=True) * sp.Symbol("m", real=True)
    O, A, B = PSLD.parts  # noqa: E741
    parts = (
        replace(O, drift=(O.drift[0], O.drift[1] + extra)),
        A,
        replace(B, drift=(B.drift[0], B.drift[1] - extra)),
    )
    return Splitting("tilted", PSLD.diffusion, PSLD.whole, parts)


def held(word: str, splitting: Splitting, frozen: Frozen = DATA_HELD, memory: int = 1, flow: str = "exact") -> Scheme:
    """A scheme that holds something."""
    return Scheme(word, splitting, flow=flow, frozen=frozen, memory=memory)


def whole(splitting: Splitting, frozen: Frozen = DATA_HELD, memory: int = 1, flow: str = "exact") -> Scheme:
    """The whole dynamics as one part, holding something."""
    return held("S F", splitting, frozen, memory, flow)

"""A diffusion of three components, and its reverse dynamics whole and in parts."""

import sympy as sp
from weakorder.theory.model import Diffusion, LinearSDE, a, m, x
from weakorder.theory.splitting import Part, Splitting

# Position, momentum and acceleration, higher-order Langevin dynamics of rates -1, -2 and -3.
THIRD = Diffusion(
    "third order",
    LinearSDE((m, -x + 10 * a, -m - 6 * a), (sp.S.Zero, sp.S.Zero, sp.sqrt(sp.Rational(6, 5)))),
    (sp.Rational(1, 4), sp.Rational(1, 90)),
    (sp.S.One, sp.S.One, sp.Rational(1, 10)),
)

REVERSE_THIRD = THIRD.reverse()
WHOLE_THIRD = Splitting("third-whole", THIRD, REVERSE_THIRD, (Part("F", REVERSE_THIRD.drift, REVERSE_THIRD.diffusion),))
# Noise in a alone, which B carries to m and A to x: over a segment `O B A` of Euler's it has rank 1.
PARTED_THIRD = Splitting(
    "third-parts",
    THIRD,
    REVERSE_THIRD,
    (
        Part("O", (0, 0, REVERSE_THIRD.drift[2]), REVERSE_THIRD.diffusion),
        Part("B", (0, REVERSE_THIRD.drift[1], 0)),
        Part("A", (REVERSE_THIRD.drift[0], 0, 0)),
    ),
)

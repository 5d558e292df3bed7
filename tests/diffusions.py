"""A diffusion of three components."""

import sympy as sp
from weakorder.theory.model import Diffusion, LinearSDE, a, m, x

# Position, momentum and acceleration, higher-order Langevin dynamics of rates -1, -2 and -3.
THIRD = Diffusion(
    "third order",
    LinearSDE((m, -x + 10 * a, -m - 6 * a), (sp.S.Zero, sp.S.Zero, sp.sqrt(sp.Rational(6, 5)))),
    (sp.Rational(1, 4), sp.Rational(1, 90)),
    (sp.S.One, sp.S.One, sp.Rational(1, 10)),
)

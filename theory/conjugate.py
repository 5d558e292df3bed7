"""Conjugate integrators: a part followed in transformed coordinates (Pandey, Rudolph and Mandt 2024, arXiv 2310.07894,
section 3).

A part of drift A u + g eps, eps the network's answer, is followed in z = exp((B - F) t) u, F = -A the drift of forward
time and B of one's choice, where dz/dt is B z and a term in eps. The paper takes B z by Euler, and the integral of eps'
coefficient exactly. Back in u, over theta,

    u <- exp((A + B) theta) (1 - B theta) u + int_0^theta exp((A + B) (theta - r)) g dr eps,

if A and B are constant, wherever the coordinates are anchored. This is a composition: first N, du = -B u dtheta by
Euler, then du = (A + B) u dtheta + g eps dtheta exactly with eps held. So `conjugate` cuts every part with score in
two, and a conjugate integrator is the word `S NF F` with flow "exact" and frozen "eps"; at B = 0, frozen "eps" alone.

    lambda-DDIM-I     B = lambda 1                lambda-DDIM-II    B = lambda times the matrix of ones

Readings taken where the paper leaves them open. lambda is per unit of theta = int beta, so that it does not depend on
the schedule; per unit of t it is lambda beta. Conjugate splitting (CSPS-D, CSPS-S) follows every part of the splitting
with score in coordinates of its own, B restricted to the coordinate that the part moves, so that a part still moves
nothing else. The paper tunes lambda by FID and does not say how it is to be chosen.
"""

from __future__ import annotations

from fractions import Fraction

from .cache import cached
from .model import LinearSDE
from .splitting import Part, Splitting

PREFIX = "N"


def conjugate(splitting: Splitting, strength: float | Fraction, coupled: bool = False) -> Splitting:
    """`splitting` with each part X that uses the score cut into NX, du = -B u by Euler, and X, with B u added.

    strength: lambda, a finite number. coupled: B = lambda times the matrix of ones (lambda-DDIM-II), else lambda 1 (I).
    Raises ValueError on another strength, and if a part of the splitting has the name that NX would have.
    """
    if not abs(strength) < float("inf"):
        raise ValueError(f"lambda = {strength}: it is a finite number; 0 is the exponential integrator without B")
    exact = Fraction(strength)
    own = [(part.name, part.declaration) for part in splitting.parts]
    question = ("conjugate", own, [exact.numerator, exact.denominator], coupled)
    parts = cached(question, lambda: _cut(splitting, exact, coupled), keep=False)
    kind = "II" if coupled else "I"
    return Splitting(
        f"{splitting.name} conjugate {kind} lambda {float(strength):g}",
        splitting.diffusion,
        splitting.whole,
        tuple(
            Part.of(name, LinearSDE.declared(declaration, splitting.whole.amount), euler)
            for name, declaration, euler in parts
        ),
    )


def _cut(splitting: Splitting, strength: Fraction, coupled: bool) -> list[tuple[str, tuple[str, ...], bool]]:
    """The parts: name, declaration of the dynamics, and whether they are followed by Euler."""
    import sympy as sp

    from .symbols import m, x

    value = sp.Rational(strength.numerator, strength.denominator)
    parts: list[Part] = []
    for part in splitting.parts:
        if not part.sde.uses_score:
            parts.append(part)
            continue
        drift, diffusion = part.sde.drift, part.sde.diffusion
        moved = [
            value * ((x + m) if coupled else own) if entry != 0 else sp.S.Zero
            for entry, own in zip(drift, (x, m), strict=True)
        ]
        parts.append(Part(PREFIX + part.name, (-moved[0], -moved[1]), euler=True))
        parts.append(Part(part.name, (drift[0] + moved[0], drift[1] + moved[1]), diffusion))
    return [(part.name, part.sde.declaration, part.euler) for part in parts]

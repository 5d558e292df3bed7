"""Stability of a real 2x2 map from its trace and determinant, for numbers, arrays and sympy alike.

Jury's conditions (Jury 1964) say whether its eigenvalues lie in the unit circle, and the discrete Lyapunov equation has
its closed form in the same two numbers. theory.stability says what they are for.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Jury(NamedTuple):
    """The three quantities that are positive if and only if rho(R) < 1; fields as in the module's table."""

    growth: Any
    flip: Any
    rotation: Any


def jury(trace: Any, det: Any) -> Jury:
    """Jury's quantities of a real 2x2 matrix from its trace and determinant: numbers, arrays or sympy."""
    return Jury(1 - trace + det, 1 + trace + det, 1 - det)


class LyapunovWeights(NamedTuple):
    """C = (X^2 Q + first X Q + zeroth Q) / denominator solves C = R C R^T + Q, where X Q = R Q R^T."""

    first: Any
    zeroth: Any
    denominator: Any


def lyapunov_weights(trace: Any, det: Any) -> LyapunovWeights:
    """The discrete Lyapunov equation of a 2x2 matrix solved by Cayley and Hamilton: numbers, arrays or sympy.

    On symmetric matrices X has the eigenvalues lambda_1^2, lambda_1 lambda_2, lambda_2^2, so X^3 - e_1 X^2 + e_2 X -
    e_3 = 0 with e_1 = tr^2 - det, e_2 = det e_1, e_3 = det^3, and 1 / (1 - X) is the polynomial above. The denominator
    1 - e_1 + e_2 - e_3 is the product of Jury's three quantities: the covariance is unbounded where stability ends.
    """
    e_1 = trace**2 - det
    margins = jury(trace, det)
    return LyapunovWeights(1 - e_1, 1 - e_1 + det * e_1, margins.growth * margins.flip * margins.rotation)

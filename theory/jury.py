"""Stability of a real n x n map from its characteristic polynomial, for numbers, arrays and sympy alike.

Jury's conditions (Jury 1964) say whether its eigenvalues lie in the unit circle. Of all n the critical ones, by which a
stable map that moves continuously can cease to be one, are three: each vanishes where an eigenvalue is 1, where one is
-1, or where two have the product 1, as a pair on the circle has,

    growth      prod_i (1 - lambda_i)             = det(1 - R)
    flip        prod_i (1 + lambda_i)             = det(1 + R)
    rotation    prod_(i < j) (1 - lambda_i lambda_j)            of one component: no condition

and they are positive while it is stable. Of n = 1 and 2 they are so only where it is. Of more, that all eigenvalues
are within at one step is decided by Schur and Cohn's recursion (`within`), and that none leaves by the three. Of a 2x2
map the discrete Lyapunov equation has its closed form in trace and determinant, too. theory.stability says what they
are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple


class Jury(NamedTuple):
    """The three quantities that are positive where rho(R) < 1, of 2x2 matrices only there; fields as in the module's
    table."""

    growth: Any
    flip: Any
    rotation: Any


class Scalar(NamedTuple):
    """The two of a single number R, which are positive if and only if |R| < 1."""

    growth: Any
    flip: Any


def jury(trace: Any, det: Any) -> Jury:
    """Jury's quantities of a real 2x2 matrix from its trace and determinant: numbers, arrays or sympy."""
    return Jury(1 - trace + det, 1 + trace + det, 1 - det)


def critical(matrix: Any) -> Jury | Scalar:
    """The critical quantities of a sympy matrix R (n, n)."""
    n = matrix.rows
    if n == 1:
        return Scalar(1 - matrix[0], 1 + matrix[0])
    if n == 2:
        return jury(matrix.trace(), matrix.det())
    unit = matrix.eye(n)
    pairs = list(combinations(range(n), 2))
    products = matrix.zeros(len(pairs), len(pairs))  # the second compound matrix, with the eigenvalues l_i l_j
    for row, (a, b) in enumerate(pairs):
        for column, (c, d) in enumerate(pairs):
            products[row, column] = matrix[a, c] * matrix[b, d] - matrix[a, d] * matrix[b, c]
    beside = matrix.eye(len(pairs)) - products
    return Jury(*(of.det(method="berkowitz") for of in (unit - matrix, unit + matrix, beside)))


def characteristic(matrix: Any) -> list[Any]:
    """The coefficients of det(z - R) of a sympy matrix R (n, n), the leading one, 1, first: (-1)^k e_k, e_k the sum of
    the principal minors of k rows."""
    rows = range(matrix.rows)
    minors = [
        [matrix.extract(list(kept), list(kept)).det(method="berkowitz") for kept in combinations(rows, k)]
        for k in range(1, matrix.rows + 1)
    ]
    return [matrix.one, *((-1) ** k * sum(each) for k, each in enumerate(minors, start=1))]


def divided(polynomial: Sequence[Any], root: Any) -> list[Any]:
    """The polynomial over (z - root), what remains left out; coefficients with the leading one first."""
    quotient = [polynomial[0]]
    for coefficient in polynomial[1:-1]:
        quotient.append(coefficient + root * quotient[-1])
    return quotient


def within(polynomial: Sequence[Any]) -> bool | None:
    """Whether all roots of a real polynomial p of degree n, the leading coefficient first, lie in the unit circle:
    numbers, of which Fractions decide it exactly, or intervals, with None where these do not decide it.

    They do if and only if |p_0| < |p_n| and those of (p_n p - p_0 p*) / z do, of degree n - 1, where p*(z) = z^n p(1/z)
    (Schur 1917; Cohn 1922).
    """
    lead, last = polynomial[0], polynomial[-1]
    if len(polynomial) == 1:
        return True
    smaller = lead * lead - last * last > 0
    if not smaller:
        return smaller
    return within([lead * p - last * q for p, q in zip(polynomial[:-1], polynomial[:0:-1], strict=True)])


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

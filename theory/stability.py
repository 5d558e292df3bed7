"""Stability of a word in closed form: the test equation, Jury's conditions, the largest stable step.

The test equation. Stop the clock at a time t. On Gaussian data the score is affine, s = -Lambda (u - mean) with Lambda
the precision of p_t, and in theta = int beta, with u counted from the mean,

    dynamics   du = B u dtheta + D^(1/2) dw,   B = A - G Lambda             (A, G, D of the splitting's whole)
    word       u <- R u + xi,  xi ~ N(0, Q),   R = R_n ... R_1,  R_i = P_i - K_i Lambda

with one factor for each segment (P_i, K_i, Q_i) of the word's one-step map (theory.step_map): every S sees the same
Lambda, since the clock stands.

Stability. The noise is additive, so mean and covariance obey m <- R m and C <- R C R^T + Q. The second is linear with
the eigenvalues lambda_i lambda_j of R (x) R: mean and mean square are stable under one and the same condition, spectral
radius rho(R) < 1, and then C converges to the solution of C = R C R^T + Q. (A noise that multiplied the state would ask
for more.) For a real 2x2 matrix rho(R) < 1 is three inequalities in trace and determinant (Jury 1964), each named after
how its eigenvalue leaves the unit circle; for a number the first two:

    growth      1 - tr R + det R > 0     1 - R > 0      through +1
    flip        1 + tr R + det R > 0     1 + R > 0      through -1: a perturbation that changes sign at every step
    rotation    1 - det R > 0                           as a complex pair

Of more components theory.jury has the three that vanish where an eigenvalue leaves the circle.

What the dynamics do. The frozen dynamics need not be stable, and where they are their stationary covariance is not
Lambda^-1. With Sigma = Lambda^-1 and Sigma' its derivative in forward theta, B Sigma + Sigma B^T = -Sigma' - D for the
reverse SDE and -Sigma' for its flow, so Sigma solves the stationary equation only where p_t stands still (Langevin; the
prior). Where the noise makes the law (Sigma' near D) the reverse drift is twice Langevin's and the frozen law is near
Sigma / 2; where the law shrinks in forward time, as for data of variance far above 1, the reverse dynamics expand, and
must. So the reference for the covariance of a word is the stationary covariance of the frozen dynamics, where there is
one, and a word is asked to be no less stable than the dynamics: its rho(R) is compared with max(1, rho(exp(B theta))).

The largest stable step is the smallest theta at which a condition fails. With Euler sub-flows throughout the conditions
are polynomials in theta, and it is their smallest positive root, an algebraic number; otherwise they are exponential
polynomials, and it is bracketed by interval arithmetic: below the bracket the conditions are proven to hold, at its
upper end one is proven to fail (theory.first_failure). Of three components and more they are positive elsewhere, too,
so that all eigenvalues are within is proven at one step below the bracket, and holds on all of it since none leaves.
(An eigenvalue that is 1 or -1 at every step, and of three components a pair of the product 1, is divided out first.
Only where four and more have pairs whose product is 1 at every step is it read off in numbers, and the answer says so:
`StableStep.proven`.) Closed forms are for constant beta, as those of theory.step_map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import sympy as sp
from mpmath import mp
from sympy import Expr, Matrix

from .first_failure import DIGITS, StableStep, enclosed, first_failure, vanishes, working_with
from .flows import Flow
from .jury import Jury, Scalar, characteristic, critical, divided, jury, lyapunov_weights, within
from .kernel import marginal
from .model import Diffusion, LinearSDE
from .parameters import COMPONENTS
from .scheme import Scheme
from .step_map import step_map
from .symbols import PARAMETERS, theta


def symbolic_precision(size: int) -> Matrix:
    """Lambda, the precision of the law at the time where the clock stands, of `size` components: lambda_xx, ..."""
    names = COMPONENTS[:size]

    def entry(i: int, j: int) -> Any:
        name = f"lambda_{names[min(i, j)]}{names[max(i, j)]}"
        return sp.Symbol(name, positive=True) if i == j else sp.Symbol(name, real=True)

    return Matrix(size, size, entry)


PRECISION = symbolic_precision(2)
lambda_xx, lambda_xm, lambda_mm = PRECISION[0, 0], PRECISION[0, 1], PRECISION[1, 1]


class FrozenMap(NamedTuple):
    """u -> R u + xi, xi ~ N(0, Q): `matrix` and `noise_cov`, n x n sympy matrices in theta."""

    matrix: Any
    noise_cov: Any


def precision(diffusion: Diffusion) -> Matrix:
    """Lambda of the law of Gaussian data of variance s2 (theory.kernel), at theta = int_0^t beta; sympy."""
    cov: Any = marginal(diffusion)[1]
    return cov.adjugate() / cov.det()


def frozen_map(scheme: Scheme, at: Matrix | None = None) -> FrozenMap:
    """R and Q of one step of `scheme` on the test equation with the precision `at` (n x n; default: in symbols), in
    theta over the step.

    Raises ValueError for sub-flows that follow the score inside a part, on a scheme that has no step map in closed
    form, and on noise that changes with time.
    """
    if (amount := scheme.splitting.whole.amount) is not None:
        raise ValueError(
            f"noise {amount} of {scheme.name!r} changes with time, and so does its step map: it has no stable step of "
            "its own; give a number as noise"
        )
    at = symbolic_precision(scheme.splitting.diffusion.size) if at is None else at
    return _closed([segment.flow for segment in step_map(scheme)], at)


def _closed(flows: list[Flow], at: Matrix) -> FrozenMap:
    maps = [FrozenMap(P - K * at, Q) for P, K, Q in flows]
    return reduce(
        lambda first, then: FrozenMap(
            then.matrix * first.matrix, then.matrix * first.noise_cov * then.matrix.T + then.noise_cov
        ),
        maps,
        FrozenMap(sp.eye(at.rows), sp.zeros(at.rows, at.rows)),
    )


def stability_conditions(scheme: Scheme, at: Matrix | None = None) -> Jury | Scalar:
    """Jury's critical quantities for one step of `scheme`, as expressions in theta, the parameters and `at`."""
    return critical(frozen_map(scheme, at).matrix)


def stationary_cov(frozen: FrozenMap) -> Matrix:
    """The covariance that the map leaves as it is, C = R C R^T + Q; meaningful where rho(R) < 1.

    Raises ValueError on more than two components.
    """
    R, Q = frozen
    if _check_closed(R) == 1:
        return Matrix([Q[0] / ((1 - R[0]) * (1 + R[0]))])
    weights = lyapunov_weights(R.trace(), R.det())
    once = R * Q * R.T
    return (R * once * R.T + weights.first * once + weights.zeroth * Q) / weights.denominator


def exact_stationary_cov(sde: LinearSDE, at: Matrix | None = None) -> Matrix:
    """The stationary covariance of du = B u dtheta + D^(1/2) dw, B = A - G Lambda; meaningful where B is stable.

    B C + C B^T = -D is solved by C = -(det B D + (B - tr B) D (B - tr B)^T) / (2 tr B det B), of one component by C =
    -D / (2 B). Raises ValueError on more than two components.
    """
    B, D = sde.matrix - sde.score_gain * (symbolic_precision(sde.size) if at is None else at), sde.noise
    if _check_closed(B) == 1:
        return -D / (2 * B[0])
    moved = B - B.trace() * sp.eye(2)
    return -(B.det() * D + moved * D * moved.T) / (2 * B.trace() * B.det())


def _check_closed(matrix: Any) -> int:
    """Raises ValueError where a stationary covariance is not known in closed form; else the number of components."""
    if matrix.rows > 2:
        raise ValueError(
            f"a stationary covariance in closed form is known of 1 and 2 components, and here are {matrix.rows}; use "
            "numbers, verification.stability.growth.stationary_cov"
        )
    return matrix.rows


# --- The largest stable step ------------------------------------------------------------------------------------------


def largest_stable_step(scheme: Scheme, at: Matrix, values: Mapping[str, Any], limit: Any = 8) -> StableStep:
    """The first theta in (0, limit] at which one of Jury's conditions fails for `scheme`, at the precision `at`.

    at: n x n of numbers; values: the numbers that gamma, nu and kappa stand for; floats are taken at their exact binary
    value. A condition that vanishes for every theta (|det R| = 1, a symplectic word without noise) is no limit.
    Raises ValueError as `frozen_map`, on a limit that is not positive, or on a rate next to nothing that is not 0.
    """
    if not limit > 0:
        raise ValueError(f"limit = {limit}: steps are searched up to a positive theta")
    numbers = {symbol: sp.Rational(values[str(symbol)]) for symbol in PARAMETERS}
    flows = []
    for _, (P, K, _) in step_map(scheme):
        P, K = (matrix.applyfunc(lambda entry: _at(entry, numbers)) for matrix in (P, K))
        flows.append(Flow(P, K, sp.zeros(P.rows, P.rows)))
    R = _closed(flows, Matrix(at).applyfunc(sp.Rational)).matrix.applyfunc(sp.expand)
    conditions, rest, paired = _Reduced([critical(R)], None) if R.rows <= 2 else _reduced(R)
    held = StableStep(Fraction(limit), Fraction(limit), None)
    steps = [
        first_failure(name, sp.expand(margin), Fraction(limit))
        for quantities in conditions
        for name, margin in quantities._asdict().items()
    ]
    first = min(steps, key=lambda step: (step.high, step.condition is None), default=held)
    if rest is None or first.low == 0:
        return first
    inside = None if paired else _proven_within(rest, first.low / 2)
    seen_inside, how = _largest(R, first.low / 2)
    if inside is None:
        inside, first = seen_inside, replace(first, proven=False)
    return first if inside else StableStep(Fraction(0), Fraction(0), how, proven=first.proven)


class _Reduced(NamedTuple):
    """Quantities that say where eigenvalues leave the circle, each of a factor of R's characteristic polynomial; where
    positive ones do not mean that all are within, that factor, the leading coefficient first; and whether it is
    `paired`: two of its roots, at least, have the product 1 at every step."""

    conditions: list[Any]
    rest: list[Expr] | None
    paired: bool = False


def _reduced(R: Any) -> _Reduced:
    """Of three components or more, without the eigenvalues that are 1 or -1 at every step, which divide the
    characteristic polynomial."""
    rest = [sp.expand(coefficient) for coefficient in characteristic(R)]
    for sign in (1, -1):
        while len(rest) > 1 and vanishes(sp.Add(*(c * sign**k for k, c in enumerate(reversed(rest))))):
            rest = [sp.expand(coefficient) for coefficient in divided(rest, sign)]
    degree = len(rest) - 1
    if degree == 0:
        return _Reduced([], None)
    trace, det = -rest[1], (-1) ** degree * rest[-1]
    if degree <= 2:
        return _Reduced([Scalar(1 - trace, 1 + trace) if degree == 1 else jury(trace, det)], None)
    quantities: Any = critical(R if degree == R.rows else Matrix.companion(sp.Poly(rest, sp.Dummy())))
    paired = vanishes(quantities.rotation)
    if paired and degree == 3:  # they are the pair and det
        return _Reduced([Scalar(1 - det, 1 + det), jury(trace - det, sp.S.One)], None)
    return _Reduced([quantities], rest, paired)


def _proven_within(polynomial: list[Expr], length: Fraction) -> bool | None:
    """Whether the roots are within the circle at a step of this length; None where intervals do not decide it."""
    for digits in (DIGITS, 2 * DIGITS, 4 * DIGITS):
        with working_with(digits):
            inside = within(enclosed(polynomial, length, digits))
        if inside is not None:
            return inside
    return None


def _largest(R: Any, length: Fraction) -> tuple[bool, str]:
    """Of the largest eigenvalue of R at a step of this length, in floating point: whether it is within, or on, the
    circle, and how it leaves, or would leave, it."""
    numbers = R.subs(theta, sp.Rational(length.numerator, length.denominator)).evalf(DIGITS)
    with mp.workdps(DIGITS):
        values = mp.eig(mp.matrix(numbers.tolist()), left=False, right=False)
        largest, rounding = max(values, key=abs), mp.mpf(10) ** (-DIGITS // 2)
        inside = bool(abs(largest) <= 1 + rounding)
        if abs(mp.im(largest)) > abs(largest) * rounding:
            return inside, "rotation"
        return inside, "growth" if mp.re(largest) > 0 else "flip"


def _at(entry: Expr, numbers: Mapping[Any, Any]) -> Any:
    """An entry of a map at numbers of the parameters; where one of them is 0 and the closed form has a pole that it
    lacks itself, such as (exp(gamma theta) - 1) / gamma, its limit."""
    for symbol, number in sorted(numbers.items(), key=lambda item: item[1] == 0):  # zeros last
        value: Any = entry.subs(symbol, number)
        entry = sp.limit(entry, symbol, number) if value.has(sp.nan, sp.zoo, sp.oo, -sp.oo) else value
    return entry

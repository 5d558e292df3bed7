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
upper end one is proven to fail. (Of three components and more they say where eigenvalues leave; that all begin within
is read off those of one step below the bracket.) Closed forms are for constant beta, as those of theory.step_map.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import sympy as sp
from mpmath import mp
from mpmath.ctx_iv import MPIntervalContext
from sympy import Expr, Matrix

from .flows import Flow
from .jury import Jury, Scalar, critical, lyapunov_weights
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


@dataclass(frozen=True)
class StableStep:
    """Where stability ends, in theta = int beta over a step: stable for 0 < theta < low, not at theta just above high.

    condition: the Jury condition that fails first, a field of `Jury`; None if none fails up to the limit searched
    (low = high = limit). exact: the root as an algebraic number, where the conditions are polynomials; then low <=
    exact <= high. low = high = 0: no small step is stable, since the dynamics themselves are not.
    """

    low: Fraction
    high: Fraction
    condition: str | None
    exact: Expr | None = None


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
    margins = critical(R)
    steps = [_first_failure(name, sp.expand(margin), Fraction(limit)) for name, margin in margins._asdict().items()]
    first = min(steps, key=lambda step: (step.high, step.condition is None))
    if R.rows > 2 and first.low > 0 and (leaving := _outside(R, first.low / 2)):
        return StableStep(Fraction(0), Fraction(0), leaving)
    return first


def _outside(R: Any, length: Fraction) -> str | None:
    """How the largest eigenvalue of R left the unit circle before a step of this length; None where it is within, or
    on, the circle."""
    numbers = R.subs(theta, sp.Rational(length.numerator, length.denominator)).evalf(_DIGITS)
    with mp.workdps(_DIGITS):
        values = mp.eig(mp.matrix(numbers.tolist()), left=False, right=False)
        largest = max(values, key=abs)
        if abs(largest) <= 1 + mp.mpf(10) ** (-_DIGITS // 2):
            return None
        if abs(mp.im(largest)) > abs(largest) * mp.mpf(10) ** (-_DIGITS // 2):
            return "rotation"
        return "growth" if mp.re(largest) > 0 else "flip"


def _at(entry: Expr, numbers: Mapping[Any, Any]) -> Any:
    """An entry of a map at numbers of the parameters; where one of them is 0 and the closed form has a pole that it
    lacks itself, such as (exp(gamma theta) - 1) / gamma, its limit."""
    for symbol, number in sorted(numbers.items(), key=lambda item: item[1] == 0):  # zeros last
        value: Any = entry.subs(symbol, number)
        entry = sp.limit(entry, symbol, number) if value.has(sp.nan, sp.zoo, sp.oo, -sp.oo) else value
    return entry


def _first_failure(name: str, margin: Expr, limit: Fraction) -> StableStep:
    if margin.is_polynomial(theta):
        return _polynomial_failure(name, sp.Poly(margin, theta), limit)
    terms = _collect(margin)
    with _working_with(_digits(terms)):
        return _exponential_failure(name, terms, limit)


def _polynomial_failure(name: str, polynomial: Any, limit: Fraction) -> StableStep:
    """The first failure of a polynomial with rational coefficients, by exact root isolation."""
    held = StableStep(limit, limit, None)
    if polynomial.is_zero:
        return held
    while polynomial.eval(0) == 0:  # the step is the identity at theta = 0
        polynomial = polynomial.exquo(sp.Poly(theta, theta))
    if polynomial.eval(0) < 0:
        return StableStep(Fraction(0), Fraction(0), name)
    root: Any = next((root for root in polynomial.real_roots() if root > 0), None)
    if root is None or root > limit:
        return held
    if root.is_Rational:
        return StableStep(Fraction(root.p, root.q), Fraction(root.p, root.q), name, root)
    close: Any = sp.Rational(root.evalf(_DIGITS))
    middle, width = Fraction(close.p, close.q), Fraction(1, 10**30)
    return StableStep(middle * (1 - width), middle * (1 + width), name, root)


# An exponential polynomial as {(power, rate): coefficient}: the sum of coefficient theta^power exp(rate theta).
Terms = dict[tuple[int, Any], Any]


def _collect(expression: Expr) -> Terms:
    terms: Terms = {}
    for term in sp.Add.make_args(sp.expand(expression.rewrite(sp.exp))):
        coefficient, dependent = term.as_independent(theta, as_Add=False)
        power, rate = 0, sp.S.Zero
        for factor in sp.Mul.make_args(dependent):
            base, exponent = factor.as_base_exp()
            if factor.func is sp.exp:
                rate += sp.expand(factor.args[0] / theta)
            elif base == theta and exponent.is_Integer and exponent > 0:
                power += int(exponent)
            elif factor != 1:
                raise ValueError(f"{factor} is not of the form theta^p exp(r theta)")
        terms[power, rate] = terms.get((power, rate), sp.S.Zero) + coefficient
    return {key: c for key, c in terms.items() if c != 0}


def _derivative(terms: Terms) -> Terms:
    result: Terms = {}
    for (power, rate), c in terms.items():
        for key, value in (((power, rate), c * rate), ((power - 1, rate), c * power)):
            result[key] = result.get(key, sp.S.Zero) + value
    return {key: c for key, c in result.items() if c != 0}


_DIGITS, _TERMS, _LARGEST = 40, 4, 12
_iv: Any = MPIntervalContext()
_iv.dps = _DIGITS


def _digits(terms: Terms) -> int:
    """The digits to work with: more where coefficients are large, which cancel where a rate is nearly 0. Raises
    ValueError where they are so large that intervals would have to be shorter than is of use."""
    sizes = [abs(part) for c in terms.values() for part in sp.sympify(c).as_real_imag()]
    large = max((math.ceil(sp.log(size, 10).evalf(5)) for size in sizes if size > 1), default=0)
    if large > _LARGEST:
        raise ValueError(
            f"coefficients of 1e{large} cancel in a condition: a rate (gamma, nu) or a difference of rates is next to "
            "nothing; give 0 for it, or more"
        )
    return _DIGITS + 2 * large


@contextlib.contextmanager
def _working_with(digits: int) -> Iterator[None]:
    """Interval arithmetic with more digits."""
    before, _iv.dps = _iv.dps, digits
    try:
        yield
    finally:
        _iv.dps = before


def _interval(number: Any) -> tuple[Any, Any]:
    """Real and imaginary part of a number as intervals that hold them."""
    parts = []
    for part in sp.sympify(number).as_real_imag():
        close: Any = part if part.is_Rational else sp.Rational(part.evalf(_iv.dps + 5))
        rounding = 0 if part.is_Rational else _iv.mpf([-1, 1]) / _iv.mpf(10) ** _iv.dps
        parts.append(_iv.mpf(close.p) / close.q * (1 + rounding))
    return parts[0], parts[1]


class _Enclosure:
    """Bounds of an exponential polynomial on intervals, in interval arithmetic."""

    def __init__(self, terms: Terms) -> None:
        self.terms = [(_interval(c), power, _interval(rate)) for (power, rate), c in terms.items()]

    def __call__(self, theta: Any) -> Any:
        total = _iv.mpf(0)
        for (real, imaginary), power, (rate, frequency) in self.terms:
            phase = frequency * theta
            total += (real * _iv.cos(phase) - imaginary * _iv.sin(phase)) * theta**power * _iv.exp(rate * theta)
        return total


class _TaylorForm:
    """The Taylor form of an exponential polynomial: bounds on [a, b], tight to the `_TERMS`-th power of its length."""

    def __init__(self, terms: Terms) -> None:
        self.derivatives = []
        for _ in range(_TERMS + 1):
            self.derivatives.append(_Enclosure(terms))
            terms = _derivative(terms)

    def __call__(self, a: Fraction, b: Fraction) -> Any:
        middle = _box((a + b) / 2, (a + b) / 2)
        if a == b:
            return self.derivatives[0](middle)
        box = _box(a, b)
        total = self.derivatives[-1](box)
        for k in range(_TERMS, 0, -1):
            total = self.derivatives[k - 1](middle) + (box - middle) * total / k
        return total


def _exponential_failure(name: str, terms: Terms, limit: Fraction) -> StableStep:
    """The first failure of an exponential polynomial f, bracketed: f > 0 is proven below, f < 0 at the upper end.

    At 0 f may vanish with its first k - 1 derivatives; where the k-th is positive on (0, b], so is f. Beyond, f is
    positive on [a, b] if its Taylor form is, f(c) + f'(c) d + ... + f^(n)([a, b]) d^n / n! with c the midpoint and
    d = [a, b] - c. What is nearly 0 over a long way, as 1 - det R of a flow that hardly damps, by e say, needs
    intervals of length e^(1/n).
    """
    held = StableStep(limit, limit, None)
    at_zero, value = terms, sp.S.Zero
    while value == 0:
        if not at_zero:
            return held
        value = sp.simplify(sp.Add(*(c for (power, _), c in at_zero.items() if power == 0)))
        at_zero = at_zero if value != 0 else _derivative(at_zero)
    if value < 0:
        return StableStep(Fraction(0), Fraction(0), name)
    f, lowest = _TaylorForm(terms), _Enclosure(at_zero)
    proven = limit
    while not lowest(_box(Fraction(0), proven)).a > 0:
        proven /= 2
    width = proven
    while proven < limit:
        end = min(limit, proven + width)
        if f(proven, end).a > 0:
            proven, width = end, 2 * width
        elif width > proven / 2**40:
            width /= 2
        else:
            while not f(end, end).b < 0:
                end += end - proven
                if end > proven * Fraction(1001, 1000):
                    raise ArithmeticError(f"the condition {name!r} touches zero at theta = {float(proven):.6g}")
            return StableStep(proven, end, name)
    return held


def _box(low: Fraction, high: Fraction) -> Any:
    """The interval [low, high], rounded outwards."""
    ends = [_iv.mpf(end.numerator) / end.denominator for end in (low, high)]
    return _iv.mpf([ends[0].a, ends[1].b])

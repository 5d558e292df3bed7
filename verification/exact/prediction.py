"""The error constant, predicted: the proven leading local error, integrated along the exact flow.

If one step's weak error is h^(p+1) (E f)(u) + ..., E the differential operator that theory.weak_order derives, then
after many steps E f(u_N) is off by h^p e + O(h^(p+1)) with (Talay and Tubaro 1990)

    e = int (E v)(u_tau) d tau in expectation over the exact law,   v(tau, u) = E[f(u_end) | u_tau = u].

On Gaussian data v is linear for the mean and quadratic for the covariance, and with the closed drift
A_c = beta (A - G Lambda) of the reverse dynamics this is a linear ODE in tau from e = 0,

    e_mean' = A_c e_mean + <E w>,      e_cov' = A_c e_cov + e_cov A_c^T + <E (w w^T)>,      w = u - mean_t,

where <.> is the expectation over the exact law. A scheme with memory makes its first steps with less of it: what they
leave at h^p is where e starts from.

On a grid tau = g(i/N), whose steps are g'/N and h the mean of them, the rate of e in tau is (g' / mean of g')^p times
that, and what a first step leaves too; on a graded grid, whose first steps are far shorter, it leaves nothing.

The score's jets follow from its own moment equations, those of another quantity held, q = Psi^-1 (s - Phi u), and of
Phi and Psi, from the kernel's (theory.taylor), and a clock's curvature from its rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from ...integrators.grids import base_of, is_graded, label, time_grid
from ...theory.formulas import compiled
from ...theory.model import Parameters
from ...theory.noise_amount import TAU
from ...theory.parameters import COMPONENTS
from ...theory.scheme import Scheme
from ...theory.taylor import TaylorKernel, covariance, moved
from ...theory.weak_order import Coefficient, OrderProof, prove_order
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array, matmul, matvec, sqrtm
from .errors import errors_of
from .moments import coefficients_at

# Gauss-Hermite nodes a coordinate: exact for polynomials of degree 9, the integrands' is 4 at most for orders 1 and 2.
_NODES = 5
_STEPS = 1000
# A constant below this, beside a law of size 1, is the rounding of one that vanishes.
_NOTHING = 1e-10

Local = Callable[[GaussianTarget, Array], tuple[Array, Array]]


def predicted_constants(
    scheme: Scheme, target: GaussianTarget, t_end: float, grid: str = "uniform"
) -> tuple[OrderProof, GaussianLaw]:
    """The proof, and the limit of the error divided by h^p after a run from t = T to t_end over `grid`, h its mean step
    and p the order that is proven for the grid.

    The second is a pair of constants, of the mean (n, V) and the covariance (n, n, V), signed: computed minus exact.
    At order 0 it is the first-order effect of the bias: all of it for lambda_s, the linear part for lost drift.
    Raises ValueError if no error was found to integrate, on a bad grid, and where more than the density of the steps
    counts: of a scheme with memory whose order is proven for equal steps alone, and of one that its start limits on a
    graded grid too.
    """
    params = target.params
    proof = prove_order(scheme, linear_beta=params.beta_min != params.beta_max)
    order = proof.order_if_graded if is_graded(grid) else proof.order
    if order is None:
        raise ValueError(
            f"{scheme.name!r} shows no local error up to h^{proof.searched}: there is no constant to predict"
        )
    _check_grid(scheme, proof, order, grid)
    with np.errstate(over="ignore", invalid="ignore"):
        first = _compile(() if is_graded(grid) else proof.start, scheme)(target, np.array([params.T]))
    coefficients = proof.coefficients if proof.order_of_steps == order else ()
    return proof, integrated(coefficients, order, scheme, target, t_end, grid, first)


def integrated(
    error: Sequence[Coefficient],
    order: int,
    scheme: Scheme,
    target: GaussianTarget,
    t_end: float,
    grid: str = "uniform",
    first: tuple[Array, Array] | None = None,
) -> GaussianLaw:
    """What local errors of h^(order + 1) in every step of a run, `error` the coefficients, add up to at its end over
    h^order: constants of the mean (n, V) and the covariance (n, n, V).

    scheme: whose dynamics carry them on, and whose score, or other quantity held, the coefficients are in. first: what
    errors of mean and covariance a run begins with, (n, 1, V) and (n, n, 1, V); none unless given. Raises ValueError
    where they could not be integrated.
    """
    params = target.params
    # Runge-Kutta's classical fourth-order rule on a fixed grid: all its coefficients are computed in one sweep. Half as
    # many steps, on every other of its times, show its error.
    with np.errstate(over="ignore", invalid="ignore"):  # too stiff for the grid: the check below says so
        local = _compile(error, scheme)
        first = _compile((), scheme)(target, np.array([params.T])) if first is None else first
        clock = _Clock.of(grid, params, t_end, _STEPS)
        rate = _rate(scheme, target, local, order, clock)
        begin = GaussianLaw(*(clock.density[0] ** order * entry[..., 0, :] for entry in first))
        fine, coarse = (_integrate(rate[..., ::every, :], begin, every * clock.span / _STEPS) for every in (1, 2))
        settled = all(_agree(*pair) for pair in zip(fine, coarse, target.law(t_end), strict=True))
    if not settled:
        raise ValueError(
            f"the error of {scheme.name!r} could not be integrated to 0.1% with {_STEPS} steps: too stiff; choose "
            "smaller parameters, or a larger t_end"
        )
    return fine


def predicted_errors(scheme: Scheme, target: GaussianTarget, t_end: float, grid: str = "uniform") -> dict[str, float]:
    """The predicted error constants of mean, covariance and W2, in the norms that `errors_of` measures.

    Raises ValueError as `predicted_constants` does.
    """
    constants = predicted_constants(scheme, target, t_end, grid)[1]
    exact = target.law(t_end)
    largest = max(float(np.abs(constant).max()) for constant in constants)
    if largest <= _NOTHING * max(1.0, *(float(np.abs(entry).max()) for entry in exact)):
        return dict.fromkeys(("mean", "covariance", "w2"), 0.0)
    small = 1e-6 / largest
    moved = GaussianLaw(exact.mean + small * constants.mean, exact.cov + small * constants.cov)
    unit = np.sqrt(target.diffusion.prior_variances(target.params.values()))
    return {quantity: error / small for quantity, error in errors_of(moved, exact, unit).items()}


def _agree(fine: Array, coarse: Array, exact: Array) -> bool:
    """To 0.1% of each target's own constants, or to what is nothing beside its law."""
    components = tuple(range(fine.ndim - 1))
    size, law = (np.abs(entry).max(axis=components) for entry in (fine, exact))
    allowed = 1e-3 * size + _NOTHING * np.maximum(1.0, law)
    return bool(np.all(np.abs(fine - coarse).max(axis=components) <= allowed))


def _check_grid(scheme: Scheme, proof: OrderProof, order: int, grid: str) -> None:
    """Raises ValueError where the leading error of a run over the grid is not that of equal steps, locally."""
    if grid == "uniform":
        return
    if not proof.any_steps:
        raise ValueError(
            f"the order of {scheme.name!r} is proven for equal steps alone: its constant on the grid {label(grid)!r} "
            "is not predicted; take 'uniform'"
        )
    if is_graded(grid) and scheme.memory > 1 and proof.order_of_steps != order:
        raise ValueError(
            f"the start of {scheme.name!r} limits it on the grid {label(grid)!r} too, and its steps have no limit: no "
            f"constant is predicted; take {base_of(grid)!r}"
        )


class _Clock(NamedTuple):
    """A fine grid over which errors are integrated in s = i/N: the times t (2 n + 1,) of ends and midpoints of n steps,
    and g' beside its mean (2 n + 1,): where it is large, the run's steps are long."""

    t: Array
    density: Array
    span: float

    @classmethod
    def of(cls, grid: str, params: Parameters, t_end: float, steps: int) -> _Clock:
        span, finer = params.T - t_end, 8
        tau = time_grid(base_of(grid), 2 * steps * finer, params, t_end)
        slope = np.gradient(tau, edge_order=2)[::finer] * (2 * steps * finer / span)
        return cls(params.T - tau[::finer], slope, span)


def _integrate(rate: Array, first: GaussianLaw, h: float) -> GaussianLaw:
    """From `first`, by steps of length h between every other of the times (2 n + 1,) of the `rate`."""
    begin, middle, end = rate[..., :-1:2, :], rate[..., 1::2, :], rate[..., 2::2, :]
    # The rule's four slopes are linear in what they are slopes of: each step is a matrix, all of them in one sweep.
    k1 = begin
    k2 = middle + h / 2 * matmul(middle, k1)
    k3 = middle + h / 2 * matmul(middle, k2)
    k4 = end + h * matmul(end, k3)
    steps = h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    mean, cov = first
    pairs = _pairs(len(mean))
    error = np.stack([*mean, *(cov[i, j] for i, j in pairs), np.ones_like(mean[0])])
    for step in np.moveaxis(steps, -2, 0):
        error = error + matvec(step, error)
    n = len(mean)
    cov = np.empty((n, *mean.shape))
    for (i, j), entry in zip(pairs, error[n:-1], strict=True):
        cov[i, j] = cov[j, i] = entry
    return GaussianLaw(error[:n], cov)


def _rate(scheme: Scheme, target: GaussianTarget, local: Local, order: int, clock: _Clock) -> Array:
    """The linear ODE of (e_mean, the entries of e_cov on and above the diagonal, 1): a matrix (m, m, 2 n + 1, V)."""
    t, params = clock.t, target.params
    A, G, _ = coefficients_at(scheme.splitting.whole, t, params)
    closed = (clock.density * params.beta(t))[:, None] * (A - matmul(G, target.precision(target.law(t))))
    mean, cov = (clock.density[:, None] ** (order + 1) * entry for entry in local(target, t))
    n, pairs = len(mean), _pairs(len(mean))
    place = {pair: n + k for k, (i, j) in enumerate(pairs) for pair in ((i, j), (j, i))}
    size = n + len(pairs) + 1
    rate = np.zeros((size, size, *mean.shape[1:]))
    rate[:n, :n], rate[:n, -1] = closed, mean
    for i, j in pairs:
        rate[place[i, j], -1] = cov[i, j]
        for k in range(n):
            rate[place[i, j], place[k, j]] += closed[i, k]
            rate[place[i, j], place[k, i]] += closed[j, k]
    return rate


def _pairs(n: int) -> list[tuple[int, int]]:
    return list(itertools.combinations_with_replacement(range(n), 2))


def _compile(error: Sequence[Coefficient], scheme: Scheme) -> Local:
    """(target, t (n,)) -> <E w> (d, n, V) and <E w w^T> (d, d, n, V), of d components, from a proof's local error."""
    components = scheme.splitting.diffusion.components
    size = len(components)
    pairs = _pairs(size)
    monomials = [tuple(places.count(i) for i in range(size)) for places in ((*((i,) for i in range(size)), *pairs))]
    formulas = {c.powers: c.text for c in error}
    function = compiled([formulas.get(powers, "0") for powers in monomials])
    names = function.names
    # The formulas are the errors of the monomials: 2 times the coefficient of p_x^2.
    in_time = max((name.partition(",")[2].count("t") for name in names), default=0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    grid = np.array(list(itertools.product(nodes, repeat=size))).T[..., None, None]  # (d, nodes, 1, 1)
    mass = reduce(np.multiply.outer, [weights] * size).reshape(-1, 1, 1) / (2 * math.pi) ** (size / 2)

    def local(target: GaussianTarget, t: Array) -> tuple[Array, Array]:
        law, held = target.law(t), _Held(scheme, target, t, in_time)
        w = matvec(sqrtm(law.cov)[:, :, None], grid)  # (d, nodes, n, V)
        values: dict[str, Any] = {**target.params.values(), "lambda_s": scheme.lambda_s}
        if (amount := scheme.splitting.whole.amount) is not None:
            values[TAU] = amount.at(t, target.params)[:, None]
        values |= {"beta": target.params.beta(t)[:, None], "dbeta": target.params.beta_max - target.params.beta_min}
        values |= dict(zip(components, w + law.mean[:, None], strict=True))
        values |= {f"c_{k}": c[:, None] for k, c in enumerate(_curvature(scheme, target, t, names), 2)}
        values |= {name: held.jet(name, w) for name in names if "_" in name and name not in values}
        c = [np.broadcast_to(value, w.shape[1:]) for value in function(values)]
        e_mean = np.stack([(mass * c[i]).sum(0) for i in range(size)])
        e_cov = np.empty((size, *e_mean.shape))
        for (i, j), square in zip(pairs, c[size:], strict=True):
            e_cov[i, j] = e_cov[j, i] = (mass * (c[i] * w[j] + c[j] * w[i] + square)).sum(0)
        return e_mean, e_cov

    return local


def _curvature(scheme: Scheme, target: GaussianTarget, t: Array, names: Sequence[str]) -> list[Array]:
    """c_2, c_3, ... of the scheme's clock at the times t (n,), as many as a proof names."""
    most = max((int(name[2:]) for name in names if name.startswith("c_")), default=1)
    return scheme.clock.curvature(target.diffusion, t, target.params, most) if most > 1 else []


class _Held:
    """What a scheme holds of a Gaussian target's score, s = -Lambda (u - mean), at the times t (n,), with Phi and Psi:
    their derivatives, up to the `order`-th in time.

    In units in which Psi is 1 at each of these times, as theory.calculus counts, q = -R (u - mean_t) + r with
    R = Psi_t Psi^-1 (Lambda + Phi) and r = Psi_t Psi^-1 (Lambda (mean - mean_t) - Phi mean_t), mean_t without a prime.
    """

    def __init__(self, scheme: Scheme, target: GaussianTarget, t: Array, order: int) -> None:
        params, forward = target.params, target.diffusion.forward
        A, _, D = forward.numbers(params.values())
        betas = (params.beta(t)[:, None, None, None], params.beta_max - params.beta_min)
        law = target.law(t)
        mean = moved(_last(law.mean[:, None]), lambda m, _: A @ m, betas, order)
        cov = covariance(_last(law.cov), A, D, betas, order)
        kernel = TaylorKernel(target.diffusion, t[:, None], params, order)
        self.phi, psi = (cov.of(matrix(kernel)) for matrix in (scheme.frozen.phi, scheme.frozen.psi))
        inverse = psi.inv()
        self.psi = psi @ inverse.terms[0]
        precision, unit = cov.inv(), psi.terms[0] @ inverse
        self.slope = unit @ (precision + self.phi)
        self.value = unit @ (precision @ (mean - mean.terms[0]) - self.phi @ mean.terms[0])

    def jet(self, name: str, w: Array) -> Array:
        """A derivative that a proof names, such as q_x,mt or Phi_xm,t, at u = mean + w (d, nodes, n, V)."""
        family, _, rest = name.partition("_")
        places, _, letters = rest.partition(",")
        i, k = COMPONENTS.index(places[0]), letters.count("t")
        if family in ("Phi", "Psi"):
            matrix = self.phi if family == "Phi" else self.psi
            return matrix.derivative(k)[..., i, COMPONENTS.index(places[1])]
        space = letters.replace("t", "")
        if len(space) > 1:
            return np.zeros(w.shape[1:])
        slope = self.slope.derivative(k)
        if space:
            return np.broadcast_to(-slope[..., i, COMPONENTS.index(space)], w.shape[1:])
        found = self.value.derivative(k)[..., i, 0]
        for place, entry in enumerate(w):
            found = found - slope[..., i, place] * entry
        return found


def _last(matrices: Array) -> Array:
    """(a, b, n, V) as stacks (n, V, a, b)."""
    return np.moveaxis(matrices, (0, 1), (-2, -1))

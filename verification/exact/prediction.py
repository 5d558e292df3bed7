"""The error constant, predicted: the proven leading local error, integrated along the exact flow.

If one step's weak error is h^(p+1) (E f)(u) + ..., E the differential operator that theory.weak_order derives, then
after many steps E f(u_N) is off by h^p e + O(h^(p+1)) with (Talay and Tubaro 1990)

    e = int (E v)(u_tau) d tau in expectation over the exact law,   v(tau, u) = E[f(u_end) | u_tau = u].

On Gaussian data v is linear for the mean and quadratic for the covariance, and with the closed drift
A_c = beta (A - G Lambda) of the reverse dynamics this is a linear ODE in tau from e = 0,

    e_mean' = A_c e_mean + <E w>,      e_cov' = A_c e_cov + e_cov A_c^T + <E (w w^T)>,      w = u - mean_t,

where <.> is the expectation over the exact law. The score's jets follow from its own moment equations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...theory.formulas import compiled
from ...theory.scheme import Scheme
from ...theory.weak_order import OrderProof, prove_order
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array, matmul, matvec, sqrtm, transpose
from .errors import errors_of

# Gauss-Hermite nodes a coordinate: exact for polynomials of degree 9, the integrands' is 4 at most for orders 1 and 2.
_NODES = 5
_STEPS = 1000
# A constant below this, beside a law of size 1, is the rounding of one that vanishes.
_NOTHING = 1e-10

Local = Callable[[GaussianTarget, Array], tuple[Array, Array]]


def predicted_constants(scheme: Scheme, target: GaussianTarget, t_end: float) -> tuple[OrderProof, GaussianLaw]:
    """The proof, and the limit of the error divided by h^p after a run of uniform steps h from t = T to t_end.

    The second is a pair of constants, of the mean (2, V) and the covariance (2, 2, V), signed: computed minus exact.
    At order 0 it is the first-order effect of the bias: all of it for lambda_s, the linear part for lost drift.
    Raises ValueError if no error was found to integrate.
    """
    params = target.params
    proof = prove_order(scheme, linear_beta=params.beta_min != params.beta_max)
    if proof.order is None:
        raise ValueError(
            f"{scheme.name!r} shows no local error up to h^{proof.searched}: there is no constant to predict"
        )
    # Runge-Kutta's classical fourth-order rule on a fixed grid: all its coefficients are computed in one sweep. Half as
    # many steps show its error.
    with np.errstate(over="ignore", invalid="ignore"):  # too stiff for the grid: the check below says so
        local = _compile(proof, scheme)
        fine, coarse = (_integrate(scheme, target, local, t_end, n) for n in (_STEPS, _STEPS // 2))
        settled = all(_agree(*pair) for pair in zip(fine, coarse, target.law(t_end), strict=True))
    if not settled:
        raise ValueError(
            f"the error of {scheme.name!r} could not be integrated to 0.1% with {_STEPS} steps: too stiff; choose "
            "smaller parameters, or a larger t_end"
        )
    return proof, fine


def predicted_errors(scheme: Scheme, target: GaussianTarget, t_end: float) -> dict[str, float]:
    """The predicted error constants of mean, covariance and W2, in the norms that `errors_of` measures.

    Raises ValueError as `predicted_constants` does.
    """
    _, constants = predicted_constants(scheme, target, t_end)
    exact = target.law(t_end)
    largest = max(float(np.abs(constant).max()) for constant in constants)
    if largest <= _NOTHING * max(1.0, *(float(np.abs(entry).max()) for entry in exact)):
        return dict.fromkeys(("mean", "covariance", "w2"), 0.0)
    small = 1e-6 / largest
    moved = GaussianLaw(exact.mean + small * constants.mean, exact.cov + small * constants.cov)
    unit = np.sqrt(target.diffusion.variances(target.params.values())[1:])
    return {quantity: error / small for quantity, error in errors_of(moved, exact, unit).items()}


def _agree(fine: Array, coarse: Array, exact: Array) -> bool:
    """To 0.1% of each target's own constants, or to what is nothing beside its law."""
    components = tuple(range(fine.ndim - 1))
    size, law = (np.abs(entry).max(axis=components) for entry in (fine, exact))
    allowed = 1e-3 * size + _NOTHING * np.maximum(1.0, law)
    return bool(np.all(np.abs(fine - coarse).max(axis=components) <= allowed))


def _integrate(scheme: Scheme, target: GaussianTarget, local: Local, t_end: float, steps: int) -> GaussianLaw:
    params = target.params
    span = params.T - t_end
    t = params.T - np.linspace(0, span, 2 * steps + 1)  # ends and midpoints of the steps
    A, G, _ = (matrix[..., None, None] for matrix in scheme.splitting.whole.numbers(params.values()))
    closed = params.beta(t)[:, None] * (A - matmul(G, target.precision(target.law(t))))
    local_mean, local_cov = local(target, t)

    def slope(i: int, mean: Array, cov: Array) -> tuple[Array, Array]:
        growth = matmul(closed[..., i, :], cov)
        return matvec(closed[..., i, :], mean) + local_mean[..., i, :], growth + transpose(growth) + local_cov[
            ..., i, :
        ]

    h = span / steps
    mean, cov = np.zeros((2, target.mean.size)), np.zeros((2, 2, target.mean.size))
    for i in range(0, 2 * steps, 2):
        k1 = slope(i, mean, cov)
        k2 = slope(i + 1, mean + h / 2 * k1[0], cov + h / 2 * k1[1])
        k3 = slope(i + 1, mean + h / 2 * k2[0], cov + h / 2 * k2[1])
        k4 = slope(i + 2, mean + h * k3[0], cov + h * k3[1])
        mean, cov = (
            value + h / 6 * (a + 2 * b + 2 * c + d)
            for value, a, b, c, d in zip((mean, cov), k1, k2, k3, k4, strict=True)
        )
    return GaussianLaw(mean, cov)


def _compile(proof: OrderProof, scheme: Scheme) -> Local:
    """(target, t (n,)) -> <E w> (2, n, V) and <E w w^T> (2, 2, n, V), from the proof's leading local error."""
    first = [(1, 0), (0, 1)]
    second = [(2, 0), (1, 1), (0, 2)]
    formulas = {c.powers: c.text for c in proof.coefficients}
    function = compiled([formulas.get(powers, "0") for powers in (*first, *second)])
    names = function.names
    # The formulas are the errors of the monomials: 2 times the coefficient of p_x^2 and of p_m^2.
    in_time = max((name.partition(",")[2].count("t") for name in names), default=0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    grid = np.array(list(itertools.product(nodes, repeat=2))).T[..., None, None]  # (2, nodes, 1, 1)
    mass = np.outer(weights, weights).reshape(-1, 1, 1) / (2 * math.pi)

    def local(target: GaussianTarget, t: Array) -> tuple[Array, Array]:
        laws, precisions = _law_derivatives(target, t, in_time)
        mean, cov = laws[0]
        w = matvec(sqrtm(cov)[:, :, None], grid)  # (2, nodes, n, V)
        values: dict[str, Any] = {**target.params.values(), "lambda_s": scheme.lambda_s}
        values |= {"beta": target.params.beta(t)[:, None], "dbeta": target.params.beta_max - target.params.beta_min}
        values |= dict(zip(("x", "m"), w + mean[:, None], strict=True))
        values |= {name: _jet(name, w, laws, precisions) for name in names if name.startswith("s_")}
        c = [np.broadcast_to(value, w.shape[1:]) for value in function(values)]
        e_mean = np.stack([(mass * c[i]).sum(0) for i in range(2)])
        xx, mm = ((mass * (2 * c[i] * w[i] + c[j])).sum(0) for i, j in ((0, 2), (1, 4)))
        xm = (mass * (c[0] * w[1] + c[1] * w[0] + c[3])).sum(0)
        return e_mean, np.stack([np.stack([xx, xm]), np.stack([xm, mm])])

    return local


def _jet(name: str, w: Array, laws: list[GaussianLaw], precisions: list[Array]) -> Array:
    """A partial derivative of s = -Lambda_t (u - mean_t), named as the proof names it, at u = mean + w."""
    component, _, letters = name.removeprefix("s_").partition(",")
    row = "xm".index(component)
    k = letters.count("t")
    space = letters.replace("t", "")
    if len(space) > 1:
        return np.zeros(w.shape[1:])
    if space:
        return np.broadcast_to(-precisions[k][row, "xm".index(space)], w.shape[1:])
    value = matvec(precisions[k][:, :, None], w)
    for j in range(k):
        value = value - (math.comb(k, j) * matvec(precisions[j], laws[k - j].mean))[:, None]
    return -value[row]


def _law_derivatives(target: GaussianTarget, t: Array, k: int) -> tuple[list[GaussianLaw], list[Array]]:
    """The first k derivatives in t of mean_t, cov_t and Lambda_t, by Leibniz' rule from the forward moment equations
    mean' = beta A mean, cov' = beta (A cov + cov A^T + D), and from Lambda cov = 1."""
    params = target.params
    A, _, D = (matrix[..., None, None] for matrix in target.diffusion.forward.numbers(params.values()))
    betas = [params.beta(t)[:, None], params.beta_max - params.beta_min]
    law = target.law(t)
    laws = [law]
    precisions = [target.precision(law)]
    for order in range(k):
        mean, cov = np.zeros_like(law.mean), np.zeros_like(law.cov)
        for j in range(min(order, 1) + 1):
            factor, inner = math.comb(order, j) * betas[j], laws[order - j]
            growth = matmul(A, inner.cov)
            mean = mean + factor * matvec(A, inner.mean)
            cov = cov + factor * (growth + transpose(growth) + (D if j == order else 0))
        laws.append(GaussianLaw(mean, cov))
        terms = (math.comb(order + 1, j) * matmul(laws[j].cov, precisions[order + 1 - j]) for j in range(1, order + 2))
        precisions.append(-matmul(precisions[0], sum(terms, np.zeros_like(law.cov))))
    return laws, precisions

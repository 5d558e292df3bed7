"""The law of noised Gaussian data, in closed form, and the perturbation kernel, its case of a single point.

With the forward SDE's exact flow (P, Q), data N(mu, s2), and the variances V of the other components at the data (of
PSLD kappa M of the momentum):

    mean = P (mu, 0)^T,    cov = P diag(s2, V) P^T + Q

proven by substitution into the moment equations mean' = A mean, cov' = A cov + cov A^T + D. The kernel p(u_t | x_0) is
the marginal at s2 = 0, mu = x_0; its lower Cholesky factor L turns a network's eps into a score, s = -L^-T eps.
Source: arXiv 2303.01748, section 3 and appendix A.
"""

from __future__ import annotations

import sympy as sp
from sympy import Matrix

from .flows import exact_flow
from .model import Diffusion
from .symbols import theta

mu = sp.symbols("mu", real=True)
s2 = sp.symbols("s2", nonnegative=True)


def marginal(diffusion: Diffusion) -> tuple[Matrix, Matrix]:
    """Mean (n, 1) and covariance (n, n) of u at theta = int_0^t beta, for data N(mu, s2); sympy."""
    propagator, _, noise = exact_flow(diffusion.forward).matrices
    start = sp.diag(s2, *diffusion.data_variance)
    return propagator * _at_data(diffusion), propagator * start * propagator.T + noise


def _at_data(diffusion: Diffusion) -> Matrix:
    return Matrix([mu, *(0 for _ in diffusion.data_variance)])


def moment_residuals(diffusion: Diffusion, mean: Matrix, cov: Matrix) -> tuple[Matrix, ...]:
    """What the moment equations and the initial values leave over: four zero matrices if (mean, cov) solve them."""
    A, D = diffusion.forward.matrix, diffusion.forward.noise
    differences = (
        mean.diff(theta) - A * mean,
        cov.diff(theta) - (A * cov + cov * A.T + D),
        mean.subs(theta, 0) - _at_data(diffusion),
        cov.subs(theta, 0) - sp.diag(s2, *diffusion.data_variance),
    )
    return tuple(sp.Matrix(difference).applyfunc(sp.simplify) for difference in differences)


def kernel(diffusion: Diffusion) -> tuple[Matrix, Matrix]:
    """Mean and covariance of p(u_t | x_0 = mu), the momentum marginalised."""
    mean, cov = marginal(diffusion)
    return mean, cov.subs(s2, 0)


def lower_cholesky(cov: Matrix) -> Matrix:
    """L with L L^T = cov, lower triangular with a positive diagonal; cov symmetric positive definite."""
    return Matrix(cov.cholesky(hermitian=False))

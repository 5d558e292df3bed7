"""What a part holds while it flows: the score, or another quantity that the network's answer is read as.

Between two evaluations a part of drift A u + G s(u, t) has to take something for the score. Read the answer as

    s(u, t) = Phi(t) u + Psi(t) q

with fixed matrices Phi and Psi: q = Psi^-1 (s - Phi u) is what is held, and the part follows

    du = [(A + G Phi(t)) u + G Psi(t) q] dtheta + D^(1/2) dw

exactly. What is held decides how large an error the holding leaves, not what a small step tends to. Phi and Psi are
made of the forward process, u_t = E_t u_0 + L_t eps, and of the prior:

    E_t        propagator, exp(A_f theta), of the forward SDE from the data to t
    Sigma_t    covariance of the perturbation kernel p(u_t | x_0), its momentum marginalised (theory.kernel)
    L_t        its lower Cholesky factor, Sigma_t = L_t L_t^T
    prior      covariance of the law that samplers start from

    name        Phi           Psi              q                                  who holds it
    score       0             1                the score itself                   splitting schemes (arXiv 2402.07211)
    residual    -prior^-1     1                what deviates from the prior's     SSCS holds it in E (2112.07068)
    eps         0             -L_t^-T          the network's own answer           DDIM (2010.02502), DEIS (2204.13902),
                                                                                  DPM-Solver (2206.00927)
    data        -Sigma_t^-1   Sigma_t^-1 E_t   the predicted data point (x_0, 0)  DPM-Solver++ (2211.01095), SA-Solver
                                                                                  (2309.05019)

A further kind is one literal: a name, and Phi and Psi as functions of a `Kernel`, made of its matrices by `@`, `+`,
`-`, `inverse` and `transposed`, which take numpy's stacks and sympy's matrices alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .flows import exact_flow
from .model import Diffusion, Parameters

Array = NDArray[np.float64]


class Kernel(Protocol):
    """The forward process at a time t: n x n matrices, numpy's (..., n, n) or sympy's. `prior`, `one` and `zero`
    have no time axis."""

    @property
    def propagator(self) -> Any:
        """E_t."""
        ...

    @property
    def cov(self) -> Any:
        """Sigma_t."""
        ...

    @property
    def factor(self) -> Any:
        """L_t, lower triangular with a positive diagonal, L_t L_t^T = Sigma_t."""
        ...

    @property
    def prior(self) -> Any:
        """The prior's covariance."""
        ...

    @property
    def noise(self) -> Any:
        """D of the forward SDE. Without a time axis."""
        ...

    @property
    def beta(self) -> Any:
        """beta(t), 1 x 1."""
        ...

    @property
    def one(self) -> Any:
        """The unit matrix."""
        ...

    @property
    def zero(self) -> Any:
        """The zero matrix."""
        ...


class NumericKernel:
    """The kernel of `diffusion` in numbers, at theta = int_0^t beta of any shape (...): matrices (..., n, n), float64.

    values: what gamma, nu and kappa stand for; beta (...): beta(t), where it is asked for. A matrix is computed when it
    is asked for. Raises ValueError where the covariance is singular (theta = 0; a diffusion that does not noise its
    data) and its factor is asked for.
    """

    def __init__(
        self, diffusion: Diffusion, theta: ArrayLike, values: Mapping[str, float], beta: ArrayLike = math.nan
    ) -> None:
        self.diffusion, self.theta, self.values = diffusion, np.asarray(theta, dtype=float), values
        self.beta = np.asarray(beta, dtype=float)[..., None, None]
        n = diffusion.size
        self.one, self.zero = np.eye(n), np.zeros((n, n))

    @cached_property
    def _flow(self) -> Any:
        return exact_flow(self.diffusion.forward)(self.theta, self.values)

    @property
    def propagator(self) -> Array:
        """E_t."""
        return self._flow.propagator

    @cached_property
    def cov(self) -> Array:
        """Sigma_t."""
        cov = self._flow.noise_cov
        for i, variance in enumerate(self.diffusion.data_variances(self.values), 1):
            column = self.propagator[..., i]
            cov = variance * column[..., :, None] * column[..., None, :] + cov
        return cov

    @cached_property
    def factor(self) -> Array:
        """L_t."""
        try:
            return np.asarray(np.linalg.cholesky(self.cov), dtype=float)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"the kernel of {self.diffusion.name!r} has a singular covariance at theta = {self.theta.min():g}; "
                "hold a quantity without it, such as score"
            ) from error

    @property
    def prior(self) -> Array:
        """The prior's covariance."""
        return np.diag(self.diffusion.prior_variances(self.values))

    @property
    def noise(self) -> Array:
        """D of the forward SDE."""
        return self.diffusion.forward.numbers(self.values)[2]


def inverse(matrix: Any) -> Any:
    """The inverse of numpy's (..., n, n), not finite where there is none (n of 1 and 2), or of sympy's matrix."""
    if hasattr(matrix, "inv"):
        return matrix.inv()
    n = np.shape(matrix)[-1]
    if n != 2:
        return 1 / np.asarray(matrix, dtype=float) if n == 1 else np.linalg.inv(matrix)
    (a, b), (c, d) = np.moveaxis(np.asarray(matrix, dtype=float), (-2, -1), (0, 1))
    adjugate = np.moveaxis(np.array([[d, -b], [-c, a]]), (0, 1), (-2, -1))
    return adjugate / (a * d - b * c)[..., None, None]


def transposed(matrix: Any) -> Any:
    """The transposes of numpy's (..., n, n) or of sympy's matrix."""
    return np.swapaxes(matrix, -1, -2) if isinstance(matrix, np.ndarray) else matrix.T


def trace(matrix: Any) -> Any:
    """The traces of numpy's (..., n, n) or of a matrix that has its own, as 1 x 1 matrices."""
    if isinstance(matrix, np.ndarray):
        return np.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
    return matrix.trace()


@dataclass(frozen=True)
class Frozen:
    """What is held: q of s(u, t) = phi(kernel) u + psi(kernel) q; `psi` must be invertible at every t > 0.

    name: a word for options and titles. phi, psi: of a `Kernel`, n x n; without a time axis where they do not change.
    Raises ValueError on a bad name.
    """

    name: str
    phi: Callable[[Kernel], Any]
    psi: Callable[[Kernel], Any]

    def __post_init__(self) -> None:
        if not (self.name.isprintable() and self.name.strip() == self.name and self.name):
            raise ValueError(f"frozen {self.name!r} is no name; choose printable letters, such as data")

    def __reduce__(self) -> Any:
        """Built-in kinds by name: their functions cannot be pickled."""
        built_in = FROZEN.get(self.name) == self
        return (find_frozen, (self.name,)) if built_in else (Frozen, (self.name, self.phi, self.psi))

    def check(self, diffusion: Diffusion) -> None:
        """Raises ValueError unless Phi and Psi exist under `diffusion`, tried at the default parameters."""
        n = diffusion.size
        with np.errstate(all="ignore"):
            try:
                phi, psi = self._tried(diffusion)
                square = phi.shape == psi.shape == (n, n)
                fits = square and bool(np.isfinite([phi, psi, np.linalg.inv(psi)]).all())
            except (ValueError, np.linalg.LinAlgError):
                fits = False
        if not fits:
            raise ValueError(
                f"frozen {self.name!r} has no {n}x{n} Phi and invertible Psi under {diffusion.name!r}, whose kernel it "
                "is made of; choose another, such as score"
            )

    def fingerprint(self, diffusion: Diffusion) -> list[float]:
        """Numbers that tell it from another kind of its name: Phi and Psi at one time of the default parameters."""
        return [float(f"{entry:.9g}") for matrix in self._tried(diffusion) for entry in matrix.ravel()]

    def _tried(self, diffusion: Diffusion) -> tuple[Array, Array]:
        params = Parameters()
        kernel = NumericKernel(diffusion, params.theta(0.3, 0.3), params.values())
        return np.asarray(self.phi(kernel), dtype=float), np.asarray(self.psi(kernel), dtype=float)

    def __str__(self) -> str:
        return self.name


SCORE_HELD = Frozen("score", lambda k: k.zero, lambda k: k.one)
RESIDUAL_HELD = Frozen("residual", lambda k: -inverse(k.prior), lambda k: k.one)
EPS_HELD = Frozen("eps", lambda k: k.zero, lambda k: -inverse(transposed(k.factor)))
DATA_HELD = Frozen("data", lambda k: -inverse(k.cov), lambda k: inverse(k.cov) @ k.propagator)

FROZEN = {frozen.name: frozen for frozen in (SCORE_HELD, RESIDUAL_HELD, EPS_HELD, DATA_HELD)}


def find_frozen(name: str) -> Frozen:
    """A built-in kind by its name. Raises ValueError."""
    if name not in FROZEN:
        raise ValueError(f"frozen {name!r} is unknown; choose one of {', '.join(FROZEN)}")
    return FROZEN[name]

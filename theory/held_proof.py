"""Closed forms of flows that hold another quantity than the score, proven by sympy.

The residual. Its Phi and Psi are constant, so holding it is holding a score in another linear SDE, and
theory.flow_proof derives and proves its flow: `steady`.

The data point. Where the whole reverse SDE is one part and q = (x_0, m_0) is held, the score Sigma_t^-1 (E_t q - u) is
that of the forward process from N(q, diag(0, kappa M)), so the reverse SDE is its exact time reversal: given u_t, the
state at an earlier time s is its bridge, N(E_s q, Sigma_s) conditioned on u_t = E u_s + N(0, Q_f), E = E_t E_s^-1,

    P = Sigma_s E^T Sigma_t^-1,     Q = Sigma_s - P E Sigma_s = P Q_f E^-T,     K = E_s - P E_t = Q Sigma_s^-1 E_s,

the last forms without a difference. On the probability flow u - E_t q moves along R_t R_s^-1, R_t R_t^T = Sigma_t the
root that obeys R' = (A_f + D Sigma^-1 / 2) R: with L the Cholesky factor and O the rotation by an angle phi, R = L O,

    P = L_s O_s O_t^-1 L_t^-1,     K = E_s - P E_t,     phi' = -(L^-1 A_f L + L^-1 D L^-T / 2)_xm,

where the angle is an integral. (In one dimension there is none, and P is the ratio of two standard deviations: DDIM,
Song et al. 2021. gDDIM, Zhang et al. 2022, arXiv 2206.05564, holds R_t^T s for this reason.) `bridge_residuals` and
`rotation_residuals` hold what these forms leave over of their equations: zeros.
"""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy import Matrix

from .formulas import text
from .frozen import Frozen, inverse, transposed
from .model import Diffusion, LinearSDE
from .symbols import SCORE, STATE


class SymbolicPrior:
    """A kernel that has no more than what does not change in time; a kind that asks for more is not steady."""

    def __init__(self, diffusion: Diffusion) -> None:
        n = diffusion.size
        self.prior, self.one, self.zero = sp.diag(*diffusion.prior_variance), sp.eye(n), sp.zeros(n, n)

    @property
    def propagator(self) -> Matrix:
        """None: it depends on time."""
        raise NotSteadyError

    cov = factor = propagator


class NotSteadyError(Exception):
    """Phi or Psi depend on time."""


def steady(sde: LinearSDE, frozen: Frozen, diffusion: Diffusion) -> LinearSDE | None:
    """The linear SDE in which q stands in the score's place, du = [(A + G Phi) u + G Psi q] dtheta + noise; None where
    Phi or Psi depend on time."""
    kernel: Any = SymbolicPrior(diffusion)
    try:
        phi, psi = frozen.phi(kernel), frozen.psi(kernel)
    except NotSteadyError:
        return None
    A, G = ((of).applyfunc(sp.factor) for of in (sde.matrix + sde.score_gain * phi, sde.score_gain * psi))
    drift = A * Matrix(STATE[: sde.size]) + G * Matrix(SCORE[: sde.size])
    return LinearSDE(tuple(drift), sde.diffusion)


def steady_text(sde: LinearSDE, frozen: Frozen, diffusion: Diffusion) -> list[str] | None:
    """Its drift in text, q_x, q_m, ... in the score's place; None where there is none."""
    found = steady(sde, frozen, diffusion)
    if found is None:
        return None
    q = {score: sp.Symbol(f"q_{component}") for score, component in zip(SCORE, STATE, strict=True)}
    return [text(entry.subs(q)) for entry in found.drift]


def bridge_residuals() -> tuple[Matrix, ...]:
    """What the bridge leaves over of P' = B P, Q' = B Q + Q B^T + D, K' = B K + g and of their initial values, for any
    A_f, D, E and Sigma: six zero matrices.

    ' is -d/ds, as s runs down; E_s' = -A_f E_s, Sigma_s' = -A_f Sigma_s - Sigma_s A_f^T - D, E' = E A_f; Sigma_t and
    E_t = E E_s stand still. B = -A_f - D Sigma_s^-1, g = D Sigma_s^-1 E_s.
    """
    A, E, E_s = (Matrix(2, 2, sp.symbols(names, real=True)) for names in ("a:4", "e:4", "f:4"))
    D = sp.diag(*sp.symbols("d:2", positive=True))
    cov, precision_t = (_symmetric(sp.symbols(names, real=True)) for names in ("c:3", "w:3"))
    moving = [(cov, -A * cov - cov * A.T - D), (E, E * A), (E_s, -A * E_s)]

    def slope(matrix: Any) -> Any:
        entries = {of[i]: rate[i] for of, rate in moving for i in range(4)}
        return sum((matrix.diff(entry) * rate for entry, rate in entries.items()), sp.zeros(2, 2))

    P = cov * E.T * precision_t
    Q, K = cov - P * E * cov, E_s - P * E * E_s
    precision = inverse(cov)
    B, g = -A - D * precision, D * precision * E_s
    start: dict[Any, Any] = {E[i]: sp.eye(2)[i] for i in range(4)} | {precision_t[i]: precision[i] for i in range(4)}
    left_over = (
        slope(P) - B * P,
        slope(Q) - (B * Q + Q * B.T + D),
        slope(K) - (B * K + g),
        P.subs(start) - sp.eye(2),
        Q.subs(start),
        K.subs(start),
    )
    return tuple(matrix.applyfunc(lambda entry: sp.cancel(sp.together(entry))) for matrix in left_over)


def _symmetric(entries: Any) -> Matrix:
    xx, xm, mm = entries
    return Matrix([[xx, xm], [xm, mm]])


def rotation_residuals() -> tuple[Matrix, ...]:
    """What R = L O leaves over of R' = (A_f + D Sigma^-1 / 2) R, O the rotation by phi, for any A_f and D: zeros.

    L' follows from Sigma' = A_f Sigma + Sigma A_f^T + D: with N = L^-1 Sigma' L^-T it is L times the strictly lower
    part of N and half its diagonal.
    """
    A = Matrix(2, 2, sp.symbols("a:4", real=True))
    D = sp.diag(*sp.symbols("d:2", positive=True))
    p, r = sp.symbols("p r", positive=True)
    q, phi = sp.symbols("q phi", real=True)
    L = Matrix([[p, 0], [q, r]])
    cov = L * L.T
    N = L.inv() * (A * cov + cov * A.T + D) * L.T.inv()
    L_rate = L * Matrix([[N[0, 0] / 2, 0], [N[1, 0], N[1, 1] / 2]])
    turn = Matrix([[sp.cos(phi), -sp.sin(phi)], [sp.sin(phi), sp.cos(phi)]])
    angle = rotation_rate(A, D, L)
    left_over = L_rate * turn + L * turn.diff(phi) * angle - (A + D * cov.inv() / 2) * L * turn
    return (left_over.applyfunc(sp.simplify),)


def rotation_rate(A: Any, D: Any, L: Any) -> Any:
    """d phi / d theta from the forward drift A_f, the noise D and the factor L: sympy's matrices, or numbers (2, 2)."""
    root = inverse(L)
    return -(root @ A @ L + root @ D @ transposed(root) / 2)[0, 1]

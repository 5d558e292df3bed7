"""Runs of schemes that hold other quantities over several evaluations, by hand: loops, in t, one step at a time.

Nothing is shared with what is tested: the kernel by matrix exponentials, flows by scipy's DOP853 in t with beta(t) in
place, polynomials by their monomials. A state is a row of numbers for each coordinate: its coefficients of 1, of the
first state's x and m, and of the standard normals that were drawn since.
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.targets import GaussianTarget

_TIGHT = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-16}


def forward_kernel(scheme: Scheme, params: Parameters, t: float) -> tuple[np.ndarray, np.ndarray]:
    """E_t and Sigma_t: exponentials of the forward drift, and of Van Loan's block matrix."""
    A, _, D = scheme.splitting.diffusion.forward.numbers(params.values())
    theta = quad(params.beta, 0, t)[0]
    block = expm(np.block([[-A, D], [np.zeros((2, 2)), A.T]]) * theta)
    E = block[2:, 2:].T
    (momentum,) = scheme.splitting.diffusion.data_variances(params.values())
    return E, E @ np.diag([0, momentum]) @ E.T + E @ block[:2, 2:]


def matrices(scheme: Scheme, params: Parameters, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Phi and Psi as the table of theory.frozen has them."""
    E, cov = forward_kernel(scheme, params, t)
    match scheme.frozen.name:
        case "score":
            return np.zeros((2, 2)), np.eye(2)
        case "residual":
            return -np.diag([1, params.M_inv]), np.eye(2)
        case "eps":
            return np.zeros((2, 2)), -np.linalg.inv(np.linalg.cholesky(cov)).T
    return -np.linalg.inv(cov), np.linalg.inv(cov) @ E


def told(scheme: Scheme, params: Parameters, begin: float, t: float) -> float:
    """What the scheme's clock shows at t, begun at `begin`: theta, t, or log-SNR, from determinants."""
    match scheme.clock.name:
        case "theta":
            return (begin - t) * params.beta((begin + t) / 2)
        case "t":
            return begin - t
    return signal(scheme, params, t) - signal(scheme, params, begin)


def signal(scheme: Scheme, params: Parameters, t: float) -> float:
    """Half the log determinant of E^T Sigma^-1 E."""
    E, cov = forward_kernel(scheme, params, t)
    return float(np.linalg.slogdet(E.T @ np.linalg.solve(cov, E))[1]) / 2


def part_by_hand(
    scheme: Scheme, name: str, params: Parameters, begin: float, end: float, count: int
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """P, the gains of the monomials c^0 ... c^(count - 1) of q, of the clock c from `begin` on, and Q; where the middle
    is held, c is there half of what it comes to."""
    sde = scheme.splitting[name].sde
    A, G, D = sde.numbers(params.values())

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        phi, psi = matrices(scheme, params, t) if sde.uses_score else (np.zeros((2, 2)), np.zeros((2, 2)))
        B, g = A + G @ phi, G @ psi
        if scheme.flow == "euler" and sde.uses_score:  # the drift is q
            B, g = np.zeros((2, 2)), np.eye(2)
        c = told(scheme, params, begin, end) / 2 if scheme.clock.midpoint else told(scheme, params, begin, t)
        y = y.reshape(-1, 2, 2)
        Q = B @ y[1] + y[1] @ B.T + D
        gains = [B @ K + c**i * g for i, K in enumerate(y[2:])]
        return -params.beta(t) * np.array([B @ y[0], Q, *gains]).ravel()

    start = np.concatenate([np.eye(2)[None], np.zeros((count + 1, 2, 2))]).ravel()
    P, Q, *gains = solve_ivp(slope, (begin, end), start, **_TIGHT).y[:, -1].reshape(-1, 2, 2)
    return P, gains, Q


def run_by_hand(scheme: Scheme, target: GaussianTarget, taus: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R, b and Q of a run over the grid `taus` on one Gaussian target: u <- R u + b + N(0, Q)."""
    params = target.params
    normals = sum(2 for t in scheme.tokens if not t.is_score and scheme.splitting[t.symbol].sde.has_noise)
    width = 3 + normals * (len(taus) - 1)
    u = np.zeros((2, width))
    u[0, 1] = u[1, 2] = 1
    one = np.eye(width)[0]
    drawn, old = 3, list[tuple[float, np.ndarray]]()
    driven = next((p.sde for p in scheme.parts if p.sde.uses_score), None)
    for tau, h in zip(taus[:-1], np.diff(taus), strict=True):
        for token in scheme.tokens:
            begin = params.T - tau - float(token.start) * h
            if token.weight is None:
                law = target.law(begin)
                s = -target.precision(law)[..., 0] @ (u - np.outer(law.mean[:, 0], one))
                if scheme.flow == "euler":
                    assert driven is not None
                    A, G, _ = driven.numbers(params.values())
                    q = A @ u + G @ s
                else:
                    phi, psi = matrices(scheme, params, begin)
                    q = np.linalg.solve(psi, s - phi @ u)
                old = [(begin, q), *old][: scheme.memory]
                continue
            uses = scheme.splitting[token.symbol].sde.uses_score
            P, gains, Q = part_by_hand(
                scheme, token.symbol, params, begin, begin - float(token.weight) * h, len(old) if uses else 0
            )
            u = P @ u
            if uses:
                elapsed = [told(scheme, params, begin, t) for t, _ in old]
                powers = np.linalg.inv(np.vander(elapsed, increasing=True))
                for i, K in enumerate(gains):
                    u = u + K @ sum(powers[i, j] * q for j, (_, q) in enumerate(old))
            if Q.any():
                scale = np.diag([scheme.lambda_s, 1.0])
                xx, xm, mm = (scale @ Q @ scale)[[0, 0, 1], [0, 1, 1]]
                u[0, drawn] = np.sqrt(xx)
                if xx:
                    u[1, drawn] = xm / np.sqrt(xx)
                u[1, drawn + 1] = np.sqrt(mm - u[1, drawn] ** 2)
                drawn += 2
    return u[:, 1:3], u[:, 0], u[:, 3:] @ u[:, 3:].T

"""The published Euler-Maruyama step, any of whose quantities can be made wrong by name."""

from __future__ import annotations

import torch
from weakorder.theory.model import Parameters

PARAMS = Parameters(beta_min=0.5, beta_max=12.0)


def euler_maruyama(u, tau, h, score, wrong=lambda name, value: value):
    """The published step; `wrong` may change any of its quantities by name."""
    t = wrong("t", 1 - tau)
    beta = wrong("beta", PARAMS.beta(1 - tau))
    s = wrong("score", score(u, t))
    x, m = u[:, 0], u[:, 1]
    gamma, nu, M = wrong("gamma", PARAMS.gamma), wrong("nu", PARAMS.nu), wrong("M", PARAMS.M)
    drift_x = beta / 2 * (wrong("sign", 1.0) * gamma * x - m / M + 2 * gamma * s[:, 0])
    drift_m = beta / 2 * (x + nu * m + wrong("two", 2.0) * M * nu * s[:, 1])
    g_x, g_m = wrong("g_x", (beta * gamma) ** 0.5), wrong("g_m", (beta * M * nu) ** 0.5)
    xi = wrong("xi", torch.randn_like(u))
    noise = torch.stack([g_x * xi[:, 0], g_m * xi[:, 1]], dim=1)
    return wrong("end", u + h * torch.stack([drift_x, drift_m], dim=1) + wrong("root", h**0.5) * noise)


def with_fault(**faults):
    """Euler-Maruyama with the named quantities changed by functions."""

    def wrong(name, value):
        return faults[name](value) if name in faults else value

    return lambda u, tau, h, score: euler_maruyama(u, tau, h, score, wrong)

"""Multistep samplers: the drift extrapolated from its last two values, one evaluation of the score a step.

With d_n the drift at tau_n and r = h_n / h_n-1 the ratio of the steps,

    f_n = (1 + r/2) d_n - r/2 d_n-1          the first step of a trajectory takes f_0 = d_0 (Euler)
    u_n+1 = u_n + h_n f_n + noise            noise ~ N(0, g^2 int beta)

AB2        Adams-Bashforth on the probability flow, no noise: order 2.
SAB2       the same on the reverse SDE: weak order 2 on Gaussian data, measured; the noise is additive (Buckwar and
           Winkler 2006, doi 10.1137/040602857, treat such methods in mean square).

A sampler with state is an object: `reset()` forgets the past and is called before each trajectory; calling it makes one
step. Steps may vary in size.

    weakorder verify examples/multistep.py:ab2 --order 2
    weakorder verify examples/multistep.py:sab2 --order 2 --grid quadratic
    weakorder verify examples/multistep.py:sab2_linear --order 2 --beta-min 0.1 --beta-max 15.9
"""

import torch


class PSLD:
    """The model, and the two drifts that lead back from noise to data."""

    def __init__(self, beta_0=8.0, beta_1=8.0, gamma=0.01, nu=4.01):
        self.beta_0, self.beta_1, self.gamma, self.nu = beta_0, beta_1, gamma, nu
        self.M_inv = (gamma - nu) ** 2 / 4
        self.g2 = (gamma, nu / self.M_inv)

    def beta(self, t):
        return self.beta_0 + (self.beta_1 - self.beta_0) * t

    def reverse_drift(self, u, t, score, score_weight):
        """score_weight: 1 for the reverse SDE, 1/2 for the probability flow."""
        x, m = u.unbind(1)
        s_x, s_m = score(u, t).unbind(1)
        dx = (self.gamma * x - self.M_inv * m) / 2 + score_weight * self.g2[0] * s_x
        dm = (x + self.nu * m) / 2 + score_weight * self.g2[1] * s_m
        return self.beta(t) * torch.stack([dx, dm], dim=1)


class AB2:
    """Two-step Adams-Bashforth on the probability flow."""

    score_weight = 0.5

    def __init__(self, sde):
        self.sde = sde
        self.reset()

    def reset(self):
        self.last = None

    def __call__(self, u, tau, h, score):
        drift = self.sde.reverse_drift(u, 1 - tau, score, self.score_weight)
        f = drift
        if self.last is not None:
            last_drift, last_h = self.last
            r = h / last_h
            f = (1 + r / 2) * drift - r / 2 * last_drift
        self.last = drift, h
        return u + h * f


class SAB2(AB2):
    """The same on the reverse SDE, with its noise added after every step."""

    score_weight = 1.0

    def __call__(self, u, tau, h, score):
        mean = super().__call__(u, tau, h, score)
        theta = h * self.sde.beta(1 - tau - h / 2)
        x, m = mean.unbind(1)
        x = x + (self.sde.g2[0] * theta) ** 0.5 * torch.randn_like(x)
        m = m + (self.sde.g2[1] * theta) ** 0.5 * torch.randn_like(m)
        return torch.stack([x, m], dim=1)


constant, linear = PSLD(), PSLD(beta_0=0.1, beta_1=15.9)
ab2, ab2_linear = AB2(constant), AB2(linear)
sab2, sab2_linear = SAB2(constant), SAB2(linear)

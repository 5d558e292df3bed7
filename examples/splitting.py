"""Splitting samplers of the reverse SDE as one writes them by hand: plain torch, one class a scheme.

A step goes from tau to tau + h, that is from t = 1 - tau down to t - h, on states u = (x, m) of shape
(batch, 2, *event); `score(u, t)` is grad log p_t(u). Every part moves by the time theta = int beta over its interval.

    SSCS             half an exact linear step, a score step, half a linear step       U(1/2) S E U(1/2)
    NaiveOBA         noise, kick, drift, the score before each of them                 O S B S A
    OBA              the same with one score (the papers' SPS; lambda_s scales noise)  O S B A
    ROBAB            the kick in two halves, the second with the score at the end      O S B(1/2) A S@1 B(1/2)
    VelocityVerlet   the probability flow: half a kick, drift, half a kick             S B(1/2) A S@1 B(1/2)

    weakorder verify examples/splitting.py:oba
    weakorder verify examples/splitting.py:oba_linear --beta-min 0.1 --beta-max 15.9

Sources: arXiv 2112.07068 (SSCS), 2402.07211 (the reduced OBA family) and 2310.07894 (the deterministic ones). The file
knows nothing of weakorder.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PSLD:
    """The model: beta(t) = beta_0 + (beta_1 - beta_0) t, dampings, and the critical mass M^-1 = (Gamma - nu)^2 / 4."""

    beta_0: float = 8.0
    beta_1: float = 8.0
    gamma: float = 0.01
    nu: float = 4.01

    @property
    def M_inv(self):
        return (self.gamma - self.nu) ** 2 / 4

    @property
    def M(self):
        return 1 / self.M_inv

    def beta(self, t):
        return self.beta_0 + (self.beta_1 - self.beta_0) * t

    def integral(self, t, dt):
        """int of beta over [t - dt, t]: the midpoint is exact for a linear beta."""
        return dt * self.beta(t - dt / 2)


class SSCS:
    """The dynamics that keep the prior, solved exactly in two halves, around the rest of the drift."""

    def __init__(self, sde):
        self.sde = sde

    def __call__(self, u, tau, h, score):
        sde, t = self.sde, 1 - tau
        u = self.linear(u, sde.integral(t, h / 2))
        x, m = u.unbind(1)
        s_x, s_m = score(u, t).unbind(1)
        theta = sde.integral(t, h)
        x = x + theta * sde.gamma * (s_x + x)
        m = m + theta * sde.M * sde.nu * (s_m + sde.M_inv * m)
        return self.linear(torch.stack([x, m], dim=1), sde.integral(t - h / 2, h / 2))

    def linear(self, u, B):
        """dx = (-Gamma x - M^-1 m) / 2 + noise, dm = (x - nu m) / 2 + noise over B, with its covariance L L^T."""
        sde = self.sde
        delta, lam, decay = sde.nu - sde.gamma, (sde.nu + sde.gamma) / 2, math.exp(-(sde.nu + sde.gamma) / 2 * B)
        x, m = u.unbind(1)
        shrink = math.exp(-lam * B / 2)
        mean_x = shrink * ((1 + delta * B / 4) * x - delta**2 * B / 8 * m)
        mean_m = shrink * (B / 2 * x + (1 - delta * B / 4) * m)
        grow = math.expm1(lam * B)
        xx = decay * (grow - delta / 2 * B - delta**2 / 8 * B**2)
        xm = -decay * delta / 4 * B**2
        mm = decay * (sde.M * grow + sde.M * delta / 2 * B - B**2 / 2)
        L_xx = math.sqrt(xx)
        L_mx = xm / L_xx
        L_mm = math.sqrt(mm - L_mx**2)
        z_x, z_m = torch.randn_like(u).unbind(1)
        return torch.stack([mean_x + L_xx * z_x, mean_m + L_mx * z_x + L_mm * z_m], dim=1)


class OBA:
    """The Ornstein-Uhlenbeck part exactly, then momentum, then position, all with one score."""

    def __init__(self, sde, lambda_s=1.0):
        self.sde, self.lambda_s = sde, lambda_s

    def __call__(self, u, tau, h, score):
        t = 1 - tau
        theta = self.sde.integral(t, h)
        x, m = self.ou(u, theta)
        s_x, s_m = score(torch.stack([x, m], dim=1), t).unbind(1)
        m = self.kick(x, m, s_m, theta)
        x = self.drift(x, m, s_x, theta)
        return torch.stack([x, m], dim=1)

    def ou(self, u, theta):
        sde = self.sde
        x, m = u.unbind(1)
        noise_x = torch.randn_like(x) * math.sqrt(-math.expm1(-sde.gamma * theta))
        noise_m = torch.randn_like(m) * math.sqrt(-math.expm1(-sde.nu * theta) * sde.M)
        x = x * math.exp(-sde.gamma * theta / 2) + self.lambda_s * noise_x
        m = m * math.exp(-sde.nu * theta / 2) + noise_m
        return x, m

    def kick(self, x, m, s_m, theta):
        return m + theta / 2 * (x + 2 * self.sde.nu * m + 2 * self.sde.M * self.sde.nu * s_m)

    def drift(self, x, m, s_x, theta):
        return x + theta / 2 * (2 * self.sde.gamma * x - self.sde.M_inv * m + 2 * self.sde.gamma * s_x)


class NaiveOBA(OBA):
    """As OBA, with the score evaluated again after the kick."""

    def __call__(self, u, tau, h, score):
        t = 1 - tau
        theta = self.sde.integral(t, h)
        x, m = self.ou(u, theta)
        _, s_m = score(torch.stack([x, m], dim=1), t).unbind(1)
        m = self.kick(x, m, s_m, theta)
        s_x, _ = score(torch.stack([x, m], dim=1), t).unbind(1)
        x = self.drift(x, m, s_x, theta)
        return torch.stack([x, m], dim=1)


class ROBAB(OBA):
    """As OBA, with the kick in two halves; the score at the step's end drives the second one."""

    def __call__(self, u, tau, h, score):
        t = 1 - tau
        theta = self.sde.integral(t, h)
        first, second = self.sde.integral(t, h / 2), self.sde.integral(t - h / 2, h / 2)
        x, m = self.ou(u, theta)
        s_x, s_m = score(torch.stack([x, m], dim=1), t).unbind(1)
        m = self.kick(x, m, s_m, first)
        x = self.drift(x, m, s_x, theta)
        _, s_m = score(torch.stack([x, m], dim=1), t - h).unbind(1)
        m = self.kick(x, m, s_m, second)
        return torch.stack([x, m], dim=1)


class VelocityVerlet:
    """The probability flow without noise: the score enters with half its weight."""

    def __init__(self, sde):
        self.sde = sde

    def __call__(self, u, tau, h, score):
        t = 1 - tau
        theta = self.sde.integral(t, h)
        first, second = self.sde.integral(t, h / 2), self.sde.integral(t - h / 2, h / 2)
        x, m = u.unbind(1)
        s_x, s_m = score(u, t).unbind(1)
        m = self.kick(x, m, s_m, first)
        x = self.drift(x, m, s_x, theta)
        _, s_m = score(torch.stack([x, m], dim=1), t - h).unbind(1)
        m = self.kick(x, m, s_m, second)
        return torch.stack([x, m], dim=1)

    def kick(self, x, m, s_m, theta):
        return m + theta / 2 * (x + self.sde.nu * m + self.sde.M * self.sde.nu * s_m)

    def drift(self, x, m, s_x, theta):
        return x + theta / 2 * (self.sde.gamma * x - self.sde.M_inv * m + self.sde.gamma * s_x)


constant, linear = PSLD(), PSLD(beta_0=0.1, beta_1=15.9)
sscs, sscs_linear = SSCS(constant), SSCS(linear)
oba, oba_linear = OBA(constant), OBA(linear)
naive_oba, naive_oba_linear = NaiveOBA(constant), NaiveOBA(linear)
robab, robab_linear = ROBAB(constant), ROBAB(linear)
verlet, verlet_linear = VelocityVerlet(constant), VelocityVerlet(linear)

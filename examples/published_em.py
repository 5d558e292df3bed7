"""A sampler in the style of published code: an SDE object, a network that predicts eps, an Euler-Maruyama class.

Everything down to the adapter is written as such repositories write it, and knows nothing of weakorder: channels are
concatenated, (B, 2C, H, W), position first; times are vectors (B,); coefficients are float64 whatever the network's
type; the reversed time t runs from 0 to 1 - eps, and the network sees 1 - t. The network predicts the standard normal
eps of u_t = mu_t + L_t eps, so the score is -L_t^-T eps, where L_t L_t^T is the covariance of the perturbation kernel,
with `numerical_eps` added to its diagonal.

The adapter, below, makes one step of it `step(u, tau, h, score)`: it asks weakorder for a network that predicts eps.

    weakorder verify examples/published_em.py:step
    weakorder verify examples/published_em.py:step_linear --beta-min 0.1 --beta-max 15.9

Source of the model and the sampler: arXiv 2303.01748.
"""

import torch
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox import EpsNetwork


class PSLD:
    """The forward SDE, its perturbation kernel, and the SDE or probability flow that reverses it."""

    def __init__(self, beta_min=8.0, beta_max=8.0, gamma=0.01, nu=4.01, kappa=0.04, numerical_eps=1e-9):
        self.beta_min, self.beta_max = beta_min, beta_max
        self.gamma, self.nu, self.kappa = gamma, nu, kappa
        self.numerical_eps = numerical_eps
        self.m_inv = (nu - gamma) ** 2 / 4
        self.m = 1 / self.m_inv

    def beta_t(self, t):
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def b_t(self, t):
        return t * self.beta_min + t**2 * (self.beta_max - self.beta_min) / 2

    def cov(self, t):
        """xx, xm and mm of the kernel at forward times t (B,), each (B, 1, 1, 1); its momentum starts at kappa M."""
        b = self.b_t(t.double())[:, None, None, None]
        delta, lam = self.nu - self.gamma, (self.nu + self.gamma) / 2
        q, r, w = delta**2 * b / 8, 1 - delta * b / 4, torch.expm1(lam * b)
        mm_0 = self.kappa * self.m
        decay = torch.exp(-lam * b)
        xx = decay * (mm_0 * q**2 + w - delta / 2 * b - delta**2 / 8 * b**2) + self.numerical_eps
        xm = decay * (mm_0 * q * r + delta / 4 * b**2)
        mm = decay * (mm_0 * r**2 + self.m * w + self.m * delta / 2 * b - b**2 / 2) + self.numerical_eps
        return xx, xm, mm

    def score_from_eps(self, eps, t):
        """-L^-T eps, L the lower Cholesky factor."""
        xx, xm, mm = self.cov(t)
        eps_x, eps_m = torch.chunk(eps, 2, dim=1)
        root = torch.sqrt(xx * mm - xm**2)
        score_x = -eps_x / torch.sqrt(xx) + xm / (torch.sqrt(xx) * root) * eps_m
        score_m = -torch.sqrt(xx) / root * eps_m
        return torch.cat([score_x, score_m], dim=1)

    def sde(self, u, t):
        """Drift (B, 2C, H, W) and diffusion (B, 2C, 1, 1) of the forward SDE at forward times t (B,)."""
        beta = self.beta_t(t)[:, None, None, None]
        x, m = torch.chunk(u, 2, dim=1)
        drift_x = beta / 2 * (self.m_inv * m - self.gamma * x)
        drift_m = beta / 2 * (-x - self.nu * m)
        diffusion_x = torch.sqrt(beta * self.gamma) * torch.ones_like(x)
        diffusion_m = torch.sqrt(beta * self.nu * self.m) * torch.ones_like(m)
        return torch.cat([drift_x, drift_m], dim=1), torch.cat([diffusion_x, diffusion_m], dim=1)

    def reverse_sde(self, u, t, score_fn, probability_flow=False):
        """Drift and diffusion in reversed time t (B,)."""
        drift, diffusion = self.sde(u, 1 - t)
        score = score_fn(u, 1 - t)
        drift_bar = -drift + diffusion**2 * score * (0.5 if probability_flow else 1.0)
        return drift_bar, torch.zeros_like(diffusion) if probability_flow else diffusion


class EulerMaruyama:
    """u <- u + drift dt + diffusion sqrt(dt) z; the last step of `sample` is without noise."""

    def __init__(self, sde, net, net_dtype=torch.float64):
        self.sde, self.net, self.net_dtype = sde, net, net_dtype

    def score_fn(self, u, t):
        eps = self.net(u.to(self.net_dtype), t.to(self.net_dtype))
        return self.sde.score_from_eps(eps, t)

    def predictor_update_fn(self, u, t, dt):
        """The next state and its mean; t (B,), dt a number."""
        drift, diffusion = self.sde.reverse_sde(u, t, self.score_fn)
        u_mean = u + drift * dt
        noise = torch.randn_like(u)
        return u_mean + diffusion * dt**0.5 * noise, u_mean

    def sample(self, u, ts):
        """From u (B, 2C, H, W) at ts[0] to ts[-1]."""
        with torch.no_grad():
            for n in range(len(ts) - 1):
                t = ts[n] * torch.ones(u.shape[0], dtype=torch.float64)
                dt = ts[n + 1] - ts[n]
                u, u_mean = self.predictor_update_fn(u, t, dt)
        return u_mean


# --- The adapter ------------------------------------------------------------------------------------------------------


def as_step(sde, params):
    """One step of the sampler, `step(u, tau, h, score)`, for any sde; params: the same model as weakorder's."""

    def step(u, tau, h, score):
        sampler = EulerMaruyama(sde, EpsNetwork(score, params, sde.numerical_eps))
        images, t = u.reshape(len(u), -1, 1, 1), torch.full((len(u),), tau, dtype=torch.float64)
        return sampler.predictor_update_fn(images, t, h)[0].reshape(u.shape)

    return step


def as_trajectory(sde, params):
    """Its whole loop, `sample(score, u0, taus)`, whose last step is without noise."""

    def sample(score, u0, taus):
        sampler = EulerMaruyama(sde, EpsNetwork(score, params, sde.numerical_eps))
        return sampler.sample(u0.reshape(len(u0), -1, 1, 1), taus).reshape(u0.shape)

    return sample


step, sample = (adapter(PSLD(), Parameters()) for adapter in (as_step, as_trajectory))
LINEAR = {"beta_min": 0.1, "beta_max": 15.9}
step_linear, sample_linear = (adapter(PSLD(**LINEAR), Parameters(**LINEAR)) for adapter in (as_step, as_trajectory))

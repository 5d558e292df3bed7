"""Existing packages on the same problem, each by its fastest way at fixed steps, and a step as it was published.

The packages solve the reverse SDE with the score -u by Euler-Maruyama (EM of the catalogue) on a uniform grid. They are
installed by `make bench` alone. Their states are (batch, 2 n), positions first.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.loops import PARAMS
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.model import Parameters

T_END = 1 - PARAMS.eps
BETA = PARAMS.beta_min  # constant


def _coefficients(params: Parameters) -> tuple[tuple[float, float, float, float], tuple[float, float]]:
    """Of the reverse drift with s = -u, dx = a x + b m, dm = c x + d m, and of the diffusion; by theta = int beta."""
    gamma, nu, M = params.gamma, params.nu, params.M
    drift = BETA / 2 * np.array([gamma - 2 * gamma, -1 / M, 1.0, nu - 2 * M * nu])
    return tuple(drift.tolist()), ((BETA * gamma) ** 0.5, (BETA * nu * M) ** 0.5)  # type: ignore[return-value]


def torchsde_euler(u: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """`sdeint` by the kinds of Brownian motion that the package offers; its BrownianTree takes 12 times as long."""
    import torchsde

    (a, b, c, d), (g, k) = _coefficients(PARAMS)
    flat, half = u.flatten(1), u[0].numel() // 2
    scales = torch.cat([torch.full((half,), g), torch.full((half,), k)]).to(u).expand(len(u), -1)

    class Reverse:
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            x, m = y[:, :half], y[:, half:]
            return torch.cat([a * x + b * m, c * x + d * m], dim=1)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return scales

    times = torch.tensor([0.0, T_END], dtype=u.dtype)
    options: dict[str, Callable[[], Any]] = {
        "BrownianInterval": lambda: torchsde.BrownianInterval(0.0, T_END, flat.shape, u.dtype, dt=T_END / steps),
        "BrownianPath": lambda: torchsde.BrownianPath(0.0, torch.zeros_like(flat)),
    }

    def solve(make: Callable[[], Any]) -> Tensor:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ends = torchsde.sdeint(Reverse(), flat, times, bm=make(), method="euler", dt=T_END / steps)
        return ends[-1].view(u.shape)  # type: ignore[index, union-attr]

    return {f"torchsde {name}": lambda make=make: solve(make) for name, make in options.items()}


def diffrax_euler(u: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """`diffeqsolve` with `Euler`, jitted, on the Brownian path without a tree."""
    import diffrax
    import jax
    import lineax

    jax.config.update("jax_enable_x64", True)
    (a, b, c, d), (g, k) = _coefficients(PARAMS)
    start = jax.numpy.asarray(u.flatten(2).numpy())
    scales = jax.numpy.broadcast_to(jax.numpy.array([g, k], start.dtype)[:, None], start.shape)
    shape = jax.ShapeDtypeStruct(start.shape, start.dtype)

    def drift(t: Any, y: Any, args: Any) -> Any:
        x, m = y[:, 0], y[:, 1]
        return jax.numpy.stack([a * x + b * m, c * x + d * m], axis=1)

    @jax.jit
    def solve(y: Any, key: Any) -> Any:
        motion = diffrax.UnsafeBrownianPath(shape, key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(drift),
            diffrax.ControlTerm(lambda t, y, args: lineax.DiagonalLinearOperator(scales), motion),
        )
        found = diffrax.diffeqsolve(
            *(terms, diffrax.Euler(), 0.0, T_END, T_END / steps, y),
            saveat=diffrax.SaveAt(t1=True),
            adjoint=diffrax.ForwardMode(),
            max_steps=steps + 1,
        )
        return found.ys[0]

    keys = iter(range(1 << 30))

    def run() -> Tensor:
        out = solve(start, jax.random.key(next(keys)))
        return torch.from_numpy(np.array(out.block_until_ready()))

    return {"diffrax": run}


def published_em(u: Tensor, steps: int) -> Callable[[], Tensor]:
    """The published Euler-Maruyama step: times are vectors (B,), coefficients tensors of float64, channels concatenated
    (examples/published_em.py, whose SDE it is)."""
    from weakorder.examples.published_em import PSLD

    sde, shape = PSLD(), u.shape
    h = T_END / steps

    def run() -> Tensor:
        state = u.reshape(len(u), -1, 1, 1) if u.ndim < 5 else u.flatten(1, 2)
        for k in range(steps):
            t = torch.full((len(state),), k * h, dtype=torch.float64)
            drift, diffusion = sde.reverse_sde(state, t, lambda v, _: -v)
            state = state + drift * h + diffusion * h**0.5 * torch.randn_like(state)
        return state.reshape(shape)

    return run


def published_sscs(u: Tensor, steps: int) -> Callable[[], Tensor]:
    """The symmetric splitting step of CLD (arXiv 2112.07068, appendix) as its authors' code has it, for PSLD: half of
    the prior's dynamics, the rest of the score by Euler, the other half; coefficients are functions of time vectors
    (B,) in float64, and are computed again for each half."""
    p, h = PARAMS, T_END / steps
    rate, shape, columns = -(p.gamma + p.nu) / 4, u.shape, (-1, 1, 1, 1)  # critically damped: one rate, twice

    def half(x: Tensor, m: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        theta = BETA * (t + h / 2 - t)
        decay = torch.exp(rate * theta)
        xx, xm = decay * (1 + (-p.gamma / 2 - rate) * theta), decay * (-theta / (2 * p.M))
        mx, mm = decay * theta / 2, decay * (1 + (-p.nu / 2 - rate) * theta)
        var_x = 1 - xx * xx - p.M * xm * xm
        cov = -xx * mx - p.M * xm * mm
        var_m = p.M - mx * mx - p.M * mm * mm
        l_xx = torch.sqrt(var_x)
        l_mx = cov / l_xx
        l_mm = torch.sqrt(var_m - l_mx * l_mx)
        xi, eta = torch.randn_like(x), torch.randn_like(m)
        a, b, c, d, e, f, g = (w.to(x.dtype).reshape(columns) for w in (xx, xm, mx, mm, l_xx, l_mx, l_mm))
        return a * x + b * m + e * xi, c * x + d * m + f * xi + g * eta

    def run() -> Tensor:
        state = u.reshape(len(u), -1, 1, 1) if u.ndim < 5 else u.flatten(1, 2)
        for k in range(steps):
            t = torch.full((len(state),), k * h, dtype=torch.float64)
            x, m = half(*torch.chunk(state, 2, dim=1), t)
            s_x, s_m = torch.chunk(-torch.cat([x, m], dim=1), 2, dim=1)
            beta = torch.full_like(t, BETA).to(x.dtype).reshape(columns)
            x, m = x + h * beta * p.gamma * (s_x + x), m + h * beta * p.nu * p.M * (s_m + m / p.M)
            state = torch.cat(half(x, m, t + h / 2), dim=1)
        return state.reshape(shape)

    return run


EM, SSCS = CATALOGUE["EM"], CATALOGUE["SSCS"]

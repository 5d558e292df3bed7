"""Adapters: what a sampler calls instead of a score, made from the score.

The networks of PSLD predict the noise eps of the perturbation kernel u_t = mu_t + L_t eps, with L_t L_t^T the kernel's
covariance, so a sampler written for them calls eps(u, t) and forms s = -L_t^-T eps by itself (arXiv 2303.01748,
section 3); in position alone L_t is the number sigma_t (arXiv 2006.11239). `EpsNetwork` is that network for a target
whose score is known: eps = -L_t^T s.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor

from ...integrators.blackbox import Score
from ...integrators.planes import shape_of
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ..targets import kernel_at


class EpsNetwork:
    """Called as eps(u, t), for u `(batch, n, *event)` or, with the n components along the channels, `(batch, nC,
    *space)`, of position alone `(batch, *event)`, and t a number or a tensor (batch,) of equal times; returns eps in
    u's shape.

    numerical_eps: added to the variances of the kernel, as the sampler under test does (1e-9 in the published code);
    dtype: what states and times are rounded to and the answer is given in, as a float32 network would; None keeps u's;
    diffusion: whose kernel it is. Raises ValueError on a numerical_eps outside [0, 1), a state that cannot be split
    into components, or several times at once.
    """

    def __init__(
        self,
        score: Score,
        params: Parameters,
        numerical_eps: float = 0.0,
        dtype: torch.dtype | None = None,
        diffusion: Diffusion = PSLD_DIFFUSION,
    ) -> None:
        if not 0 <= numerical_eps < 1:
            raise ValueError(f"numerical_eps = {numerical_eps}: what is added to the variances is in [0, 1), as 1e-9")
        self.score, self.params, self.numerical_eps, self.dtype = score, params, numerical_eps, dtype
        self.diffusion = diffusion

    def __call__(self, u: Tensor, t: float | Tensor) -> Tensor:
        n = self.diffusion.size
        if u.ndim < 1 + len(shape_of(n, ())) or any(size % n for size in u.shape[1:2]):
            parts = "position and momentum" if n == 2 else ", ".join(self.diffusion.components)
            raise ValueError(
                f"a state of shape {tuple(u.shape)} cannot be split into {parts} along axis 1; "
                f"give (batch, {n}, *event)"
            )
        state = u if self.dtype is None else u.to(self.dtype)
        times = torch.as_tensor(t, dtype=self.dtype or torch.float64).double().reshape(-1)
        if not bool((times == times[0]).all()):
            raise ValueError(
                f"several times in one call, from {float(times.min()):g} to {float(times.max()):g}; this network is "
                "for samplers whose batch shares its time"
            )
        event = u.shape[1 + len(shape_of(n, ())) :]
        if n > 1 and u.shape[1] > n:
            event = (u.shape[1] // n, *event)
        score = self.score(state.reshape(len(u), *shape_of(n, event)), float(times[0]))
        s = score.reshape(len(u), n, *event).unbind(1)
        factor = kernel_at(self.params, float(times[0]), self.numerical_eps, self.diffusion).factor.tolist()
        eps = [reduce(add, [-factor[i][j] * s[i] for i in range(j, n)]) for j in range(n)]
        return torch.stack(eps, dim=1).reshape(u.shape).to(state.dtype)

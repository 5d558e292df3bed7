"""Adapters: what a sampler calls instead of a score, made from the score.

The networks of PSLD predict the noise eps of the perturbation kernel u_t = mu_t + L_t eps, with L_t L_t^T the kernel's
covariance, so a sampler written for them calls eps(u, t) and forms s = -L_t^-T eps by itself (arXiv 2303.01748,
section 3). `EpsNetwork` is that network for a target whose score is known: eps = -L_t^T s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...integrators.blackbox import Score
from ...theory.model import Parameters
from ..targets import kernel_at


class EpsNetwork:
    """Called as eps(u, t), for u `(batch, 2, *event)` or, with position and momentum along the channels,
    `(batch, 2C, *space)`, and t a number or a tensor (batch,) of equal times; returns eps in u's shape.

    numerical_eps: added to both variances of the kernel, as the sampler under test does (1e-9 in the published code);
    dtype: what states and times are rounded to and the answer is given in, as a float32 network would; None keeps u's.
    Raises ValueError on a numerical_eps outside [0, 1), a state that cannot be split in two, or several times at once.
    """

    def __init__(
        self, score: Score, params: Parameters, numerical_eps: float = 0.0, dtype: torch.dtype | None = None
    ) -> None:
        if not 0 <= numerical_eps < 1:
            raise ValueError(f"numerical_eps = {numerical_eps}: what is added to the variances is in [0, 1), as 1e-9")
        self.score, self.params, self.numerical_eps, self.dtype = score, params, numerical_eps, dtype

    def __call__(self, u: Tensor, t: float | Tensor) -> Tensor:
        if u.ndim < 2 or u.shape[1] % 2:
            raise ValueError(
                f"a state of shape {tuple(u.shape)} cannot be split into position and momentum along axis 1; "
                "give (batch, 2, *event)"
            )
        state = u if self.dtype is None else u.to(self.dtype)
        times = torch.as_tensor(t, dtype=self.dtype or torch.float64).double().reshape(-1)
        if not bool((times == times[0]).all()):
            raise ValueError(
                f"several times in one call, from {float(times.min()):g} to {float(times.max()):g}; this network is "
                "for samplers whose batch shares its time"
            )
        event = u.shape[2:] if u.shape[1] == 2 else (u.shape[1] // 2, *u.shape[2:])
        s_x, s_m = self.score(state.reshape(len(u), 2, *event), float(times[0])).unbind(1)
        (l_xx, _), (l_mx, l_mm) = kernel_at(self.params, float(times[0]), self.numerical_eps).factor.tolist()
        return torch.stack([-(l_xx * s_x + l_mx * s_m), -l_mm * s_m], dim=1).reshape(u.shape).to(state.dtype)

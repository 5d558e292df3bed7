"""Targets of one data dimension, whose law a lattice carries."""

from __future__ import annotations

from weakorder.theory.model import Diffusion, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.targets.named import make_target


def bimodal(scheme: Scheme, params: Parameters) -> MixtureTarget:
    """0.4 N(-1, 0.2) + 0.6 N(1, 0.05) under the scheme's diffusion."""
    return make_target("mixture", params, diffusion=scheme.splitting.diffusion)


def one_gaussian(params: Parameters, diffusion: Diffusion, mean: float = 0.5) -> MixtureTarget:
    """N(mean, 0.25) as a mixture of one."""
    return MixtureTarget.of([1], [[mean]], [[[0.25]]], params, diffusion)

"""Samplers with a grid of their own that more than one file of tests looks at, and the examples with a fault."""

from __future__ import annotations

import inspect
import itertools
from types import SimpleNamespace
from typing import Any

from weakorder.examples import own_grid
from weakorder.integrators.unmodified import Unmodified, function_sampler
from weakorder.theory.paths import PATHS


def second_order(alpha: float, weight: float | None = None) -> Unmodified:
    """The general second-order method of Karras et al. 2022 (appendix D.2) on their grid: alpha 1 is Heun's, 1/2 the
    midpoint rule. weight: of the second slope, 1 / (2 alpha) unless it is to be wrong."""
    second = 1 / (2 * alpha) if weight is None else weight

    def sample(model: Any, x: Any, steps: int, sigma_min: float = 0.02, sigma_max: float = 80.0, rho: float = 7) -> Any:
        low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        sigmas = [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)]
        for sigma, later in itertools.pairwise(sigmas):
            h = later - sigma
            slope = (x - model(x, sigma)) / sigma
            there = x + alpha * h * slope
            other = (there - model(there, sigma + alpha * h)) / (sigma + alpha * h)
            x = x + h * ((1 - second) * slope + second * other)
        return model(x, sigmas[-1])

    return function_sampler(f"EDM {alpha:g}", sample, PATHS["edm"], "denoiser", "sigma")


def broken(*patches: tuple[str, str]) -> SimpleNamespace:
    """The module of examples with its text changed."""
    text = inspect.getsource(own_grid)
    for old, new in patches:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    module: dict[str, Any] = {}
    exec(compile(text, "own_grid", "exec"), module)
    return SimpleNamespace(**module)

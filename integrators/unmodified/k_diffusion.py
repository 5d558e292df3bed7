"""The samplers of k-diffusion, unmodified: functions sample_*(model, x, sigmas) around a denoiser D(x, sigma).

Only the module of samplers is loaded, not its package, which imports what training needs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...theory.paths import Level
from . import claims
from .contract import PREDICTIONS, Network, Unmodified
from .lifting import float64_throughout

# Stable Diffusion's range of sigma, which its web interfaces run these samplers on.
SIGMA_MIN, SIGMA_MAX = 0.0292, 14.6146
GRIDS = {
    "karras": "get_sigmas_karras",
    "exponential": "get_sigmas_exponential",
    "polyexponential": "get_sigmas_polyexponential",
}
# These are given two sigmas and make their own grid between them.
WITHOUT_GRID = ("sample_dpm_fast",)
# What is claimed of the weak order of each, as it is set.
SAMPLERS: dict[str, claims.Order] = {
    "sample_dpm_2": claims.plain_second,
    "sample_dpm_2_ancestral": claims.with_eta(2, "the midpoint in log sigma"),
    "sample_dpm_fast": claims.dpm_fast,
    "sample_dpmpp_2m": lambda _: claims.dpm_multistep({"solver_order": 2, "algorithm_type": "dpmsolver++"}),
    "sample_dpmpp_2m_sde": claims.multistep_sde(2),
    "sample_dpmpp_2s_ancestral": claims.with_eta(2, "Lu et al. 2022, DPM-Solver++(2S)"),
    "sample_dpmpp_3m_sde": claims.multistep_sde(3),
    "sample_dpmpp_sde": claims.dpm_sde,
    "sample_euler": claims.plain_euler,
    "sample_euler_ancestral": claims.with_eta(1, "Euler's method"),
    "sample_heun": claims.plain_second,
    "sample_lms": claims.lms,
}
INSTALL = "pip install '.[k-diffusion]' in a copy of the repository"


@cache
def samplers() -> ModuleType:
    """k-diffusion's module of samplers. Raises ValueError, in one line, where it or what it needs is missing."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None or found.submodule_search_locations is None:
        raise ValueError(f"k-diffusion is not installed; {INSTALL}")
    package = ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations)
    kept = {name: sys.modules.get(name) for name in ("k_diffusion", *_IMAGES)}
    try:
        sys.modules["k_diffusion"] = package
        for name in _IMAGES:  # its utilities import them to read and write images, which no sampler does
            sys.modules[name] = ModuleType(name)
        sys.modules["torchvision.transforms"].functional = ModuleType("functional")  # type: ignore[attr-defined]
        return importlib.import_module("k_diffusion.sampling")
    except ImportError as error:
        raise ValueError(f"k-diffusion needs more ({error}); {INSTALL}") from error
    finally:
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


_IMAGES = ("torchvision", "torchvision.transforms")


def k_diffusion_sampler(name: str, settings: Mapping[str, Any] | None = None, grid: str | None = None) -> Unmodified:
    """A sampler of k-diffusion by its function's name; settings: of its arguments, and sigma_min, sigma_max; grid:
    karras, exponential or polyexponential; default the first, or the sampler's own where it makes one.

    Raises ValueError on a name, setting or grid that it has not.
    """
    if name == "sample_dpm_adaptive":
        raise ValueError(
            "k-diffusion:sample_dpm_adaptive chooses its steps by an error estimate: it has no N to refine"
        )
    if name not in SAMPLERS:
        raise ValueError(f"k-diffusion:{name} is none of its samplers; choose {', '.join(SAMPLERS)}")
    grid = grid or ("default" if name in WITHOUT_GRID else "karras")
    if name in WITHOUT_GRID and grid != "default":
        raise ValueError(f"{name} makes its own grid between sigma_max and sigma_min; leave it at its default")
    if name not in WITHOUT_GRID and grid not in GRIDS:
        raise ValueError(f"k-diffusion has no grid {grid!r}; choose {', '.join(GRIDS)}")
    given = dict(settings or {})
    span = (float(given.pop("sigma_min", SIGMA_MIN)), float(given.pop("sigma_max", SIGMA_MAX)))
    takes = inspect.signature(getattr(samplers(), name)).parameters
    if unknown := [key for key in given if key not in takes]:
        raise ValueError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(list(takes)[3:])}")
    said = " ".join([f"k-diffusion:{name}", *(f"{key}={value}" for key, value in given.items())])
    sampler = _Sampler(name, tuple(given.items()), grid, span)
    held = SAMPLERS[name]({key: each.default for key, each in takes.items()} | given)
    return Unmodified(said, sampler.prepare, PREDICTIONS["denoiser"], "denoiser", held.order, claim=held.said)


@dataclass(frozen=True)
class _Sampler:
    name: str
    settings: tuple[tuple[str, Any], ...]
    grid: str
    span: tuple[float, float]

    def prepare(self, steps: int, exact: bool) -> _Prepared:
        return _Prepared(self, steps, exact)


@dataclass(frozen=True)
class _Prepared:
    sampler: _Sampler
    steps: int
    exact: bool

    @property
    def prior(self) -> float | None:
        """Its largest sigma."""
        return self.sampler.span[1]

    def start(self, first: float) -> Level:  # noqa: ARG002 - known before the network is asked
        """The level of the first sigma."""
        return Level(1.0, self.sampler.span[1])

    def level(self, time: float) -> Level:
        """The time is sigma."""
        return Level(1.0, time)

    def run(self, network: Network, x: Tensor) -> Tensor:
        """One call; the library's warnings are for its authors."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with float64_throughout("k_diffusion") if self.exact else contextlib.nullcontext():
                return self._call(network, x)

    def _call(self, network: Network, x: Tensor) -> Tensor:
        module, low, high = samplers(), *self.sampler.span
        function, settings = getattr(module, self.sampler.name), dict(self.sampler.settings)
        if self.sampler.name in WITHOUT_GRID:
            return function(network, x, low, high, self.steps, disable=True, **settings)
        sigmas = getattr(module, GRIDS[self.sampler.grid])(self.steps, low, high)
        return function(network, x, sigmas.to(torch.get_default_dtype()), disable=True, **settings)

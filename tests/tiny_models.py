"""Models of images that are small enough for tests: a tiny random network, and the score of Gaussian data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.cifar10.model.checkpoint import NetworkScore
from weakorder.verification.cifar10.model.network import Config, NCSNpp
from weakorder.verification.cifar10.study.cells import Model
from weakorder.verification.targets.gaussian import GaussianTarget

TINY = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(4,), dropout=0.0, image_size=8)
SMALL = Config(nf=4, ch_mult=(1, 2), num_res_blocks=1, dropout=0.0)  # its shapes alone tell what it is
CPU = torch.device("cpu")
PARAMS = Parameters()
SCHEMES = tuple(CATALOGUE[name] for name in ("ROBA", "SSCS", "EM", "NOBA", "RVV"))


def network() -> NCSNpp:
    """A tiny network whose output is of size 1."""
    made = NCSNpp(TINY)
    generator = torch.Generator().manual_seed(0)
    for weight in made.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return made


def random_network(config: Config = SMALL, seed: int = 0) -> NCSNpp:
    """Random weights of ordinary size."""
    torch.manual_seed(seed)
    made = NCSNpp(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.1)
    return made


def neural() -> Model:
    made = network()
    return Model("tiny", PARAMS, TINY, lambda _: NetworkScore(made, PARAMS))


def gaussian(variance: float = 0.25, mean: float = 0.0) -> tuple[Model, GaussianTarget]:
    """A model whose score is that of Gaussian data."""
    target = GaussianTarget.of(mean, variance, PSLD_DIFFUSION, PARAMS)

    def score(u: Tensor, t: float) -> Tensor:
        law = target.law(t)
        precision, centre = (torch.from_numpy(a[..., 0]) for a in (target.precision(law), law.mean[..., None]))
        return -torch.einsum("ij,bj...->bi...", precision, u - centre.reshape(2, 1, 1, 1))

    return Model("gaussian", PARAMS, TINY, lambda _: score), target


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal to the last bit, apart from the time they took."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first if k != "seconds")
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, Tensor) else first == second

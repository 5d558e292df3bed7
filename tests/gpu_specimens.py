"""What is run on a pretended GPU and on the CPU, and how the two are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model.network import Config, NCSNpp

PARAMS = Parameters()
TINY = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(4,), dropout=0.1, image_size=8)
POSITIONAL = replace(TINY, embedding_type="positional", fir=False, progressive_input="none", out_ch=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
CPU = torch.device("cpu")


def lively(config: Config = TINY) -> NCSNpp:
    """A network whose output is of size 1."""
    network, generator = NCSNpp(config), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return network.to(memory_format=torch.channels_last).eval()


def near(u: Tensor, t: float) -> Tensor:
    """A score that is not linear."""
    return -u * (1 + t) + 0.1 * u.tanh()


def same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.cpu(), second.cpu())

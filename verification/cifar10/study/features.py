"""Compact features of images, from the network that ships: what a Frechet distance needs when nothing is downloaded.

An image x in [-1, 1] is shown to the score network as the mean of the perturbation kernel at the time t = 0.15,
u = (P (1, 0)^T) x: clean, at the scale that the network saw noisy images at. Its features are

    mean_p h_cp,   std_p h_cp          over the pixels p, for each channel c,

of the tensor h that enters the last upsampling: after the last block and attention below full resolution, where the
network has seen the whole image and still tells textures apart. A network that denoises images knows what they look
like (Baranchuk et al. 2022 read segmentations off such layers); these features are not Inception's, and distances in
them are no FIDs. They are one yardstick for all checkpoints: those under study are measured with it, not themselves.

Statistics of real images ship too. They belong to one network: another yardstick is another unit, so the file states
which one it was made with, and a mismatch is an error.
Source: Heusel et al., arXiv 1706.08500; Baranchuk et al., arXiv 2112.03126.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ... import data
from ...targets import perturbation_kernel
from ..model import Checkpoint, fingerprint, load_checkpoint, steps, to_unit
from .frechet import Moments

TIME = 0.15
NETWORK, STATISTICS = "cifar10_compact.safetensors", "cifar10_features.npz"
_BATCH = 64  # images at once; always the same, so that an image's features do not depend on memory
REMAKE = "python -m weakorder.verification.data.make_cifar10_features IMAGES"


@cache
def shipped_network() -> Checkpoint:
    """The network that ships (data/README.md), on the CPU."""
    with resources.as_file(resources.files(data) / NETWORK) as path:
        return load_checkpoint(path)


def features(images: NDArray[np.floating] | Tensor, checkpoint: Checkpoint | None = None) -> NDArray[np.float32]:
    """Features (n, 2 channels) of images (n, 3, side, side), data in [-1, 1], n >= 1; those that ship have 128.

    checkpoint: another network than the one that ships. Images beyond [-1, 1] are taken as they are. Raises ValueError
    on another shape, and on a network of one level, which never upsamples.
    """
    found = shipped_network() if checkpoint is None else checkpoint
    config, rows = found.network.config, torch.as_tensor(images)
    if rows.ndim != 4 or tuple(rows.shape[1:]) != (config.in_ch // 2, config.image_size, config.image_size):
        raise ValueError(
            f"images of shape {tuple(rows.shape)}: this network reads "
            f"(n, {config.in_ch // 2}, {config.image_size}, {config.image_size})"
        )
    weight = next(found.network.parameters())
    x_mean, m_mean = perturbation_kernel(found.params, TIME).mean
    seen: list[Tensor] = []

    def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(_pooled(inputs[0]))
        raise _SeenError

    handle = _last_up(found).register_forward_pre_hook(see)
    try:
        with torch.no_grad():
            for x in rows.split(_BATCH):
                x = x.to(weight.device, torch.float64)
                u = torch.cat((x_mean * x, m_mean * x), dim=1).to(weight.dtype)
                with suppress(_SeenError):
                    found.network(u, torch.full((len(u),), TIME, dtype=weight.dtype, device=weight.device))
    finally:
        handle.remove()
    return torch.cat(seen).float().cpu().numpy()


def feature_moments(images: NDArray[np.uint8] | None = None) -> Moments:
    """The moments of real images' features: of uint8 images (n, 3, 32, 32), n >= 2, or (None) those that ship.

    Raises ValueError if the statistics that ship were made with another network than the one that ships.
    """
    if images is None:
        return read_moments(resources.files(data) / STATISTICS, yardstick(shipped_network()))
    return Moments.of_samples(features(to_unit(images, torch.float32)))


def count_of_shipped() -> int:
    """How many images the statistics that ship are of."""
    with (resources.files(data) / STATISTICS).open("rb") as file, np.load(file) as arrays:
        return int(arrays["images"])


def yardstick(checkpoint: Checkpoint) -> str:
    """What features are measured with, in words: the network's SHA-256 (of its weights as it runs) and the time."""
    return f"sha256 {fingerprint(checkpoint.network.state_dict())}, t = {TIME:g}"


def read_moments(path: Traversable, wanted: str) -> Moments:
    """The moments in a file of `make_cifar10_features.py`, made with the yardstick `wanted`. Raises ValueError."""
    name = str(path)
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            made, mean, factor = str(arrays["yardstick"]), arrays["mean"], arrays["factor"]
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {name!r}; make it: {REMAKE}") from error
    except Exception as error:  # numpy and zipfile raise a dozen kinds on a broken file
        raise ValueError(f"{name!r} holds no statistics of features; make it anew: {REMAKE}") from error
    if made != wanted:
        raise ValueError(f"{name!r} was made with another network ({made}; now {wanted}); make it anew: {REMAKE}")
    return Moments(mean, factor)


class _SeenError(Exception):
    """The features are there: the rest of the network, at full resolution and as dear, is not run."""


def _last_up(checkpoint: Checkpoint) -> nn.Module:
    """The module that doubles the side for the last time."""
    word = list(steps(checkpoint.network.config))
    ups = [place for place, step in enumerate(word) if step.kind == "up"]
    if not ups:
        raise ValueError("a network of one level has no features here; give one that upsamples")
    return checkpoint.network.all_modules[ups[-1] - len(word)]


def _pooled(h: Tensor) -> Tensor:
    """Mean and standard deviation over pixels: (n, channels, side, side) to (n, 2 channels)."""
    return torch.cat((h.mean((2, 3)), h.std((2, 3), correction=0)), dim=1)

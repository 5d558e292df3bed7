"""The targets that have a name, as the command line knows them."""

from __future__ import annotations

import difflib
from pathlib import Path

from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from .target import Target

TARGETS = {
    "gaussian": "one Gaussian, N(0.5, 0.25) or with a full covariance in --dim dimensions",
    "mixture": "two Gaussians, 0.4 N(-1, 0.2) + 0.6 N(1, 0.05), or with full covariances in --dim dimensions",
    "banana": "Gaussians along a parabola, 2-D",
    "student": "a heavy-tailed scale mixture of Gaussians, 2-D",
    "empirical-cifar10": "point masses at real CIFAR-10 images, 3 x 32 x 32",
}


def make_target(
    name: str,
    params: Parameters,
    dim: int | None = None,
    data: Path | None = None,
    diffusion: Diffusion = PSLD_DIFFUSION,
) -> Target:
    """The target called `name`, one of `TARGETS`.

    dim: of the data, for "gaussian" and "mixture" (default 1); the others have their own. data: an npz file of images
    for "empirical-cifar10" (see `empirical.load_images`; default the 512 shipped). Raises ValueError on an unknown
    name, a dim or data that the target cannot have, and a file that does not hold images.
    """
    if name not in TARGETS:
        guess = difflib.get_close_matches(name, TARGETS, 1)
        hint = f"; did you mean {guess[0]!r}?" if guess else ""
        raise ValueError(f"target {name!r} is unknown; choose {', '.join(TARGETS)}{hint}")
    if data is not None and name != "empirical-cifar10":
        raise ValueError(f"target {name!r} reads no data; leave the file {str(data)!r} out, or use empirical-cifar10")
    if name == "empirical-cifar10":
        from .empirical import cifar10_target

        own, make = 3072, lambda _: cifar10_target(params, data, diffusion)
    else:
        from . import named_mixtures as named

        own, make = {
            "gaussian": (None, lambda d: named.gaussian(d, params, diffusion)),
            "mixture": (None, lambda d: named.bimodal(d, params, diffusion)),
            "banana": (2, lambda _: named.banana(params, diffusion)),
            "student": (2, lambda _: named.student(params, diffusion)),
        }[name]
    if own is not None and dim not in (None, own):
        raise ValueError(f"dim = {dim}: target {name!r} has dimension {own}; leave dim out")
    return make(1 if dim is None else dim)

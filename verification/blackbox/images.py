"""A sampler on images: what it does to one coordinate of a sample, it must do to every pixel, with noise of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...integrators.blackbox import BlackBoxError, NotAState, Sampler, SamplerRaised
from ...integrators.planes import shape_of
from ...theory.model import PSLD_DIFFUSION, Diffusion
from .anatomy import dissect

_IMAGES = ((3, 4, 4), (5, 6, 6))


def image_of(diffusion: Diffusion) -> tuple[int, ...]:
    """The shape of an image, no size of it the number n of components, so that what is meant for states (batch, n)
    alone raises here."""
    return next(image for image in _IMAGES if diffusion.size not in image)


class OnImages(NamedTuple):
    """What a sampler does on images that it does not do on one coordinate; is_wrong: it takes them, and is wrong."""

    text: str
    is_wrong: bool


def on_images(sampler: Sampler, diffusion: Diffusion = PSLD_DIFFUSION) -> OnImages | None:
    """What a sampler that was probed with one coordinate a sample does otherwise on images; None if nothing.

    One that does not take images is meant for other states, which is no fault. One that takes them, and mixes their
    pixels or shares noise among them, is right on no image. Raises BlackBoxError if it cannot be probed at all.
    """
    taus = np.linspace(0.5, 0.55, 6)  # five steps: pixels that change places are back after two, three or four
    one, image = dissect(sampler, taus, (), diffusion), image_of(diffusion)
    shape = " x ".join(map(str, image))
    try:
        many = dissect(sampler, taus, image, diffusion)
    except (SamplerRaised, NotAState) as error:
        states = ", ".join(["batch", *map(str, shape_of(diffusion.size, ()))])
        text = f"verified for states of shape ({states}) alone; on images {error}; --event gives them a shape"
        return OnImages(text, False)
    except BlackBoxError as error:
        return OnImages(f"wrong on images of {shape}: {error}", True)
    parts = dict(many.parts())
    for name, part in one.parts():
        other = parts.get(name, np.full_like(part, np.nan))
        if not np.abs(part - other).max(initial=0.0) <= 1e-6 * max(1.0, float(np.abs(part).max(initial=0.0))):
            return OnImages(f"wrong on images of {shape}: its {name} is another than on one coordinate a sample", True)
    return None

"""A sampler on images: what it does to one coordinate of a sample, it must do to every pixel, with noise of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...integrators.blackbox import BlackBoxError, NotAState, Sampler, SamplerRaised
from .anatomy import dissect

# No size of it is 2, the number of components, so that what is meant for states (batch, 2) alone raises here.
IMAGE = (3, 4, 4)


class OnImages(NamedTuple):
    """What a sampler does on images that it does not do on one coordinate; is_wrong: it takes them, and is wrong."""

    text: str
    is_wrong: bool


def on_images(sampler: Sampler) -> OnImages | None:
    """What a sampler that was probed with one coordinate a sample does otherwise on images; None if nothing.

    One that does not take images is meant for other states, which is no fault. One that takes them, and mixes their
    pixels or shares noise among them, is right on no image. Raises BlackBoxError if it cannot be probed at all.
    """
    taus = np.linspace(0.5, 0.55, 6)  # five steps: pixels that change places are back after two, three or four
    one = dissect(sampler, taus)
    shape = " x ".join(map(str, IMAGE))
    try:
        many = dissect(sampler, taus, IMAGE)
    except (SamplerRaised, NotAState) as error:
        text = f"verified for states of shape (batch, 2) alone; on images {error}; --event gives them a shape"
        return OnImages(text, False)
    except BlackBoxError as error:
        return OnImages(f"wrong on images of {shape}: {error}", True)
    parts = dict(many.parts())
    for name, part in one.parts():
        other = parts.get(name, np.full_like(part, np.nan))
        if not np.abs(part - other).max(initial=0.0) <= 1e-6 * max(1.0, float(np.abs(part).max(initial=0.0))):
            return OnImages(f"wrong on images of {shape}: its {name} is another than on one coordinate a sample", True)
    return None

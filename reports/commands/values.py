"""From a user's words to values: parameters, devices, schemes and samplers.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from .options import DIFFUSION_NAMES, PATHS, Chosen

if TYPE_CHECKING:
    from ...integrators.blackbox import Sampler
    from ...theory.model import Diffusion, Parameters
    from ...theory.scheme import Scheme
    from ...verification.exact import Spectrum, Subject


def parameters(device: str, model: dict[str, float | None], diffusion: Diffusion | None = None) -> Parameters:
    """The values of MODEL's options, where they are None the defaults of the diffusion (None: PSLD's). Raises
    ValueError, also on a bad device."""
    from ...theory.model import PSLD_DIFFUSION

    if device != "cpu":
        check_device(device)
    return (diffusion or PSLD_DIFFUSION).parameters(**given(model))


def given(model: dict[str, float | None]) -> dict[str, float]:
    """The MODEL's options that were given."""
    return {name: value for name, value in model.items() if value is not None}


def check_device(device: str) -> None:
    """Raises ValueError if torch has no such device here."""
    import torch

    if device.startswith("meta"):
        raise ValueError(f"device {device!r} cannot be used here: it holds no numbers; choose another, such as cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:150]
        raise ValueError(f"device {device!r} cannot be used here: {reason}; choose another, such as cpu") from error


def scheme_of(x: str, chosen: Chosen) -> Scheme:
    """The scheme of a name, a word or FILE.py:OBJ, with SCHEME's options. Raises ValueError."""
    from ...integrators.loading import find_scheme, find_splitting

    splitting = None if chosen.splitting is None else find_splitting(chosen.splitting)
    return _changed(find_scheme(x, splitting), chosen)


def _changed(scheme: Scheme, chosen: Chosen) -> Scheme:
    from ...theory.clock import find_clock
    from ...theory.frozen import find_frozen

    said = {name: value for name, value in chosen._asdict().items() if value is not None}
    changes = {name: value for name, value in said.items() if name not in ("splitting", "noise")}
    if chosen.noise is not None:
        changes["splitting"] = scheme.splitting.with_noise(chosen.noise)
    if chosen.frozen is not None:
        changes["frozen"] = find_frozen(chosen.frozen)
    if chosen.clock is not None:
        changes["clock"] = find_clock(chosen.clock)
    elif chosen.memory == 1:
        scheme = scheme.remembering(1)
    return dataclasses.replace(scheme, **changes)


def sampler_of(x: str, chosen: Chosen) -> Scheme | Sampler:
    """A scheme, or the black box of a FILE.py:OBJ, which has no word to change."""
    from ...integrators.loading import find_sampler
    from ...theory.scheme import Scheme

    found = find_sampler(x) if chosen.splitting is None else None
    if found is None or isinstance(found, Scheme):
        return scheme_of(x, chosen) if found is None else _changed(found, chosen)
    if chosen != Chosen():
        raise ValueError(
            f"{x} is a black box; --noise, --flow, --lambda-s, --clock, --frozen and --memory are for schemes"
        )
    return found


def subject_of(x: str, event: tuple[int, ...]) -> Subject:
    """What a report is on."""
    from ...theory.scheme import Scheme

    sampler = sampler_of(x, Chosen())
    if isinstance(sampler, Scheme):
        return sampler
    from ...verification.blackbox import BlackBox

    return BlackBox(x, sampler, event)


def diffusion_of(sampler: Scheme | Sampler, named: str | None = None) -> Diffusion:
    """What it samples; of a black box the one that --diffusion names, by default PSLD's. Raises ValueError."""
    from ...theory.model import PSLD_DIFFUSION
    from ...theory.scheme import Scheme

    if not isinstance(sampler, Scheme):
        return PSLD_DIFFUSION if named is None else _black_boxs(named)
    if named is not None:
        raise ValueError(
            f"--diffusion {named} is for black boxes; {sampler.name} moves under "
            f"{sampler.splitting.diffusion.name!r}, its splitting's: drop it"
        )
    return sampler.splitting.diffusion


def _black_boxs(named: str) -> Diffusion:
    from ...integrators.loading import find_diffusion

    if named in PATHS and named not in DIFFUSION_NAMES:
        raise ValueError(
            f"{named!r} is a path, for a sample(model, x, steps) with a grid of its own: give --predicts, too; a step, "
            f"multistep or sample(score, u, taus) is over {', '.join(DIFFUSION_NAMES)} or FILE.py:OBJ"
        )
    return find_diffusion(named)


def spectrum_of(data: Path | None, side: int, crop: int | None) -> tuple[Spectrum, str]:
    """The spectrum of images (None: CIFAR-10's), pictures resized to side x side, of their central crop x crop pixels
    where that is given; and what it is called. Raises ValueError, OSError on what holds no two images."""
    if data is None:
        if crop is not None:
            raise ValueError(f"--crop {crop} is of the pictures of --data; give both")
        from ...verification.exact import cifar10_spectrum

        return cifar10_spectrum(), "CIFAR-10"
    from ...verification.cifar10.model import images_of
    from ...verification.cifar10.study import pixel_law

    images = images_of(data, side, crop)
    if len(images) < 2:
        raise ValueError(f"{str(data)!r} holds {len(images)} image; a covariance takes at least 2")
    return pixel_law(images).spectrum, data.name

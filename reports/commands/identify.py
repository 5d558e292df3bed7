"""`identify`: which word is a sampler?"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from .lines import print_json, progress
from .options import EVENT, MODEL, OUTPUT, Chosen
from .unmodified import LIBRARIES, OWN_GRID, Asked, over_diffusion, samplers_of
from .values import diffusion_of, parameters, sampler_of

if TYPE_CHECKING:
    from ...verification.blackbox import Likeness

_SHOWN = 3


@click.command()
@click.argument("x")
@OWN_GRID
@click.option("--grid", help="Of a library's sampler; default: its own.")
@EVENT
@OUTPUT
@MODEL
def identify(
    x: str,
    settings: tuple[str, ...],
    diffusion: str | None,
    predicts: str | None,
    time: str | None,
    grid: str | None,
    event: list[int] | None,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """Which word is the sampler X: the one with the same maps, for all targets, or the nearest ones and what differs.

    Exit code 0 if it is a word, 1 if it is none of those that are known, 2 bad input.
    """
    if x.partition(":")[0] in LIBRARIES or predicts is not None:
        if device != "cpu" or any(value is not None for value in model.values()):
            raise ValueError(f"the parameters of a model are not for {x}, a sampler with a grid of its own; drop them")
        found, off = _of_own_grid(Asked(x, settings, diffusion, predicts, time, grid, event))
    else:
        if settings or time or grid:
            raise ValueError(f"--set, --time and --grid are for samplers with a grid of their own; {x!r} is none")
        with over_diffusion(diffusion):
            found, off = _of_steps(x, tuple(event or ()), diffusion, device, model), ()
    same = [likeness for likeness in found if likeness.is_same]
    if as_json:
        nearest = [] if same else [likeness.as_dict() for likeness in found[:_SHOWN]]
        answer = {"sampler": x, "is": [likeness.as_dict() for likeness in same], "nearest": nearest}
        print_json(answer | {"warnings": list(off)})
    else:
        for warning in off:
            click.echo(f"warning: {warning}", err=True)
        _print(x, same, found)
    sys.exit(0 if same else 1)


def _print(x: str, same: list[Likeness], found: list[Likeness]) -> None:
    for likeness in same:
        click.echo(f"{x} is {likeness}, to {max(likeness.distance, 1e-16):.0e}")
    if not same:
        click.echo(f"{x} is none of the words that are known; the nearest:")
        for likeness in found[:_SHOWN]:
            click.echo(f"{likeness}, but")
            for line in likeness.differs:
                click.echo(f"    {line}")


def _of_own_grid(asked: Asked) -> tuple[list[Likeness], tuple[str, ...]]:
    """What it is, and what of it was off."""
    from ...verification.unmodified import identify as among_words

    (sampler, *_) = samplers_of(asked).values()
    return among_words(sampler), sampler.said


def _of_steps(
    x: str, event: tuple[int, ...], diffusion: str | None, device: str, model: dict[str, float | None]
) -> list[Likeness]:
    from ...integrators.blackbox import as_black_box
    from ...theory.scheme import Scheme
    from ...verification.blackbox import identify as among_words

    sampler = sampler_of(x, Chosen())
    moves = diffusion_of(sampler, diffusion)
    params = parameters(device, model, moves)
    if isinstance(sampler, Scheme):
        sampler = as_black_box(sampler, params)
    with contextlib.redirect_stdout(sys.stderr):  # what black boxes print is not our answer
        return among_words(sampler, params, event, progress=progress, diffusion=moves)

"""The options that commands share. What becomes of a user's words is in values.py, what is printed in lines.py.

`together` makes one decorator of several options. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click


def _number(text: str, kind: type) -> Any:
    """Python's own reading of a number, without its other alphabets and underscores. Raises ValueError."""
    if not text.isascii() or "_" in text:
        raise ValueError
    return kind(text)


class Real(click.ParamType):
    """A number; which numbers make sense is for the value to say that it becomes part of."""

    name = "X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return _number(str(value), float)
        except ValueError:
            self.fail(f"{value!r} is not a number; write it like 2, 0.5 or 1e-3", param, ctx)


class Whole(click.ParamType):
    """An integer; in [least, most] where these are given, for numbers that no value checks."""

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        self.least, self.most = least, most
        self.name, self.rule = "N", ""
        if least is not None:
            self.name = f"N>={least}" if most is None else f"{least}..{most}"
            self.rule = f">= {least}" if most is None else f"from {least} to {most}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = _number(str(value), int)
        except ValueError:
            self.fail(f"{value!r} is not an integer; write it like 2", param, ctx)
        if (self.least is not None and number < self.least) or (self.most is not None and number > self.most):
            self.fail(f"{number} is out of range; it must be {self.rule}", param, ctx)
        return number


class Numbers(click.ParamType):
    """Numbers separated by commas or spaces."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.name = f"{'N' if kind is int else 'X'},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list):
            return value
        try:
            items = [_number(item, self.kind) for item in str(value).replace(",", " ").split()]
            if not items:
                raise ValueError
        except ValueError:
            self.fail(f"{value!r} is not a list of {self.kind.__name__}s; write them with commas: 1,2,4", param, ctx)
        return items


class Grid(click.ParamType):
    """A time grid: a name, an expression, or times, in a file too; it becomes the text that `time_grid` takes."""

    name = "GRID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in GRIDS or value in OWN_GRIDS:
            return value
        from ...integrators import grids

        try:
            if Path(value).suffix in grids.FILES or os.path.isfile(value):  # noqa: PTH113 - of any text
                return grids.read_times(Path(value))
            grids.check_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class Noise(click.ParamType):
    """An amount of noise: a number, or a formula in t and theta, kept as its text."""

    name = "X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        try:
            float(value)
        except ValueError:
            from ...theory.noise_amount import NoiseAmount

            try:
                return NoiseAmount.of(value).formula
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return REAL.convert(value, param, ctx)


REAL, WHOLE = Real(), Whole()


def together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator of several, which the help shows in this order."""

    def apply(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


MODEL = together(
    click.option("--gamma", type=REAL, help="Damping of the position, Gamma >= 0."),
    click.option("--nu", type=REAL, help="Damping of the momentum, nu >= 0."),
    click.option("--kappa", type=REAL, help="The momentum starts with variance kappa M."),
    click.option("--beta-min", type=REAL, help="beta(0); beta is linear in t."),
    click.option("--beta-max", type=REAL, help="beta(1)."),
    click.option("--eps", type=REAL, help="Cut-off time."),
)
CROP = click.option(
    "--crop",
    type=WHOLE,
    metavar="N",
    help="Resize the central N x N pixels of each picture (140 in much of the literature); default: the whole, as the "
    "published code does. Of pictures, not of CIFAR-10.",
)


def images_option(purpose: str) -> Callable[[Any], Any]:
    """--data: images, of whose purpose its help begins."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        help=f"{purpose}: a folder or zip of pictures (--side, --crop), an npz file, or CIFAR-10's archive; default: "
        "the spectrum of CIFAR-10.",
    )


SIDE = click.option(
    "--side", type=Whole(2, 64), default=32, show_default=True, help="Pictures of --data are resized to it."
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout, and nothing else there.")
OUTPUT = together(
    JSON,
    click.option("--device", default="cpu", help="Torch device for sampling; exact moments run on the CPU in float64."),
)


class Chosen(NamedTuple):
    """What SCHEME's options say of a scheme; None where they say nothing."""

    splitting: str | None = None
    noise: float | str | None = None
    flow: str | None = None
    lambda_s: float | None = None
    frozen: str | None = None
    memory: int | None = None
    clock: str | None = None


_SCHEME = together(
    click.option("--splitting", metavar="NAME|FILE.py:OBJ", help="The splitting that a bare word belongs to."),
    click.option(
        "--noise",
        type=Noise(),
        help="Noise of a one-part splitting's reverse dynamics: 1 the SDE, 0 the flow, any other; or an expression in "
        "t and theta = int beta, such as 1-t.",
    ),
    click.option(
        "--flow", type=click.Choice(["euler", "exact", "midpoint", "true"]), help="Sub-flow of the parts with score."
    ),
    click.option("--lambda-s", type=REAL, help="Factor on the standard deviation of the position noise."),
    click.option(
        "--frozen",
        type=click.Choice(["score", "residual", "eps", "data"]),
        help="What parts hold while they flow exactly: the score, or another reading of the network's answer.",
    ),
    click.option("--memory", type=WHOLE, metavar="K", help="Evaluations that it is extrapolated from, 1 to 4."),
    click.option(
        "--clock",
        type=click.Choice([name + middle for name in ("theta", "t", "logsnr", "rho") for middle in ("", "-midpoint")]),
        help="Variable of the polynomial through them; midpoint: its value half way through is held.",
    ),
)


def SCHEME(command: Any) -> Any:
    """The options that make or change a scheme, handed to the command as one value, `chosen`."""

    @functools.wraps(command)
    def with_one_value(*args: Any, **options: Any) -> Any:
        chosen = Chosen(*(options.pop(name) for name in Chosen._fields))
        return command(*args, chosen=chosen, **options)

    return _SCHEME(with_one_value)


DIFFUSION_NAMES = ("psld", "vp")  # that have noise to run backward from
PATHS = ("vp", "sub-vp", "ve", "edm", "cosine", "flow")
DIFFUSION = click.option(
    "--diffusion",
    metavar="NAME",
    help="What a black box samples: psld (default), vp, or FILE.py:OBJ, a Diffusion; with --predicts the path of a "
    "sampler with a grid of its own: " + ", ".join(PATHS) + ", or FILE.py:OBJ, a GaussianPath.",
)
EVENT = click.option(
    "--event", type=Numbers(int), help="Shape of one data point for black boxes that need one, such as 3,4,4."
)
GRIDS = ("uniform", "quadratic")
OWN_GRIDS = ("default", "karras", "exponential", "polyexponential", "beta")  # of samplers with grids of their own


def grid_option(default: str) -> Callable[[Any], Any]:
    """--grid."""
    return click.option(
        "--grid",
        type=Grid(),
        default=default,
        show_default=True,
        help="Time grid: uniform; quadratic; an expression in s = i/N that increases from 0 to 1, such as "
        '"1 - (1 - s)**3"; one of these in the time of a path, such as "uniform on flow" or "karras on edm"; or '
        "FILE.txt, .npy or .json with times tau = T - t, increasing from 0 to T - eps, interpolated for other numbers "
        "of steps. Of samplers with grids of their own: karras, exponential, ...",
    )


GRID = grid_option("uniform")

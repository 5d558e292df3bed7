"""What the commands share: options, and the way from a user's words to values and back to lines of text.

`together` makes one decorator of several options. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from ...integrators.blackbox import Sampler
    from ...theory.model import Diffusion, Parameters
    from ...theory.scheme import Scheme
    from ...verification.exact import Subject

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
BAD_INPUT = 2
INTERRUPTED = 130


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
        if value in GRIDS:
            return value
        from ...integrators import grids

        try:
            if Path(value).suffix in grids.FILES or os.path.isfile(value):  # noqa: PTH113 - of any text
                return grids.read_times(Path(value))
            grids.check_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


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
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout, and nothing else there.")
OUTPUT = together(
    JSON,
    click.option("--device", default="cpu", help="Torch device for sampling; exact moments run on the CPU in float64."),
)


class Chosen(NamedTuple):
    """What SCHEME's options say of a scheme; None where they say nothing."""

    splitting: str | None = None
    flow: str | None = None
    lambda_s: float | None = None
    frozen: str | None = None
    memory: int | None = None


_SCHEME = together(
    click.option("--splitting", metavar="NAME|FILE.py:OBJ", help="The splitting that a bare word belongs to."),
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
)


def SCHEME(command: Any) -> Any:
    """The options that make or change a scheme, handed to the command as one value, `chosen`."""

    @functools.wraps(command)
    def with_one_value(*args: Any, **options: Any) -> Any:
        chosen = Chosen(*(options.pop(name) for name in Chosen._fields))
        return command(*args, chosen=chosen, **options)

    return _SCHEME(with_one_value)


EVENT = click.option(
    "--event", type=Numbers(int), help="Shape of one data point for black boxes that need one, such as 3,4,4."
)
GRIDS = ("uniform", "quadratic")


def grid_option(default: str) -> Callable[[Any], Any]:
    """--grid."""
    return click.option(
        "--grid",
        type=Grid(),
        default=default,
        show_default=True,
        help="Time grid: uniform; quadratic; an expression in s = i/N that increases from 0 to 1, such as "
        '"1 - (1 - s)**3"; or FILE.txt, .npy or .json with times tau = T - t, increasing from 0 to T - eps, which are '
        "interpolated for other numbers of steps.",
    )


GRID = grid_option("uniform")


# --- From words to values ---


def parameters(device: str, model: dict[str, float | None]) -> Parameters:
    """The values of MODEL's options, defaults where they are None. Raises ValueError, also on a bad device."""
    from ...theory.model import Parameters

    if device != "cpu":
        check_device(device)
    return Parameters(**{name: value for name, value in model.items() if value is not None})


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
    from ...theory.frozen import find_frozen

    changes = {name: value for name, value in chosen._asdict().items() if value is not None and name != "splitting"}
    if chosen.frozen is not None:
        changes["frozen"] = find_frozen(chosen.frozen)
    return dataclasses.replace(scheme, **changes)


def sampler_of(x: str, chosen: Chosen) -> Scheme | Sampler:
    """A scheme, or the black box of a FILE.py:OBJ, which has no word to change."""
    from ...integrators.loading import find_sampler
    from ...theory.scheme import Scheme

    found = find_sampler(x) if chosen.splitting is None else None
    if found is None or isinstance(found, Scheme):
        return scheme_of(x, chosen) if found is None else _changed(found, chosen)
    if chosen != Chosen():
        raise ValueError(f"{x} is a black box; --flow, --lambda-s, --frozen and --memory are for schemes")
    return found


def subject_of(x: str, event: tuple[int, ...]) -> Subject:
    """What a report is on."""
    from ...theory.scheme import Scheme

    sampler = sampler_of(x, Chosen())
    if isinstance(sampler, Scheme):
        return sampler
    from ...verification.blackbox import BlackBox

    return BlackBox(x, sampler, event)


def diffusion_of(sampler: Scheme | Sampler) -> Diffusion:
    """What it samples; black boxes are of PSLD."""
    from ...theory.model import PSLD_DIFFUSION
    from ...theory.scheme import Scheme

    return sampler.splitting.diffusion if isinstance(sampler, Scheme) else PSLD_DIFFUSION


# --- From values to lines ---


def title(sampler: Scheme | Sampler, x: str) -> str:
    """What the user called x, in a line's beginning."""
    from ...theory.scheme import Scheme

    return _scheme_title(sampler) if isinstance(sampler, Scheme) else f"{x} (black box)"


def _scheme_title(scheme: Scheme) -> str:
    name = "" if scheme.name == scheme.word else f"{scheme.name} = "
    scale = "" if scheme.lambda_s == 1 else f", lambda_s {scheme.lambda_s:g}"
    return f"{name}{scheme.word} on {scheme.splitting.name} ({scheme.sub_flows}{scale})"


def warn(scheme: Scheme) -> None:
    """Its warnings, on stderr."""
    for warning in scheme.warnings:
        click.echo(f"warning: {warning}", err=True)


def progress(items: Any, delay: float = 2) -> Any:
    """The items, with a bar on a terminal's stderr if they take longer than `delay` seconds; at once for 0."""
    from tqdm import tqdm

    return tqdm(items, unit="run", delay=delay, disable=None, leave=False)


def print_json(value: Any) -> None:
    """The one JSON value on stdout."""
    from ..pages import dumps

    click.echo(dumps(value), nl=False)


def cell(value: Any) -> str:
    """A value as a table shows it; "-" for None and nan."""
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as they need; numbers stand right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    numeric = [all(re.fullmatch(r"-|-?[\d.]+(e[+-]\d+)?|nan", row[c]) for row in rows) for c in range(len(header))]
    for row in [header, *rows]:
        cells = (text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, numeric, strict=True))
        click.echo("  ".join(cells).rstrip())

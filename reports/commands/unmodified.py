"""`verify` of samplers with a grid of their own: those of libraries, and one's own around a network."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import click
from click.core import ParameterSource

from .lines import EXIT_CODES, cell, print_json, print_table
from .options import DIFFUSION, PATHS, together

if TYPE_CHECKING:
    from ...integrators.unmodified import Unmodified
    from ...theory.paths import GaussianPath
    from ...verification.unmodified import MixtureStudy, UnmodifiedStudy

LIBRARIES = ("diffusers", "k-diffusion")
# What else of the command's options such a sampler takes.
_TAKEN = ("x", "grid", "order", "steps", "time_limit", "as_json", "event", "target")
OWN_GRID = together(
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of a library's sampler."),
    DIFFUSION,
    click.option(
        "--predicts",
        type=click.Choice(["eps", "data", "denoiser", "v", "score", "flow"]),
        help="What the network of FILE.py:sample answers; it is called sample(model, x, steps).",
    ),
    click.option(
        "--time", type=click.Choice(["t", "index", "sigma"]), help="What that network is told; default t, in [0, 1]."
    ),
)


class Asked(NamedTuple):
    """What the command line says of such a sampler: its name, NAME=VALUE of the library's settings, what one's own is
    around, and which grid and shape of data."""

    x: str
    settings: tuple[str, ...]
    diffusion: str | None
    predicts: str | None
    time: str | None
    grid: str | None = None
    event: list[int] | None = None


def UNMODIFIED(command: Any) -> Any:
    """The options of samplers with a grid of their own, and their way to their verdict."""

    @functools.wraps(command)
    def routed(
        *args: Any,
        settings: tuple[str, ...],
        diffusion: str | None,
        predicts: str | None,
        time: str | None,
        **options: Any,
    ) -> Any:
        x = options["x"]
        library = x.partition(":")[0]
        if library in LIBRARIES or predicts is not None:
            _verify(Asked(x, settings, diffusion, predicts, time, event=options["event"]), options)
        if settings or time:
            raise ValueError(
                f"--set and --time are for {' and '.join(f'{name}:NAME' for name in LIBRARIES)}, or with --diffusion "
                f"and --predicts for FILE.py:sample; {x!r} is neither"
            )
        with over_diffusion(diffusion):
            return command(*args, diffusion=diffusion, **options)

    return OWN_GRID(routed)


@contextlib.contextmanager
def over_diffusion(named: str | None) -> Iterator[None]:
    """Say of a black box that raises over a diffusion, which is a path too, that it may be meant for the path."""
    try:
        yield
    except ValueError as error:
        if named not in PATHS:
            raise
        from ...integrators.blackbox import SamplerRaised

        if not isinstance(error, SamplerRaised):
            raise
        raise SamplerRaised(f"{error}; a sample(model, x, steps) with a grid of its own needs --predicts") from error


def _verify(asked: Asked, options: dict[str, Any]) -> NoReturn:
    """The verdict on a sampler with a grid of its own; exits with its code. Raises ValueError on bad input."""
    from ...verification.time_limit import check_time_limit
    from ...verification.unmodified import STEPS, STUDIES
    from .verify import within

    context = click.get_current_context()
    for name in options:
        source = context.get_parameter_source(name)
        if name not in _TAKEN and source is ParameterSource.COMMANDLINE:
            raise ValueError(
                f"--{name.replace('_', '-')} is not for {asked.x}, a sampler with a grid of its own; drop it"
            )
    if (target := options["target"] or "gaussian") not in STUDIES:
        raise ValueError(
            f"--target {target} is not for {asked.x}, a sampler with a grid of its own: it is put on data on a line, "
            f"{' or '.join(STUDIES)}"
        )
    check_time_limit(options["time_limit"])
    if context.get_parameter_source("grid") is ParameterSource.COMMANDLINE:
        asked = asked._replace(grid=options["grid"])
    samplers = _with_grids_left_out(samplers_of(asked), asked)

    def study(progress: Any) -> UnmodifiedStudy | MixtureStudy:
        return STUDIES[target](samplers, options["order"], options["steps"] or STEPS, progress=progress)

    found, verdict, reason = within(options["time_limit"], study)
    answer = {"sampler": asked.x} if found is None else found.as_dict()
    answer |= {"verdict": str(verdict), "reason": reason}
    if options["as_json"]:
        print_json(answer)
    else:
        _print(asked.x, found, target)
        click.echo(f"{verdict}: {reason}")
    sys.exit(EXIT_CODES[verdict])


# What is printed on each target: of what the errors are, columns and their keys.
_TABLES = {
    "gaussian": (
        "errors in standard deviations at the network's last state",
        ("steps", "NFE", "W2 error", "slope", "mean", "variance", "gain", "end"),
        ("steps", "nfe", "w2", "slope", "mean", "variance", "gain", "final"),
    ),
    "mixture": (
        "weak errors on a mixture, in standard deviations, at the network's last state",
        ("steps", "NFE", "error", "known to", "slope", "Gaussian W2", "its slope"),
        ("steps", "nfe", "error", "known", "slope", "gaussian", "gaussian_slope"),
    ),
}


def _print(x: str, study: UnmodifiedStudy | MixtureStudy | None, target: str) -> None:
    if study is None:
        return
    for warning in study.warnings:
        click.echo(f"warning: {warning}", err=True)
    what, header, keys = _TABLES[target]
    for grid in study.as_dict()["grids"]:
        click.echo(f"{x}: {what}, {grid['grid']} grid")
        print_table(list(header), [[cell(_number(key, level[key])) for key in keys] for level in grid["levels"]])
    for remark in study.remarks:
        click.echo(remark)


def _number(key: str, value: float) -> Any:
    """As a table shows it; of an error that is round-off the bound, as its digits are another machine's others."""
    from ...verification.unmodified import FLOOR, QUANTITIES

    if key in QUANTITIES and value < FLOOR:
        return f"<{FLOOR:g}"
    return int(value) if key in ("steps", "nfe") and value == value else value  # nan where a run was not finite


def settings_of(texts: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE by name, values read as JSON or Python write them, else as text. Raises ValueError."""
    import json

    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise ValueError(f"--set {text!r} is not NAME=VALUE; write it like --set solver_order=3")
        try:
            found[name] = {"True": True, "False": False, "None": None}[value]
        except KeyError:
            with contextlib.suppress(ValueError):
                value = json.loads(value)
            found[name] = value
    return found


def samplers_of(asked: Asked) -> dict[str, Unmodified]:
    """The samplers of a name by grid: the one asked for, or its own and one that is smooth in log sigma where it has
    one. Raises ValueError."""
    from ...verification.unmodified import samplers_of as of_library

    x, library, name = asked.x, *asked.x.partition(":")[::2]
    if library not in LIBRARIES:
        return _of_file(asked)
    if asked.event:
        raise ValueError(f"--event is for FILE.py:sample; {x} takes data of any shape, drop it")
    if asked.diffusion or asked.predicts or asked.time:
        raise ValueError(f"--diffusion, --predicts and --time are for FILE.py:sample; {x} states its own, see --set")
    return of_library(library, name, settings_of(asked.settings), asked.grid)


def _with_grids_left_out(found: dict[str, Unmodified], asked: Asked) -> dict[str, Unmodified]:
    """The same samplers; one on the grid that was asked for notes the others on which a verdict would look at it."""
    from ...verification.unmodified import samplers_of as of_library

    if asked.grid is None or len(found) != 1:
        return found
    library, _, name = asked.x.partition(":")
    others = [grid for grid in of_library(library, name, settings_of(asked.settings)) if grid not in found]
    if not others:
        return found
    note = f"looked at on the {asked.grid} grid alone; without --grid {asked.grid} it is on {' and '.join(others)}, too"
    return {grid: replace(sampler, notes=(*sampler.notes, note)) for grid, sampler in found.items()}


def _of_file(asked: Asked) -> dict[str, Unmodified]:
    from ...integrators.loading import load_object
    from ...integrators.unmodified import function_sampler

    x, diffusion, predicts = asked.x, asked.diffusion, asked.predicts
    if asked.settings or asked.grid:
        raise ValueError(f"--set and --grid are for samplers of a library; {x} has settings and a grid of its own")
    if diffusion is None or predicts is None:
        missing = "--diffusion" if diffusion is None else "--predicts"
        raise ValueError(f"{x} needs --diffusion and --predicts, what its network was trained for; give {missing}")
    path, sample = _path_of(diffusion, x), load_object(x)
    if not callable(sample):
        raise ValueError(f"{x} is of type {type(sample).__name__}; it must be sample(model, x, steps)")
    shape = tuple(asked.event) if asked.event else (1, 1, 1)
    return {"default": function_sampler(x, cast("Any", sample), path, predicts, asked.time or "t", shape)}


def _path_of(named: str, x: str) -> GaussianPath:
    """The path of that name, or of a file. Raises ValueError on what is none."""
    from ...integrators.loading import load_object
    from ...theory.paths import PATHS as KNOWN
    from ...theory.paths import GaussianPath

    path = load_object(named) if ".py:" in named else KNOWN.get(named)
    if not isinstance(path, GaussianPath):
        raise ValueError(
            f"--diffusion {named} is no path; with --predicts, choose one of {', '.join(KNOWN)}, or FILE.py:OBJ with a "
            f"GaussianPath or table_of(alpha_bar): {x} has a grid of its own"
        )
    return path

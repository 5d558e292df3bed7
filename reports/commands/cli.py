"""The command line: `weakorder COMMAND ...`.

Each command turns its words into values, asks one reading of them, and prints the answer: a table for people, or with
--json one JSON value on stdout and nothing else there. Bad input gets one line on stderr and exit code 2. Everything
heavy is imported inside the commands, so that `weakorder --help` answers at once. The commands stand in files by
subject; what they share is in options.py, values.py and lines.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...verification.cifar10.model import NAMES
from ...verification.cifar10.study import may_speak
from .budget import budget
from .cifar10 import group_of
from .identify import identify
from .lines import BAD_INPUT, INTERRUPTED, progress
from .options import CROP, EVENT, MODEL, OUTPUT, SIDE, images_option
from .schemes import derive, moments, schemes, stability
from .search import search
from .tune import tune
from .unmodified import LIBRARIES
from .values import parameters, spectrum_of, subject_of
from .verify import baseline, verify

if TYPE_CHECKING:  # these take their time to import
    from ...theory.model import Diffusion, Parameters
    from ...verification.exact import Spectrum, Subject

CLOSED_PIPE = 141
# What the studies of a report import first.
WAITED_FOR = ("weakorder.reports.pages.report", "weakorder.verification.sampled")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    no_args_is_help=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.option("--version", is_flag=True, help="Show the version and exit.")
@click.option("-v", "verbose", is_flag=True, help="With --version: what draws noise and advances states, too.")
@click.pass_context
def cli(context: click.Context, version: bool, verbose: bool) -> None:
    """Verify samplers of diffusion models, in phase space (PSLD) and in position alone: is a sampler correct, what
    weak order does it have, and what does each trick cost?

    X is a scheme's name (ROBA), a word ("O S B A"), FILE.py:OBJ with a Scheme or a sampler of your own, or a library's
    sampler as it ships (diffusers:NAME, k-diffusion:sample_NAME; verify and identify). Model parameters default to the
    published CIFAR-10 model's.
    """
    if version:
        click.echo(f"weakorder {metadata.version('weakorder')}")
        if verbose:
            from ...integrators.kernels import tiers_in_use

            for device, tier in tiers_in_use().items():
                click.echo(f"{device}: {tier}")
        context.exit()
    if context.invoked_subcommand is None:
        raise click.UsageError("Missing command.", context)


@cli.command()
@click.argument("names", nargs=-1, metavar="[X]...")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="report", show_default=True, help="Folder.")
@EVENT
@click.option("--self-test", is_flag=True, help="Break 200 samplers instead, and show which check catches each.")
@click.option(
    "--target",
    type=click.Choice(["gaussian", "mixture"]),
    help="Of diffusers or k-diffusion: with mixture, each order where the network is not affine, too.",
)
@images_option("Of diffusers or k-diffusion, images that distances are to")
@SIDE
@CROP
@OUTPUT
@MODEL
def report(
    names: tuple[str, ...],
    output: Path,
    event: list[int] | None,
    self_test: bool,
    target: str | None,
    data: Path | None,
    side: int,
    crop: int | None,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """The convergence report on the catalogue, or on the schemes and samplers X: a page, figures, results.json.

    With diffusers or k-diffusion the page is on that library's samplers, unmodified (minutes).
    With --self-test the page is self-test.html: the mutants, how large each fault is, and what catches it (minutes).
    """
    from ...integrators.catalogue import CATALOGUE

    if not str(output).strip() or str(output) == ".":
        raise ValueError("no folder to write to; name one with -o DIR")
    params = parameters(device, model)
    if names and set(names) <= set(LIBRARIES):
        targets = ("gaussian", "mixture") if target == "mixture" else ("gaussian",)
        _survey(names, output, as_json, targets, *spectrum_of(data, side, crop))
        return
    for option, value in (("target", target), ("data", data), ("crop", crop)):
        if value is not None:
            raise ValueError(
                f"--{option} {value} is for the pages of {' and '.join(LIBRARIES)}; drop it, or name one of these alone"
            )
    if self_test:
        from ..pages import write_self_test

        if names or params != type(params)():
            raise ValueError("--self-test breaks samplers of its own, under models of its own; drop the rest")
        page = write_self_test(output, progress=progress)
        click.echo((page.parent / "self-test.json").read_text() if as_json else f"wrote {page}", nl=not as_json)
        return
    chosen = [subject_of(name, tuple(event or ())) for name in names] or list(CATALOGUE.values())
    own = partial(parameters, device, model)  # of each diffusion, its defaults where nothing is given
    with contextlib.redirect_stdout(sys.stderr):  # what black boxes print is not our answer
        page = _report(chosen, own, output)
    if as_json:
        click.echo((page.parent / "results.json").read_text(), nl=False)
    else:
        click.echo(f"wrote {page}")


def _report(schemes: list[Subject], params: Callable[[Diffusion], Parameters], output: Path) -> Path:
    """The page of the schemes. What takes seconds to import is imported in all processes at once."""
    from ..pages import Workers

    with Workers(os.cpu_count() or 1, WAITED_FOR) as workers:
        from ..pages import write_report

        return write_report(schemes, params, output, progress=partial(progress, delay=0), workers=workers)


def _survey(
    libraries: tuple[str, ...], output: Path, as_json: bool, targets: tuple[str, ...], spectrum: Spectrum, data: str
) -> None:
    """The pages of libraries' samplers."""
    from ..pages import write_survey

    for library in dict.fromkeys(libraries):
        page = write_survey(
            library,
            output,
            partial(progress, delay=0),
            os.cpu_count() or 1,
            targets=targets,
            spectrum=spectrum,
            data=data,
        )
        click.echo((page.parent / f"{library}.json").read_text() if as_json else f"wrote {page}", nl=not as_json)


ADVICE = (budget, tune, search)
for command in (schemes, derive, moments, stability, verify, identify, *ADVICE, baseline, *map(group_of, NAMES)):
    cli.add_command(command)


def _message(error: Exception) -> str:
    """What an error says, on one line."""
    from ...verification.files import explained

    if isinstance(error, OSError):
        text = explained(error)
    else:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    tells = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)  # the value's rule
    if isinstance(error, click.UsageError) and error.ctx and not tells and not text.endswith("?"):
        text = f"{text.removesuffix('.')}; see {error.ctx.command_path} --help"
    return " ".join(text.split())


def _say(line: str) -> None:
    """A line on stderr; bars that still stand there are closed first."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()
    click.echo(f"weakorder: {line}", err=True)


def main() -> None:
    """Run the command line; errors become one line on stderr and exit code 2."""
    if not NAMES.keys() & set(sys.argv[1:2]):
        # products of small matrices: a second thread of numpy's would wait, busily
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = cli.main(prog_name="weakorder", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0
    except (click.Abort, KeyboardInterrupt) as stop:
        _say("interrupted")
        code = getattr(stop.__cause__ or stop, "code", INTERRUPTED)  # SIGTERM has its own; click wraps it
    except SystemExit as stop:
        # click answers a closed pipe with exit code 1, which would read as FAIL; programs use the signal's number.
        code = CLOSED_PIPE if "PacifyFlush" in type(sys.stdout).__name__ else stop.code
    except (click.ClickException, ValueError, OSError) as error:
        if not isinstance(error, click.UsageError) or may_speak():
            _say(f"error: {_message(error)}")
        code = BAD_INPUT
    except Exception as error:  # a bug, or input nobody thought of: never the exit code of FAIL
        _say(f"error: {type(error).__name__}: {_message(error)}; please report this")
        code = BAD_INPUT
    sys.exit(code)


if __name__ == "__main__":
    main()

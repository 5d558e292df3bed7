"""The command line: `weakorder COMMAND ...`.

Each command turns its words into values, asks one reading of them, and prints the answer: a table for people, or with
--json one JSON value on stdout and nothing else there. Bad input gets one line on stderr and exit code 2. Everything
heavy is imported inside the commands, so that `weakorder --help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from ..integrators.blackbox import Sampler
    from ..theory.model import Diffusion, Parameters
    from ..theory.scheme import Scheme
    from ..verification.subject import Subject

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
BAD_INPUT = 2
CLOSED_PIPE = 141


class _Numbers(click.ParamType):
    """Numbers separated by commas or spaces."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.name = f"{'N' if kind is int else 'X'},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list):
            return value
        items = str(value).replace(",", " ").split()
        try:
            if not items or not str(value).isascii() or "_" in str(value):
                raise ValueError
            return [self.kind(item) for item in items]
        except ValueError:
            self.fail(f"{value!r} is not a list of {self.kind.__name__}s; write them with commas: 1,2,4", param, ctx)


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


_MODEL = _options(
    click.option("--gamma", type=float, help="Damping of the position, Gamma >= 0."),
    click.option("--nu", type=float, help="Damping of the momentum, nu >= 0."),
    click.option("--kappa", type=float, help="The momentum starts with variance kappa M."),
    click.option("--beta-min", type=float, help="beta(0); beta is linear in t."),
    click.option("--beta-max", type=float, help="beta(1)."),
    click.option("--eps", type=float, help="Cut-off time."),
)
_OUTPUT = _options(
    click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout, and nothing else there."),
    click.option("--device", default="cpu", help="Torch device for sampling; exact moments run on the CPU in float64."),
)
_SCHEME = _options(
    click.option("--splitting", metavar="NAME|FILE.py:OBJ", help="The splitting that a bare word belongs to."),
    click.option(
        "--flow", type=click.Choice(["euler", "exact", "midpoint", "true"]), help="Sub-flow of the parts with score."
    ),
    click.option("--lambda-s", type=float, help="Factor on the standard deviation of the position noise."),
)
_EVENT = click.option(
    "--event", type=_Numbers(int), help="Shape of one data point for black boxes that need one, such as 3,4,4."
)
_GRID = click.option(
    "--grid", type=click.Choice(["uniform", "quadratic"]), default="uniform", show_default=True, help="Time grid."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="weakorder", message="%(package)s %(version)s")
def cli() -> None:
    """Verify samplers of phase-space diffusion models (PSLD): is a splitting integrator correct, what weak order does
    it have, and what does each trick cost?

    X is a scheme's name (ROBA), a word ("O S B A"), or FILE.py:OBJ with a Scheme or a step(u, tau, h, score). Model
    parameters default to the published CIFAR-10 model's.
    """


@cli.command()
@_OUTPUT
@_MODEL
def schemes(as_json: bool, device: str, **model: float | None) -> None:
    """The catalogue: word, cost, proven and measured order, error constant, source."""
    from ..integrators.catalogue import CATALOGUE
    from .orders import order_rows

    rows = order_rows(list(CATALOGUE.values()), _model(device, model))
    if as_json:
        _print_json(rows)
        return
    header = ["name", "word", "splitting", "NFE/step", "palindrome", "claimed", "proven", "measured", "e/h^p"]
    _print_table([*header, "reference"], [[_cell(value) for value in row.values()] for row in rows])


@cli.command()
@click.argument("x")
@_SCHEME
@click.option("--dims", type=click.IntRange(1, 2), default=1, show_default=True, help="Data dimensions, fully coupled.")
@_OUTPUT
@_MODEL
def derive(
    x: str,
    splitting: str | None,
    flow: str | None,
    lambda_s: float | None,
    dims: int,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """The flows of X's parts, its one-step map, and its weak order as a theorem, with the leading error and its LaTeX.

    The order is that for constant beta, or for beta linear in t if --beta-min and --beta-max differ; both are shown.
    """
    from .derivation import as_text
    from .derivation import derive as derivation

    params = _model(device, model)
    scheme = _scheme(x, splitting, flow, lambda_s)
    answer = derivation(scheme, dims, params.beta_min != params.beta_max)
    if as_json:
        _print_json(answer)
        return
    _warn(scheme)
    click.echo(as_text(answer))


@cli.command()
@click.argument("x")
@_SCHEME
@click.option("--steps", type=int, default=50, show_default=True, help="Number of steps N.")
@click.option("--data-mean", type=float, default=0.0, show_default=True, help="Mean of the Gaussian data.")
@click.option("--data-variance", type=float, default=1.0, show_default=True, help="Variance of the Gaussian data.")
@_GRID
@_EVENT
@click.option(
    "--start",
    type=click.Choice(["exact", "prior"]),
    default="exact",
    show_default=True,
    help="The exact law at t = T, or the prior.",
)
@_OUTPUT
@_MODEL
def moments(
    x: str,
    splitting: str | None,
    flow: str | None,
    lambda_s: float | None,
    steps: int,
    data_mean: float,
    data_variance: float,
    grid: str,
    event: list[int] | None,
    start: str,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """Exact mean and covariance of scheme X on Gaussian data, at t = eps, without a denoising step."""
    from ..integrators.grids import time_grid
    from ..theory.scheme import Scheme
    from ..verification.gaussian import GaussianTarget
    from ..verification.moments import exact_moments

    params = _model(device, model)
    sampler = _sampler(x, splitting, flow, lambda_s)
    target = GaussianTarget.of(data_mean, data_variance, _diffusion(sampler), params)
    taus = time_grid(grid, steps, params)
    if isinstance(sampler, Scheme):
        result = exact_moments(sampler, target, taus, start)
        _warn(sampler)
    else:
        from ..verification.probing import probed_moments

        with contextlib.redirect_stdout(sys.stderr):  # what the step prints is not our answer
            result = probed_moments(sampler, target, taus, start, tuple(event or ()), _progress)
        if result.rounding:
            click.echo(f"warning: rounds to float32: {result.rounding:.1e} of the law's size in this run", err=True)
    if result.diverged.any():
        click.echo("warning: the run overflowed; its moments are not finite (null in JSON)", err=True)
    laws = {"": result.computed, "exact_": result.exact}
    if as_json:
        answer: dict[str, Any] = {}
        for prefix, law in laws.items():
            answer |= {f"{prefix}mean": law.mean[:, 0].tolist(), f"{prefix}cov": law.cov[:, :, 0].tolist()}
        _print_json(answer | {"nfe": result.nfe})
        return
    click.echo(
        f"{_title(sampler, x)}: {steps} steps ({grid}) from the {start} law to t = {params.eps:g}, {result.nfe} NFE"
    )
    values = [[*law.mean[:, 0], law.cov[0, 0, 0], law.cov[0, 1, 0], law.cov[1, 1, 0]] for law in laws.values()]
    errors = [computed - exact for computed, exact in zip(*values, strict=True)]
    header = ["", "mean x", "mean m", "cov xx", "cov xm", "cov mm"]
    rows = zip(("scheme", "exact", "error"), [*values, errors], strict=True)
    _print_table(header, [[name, *(f"{number:.6e}" for number in row)] for name, row in rows])


@cli.command()
@click.argument("x")
@_SCHEME
@click.option("--order", type=click.IntRange(1, 10), help="Order to hold X to; default: what it claims, or 1.")
@click.option("--steps", type=_Numbers(int), help="Numbers of steps, 4 or more; default 25,50,...,6400.")
@click.option("--data-mean", type=_Numbers(float), help="Data means; default 0,1.")
@click.option("--data-variance", type=_Numbers(float), help="Data variances; default 0.04,0.25,1,4.")
@click.option("--t-end", type=float, help="Where the run stops; default t = 0.1, see README.")
@_GRID
@_EVENT
@click.option("--target", help="gaussian (default, exact), mixture, banana, student or empirical-cifar10.")
@click.option("--dim", type=click.IntRange(1), help="Data dimensions of the mixture.")
@click.option("--data", type=click.Path(path_type=Path), help="Images of empirical-cifar10, an .npz; default 512.")
@click.option("--method", type=click.Choice(["noise-free", "monte-carlo"]), help="Default: noise-free in 1 dimension.")
@click.option("--accuracy", type=float, help="Of sampled differences, relative; default 0.02.")
@click.option("--evaluations", type=float, help="The most score evaluations to spend.")
@click.option("--seconds", type=float, help="When to stop, with what is known by then.")
@click.option("--seed", type=int, help="Of the sampled noise; default 0.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A file that keeps samples, to go on from.")
@_OUTPUT
@_MODEL
def verify(
    x: str,
    splitting: str | None,
    flow: str | None,
    lambda_s: float | None,
    order: int | None,
    steps: list[int] | None,
    data_mean: list[float] | None,
    data_variance: list[float] | None,
    t_end: float | None,
    grid: str,
    event: list[int] | None,
    target: str | None,
    dim: int | None,
    data: Path | None,
    method: str | None,
    as_json: bool,
    device: str,
    **options: Any,
) -> None:
    """The verdict on X: measured weak order on Gaussian data, or on a --target with a nonlinear score.

    Exit code 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 2 bad input.
    """
    from ..theory.scheme import Scheme
    from ..verification import order as orders

    names = ("accuracy", "evaluations", "seconds", "seed", "checkpoint")
    sampling = {name: options.pop(name) for name in names}
    params = _model(device, options)
    sampler = _sampler(x, splitting, flow, lambda_s)
    if target is not None and target != "gaussian":
        if not isinstance(sampler, Scheme):
            raise ValueError(f"{x} is a black box; --target {target} is for schemes, whose noise can be coupled")
        if data_mean or data_variance or event:
            raise ValueError(f"--data-mean, --data-variance and --event do not belong to --target {target}; drop them")
        _verify_on(x, sampler, params, target, dim, data, method, order, steps, t_end, grid, sampling, as_json)
    for name, value in {"dim": dim, "data": data, "method": method, **sampling}.items():
        if value is not None:
            raise ValueError(f"--{name} is for a --target such as mixture; Gaussian data need no sampling")
    laws = orders.gaussian_targets(
        _diffusion(sampler), params, data_variance or orders.VARIANCES, data_mean or orders.MEANS
    )
    stop = orders.T_END if t_end is None else t_end
    if isinstance(sampler, Scheme):
        study = orders.study_order(sampler, params, order, steps or orders.STEPS, laws, stop, grid, _progress)
        description: dict[str, Any] = {
            "scheme": sampler.name,
            "word": sampler.word,
            "splitting": sampler.splitting.name,
        }
        description |= {"nfe_per_step": sampler.nfe_per_step, "warnings": list(sampler.warnings)}
    else:
        levels = steps or orders.BLACK_BOX_STEPS
        with contextlib.redirect_stdout(sys.stderr):  # what the step prints is not our answer
            study = orders.study_black_box(
                x, sampler, params, order, levels, laws, stop, grid, _progress, tuple(event or ())
            )
        per_step = float(study.nfe[-1] / study.steps[-1])
        description = {"sampler": x, "nfe_per_step": per_step, "warnings": list(study.warnings)}
    if as_json:
        _print_json(description | study.as_dict())
    else:
        for warning in description["warnings"]:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{_title(sampler, x)}: {description['nfe_per_step']:g} NFE/step, errors at t = {stop:g}")
        header = ["steps", "NFE", "W2 error", "slope", "e/h^p", "mean error", "cov error"]
        keys = ("steps", "nfe", "error", "slope", "constant", "mean_error", "cov_error")
        _print_table(header, [[_cell(level[key]) for key in keys] for level in study.as_dict()["levels"]])
        click.echo(f"{study.verdict}: {study.reason}")
    sys.exit(EXIT_CODES[study.verdict])


def _verify_on(
    x: str,
    scheme: Scheme,
    params: Parameters,
    name: str,
    dim: int | None,
    data: Path | None,
    method: str | None,
    order: int | None,
    steps: list[int] | None,
    t_end: float | None,
    grid: str,
    sampling: dict[str, Any],
    as_json: bool,
) -> NoReturn:
    """`verify` on a target whose score is not affine."""
    from ..verification.targets import make_target
    from . import nonlinear

    nonlinear.checkpoint_path(sampling["checkpoint"])
    target = make_target(name, params, dim, data, scheme.splitting.diffusion)
    study = nonlinear.study(scheme, target, method, order, steps, t_end, grid, _progress, sampling)
    answer = {"scheme": scheme.name, "word": scheme.word, "splitting": scheme.splitting.name}
    answer |= {"nfe_per_step": scheme.nfe_per_step, "warnings": list(scheme.warnings), "target": name}
    answer |= study.as_dict()
    if as_json:
        _print_json(answer)
    else:
        _warn(scheme)
        dimensions = "x".join(map(str, target.event))
        click.echo(f"{_title(scheme, x)}: {name} ({dimensions}), {scheme.nfe_per_step} NFE/step")
        header, rows = nonlinear.table(answer)
        _print_table(header, [[_cell(value) for value in row] for row in rows])
        click.echo(f"{study.verdict}: {study.reason}")
    sys.exit(EXIT_CODES[study.verdict])


@cli.command()
@click.argument("x")
@_SCHEME
@click.option("--steps", type=int, help="Judge a run of N steps on --grid instead.")
@_GRID
@_OUTPUT
@_MODEL
def stability(
    x: str,
    splitting: str | None,
    flow: str | None,
    lambda_s: float | None,
    steps: int | None,
    grid: str,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """How few steps X can take on CIFAR-10's spectrum, on each grid, and what breaks first.

    Exit code 0; with --steps 0 stable, 1 unstable; 2 bad input.
    """
    from ..theory.scheme import Scheme
    from .stability import as_text, judge

    params = _model(device, model)
    sampler = _sampler(x, splitting, flow, lambda_s)
    with contextlib.redirect_stdout(sys.stderr):  # what a black box prints is not our answer
        answer, stable = judge(sampler, params, steps, grid, _progress)
    if as_json:
        _print_json({"sampler": x} | answer)
    else:
        if isinstance(sampler, Scheme):
            _warn(sampler)
        click.echo(f"{_title(sampler, x)}\n{as_text(answer)}")
    sys.exit(EXIT_CODES["PASS" if stable else "FAIL"])


@cli.group()
def baseline() -> None:
    """Regression baselines: record what a sampler does, and later ask what a change of it did."""


_BASELINED = _options(
    click.option("--order", type=click.IntRange(1, 10), default=1, show_default=True, help="Order to hold X to."),
    click.option("--steps", type=_Numbers(int), help="Of its order study; default 25,50,...,1600."),
    _EVENT,
    _OUTPUT,
    _MODEL,
)


@baseline.command()
@click.argument("x")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file, JSON; replaced."
)
@_BASELINED
def record(
    x: str,
    output: Path,
    order: int,
    steps: list[int] | None,
    event: list[int] | None,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """Record the baseline of X: what one step does, evaluations, order, moments of whole runs."""
    from ..verification import baseline as baselines
    from ..verification.files import check_writable

    params = _model(device, model)
    sampler = _sampler(x, None, None, None)
    check_writable(output)
    with contextlib.redirect_stdout(sys.stderr):  # what the sampler prints is not our answer
        levels = steps or baselines.BLACK_BOX_STEPS
        found = baselines.record(x, sampler, params, tuple(event or ()), order, levels, _progress)
    baselines.save(found, output)
    if found["order"]["verdict"] == "FAIL":
        click.echo(f"warning: verify says FAIL: {found['order']['reason']}", err=True)
    if as_json:
        _print_json(found)
    else:
        click.echo(f"wrote {output}: {found['order']['verdict']}, {found['order']['reason']}")


@baseline.command()
@click.argument("x")
@click.argument("file", type=click.Path(path_type=Path))
@_OUTPUT
def check(x: str, file: Path, as_json: bool, device: str) -> None:
    """Compare X with the baseline FILE: what changed, by how much, and is it better or worse?

    Exit code 0 as recorded, 1 changed, 2 bad input. Model parameters are those of the baseline.
    """
    from ..verification import baseline as baselines

    _model(device, {})
    recorded = baselines.load(file)
    sampler = _sampler(x, None, None, None)
    with contextlib.redirect_stdout(sys.stderr):
        comparison = baselines.check(recorded, sampler, progress=_progress)
    if as_json:
        _print_json({"sampler": x, "same": comparison.same, "changes": list(comparison.lines)})
    else:
        click.echo(str(comparison))
    sys.exit(0 if comparison.same else 1)


@cli.command()
@click.argument("names", nargs=-1, metavar="[X]...")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="report", show_default=True, help="Folder.")
@_EVENT
@click.option("--self-test", is_flag=True, help="Break 180 samplers instead, and show which check catches each.")
@_OUTPUT
@_MODEL
def report(
    names: tuple[str, ...],
    output: Path,
    event: list[int] | None,
    self_test: bool,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """The convergence report on the catalogue, or on the schemes and samplers X: a page, figures, results.json.

    With --self-test the page is self-test.html: the mutants, how large each fault is, and what catches it (minutes).
    """
    from ..integrators.catalogue import CATALOGUE
    from .report import write_report

    if not str(output).strip() or str(output) == ".":
        raise ValueError("no folder to write to; name one with -o DIR")
    params = _model(device, model)
    if self_test:
        from .self_test import write_self_test

        if names or params != type(params)():
            raise ValueError("--self-test breaks samplers of its own, under models of its own; drop the rest")
        page = write_self_test(output, progress=_progress)
        click.echo((page.parent / "self-test.json").read_text() if as_json else f"wrote {page}", nl=not as_json)
        return
    chosen = [_subject(name, tuple(event or ())) for name in names] or list(CATALOGUE.values())
    with contextlib.redirect_stdout(sys.stderr):  # what black boxes print is not our answer
        page = write_report(chosen, params, output, progress=_progress)
    if as_json:
        click.echo((page.parent / "results.json").read_text(), nl=False)
    else:
        click.echo(f"wrote {page}")


def main() -> None:
    """Run the command line; errors become one line on stderr and exit code 2."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0
    except (click.Abort, KeyboardInterrupt):
        click.echo("weakorder: interrupted", err=True)
        code = 130
    except SystemExit as stop:
        # click answers a closed pipe with exit code 1, which would read as FAIL; programs use the signal's number.
        code = CLOSED_PIPE if "PacifyFlush" in type(sys.stdout).__name__ else stop.code
    except (click.ClickException, ValueError, OSError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"weakorder: error: {' '.join(message.split())}", err=True)
        code = BAD_INPUT
    except Exception as error:  # a bug, or input nobody thought of: never the exit code of FAIL
        reason = " ".join(str(error).split())
        click.echo(f"weakorder: error: {type(error).__name__}: {reason}; please report this", err=True)
        code = BAD_INPUT
    sys.exit(code)


def _model(device: str, model: dict[str, float | None]) -> Parameters:
    from ..theory.model import Parameters

    if device != "cpu":
        _check_device(device)
    return Parameters(**{name: value for name, value in model.items() if value is not None})


def _check_device(device: str) -> None:
    import torch

    if device.startswith("meta"):
        raise ValueError("device 'meta' cannot be used here: it holds no numbers")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _scheme(x: str, splitting: str | None, flow: str | None, lambda_s: float | None) -> Scheme:
    from ..integrators.loading import find_scheme, find_splitting

    scheme = find_scheme(x, None if splitting is None else find_splitting(splitting))
    return _changed(scheme, flow, lambda_s)


def _changed(scheme: Scheme, flow: str | None, lambda_s: float | None) -> Scheme:
    changes = {name: value for name, value in (("flow", flow), ("lambda_s", lambda_s)) if value is not None}
    return dataclasses.replace(scheme, **changes)


def _sampler(x: str, splitting: str | None, flow: str | None, lambda_s: float | None) -> Scheme | Sampler:
    """A scheme, or the black box of a FILE.py:OBJ, which has no word to change."""
    from ..integrators.loading import find_sampler
    from ..theory.scheme import Scheme

    found = find_sampler(x) if splitting is None else None
    if found is None or isinstance(found, Scheme):
        return _scheme(x, splitting, flow, lambda_s) if found is None else _changed(found, flow, lambda_s)
    if flow is not None or lambda_s is not None:
        raise ValueError(f"{x} is a black box; --flow and --lambda-s are for schemes")
    return found


def _subject(x: str, event: tuple[int, ...]) -> Subject:
    """What a report is on."""
    from ..theory.scheme import Scheme
    from ..verification.subject import BlackBox

    sampler = _sampler(x, None, None, None)
    return sampler if isinstance(sampler, Scheme) else BlackBox(x, sampler, event)


def _diffusion(sampler: Scheme | Sampler) -> Diffusion:
    from ..theory.model import PSLD_DIFFUSION
    from ..theory.scheme import Scheme

    return sampler.splitting.diffusion if isinstance(sampler, Scheme) else PSLD_DIFFUSION


def _title(sampler: Scheme | Sampler, x: str) -> str:
    from ..theory.scheme import Scheme

    return _scheme_title(sampler) if isinstance(sampler, Scheme) else f"{x} (black box)"


def _scheme_title(scheme: Scheme) -> str:
    name = "" if scheme.name == scheme.word else f"{scheme.name} = "
    scale = "" if scheme.lambda_s == 1 else f", lambda_s {scheme.lambda_s:g}"
    return f"{name}{scheme.word} on {scheme.splitting.name} ({scheme.flow} sub-flows{scale})"


def _warn(scheme: Scheme) -> None:
    for warning in scheme.warnings:
        click.echo(f"warning: {warning}", err=True)


def _progress(items: Any) -> Any:
    from tqdm import tqdm

    return tqdm(items, unit="run", delay=2, disable=None, leave=False)


def _print_json(value: Any) -> None:
    from .strict_json import dumps

    click.echo(dumps(value), nl=False)


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    numeric = [all(re.fullmatch(r"-|-?[\d.]+(e[+-]\d+)?|nan", row[c]) for row in rows) for c in range(len(header))]
    for row in [header, *rows]:
        cells = (cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, numeric, strict=True))
        click.echo("  ".join(cells).rstrip())


if __name__ == "__main__":
    main()

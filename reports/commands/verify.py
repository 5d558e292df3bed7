"""Commands that judge a scheme or a sampler: `verify`, and `baseline` for what a change did to it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .lines import EXIT_CODES, cell, print_json, print_table, progress, title
from .options import DIFFUSION, EVENT, GRID, MODEL, OUTPUT, REAL, SCHEME, WHOLE, Chosen, Numbers, Whole, together
from .unmodified import UNMODIFIED
from .values import diffusion_of, parameters, sampler_of
from .waiting import Waiting

if TYPE_CHECKING:
    from ...integrators.blackbox import Sampler
    from ...theory.model import Parameters
    from ...theory.scheme import Scheme
    from ...verification.exact import OrderStudy
    from ...verification.targets import GaussianTarget


@click.command()
@click.argument("x")
@UNMODIFIED
@SCHEME
@click.option("--order", type=Whole(1, 10), help="Order to hold X to; default: what it claims, or 1.")
@click.option("--steps", type=Numbers(int), help="Numbers of steps, 4 or more; default 25,50,...,6400.")
@click.option("--data-mean", type=Numbers(float), help="Data means; default 0,1.")
@click.option("--data-variance", type=Numbers(float), help="Data variances; default 0.04,0.25,1,4.")
@click.option("--t-end", type=REAL, help="Where the run stops; default t = 0.1, where orders begin to show.")
@GRID
@EVENT
@click.option("--target", help="gaussian (default, exact), mixture, banana, student or empirical-cifar10.")
@click.option("--dim", type=Whole(1), help="Data dimensions of the mixture.")
@click.option("--data", type=click.Path(path_type=Path), help="Images of empirical-cifar10, an .npz; default 512.")
@click.option("--method", type=click.Choice(["noise-free", "monte-carlo"]), help="Default: noise-free in 1 dimension.")
@click.option("--accuracy", type=REAL, help="Of sampled differences, relative; default 0.03.")
@click.option("--evaluations", type=REAL, help="The most score evaluations to spend.")
@click.option("--seconds", type=REAL, help="When to stop, with what is known by then.")
@click.option("--seed", type=WHOLE, help="Of the sampled noise; default 0.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A file that keeps samples, to go on from.")
@click.option("--time-limit", type=REAL, help="Seconds after which what was done so far is judged; default: none.")
@OUTPUT
@MODEL
def verify(
    x: str,
    chosen: Chosen,
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
    time_limit: float | None,
    as_json: bool,
    device: str,
    diffusion: str | None,
    **options: Any,
) -> None:
    """The verdict on X: measured weak order on Gaussian data, or on a --target with a nonlinear score.

    Exit code 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 2 bad input.
    """
    from ...integrators.grids import label
    from ...theory.scheme import Scheme
    from ...verification.exact import order as orders
    from ...verification.time_limit import check_time_limit

    names = ("accuracy", "evaluations", "seconds", "seed", "checkpoint")
    sampling = {name: options.pop(name) for name in names}
    sampler = sampler_of(x, chosen)
    moves = diffusion_of(sampler, diffusion)
    params = parameters(device, options, moves)
    check_time_limit(time_limit)
    if target is not None and target != "gaussian":
        if not isinstance(sampler, Scheme):
            raise ValueError(f"{x} is a black box; --target {target} is for schemes, whose noise can be coupled")
        if data_mean or data_variance or event:
            raise ValueError(f"--data-mean, --data-variance and --event do not belong to --target {target}; drop them")
        sampling["time_limit"] = time_limit
        _verify_on(x, sampler, params, target, dim, data, method, order, steps, t_end, grid, sampling, as_json, device)
    for name, value in {"dim": dim, "data": data, "method": method, **sampling}.items():
        if value is not None:
            raise ValueError(f"--{name} is for a --target such as mixture; Gaussian data need no sampling")
    laws = orders.gaussian_targets(moves, params, data_variance or orders.VARIANCES, data_mean or orders.MEANS)
    stop = orders.T_END if t_end is None else t_end
    covered = "" if grid == "uniform" else f" on the grid {label(grid)}"
    study = _order_study(x, sampler, params, order, steps, laws, stop, grid, event)
    found, verdict, reason = within(time_limit, study)
    answer = _described(x, sampler) | ({"levels": []} if found is None else found.as_dict())
    answer |= {"verdict": str(verdict), "reason": reason}
    if found is not None:
        answer.setdefault("nfe_per_step", float(found.nfe[-1] / found.steps[-1]))
        answer["warnings"] = [*answer.get("warnings", ()), *found.warnings]
    cost = f"{answer['nfe_per_step']:g} NFE/step, " if "nfe_per_step" in answer else ""
    header = ["steps", "NFE", "W2 error", "slope", "e/h^p", "mean error", "cov error"]
    keys = ("steps", "nfe", "error", "slope", "constant", "mean_error", "cov_error")
    rows = [[level[key] for key in keys] for level in answer["levels"]]
    _end(answer, f"{title(sampler, x)}: {cost}errors at t = {stop:g}{covered}", header, rows, as_json)


def _described(x: str, sampler: Scheme | Sampler) -> dict[str, Any]:
    """What is verified: a scheme's word and cost, or the name of a black box."""
    from ...theory.scheme import Scheme

    if not isinstance(sampler, Scheme):
        return {"sampler": x}
    return {
        "scheme": sampler.name,
        "word": sampler.word,
        "splitting": sampler.splitting.name,
        "nfe_per_step": sampler.nfe_per_step,
        "warnings": list(sampler.warnings),
    }


def _order_study(
    x: str,
    sampler: Scheme | Sampler,
    params: Parameters,
    order: int | None,
    steps: list[int] | None,
    laws: GaussianTarget,
    stop: float,
    grid: str,
    event: list[int] | None,
) -> Callable[[Any], OrderStudy]:
    """The study of a scheme or a black box on Gaussian data, which takes what shows its progress."""
    from ...theory.scheme import Scheme
    from ...verification.exact import order as orders

    if isinstance(sampler, Scheme):
        levels = steps or orders.STEPS
        return lambda progress: orders.study_order(sampler, params, order, levels, laws, stop, grid, progress)
    from ...verification.blackbox import BLACK_BOX_STEPS, study_black_box

    levels, shape = steps or BLACK_BOX_STEPS, tuple(event or ())
    return lambda progress: study_black_box(x, sampler, params, order, levels, laws, stop, grid, progress, shape)


def within(seconds: float | None, study: Callable[[Any], Any]) -> tuple[Any, str, str]:
    """The study, or as much of it as was done in the time (None: nothing), its verdict and its reason."""
    from ...verification.time_limit import TimeUp, time_limit

    # what a black box prints is not our answer
    with contextlib.redirect_stdout(sys.stderr), Waiting("verify", seconds) as waiting, time_limit(seconds) as limit:
        try:
            found = study(waiting)
        except TimeUp:
            return None, "INCONCLUSIVE", limit.sentence
    return found, *limit.judge(found)


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
    device: str,
) -> NoReturn:
    """`verify` on a target whose score is not affine."""
    from ...verification.targets import make_target
    from . import nonlinear

    time_limit = sampling.pop("time_limit")
    nonlinear.checkpoint_path(sampling["checkpoint"])
    target = make_target(name, params, dim, data, scheme.splitting.diffusion)

    def study(progress: Any) -> Any:
        return nonlinear.study(scheme, target, method, order, steps, t_end, grid, progress, sampling, device)

    if nonlinear.method_of(target, method, sampling) == nonlinear.METHODS[0]:
        found, verdict, reason = within(time_limit, study)
    else:  # which keeps what was sampled, and stops by itself
        given = [seconds for seconds in (sampling["seconds"], time_limit) if seconds is not None]
        sampling["seconds"] = min(given, default=None)
        found = study(progress)
        verdict, reason = found.verdict, found.reason
    answer: dict[str, Any] = {**_described(x, scheme), "target": name}
    answer["warnings"] += () if found is None else found.warnings
    answer |= {"levels": []} if found is None else found.as_dict()
    answer |= {"verdict": str(verdict), "reason": reason}
    dimensions = "x".join(map(str, target.event))
    line = f"{title(scheme, x)}: {name} ({dimensions}), {scheme.nfe_per_step} NFE/step"
    _end(answer, line, *nonlinear.table(answer), as_json)


def _end(answer: dict[str, Any], line: str, header: list[str], rows: list[list[Any]], as_json: bool) -> NoReturn:
    """Print the answer, as JSON or as a line, its table and its verdict, and exit with the verdict's code."""
    if as_json:
        print_json(answer)
    else:
        for warning in answer.get("warnings", ()):
            click.echo(f"warning: {warning}", err=True)
        click.echo(line)
        print_table(header, [[cell(value) for value in row] for row in rows])
        click.echo(f"{answer['verdict']}: {answer['reason']}")
    sys.exit(EXIT_CODES[answer["verdict"]])


def _whole(seconds: float | None, work: Callable[[Any], Any], otherwise: str) -> Any:
    """The work, or the end with exit code 3 where the time was not enough for all of it."""
    from ...verification.time_limit import TimeUp, check_time_limit, time_limit

    check_time_limit(seconds)
    found, quiet = None, contextlib.redirect_stdout(sys.stderr)  # what the sampler prints is not our answer
    with quiet, time_limit(seconds) as limit, contextlib.suppress(TimeUp):
        found = work(progress)
    if limit.was_reached:
        click.echo(f"INCONCLUSIVE: {limit.sentence}; {otherwise}", err=True)
        sys.exit(EXIT_CODES["INCONCLUSIVE"])
    return found


@click.group()
def baseline() -> None:
    """Regression baselines: record what a sampler does, and later ask what a change of it did."""


_LIMITED = click.option("--time-limit", type=REAL, help="Seconds after which to give up; default: none.")
_BASELINED = together(
    click.option("--order", type=Whole(1, 10), default=1, show_default=True, help="Order to hold X to."),
    click.option("--steps", type=Numbers(int), help="Of its order study; default 25,50,...,1600."),
    DIFFUSION,
    EVENT,
    _LIMITED,
    OUTPUT,
    MODEL,
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
    diffusion: str | None,
    event: list[int] | None,
    time_limit: float | None,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """Record the baseline of X: what one step does, evaluations, order, moments of whole runs."""
    from ...verification.blackbox import baseline as baselines
    from ...verification.files import check_writable

    sampler = sampler_of(x, Chosen())
    moves = diffusion_of(sampler, diffusion)
    params = parameters(device, model, moves)
    check_writable(output)
    levels = steps or baselines.BLACK_BOX_STEPS

    def work(shown: Any) -> Any:
        return baselines.record(x, sampler, params, tuple(event or ()), order, levels, shown, moves)

    found = _whole(time_limit, work, "nothing was written")
    baselines.save(found, output)
    if found["order"]["verdict"] == "FAIL":
        click.echo(f"warning: verify says FAIL: {found['order']['reason']}", err=True)
    if as_json:
        print_json(found)
    else:
        click.echo(f"wrote {output}: {found['order']['verdict']}, {found['order']['reason']}")


@baseline.command()
@click.argument("x")
@click.argument("file", type=click.Path(path_type=Path))
@_LIMITED
@OUTPUT
def check(x: str, file: Path, time_limit: float | None, as_json: bool, device: str) -> None:
    """Compare X with the baseline FILE: what changed, by how much, and is it better or worse?

    Exit code 0 as recorded, 1 changed, 2 bad input, 3 not done within the --time-limit. Model parameters are those of
    the baseline.
    """
    from ...verification.blackbox import baseline as baselines

    parameters(device, {})
    recorded = baselines.load(file)
    sampler = sampler_of(x, Chosen())
    comparison = _whole(time_limit, lambda shown: baselines.check(recorded, sampler, shown), "nothing was compared")
    if as_json:
        print_json({"sampler": x, "same": comparison.same, "changes": list(comparison.lines)})
    else:
        click.echo(str(comparison))
    sys.exit(0 if comparison.same else 1)

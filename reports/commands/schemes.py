"""Commands that read one scheme, or the whole catalogue: `schemes`, `derive`, `moments`, `stability`."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from .lines import EXIT_CODES, cell, print_json, print_table, progress, title, warn
from .options import DIFFUSION, EVENT, GRID, MODEL, OUTPUT, REAL, SCHEME, WHOLE, Chosen, Whole
from .values import diffusion_of, given, parameters, sampler_of, scheme_of

STEPS = 50


@click.command()
@OUTPUT
@MODEL
def schemes(as_json: bool, device: str, **model: float | None) -> None:
    """The catalogue: word, cost, proven and measured order, error constant, source."""
    from ...integrators.catalogue import all_schemes
    from ..pages import order_rows

    _ = parameters(device, model)
    rows = order_rows(list(all_schemes().values()), given(model))
    if as_json:
        print_json(rows)
        return
    header = [
        "name",
        "word",
        "splitting",
        "sub-flows",
        "NFE/step",
        "palindrome",
        "claimed",
        "proven",
        "measured",
        "e/h^p",
    ]
    print_table([*header, "reference"], [[cell(value) for value in row.values()] for row in rows])


@click.command()
@click.argument("x")
@SCHEME
@click.option("--dims", type=Whole(1, 2), default=1, show_default=True, help="Data dimensions, fully coupled.")
@OUTPUT
@MODEL
def derive(
    x: str,
    chosen: Chosen,
    dims: int,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """The flows of X's parts, its one-step map, and its weak order as a theorem, with the leading error and its LaTeX.

    The order is that for constant beta, or for beta linear in t if --beta-min and --beta-max differ; both are shown.
    """
    from ..pages import derivation_text
    from ..pages import derive as derivation

    scheme = scheme_of(x, chosen)
    params = parameters(device, model, scheme.splitting.diffusion)
    answer = derivation(scheme, dims, params.beta_min != params.beta_max)
    if as_json:
        print_json(answer)
        return
    warn(scheme)
    click.echo(derivation_text(answer))


@click.command()
@click.argument("x")
@SCHEME
@click.option("--steps", type=WHOLE, help="Number of steps N; default 50, or those of the times of --grid.")
@click.option("--data-mean", type=REAL, default=0.0, show_default=True, help="Mean of the Gaussian data.")
@click.option("--data-variance", type=REAL, default=1.0, show_default=True, help="Variance of the Gaussian data.")
@GRID
@DIFFUSION
@EVENT
@click.option(
    "--start",
    type=click.Choice(["exact", "prior"]),
    default="exact",
    show_default=True,
    help="The exact law at t = T, or the prior.",
)
@OUTPUT
@MODEL
def moments(
    x: str,
    chosen: Chosen,
    steps: int | None,
    data_mean: float,
    data_variance: float,
    grid: str,
    diffusion: str | None,
    event: list[int] | None,
    start: str,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """Exact mean and covariance of scheme X on Gaussian data, at t = eps, without a denoising step."""
    import numpy as np

    from ...integrators.grids import label, steps_of, time_grid
    from ...theory.scheme import Scheme
    from ...verification.exact import exact_moments
    from ...verification.targets import GaussianTarget

    sampler = sampler_of(x, chosen)
    moves = diffusion_of(sampler, diffusion)
    params = parameters(device, model, moves)
    target = GaussianTarget.of(data_mean, data_variance, moves, params)
    steps = steps_of(grid) or STEPS if steps is None else steps
    taus = time_grid(grid, steps, params)
    if isinstance(sampler, Scheme):
        result = exact_moments(sampler, target, taus, start)
        warn(sampler)
    else:
        from ...verification.blackbox import probed_moments

        with contextlib.redirect_stdout(sys.stderr):  # what the step prints is not our answer
            result = probed_moments(sampler, target, taus, start, tuple(event or ()), progress)
        if result.rounding:
            click.echo(f"warning: rounds to float32: {result.rounding:.1e} of the law's size in this run", err=True)
    if result.diverged.any():
        click.echo("warning: the run overflowed; its moments are not finite (null in JSON)", err=True)
    laws = {"": result.computed, "exact_": result.exact}
    if as_json:
        answer: dict[str, Any] = {}
        for prefix, law in laws.items():
            answer |= {f"{prefix}mean": law.mean[:, 0].tolist(), f"{prefix}cov": law.cov[:, :, 0].tolist()}
        print_json(answer | {"nfe": result.nfe})
        return
    run = f"{steps} steps ({label(grid)}) from the {start} law to t = {params.eps:g}, {result.nfe} NFE"
    click.echo(f"{title(sampler, x)}: {run}")
    i, j = np.triu_indices(len(result.exact.mean))
    values = [[*law.mean[:, 0], *law.cov[i, j, 0]] for law in laws.values()]
    errors = [computed - exact for computed, exact in zip(*values, strict=True)]
    names = target.diffusion.components
    header = ["", *(f"mean {name}" for name in names)]
    header += [f"cov {names[a]}{names[b]}" for a, b in zip(i, j, strict=True)]
    rows = zip(("scheme", "exact", "error"), [*values, errors], strict=True)
    print_table(header, [[name, *(f"{number:.6e}" for number in row)] for name, row in rows])


@click.command()
@click.argument("x")
@SCHEME
@click.option("--steps", type=WHOLE, help="Judge a run of N steps on --grid instead.")
@GRID
@DIFFUSION
@OUTPUT
@MODEL
def stability(
    x: str,
    chosen: Chosen,
    steps: int | None,
    grid: str,
    diffusion: str | None,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """How few steps X can take on CIFAR-10's spectrum, on each grid, and what breaks first.

    Exit code 0; with --steps 0 stable, 1 unstable; 2 bad input.
    """
    from ...theory.scheme import Scheme
    from ..pages import judge, stability_text

    sampler = sampler_of(x, chosen)
    moves = diffusion_of(sampler, diffusion)
    params = parameters(device, model, moves)
    with contextlib.redirect_stdout(sys.stderr):  # what a black box prints is not our answer
        answer, stable = judge(sampler, params, steps, grid, progress, moves)
    if as_json:
        print_json({"sampler": x} | answer)
    else:
        if isinstance(sampler, Scheme):
            warn(sampler)
        click.echo(f"{title(sampler, x)}\n{stability_text(answer)}")
    sys.exit(EXIT_CODES["PASS" if stable else "FAIL"])

"""`weakorder tune`: which settings a scheme should be run with at a budget of evaluations."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cifar10_study import ListsOfValues
from .lines import print_json, print_table, progress, warn
from .options import CROP, JSON, MODEL, REAL, SCHEME, SIDE, WHOLE, Chosen, Numbers, images_option
from .values import check_device, given, parameters, scheme_of, spectrum_of

if TYPE_CHECKING:
    from ...theory.model import Parameters
    from ...theory.scheme import Scheme

BUDGETS = (20, 50, 100)


@click.command(cls=ListsOfValues)
@click.argument("names", nargs=-1, required=True, metavar="X...")
@click.option(
    "--nfe",
    "budgets",
    multiple=True,
    type=Numbers(int),
    metavar="N...",
    help="Evaluations, the denoising step's included; default 20 50 100.",
)
@SCHEME
@click.option(
    "--keep",
    "kept",
    multiple=True,
    type=click.Choice(["lambda-s", "grid", "eps", "denoise"]),
    metavar="NAME...",
    help="What stays as published: lambda-s (1), grid (quadratic), eps (1e-3), denoise (yes).",
)
@click.option("--free-grid/--no-free-grid", default=True, help="Free every time of the grid too; default: do.")
@click.option("--growth", type=REAL, default=2.0, show_default=True, help="The growth that a run may have, above 1.")
@images_option("Images to tune for")
@SIDE
@CROP
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of results, figures and grids; the same command goes on where it was stopped.",
)
@click.option("--on-network", is_flag=True, help="Then run them on the network that ships, beside the published ones.")
@click.option("-n", "--samples", type=WHOLE, default=16, show_default=True, help="Samples of each run on the network.")
@click.option("--refinement", type=WHOLE, default=8, show_default=True, help="Steps of the network's fine run over N.")
@JSON
@click.option("--device", help="Of --on-network; default: an accelerator if there is one.")
@MODEL
def tune(
    names: tuple[str, ...],
    budgets: tuple[list[int], ...],
    chosen: Chosen,
    kept: tuple[str, ...],
    free_grid: bool,
    growth: float,
    data: Path | None,
    side: int,
    crop: int | None,
    output: Path | None,
    on_network: bool,
    samples: int,
    refinement: int,
    as_json: bool,
    device: str | None,
    **model: float | None,
) -> None:
    """The settings of X at a budget whose exact distance to the data is smallest: lambda_s, the grid, the cut-off, and
    whether to denoise, with the curve around them, and a growth of at most 2 along the run.

    The distance is that of Gaussians with the data's mean and covariance. X are schemes; name them before the options.
    Exit code 0, 2 on bad input.
    """
    from ..pages import tune_all, tune_with_papers, write_tune

    asked = [(scheme, parameters("cpu", model, scheme.splitting.diffusion)) for scheme in _schemes(names, chosen)]
    wanted = _budgets(budgets)
    _check(output, on_network, data)
    spectrum, name = spectrum_of(data, side, crop)
    bar = partial(progress, delay=0)
    results = tune_all(
        asked, spectrum, name, wanted, free_grid, tuple(sorted(set(kept))), growth, output, bar, os.cpu_count() or 1
    )
    if data is None and not given(model):
        results = tune_with_papers(results, asked[0][1], spectrum)
    if on_network:
        results["network"] = _on_network(results, asked, output or Path(), samples, refinement, device)
    results["command"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    written = [] if output is None else write_tune(results, output)
    if as_json:
        print_json(results)
        return
    for scheme, _ in asked:
        warn(scheme)
    _print(results, output)
    if written:
        click.echo(f"wrote {written[0]} and {len(written) - 1} more")


def _schemes(names: tuple[str, ...], chosen: Chosen) -> list[Scheme]:
    found = [scheme_of(name, chosen) for name in names]
    twice = [scheme.name for i, scheme in enumerate(found) if scheme.name in [other.name for other in found[:i]]]
    if twice:
        raise ValueError(f"{twice[0]} is given twice; name each scheme once")
    return found


def _budgets(given_budgets: tuple[list[int], ...]) -> tuple[int, ...]:
    wanted = tuple(sorted({budget for group in given_budgets for budget in group})) or BUDGETS
    if wanted[0] < 2 or wanted[-1] > 2000:
        wrong = wanted[0] if wanted[0] < 2 else wanted[-1]
        raise ValueError(f"nfe = {wrong}: give 2 (a step, denoising) to 2000 evaluations")
    return wanted


def _check(output: Path | None, on_network: bool, data: Path | None) -> None:
    """What can be refused is refused before the search."""
    from ...verification.files import check_writable, make_folder

    if output is not None:
        if not str(output).strip() or str(output) == ".":
            raise ValueError("no folder to write to; name one with -o DIR")
        make_folder(output)
        check_writable(output / "tune.json")
    if on_network and output is None:
        raise ValueError("--on-network keeps samples in a folder; name one with -o DIR")
    if on_network and data is not None:
        raise ValueError("--on-network has a network of CIFAR-10; drop --data, or --on-network")


def _on_network(
    results: dict[str, Any],
    asked: list[tuple[Scheme, Parameters]],
    output: Path,
    samples: int,
    refinement: int,
    device: str | None,
) -> dict[str, Any]:
    """The study of every best setting on the network that ships, beside the published one."""
    import torch

    from ...verification.advice import Candidate, Validation
    from ..pages import tuned_settings

    check_device(device or "cpu")
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    groups, labels = [], []
    for (scheme, _), entry in zip(asked, results["schemes"], strict=True):
        for budget in entry["budgets"]:
            settings = {key: budget[key] for key in ("published", "family", "free") if budget[key] is not None}
            groups.append([Candidate(key, scheme, tuned_settings(one)) for key, one in settings.items()])
            labels.append({"scheme": scheme.name, "nfe": budget["nfe"]})
    study = Validation(output / "network", samples, refinement)
    found = study.study(groups, asked[0][1], chosen, _ticks)
    paired = zip(labels, found.pop("groups"), strict=True)
    return found | {"groups": [label | {"candidates": candidates} for label, candidates in paired]}


def _ticks(total: int) -> Callable[[int], None]:
    from .cifar10_study import evaluation_bar

    return evaluation_bar(total, True)


def _print(results: dict[str, Any], output: Path | None) -> None:
    from ..pages import tune_text

    data = results["data"]
    click.echo(f"on the spectrum of {data['name']} ({data['images']:,} images, {data['dimensions']:,} eigenvalues)")
    for scheme in results["schemes"]:
        for entry in scheme["budgets"]:
            click.echo(f"\n{scheme['name']} = {scheme['word']} ({scheme['sub_flows']}) at {entry['nfe']} evaluations")
            print_table(tune_text.HEADER, tune_text.tune_rows(scheme, entry))
            for line in tune_text.tune_notes(entry, results["settings"]):
                click.echo(f"  {line}")
    if results["papers"] is not None:
        click.echo("\n" + "\n".join(tune_text.papers_text(results["papers"])))
    if results["network"] is not None:
        click.echo("\n" + "\n".join(tune_text.network_text(results["network"])))
    click.echo(f"\n{tune_text.TRUST}")
    if results["network"] is None and results["data"]["name"] == "CIFAR-10":
        click.echo(
            "--on-network runs these settings on the network that ships, beside the published ones, with error bars."
        )
    if output is None:
        click.echo("-o DIR keeps the grids, as files for --grid, and draws the curves.")

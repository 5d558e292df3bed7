"""`search`: which word should be run?"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from .cifar10_study import ListsOfValues
from .lines import cell, print_json, print_table
from .options import JSON, MODEL, REAL, WHOLE, Whole, grid_option
from .values import given


@click.command(cls=ListsOfValues)
@click.option(
    "--nfe", type=WHOLE, default=50, show_default=True, help="Evaluations of the network, denoising's included."
)
@click.option(
    "--parts",
    "splittings",
    multiple=True,
    metavar="NAME|FILE.py:OBJ...",
    help="Splittings whose parts words are made of; default psld.",
)
@click.option("--length", type=WHOLE, default=6, show_default=True, help="Letters of a word, at most.")
@click.option("--weights", multiple=True, metavar="W...", help="Weights of parts; default 1 1/2.")
@click.option("--times", multiple=True, metavar="T...", help="Times that S is conditioned at; default 0 1/2 1.")
@click.option("--flow", "flows", multiple=True, type=click.Choice(["euler", "exact"]), help="Sub-flows; default both.")
@click.option(
    "--frozen",
    multiple=True,
    type=click.Choice(["score", "residual", "eps", "data"]),
    metavar="Q...",
    help="What exact sub-flows hold: score, residual, eps, data; default all.",
)
@click.option(
    "--memory", "memories", multiple=True, type=WHOLE, metavar="K...", help="Evaluations they go by; default 1 2."
)
@grid_option("quadratic")
@click.option("--order", type=WHOLE, default=1, show_default=True, help="The least weak order.")
@click.option("--growth", type=REAL, default=2.0, show_default=True, help="The most that a perturbation may grow.")
@click.option("--on-network", is_flag=True, help="Sample the winners from the network that ships, too (minutes).")
@click.option("--best", type=Whole(1), help="With --on-network: of how many words; default 3.")
@click.option("-n", "--samples", type=Whole(2), help="With --on-network: of each; default 16.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="search", show_default=True, help="Folder.")
@JSON
@MODEL
def search(
    nfe: int,
    splittings: tuple[str, ...],
    length: int,
    weights: tuple[str, ...],
    times: tuple[str, ...],
    flows: tuple[str, ...],
    frozen: tuple[str, ...],
    memories: tuple[int, ...],
    grid: str,
    order: int,
    growth: float,
    on_network: bool,
    best: int | None,
    samples: int | None,
    output: Path,
    as_json: bool,
    **model: float | None,
) -> None:
    """Which word is nearest to the data at a budget: all words up to a length, by exact moments on CIFAR-10's spectrum.

    Every consistent word once, stable ones alone, with its proven order, beside the catalogue, and the front of cost
    and distance: a table, a page (search.html) and search.json in the folder. The same command goes on where it was
    stopped. What it takes for granted is said. Exit code 0, 2 on bad input.
    """
    from ...integrators.loading import find_splitting
    from ...theory.frozen import FROZEN, find_frozen
    from ...theory.scheme import FROZEN_FLOWS
    from ...verification.advice import Search
    from ..pages import write_search

    if not str(output).strip() or str(output) == ".":
        raise ValueError("no folder to write to; name one with -o DIR")
    if not on_network and (best is not None or samples is not None):
        raise ValueError("--best and --samples are of the comparison on the network; give --on-network, too")
    chosen = tuple(find_splitting(name) for name in splittings or ("psld",))
    letters = {"weights": _fractions("weights", weights), "times": _fractions("times", times)}
    asked = Search(
        chosen,
        nfe,
        length,
        flows or FROZEN_FLOWS,
        tuple(find_frozen(name) for name in frozen or FROZEN),
        memories or (1, 2),
        **{name: values for name, values in letters.items() if values},
        grid=grid,
        order=order,
        growth=growth,
        params=chosen[0].diffusion.parameters(**given(model)),
    )
    network = (best or 3, samples or 16) if on_network else None
    page, results = write_search(asked, output, _bar, os.cpu_count() or 1, network=network)
    if as_json:
        print_json(results)
    else:
        _summary(results)
        click.echo(f"wrote {page}")


def _fractions(name: str, texts: tuple[str, ...]) -> tuple[Fraction, ...]:
    """Exact numbers, from text: 1, 1/2 or 0.5. Raises ValueError."""
    found = []
    for text in texts:
        try:
            found.append(Fraction(text))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"--{name} {text!r} is not a number; write 1/2 or 0.5") from error
    return tuple(found)


def _bar(what: str, total: int) -> Callable[[int], None]:
    """A bar with the time left; also where no terminal shows it, twice a minute."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 30
    bar = tqdm(total=total, desc=what, mininterval=interval, delay=1, leave=False)

    def tick(count: int) -> None:
        bar.update(count)
        if bar.n >= total:
            bar.close()

    return tick


def _summary(results: dict[str, Any]) -> None:
    """The best words, the catalogue's best, and what was searched, dropped and assumed."""
    settings, counts = results["settings"], results["counts"]
    header = ["", "word", "splitting", "sub-flows", "NFE", "order", "distance", "growth", "catalogue"]
    best = results["best"][: results["shown"]]
    stable = [entry for entry in results["catalogue"] if entry["stable"]][:5]
    rows = [_row(str(place), entry) for place, entry in enumerate(best, 1)] + [_row("", entry) for entry in stable]
    print_table(header, rows)
    words = sum(family["words"] for family in counts["families"])
    consistent = sum(map(sum, (family["consistent"] for family in counts["families"])))
    click.echo(
        f"{consistent} consistent words of up to {settings['length']} letters, {words} in canonical form; "
        f"{counts['ranked']} end nearer to the data than the prior, {counts['judged']} of these were judged, "
        f"{counts['unstable']} dropped as unstable, {counts['same']} had the maps of another"
    )
    error, ratio = results["filter"]["error"], results["filter"]["ratio"]
    click.echo(f"the filter was off by {error:.1e} of the distance at most, {ratio:.1e} of its estimate")
    click.echo("front: " + "; ".join(f"{p['nfe']} NFE {p['distance']:.4g} {p['label']}" for p in results["front"]))
    if network := results["network"]:
        click.echo(f"on {network['checkpoint']}, {network['samples']} samples, weak errors of the power spectrum,")
        click.echo(f"  judged against {network['against']}:")
        for entry in network["words"]:
            click.echo(f"  {entry['label']}: {_error(entry)}, {entry['ends']}")
        for entry in network["catalogue"]:
            click.echo(f"  {entry['label']}: {_error(entry)}")
    for sentence in results["assumptions"]:
        click.echo(f"assumed: {sentence}")


def _error(entry: dict[str, Any]) -> str:
    if entry["error"] is None:
        return "diverged"
    return f"{entry['error']:.3f} +- {entry['standard_error']:.3f}" + ("" if entry["sure"] else " ?")


def _row(place: str, entry: dict[str, Any]) -> list[str]:
    values = (entry["nfe"], entry["order"], entry["distance"], entry["growth"])
    return [place, entry["word"], entry["splitting"], entry["sub_flows"], *map(cell, values), entry["name"] or "-"]

"""`weakorder cifar10 study`, `celeba64 study`: sample what is missing, say what it shows, write the page.

Options that are lists take their values as a shell gives them, `--nfe 20 50 100`, or with commas.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...verification.cifar10.model import PRECISIONS
from .lines import cell, print_json, print_table, progress
from .options import CROP, JSON, MODEL, WHOLE, Chosen, Numbers, grid_option, together
from .values import check_device, scheme_of
from .values import given as stated

if TYPE_CHECKING:
    import torch

    from ...theory.scheme import Scheme
    from ...verification.cifar10.model import Checkpoint
    from ...verification.cifar10.study import Data, Design, Processes

BUDGETS = (20, 50, 100, 200)  # as many as a verdict takes (analysis.CONCLUSIVE)


class ListsOfValues(click.Command):
    """A command without arguments, whose options that may be repeated take all values up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--nfe 20 50` is read as `--nfe 20 --nfe 50`."""
        lists = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        spread, current, values = list[str](), "", 0
        for word in args:
            if word.startswith("-"):
                current, values = word if word in lists else "", 0
            elif current:
                spread += [current] if values else []
                values += 1
            spread.append(word)
        return super().parse_args(ctx, spread)


_OPTIONS = together(
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        help="A trained network; default: one that ships, for CIFAR-10 alone.",
    ),
    click.option(
        "--weights",
        type=click.Choice(["ema", "raw"]),
        default="ema",
        show_default=True,
        help="Of a checkpoint that has both.",
    ),
    click.option("--side", type=WHOLE, help="Of the network's images, where its file does not state it."),
    click.option(
        "--schemes",
        "names",
        multiple=True,
        metavar="X...",
        help="Names, words or FILE.py:OBJ with a Scheme; default: the catalogue.",
    ),
    click.option(
        "--nfe",
        "budgets",
        multiple=True,
        type=Numbers(int),
        metavar="N...",
        help="Evaluations of the network, the denoising step's included; default 20 50 100 200.",
    ),
    grid_option("quadratic"),
    click.option("-n", "--samples", type=WHOLE, default=24, show_default=True, help="Samples of each cell."),
    click.option(
        "--lambda-s",
        "scales",
        multiple=True,
        type=Numbers(float),
        metavar="X...",
        help="Factors on the standard deviation of the position noise; default 1.",
    ),
    click.option(
        "--refinement",
        type=WHOLE,
        default=8,
        show_default=True,
        help="Steps of the references over those of the finest cell; 0: no references, no weak errors.",
    ),
    click.option(
        "--reference-steps",
        type=WHOLE,
        help="Steps of the references, if more: samples stay when larger budgets are added later.",
    ),
    click.option(
        "--against",
        metavar="X",
        help="Scheme of the study that weak errors are given as ratios to; default: that of the least published FID, "
        "or the first.",
    ),
    click.option("--seed", type=WHOLE, default=0, show_default=True, help="Of starts and noise."),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        type=click.Choice(PRECISIONS),
        metavar="P...",
        help="Of the network's products in the cells: float32 (default), tf32, bfloat16; several: also what the others "
        "change (and with --fid, an FID of each). References have float32, states and coefficients float64.",
    ),
    click.option("--batch", type=WHOLE, help="Samples at once; default: what memory allows."),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Images for the distances to the data, as DATA of train; default: of CIFAR-10 512 that ship, else none.",
    ),
    CROP,
    click.option("--fid", is_flag=True, help="FID too; needs weakorder[fid] and --data."),
    click.option(
        "--inception-weights", type=click.Path(path_type=Path), help="Local weights for --fid; default: fetched once."
    ),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the study; default: cifar10-study, by the command's name.",
    ),
    click.option("--device", help="Torch device; default: an accelerator if there is one."),
)


def study_of(key: str) -> click.Command:
    """The command of the data set called `key` (model.names)."""

    @click.command("study", cls=ListsOfValues, help=_study.__doc__)
    @_OPTIONS
    @JSON
    @MODEL
    def study(**options: Any) -> None:
        _study(key, **options)

    return study


def _study(
    key: str, output: Path | None, device: str | None, seed: int, batch: int | None, as_json: bool, **options: Any
) -> None:
    """Schemes on a trained network against a fine run on the same noise: errors, orders, distances, pictures.

    Samples are kept in the folder cell by cell: the same command goes on where it was stopped, and what is there on the
    same reference is not sampled again. Several processes: torchrun --no-python weakorder cifar10 study ... Exit code
    0, 2 on bad input.
    """
    from ...verification.cifar10.study import processes

    began = time.monotonic()
    process = processes.from_environment()

    from ...verification.cifar10.model import is_imitated, memory_for
    from ...verification.cifar10.study import Store, reading
    from ...verification.cifar10.study import design as studies
    from ..pages import write_page

    output = output or Path(f"{key}-study")
    with _ended_by_sigterm(), processes.joined(process) as peers:
        chosen = _device(device, process)
        asked = _asked(key, chosen, **options)
        design, model = asked.design, studies.model_of(asked.checkpoint)
        _check_folder(output)
        size = peers.agreed(studies.batch_of(output, design, model, chosen, batch))
        store = Store(output, model, seed, size, is_imitated(PRECISIONS[-1], chosen))
        if process.is_first:
            _keep_batch(output, size, design.samples if batch is None else None)
        with contextlib.redirect_stdout(sys.stderr), memory_for(size):
            studies.sample(design, store, chosen, process, lambda total: evaluation_bar(total, process.is_first))
        peers.wait()
    if not process.is_first:
        return
    with contextlib.redirect_stdout(sys.stderr):
        results, images = reading.read(design, store, asked.data, progress)
    results |= _how_run(chosen, process.size, began) | {"model": studies.describe_model(asked.checkpoint, asked.name)}
    page = write_page(results, images, output)
    if as_json:
        print_json(results)
    else:
        _summary(results)
        click.echo(f"wrote {page}")


class _Asked(NamedTuple):
    """What the options ask for, read and checked: the design, the images, the network and what to call it."""

    design: Design
    data: Data
    checkpoint: Checkpoint
    name: str


def _asked(
    key: str,
    device: torch.device,
    checkpoint: Path | None,
    weights: Any,
    side: int | None,
    names: tuple[str, ...],
    budgets: tuple[list[int], ...],
    grid: str,
    samples: int,
    scales: tuple[list[float], ...],
    refinement: int,
    reference_steps: int | None,
    against: str | None,
    precisions: tuple[str, ...],
    data: Path | None,
    crop: int | None,
    fid: bool,
    inception_weights: Path | None,
    **given: float | None,
) -> _Asked:
    """That all it takes is there, before hours are spent. Raises ValueError or OSError."""
    from ...verification.cifar10.model import DATASETS
    from ...verification.cifar10.study import design, reading

    found, name = design.open_checkpoint(checkpoint, stated(given), weights, DATASETS[key], side)
    dataset = dataclasses.replace(DATASETS[key], side=found.network.config.image_size)
    schemes = tuple(_schemes(names, [scale for group in scales for scale in group]))
    rest = (_budgets(budgets), samples, grid, refinement, reference_steps, _precisions(precisions), against)
    wanted = design.Design(schemes, *rest)
    return _Asked(wanted, reading.Data.of(data, fid, inception_weights, device, dataset, crop), found, name)


def _budgets(given: tuple[list[int], ...]) -> tuple[int, ...]:
    """Budgets of evaluations, increasing, each once; the usual ones if none are given."""
    return tuple(sorted({budget for group in given for budget in group})) or BUDGETS


def _precisions(given: tuple[str, ...]) -> tuple[str, ...]:
    """Precisions in their order, each once; the most exact one if none are given."""
    return tuple(sorted(set(given), key=PRECISIONS.index)) or PRECISIONS[:1]


def _device(named: str | None, process: Processes) -> torch.device:
    """The device that the user named, or an accelerator if there is one, each process its own. Raises ValueError."""
    import torch

    check_device(named or "cpu")
    chosen = torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", process.local_rank % torch.cuda.device_count())
    return chosen


def _how_run(device: torch.device, processes: int, began: float) -> dict[str, Any]:
    """The command, where and for how long it ran; began: by the monotonic clock."""
    import torch

    return {
        "command": _command(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processes": processes,
        "seconds": time.monotonic() - began,
    }


def _keep_batch(output: Path, size: int, samples: int | None) -> None:
    """Note the batches' size, chosen for so many samples (None: by the user), and say where it is another than was."""
    from ...verification.cifar10.study import design as studies

    before = None if samples is None else studies.kept_batch(output)
    studies.keep_batch(output, size, samples)
    if before is not None and before.size != size:
        click.echo(
            f"note: batches of {size}, which is faster; those of {before.size} in {str(output)!r}, chosen for "
            f"{before.samples} samples, are left: --batch {before.size} would go on with them",
            err=True,
        )


class _Terminated(KeyboardInterrupt):
    """SIGTERM: like an interrupt it stops the sampling, and what is complete is kept."""

    code = 128 + signal.SIGTERM


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, which torchrun sends when another process has ended, interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise _Terminated

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _schemes(names: tuple[str, ...], scales: list[float]) -> Iterator[Scheme]:
    """Every scheme with every factor; those without position noise as they are."""
    from ...integrators.catalogue import CATALOGUE

    for scheme in [scheme_of(name, Chosen()) for name in names] or CATALOGUE.values():
        noisy = any(part.sde.noisy[0] for part in scheme.parts)
        for scale in scales if noisy and scales else [scheme.lambda_s]:
            name = scheme.name if scale == 1 else f"{scheme.name} λ={scale!r}"
            yield dataclasses.replace(scheme, lambda_s=scale, name=name)


def _check_folder(output: Path) -> None:
    """Raises OSError if the study could not be written there."""
    from ...verification.cifar10.study import BATCH
    from ...verification.files import check_writable, make_folder

    if not str(output).strip() or str(output) == ".":
        raise ValueError("no folder to write to; name one with -o DIR")
    make_folder(output)
    if (output / "index.html").exists() and not (output / BATCH).exists():
        raise ValueError(f"{str(output)!r} holds another page, index.html; choose another folder")
    check_writable(output / "index.html")


def evaluation_bar(total: int, shown: bool) -> Callable[[int], None]:
    """A progress bar with the time left; also where no terminal shows it, twice a minute."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 30
    bar = tqdm(total=total, unit="evaluation", unit_scale=True, mininterval=interval, disable=not shown, smoothing=0.02)

    def tick(count: int) -> None:
        bar.update(count)
        if bar.n >= total:
            bar.close()

    return tick


def _command() -> str:
    """What the user typed."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _summary(results: dict[str, Any]) -> None:
    """A line for each cell, the verdicts, what each precision changes, and last what each budget answers."""
    from ..pages import answers

    of = [f"of {against}'s", "+-"] if (against := results["settings"]["against"]) is not None else []
    header = ["scheme", "NFE", "steps", "spectrum", "+-", *of, "energy", "+-", "strong", "predicted"]
    rows = []
    for scheme in results["schemes"]:
        for found in scheme["cells"]:
            weak = (found["weak"] or {}).get("spectrum") or {}
            energy = (found["distances"] or {}).get("energy") or {}
            strong = found["strong"] or {}
            values = [
                weak.get("relative"),
                weak.get("standard_error"),
                *((weak.get("ratio") or {}).get(key) for key in ("value", "standard_error")[: len(of)]),
                energy.get("value"),
                energy.get("standard_error"),
            ]
            values += [strong.get("value"), found["predicted"]]
            rows.append([scheme["label"], str(found["evaluations"]), str(found["steps"]), *map(cell, values)])
    print_table(header, rows)
    for reference in results["references"]:
        if reference["diverged"]:
            steps = f"at {reference['steps']} steps; give a larger --refinement"
            click.echo(f"warning: the {reference['kind']} reference, {reference['name']}, diverged {steps}", err=True)
    judged = [scheme for scheme in results["schemes"] if scheme["verdict"]]
    undecided = [scheme["label"] for scheme in judged if scheme["verdict"] == "INCONCLUSIVE"]
    for scheme in judged:
        if scheme["label"] not in undecided or len(undecided) == 1:
            click.echo(f"{scheme['label']}: {scheme['verdict']}: {scheme['reason']}")
    if len(undecided) > 1:
        click.echo(f"orders: INCONCLUSIVE for {', '.join(undecided)}; the page says of each what would settle it")
    for precision, found in results["rounding"].items():
        known = {name: entry for name, entry in found["quantities"].items() if entry["at"]}
        shares = [
            f"{name} {entry['middle']:.2g} (at most {entry['largest']:.2g}, {entry['at'][0]} at {entry['at'][1]} NFE)"
            for name, entry in known.items()
        ]
        compared = any(entry["cells"] for entry in found["quantities"].values())
        nothing = "no cell where both stand above their noise" if compared else "no cell that could be compared"
        said = ", ".join(shares) or nothing
        click.echo(f"{precision}: changes by rounding over weak errors, in the middle: {said}")
    for answer in answers(results):
        click.echo(answer)

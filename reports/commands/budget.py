"""`budget`: where does the error come from?"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .lines import print_json, print_table, progress, title, warn
from .options import EVENT, GRID, MODEL, OUTPUT, REAL, SCHEME, WHOLE, Chosen, Numbers
from .values import diffusion_of, parameters, sampler_of

if TYPE_CHECKING:
    from ...integrators.blackbox import Sampler
    from ...theory.scheme import Scheme
    from ...verification.advice import Budget, Measure
    from ...verification.exact import Subject

NFE = 50
# Of the figure, unless several are asked for.
BUDGETS = (10, 15, 20, 30, 50, 70, 100, 150, 200)


@click.command()
@click.argument("xs", nargs=-1, required=True, metavar="X...")
@SCHEME
@click.option("--nfe", type=Numbers(int), help=f"Evaluations, the denoising step's included; default {NFE}.")
@click.option("--steps", type=WHOLE, help="Numbers of steps instead, whatever they cost.")
@click.option("--data-mean", type=REAL, help="Mean of one Gaussian; default: CIFAR-10's spectrum is the data.")
@click.option("--data-variance", type=REAL, help="Its variance.")
@GRID
@click.option("--start", type=click.Choice(["prior", "exact"]), default="prior", show_default=True, help="Of the run.")
@click.option("--denoise/--no-denoise", default=True, show_default=True, help="The published last step, to t = 0.")
@click.option("--leading", is_flag=True, help="Also the leading local error of every term, as it is proven.")
@click.option("--study", type=click.Path(path_type=Path), help="A folder of `cifar10 study`: what the network adds.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A folder for a figure and budget.json.")
@EVENT
@OUTPUT
@MODEL
def budget(
    xs: tuple[str, ...],
    chosen: Chosen,
    nfe: list[int] | None,
    steps: int | None,
    data_mean: float | None,
    data_variance: float | None,
    grid: str,
    start: str,
    denoise: bool,
    leading: bool,
    study: Path | None,
    output: Path | None,
    event: list[int] | None,
    as_json: bool,
    device: str,
    **model: float | None,
) -> None:
    """Where the error of X at so many evaluations comes from: signed terms that add up to it, exactly.

    On CIFAR-10's spectrum, or on one Gaussian. A term is what the error changes by when one approximation is replaced
    by the exact thing, from the top of the table down; a negative one makes up for others. Several X stand side by
    side.
    """
    if nfe is not None and steps is not None:
        raise ValueError("--nfe and --steps both say how long the run is; give one of them")
    for count in nfe or ():
        if count < 1:
            raise ValueError(f"--nfe {count}: a run has at least 1 evaluation; 50 is usual")
    if output is not None and (not str(output).strip() or str(output) == "."):
        raise ValueError("no folder to write to; name one with -o DIR")
    from ...verification.advice import read_study

    results = None if study is None else read_study(study)
    asked = [_Asked(x, chosen, event, data_mean, data_variance, device, model) for x in xs]
    lengths: list[tuple[str, int]] = [("steps", steps)] if steps is not None else [("nfe", n) for n in nfe or [NFE]]
    settings = (grid, start, denoise)
    found = _budgets(asked, lengths, settings)
    answer = _answer(asked, found, settings)
    if results is not None:
        answer |= _network(results, [one for one in asked for _ in lengths], found)
    if leading:
        answer["leading"] = {one.x: one.leading() for one in asked}
    if output is not None:
        from ..pages import write_budget

        more = lengths if len(lengths) > 1 else [("nfe", n) for n in BUDGETS]
        write_budget(output, answer | {"curves": _curves(asked, more, settings)})
    if as_json:
        print_json(answer)
    else:
        _print(asked, found, answer)
        if output is not None:
            click.echo(f"wrote {output / 'budget.svg'}, budget.png and budget.json")


class _Asked:
    """One X with its measure."""

    def __init__(
        self,
        x: str,
        chosen: Chosen,
        event: list[int] | None,
        mean: float | None,
        variance: float | None,
        device: str,
        model: dict[str, float | None],
    ) -> None:
        from ...theory.scheme import Scheme
        from ...verification.advice import OnGaussian, OnSpectrum
        from ...verification.exact import cifar10_spectrum

        self.x = x
        self.sampler: Scheme | Sampler = sampler_of(x, chosen)
        diffusion = diffusion_of(self.sampler)
        params = parameters(device, model, diffusion)
        one = mean is not None or variance is not None
        self.measure: Measure = (
            OnGaussian(mean or 0.0, 1.0 if variance is None else variance, diffusion, params)
            if one
            else OnSpectrum(cifar10_spectrum(), diffusion, params)
        )
        _ = self.measure.target  # a bad mean or variance is refused here
        if isinstance(self.sampler, Scheme):
            self.subject: Subject = self.sampler
            return
        from ...verification.blackbox import BlackBox

        self.subject = BlackBox(x, self.sampler, tuple(event or ()))

    def leading(self) -> list[dict[str, Any]]:
        """What the proof says of its terms. Raises ValueError for what has none."""
        from ...theory.scheme import Scheme
        from ..pages import leading_terms

        if not isinstance(self.sampler, Scheme):
            raise ValueError(f"{self.x} is a black box; --leading is for schemes, whose words are expanded")
        params = self.measure.params
        return leading_terms(self.sampler, params.beta_min != params.beta_max)

    def steps(self, kind: str, count: int, denoise: bool) -> int:
        """The steps that so many evaluations buy, or so many steps. Raises ValueError where they buy none."""
        if kind == "steps":
            return count
        cost = self.subject.nfe_per_step
        if cost == 0:
            raise ValueError(f"{self.x} evaluates no score, and evaluations do not say how long it runs; give --steps")
        if (steps := (count - denoise) // cost) < 1:
            spent = f"{cost} a step" + (" and 1 for the denoising step" if denoise else "")
            raise ValueError(
                f"--nfe {count} buys no step of {self.x}, which takes {spent}; give {cost + denoise} or more"
            )
        return steps


def _budgets(
    asked: Sequence[_Asked], lengths: Sequence[tuple[str, int]], settings: tuple[str, str, bool]
) -> list[Budget]:
    from ...verification.advice import budget_of

    grid, start, denoise = settings
    runs = [(one, one.steps(kind, count, denoise)) for one in asked for kind, count in lengths]
    shown = progress(runs) if len(runs) > 1 else runs
    with contextlib.redirect_stdout(sys.stderr):  # what black boxes print is not our answer
        return [budget_of(one.subject, one.measure, steps, grid, start, denoise) for one, steps in shown]


def _curves(
    asked: Sequence[_Asked], lengths: Sequence[tuple[str, int]], settings: tuple[str, str, bool]
) -> list[dict[str, Any]]:
    """A budget of every X at each length that buys steps, and short enough ones."""
    found = []
    for one in asked:
        budgets = []
        for length in progress(lengths):
            with contextlib.suppress(ValueError):
                budgets += [budget.as_dict() for budget in _budgets([one], [length], settings)]
        found.append({"sampler": one.x, "budgets": budgets})
    return found


def _answer(asked: Sequence[_Asked], found: Sequence[Budget], settings: tuple[str, str, bool]) -> dict[str, Any]:
    from ...verification.advice import NETWORK, OnSpectrum

    grid, start, denoise = settings
    data = "the spectrum of CIFAR-10" if isinstance(asked[0].measure, OnSpectrum) else "one Gaussian"
    return {
        "data": data,
        "grid": grid,
        "start": start,
        "denoise": denoise,
        "assumes": list(_assumptions(asked, start)),
        "network": None,
        "network_says": NETWORK,
        "budgets": [budget.as_dict() for budget in found],
    }


def _network(study: Mapping[str, Any], asked: Sequence[_Asked], found: Sequence[Budget]) -> dict[str, Any]:
    """What a study says of the runs, one for each budget, and in words. Raises ValueError for a black box."""
    from ...theory.scheme import Scheme
    from ...verification.advice import network_shares

    entries, says = [], []
    for one, budget in zip(asked, found, strict=True):
        if not isinstance(one.sampler, Scheme):
            raise ValueError(f"{one.x} is a black box; --study is for schemes, which a study samples by their words")
        shares = network_shares(study, one.sampler, one.measure.params, budget.steps, budget.grid)
        run = f"{budget.name} @ {budget.nfe}"
        entries += [{"sampler": one.x, "nfe": budget.nfe, "steps": budget.steps, **share._asdict()} for share in shares]
        says += [
            f"{run}, {share.space} of {share.samples} samples: {share.whole:.4g} from the data, of which "
            f"{share.by_network:.4g} the network's (a fine run's) and {share.by_steps:.4g} +- "
            f"{share.standard_error:.2g} the steps'"
            for share in shares
        ] or [f"{run}: not known, the study has no such run with a fine one, on this grid and of this model"]
    return {"network": entries, "network_says": "\n  ".join(["on the study's network", *says])}


def _assumptions(asked: Sequence[_Asked], start: str) -> list[str]:
    """What the numbers rest on, a sentence each."""
    from ...theory.scheme import Scheme
    from ...verification.advice import NETWORK, OnSpectrum

    spectrum = isinstance(asked[0].measure, OnSpectrum)
    says = [
        "the data are Gaussian, with the mean and covariance of CIFAR-10's pixels"
        if spectrum
        else "the data are one Gaussian",
        f"the score is exact: what a network adds is {NETWORK}",
        "terms are taken from the top down, each in the sampler that is left of those above it; in another order they "
        "would be others, with the same sum",
    ]
    if any(not isinstance(one.sampler, Scheme) for one in asked):
        says.append("a black box is asked for no more than its moments: its steps are one term")
    if start == "exact":
        says.append("runs start from the exact law at T: no prior is mismatched")
    return says


def _print(asked: Sequence[_Asked], found: Sequence[Budget], answer: dict[str, Any]) -> None:
    from ...theory.scheme import Scheme

    for one in asked:
        if isinstance(one.sampler, Scheme):
            warn(one.sampler)
    for budget in found:
        if budget.diverged:
            click.echo(
                f"warning: {budget.name} with {budget.steps} steps overflowed, or a sampler between it and the exact "
                "one; such terms are not known (null in JSON)",
                err=True,
            )
    for one in asked:
        click.echo(title(one.sampler, one.x))
    grid = found[0].grid
    click.echo(f"on {answer['data']}, {grid} grid, from the {'prior' if answer['start'] == 'prior' else 'exact law'}")
    if len(found) == 1:
        (one,) = found
        click.echo(f"{one.nfe} NFE, {one.steps} steps")
        header = ["term", *one.measures]
        rows = [[str(term.source), *map(_signed, term.values)] for term in one.terms]
        rows.append(["whole", *map(_signed, one.whole)])
    else:
        header = ["distance", *(f"{budget.name[:24]} @ {budget.nfe}" for budget in found)]
        names = _in_order(found)
        rows = [[name, *(_signed(_value(budget, name)) for budget in found)] for name in names]
        rows += [
            ["whole", *(_signed(budget.whole[0]) for budget in found)],
            ["steps", *(str(budget.steps) for budget in found)],
        ]
    print_table(header, rows)
    for x, terms in answer.get("leading", {}).items():
        from ..pages import leading_text

        click.echo(f"leading local errors of {x}, for every score:\n{leading_text(terms)}")
    click.echo(f"network: {answer['network_says']}")
    for sentence in answer["assumes"]:
        click.echo(f"assumes: {sentence}")


def _in_order(found: Sequence[Budget]) -> list[str]:
    """The terms of all budgets, in the order of the kinds, each once."""
    from ...verification.advice import KINDS

    names = dict.fromkeys((KINDS.index(term.source.kind), str(term.source)) for b in found for term in b.terms)
    return [name for _, name in sorted(names, key=lambda entry: entry[0])]


def _value(budget: Budget, name: str) -> float | None:
    try:
        return float(budget[name].values[0])
    except KeyError:
        return None


def _signed(value: float | None) -> str:
    """A term as a table shows it: "-" where there is none."""
    return "-" if value is None or value != value else f"{value:.4g}"

"""The convergence report: studies to results, results to a page.

collect_results   runs the studies; everything the report shows, as plain values for JSON
render            the page, from the results alone: every number on it is one of theirs
write_report      both, into a folder: results.json, figures/*.svg and *.png, index.html (self-contained)
"""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...integrators.catalogue import LANGEVIN_CONTROLS
from ...integrators.grids import GRIDS, time_grid
from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ...theory.weak_order import prove_order
from ...verification.exact import Opaque, Subject, exact_moments, noise_free, order, predicted_errors, spectrum
from ...verification.files import explained, make_folder, write_atomically
from ...verification.targets import GaussianTarget
from ...verification.verdicts import MARGIN
from . import stability, targets
from .derivation import leading_error
from .jobs import Jobs, Progress, Workers
from .models import Models, ParametersOf
from .naming import command_of, labels_of
from .strict_json import dumps
from .templates import inline, number, template

if TYPE_CHECKING:  # matplotlib waits until there is something to draw, and torch is for black boxes
    from matplotlib.figure import Figure

    from ...verification.blackbox import BlackBox

Results = dict[str, Any]

# The budgets of the page's spectrum table; the figure and results.json hold all.
TABLE_BUDGETS = (50, 100, 1000)
# The paths and levels of the check that certified a second-order scheme as of first order, see `_controls`.
CONTROL_PATHS, CONTROL_STEPS = 200, (25, 50, 100, 200)
_PACKAGES = ("weakorder", "numpy", "scipy", "sympy", "torch", "matplotlib")
_DESCRIPTIONS = {
    "convergence-steps": "W2 error against the number of steps, log-log, a line per scheme",
    "convergence-nfe": "W2 error against network evaluations, log-log, a line per scheme",
    "error-constants": "error constants against the step size, a line per scheme",
    "local-slopes": "local slopes against the number of steps, a panel per scheme",
    "cifar10-spectrum": "Frechet distance to the CIFAR-10 Gaussian against network evaluations, a line per scheme",
}


def collect_results(
    schemes: Sequence[Subject],
    params: ParametersOf,
    progress: Progress = iter,
    steps: Sequence[int] = order.STEPS,
    t_end: float = order.T_END,
    budgets: Sequence[int] = spectrum.BUDGETS,
    grids: Sequence[str] = tuple(GRIDS),
    nonlinear: targets.Settings | None = None,
    workers: int | Workers = 1,
) -> Results:
    """Run the studies of every scheme or black box; all that the report shows, as JSON's own types.

    params: of all, or a function of the diffusion, of which there may be several. steps, t_end: of the order studies;
    budgets, grids: of the spectrum study; nonlinear: of the section on nonlinear targets, default `targets.Settings()`.
    progress wraps the studies. workers: processes that they run in, side by side; the schemes must then be picklable,
    and the program importable, as for `multiprocessing`.
    Raises ValueError on bad input, as the studies do.
    """
    if not schemes:
        raise ValueError("no scheme to report on; name at least one")
    models = Models(schemes, params)
    jobs, settings = Jobs(), nonlinear or targets.Settings()
    # what stability shows of a word, its regions and conditions, a black box does not have
    words = [scheme for scheme in schemes if isinstance(scheme, Scheme)]
    curved, refused = targets.known_of(words, models)
    # first what tells bad input, then the dearest: no process is left with one of those when the others have no more
    ordered = [jobs.add(_order, s, models.of(s), steps, t_end, here=isinstance(s, Opaque)) for s in schemes]
    asked_targets = targets.ask(jobs, curved, models, t_end, settings) if curved else None
    asked_stability = stability.ask(jobs, words, models, grids)
    controls = jobs.add(_controls)
    spectra = [jobs.add(_spectrum, s, models.of(s), budgets, grids, here=isinstance(s, Opaque)) for s in schemes]
    jobs.run(progress, workers)
    stability_study, found = stability.answer(asked_stability, words, models, grids) if words else (None, [])
    stabilities = dict(zip(map(id, words), found, strict=True))
    targets_study, answers = _nonlinear(asked_targets, curved, models, t_end, settings)
    laws = dict(zip(map(id, curved), answers, strict=True))
    rows = []
    for scheme, label, job, distances in zip(schemes, labels_of(schemes), ordered, spectra, strict=True):
        own, (study, predicted) = models.of(scheme), job.result
        rows.append(
            {
                **_scheme_row(scheme, label, study, predicted, own),
                "model": models.place(scheme),
                "command": command_of(scheme, own, steps, t_end, order.STEPS),
                "spectrum": {grid: _curve(c) for grid, c in zip(grids, distances.result.curves, strict=True)},
                "stability": stabilities.get(id(scheme)),
                "noise_free": laws.get(id(scheme)),
            }
        )
    firsts = [
        next(job.result for s, job in zip(schemes, spectra, strict=True) if models.place(s) == i)
        for i in range(len(models.params))
    ]
    entries = models.entries([{"prior": first.prior, "cutoff": first.cutoff} for first in firsts])
    results = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
        "seed": None if targets_study is None else targets_study["seed"],
        "parameters": entries[0]["parameters"],
        "models": entries,
        "order_study": _order_settings(steps, t_end),
        "spectrum_study": _spectrum_settings(budgets, grids, firsts),
        "stability_study": stability_study,
        "targets_study": targets_study,
        "targets_refused": refused,
        "schemes": rows,
        "controls": controls.result,
    }
    return json.loads(dumps(results))


def _order_settings(steps: Sequence[int], t_end: float) -> Results:
    """What the order studies were run on."""
    return {
        "steps": list(steps),
        "t_end": t_end,
        "grid": "uniform",
        "start": "exact",
        "means": order.MEANS,
        "variances": order.VARIANCES,
        "margin": MARGIN,
    }


def _spectrum_settings(budgets: Sequence[int], grids: Sequence[str], found: Sequence[Any]) -> Results:
    """What the spectrum study was run on; found: that of a scheme of each diffusion. prior: the furthest of their
    priors."""
    return {
        "budgets": list(budgets),
        "table_budgets": [budget for budget in TABLE_BUDGETS if budget in budgets] or list(budgets)[-3:],
        "grids": list(grids),
        "start": "prior",
        "denoise": True,
        "prior": max(study.prior for study in found),
        **{name: getattr(found[0], name) for name in ("images", "dimensions")},
    }


def render(results: Results) -> str:
    """The page, self-contained, from the results alone."""
    from ..figures import style

    return _page(results, {name: style.as_svg(figure) for name, figure in _draw(results).items()})


def write_report(
    schemes: Sequence[Subject],
    params: ParametersOf,
    directory: str | os.PathLike[str],
    progress: Progress = iter,
    steps: Sequence[int] = order.STEPS,
    t_end: float = order.T_END,
    budgets: Sequence[int] = spectrum.BUDGETS,
    grids: Sequence[str] = tuple(GRIDS),
    nonlinear: targets.Settings | None = None,
    workers: int | Workers = 1,
) -> Path:
    """Write the report on `schemes` into `directory`, made if need be; returns the path of its index.html. workers: how
    many processes, or those that the caller started.

    Whether the folder can be written is tried first; nothing else is written before everything has been computed, and
    each file appears whole or not at all, the page last.
    Raises ValueError on bad input and OSError where the folder cannot be written.
    """
    directory = Path(directory)
    _check_writable(directory)
    with Workers(workers) if isinstance(workers, int) else nullcontext(workers) as both:
        results = collect_results(schemes, params, progress, steps, t_end, budgets, grids, nonlinear, both)
        svgs = {}
        contents: dict[Path, bytes] = {directory / "results.json": dumps(results).encode()}
        jobs = Jobs()
        drawn = {name: jobs.add(_files, results, name) for name in _drawings(results)}
        jobs.run(progress, both)
    for name, job in drawn.items():
        svg, png = job.result
        svgs[name] = contents[directory / "figures" / f"{name}.svg"] = svg
        contents[directory / "figures" / f"{name}.png"] = png
    page = directory / "index.html"
    contents[page] = _page(results, svgs).encode()
    make_folder(directory / "figures")
    for path, content in contents.items():
        write_atomically(path, content)
    return page


def _drawings(results: Results) -> dict[str, Callable[[], Figure]]:
    """What draws each figure of the page, by its file name."""
    from ..figures import stability, style, targets

    found: dict[str, Callable[[], Figure]] = {n: partial(make, results) for n, make in style.drawings().items()}
    for module, needed in ((stability, "stability"), (targets, "noise_free")):
        if some := [scheme for scheme in results["schemes"] if scheme[needed]]:
            found |= {name: partial(make, results | {"schemes": some}) for name, make in module.drawings().items()}
    return found


def _draw(results: Results) -> dict[str, Figure]:
    """Every figure of the page by its file name."""
    return {name: make() for name, make in _drawings(results).items()}


def _files(results: Results, name: str) -> tuple[bytes, bytes]:
    """A figure as SVG and PNG."""
    from ..figures import style

    figure = _drawings(results)[name]()
    return style.as_svg(figure), style.as_png(figure)


def _order(
    subject: Scheme | BlackBox, params: Parameters, steps: Sequence[int], t_end: float
) -> tuple[order.OrderStudy, float | None]:
    """The order study, and the error constant that the proof predicts."""
    from ...verification.blackbox import order_study_of

    study = order_study_of(subject, params, steps=steps, t_end=t_end)
    return study, _predicted(subject, study, params, t_end)


def _spectrum(
    subject: Subject, params: Parameters, budgets: Sequence[int], grids: Sequence[str]
) -> spectrum.SpectrumStudy:
    return spectrum.study_spectrum([subject], params, budgets, grids)


def _nonlinear(
    asked: targets.Asked | None, schemes: Sequence[Scheme], models: Models, t_end: float, settings: targets.Settings
) -> tuple[Results | None, list[Results]]:
    """The studies on nonlinear targets, each with its command; a word is needed to carry a law and to couple noise."""
    if asked is None:
        return None, []
    study, laws = targets.answer(asked, t_end, settings)
    for scheme, law in zip(schemes, laws, strict=True):
        options = ["--target", targets.MIXTURE]
        law["command"] = command_of(scheme, models.of(scheme), settings.steps, t_end, noise_free.STEPS, options)
    for entry in study["sampled"]:
        scheme, options = schemes[entry["scheme"]], entry.pop("options")
        entry["command"] = command_of(scheme, models.of(scheme), entry["steps"], t_end, (), options)
    return study, laws


def _scheme_row(
    scheme: Subject, label: str, study: order.OrderStudy, predicted: float | None, params: Parameters
) -> Results:
    """What the page says of a scheme or a black box, but for its spectrum."""
    errors: Results = {"leading_error": {}, "leading_error_latex": {}}
    if isinstance(scheme, Scheme):
        errors = leading_error(prove_order(scheme, linear_beta=params.beta_min != params.beta_max))
    return {
        "name": scheme.name,
        "label": label,
        "word": scheme.word,
        "splitting": scheme.splitting.name,
        "kind": "stochastic" if _is_stochastic(scheme) else "deterministic",
        "flow": scheme.flow,
        "held": scheme.held,
        "lambda_s": scheme.lambda_s,
        "nfe_per_step": scheme.nfe_per_step,
        "palindrome": scheme.is_palindrome,
        "reference": scheme.reference,
        "warnings": [*scheme.warnings, *(study.warnings if isinstance(scheme, Opaque) else ())],
        "error_constant": next((c for c in study.constants()[::-1].tolist() if math.isfinite(c)), None),
        "predicted_constant": predicted,
        **errors,
        **study.as_dict(),
    }


def _is_stochastic(scheme: Subject) -> bool:
    if isinstance(scheme, Opaque):
        return scheme.is_stochastic
    return any(part.sde.has_noise for part in scheme.parts)


def _predicted(scheme: Subject, study: order.OrderStudy, params: Parameters, t_end: float) -> float | None:
    """The W2 error constant that the proof predicts; None where the order is not the expected one, or the dynamics are
    too stiff to integrate the error along them."""
    if not isinstance(scheme, Scheme) or study.proven != study.expected or scheme.inconsistencies:
        return None
    targets = order.gaussian_targets(scheme.splitting.diffusion, params)
    try:
        return predicted_errors(scheme, targets, t_end)["w2"]
    except ValueError:
        return None


def _controls() -> Results:
    """Langevin dynamics: proven and measured orders of schemes whose orders are published; and, for the first of them,
    the bias of E[m^2] beside the standard error of a few sampled paths, which an order was once fitted to. They check
    the suite, not the user's model: the parameters are the default ones."""
    params = Parameters()
    rows = []
    for scheme in LANGEVIN_CONTROLS:
        study = order.study_order(scheme, params)
        rows.append(
            {
                "name": scheme.name,
                "word": scheme.word,
                "reference": scheme.reference,
                **{name: study.as_dict()[name] for name in ("verdict", "order")},
                "error_constant": study.constants()[-1],
                "predicted_constant": _predicted(scheme, study, params, order.T_END),
            }
        )
    first = LANGEVIN_CONTROLS[0]
    target = GaussianTarget.of(0.0, 1.0, first.splitting.diffusion, params)
    noise = []
    for steps in CONTROL_STEPS:
        moments = exact_moments(first, target, time_grid("uniform", steps, params, order.T_END))
        bias = abs(float(moments.computed.cov[1, 1, 0] - moments.exact.cov[1, 1, 0]))
        # A mean of squares of P Gaussian paths has the standard error sqrt(2 / P) times their variance.
        error = math.sqrt(2 / CONTROL_PATHS) * float(moments.computed.cov[1, 1, 0])
        noise.append({"steps": steps, "bias": bias, "standard_error": error, "ratio": error / bias})
    return {"rows": rows, "noise": {"name": first.name, "paths": CONTROL_PATHS, "levels": noise}}


def _curve(curve: spectrum.SpectrumCurve) -> Results:
    fields = asdict(curve)
    return {name: fields[name] for name in ("budgets", "steps", "nfe", "distance", "diverged", "floor")}


def _page(results: Results, svgs: dict[str, bytes]) -> str:
    from markupsafe import Markup

    from ..figures import stability, targets

    described = _DESCRIPTIONS | stability.DESCRIPTIONS | targets.DESCRIPTIONS
    drawings = {name.replace("-", "_"): Markup(inline(svg, name, described[name])) for name, svg in svgs.items()}
    page = template("report.html.j2", {"number": number, "plain": lambda value: f"{value:g}"})
    return page.render(figures=drawings, table=_spectrum_table(results), **results)


def _spectrum_table(results: Results) -> list[Results]:
    """The spectrum table's rows: per scheme a cell for every grid and budget; the smallest of each column is marked."""
    study = results["spectrum_study"]
    columns = [(grid, budget) for grid in study["grids"] for budget in study["table_budgets"]]
    rows = [
        {"label": scheme["label"], "cells": [_cell(scheme["spectrum"][grid], budget) for grid, budget in columns]}
        for scheme in results["schemes"]
    ]
    for column in zip(*(row["cells"] for row in rows), strict=True):
        values = [cell["distance"] for cell in column if cell["distance"] is not None]
        for cell in column:
            cell["best"] = len(rows) > 1 and cell["distance"] is not None and cell["distance"] == min(values)
    return rows


def _cell(curve: Results, budget: int) -> Results:
    if budget not in curve["budgets"]:
        return {"distance": None, "diverged": False, "nfe": None}
    place = curve["budgets"].index(budget)
    return {name: curve[name][place] for name in ("distance", "diverged", "nfe")}


def _check_writable(directory: Path) -> None:
    """Try whether the folder could be made and written to, before minutes are spent; leaves nothing behind."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {explained(error, directory)}") from error
    if (directory / "index.html").is_dir():
        raise OSError(f"{str(directory / 'index.html')!r} is a folder; choose another place for the page")

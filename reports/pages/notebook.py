"""What values show of themselves in a notebook: a table and a figure, as HTML that stands by itself.

theory.showing finds these functions among the package's entry points. A `Sheet` is what any of them says, as plain
values; one template sets it, and escapes all of it, for names are the user's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .templates import inline, number, template

if TYPE_CHECKING:  # a value is shown by what made it: nothing else waits to be imported
    from matplotlib.figure import Figure

    from ...theory.scheme import Scheme
    from ...verification.exact import NoiseFreeStudy, OrderStudy, spectrum
    from ...verification.stability import LeastSteps
    from ...verification.unmodified import UnmodifiedStudy
    from ...verification.verdicts import Judged


@dataclass(frozen=True)
class Sheet:
    """title, and code set behind it; verdict: PASS, FAIL, INCONCLUSIVE or none, with its reason; facts: terms and what
    they are; columns and rows of a table, numbers or text; figure, with its description; notes: sentences below."""

    title: str
    code: str = ""
    verdict: str = ""
    reason: str = ""
    facts: Mapping[str, str] | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    figure: Figure | None = None
    described: str = ""
    notes: Sequence[str] = ()

    def html(self) -> str:
        """The sheet as HTML, everything escaped but the figure."""
        from markupsafe import Markup

        drawing = None
        if self.figure is not None:
            from ..figures import as_svg

            svg = as_svg(self.figure)
            drawing = Markup(inline(svg, f"w{hashlib.sha256(svg).hexdigest()[:12]}", self.described))
        page = template("notebook.html.j2", {"entry": _entry})
        return page.render(sheet=self, drawing=drawing)


def _entry(value: Any) -> str:
    """A table's cell: numbers to three digits, a dash for what does not exist."""
    if isinstance(value, float | np.floating):
        return number(None if math.isnan(value) else float(value)) if not math.isinf(value) else "∞"
    return number(int(value)) if isinstance(value, int | np.integer) else str(value)


def scheme_html(scheme: Scheme) -> str:
    """A scheme: what follows from its word, and the picture of its step. Nothing is derived or measured for it."""
    from ..figures import describe_step, draw_step

    facts = {
        "splitting": f"{scheme.splitting.name}, a state of ({', '.join(scheme.splitting.diffusion.components)})",
        "parts": scheme.sub_flows,
        "network evaluations": f"{scheme.nfe_per_step} a step",
        "parts read the same backwards": "yes" if scheme.is_palindrome else "no",
    }
    facts |= {} if scheme.lambda_s == 1 else {"noise of the position": f"times lambda_s = {scheme.lambda_s:g}"}
    facts |= {} if scheme.order is None else {"claimed weak order": str(scheme.order)}
    facts |= {"source": scheme.reference} if scheme.reference else {}
    title, code = ("", scheme.word) if scheme.name == scheme.word else (scheme.name, scheme.word)
    return Sheet(
        title, code, facts=facts, figure=draw_step(scheme), described=describe_step(scheme), notes=scheme.warnings
    ).html()


def order_study_html(study: OrderStudy) -> str:
    """An order study by exact moments: errors, slopes and constants of every level, and the errors' figure."""
    from ..figures import Curve, log_log

    levels = study.as_dict()["levels"]
    steps = study.steps.tolist()
    curves = [Curve(name.replace("w2", "W2"), steps, errors.tolist()) for name, errors in study.errors.items()]
    power = "" if study.expected == 1 else f"^{study.expected}"
    return _judged(
        study,
        columns=("steps", "NFE", "h", "W2 error", "local slope", f"e / h{power}"),
        rows=[[level[key] for key in ("steps", "nfe", "h", "error", "slope", "constant")] for level in levels],
        figure=log_log({"": curves}, "number of steps $N$", "error", slopes=True),
        described="errors against the number of steps, log-log, a line per quantity",
    )


def noise_free_html(study: NoiseFreeStudy) -> str:
    """Weak errors without sampling: of every test function at every level."""
    from ..figures import Curve, log_log

    curves = [Curve(name, study.steps.tolist(), np.abs(errors).tolist()) for name, errors in study.errors.items()]
    return _judged(
        study,
        columns=("steps", *(f"error of E {name}" for name in study.names)),
        rows=[[level.steps, *level.errors.tolist()] for level in study.levels],
        figure=log_log({"": curves}, "number of steps $N$", "absolute weak error", slopes=True),
        described="absolute weak errors against the number of steps, log-log, a line per test function",
    )


def unmodified_html(study: UnmodifiedStudy) -> str:
    """An unmodified sampler: the errors at the last state that its network saw, on every grid."""
    from ..figures import Curve, log_log

    grids = study.grids
    curves = [Curve(entry.grid, entry.steps.tolist(), entry.errors["w2"].tolist()) for entry in grids]
    return _judged(
        study,
        columns=("grid", "steps", "NFE", "W2 error", "error of the variance", "error of the mean"),
        rows=[
            [entry.grid, int(steps), int(entry.nfe[k]), *(entry.errors[q][k] for q in ("w2", "variance", "mean"))]
            for entry in grids
            for k, steps in enumerate(entry.steps)
        ],
        figure=log_log({"": curves}, "number of steps $N$", "$W_2$ error, standard deviations", slopes=True),
        described="the W2 error against the number of steps, log-log, a line per grid",
    )


def judged_html(study: Judged) -> str:
    """Any other study that ends in a verdict: its orders."""
    fits = getattr(study, "fits", {})
    return _judged(
        study,
        columns=("error of", "order", "lowest", "highest") if fits else (),
        rows=[[name, fit.order, fit.low, fit.high] for name, fit in fits.items()],
    )


def _judged(study: Judged, **more: Any) -> str:
    return Sheet(
        getattr(study, "name", ""), verdict=str(study.verdict), reason=study.reason, notes=study.warnings, **more
    ).html()


def spectrum_html(study: spectrum.SpectrumStudy) -> str:
    """Distances to the data at every budget, a row for each scheme and grid, and their figure."""
    from ..figures import Curve, log_log

    budgets = sorted({budget for curve in study.curves for budget in curve.budgets.tolist()})
    rows, panels = [], {}
    for curve in study.curves:
        at = dict(zip(curve.budgets.tolist(), np.where(curve.diverged, np.inf, curve.distance).tolist(), strict=True))
        rows.append([curve.name, curve.grid, *(at.get(budget, "–") for budget in budgets)])
        panel = panels.setdefault(f"{curve.grid} grid", [])
        panel.append(Curve(curve.name, curve.budgets.tolist(), curve.distance.tolist()))
    notes = [f"The prior is {study.prior:.3g} from the data, the exact law at the cut-off {study.cutoff:.3g}."]
    if np.isinf([entry for row in rows for entry in row[2:] if isinstance(entry, float)]).any():
        notes.append("∞: the run overflowed, or ended further from the data than the prior.")
    return Sheet(
        f"Fréchet distance to the data, {study.dimensions} eigenvalues of {study.images} images",
        columns=("scheme", "grid", *(f"at {budget} NFE" for budget in budgets)),
        rows=rows,
        figure=log_log(panels, "network evaluations (NFE)", "Fréchet distance to the data"),
        described="the Frechet distance to the data against network evaluations, log-log, a panel per grid",
        notes=notes,
    ).html()


def least_steps_html(least: LeastSteps) -> str:
    """How few steps are stable on a grid, and what breaks first."""
    from .stability import growth_text

    facts = {"stable from": f"{least.steps} steps" if least.steps else f"no number of steps up to {least.bound} is"}
    if least.breaks is not None and least.steps is not None:
        facts[f"at {least.steps - 1} steps"] = growth_text(asdict(least.breaks))
    if least.steady is not None:
        facts["no step is unstable from"] = f"{least.steady} steps"
    facts["stable is"] = f"a perturbation that grows by at most {least.factor:g}"
    return Sheet(f"Stability on the {least.grid} grid", facts=facts).html()

"""The stability section: how few steps each scheme can take on CIFAR-10's spectrum, and what breaks first.

ask        asks for the studies of verification.stability and least_steps, as jobs
answer     everything shown of them, as plain values for JSON
judge      one sampler for the command line: a table for people, the same as JSON, and whether it is stable
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...integrators.grids import GRIDS, label, time_grid
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ...theory.scheme import Scheme
from ...verification.exact import Spectrum, cifar10_spectrum
from ...verification.stability import (
    BLACK_BOX_BOUND,
    BOUND,
    LeastSteps,
    last_step_excess,
    least_steps,
    scan_steps,
    thinned,
    worst_excess,
)
from ...verification.stability import growth as stability
from ...verification.targets import GaussianTarget
from .jobs import Job, Jobs
from .models import Models

if TYPE_CHECKING:
    from ...integrators.blackbox import Sampler

Results = dict[str, Any]
Progress = Callable[[Sequence[Any]], Iterable[Any]]

# The evaluations that people use, at which runs are shown; those of the growth figure; the values of Gamma of its
# table, nu moved along so that M stays (those of arXiv 2303.01748, section 5).
BUDGET = 50
BUDGETS = (12, 20, 30, 50, 70, 100, 150, 200, 300)
GAMMAS = (0.0, 0.005, 0.02, 0.25)
# Steps, and data variances beside the smallest, of the table of stationary covariances.
STATIONARY_STEPS, STATIONARY_VARIANCES = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3), (1e-3,)
# Points of the regions' axes, and the largest step that they show.
_POINTS, _LONGEST = 40, 0.5


# --- Results ----------------------------------------------------------------------------------------------------------


def ask(jobs: Jobs, schemes: Sequence[Scheme], models: Models, grids: Sequence[str] = tuple(GRIDS)) -> list[Job]:
    """The studies of each scheme, for `answer`."""
    return [jobs.add(_scheme, scheme, models.of(scheme), grids) for scheme in schemes]


def answer(
    asked: Sequence[Job], schemes: Sequence[Scheme], models: Models, grids: Sequence[str] = tuple(GRIDS)
) -> tuple[Results, list[Results]]:
    """What the report says of stability: of the study, and of each scheme."""
    data = cifar10_spectrum()
    thin = thinned(data.variances)
    rows = [job.result for job in asked]
    study = {
        "factor": stability.FACTOR,
        "excess": stability.EXCESS,
        "bound": BOUND,
        "budget": BUDGET,
        "budgets": list(BUDGETS),
        "dimensions": data.variances.size,
        "thin": thin.size,
        "variances": [thin[0], thin[-1]],
        "grids": list(grids),
        "axes": {name: _rounded(values) for name, values in _axes(models.params[0], thin).items()},
        "gammas": sorted({gamma["gamma"] for row in rows for gamma in row["gammas"]}),
        "stationary_steps": list(STATIONARY_STEPS),
        "stationary_variances": [thin[0], *STATIONARY_VARIANCES],
        "twins": _twins(schemes, rows, models, grids),
    }
    return study, rows


def _axes(params: Parameters, thin: np.ndarray) -> dict[str, np.ndarray]:
    """Of the regions: steps, data variances and times."""
    return {
        "h": np.geomspace(params.eps / 3, _LONGEST, _POINTS),
        "variance": np.geomspace(thin[0] / 5, 5 * thin[-1], _POINTS),
        "t": np.geomspace(2 * params.eps, params.T, _POINTS),
    }


def _scheme(scheme: Scheme, params: Parameters, grids: Sequence[str]) -> Results:
    data = cifar10_spectrum()
    thin = thinned(data.variances)
    few = Spectrum(thin, np.zeros_like(thin), data.images)
    axes = _axes(params, thin)
    least = {grid: least_steps(scheme, params, grid) for grid in grids}
    some = thinned(few.variances, 24)
    return {
        "least": {grid: _least(found, scheme) for grid, found in least.items()},
        "budget": {grid: _measured(scheme, params, grid, _affordable(scheme, BUDGET)) for grid in grids},
        "growth": {grid: _curve(scheme, params, grid, few) for grid in grids},
        "stationary": _stationary(scheme, params, few),
        "gammas": [_gamma(scheme, params, gamma, least) for gamma in _gammas(scheme, params)],
        "regions": {
            "last_step": _rounded(last_step_excess(scheme, params, axes["h"], axes["variance"])),
            "trajectory": _rounded(worst_excess(scheme, params, axes["h"], axes["t"], some)),
        },
    }


def _least(found: LeastSteps, scheme: Scheme | None) -> Results:
    cost = None if scheme is None or found.steps is None else found.steps * scheme.nfe_per_step
    steady = None if scheme is None or found.steady is None else found.steady * scheme.nfe_per_step
    return asdict(found) | {"nfe": cost, "steady_nfe": steady}


def _affordable(scheme: Scheme, nfe: int) -> int:
    return nfe // scheme.nfe_per_step if scheme.nfe_per_step else 0


def _curve(scheme: Scheme, params: Parameters, grid: str, few: Spectrum) -> list[Results]:
    """The growth of the runs that the budgets buy."""
    levels = [steps for nfe in BUDGETS if (steps := _affordable(scheme, nfe))]
    runs = [stability.worst_growth(scheme, params, time_grid(grid, steps, params), few) for steps in levels]
    return [
        {"steps": steps, "nfe": steps * scheme.nfe_per_step, "growth": run.growth}
        for steps, run in zip(levels, runs, strict=True)
    ]


def _measured(scheme: Scheme, params: Parameters, grid: str, steps: int) -> Results | None:
    """A run on the whole spectrum, its step of largest excess on some of it, and its last step; None for no step."""
    if steps == 0:
        return None
    taus = time_grid(grid, steps, params)
    thin = thinned(cifar10_spectrum().variances)
    target = GaussianTarget.of(0.0, thin, scheme.splitting.diffusion, params)
    return {
        "steps": steps,
        "nfe": steps * scheme.nfe_per_step,
        **asdict(stability.worst_growth(scheme, params, taus)),
        "worst_step": asdict(stability.worst_step(scheme, target, taus)),
        "last_h": float(taus[-1] - taus[-2]),
    }


def _gammas(scheme: Scheme, params: Parameters) -> list[float]:
    """The values of Gamma to look at; none under dynamics that have no such noise in position, beside a mass."""
    uses = scheme.splitting.diffusion.parameter_names
    return sorted({*GAMMAS, params.gamma}) if "gamma" in uses and "nu" in uses else []


def _gamma(scheme: Scheme, params: Parameters, gamma: float, least: dict[str, LeastSteps]) -> Results:
    """The least steps with another Gamma and the same M; looked for up to four times those of the given one."""
    if gamma == params.gamma:
        return {"gamma": gamma, "steps": {grid: found.steps for grid, found in least.items()}}
    other = replace(params, gamma=gamma, nu=gamma + abs(params.nu - params.gamma))
    bounds = {grid: 4 * (found.steps or found.bound) for grid, found in least.items()}
    return {
        "gamma": gamma,
        "steps": {grid: scan_steps(scheme, other, grid, bound=max(2, b)) for grid, b in bounds.items()},
    }


def _stationary(scheme: Scheme, params: Parameters, few: Spectrum) -> list[Results] | None:
    """With the clock stopped at the cut-off: the standard deviation in x that steps of length h settle at, relative to
    that of the frozen dynamics, less 1; None where the step is unstable, and for a scheme without noise, or one whose
    steps depend on when they are."""
    if not any(part.sde.has_noise for part in scheme.parts) or not scheme.holds_score:
        return None
    variances = np.array([few.variances[0], *STATIONARY_VARIANCES])
    still = stability.stop_clock(variances, params.eps, scheme.splitting.diffusion, params)
    lengths = params.beta(params.eps) * np.array(STATIONARY_STEPS)  # the clock stands: int beta is h beta(eps)
    words = (scheme, stability.exact_word(scheme.splitting))
    found, exact = (stability.stationary_cov(stability.frozen_maps(word, still, lengths))[0, 0] for word in words)
    return [
        {"variance": variance, "h": h, "error": None if np.isnan(error) else float(error)}
        for h, row in zip(STATIONARY_STEPS, np.sqrt(found / exact) - 1, strict=True)
        for variance, error in zip(variances.tolist(), row, strict=True)
    ]


def _twins(schemes: Sequence[Scheme], rows: Sequence[Results], models: Models, grids: Sequence[str]) -> list[Results]:
    """Pairs of schemes with the same parts in the same order, of which one evaluates the score more often: at the
    budget, and the cheaper one also at the dearer one's number of steps."""
    pairs = []
    for i, dear in enumerate(schemes):
        for j, cheap in enumerate(schemes):
            same = _without_scores(dear) == _without_scores(cheap)
            if same and dear.nfe_per_step > cheap.nfe_per_step > 0 and rows[i]["budget"][grids[0]]:
                pairs.append((i, j))
    return [
        {
            "dear": i,
            "cheap": j,
            "grid": grid,
            "dear_run": (run := rows[i]["budget"][grid]),
            "same_steps": _measured(schemes[j], models.of(schemes[j]), grid, run["steps"]),
            "cheap_run": rows[j]["budget"][grid],
        }
        for grid in grids
        for i, j in pairs
    ]


def _without_scores(scheme: Scheme) -> tuple[Any, ...]:
    letters = tuple((token.symbol, token.weight) for token in scheme.tokens if not token.is_score)
    return scheme.splitting.name, scheme.sub_flows, scheme.lambda_s, letters


def _rounded(values: np.ndarray) -> Any:
    """Four significant digits, as lists: a region is for the eye."""
    flat = [None if np.isnan(v) else float(f"{min(v, 1e9):.4g}") for v in values.ravel()]
    return np.array(flat, dtype=object).reshape(values.shape).tolist()


# --- The command ------------------------------------------------------------------------------------------------------


def judge(
    sampler: Scheme | Sampler,
    params: Parameters,
    steps: int | None,
    grid: str,
    progress: Progress = iter,
    named: Diffusion = PSLD_DIFFUSION,
) -> tuple[Results, bool]:
    """What `weakorder stability` prints, and whether it is stable: one run of `steps` steps on `grid`, or, without
    steps, the fewest on each grid of that name, or on a grid of the user's own; named: the diffusion of a black
    box."""
    scheme = sampler if isinstance(sampler, Scheme) else None
    study: Results = {"factor": stability.FACTOR, "excess": stability.EXCESS}
    if steps is not None:
        growth = stability.worst_growth(sampler, params, time_grid(grid, steps, params), named=named)
        stable = growth.growth <= stability.FACTOR
        run = {"grid": grid, "steps": steps, "stable": stable, **asdict(growth)}
        return study | run | {"nfe": scheme.nfe_per_step * steps if scheme else None}, stable
    bound = BOUND if scheme else BLACK_BOX_BOUND
    names = list(GRIDS) if grid in GRIDS else [grid]
    found = [least_steps(sampler, params, name, bound=bound, named=named) for name in progress(names)]
    return study | {"bound": bound, "grids": [_least(one, scheme) for one in found]}, True


def stability_text(answer: Results) -> str:
    """`judge`'s answer for people."""
    limit = f"a growth of at most {answer['factor']:g}"
    if "grids" not in answer:
        verdict = "stable" if answer["stable"] else "UNSTABLE"
        steps = _counted(answer["steps"])
        return f"{verdict}: {steps} ({label(answer['grid'])}): {growth_text(answer)}; stable is {limit}"
    lines = []
    for least in answer["grids"]:
        name = f"{least['grid']} grid" if least["grid"] in GRIDS else f"grid {label(least['grid'])}"
        if least["steps"] is None:
            lines.append(f"{name}: no number of steps up to {least['bound']} is stable: {growth_text(least['holds'])}")
            continue
        cost = "" if least["nfe"] is None else f" ({least['nfe']} NFE)"
        lines.append(f"{name}: {_counted(least['steps'])}{cost}, {limit}")
        if least["breaks"]:
            lines.append(f"  at {least['steps'] - 1}: {growth_text(least['breaks'])}")
        if least["steady"] is None:
            lines.append(f"  some step is unstable at every number of steps up to {least['bound']}")
        elif least["unstable"]:
            what = step_text(least["unstable"])
            lines.append(f"  no step is unstable from {least['steady']} on; at {least['steady'] - 1}: {what}")
    return "\n".join(lines)


def _counted(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"


def growth_text(run: Results) -> str:
    """Where a run grows most, in words."""
    if run["t_from"] == run["t_to"]:
        return "growth 1: no perturbation ever grows"
    span = f"from t = {run['t_from']:.3g} to {run['t_to']:.3g}"
    what = step_text(run["step"]) if run["step"]["cause"] != "accuracy" else "no step of it is unstable"
    return f"growth {run['growth']:.4g} {span} at data variance {run['variance']:.3g}; {what}"


def step_text(step: Results) -> str:
    """An unstable step, in words."""
    radii = f"radius {step['radius']:.3g}, exact {step['exact_radius']:.3g}"
    place = f"from t = {step['t']:.3g} of h = {step['h']:.3g} at data variance {step['variance']:.3g}"
    return f"{step['cause']} in the step {place} ({radii})"

"""The page's section on targets whose score is not affine: orders without sampling, and by sampling, and its costs.

`ask` asks for the studies, as jobs; `answer` is everything shown of them, plain values for JSON.

    noise-free    every scheme on the 1-D bimodal mixture, its law carried on a lattice (exact.noise_free)
    sampled       a few schemes on every target by coupled Monte Carlo (sampled.monte_carlo); on the 1-D mixture
                  the law carried on a lattice says how many of the 95% intervals hold the exact answer
    known costs   for f = x^2 on N(0, 1/4) the variances are exact: the published costs of OBA, computed again
    calibration   the coupled estimate, repeated, against the exact answer

The last two check the suite, not the user's model: their parameters are the default ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...integrators.catalogue import CATALOGUE
from ...integrators.grids import time_grid
from ...integrators.threads import one_thread
from ...theory.model import PSLD_DIFFUSION, Parameters
from ...theory.scheme import Scheme
from ...verification.exact import OBSERVABLES, Observable, exact_moments, noise_free
from ...verification.targets import TARGETS, GaussianTarget, make_target
from ..figures import MIXTURE, SAMPLED_FUNCTIONS
from .jobs import Job, Jobs
from .models import Models

if TYPE_CHECKING:  # torch takes seconds to import
    from ...verification.sampled import MonteCarloStudy
    from ...verification.targets import Target
    from ...verification.verdicts import BlockMeans

Results = dict[str, Any]

# The functions of the noise-free table, and the quantity whose cost is shown of sampled studies.
CONSTANTS = ("x", "x^2", "cos 2x", "mode x > 0")
COST_QUANTITY = "covariance"
# How well the answers are known that intervals are compared with: a hundredth of the narrowest or less.
EXACT_ACCURACY = 1e-6
LEVEL = 0.95

# The scheme of the known costs and the calibration, its data variance, and what was published of it for E x^2 at the
# cut-off: paths for 0.1% of the weak error, Var f(u_N) over Var (f(u_N) - f(u_2N)), how many times cheaper the
# multilevel sum of `CHAIN` differences is, by the number of steps.
KNOWN, KNOWN_VARIANCE, KNOWN_ACCURACY = CATALOGUE["ROBA"], 0.25, 1e-3
PUBLISHED = {"plain_paths": {25: 6e5, 400: 5e8}, "variance_ratio": {100: 34, 400: 641}, "gain": {400: 27}}
KNOWN_STEPS, CHAIN = (25, 50, 100, 200, 400), 5
# How far from 95% the calibration may be.
CALIBRATION_MARGIN = 0.015


@dataclass(frozen=True)
class Sampling:
    """Numbers of steps and the most score evaluations of a sampled study."""

    steps: tuple[int, ...] = (25, 50, 100, 200, 400)
    evaluations: float = 1e7


@dataclass(frozen=True)
class Settings:
    """What the section runs.

    steps, accuracy: of the noise-free studies. sampling: per target; schemes: the report's schemes to sample, the first
    of them on all targets, the others on the mixture only (the report's own first one, if it has none of them).
    known_steps, repetitions, paths: of the known costs and the calibration. seed: of all that is sampled. Images are
    the dearest: a pilot of 3,072 dimensions is all that a minute allows, so their levels are coarser.
    """

    steps: tuple[int, ...] = noise_free.STEPS
    accuracy: float = noise_free.ACCURACY
    sampling: Mapping[str, Sampling] = field(
        default_factory=lambda: {
            "empirical-cifar10": Sampling((25, 50, 100, 200), 1e4),
            "student": Sampling(),
            "banana": Sampling(),
            MIXTURE: Sampling(evaluations=3e7),
        }
    )
    schemes: tuple[str, ...] = ("ROBA", "SSCS", "RSE")
    known_steps: tuple[int, ...] = KNOWN_STEPS
    repetitions: int = 2000
    paths: int = 512
    seed: int = 0


class Asked(NamedTuple):
    """The jobs of the section: of each scheme without sampling, of the sampled pairs, and of what is known."""

    noise_free: list[Job]
    sampled: list[Job]
    known: Job
    calibration: Job


def known_of(schemes: Sequence[Scheme], models: Models) -> tuple[list[Scheme], list[Results]]:
    """The schemes whose diffusions have such targets, and the diffusions that have none, with the reason."""
    refused = {}
    for diffusion, params in zip(models.diffusions, models.params, strict=True):
        if diffusion == PSLD_DIFFUSION:  # which has them all; to ask it takes torch, for which others are waiting
            continue
        try:
            make_target(MIXTURE, params, 1, None, diffusion)
        except ValueError as error:
            refused[diffusion] = {"diffusion": diffusion.name, "reason": str(error)}
    return [scheme for scheme in schemes if scheme.splitting.diffusion not in refused], list(refused.values())


def ask(jobs: Jobs, schemes: Sequence[Scheme], models: Models, t_end: float, settings: Settings) -> Asked:
    """The studies of the section, for `answer`; the dearest first."""
    named = {scheme.name: place for place, scheme in reversed(list(enumerate(schemes)))}
    chosen = [named[name] for name in settings.schemes if name in named] or [0]
    pairs = [(place, target) for target in settings.sampling for place in (chosen if target == MIXTURE else chosen[:1])]
    sampled = [jobs.add(_sampled, schemes[i], i, target, models.of(schemes[i]), t_end, settings) for i, target in pairs]
    calibration = jobs.add(_calibration, settings)
    compared = {i: settings.sampling[MIXTURE].steps for i, target in pairs if target == MIXTURE}
    noise_free = [
        jobs.add(_noise_free, scheme, models.of(scheme), t_end, settings, compared.get(place, ()))
        for place, scheme in enumerate(schemes)
    ]
    return Asked(noise_free, sampled, jobs.add(known_costs, settings.known_steps), calibration)


def answer(asked: Asked, t_end: float, settings: Settings) -> tuple[Results, list[Results]]:
    """What the report says of nonlinear targets: of the studies, and of each scheme."""
    laws = [job.result for job in asked.noise_free]
    for job in asked.sampled:
        _compare(job.result, laws[job.result["scheme"]][1])
    study = {
        "steps": list(settings.steps),
        "t_end": t_end,
        "accuracy": settings.accuracy,
        "observables": [observable.name for observable in OBSERVABLES],
        "constants": list(CONSTANTS),
        "targets": {target: TARGETS[target] for target in settings.sampling},
        "seed": settings.seed,
        "sampled": [job.result for job in asked.sampled],
        "known": asked.known.result,
        "calibration": asked.calibration.result,
    }
    return study, [law for law, _ in laws]


@one_thread()
@np.errstate(over="ignore", invalid="ignore")  # a run that overflows is reported as such
def _noise_free(
    scheme: Scheme, params: Parameters, t_end: float, settings: Settings, compared: Sequence[int]
) -> tuple[Results, np.ndarray | None]:
    """A scheme on the mixture without sampling, and what its sampled study is compared with at these numbers of steps;
    `refused` says why it cannot be."""
    steps, accuracy, carry = settings.steps, settings.accuracy, noise_free.keep_laws()
    try:
        target = make_target(MIXTURE, params, 1, None, scheme.splitting.diffusion)
        study = noise_free.study_noise_free(
            scheme,
            target,  # type: ignore[arg-type]
            steps,
            t_end=t_end,
            accuracy=accuracy,
            carry=carry,
        )
        exact = _exact(scheme, target, compared, t_end, carry) if compared else None
    except ValueError as error:
        return {"refused": str(error)}, None
    scale = (study.span / study.steps[-1]) ** study.expected
    law = {
        "refused": None,
        **study.as_dict(),
        "settled": len(study.settled),
        "constants": {name: float(errors[-1]) / scale for name, errors in study.errors.items()},
        "known_to": max(float(level.estimates.max()) for level in study.levels),
    }
    return law, exact


def _exact(scheme: Scheme, target: Target, steps: Sequence[int], t_end: float, carry: noise_free.Carrier) -> np.ndarray:
    """The weak errors of the sampled functions at each number of steps (levels, F), without sampling; nan where the law
    is not resolved."""
    import torch

    from ...integrators.planes import shape_of
    from ...verification.sampled import Functionals

    functionals, size = Functionals(target, t_end), target.diffusion.size
    states, values = None, np.empty(0)

    def observable(k: int) -> Observable:
        def function(*components: np.ndarray) -> np.ndarray:
            nonlocal states, values  # of the last law: all functions at once cost little more than one
            if states is not components[0]:
                states = components[0]
                u = torch.from_numpy(np.stack(components, axis=-1)).reshape(-1, *shape_of(size, target.event))
                values = functionals.values(u).numpy()
            return values[:, k]

        return Observable(functionals.names[k], function, size)

    observables = [observable(k) for k in range(len(functionals.names))]
    levels = [
        noise_free.noise_free_errors(
            scheme,
            target,  # type: ignore[arg-type]
            time_grid("uniform", count, target.params, t_end),
            observables,
            EXACT_ACCURACY,
            carry,
        )
        for count in steps
    ]
    return np.array([np.full(len(observables), np.nan) if level.problem else level.errors for level in levels])


@one_thread()
def _sampled(scheme: Scheme, place: int, name: str, params: Parameters, t_end: float, settings: Settings) -> Results:
    """A scheme on a target by coupled Monte Carlo; its estimates are still to be compared with exact answers."""
    from ...verification.sampled import study_target

    sampling = settings.sampling[name]
    answer: Results = {
        "scheme": place,
        "target": name,
        "steps": list(sampling.steps),
        "options": ["--target", name, "--method", "monte-carlo", "--evaluations", f"{sampling.evaluations:g}"],
        "refused": None,
    }
    if settings.seed:
        answer["options"] += ["--seed", str(settings.seed)]
    try:
        target = make_target(name, params, None, None, scheme.splitting.diffusion)
        with np.errstate(all="ignore"):  # a run that overflows is reported as such
            study = study_target(
                scheme, target, steps=sampling.steps, t_end=t_end, evaluations=sampling.evaluations, seed=settings.seed
            )
            answer |= {"dimensions": math.prod(target.event), "components": len(target.weights)} | study.as_dict()
            estimates = _estimates(study)
    except ValueError as error:
        return answer | {"refused": str(error)}
    costs = [cost for cost in answer.pop("costs") if cost["quantity"] == COST_QUANTITY]
    return answer | {
        "paths": sum(sample.paths for sample in (*study.differences, *study.plain.values())),
        "costs": costs,
        "estimates": estimates,
        "functions": study.names,
    }


def _compare(sampled: Results, exact: np.ndarray | None) -> None:
    """Put a study's estimates beside the exact answers (levels, F), if there are any."""
    if sampled["refused"]:
        return
    levels, names = sampled["estimates"], sampled.pop("functions")
    exact = exact if sampled["target"] == MIXTURE else None
    for place, level in enumerate(levels):
        level["exact"] = None if exact is None else exact[place]
        if "difference" in level:
            level["exact_difference"] = None if exact is None else exact[place] - exact[place + 1]
    shown = [k for k, function in enumerate(names) if function in SAMPLED_FUNCTIONS]
    sampled["estimates"] = {names[k]: [_one(level, k) for level in levels] for k in shown}
    sampled["held"] = None if exact is None else _held(levels)


def _estimates(study: MonteCarloStudy) -> list[Results]:
    """Per level and function (F,): plain and multilevel estimates of the weak error and the coupled difference to the
    next level, with the half-widths of their 95% intervals."""
    functions, levels = slice(0, len(study.names)), []
    for level in range(len(study.steps)):
        plain = study.level(level)
        value, error, systematic = study.multilevel(level)
        fewest = min(study.differences, key=lambda sample: len(sample.values))
        entry = {
            "steps": int(study.steps[level]),
            "plain": (plain.mean, _quantile(plain) * plain.standard_error),
            "multilevel": (value, _quantile(fewest) * error + systematic),
        }
        if level < len(study.coupled):
            difference = study.differences[level].take(functions)
            entry["difference"] = (difference.mean, _quantile(difference) * difference.standard_error)
        levels.append(entry)
    return levels


def _quantile(sample: BlockMeans) -> float:
    """Student's, of a 95% interval from the means of the sample's blocks."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, len(sample.values) - 1))


def _one(level: Results, k: int) -> Results:
    """One function's numbers of a level."""
    entry: Results = {"steps": level["steps"], "exact": None if level["exact"] is None else float(level["exact"][k])}
    for name in ("plain", "multilevel", "difference"):
        if name in level:
            value, half = level[name]
            entry[name] = {"value": float(value[k]), "half": float(half[k])}
    return entry


def _held(levels: list[Results]) -> Results:
    """How many of the 95% intervals of all functions at all levels hold the exact answer."""
    held = {}
    for name, answer in (("plain", "exact"), ("multilevel", "exact"), ("difference", "exact_difference")):
        found = [(level[name], level[answer]) for level in levels if name in level]
        known = np.concatenate([np.isfinite(exact) for _, exact in found])
        inside = np.concatenate([np.abs(value - exact) <= half for (value, half), exact in found])
        held[name] = {"held": int((inside & known).sum()), "of": int(known.sum())}
    return held


def known_costs(steps: Sequence[int] = KNOWN_STEPS) -> Results:
    """What E x^2 of `KNOWN` on N(0, `KNOWN_VARIANCE`) at the cut-off costs, from exact variances, beside `PUBLISHED`.

    The multilevel sum is sum_k E (f(u_k) - f(u_2k)) over `CHAIN` levels k = N, 2N, ...; a path of a difference takes
    3 k evaluations (times the scheme's per step), and with the best division of the paths it is
    Var f(u_N) N / (sum_k sqrt(Var_k 3 k))^2 times cheaper than plain sampling at N.
    """
    from ...verification.sampled import exact_second_moment

    params = Parameters()
    law = GaussianTarget.of(0.0, KNOWN_VARIANCE, PSLD_DIFFUSION, params)
    levels = sorted({count * 2**k for count in steps for k in range(CHAIN)})
    grids = {count: time_grid("uniform", count, params) for count in {*levels, *(2 * count for count in levels)}}
    found = {count: exact_second_moment(KNOWN, law, grids[count], grids[2 * count]) for count in levels}
    rows = []
    for count in steps:
        moments = exact_moments(KNOWN, law, grids[count])
        error = float(moments.computed.cov[0, 0, 0] - moments.exact.cov[0, 0, 0])
        dear = sum(math.sqrt(found[k].coupled_variance * 3 * k) for k in levels if count <= k < 2**CHAIN * count)
        row = {
            "steps": count,
            "error": error,
            "plain_paths": found[count].plain_variance / (KNOWN_ACCURACY * error) ** 2,
            "variance_ratio": found[count].plain_variance / found[count].coupled_variance,
            "gain": found[count].plain_variance * count / dear**2,
        }
        rows.append(row | {"published": {name: PUBLISHED[name].get(count) for name in PUBLISHED}})
    return {
        "scheme": KNOWN.name,
        "variance": KNOWN_VARIANCE,
        "accuracy": KNOWN_ACCURACY,
        "t_end": params.eps,
        "chain": CHAIN,
        "levels": rows,
    }


@one_thread()
def _calibration(settings: Settings) -> Results:
    """The coupled estimate of E x^2 on N(0, `KNOWN_VARIANCE`), repeated, and how often its 95% interval holds."""
    from scipy.stats import binomtest

    from ...verification.sampled import calibrate
    from ...verification.targets import MixtureTarget

    params = Parameters()
    law = GaussianTarget.of(0.0, KNOWN_VARIANCE, PSLD_DIFFUSION, params)
    target = MixtureTarget.of([1], [[0.0]], [[[KNOWN_VARIANCE]]], params, name="gaussian")
    steps = KNOWN_STEPS[0]
    found = calibrate(
        KNOWN, target, law, steps=steps, repetitions=settings.repetitions, paths=settings.paths, seed=settings.seed
    )
    interval = binomtest(found.contained, found.repetitions).proportion_ci(LEVEL)
    return {
        "scheme": KNOWN.name,
        "variance": KNOWN_VARIANCE,
        "steps": [steps, 2 * steps],
        **found._asdict(),
        "coverage": found.coverage,
        "interval": [float(interval.low), float(interval.high)],
        "level": LEVEL,
        "margin": CALIBRATION_MARGIN,
        "within": abs(found.coverage - LEVEL) <= CALIBRATION_MARGIN,
    }

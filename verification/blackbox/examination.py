"""All that short runs say of a black box: what is wrong with it, and what it rounds.

Consistency (blackbox.consistency) is of first order in h and of the limit h -> 0. Further:

increments   weak schemes draw discrete increments; of what these add to the state order 1 needs the third
             cumulant of size O(h^2), order 2 also the fourth and the fifth smaller than h^2 and h^5/2
             (Kloeden and Platen 1992, section 14.2), which laws of two and of three points have
curvature    the second derivative of the score enters E u' through the displacements d_k of the states where scores
             are taken: sum_k K_k (x) E d_k d_k^T is o(h) for weak order 1, as where each K_k is O(h) by itself, and
             h^2 (G (x) D / 2 + o(1)) for order 2, the one condition of it that affine scores do not see
step sizes   the parts of a step are smooth functions of h (blackbox.smoothness)
times        of the scores may be rounded (blackbox.clock)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ...integrators.blackbox import Kind, Sampler, kind_of
from ...integrators.light_draws import stand_ins
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ..verdicts import Array, Finding, Weight, extrapolate
from ..verdicts import Kind as About
from .anatomy import NAMES, Anatomy, Dissection, check_repeats
from .clock import Grid, clock_of
from .consistency import Inconsistency, departures, lasting, reference
from .short_runs import LENGTHS, STEPS, TIMES, Spot, look
from .slowness import kept, slow
from .smoothness import branches, roughness, rounded_steps, rounding_of_rates, table_of_rates

# A normalised cumulant that is this large is none of rounding, and a limit that is off by so much of its size.
_MOMENT, _CURVATURE = 1e-4, 1e-3
# Runs of what keeps state: steps of those that are looked at for jumps; of those that are refined over one length.
_SOME, _REFINED, _LENGTH = 3, (4, 8, 16, 32, 64), 2.0**-6
# Times that are rounded with their steps are the sampler's own in steps of two spacings; a step size that is rounded by
# itself is known to a few per cent where it is so many spacings long.
_KNOWN, _SMALL = 2, 16


class Examination(NamedTuple):
    """What refutes the sampler; what it rounds, as findings; by how much its scores' times are off on
    average; whether the conditions of the order were checked for every score; the last t where a short run began."""

    problems: tuple[str | Finding, ...]
    rounding: tuple[Finding, ...]
    off: float
    any_score: bool
    until: float


@stand_ins()
def examine(
    sampler: Sampler,
    params: Parameters,
    order: int,
    event: tuple[int, ...] = (),
    diffusion: Diffusion = PSLD_DIFFUSION,
) -> Examination:
    """What short runs say of a black box that is held to an order. Raises BlackBoxError if it cannot be probed."""
    is_step = kind_of(sampler) is Kind.STEP
    check_repeats(sampler, event, diffusion.size)
    anatomy, departs = Dissection(sampler, event, diffusion), partial(departures, params=params, diffusion=diffusion)
    counts = (1,) if is_step else STEPS
    raw = look(anatomy, params, counts)
    clock = clock_of(raw, params)
    spots = raw if clock is None else clock.unrounded(raw, params.T)
    # what a limit is off by says little where it is reached slowly
    late = slow(spots) if clock is None else []
    wrong, shortest = [] if late else departs(spots), 0.0
    if wrong and clock is not None and clock.grid is not None:
        on_grid = clock.grid.look(anatomy, params, counts)
        if on_grid:  # where only steps of other sizes are at fault, they are rounded with the times
            spots, wrong, shortest = on_grid, departs(on_grid), _KNOWN * clock.grid.spacing
    rounding = [] if clock is None else [_rounds(str(clock), shortest)]
    is_timed = params.beta_min != params.beta_max
    if wrong and is_timed and (table := table_of_rates(anatomy, params.eps, 1 if is_step else _SOME)) is not None:
        grid = Grid("", table[1], table[0])
        on_grid = grid.look(anatomy, params, counts)
        if on_grid:
            spots = on_grid if clock is None else clock.unrounded(on_grid, params.T)
            wrong, shortest = departs(spots, table=grid.spacing), _KNOWN * grid.spacing
        text = (
            f"takes the rates of its steps from a table of times, which are {grid.spacing:.3g} apart: they are off by "
            f"what the rates change by between these, whatever the step size"
        )
        rounding.append(_rounds(text, shortest))
    single = max(run.rounding for spot in spots for run in spot.runs)  # reported with its size by the study
    if wrong and clock is None and (steps := rounded_steps(anatomy, 1 if is_step else _SOME, single)) is not None:
        part, number = steps
        on_grid = Grid("", 0.0, number).look(anatomy, params, counts)
        if on_grid:
            spots, wrong, shortest = on_grid, departs(on_grid), _SMALL / number
        text = f"rounds the step size to 1/{number} in {part}, which is off by up to {1 / number:.1e} / h of itself"
        rounding.append(_rounds(text, shortest))
    # what float32 hides of a rate is measured where nothing else is wrong
    measured = (
        rounding_of_rates(anatomy, 1 if is_step else _SOME) if single and not (wrong or late or shortest) else None
    )
    wrong = departs(spots, measured=measured) if measured is not None else wrong
    if not single and not shortest:
        rough, text = roughness(anatomy, 1 if is_step else _SOME)
        rounding += [_rounds(text)] if text else []
        wrong = departs(spots, rough=rough) if (wrong or late) and rough else wrong
        late = [] if rough else late
    if wrong and not is_step and not shortest:

        def again(counts: tuple[int, ...], at: Collection[float]) -> list[Inconsistency]:
            longer = look(anatomy, params, counts, at)
            longer = longer if clock is None else clock.unrounded(longer, params.T)
            return departs(longer, measured=measured)

        wrong = lasting(wrong, again)
    problems: list[str | Finding] = [f"not consistent: {fault}" for fault in wrong] or [*_increments(spots, order)]
    any_score = order == 1
    if not wrong and not shortest:
        problems += [Finding(text, Weight.REFUTES, About.ORDER) for text in late]
        problems = problems or ([] if is_step else [*kept(anatomy, params.T - params.eps)])
        problems = problems or [*branches(anatomy, 1 if is_step else _SOME, single > 0)]
        problems = problems or [*_curvature_at_zero(spots)]
        if order >= 2 and not problems:
            missed = _second_order(anatomy, order, curved=not is_step)
            if is_step and not missed:
                missed = _curvature(spots, params, order, diffusion)
            problems += [Finding(text, Weight.REFUTES, About.ORDER) for text in missed]  # errors may tell more
            any_score = order == 2
    off, until = 0.0 if clock is None else clock.average, params.T - max(spot.tau for spot in spots)
    return Examination(tuple(problems), tuple(rounding), off, any_score, until)


def _rounds(text: str, shortest: float = 0.0) -> Finding:
    return Finding(text, Weight.NOTES, About.ROUNDING, shortest)


# --- Increments -------------------------------------------------------------------------------------------------------


def _increments(spots: Sequence[Spot], order: int) -> list[str]:
    """What discrete increments lack for the order."""
    found = []
    for i, name in enumerate(NAMES[: len(spots[0].runs[0].offset)]):
        for degree, needed, size in ((3, 1, "0"), (4, 2, "3"), (5, 2, "0")):
            if order < needed:
                continue
            limits = [_moment_limit(spot, i, degree) for spot in spots]
            worst = max(limits, key=abs)
            if abs(worst) > _MOMENT:
                ordinal = {3: "third", 4: "fourth", 5: "fifth"}[degree]
                found.append(
                    f"the {ordinal} moment of the increments of {name} is {worst + 3 * (degree == 4):.4g} where order "
                    f"{needed} needs {size}, in units of their standard deviation"
                )
    return found[:1]


def _moment_limit(spot: Spot, i: int, degree: int) -> float:
    """The cumulant of component i's increments over the deviation's power, as h -> 0; 0 for Gaussians."""
    values = [_cumulant(run, i, degree) for run in spot.runs]
    if not any(values):
        return 0.0
    limit, unsure = extrapolate(spot.lengths, [np.array([value]) for value in values])
    return float(limit[0]) if abs(float(limit[0])) > 4 * unsure else 0.0


def _cumulant(run: Anatomy, i: int, degree: int) -> float:
    total = 0.0
    for weights, values in run.increments:
        m = {power: float(weights @ values[:, i] ** power) for power in (2, 3, 4, 5)}
        total += {3: m[3], 4: m[4] - 3 * m[2] ** 2, 5: m[5] - 10 * m[3] * m[2]}[degree]
    variance = float(run.noise_cov[i, i])
    return total / variance ** (degree / 2) if variance > 0 else 0.0


# --- The second derivative of the score -------------------------------------------------------------------------------


def _curvature_at_zero(spots: Sequence[Spot]) -> list[str | Finding]:
    """Where scores are weighed against each other ever more as h -> 0, as in their differences, so that the second
    derivative of the score does not leave with the displacements."""
    for spot in spots:
        if spot.lengths != LENGTHS:
            continue
        terms = [_displacements(run, far=True) / h for run, h in zip(spot.runs, spot.lengths, strict=True)]
        limit, unsure = extrapolate(spot.lengths, terms)
        size = float(np.abs(spot.rates()["gain"][0]).max())
        rounding = max(run.rounding for run in spot.runs) / spot.lengths[-1]
        if np.abs(limit).max() > max(_CURVATURE * size, 4 * unsure, rounding):
            i, j, k, m = np.unravel_index(int(np.abs(limit).argmax()), limit.shape)
            return [
                f"not consistent where the score is not affine: as h -> 0 the weight in {NAMES[i]} of the second "
                f"derivative of s_{NAMES[j]} in {NAMES[k]} and {NAMES[m]} is {limit[i, j, k, m]:.4g} where 0 is right"
            ]
        moved = [_most(run) / h for run, h in zip(spot.runs, spot.lengths, strict=True)]
        # with h a fourth, displacements like noise are a half
        if moved[-1] > max(_CURVATURE * size, rounding) and moved[-1] > 0.8 * moved[-3]:
            return [Finding(_WEIGHED, Weight.FORBIDS, About.ANATOMY)]
    return []


_WEIGHED = (
    "scores of displaced states are weighed against each other by weights that do not vanish with h: what that does "
    "where the score is not affine is not known; take scores at one state"
)


def _most(run: Anatomy) -> float:
    """sum_k |K_k| |d_k|: times a score's Lipschitz constant, a bound of what the displacements of its states do to the
    mean of a run; o(h) is enough for order 1, whatever the score."""
    total = 0.0
    for gain, place in zip(run.gains, run.places, strict=True):
        square = np.trace(place.noise_cov) + (place.offset**2).sum() + (place.moved**2).sum()
        total += float(np.abs(gain).sum()) * float(square + (place.gains**2).sum()) ** 0.5
    return total


def _curvature(spots: Sequence[Spot], params: Parameters, order: int, diffusion: Diffusion) -> list[str]:
    """What of order 2 is missed where the score is not affine."""
    _, G, D = diffusion.reverse().numbers(params.values())
    for spot in spots:
        if spot.lengths != LENGTHS:
            continue
        beta = params.beta(params.T - spot.tau)
        rates = spot.rates()
        held = reference(rates["gain"][0][None], rates["noise"][0][None], beta * G[None], beta * D[None])
        wanted = np.einsum("ij,kl->ijkl", held["gain"][0], held["noise"][0]) / 2
        terms = [_displacements(run, far=True) for run in spot.runs]
        limit, unsure = extrapolate(spot.lengths, [t / h**2 for t, h in zip(terms, spot.lengths, strict=True)])
        size = float(np.abs(np.einsum("ij,kl->ijkl", held["gain"][0], beta * D)).max()) / 2
        off = np.abs(limit - wanted)
        if off.max() > max(_CURVATURE * size, 4 * unsure):
            i, j, k, m = np.unravel_index(int(off.argmax()), off.shape)
            have, want = float(limit[i, j, k, m]), float(wanted[i, j, k, m])
            how = (
                f"{have / want:.4g} times what order {order} needs"
                if want
                else f"{have:.4g} where order {order} needs 0"
            )
            return [
                f"{_AFFINE_ONLY} in {NAMES[k]} and {NAMES[m]} is {how} (noise in the states where scores are taken)"
            ]
    return []


_AFFINE_ONLY = "of order 1 where the score is not affine: the weight of its second derivative"


def _displacements(run: Anatomy, far: bool = False) -> Array:
    """sum_k K_k (x) E d_k d_k^T, (n, n, n, n), of the noise and the offset of the states where scores are taken: what
    the second derivative of a score brings to the mean of a run, twice; far: of a state and scores of size 1 as
    well."""
    moments = [place.noise_cov + np.outer(place.offset, place.offset) for place in run.places]
    if far:
        for k, place in enumerate(run.places):
            moments[k] = moments[k] + sum(
                (each @ each.T for each in (place.moved, *place.gains)), np.zeros_like(moments[k])
            )
    return np.einsum("nij,nkl->ijkl", run.gains, np.array(moments).reshape(run.gains.shape))


def _second_order(anatomy: Dissection, order: int, curved: bool) -> list[str]:
    """What of order 2 is missed in runs of one length H in n steps, whose parts, and what the second derivative of a
    score brings to their mean (curved), have an error a / n + O(n^-2): a = 0 for order 2. The first that is not."""
    for tau in TIMES[:-1]:
        runs = [anatomy(tau + _LENGTH / n * np.arange(n + 1.0)) for n in _REFINED]
        for what, part in _REFINING.items():
            terms = [part(run) for run in runs]
            size = float(np.abs(terms[-1]).max())
            if size == 0 or (what == _CURVED and not curved):  # no noise
                continue
            firsts = [2 * n * (coarse - fine) for n, coarse, fine in zip(_REFINED, terms, terms[1:], strict=False)]
            limit, unsure = extrapolate([1 / n for n in _REFINED[:-1]], firsts)
            off = np.abs(limit)
            if (worst := float(off.max())) <= max(_CURVATURE * size, 4 * unsure):
                continue
            named = what.format(*(NAMES[i] for i in np.unravel_index(int(off.argmax()), off.shape)))
            how = f"a relative error of {worst / size:.3g} / n in a run of n steps"
            if what == _CURVED:
                return [f"{_AFFINE_ONLY} has {how}"]
            return [f"of order 1 where {order} is expected: {named} has {how}"]
    return []


_CURVED = "the second derivative"
_REFINING: dict[str, Callable[[Anatomy], Array]] = {
    "the next {} in terms of the old {}": lambda run: run.moved,
    "the gain of {} from s_{}": lambda run: run.gains.sum(0),
    "the noise covariance of {} and {}": lambda run: run.noise_cov,
    _CURVED: lambda run: _displacements(run),
}

"""What an order study finds, and how much each finding says (verdicts.evidence).

Errors are exact, so where the finest level resolves the dynamics (`RESOLVED`) what contradicts the sampler refutes it,
whatever is proven: a limit that is off by `errors.CERTAIN` uncertainties, an order that is settled below the expected
one over a range of `WIDE`. Where it does not resolve them, or is known less well, it opposes. An error that does not
fall (verdicts.course) opposes. A run that overflows opposes, unless it is too stiff for its steps: that says nothing.

A quantity whose order settles as expected supports; so does one whose error over h^p has a limit, as where it falls
faster or changes its sign with h, and one that is exact to the rounding of float64. Below
rounding to float32 nothing is known: the levels above it decide, and if they leave an order open, it stays open. A
quantity with an order that has not settled forbids a PASS.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..verdicts import MARGIN, Evidence, Finding, Kind, Weight, departing, slopes_of, stall_of, zigzags
from .errors import CONSTANTS_IN_FLOAT32, QUANTITIES

if TYPE_CHECKING:
    from .order import OrderStudy

# h times the fastest rate at the finest level; the coarsest of four that a fit uses is then below 1.
RESOLVED = 0.125
# How many times what errors scatter by one must stand above to be known not to fall.
CLEAR = 4
# Slopes of a stiff or a coarse run may agree by chance over less.
WIDE = 8
NAMES = {"mean": "mean", "covariance": "covariance", "w2": "W2 distance"}


def evidence_of(study: OrderStudy) -> Evidence:
    """All that a study knows."""
    orders = [finding for finding in study.told if finding.kind is Kind.ORDER]
    findings = [finding for finding in study.told if finding.kind is not Kind.ORDER] + _divergence(study)
    if not study.diverged:
        findings += [*_limit(study), *_orders(study), *_levels(study), *_rounding(study)]
    findings += orders  # of conditions of an order, where errors do not tell, or tell the same
    covered = (*study.covered, *_extent(study))
    return Evidence(
        study.expected, study.proven, tuple(findings), study.measured, covered=covered, advice=_advice(study)
    )


def _is_resolved(study: OrderStudy) -> bool:
    return study.stiff <= RESOLVED


def _divergence(study: OrderStudy) -> list[Finding]:
    last = int(study.steps[-1])
    if study.diverged and study.stiff > 1:
        text = f"diverges at {last} steps, where h times the fastest rate is {study.stiff:.2g}: too stiff for them"
        return [Finding(text, Weight.FORBIDS, Kind.LEVELS)]
    if study.diverged:
        return [Finding(f"diverges at {last} steps", Weight.OPPOSES, Kind.LEVELS)]
    if study.errors["w2"][-1] > study.sizes["w2"]:
        return [Finding(f"the error at {last} steps is as large as the law itself", Weight.FORBIDS, Kind.LEVELS)]
    return []


def _limit(study: OrderStudy) -> list[Finding]:
    limit = study.limit
    if limit is None or not (limit.is_biased or limit.is_rounded) or study.is_the_same:
        return []
    if limit.is_rounded:
        text = f"{limit}: constants or times rounded to float32 would do that"
        return [Finding(text, Weight.NOTES, Kind.ROUNDING)]
    weight = Weight.REFUTES if limit.is_certain and _is_resolved(study) else Weight.OPPOSES
    return [Finding(f"converges to a wrong law: {limit}", weight, Kind.LIMIT)]


def _orders(study: OrderStudy) -> list[Finding]:
    if not study.is_single and all(map(study.vanishes, QUANTITIES)):
        return [Finding("exact to round-off", Weight.SUPPORTS, Kind.ORDER)]
    fits, found, stalled = study.fits, list[Finding](), _stalled(study)
    if stalled is not None:
        found.append(Finding(stalled[1], _weight(study, stalled[0]), Kind.ORDER))
    missed = sorted((name for name, fit in fits.items() if fit.misses(study.expected)), key=lambda n: fits[n].order)
    if missed:
        fit, others = fits[missed[0]], " and ".join(NAMES[name] for name in missed[1:])
        text = f"the order of the {NAMES[missed[0]]} is {fit} from {fit.steps[0]} to {fit.steps[1]} steps, "
        text += f"expected {study.expected}" + (f" ({others} too)" if others else "")
        found.append(Finding(text, _weight(study, missed[0]), Kind.ORDER))
    for name in QUANTITIES:
        if name not in missed:
            found.append(_order(study, name))
    return found


def _order(study: OrderStudy, name: str) -> Finding:
    """What is known of the order of one quantity that is not settled below the expected one."""
    fit, called = study.fits.get(name), NAMES[name]
    if fit is not None:
        if fit.reaches(study.expected) and fit.is_settled:
            return Finding(f"the {called} has order {fit.order:.2f}", Weight.SUPPORTS, Kind.ORDER)
        constant = study.constant(name)
        if constant is not None and constant.is_known:
            power = "h" if study.expected == 1 else f"h^{study.expected}"
            text = f"the error of the {called} over {power} has a limit"
            return Finding(text, Weight.SUPPORTS, Kind.ORDER)
        return Finding(f"the order of the {called} is not settled", Weight.FORBIDS, Kind.ORDER)
    if name == "w2" and not study.is_smooth:
        text = "W2 is not judged: covariances are off by more than themselves, where it is the root of a smooth error"
        return Finding(text, Weight.NOTES, Kind.ORDER)
    if not study.vanishes(name):
        text = f"fewer than four levels of the {called} stand above round-off without diverging"
        return Finding(text, Weight.FORBIDS, Kind.ORDER)
    if not study.is_single:
        return Finding(f"the {called} is exact to round-off", Weight.SUPPORTS, Kind.ORDER)
    slopes = slopes_of(study.steps, study.seen(name))
    falls = bool((slopes[np.isfinite(slopes)] >= study.expected - 0.5).all())
    rounding = "what it rounds" if study.scatter else "rounding to float32"
    text = f"the error of the {called} falls below {rounding}, where nothing is known of it"
    return Finding(text, Weight.NOTES if falls else Weight.FORBIDS, Kind.ROUNDING)


def _weight(study: OrderStudy, name: str) -> Weight:
    """How much an order that is too low says: it refutes if it is settled, over a wide range that is resolved."""
    fit = study.fits.get(name)
    if not _is_resolved(study) and (fit is None or not fit.misses(study.expected)):
        return Weight.FORBIDS
    is_wide = fit is not None and fit.misses(study.expected) and fit.steps[1] >= WIDE * fit.steps[0]
    return Weight.REFUTES if is_wide and _is_resolved(study) else Weight.OPPOSES


def _stalled(study: OrderStudy) -> tuple[str, str] | None:
    """Of the errors that do not fall, the quantity and the sentence; None if all do, or have a limit that says so."""
    if study.limit is not None and study.limit.is_biased and not study.is_the_same:
        return None
    found = []
    for name in QUANTITIES:
        # an error that does not fall is told by less than a slope is
        least = np.maximum(study.floor(name, CLEAR), CONSTANTS_IN_FLOAT32 * study.sizes[name])
        judged = (study.errors[name] > least) & (name != "w2" or study.is_smooth)
        errors = np.where(judged, study.errors[name], np.nan)
        stall = stall_of(study.steps[study.kept], errors[study.kept], study.expected)
        if stall is not None:
            text = f"does not converge: the error of the {NAMES[name]} {stall}; {stall.as_claimed}"
            found.append((_weight(study, name), name, text))
    return max(found, key=lambda entry: entry[0])[1:] if found else None


def _levels(study: OrderStudy) -> list[Finding]:
    """Coarser levels that do not follow the fit, where they resolve the dynamics."""
    for name, fit in study.fits.items():
        follows = fit.is_settled and fit.reaches(study.expected)
        left = departing(study.steps, study.seen(name), fit) if follows else None
        if left is not None and study.stiff * study.steps[-1] / left[0] <= 1:
            text = f"at {left[0]} steps and fewer the error of the {NAMES[name]} does not follow its order "
            return [Finding(text + f"(slope {left[1]:.2f} at {left[0]} steps)", Weight.NOTES, Kind.LEVELS)]
    return []


def _rounding(study: OrderStudy) -> list[Finding]:
    if not study.rounding.any():
        return []
    text = f"rounds to float32: over a run it departs by up to {study.rounding.max():.1e} of the law's size from a "
    return [Finding(text + "float64 sampler; errors below that are not fitted", Weight.NOTES, Kind.ROUNDING)]


def _extent(study: OrderStudy) -> tuple[str, ...]:
    """From where on and up to where the sampler is as claimed, if that is not everywhere."""
    found = []
    if left := [f for f in _levels(study) if f.kind is Kind.LEVELS]:
        found.append(left[0].text)
    if study.scatter or not study.kept.all():
        known = [np.flatnonzero(np.isfinite(study.seen(name))) for name in QUANTITIES]
        last = min((int(study.steps[places[-1]]) for places in known if len(places)), default=0)
        if last < study.steps[-1]:
            found.append(f"up to {last} steps, beyond which its rounding shows: it {_rounded(study)}")
    return tuple(found)


def _rounded(study: OrderStudy) -> str:
    """What it was found to round before errors were looked at."""
    return "; ".join(finding.text for finding in study.told if finding.kind is Kind.ROUNDING)


def _advice(study: OrderStudy) -> str:
    """What would settle an open verdict, where something can."""
    last, stiff = int(study.steps[-1]), study.stiff > RESOLVED
    if study.diverged or study.errors["w2"][-1] > study.sizes["w2"]:
        more = math.ceil(study.stiff / RESOLVED) if stiff else 4
        return f"run more steps, about {last * more}"
    unsettled = [name for name, fit in study.fits.items() if not fit.is_settled]
    if study.is_single and not unsettled:
        causes = _rounded(study)
        return "use fewer steps, where errors stand above rounding" + (f": it {causes}" if causes else "")
    if not study.fits:
        return "use other step counts"
    if any(zigzags(study.steps, study.seen(name)) for name in unsettled) and not stiff:
        return "its slopes go up and down, which more steps need not settle: the error is no smooth function of h"
    widest = min(max(((f.high - f.low) / 2 for f in study.fits.values()), default=MARGIN), 8 * MARGIN)
    doublings = max(1, math.ceil(math.log2(max(widest, MARGIN) / MARGIN)))  # an asymptotic interval halves with each
    shortest = max((finding.shortest for finding in study.told if finding.kind is Kind.ROUNDING), default=0.0)
    if study.h[-1] / 2**doublings < shortest or (
        study.is_single
        and any(
            study.errors[name][-1] * 2.0 ** (-study.expected * doublings) <= study.floor(name)[-1] for name in unsettled
        )
    ):
        return "more steps only reach its rounding: run it without (float64, times as they are), or closer levels"
    return f"the slopes still move: run up to about {last * 2**doublings} steps"

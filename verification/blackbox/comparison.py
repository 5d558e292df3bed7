"""Two baselines compared: what a change of a sampler did, as an expert would say it.

Tolerances. Numbers are kept to 13 significant digits, half a unit of which is at most 5e-13. A short run's part is a
product of some ten float64 matrices with entries of size 1 to 100, so another order of operations, another machine or
another library moves it by some 1e-14 of its largest entry: `PART_TOLERANCE` is well above both. A whole run of 100
steps accumulates a hundred times that, through scores with gains up to 1e3: `RUN_TOLERANCE`. A sampler that rounds to
float32 is compared to within a few times its measured rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..targets import GaussianLaw
from .anatomy import NAMES

PART_TOLERANCE, RUN_TOLERANCE = 1e-11, 1e-9
# Changes below this are float32's: constants, times or states rounded to it.
_SINGLE = 1e-6

# One step at several times, of a size that people run and of two small ones, which tell how a change scales with h; and
# three unequal steps, where a multistep method is at work.
STARTS, SIZES = (0.0, 0.3, 0.6, 0.9), (0.04, 0.002, 0.001)
SHORT_GRIDS = (
    *((tau, round(tau + h, 12)) for tau in STARTS for h in SIZES),
    *(tuple(round(tau + h, 12) for h in (0, 0.04, 0.06, 0.09)) for tau in (0.2, 0.7)),
)

Baseline = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A sampler against its baseline: `same` to the tolerances, or `lines` that say what changed, causes first."""

    sampler: str
    lines: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return not self.lines

    def __str__(self) -> str:
        if self.same:
            return f"{self.sampler}: as recorded"
        return "\n".join([f"{self.sampler} differs from its baseline:", *(f"  {line}" for line in self.lines)])


def compare(before: Baseline, now: Baseline) -> Comparison:
    """Two fingerprints, of the same parameters."""
    tolerance = max(PART_TOLERANCE, 8 * before["rounding"])
    lines = [*_cost(before, now), *_parts(before, now, tolerance)]
    moved = _runs(before, now, max(RUN_TOLERANCE, 100 * tolerance if tolerance > PART_TOLERANCE else 0))
    if lines or moved:
        lines += [*moved, *_order(before, now)]
    return Comparison(before["sampler"], tuple(lines))


def of_short_runs(before: list[Any], now: list[Any], rounding: float) -> tuple[str, ...]:
    """What of short runs over `SHORT_GRIDS` (baseline.written) is not as in a word's, `before`, as `compare` says what
    changed; rounding: of the sampler, to float32."""
    pair = {"short_runs": before}, {"short_runs": now}
    lines = [*_times(*pair), *_parts(*pair, max(PART_TOLERANCE, 8 * rounding))]
    return tuple(
        line.replace("what it was", "the word's").replace("is gone (it was", "is missing (the word has")
        for line in lines
    )


def _cost(before: Baseline, now: Baseline) -> list[str]:
    lines = []
    if before["kind"] != now["kind"]:
        lines.append(f"it is now a {now['kind']} sampler, not a {before['kind']}")
    if now["rounding"] > 8 * before["rounding"]:
        lines.append(f"it now rounds to float32: it departs from an affine map by {now['rounding']:.1e}")
    for old, new in zip(before["runs"]["of"], now["runs"]["of"], strict=True):
        if old["nfe"] != new["nfe"]:
            lines.append(f"NFE: {new['nfe']} score evaluations in {old['steps']} steps instead of {old['nfe']}")
            break
    return lines + _times(before, now)


def _times(before: Baseline, now: Baseline) -> list[str]:
    """The first score that is conditioned at another time."""
    for old, new in zip(before["short_runs"], now["short_runs"], strict=True):
        if len(old["score_times"]) != len(new["score_times"]):
            continue  # score k of one is not score k of the other
        for k, (t, t_now) in enumerate(zip(old["score_times"], new["score_times"], strict=True)):
            if abs(t - t_now) > PART_TOLERANCE:
                start, h = old["taus"][0], old["taus"][1] - old["taus"][0]
                places = [f"tau + {round((1 - time - start) / h, 9):g} h (t = {time:.9g})" for time in (t_now, t)]
                return [f"score {k + 1} is conditioned at {places[0]} instead of {places[1]}, h = {h:.6g}"]
    return []


@dataclass(frozen=True)
class _Change:
    """An entry of a part: its old and new values in the short runs where it changed, and the largest relative
    change."""

    part: str
    place: tuple[int, ...]
    runs: tuple[int, ...]
    old: tuple[float, ...]
    new: tuple[float, ...]
    relative: float

    @property
    def in_one_step(self) -> bool:
        """Whether a single step shows the change."""
        return any(len(SHORT_GRIDS[i]) == 2 for i in self.runs)

    def __str__(self) -> str:
        subject = f"{self.part} {_entry(self.part, self.place)}"
        ratios = [b / a for a, b in zip(self.old, self.new, strict=True) if a != 0]
        if not all(map(math.isfinite, (*self.old, *self.new))):
            change = f"is {self.new[0]:.6g} where it was {self.old[0]:.6g}"
        elif len(ratios) == len(self.old) and max(map(abs, ratios)) <= 1e-9:
            change = f"is gone (it was {self.old[0]:.6g})"
        elif len(ratios) == len(self.old) and max(ratios) - min(ratios) <= 1e-3 * abs(ratios[0] - 1):
            change = f"is {ratios[0]:.10g} times what it was"
            if self.part.startswith("noise") and self.place[0] == self.place[-1] and ratios[0] > 0:
                change += f" (its standard deviation {math.sqrt(ratios[0]):.10g} times)"
        else:
            k = int(np.argmax(np.abs(np.subtract(self.new, self.old))))
            tau = SHORT_GRIDS[self.runs[k]][0]
            change = f"changes by up to {self.new[k] - self.old[k]:+.3e}, from {self.old[k]:.9g}, at tau = {tau:g}"
        return f"{subject} {change}{_where(self.runs)}{self._meaning}"

    @property
    def rank(self) -> int:
        """What is a cause rather than a consequence first: the dynamics before the noise they carry."""
        return max(i for i, start in enumerate(_RANKS) if self.part.startswith(start))

    @property
    def limit_stays(self) -> bool | None:
        """Whether the limit h -> 0 is as before; None where that is not clear. A gain is O(h), so where its score is
        taken may change by O(h) as well."""
        if self.power is None:
            return None
        return self.power >= (0.5 if "state" in self.part else 1.5)

    @property
    def power(self) -> float | None:
        """The power of the step size that the change scales as, from the two small ones; None where that is not
        clear."""
        differences = {i: abs(new - old) for i, old, new in zip(self.runs, self.old, self.new, strict=True)}
        pairs = [(i + len(SIZES) - 2, i + len(SIZES) - 1) for i in range(0, len(STARTS) * len(SIZES), len(SIZES))]
        powers = [math.log2(differences[i] / differences[j]) for i, j in pairs if i in differences and j in differences]
        if not powers or max(powers) - min(powers) > 0.5:
            return None
        return sum(powers) / len(powers)

    @property
    def _meaning(self) -> str:
        power = self.power
        if power is None or not -0.25 < power < 6.5:
            return ""
        if power < 0.5:
            return "; it does not shrink with h: it adds up over the steps"
        return f"; of size h^{power:.1f}: the limit h -> 0 {'stays' if self.limit_stays else 'changes'}"


_RANKS = (
    *("propagator", "score gain", "offset", "noise covariance"),
    *("state of score", "offset in the state", "gain of score"),
    *("noise covariance in the state", "noise covariance of the run"),
)


def _parts(before: Baseline, now: Baseline, tolerance: float, most: int = 6) -> list[str]:
    """What changed in the short runs: causes before consequences, then the largest first."""
    changes: dict[tuple[str, tuple[int, ...]], list[tuple[int, float, float, float]]] = {}
    for i, (old, new) in enumerate(zip(before["short_runs"], now["short_runs"], strict=True)):
        if len(old["score_times"]) != len(new["score_times"]):
            old, new = _summed(old), _summed(new)
        names = [name for name in old if name not in ("taus", "score_times")]
        names += [name for name in new if name not in ("taus", "score_times", *names)]
        for name in names:
            a, b = (np.array(run.get(name, 0.0), dtype=float) for run in (old, new))
            a, b = np.broadcast_arrays(a, b)
            finite = np.isfinite(a) & np.isfinite(b)
            size = max(float(np.abs(both[finite]).max(initial=0.0)) for both in (a, b)) or 1e-300
            if "offset" in name or name.startswith("gain_of_score"):
                size = max(size, 1.0)  # of a state of size 1: they may be nothing but rounding
            for place in np.ndindex(a.shape):
                if "noise_covariance" in name and "run_and" not in name and place[0] > place[-1]:
                    continue
                if np.isfinite(a[place]) != np.isfinite(b[place]):
                    relative = math.inf
                elif not finite[place] or (relative := abs(float(a[place] - b[place])) / size) <= tolerance:
                    relative = 0.0
                if relative:
                    found = (i, float(a[place]), float(b[place]), relative)
                    changes.setdefault((name.replace("_", " "), place), []).append(found)
    found = []
    for (part, place), entries in changes.items():
        # Of what one step shows, more steps show only the consequences.
        entries = [entry for entry in entries if len(SHORT_GRIDS[entry[0]]) == 2] or entries
        runs, old, new, relative = zip(*entries, strict=True)
        found.append(_Change(part, place, runs, old, new, max(relative)))
    found = [change for change in found if change.in_one_step] or found
    found.sort(key=lambda change: (change.limit_stays is not False, change.rank, -change.relative))
    lines = [str(change) for change in found[:most]]
    if len(found) > most:
        lines.append(f"and {len(found) - most} more changes")
    largest = max((change.relative for change in found), default=math.inf)
    if largest < _SINGLE:
        lines.append(f"none is above {largest:.0e} of its part: constants, times or states in float32 do that")
    return lines


def _summed(run: dict[str, Any]) -> dict[str, Any]:
    """A short run without what belongs to one of its scores: their gains added up, which is what has a limit."""
    gains = [np.array(value, dtype=float) for name, value in run.items() if name.startswith("score_gain")]
    kept = {name: run[name] for name in ("taus", "score_times", "propagator", "offset", "noise_covariance")}
    return kept | {"score_gain_in_all": sum(gains, np.zeros(np.shape(run["propagator"])))}


def _entry(part: str, place: tuple[int, ...]) -> str:
    if len(place) == 1:
        return f"of {NAMES[place[0]]}"
    join = "and" if part.startswith("noise") else "from s_" if part.startswith("score gain") else "from"
    return f"of {NAMES[place[0]]} {join} {NAMES[place[1]]}".replace("s_ ", "s_")


def _where(runs: tuple[int, ...]) -> str:
    """At which times and in which short runs, unless in all."""
    if all(len(SHORT_GRIDS[i]) > 2 for i in runs):
        return ", in runs of three unequal steps"
    taus = sorted({SHORT_GRIDS[i][0] for i in runs if len(SHORT_GRIDS[i]) == 2})
    return ", at all times" if tuple(taus) == STARTS else f", at tau = {', '.join(f'{tau:g}' for tau in taus)}"


def _runs(before: Baseline, now: Baseline, tolerance: float) -> list[str]:
    """How far the laws of whole runs moved, and whether their errors grew."""
    lines = []
    for old, new in zip(before["runs"]["of"], now["runs"]["of"], strict=True):
        laws = [
            GaussianLaw(np.array(run["mean"], dtype=float).T, np.array(run["cov"], dtype=float).transpose(1, 2, 0))
            for run in (old, new)
        ]
        size = max(1.0, *(float(np.abs(entry).max()) for entry in laws[0]))
        moved = max(float(np.abs(a - b).max()) for a, b in zip(*laws, strict=True)) / size
        overflowed = [not all(np.isfinite(entry).all() for entry in law) for law in laws]
        if all(overflowed) or (not any(overflowed) and moved <= tolerance):
            continue
        title = f"after {old['steps']} {old['grid']} steps"
        if any(overflowed):
            lines.append(f"{title} the run {'no longer' if overflowed[0] else 'now'} overflows")
            continue
        errors = old["w2_error"], new["w2_error"]
        relative = abs(errors[1] / errors[0] - 1) if errors[0] else math.inf
        judgement = "the same" if relative < 1e-3 else "better" if errors[1] < errors[0] else "worse"
        lines.append(
            f"{title} the law moves by {moved:.1e}; its W2 error {errors[0]:.6g} becomes {errors[1]:.6g}, {judgement}"
        )
    return lines


def _order(before: Baseline, now: Baseline) -> list[str]:
    """What became of the order, the error constant and the verdict."""
    old, new = before["order"], now["order"]
    lines = []
    if old["measured"] is not None and new["measured"] is not None and abs(old["measured"] - new["measured"]) > 0.25:
        lines.append(f"the weak order is {new['measured']:.2f} instead of {old['measured']:.2f}")
    elif old["constant"] and new["constant"] and abs(new["constant"] / old["constant"] - 1) > 1e-3:
        change = "smaller: better" if new["constant"] < old["constant"] else "larger: worse"
        lines.append(
            f"the order stays; the error constant is {new['constant']:.4g} instead of {old['constant']:.4g}, {change}"
        )
    else:
        lines.append("order and error constant stay")
    if old["verdict"] != new["verdict"]:
        lines.append(f"verify now says {new['verdict']} instead of {old['verdict']}: {new['reason']}")
    return lines

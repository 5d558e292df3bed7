"""Which word is it? The short runs of a black box beside those of the catalogue's words.

A step, or three unequal ones where a memory is at work, is read off to all digits without any target
(blackbox.anatomy), and so is that of every word over the same diffusion, at several times and step sizes. The sampler
is the word whose short runs are its own; of others it is said what differs, as `baseline check` says what changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...integrators.blackbox import Sampler, as_black_box
from ...integrators.catalogue import all_schemes
from ...theory.clock import CLOCKS, TIME
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ...theory.scheme import Scheme
from .anatomy import Anatomy, dissect
from .baseline import written
from .comparison import SHORT_GRIDS, of_short_runs
from .near_words import near_words

Progress = Callable[[Sequence[Any]], Iterable[Any]]
# Enough to tell words apart: what is nearest is compared in all short runs.
_FEW = (0, 4, 13)
_NEAREST = 3
_IS_IT = 1e-6  # a distance beyond which no word is the sampler


@dataclass(frozen=True)
class Likeness:
    """A word beside a sampler: `distance`, how far they are apart, relative to what a step changes; and what differs,
    for people, nothing where they agree."""

    scheme: Scheme
    distance: float
    differs: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether the sampler is the word."""
        return not self.differs

    def __str__(self) -> str:
        scheme = self.scheme
        held = f", {scheme.frozen.name} held" if scheme.flow != "euler" else ""
        memory = f", memory {scheme.memory}" if scheme.memory > 1 else ""
        memory += "" if scheme.clock.is_theta else f", clock {scheme.clock}"
        text = f"{scheme.word} on {scheme.splitting.name}, {scheme.flow} sub-flows{held}{memory}"
        return f"{scheme.name} = {text}" if scheme.name != scheme.word else text

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        scheme = self.scheme
        return {
            "scheme": scheme.name,
            "word": scheme.word,
            "splitting": scheme.splitting.name,
            "flow": scheme.flow,
            "frozen": scheme.frozen.name,
            "memory": scheme.memory,
            "clock": str(scheme.clock),
            "distance": self.distance,
            "differs": list(self.differs),
        }


def words(diffusion: Diffusion = PSLD_DIFFUSION) -> list[Scheme]:
    """The catalogue's over a diffusion, that are sampled. Raises ValueError where there are none."""
    found = [scheme for scheme in all_schemes().values() if scheme.splitting.diffusion == diffusion]
    if not found:
        known = dict.fromkeys(scheme.splitting.diffusion.name for scheme in all_schemes().values())
        raise ValueError(
            f"diffusion {diffusion.name!r} has no words in the catalogue to compare with; choose {' or '.join(known)}"
        )
    return found


def in_other_clocks(scheme: Scheme, params: Parameters) -> list[Scheme]:
    """A word with a memory in every other built-in clock; t is int beta where beta is constant."""
    found = []
    for clock in CLOCKS.values():
        same = clock.name == TIME.name and params.beta_min == params.beta_max
        if clock != scheme.clock and not same:
            with contextlib.suppress(ValueError):  # a clock of one component
                found.append(replace(scheme, name="", clock=clock))
    return found


def identify(
    sampler: Sampler,
    params: Parameters,
    event: tuple[int, ...] = (),
    candidates: Sequence[Scheme] | None = None,
    progress: Progress = iter,
    diffusion: Diffusion = PSLD_DIFFUSION,
) -> list[Likeness]:
    """The nearest of the candidates (default `words`, and where none of them is it the nearest that remember in other
    clocks), those that agree first; diffusion: what the sampler and the words sample. Raises BlackBoxError where the
    sampler cannot be read off, ValueError where there is no word to compare with."""
    chosen = words(diffusion) if candidates is None else candidates
    own = _Own(sampler, params, event, diffusion)
    found = sorted((own.entry(scheme) for scheme in progress(chosen)), key=_distance)
    if candidates is None and found[0][0] > _IS_IT:
        remembering = [scheme for _, scheme, _ in found[: 2 * _NEAREST] if scheme.memory > 1]
        others = [other for scheme in remembering for other in in_other_clocks(scheme, params)]
        found += [own.entry(scheme) for scheme in progress(others)]
        found.sort(key=_distance)
    nearest = [own.likeness(*entry) for entry in found[:_NEAREST]]
    if any(likeness.is_same for likeness in nearest):
        return sorted(nearest, key=lambda likeness: (bool(likeness.differs), likeness.distance))
    slip = own.slip(found)
    return nearest if slip is None else [slip, *(one for one in nearest if one.scheme != slip.scheme)]


# How far a word is from the sampler, the word, and it as a black box.
_Entry = tuple[float, Scheme, Sampler]


def _distance(entry: _Entry) -> float:
    return entry[0]


class _Own:
    """A sampler's short runs over `SHORT_GRIDS`, with which those of words are compared."""

    def __init__(self, sampler: Sampler, params: Parameters, event: tuple[int, ...], diffusion: Diffusion) -> None:
        self.params, self.diffusion = params, diffusion
        self.anatomies = [dissect(sampler, np.array(taus), event, diffusion) for taus in SHORT_GRIDS]
        self.runs = [written(anatomy) for anatomy in self.anatomies]
        self.rounding = max(anatomy.rounding for anatomy in self.anatomies)

    def entry(self, scheme: Scheme) -> _Entry:
        """A word beside it in a few runs."""
        box = as_black_box(scheme, self.params)
        return max(_apart(self.anatomies[k], self._dissected(box, k)) for k in _FEW), scheme, box

    def likeness(self, distance: float, scheme: Scheme, box: Sampler) -> Likeness:
        """A word beside it in all of them."""
        theirs = [self._dissected(box, k) for k in range(len(SHORT_GRIDS))]
        scores = [anatomies[0].nfe for anatomies in (self.anatomies, theirs)]
        lines = [f"it takes {scores[0]} scores in a step and the word {scores[1]}"] * (scores[0] != scores[1])
        lines += of_short_runs([written(anatomy) for anatomy in theirs], self.runs, self.rounding)
        return Likeness(scheme, distance, tuple(lines))

    def slip(self, entries: Sequence[_Entry]) -> Likeness | None:
        """The first word of which it is a near one (`near_words`), which is what differs; None if there is none."""
        for distance, scheme, _ in entries:
            for said, other in near_words(scheme) if scheme.memory == 1 else ():
                if other.nfe_per_step != self.anatomies[0].nfe:
                    continue
                box = as_black_box(other, self.params)
                if _apart(self.anatomies[0], self._dissected(box, 0)) > _IS_IT:
                    continue
                if self.likeness(0.0, other, box).is_same:
                    return Likeness(scheme, distance, (f"{said}: {other.word}",))
        return None

    def _dissected(self, box: Sampler, k: int) -> Anatomy:
        return dissect(box, np.array(SHORT_GRIDS[k]), (), self.diffusion)


def _apart(own: Anatomy, theirs: Anatomy) -> float:
    """The largest difference of two short runs, relative to each part: of all parts where they have as many scores,
    else of propagator, noise and the gains of all scores added up."""
    pairs = [(a, b) for (_, a), (_, b) in zip(own.parts(), theirs.parts(), strict=own.nfe == theirs.nfe)]
    if own.nfe != theirs.nfe:
        gains = own.gains.sum(0), theirs.gains.sum(0)
        pairs = [(own.propagator, theirs.propagator), gains, (own.noise_cov, theirs.noise_cov)]
    apart = 0.0
    for a, b in pairs:
        size = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)), 1e-12)
        apart = max(apart, float(np.abs(a - b).max(initial=0)) / size)
    return apart

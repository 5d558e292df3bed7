"""Evidence as a value, and the one function that makes a verdict of it.

Whatever a study learns of a sampler is a `Finding`: a sentence, and how much it says (`Weight`). Readings differ in
what they know, and so in the findings they make; how findings add up is decided here and nowhere else.

    REFUTES    exact evidence beyond its own uncertainty, or a premise that does not hold: no proof outranks it, for a
               proof is of the declaration, and what ran does something else
    OPPOSES    speaks against the sampler, but with an error of chance or in a range that is not asymptotic: it decides
               where nothing is proven, and is in dispute with a proof of the expected order
    FORBIDS    is not explained, or not known well enough, by itself: no PASS while it stands
    SUPPORTS   an order, or a limit, that is as expected
    NOTES      should be known, and decides nothing: rounding with its size, levels that were left out

Four states follow, and of them the three verdicts:

    CONTRADICTED  a finding refutes, or one opposes and nothing is proven      FAIL, the sentence says which
    DISPUTED      a finding opposes what is proven                             INCONCLUSIVE, with a sentence of its own
    SUPPORTED     some finding supports, and none speaks against it           PASS, with what was covered
    OPEN          too little is known                                         INCONCLUSIVE, with what would settle it

Contradicted and open are different states: more steps settle the second and never the first. So advice is given in
the open state alone, by a study that has checked that it can help.

Nothing is dropped: a finding that is not in the verdict's sentence is a warning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property

from ...theory.showing import Shown
from .fits import Fit
from .verdict import Verdict, order_sentence


class Weight(IntEnum):
    """How much a finding says."""

    NOTES = 0
    SUPPORTS = 1
    FORBIDS = 2
    OPPOSES = 3
    REFUTES = 4


class Kind(StrEnum):
    """What a finding is about."""

    PREMISE = "premise"  # of the proof: the declaration, its whole, its word
    ANATOMY = "anatomy"  # a short run, read off part by part
    ORDER = "order"  # errors and their slopes
    LIMIT = "limit"  # what errors tend to
    LEVELS = "levels"  # numbers of steps that were left out, or depart from the others
    ROUNDING = "rounding"  # of states, constants or times, with its size
    RANGE = "range"  # what was not tried: times, shapes, scores


@dataclass(frozen=True)
class Finding:
    """One thing that is known of a sampler: a sentence without a full stop, and how much it says.

    shortest: of rounding alone, the shortest step h that it leaves undisturbed: runs with shorter steps say nothing of
    the sampler but this. 0 where it disturbs no run, or where that is not known and errors must tell.
    """

    text: str
    weight: Weight
    kind: Kind
    shortest: float = 0.0


class State(StrEnum):
    """What all findings add up to."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    DISPUTED = "disputed"
    OPEN = "open"

    @property
    def verdict(self) -> Verdict:
        """What is said of it outside."""
        return _VERDICTS.get(self, Verdict.INCONCLUSIVE)


_VERDICTS = {State.SUPPORTED: Verdict.PASS, State.CONTRADICTED: Verdict.FAIL}


@dataclass(frozen=True)
class Evidence:
    """All that a study knows: the order it holds the sampler to, the proven one (None without a proof), its findings
    and the fit to show; known: sentences that go with any order; covered: what was tried, for a PASS; excuse: what else
    than the sampler may explain a dispute with the proof; advice: what would settle an open verdict. The last two are
    "" if there is nothing to say."""

    expected: int
    proven: int | None
    findings: tuple[Finding, ...]
    measured: Fit | None = None
    known: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()
    excuse: str = ""
    advice: str = ""

    @property
    def is_proven(self) -> bool:
        """Whether the expected order is."""
        return self.proven is not None and self.proven >= self.expected

    @property
    def has_failed_premise(self) -> bool:
        """Whether the declaration or a step by itself is refuted, before any run was looked at."""
        return any(f.weight is Weight.REFUTES and f.kind in (Kind.PREMISE, Kind.ANATOMY) for f in self.findings)

    def of(self, *weights: Weight) -> list[str]:
        """The sentences of findings that say so much."""
        return [finding.text for finding in self.findings if finding.weight in weights]


@dataclass(frozen=True)
class Judgement:
    """The state, the verdict's sentence, and what else should be known."""

    state: State
    reason: str
    warnings: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE."""
        return self.state.verdict


# What may have caused what the errors show.
_CAUSES = (Kind.PREMISE, Kind.ANATOMY, Kind.ROUNDING)


def judge(evidence: Evidence) -> Judgement:
    """The verdict on all evidence, by the rules above."""
    refuting, opposing, forbidding = (evidence.of(w) for w in (Weight.REFUTES, Weight.OPPOSES, Weight.FORBIDS))
    order = order_sentence(evidence.measured, evidence.expected, evidence.proven)
    causes = [f.text for f in evidence.findings if f.weight is Weight.FORBIDS and f.kind in _CAUSES]
    if refuting:
        state, said = State.CONTRADICTED, _first_kind(evidence, Weight.REFUTES)
        if said and evidence.is_proven and not evidence.has_failed_premise:
            said = [*said, f"the implementation or the declaration contradicts the proof of order {evidence.proven}"]
        said += causes
    elif opposing and not evidence.is_proven:
        state, said = State.CONTRADICTED, [*_first_kind(evidence, Weight.OPPOSES), *causes]
    elif opposing:
        against = f"{'; '.join(opposing)}, against the proof of order {evidence.proven}"
        state, said = State.DISPUTED, [against + (f": {evidence.excuse}" if evidence.excuse else ""), *evidence.known]
        said += forbidding
    elif evidence.of(Weight.SUPPORTS) and not forbidding:
        is_settled = evidence.measured is not None and evidence.measured.is_settled
        supporting = [order_sentence(None, evidence.expected, evidence.proven), *evidence.of(Weight.SUPPORTS)]
        known = [order] if is_settled else supporting if evidence.measured else supporting[1:]
        state, said = State.SUPPORTED, [*known, *evidence.known, *evidence.covered]
    else:
        state, said = State.OPEN, [order, *evidence.known, *forbidding]
        said += [evidence.advice] if evidence.advice else []
    left = [f.text for f in evidence.findings if f.weight is not Weight.SUPPORTS and not _is_said(f.text, said)]
    return Judgement(state, "; ".join(said), tuple(dict.fromkeys(left)))


class Judged(Shown, ABC):
    """A study that ends in a verdict: it says what its evidence is, and what that adds up to follows."""

    @property
    @abstractmethod
    def evidence(self) -> Evidence:
        """All that the study knows."""

    @cached_property
    def judgement(self) -> Judgement:
        """What the evidence adds up to."""
        return judge(self.evidence)

    @property
    def state(self) -> State:
        """Of the four above."""
        return self.judgement.state

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE."""
        return self.judgement.verdict

    @property
    def reason(self) -> str:
        """The verdict in a sentence, with what would settle an open one."""
        return self.judgement.reason

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does not decide the verdict, but should be known."""
        return self.judgement.warnings


def findings_of(
    problems: Iterable[str | Finding] = (), hints: Iterable[str | Finding] = (), notes: Iterable[str | Finding] = ()
) -> tuple[Finding, ...]:
    """Sentences as findings of the anatomy: problems refute, hints forbid a PASS, notes are noted. Findings stay as
    they are."""
    weighted = ((problems, Weight.REFUTES), (hints, Weight.FORBIDS), (notes, Weight.NOTES))
    return tuple(
        text if isinstance(text, Finding) else Finding(text, weight, Kind.ANATOMY)
        for texts, weight in weighted
        for text in texts
    )


def _first_kind(evidence: Evidence, weight: Weight) -> list[str]:
    """The findings of a weight that are about the same as the first of them: the others are warnings."""
    found = [finding for finding in evidence.findings if finding.weight is weight]
    return [finding.text for finding in found if finding.kind is found[0].kind]


def _is_said(text: str, sentences: Iterable[str]) -> bool:
    return any(text in sentence for sentence in sentences)

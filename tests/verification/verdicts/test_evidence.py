"""How findings add up to one of four states, and that none is lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from weakorder.verification.verdicts.evidence import Evidence, Finding, Kind, State, Weight, findings_of, judge
from weakorder.verification.verdicts.fits import Fit
from weakorder.verification.verdicts.verdict import Verdict

GOOD = Finding("the mean has order 1.00", Weight.SUPPORTS, Kind.ORDER)
LOW = Finding("the order of the mean is 0.00", Weight.OPPOSES, Kind.ORDER)
WRONG = Finding("converges to a wrong law", Weight.REFUTES, Kind.LIMIT)
HINT = Finding("not consistent: the noise is 1.005 times what is right", Weight.FORBIDS, Kind.ANATOMY)
NOTE = Finding("rounds to float32", Weight.NOTES, Kind.ROUNDING)
FIT = Fit(1.0, 0.9, 1.1, (50, 400))


def judged(*findings: Finding, proven: int | None = None, expected: int = 1, **more):
    return judge(Evidence(expected, proven, findings, FIT, **more))


@pytest.mark.parametrize(
    ("findings", "unproven", "proven"),
    [
        ([GOOD], State.SUPPORTED, State.SUPPORTED),
        ([GOOD, NOTE], State.SUPPORTED, State.SUPPORTED),
        ([], State.OPEN, State.OPEN),
        ([NOTE], State.OPEN, State.OPEN),
        ([GOOD, HINT], State.OPEN, State.OPEN),
        ([GOOD, LOW], State.CONTRADICTED, State.DISPUTED),
        ([GOOD, LOW, HINT], State.CONTRADICTED, State.DISPUTED),
        ([GOOD, WRONG], State.CONTRADICTED, State.CONTRADICTED),
        ([LOW, WRONG, HINT], State.CONTRADICTED, State.CONTRADICTED),
    ],
)
def test_the_heaviest_finding_decides_and_only_a_proof_outranks_what_opposes(findings, unproven, proven) -> None:
    assert judged(*findings).state is unproven
    assert judged(*findings, proven=1).state is proven
    assert judged(*findings, proven=1, expected=2).state is unproven, (
        "a proof of less than is expected outranks nothing"
    )


def test_four_states_are_three_verdicts() -> None:
    assert [state.verdict for state in State] == [
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.INCONCLUSIVE,
        Verdict.INCONCLUSIVE,
    ]


@given(st.lists(st.sampled_from([GOOD, LOW, WRONG, HINT, NOTE]), max_size=5), st.sampled_from([None, 1]))
def test_no_finding_is_lost(findings: list[Finding], proven: int | None) -> None:
    """Claim: what does not support is in the verdict's sentence or among the warnings, whatever the state."""
    found = judged(*findings, proven=proven, advice="run more", covered=("t from 1 to 0.1",))
    said = "\n".join([found.reason, *found.warnings])
    assert all(finding.text in said for finding in findings if finding.weight is not Weight.SUPPORTS)
    assert ("run more" in found.reason) == (found.state is State.OPEN), "only what is open can be settled"
    assert ("t from 1 to 0.1" in found.reason) == (found.state is State.SUPPORTED)


def test_exact_evidence_against_a_proof_says_what_it_contradicts() -> None:
    assert "the implementation or the declaration contradicts the proof of order 1" in judged(WRONG, proven=1).reason
    assert "contradicts the proof" not in judged(WRONG).reason
    premise = Finding("proven order 1, expected 2", Weight.REFUTES, Kind.PREMISE)
    assert judged(premise, WRONG, proven=1).reason == premise.text
    assert judged(premise, WRONG, proven=1).warnings == (WRONG.text,)


def test_a_pass_that_rests_on_a_constant_shows_no_interval_without_end() -> None:
    constant = Finding("the error of the mean over h has a limit", Weight.SUPPORTS, Kind.ORDER)
    for fit in (Fit(0.9, -math.inf, math.inf, (25, 200)), Fit(0.9, 0.2, 1.6, (25, 200))):
        found = judge(Evidence(1, None, (constant,), fit))
        assert (found.state, found.reason) == (State.SUPPORTED, f"expected 1; {constant.text}")
        assert "inf" not in str(fit)
    assert judge(Evidence(1, None, (constant,), Fit(0.9, 0.8, 1.0, (25, 200)))).reason.startswith("measured order 0.90")


def test_a_dispute_has_a_sentence_of_its_own() -> None:
    found = judged(LOW, proven=1, excuse="the levels are not asymptotic yet")
    assert found.reason == f"{LOW.text}, against the proof of order 1: the levels are not asymptotic yet"


def test_sentences_become_findings_by_where_they_stand() -> None:
    found = findings_of(("a",), ("b",), ("c", NOTE))
    assert [finding.weight for finding in found] == [Weight.REFUTES, Weight.FORBIDS, Weight.NOTES, Weight.NOTES]
    assert found[-1] is NOTE

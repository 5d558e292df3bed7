"""The mutants: broken samplers are caught and the message points at the place; correct ones raise no alarm."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from selection import nightly_but
from weakorder.reports.pages.self_test import SECTIONS, render, run_self_test
from weakorder.reports.pages.strict_json import dumps
from weakorder.verification.blackbox.correct_samplers import BUILDERS, DRAWS, variations
from weakorder.verification.blackbox.mutants import CLUES, MUTANTS, LibraryError, read_library
from weakorder.verification.blackbox.mutation import (
    SMALLEST_EFFECT,
    Mutant,
    MutationError,
    Outcome,
    bases,
    run_mutant,
)

FAULTS = [mutant for mutant in MUTANTS if not mutant.equivalent]
BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def test_the_library_holds_the_faults_it_promises_each_under_a_name_of_its_own() -> None:
    assert len(FAULTS) >= 150
    assert len(BY_NAME) == len(MUTANTS)
    assert {mutant.base for mutant in MUTANTS} >= {"sscs", "oba", "robab", "verlet", "step", "sample", "ab2", "sab2"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutants_patch_applies_and_changes_the_sampler(mutant: Mutant) -> None:
    assert mutant.text != bases()[mutant.base].text
    compile(mutant.text, mutant.name, "exec")
    assert mutant.equivalent or mutant.clue


def test_a_patch_that_does_not_match_once_is_refused() -> None:
    for old, count in (("no such text", 0), ("s_m, first)", 2)):
        with pytest.raises(MutationError, match=f"matches {count} times"):
            _ = Mutant("stale", "oba", ((old, ""),), "").text


LIBRARY = """## oba

```diff
@@ one | what | gain mm
- a
+ b
  c
@@ and
+ d
  e

@@ two | what else | equivalent, constant
- f
```
"""


def test_the_library_is_read_as_its_own_page_says() -> None:
    one, two = read_library(LIBRARY)
    assert one.edits == (("a\nc\n", "b\nc\n"), ("e\n", "d\ne\n"))
    assert (one.name, one.fault, one.clue, one.equivalent) == ("oba: one", "what", CLUES["gain mm"], False)
    assert (two.edits, two.models, two.equivalent) == ((("f\n", ""),), ("constant",), True)


@pytest.mark.parametrize(("old", "new"), [("- a", "a"), (" | gain mm", "")])
def test_a_library_that_cannot_be_read_is_refused(old: str, new: str) -> None:
    with pytest.raises(LibraryError):
        read_library(LIBRARY.replace(old, new))


# One of each kind of fault; the nightly run takes them all.
SAMPLE = (
    "oba: score sign in the kick",
    "oba: momentum noise 0.1% small",
    "oba: exponential noise",
    "oba: coin tosses",
    "oba: skew coins",
    "oba: one number for all pixels",
    "oba: score of displaced states",
    "oba: fault near the data",
    "oba: fault in long steps",
    "step: kappa ignored",
    "ab2: weights swapped",
    "ab2: no reset",
    "ROBA: half a drift",
    "ROBA: noise of A",
    "SSCS: order 2 claimed",
)


FEW = (5, 10, 20, 40)  # numbers of steps that tell the faults of the sample


@pytest.mark.parametrize("name", SAMPLE)
def test_a_fault_of_each_kind_is_caught_and_pointed_at(name: str) -> None:
    _assert_right(run_mutant(BY_NAME[name], FEW))


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_fault_is_caught_and_pointed_at(name: str) -> None:
    _assert_right(run_mutant(BY_NAME[name]))


def _assert_right(outcome: Outcome) -> None:
    said = "\n".join((outcome.message, *outcome.explanation))
    assert outcome.right, f"{outcome.check or 'survived'} ({outcome.model}, effect {outcome.effect:.1e}): {said}"


def test_a_wrong_clue_an_unflagged_fault_and_a_flagged_equivalent_are_not_right() -> None:
    fault, none = BY_NAME["oba: exponential noise"], BY_NAME["oba: kick multiplied out"]
    caught = Outcome(fault, "refused", "constant", math.nan, "the sampler draws from torch.exponential_")
    assert caught.right
    assert not replace(caught, message="something is wrong").right
    assert not Outcome(fault, "", "", 2 * SMALLEST_EFFECT, "").right
    assert Outcome(fault, "", "", SMALLEST_EFFECT / 2, "").right
    assert not Outcome(fault, "", "", math.nan, "").right
    assert Outcome(none, "", "", 0.0, "").right
    assert not Outcome(none, "baseline", "constant", 0.0, "").right
    assert not Outcome(none, "", "", 2 * SMALLEST_EFFECT, "").right


def test_variations_are_the_same_at_every_call_and_of_every_kind() -> None:
    names = [variation.name for variation in variations(300)]
    assert names == [variation.name for variation in variations(300)]
    assert len(set(names)) == 300
    for name in BUILDERS:
        assert any(f": {name} drawing" in text for text in names), name
    for draw in DRAWS:
        assert any(text.endswith(f"by {draw}") for text in names), draw


@pytest.mark.parametrize("number", nightly_but((1).__eq__, (0, 1)))
def test_correct_samplers_raise_no_alarm(number: int) -> None:
    variation = list(variations(2))[number]
    assert variation.alarms() == (), variation.name


@pytest.mark.nightly
def test_a_variation_that_is_not_correct_raises_one() -> None:
    first = next(variations(1))
    mutant = BY_NAME["oba: momentum noise 0.1% small"]
    broken = replace(
        first,
        make=lambda: bases()["oba"].load("constant", mutant.text),
        plain=lambda: bases()["oba"].load("constant"),
        model=first.model._replace(params=replace(first.model.params, gamma=0.01, nu=4.01, beta_min=8, beta_max=8)),
    )
    broken = replace(broken, target=replace(broken.target, params=broken.model.params))
    assert any("noise covariance of m and m" in line for line in broken.alarms(FEW))


@pytest.mark.nightly
def test_the_page_shows_what_was_run() -> None:
    chosen = [BY_NAME[name] for name in ("oba: exponential noise", "ROBA: half a drift", "BAOAB: score's time")]
    results = run_self_test(mutants=chosen, correct=1)
    json.loads(dumps(results))
    assert [row["check"] for row in results["killed"]] == ["verify", "refused"]
    assert (results["faults"], results["wrong"], results["false_alarms"]) == (2, [], [])
    page = render(results)
    for text in ("oba: exponential noise", "weights of A sum to 1/2", "BAOAB: score", "did what it should"):
        assert text in page
    assert set(SECTIONS) >= {row["check"] for row in results["killed"]}


def test_the_page_says_so_where_a_check_failed() -> None:
    results = run_self_test(mutants=[], correct=0)
    survivor = {
        "name": "base: <b>", "base": "base", "fault": "f", "check": "", "model": "", "effect": 1e-3, "overflows": False,
        "points": False, "said": [""], "reason": "effect 1.0e-03", "right": False,
    }  # fmt: skip
    page = render(results | {"survivors": [survivor], "wrong": ["base: <b>"], "faults": 1})
    assert "1 mutants and 0 correct samplers were judged wrongly" in page
    assert "base: &lt;b&gt;" in page
    assert "did what it should" not in page

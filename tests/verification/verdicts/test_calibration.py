"""The thresholds of verdicts against correct samplers, whose figures tests/calibration.py prints."""

from __future__ import annotations

from dataclasses import replace

import pytest
from calibration import calibrated, nearness
from selection import examples, nightly_but
from weakorder.verification.blackbox.correct_samplers import variations
from weakorder.verification.blackbox.mutants import MUTANTS
from weakorder.verification.blackbox.mutation import MODELS, bases, study


@pytest.mark.parametrize("part", nightly_but(lambda part: part == 0, range(10)))
def test_no_correct_sampler_fails_or_is_refused_or_comes_to_a_threshold(part: int) -> None:
    """Of each hundred the first few in every run, else all."""
    few = examples(1).max_examples == 1
    for variation in list(variations(100 * (part + 1)))[100 * part :: 50 if few else 1]:
        row = calibrated(variation)
        assert row["verdict"] in ("PASS", "INCONCLUSIVE"), row
        assert max(row[name] for name in ("limit", "order", "convergence")) < 1, row


def test_a_wrong_sampler_goes_beyond_a_threshold() -> None:
    """The broken variant: noise a per cent too large, and errors that do not fall. (A tenth of a per cent is within
    what so few steps know of the limit; the anatomy tells it.)"""
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == "oba: momentum noise 1% large"]
    found = study(bases()["oba"].load("constant", mutant.text), 1, MODELS["constant"])
    assert nearness(found)["limit"] > 1
    assert nearness(replace(found, errors={q: e[0] + 0 * e for q, e in found.errors.items()}))["convergence"] > 1

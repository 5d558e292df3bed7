"""A sampler is the word whose maps it has, and of another it is said what differs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from selection import nightly_but
from weakorder.examples import published_em
from weakorder.examples.multistep import sab2
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import all_schemes
from weakorder.theory.clock import LOGSNR, THETA, TIME, Clock
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.blackbox import identify
from weakorder.verification.blackbox.identify import words

PARAMS, CONSTANT = Parameters(beta_min=0.5, beta_max=12.0), Parameters()
WORDS = {scheme.name: scheme for scheme in words()}


def names(found) -> list[str]:
    return [likeness.scheme.name for likeness in found if likeness.is_same]


@pytest.mark.parametrize("name", nightly_but(("ROBAB", "DEIS-2").__contains__, WORDS))
def test_every_word_is_identified_and_no_other(name: str) -> None:
    assert names(identify(as_black_box(WORDS[name], PARAMS), PARAMS)) == [name]


def test_the_words_are_those_of_phase_space() -> None:
    of_phase_space = {s.name for s in all_schemes().values() if s.splitting.diffusion == PSLD_DIFFUSION}
    assert set(WORDS) == of_phase_space
    assert len(WORDS) == 26


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "clock"),
    [("DEIS-2", LOGSNR.at_midpoint), ("SDE-DPM-Solver++2M", LOGSNR), ("SAB2", TIME), ("RES-2", THETA.at_midpoint)],
)
def test_a_word_in_another_clock_is_identified(name: str, clock: Clock) -> None:
    """Claim: though the catalogue has none, with beta linear in t, and that clock is named."""
    scheme = replace(WORDS[name], name="", clock=clock)
    (first, second, *_) = identify(as_black_box(scheme, PARAMS), PARAMS)
    assert (first.is_same, first.scheme, second.is_same) == (True, replace(scheme, name=scheme.word), False)
    assert f"clock {clock}" in str(first)
    assert first.as_dict()["clock"] == str(clock)


def test_published_code_is_identified() -> None:
    assert names(identify(published_em.step, CONSTANT)) == ["EM"]
    assert names(identify(sab2, CONSTANT)) == ["SAB2"]


def test_another_number_of_scores_is_another_word() -> None:
    """Claim: also where all scores add up to the same, under constant beta."""
    (same, other, _) = identify(as_black_box(WORDS["NOBA"], CONSTANT), CONSTANT)
    assert (same.scheme.name, same.is_same, other.scheme.name) == ("NOBA", True, "ROBA")
    assert other.differs == ("it takes 2 scores in a step and the word 1",)


EM = as_black_box(WORDS["EM"], PARAMS)
BROKEN = {
    "noise": (
        as_black_box(replace(WORDS["EM"], lambda_s=1.1), PARAMS),
        r"noise covariance of x and x is 1\.21 times the",
    ),
    "time": (
        lambda u, tau, h, score: EM(u, tau, h, lambda v, t: score(v, t - h / 4)),
        r"score 1 is conditioned at tau \+ 0\.25 h",
    ),
    "gain": (
        lambda u, tau, h, score: EM(u, tau, h, lambda v, t: 1.01 * score(v, t)),
        r"score gain 1 of m from s_m is 1\.01 times the word's",
    ),
}


@pytest.mark.parametrize(
    ("sampler", "said"), nightly_but(lambda case: case is BROKEN["time"], BROKEN.values()), ids=BROKEN
)
def test_what_differs_from_the_nearest_word_is_named(sampler, said: str) -> None:
    nearest = identify(sampler, PARAMS)
    assert names(nearest) == []
    assert nearest[0].scheme.name == "EM"
    assert any(re.search(said, line) for line in nearest[0].differs), nearest[0].differs


def test_a_run_that_ends_without_noise_lacks_it() -> None:
    nearest = identify(published_em.sample, CONSTANT)
    assert nearest[0].scheme.name == "EM"
    assert any(re.search(r"of m and m is missing \(the word has", line) for line in nearest[0].differs)

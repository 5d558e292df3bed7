"""A sampler that is a word but for one slip is told by the slip, and by the word that it makes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selection import nightly_but
from weakorder.examples import splitting
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import all_schemes
from weakorder.integrators.loading import load_object
from weakorder.theory.parameters import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.blackbox import identify
from weakorder.verification.blackbox.identify import words
from weakorder.verification.blackbox.near_words import near_words

LINEAR = Parameters(beta_min=0.1, beta_max=15.9)
WORDS = all_schemes()

SLIPS = {
    ("SSCS", "U(1/2) S E U(1/2)@0"): "its second U begins at the step's start",
    ("SSCS", "U(1/2)@1/2 S E U(1/2)@1/2"): "its first U begins at the step's middle",
    ("SSCS", "U(1/2) S@1 E U(1/2)"): "its score is asked for at the step's end",
    ("SSCS", "S U(1/2) E U(1/2)"): "its score comes before its first U",
    ("NOBA", "O S B S@1/2 A"): "its second score is asked for at the step's middle",
    ("RVV", "S B(1/2) A B(1/2)"): "its second score is left out",
    ("SSCS", "U(1/2) S E S U(1/2)"): "the score is asked for once more before its second U, at the step's start",
}


@pytest.mark.parametrize(("known", "word"), SLIPS)
def test_every_slip_has_its_words(known: str, word: str) -> None:
    slips = {other.word: said for said, other in near_words(WORDS[known])}
    assert slips[word] == SLIPS[known, word]


def test_a_second_half_that_begins_at_the_steps_start_is_told_in_published_code(tmp_path: Path) -> None:
    text = inspect.getsource(splitting)
    right, wrong = "sde.integral(t - h / 2, h / 2)", "sde.integral(t, h / 2)"
    assert text.index(right) < text.index("def linear")
    text = text.replace(f"{right})", f"{wrong})", 1)
    (tmp_path / "slipped.py").write_text(text)
    slipped: Any = load_object(f"{tmp_path / 'slipped.py'}:sscs_linear")
    (first, *others) = identify(slipped, LINEAR)
    assert first.scheme.name == "SSCS"
    assert first.differs == ("its second U begins at the step's start: U(1/2) S E U(1/2)@0",)
    assert "SSCS" not in [likeness.scheme.name for likeness in others]
    assert identify(splitting.sscs_linear, LINEAR)[0].is_same


def test_a_slip_that_makes_no_other_sampler_is_none() -> None:
    """With a constant beta no half step knows where it begins."""
    slipped = Scheme("U(1/2) S E U(1/2)@0", WORDS["SSCS"].splitting)
    assert identify(as_black_box(slipped, Parameters()), Parameters())[0].is_same


def test_more_than_one_slip_is_not_told_as_one() -> None:
    slipped = Scheme("U(1/2)@1/2 S@1 E U(1/2)@0", WORDS["SSCS"].splitting)
    (first, *_) = identify(as_black_box(slipped, LINEAR), LINEAR)
    assert first.differs
    assert "U(1/2)@1/2 S@1 E U(1/2)@0" not in " ".join(first.differs)


# Every slip of every word without a memory, some of them at random.
ALL = [(scheme.name, said) for scheme in words() if scheme.memory == 1 for said, _ in near_words(scheme)]
CHOSEN = [ALL[k] for k in np.random.default_rng(0).choice(len(ALL), 40, replace=False)]


@pytest.mark.parametrize(("known", "said"), nightly_but(lambda case: case in CHOSEN[:1], CHOSEN))
def test_a_slip_of_any_word_is_found_out(known: str, said: str) -> None:
    """It is the word, another one, or a slip of one that makes the same sampler."""
    slipped = next(other for text, other in near_words(WORDS[known]) if text == said)
    (first, *_) = identify(as_black_box(slipped, LINEAR), LINEAR)
    if first.differs:
        (line,) = first.differs
        word = line.rpartition(": ")[2]
        again = replace(first.scheme, word=word, flow=slipped.flow, name="", order=None, reference="")
        assert any(other == again for _, other in near_words(first.scheme))
        assert identify(as_black_box(slipped, LINEAR), LINEAR, candidates=[again])[0].is_same

"""The picture of a step, read back from its SVG: intervals are the word's, lines lead to what takes a score."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

import pytest
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, LANGEVIN_CONTROLS, POSITION, conjugate_scheme
from weakorder.reports.figures import as_svg, describe_step, draw_step
from weakorder.reports.figures import step_picture as pictures
from weakorder.theory.scheme import Scheme, parse
from weakorder.theory.timeline import timeline

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
SHOWN = [
    *(CATALOGUE[name] for name in ("EM", "SSCS", "ROBAB", "NVV")),
    *(conjugate_scheme("CSPS-D"), LANGEVIN_CONTROLS[0], EXPONENTIAL["DEIS-2"], POSITION["vp-DEIS-3"]),
]
Span = tuple[Fraction, Fraction]


def _drawn(scheme: Scheme) -> dict[str, list[tuple[float, float]]]:
    """The corners of what has a name in the picture, in the SVG's units."""
    root = ElementTree.fromstring(as_svg(draw_step(scheme)))
    found = {}
    for group in root.iter(f"{SVG}g"):
        name = group.get("id", "")
        if re.fullmatch(r"(act|takes|edge)-.*", name):
            marks = [(float(use.get("x", "")), float(use.get("y", ""))) for use in group.iter(f"{SVG}use")]
            path = group.find(f"{SVG}path")
            numbers = [] if path is None else list(map(float, re.findall(r"-?\d+\.?\d*", path.get("d", ""))))
            found[name] = marks or list(zip(numbers[::2], numbers[1::2], strict=True))
    return found


def _spans(scheme: Scheme) -> list[Span]:
    """From where to where each row reaches, in steps, read off the picture."""
    drawn = _drawn(scheme)
    return [_span(drawn, drawn[f"act-{row}"]) for row in range(len(scheme.tokens))]


def _span(drawn: dict[str, list[tuple[float, float]]], corners: list[tuple[float, float]]) -> Span:
    begin, end = drawn["edge-0"][0][0], drawn["edge-1"][0][0]
    times = [Fraction((x - begin) / (end - begin)).limit_denominator(500) for x, _ in corners]
    return min(times), max(times)


def _of_the_word(word: str) -> list[Span]:
    """The same of a word's letters, by the rule of the grammar."""
    clocks: dict[str, Fraction] = {}
    spans = []
    for symbol, weight, time in re.findall(r"([A-Za-z]\w*)(?:\(([^)]*)\))?(?:@(\S+))?", word):
        begin = Fraction(time) if time else Fraction(0) if symbol == "S" else clocks.get(symbol, Fraction(0))
        clocks[symbol] = begin + (Fraction(0) if symbol == "S" else Fraction(weight or 1))
        spans.append((begin, clocks[symbol]))
    return spans


@pytest.mark.parametrize("scheme", SHOWN, ids=lambda scheme: scheme.name)
def test_intervals_in_the_picture_are_the_words(scheme: Scheme) -> None:
    assert _spans(scheme) == _of_the_word(scheme.word)


def test_an_interval_that_is_moved_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    robab = CATALOGUE["ROBAB"]

    def moved(scheme: Scheme) -> Any:
        *others, last = timeline(scheme)
        return (*others, last._replace(start=last.start - Fraction(1, 8)))

    monkeypatch.setattr(pictures, "timeline", moved)
    assert _spans(robab) != _of_the_word(robab.word)


@pytest.mark.parametrize("scheme", SHOWN, ids=lambda scheme: scheme.name)
def test_lines_lead_from_the_evaluations_to_the_parts_that_take_them(scheme: Scheme) -> None:
    """From the row and the time of each evaluation down to the bar, whose ends they do not pass."""
    drawn = _drawn(scheme)
    rows = {int(name[4:]): sum(y for _, y in corners[:4]) / len(corners[:4]) for name, corners in drawn.items()
            if name.startswith("act-")}  # fmt: skip
    links = {name for name in drawn if name.startswith("takes-")}
    for row, act in enumerate(timeline(scheme)):
        begin, end = _span(drawn, drawn[f"act-{row}"])
        for number, taken in enumerate(act.takes):
            (x, y), *_, last = drawn[f"takes-{row}-{number}"]
            links.remove(f"takes-{row}-{number}")
            assert _span(drawn, [(x, y)])[0] == taken.time
            assert y == pytest.approx(rows[taken.place], abs=0.01)
            assert begin <= _span(drawn, [last])[0] <= end
            assert abs(last[1] - rows[row]) < 0.6 * (rows[1] - rows[0])
    assert not links


def test_an_inch_of_every_picture_is_as_much_of_a_step() -> None:
    lengths = {round(_drawn(scheme)["edge-1"][0][0] - _drawn(scheme)["edge-0"][0][0], 3) for scheme in SHOWN}
    assert lengths == {round(72 * pictures.STEP, 3)}


def test_a_picture_is_reproducible_to_the_byte_and_told_in_words() -> None:
    robab = CATALOGUE["ROBAB"]
    assert as_svg(draw_step(robab)) == as_svg(draw_step(robab))
    assert describe_step(parse("S B A(1/2)")) == (
        "one step, S B A(1/2): S conditioned at τ; B from τ to τ + h, taking the score of τ; "
        "A from τ to τ + h/2, taking the score of τ"
    )

"""A word is parsed once into a frozen value that knows its clocks, its cost and its faults; a bad one is refused."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection import examples
from strategies import random_splittings, splittings, words
from weakorder.theory.scheme import WordError, parse
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, SCORE, Splitting

HALF = Fraction(1, 2)


def any_word(consistent: bool) -> st.SearchStrategy[tuple[str, Splitting]]:
    """A word and its splitting."""
    return splittings().flatmap(lambda splitting: st.tuples(words(splitting, consistent), st.just(splitting)))


def clocks(word: str, splitting: Splitting = PSLD) -> list[str]:
    """Each token as "letter start" or, for a part, "letter start-end"."""
    shown = []
    for token in parse(word, splitting).tokens:
        end = "" if token.weight is None else f"-{token.start + token.weight}"
        shown.append(f"{token.symbol} {token.start}{end}")
    return shown


# --- The grammar ------------------------------------------------------------------------------------------------------


@given(st.booleans().flatmap(any_word))
def test_a_word_is_read_back_as_it_is_written(pair: tuple[str, Splitting]) -> None:
    """parse(format(word)) is the identity on schemes, and format(parse(word)) on canonical words."""
    word, splitting = pair
    scheme = parse(word, splitting)
    again = parse(str(scheme), splitting)
    assert again == scheme
    assert again.tokens == scheme.tokens
    assert str(again) == str(scheme) == scheme.word


def independent_reading(text: str) -> tuple[str, Fraction | None, Fraction | None]:
    """Symbol, weight and time of one token, by cutting the text at its marks."""
    head, _, time = text.partition("@")
    symbol, _, weight = head.rstrip(")").partition("(")
    return symbol, Fraction(weight) if weight else None, Fraction(time) if time else None


@given(st.booleans().flatmap(any_word))
def test_tokens_hold_exactly_the_weights_and_times_of_the_text(pair: tuple[str, Splitting]) -> None:
    word, splitting = pair
    end_of: dict[str, Fraction] = {}
    scheme = parse(word, splitting)
    assert len(scheme.tokens) == len(word.split())
    for token, text in zip(scheme.tokens, word.split(), strict=True):
        symbol, weight, time = independent_reading(text)
        assert token.symbol == symbol
        assert token.explicit == (time is not None)
        if symbol == SCORE:
            assert (token.weight, token.start) == (None, time or 0)
            continue
        assert token.weight == (1 if weight is None else weight)
        assert token.start == (end_of.get(symbol, 0) if time is None else time)
        end_of[symbol] = token.start + (1 if weight is None else weight)
    assert scheme.nfe_per_step == len(re.findall(r"\bS\b", word))


def test_two_words_that_differ_are_two_schemes() -> None:
    """The round trip could be had by forgetting; these must stay apart."""
    texts = [
        "S F", "S@0 F", "S@1/2 F", "S F@0", "S F(1/2)", "S F(1/2)@1/2", "S F(1/3)", "S S F", "S F F", "S F S", "S F@1",
    ]  # fmt: skip
    assert len({parse(text, PSLD_WHOLE) for text in texts}) == len(texts)
    assert len({str(parse(text, PSLD_WHOLE)) for text in texts}) == len(texts)


@examples(15)
@given(random_splittings().flatmap(lambda s: st.tuples(words(s), st.just(s))))
def test_words_over_names_of_several_letters_are_read_back_too(pair: tuple[str, Splitting]) -> None:
    word, splitting = pair
    assert parse(str(parse(word, splitting)), splitting) == parse(word, splitting)


@pytest.mark.parametrize(
    ("word", "canonical"),
    [
        ("S F", "S F"),
        ("  S \t F\n", "S F"),
        ("S F(1)", "S F"),
        ("S F(2/2)", "S F"),
        ("S F(1.0)", "S F"),
        ("S F(0.5) F(.5)", "S F(1/2) F(1/2)"),
        ("S F(2/4)", "S F(1/2)"),
        ("S F(0.1)", "S F(1/10)"),
        ("S F(2.)", "S F(2)"),
        ("S F(3/2)", "S F(3/2)"),
        ("S@0.25 F", "S@1/4 F"),
        ("S@0 F@0", "S@0 F@0"),
        ("S@1 F@1.0", "S@1 F@1"),
        ("S F(1/3)@2/3", "S F(1/3)@2/3"),
        ("S F(0.30000000000000000000000001)", "S F(30000000000000000000000001/100000000000000000000000000)"),
    ],
)
def test_the_canonical_form_is_reduced_and_exact(word: str, canonical: str) -> None:
    assert str(parse(word, PSLD_WHOLE)) == canonical


def test_a_word_that_says_its_clocks_is_another_word_with_the_same_tokens() -> None:
    implicit, explicit = parse("S F(1/2) F(1/2)"), parse("S@0 F(1/2)@0 F(1/2)@1/2")
    assert implicit != explicit
    assert [(t.symbol, t.weight, t.start) for t in implicit.tokens] == [
        (t.symbol, t.weight, t.start) for t in explicit.tokens
    ]


@pytest.mark.parametrize(
    ("word", "splitting"),
    [
        ("S F", PSLD_WHOLE),
        ("U(1/2) S E U(1/2)", PSLD_LINEAR),
        ("O S B A", PSLD),
        ("S A(1/2) S B S A(1/2)", PSLD),
        ("O", PSLD),
    ],
)
def test_a_bare_word_belongs_to_the_splitting_whose_parts_it_names(word: str, splitting: Splitting) -> None:
    assert parse(word).splitting == splitting
    assert parse(word) == parse(word, splitting)


# --- Bad words --------------------------------------------------------------------------------------------------------

# (word, splitting, what the message must hold: the token, the rule, the fix)
BAD_WORDS: list[tuple[str, Splitting | None, list[str]]] = [
    ("", PSLD, ["empty word", "at least one part", "O A B"]),
    ("   \n", PSLD, ["empty word", "at least one part"]),
    ("", None, ["empty word"]),
    ("O S B Z", PSLD, ["token 4, 'Z'", "unknown part 'Z'", "O A B and S"]),
    ("O S B Z", None, ["token 4, 'Z'", "unknown part 'Z'"]),
    ("o S B A", PSLD, ["token 1, 'o'", "unknown part 'o'", "did you mean 'O'?"]),
    ("O s B A", PSLD, ["token 2, 's'", "unknown part 's'", "did you mean 'S'?"]),
    ("o s b a", None, ["token 1, 'o'", "did you mean 'O'?"]),
    ("OSBA", PSLD, ["token 1, 'OSBA'", "unknown part 'OSBA'"]),
    ("O S E", PSLD, ["token 3, 'E'", "unknown part 'E'", "'psld' has O A B"]),
    ("O S B(0) A", PSLD, ["token 3, 'B(0)'", "weight 0 is not positive", "> 0 and sum to 1"]),
    ("O S B(-1/2) A", PSLD, ["token 3, 'B(-1/2)'", "weight -1/2 is not positive"]),
    ("O S B(-0.5) A", PSLD, ["token 3, 'B(-0.5)'", "weight -1/2 is not positive"]),
    ("O(0/5) S B A", PSLD, ["token 1, 'O(0/5)'", "weight 0 is not positive"]),
    ("O S B(half) A", PSLD, ["token 3, 'B(half)'", "weight 'half' is not a number", "1/2 or 0.5"]),
    ("O S B() A", PSLD, ["token 3, 'B()'", "weight '' is not a number"]),
    ("O S B(1/2/3) A", PSLD, ["token 3, 'B(1/2/3)'", "weight '1/2/3' is not a number"]),
    ("O S B(1.5/2) A", PSLD, ["token 3", "weight '1.5/2' is not a number"]),
    ("O S B(1e-1) A", PSLD, ["token 3", "weight '1e-1' is not a number"]),
    ("O S B(inf) A", PSLD, ["token 3", "weight 'inf' is not a number"]),
    ("O S B(nan) A", PSLD, ["token 3", "weight 'nan' is not a number"]),
    ("O S B(1_0) A", PSLD, ["token 3", "weight '1_0' is not a number"]),
    ("O S B(.) A", PSLD, ["token 3", "weight '.' is not a number"]),
    ("O S B(+1/2) A", PSLD, ["token 3", "weight '+1/2' is not a number"]),
    ("O S B(1/0) A", PSLD, ["token 3, 'B(1/0)'", "weight '1/0' is not a number"]),
    ("O S B(0/00) A", PSLD, ["token 3, 'B(0/00)'", "weight '0/00' is not a number"]),
    ("O S@1/0 B A", PSLD, ["token 2, 'S@1/0'", "time '1/0' is not a number"]),
    ("O S@2 B A", PSLD, ["token 2, 'S@2'", "time 2 is outside the step", "[0, 1]"]),
    ("O S@-1/2 B A", PSLD, ["token 2, 'S@-1/2'", "time -1/2 is outside the step"]),
    ("O S@1.0001 B A", PSLD, ["token 2, 'S@1.0001'", "time 10001/10000 is outside the step"]),
    ("O@3/2 S B A", PSLD, ["token 1, 'O@3/2'", "time 3/2 is outside the step"]),
    ("O@-1 S B A", PSLD, ["token 1, 'O@-1'", "time -1 is outside the step"]),
    ("O S@ B A", PSLD, ["token 2, 'S@'", "time '' is not a number"]),
    ("O S@now B A", PSLD, ["token 2, 'S@now'", "time 'now' is not a number"]),
    ("O S(1/2) B A", PSLD, ["token 2, 'S(1/2)'", "S takes no weight", "write S or S@time"]),
    ("O S(1) B A", PSLD, ["token 2, 'S(1)'", "S takes no weight"]),
    ("O B S A", PSLD, ["token 2, 'B'", "B uses the score", "no S stands before it", "write 'S B'"]),
    ("A(1/2)@1/2 S B", PSLD, ["token 1, 'A(1/2)@1/2'", "A uses the score", "write 'S A(1/2)@1/2'"]),
    ("F", PSLD_WHOLE, ["token 1, 'F'", "F uses the score", "write 'S F'"]),
    ("O B", LANGEVIN, ["token 2, 'B'", "B uses the score"]),
    ("O S B,A", PSLD, ["token 3, 'B,A'", "not a token", "PART(weight)@time"]),
    ("O; S", PSLD, ["token 1, 'O;'", "not a token"]),
    ("O S B(1/2 A", PSLD, ["token 3, 'B(1/2'", "not a token"]),
    ("O S B 1/2)", PSLD, ["token 4, '1/2)'", "not a token"]),
    ("O S B(1/2)(1/2) A", PSLD, ["token 3, 'B(1/2)(1/2)'", "not a token"]),
    ("O S@1/2@1 B", PSLD, ["token 2, 'S@1/2@1'", "not a token"]),
    ("O S B@1/2(1/2)", PSLD, ["token 3, 'B@1/2(1/2)'", "not a token"]),
    ("O S ½", PSLD, ["token 3, '½'", "not a token"]),
    ("Ö S", PSLD, ["token 1, 'Ö'", "not a token"]),
    ("O S B(½)", PSLD, ["token 3, 'B(½)'", "weight '½' is not a number"]),
    ("O S B(1 /2)", PSLD, ["token 3, 'B(1'", "not a token"]),
    ("(1/2)", PSLD, ["token 1, '(1/2)'", "not a token"]),
    ("@1", PSLD, ["token 1, '@1'", "not a token"]),
]


@pytest.mark.parametrize(("word", "splitting", "fragments"), BAD_WORDS, ids=[repr(word) for word, _, _ in BAD_WORDS])
def test_a_bad_word_is_refused_with_its_token_the_rule_and_the_fix(
    word: str, splitting: Splitting | None, fragments: list[str]
) -> None:
    with pytest.raises(WordError) as caught:
        parse(word, splitting)
    message = str(caught.value)
    assert "\n" not in message
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_parts_of_two_splittings_in_a_bare_word_are_refused_with_what_there_is() -> None:
    with pytest.raises(
        ValueError, match=r"no splitting has the parts E O together; there are psld: O A B; psld-linear"
    ):
        parse("O S E")


@given(st.text(max_size=12))
def test_any_text_is_parsed_or_refused_with_a_value_error_of_one_line(text: str) -> None:
    message = ""
    try:
        scheme = parse(text, PSLD)
    except WordError as error:
        message = str(error)
    else:
        assert parse(str(scheme), PSLD) == scheme
    assert "\n" not in message


@given(any_word(True), st.data())
def test_a_word_with_one_token_spoilt_is_refused_at_that_token(
    pair: tuple[str, Splitting], data: st.DataObject
) -> None:
    word, splitting = pair
    tokens = word.split()
    index = data.draw(st.integers(0, len(tokens) - 1))
    spoil: Any = data.draw(
        st.sampled_from([str.lower, lambda t: f"{t}@2", lambda t: f"{t})", lambda t: f"?{t}", lambda t: f"Z{t}"])
    )
    tokens[index] = spoil(tokens[index])
    with pytest.raises(WordError, match=re.escape(f"token {index + 1}, {tokens[index]!r}")):
        parse(" ".join(tokens), splitting)


# --- What is derived --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("O S B A", ["O 0-1", "S 0", "B 0-1", "A 0-1"]),
        ("O S B(1/2) A S@1 B(1/2)", ["O 0-1", "S 0", "B 0-1/2", "A 0-1", "S 1", "B 1/2-1"]),
        ("O(1/3) S A O(1/3) O(1/3)", ["O 0-1/3", "S 0", "A 0-1", "O 1/3-2/3", "O 2/3-1"]),
        ("O(1/2)@1/2 O(1/2)@0", ["O 1/2-1", "O 0-1/2"]),
        ("O(1/2)@1/4 O(1/4)", ["O 1/4-3/4", "O 3/4-1"]),  # an override moves the clock
        ("S@1/2 A(0.1) B A(0.9)", ["S 1/2", "A 0-1/10", "B 0-1", "A 1/10-1"]),
    ],
)
def test_every_part_has_its_own_clock(word: str, expected: list[str]) -> None:
    assert clocks(word) == expected


@given(any_word(True))
def test_without_overrides_the_intervals_of_every_part_tile_the_step_in_order(pair: tuple[str, Splitting]) -> None:
    word, splitting = pair
    plain = " ".join(text if text.startswith(SCORE) else text.partition("@")[0] for text in word.split())
    scheme = parse(plain, splitting)
    for name in splitting.part_names:
        tokens = [token for token in scheme.tokens if token.symbol == name]
        starts = [token.start for token in tokens]
        ends = [token.start + (token.weight or 0) for token in tokens]
        assert [Fraction(0), *ends] == [*starts, Fraction(1)]
    assert scheme.inconsistencies == ()
    assert not any("tile" in warning for warning in scheme.warnings)


@pytest.mark.parametrize(
    ("word", "splitting", "palindrome"),
    [
        ("S F", PSLD_WHOLE, True),
        ("U(1/2) S E U(1/2)", PSLD_LINEAR, True),
        ("U(1/2) S@1/2 E U(1/2)@0", PSLD_LINEAR, True),  # neither the score's time nor the clock is a letter
        ("O S B A", PSLD, False),
        ("S B A O", PSLD, False),
        ("O S B(1/2) S A S B(1/2)", PSLD, False),
        ("S B(1/2) S A S B(1/2)", PSLD, True),
        ("O(1/2) S B(1/2) A S B(1/2) O(1/2)", PSLD, True),
        ("O(1/3) S B(1/2) A S B(1/2) O(2/3)", PSLD, False),
        ("S A(1/2) B A(1/2)", PSLD_FLOW, True),
        ("S A(1/2) A(1/2)", PSLD_FLOW, True),
        ("S A(1/4) A(3/4)", PSLD_FLOW, False),
    ],
)
def test_a_palindrome_reads_the_same_backwards(word: str, splitting: Splitting, palindrome: bool) -> None:
    assert parse(word, splitting).is_palindrome is palindrome


@pytest.mark.parametrize(
    ("word", "splitting", "nfe"),
    [
        ("S F", PSLD_WHOLE, 1),
        ("U(1/2) S E U(1/2)", PSLD_LINEAR, 1),
        ("O S B S A", PSLD, 2),
        ("O S B(1/2) S A S B(1/2)", PSLD, 3),
        ("O S B A", PSLD, 1),
        ("O S B(1/2) A S@1 B(1/2)", PSLD, 2),
        ("O", PSLD, 0),
    ],
)
def test_a_step_costs_its_evaluations_of_the_score(word: str, splitting: Splitting, nfe: int) -> None:
    assert parse(word, splitting).nfe_per_step == nfe


def test_the_parts_of_a_scheme_are_those_it_names_in_the_order_of_first_use() -> None:
    assert [part.name for part in parse("O S B(1/2) S A B(1/2)", PSLD).parts] == ["O", "B", "A"]
    assert [part.name for part in parse("S B", PSLD).parts] == ["B"]


def test_a_word_that_is_consistent_and_wastes_nothing_has_no_warnings() -> None:
    for word in ("S F", "U(1/2) S E U(1/2)", "O S B(1/2) A S@1 B(1/2)", "O(1/3) S B A O(2/3)"):
        assert parse(word).inconsistencies == ()
        assert parse(word).warnings == ()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("O S B(1/2) A", ["the weights of B sum to 1/2, not 1"]),
        ("O S B A A", ["the weights of A sum to 2, not 1"]),
        ("O S B", ["the weights of A sum to 0, not 1"]),
        ("O(0.9999) S B A", ["the weights of O sum to 9999/10000, not 1"]),
        ("S A(1/3) A(1/3)", ["of O sum to 0", "of A sum to 2/3", "of B sum to 0"]),
    ],
)
def test_weights_that_do_not_sum_to_1_are_legal_and_said(word: str, expected: list[str]) -> None:
    scheme = parse(word, PSLD)
    assert len(scheme.inconsistencies) == len(expected)
    assert all(part in whole for part, whole in zip(expected, scheme.inconsistencies, strict=True))
    assert scheme.warnings[: len(expected)] == scheme.inconsistencies


@given(any_word(False))
def test_a_word_is_consistent_exactly_when_every_weight_sums_to_1(pair: tuple[str, Splitting]) -> None:
    word, splitting = pair
    totals = dict.fromkeys(splitting.part_names, Fraction(0))
    for symbol, weight, _ in map(independent_reading, word.split()):
        if symbol != SCORE:
            totals[symbol] += 1 if weight is None else weight
    wrong = [name for name, total in totals.items() if total != 1]
    assert [warning.split()[3] for warning in parse(word, splitting).inconsistencies] == wrong


@pytest.mark.parametrize(
    ("word", "warning"),
    [
        ("O@1/2 S B A", "the intervals of O, [1/2, 3/2], do not tile the step [0, 1]"),
        ("O(1/2) O(1/2)@0 S B A", "the intervals of O, [0, 1/2], [0, 1/2], do not tile the step [0, 1]"),
        ("O S S B A", "token 2, 'S': no part uses this evaluation of the score"),
        ("S@1/2 O S B A", "token 1, 'S@1/2': no part uses this evaluation of the score"),
        ("O S B A S", "token 5, 'S': no part uses this evaluation of the score"),
    ],
)
def test_what_is_legal_and_rarely_meant_is_a_warning_but_no_inconsistency(word: str, warning: str) -> None:
    scheme = parse(word, PSLD)
    assert scheme.warnings == (warning,)
    assert scheme.inconsistencies == ()


def test_intervals_that_tile_the_step_out_of_order_are_no_warning() -> None:
    assert parse("O(1/2)@1/2 O(1/2)@0 S B A", PSLD).warnings == ()

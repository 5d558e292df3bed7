"""Words that differ from a word by one thing, as a slip of the pen does, and that thing in words.

a part begins elsewhere in the step     U(1/2) S E U(1/2)   its second U begins at the step's start
the score is asked for at another time  O S B A             its score is asked for at the step's end
two neighbours change places            O S B A             its A comes before its B
a score more, or one less               O S B A             the score is asked for once more before its A, ...
the other sub-flows                     O S B A             its sub-flows are exact
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from ...theory.scheme import FROZEN_FLOWS, Scheme, Token
from ...theory.splitting import SCORE

_PLACES = {Fraction(0): "the step's start", Fraction(1, 2): "the step's middle", Fraction(1): "the step's end"}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def near_words(scheme: Scheme) -> Iterator[tuple[str, Scheme]]:
    """Each with what differs, in a phrase."""
    tokens = scheme.tokens
    for said, changed in (*_elsewhere(tokens), *_swapped(tokens), *_scores(tokens)):
        with contextlib.suppress(ValueError):  # no word: a part that lacks its score, a memory that has no polynomial
            yield said, replace(scheme, word=_word(changed), name="", order=None, reference="")
    for flow in FROZEN_FLOWS:
        if flow != scheme.flow and any(part.sde.uses_score for part in scheme.parts):
            with contextlib.suppress(ValueError):
                yield f"its sub-flows are {flow}", replace(scheme, flow=flow, name="", order=None, reference="")


def _elsewhere(tokens: Sequence[Token]) -> Iterator[tuple[str, list[Token]]]:
    for k, token in enumerate(tokens):
        places = dict(_PLACES)
        for other in tokens:
            places.setdefault(other.start, f"tau + {other.start} h")
        for start, where in places.items():
            if start != token.start and (start < 1 or token.is_score):
                does = "is asked for" if token.is_score else "begins"
                yield (
                    f"{_called(tokens, k)} {does} at {where}",
                    [*tokens[:k], replace(token, start=start), *tokens[k + 1 :]],
                )


def _swapped(tokens: Sequence[Token]) -> Iterator[tuple[str, list[Token]]]:
    for k in range(len(tokens) - 1):
        one, two = tokens[k : k + 2]
        if one.symbol != two.symbol:
            yield (
                f"{_called(tokens, k + 1)} comes before {_called(tokens, k)}",
                [*tokens[:k], two, one, *tokens[k + 2 :]],
            )


def _scores(tokens: Sequence[Token]) -> Iterator[tuple[str, list[Token]]]:
    for k, token in enumerate(tokens):
        if token.is_score:
            yield f"{_called(tokens, k)} is left out", [*tokens[:k], *tokens[k + 1 :]]
        elif k and not tokens[k - 1].is_score:
            for start, where in _PLACES.items():
                new = Token(SCORE, None, start, explicit=bool(start))
                said = f"the score is asked for once more before {_called(tokens, k)}, at {where}"
                yield said, [*tokens[:k], new, *tokens[k:]]


def _called(tokens: Sequence[Token], k: int) -> str:
    """A token for people: its second U; its score."""
    same = [j for j, token in enumerate(tokens) if token.symbol == tokens[k].symbol]
    name = "score" if tokens[k].is_score else tokens[k].symbol
    place = f"{_ORDINALS[same.index(k)]} " if 1 < len(same) <= len(_ORDINALS) else ""
    return f"its {place}{name}"


def _word(tokens: Sequence[Token]) -> str:
    """The word of tokens that begin where they say, with times written where a clock does not tell them."""
    clocks: dict[str, Fraction] = {}
    texts = []
    for token in tokens:
        told = token.start == (Fraction(0) if token.is_score else clocks.get(token.symbol, Fraction(0)))
        texts.append(str(replace(token, explicit=not told)))
        clocks[token.symbol] = token.start + (token.weight or 0)
    return " ".join(texts)

"""A step on a line of time: where each token of a word acts, and which evaluations of the score it takes.

A word says in which order its tokens act; their clocks say over which stretch of the step (theory.scheme). Both are
laid out here, for pictures and tables. Times are fractions of the step from its beginning, tau + time * h, below 0 in
the steps before:

    S B(1/2) A S@1 B(1/2)       S at 0, B over [0, 1/2], A over [0, 1], S at 1, B over [1/2, 1]
    S F, memory 2               S at 0, F over [0, 1]; F takes the evaluations at 0 and at -1

The first steps of a run have fewer evaluations behind them, and take those that there are.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from .scheme import Scheme, Token


class Evaluation(NamedTuple):
    """An evaluation of the score: `place` is its token's in the word, from 0; it is conditioned at tau + `time` * h."""

    place: int
    time: Fraction


class Act(NamedTuple):
    """A token at work from tau + `start` * h to tau + `end` * h, which are one time for an S. takes: the evaluations
    whose score it uses, the last one first; empty for an S and for a part without score."""

    token: Token
    start: Fraction
    end: Fraction
    takes: tuple[Evaluation, ...]


def timeline(scheme: Scheme) -> tuple[Act, ...]:
    """The acts of a step, in the order of the word."""
    scores = [Evaluation(place, token.start) for place, token in enumerate(scheme.tokens) if token.is_score]
    acts = []
    for place, token in enumerate(scheme.tokens):
        takes: tuple[Evaluation, ...] = ()
        if not token.is_score and scheme.splitting[token.symbol].sde.uses_score:
            takes = _last(scores, place, scheme.memory)
        acts.append(Act(token, token.start, token.start + (token.weight or 0), takes))
    return tuple(acts)


def _last(scores: list[Evaluation], place: int, count: int) -> tuple[Evaluation, ...]:
    """The last `count` evaluations before the token at `place`, those of the steps before among them."""
    found = [score for score in reversed(scores) if score.place < place]
    ago = 1
    while len(found) < count:
        found += [Evaluation(score.place, score.time - ago) for score in reversed(scores)]
        ago += 1
    return tuple(found[:count])

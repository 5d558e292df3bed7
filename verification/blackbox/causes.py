"""Why a black box cannot be read as an affine map: each cause by a test of its own, asked only where one is refused.

A refusal says first what the probe found, a departure of some size. What is behind it is told by calls that differ in
one thing:

    again       the same state and the same numbers, with another state in between: what gives another result keeps
                state, or draws from what no one sees
    states      when scores are asked for, and how often is drawn, must not depend on the state or on what was drawn
    alike       entries and pixels of the same state, with the same numbers, go to the same state, but for the sign of
                the noise, as in antithetic pairs
    one cell    one coordinate of one entry, or one number drawn, that moves other entries: a batch that is mixed
    a line      states along a line: an affine map stays on one, a branch breaks it at some points, rounding at all,
                and a smooth function bends it
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...integrators.blackbox import BlackBoxError, Run, UnseenDraws, call
from ...integrators.draws import Law
from ...integrators.other_sources import compiled_within, other_source
from ..verdicts import Array
from .calls import Calls
from .columns import FLOAT32
from .layout import NamedCause

# A Gaussian that anyone who cuts off would draw again, as loud a coordinate, and how many draws are tried with it.
_LOUD, _LOOKED_AT = 100.0, 4
# Entries of a batch that are looked at for what is done to some of them.
_MANY = 32
# What is moved by less than this part of all is not moved.
_STILL = 1e-12
# Lines of states of a few deviations, and of the probe's loudest; how many, and the part at which a branch breaks it.
_NEAR, _FAR, _POINTS, _FEW = 4.0, 128.0, 65, 0.3
# Half precision keeps 8 bits or 11, of what a step makes a few times as large.
_HALF = 2.0**-4


class _Answer(NamedTuple):
    """The result of a call as cells (cells, components), when it asked for scores, and how many numbers each of its
    draws has."""

    cells: Array
    times: list[float]
    sizes: list[int]


class _Asked:
    """Calls of a black box with its states and numbers given."""

    def __init__(self, calls: Calls, run: Run) -> None:
        self.calls, self.run = calls, run

    def states(self, number: int) -> Array:
        """Some states (batch, components, *event)."""
        shape = self.calls.shape(max(3, self.calls.copies))
        return np.random.default_rng(number).uniform(-2, 2, shape)

    def __call__(
        self,
        states: Array,
        loud: tuple[int, int] | None = None,
        noisy: bool = False,
        rows: int = 1,
        scores: Array | None = None,
    ) -> _Answer:
        """loud: a draw, and which of its numbers acts (-1 for all), the others at rest; noisy: all act; rows: of each
        score function; scores: the answers of scores that are free, like states, else 0."""
        u = torch.as_tensor(states)
        score, times, sizes = self.calls.score(rows, len(u)), list[float](), list[int]()
        numbers = np.random.default_rng(0) if noisy else None  # no one's generator where generators are watched

        def asked(v: Tensor, t: float | Tensor) -> Tensor:
            times.append(float(torch.as_tensor(t).reshape(-1)[0]))
            return score(v, t)

        def draw(_: int, shape: torch.Size, law: Law) -> Tensor:
            label, self.calls.label = self.calls.label, None
            values = np.full(math.prod(shape), 0.0 if law.nodes is None else law.nodes[0])
            if label is None and numbers is not None:
                some = numbers.uniform(-2, 2, len(values))
                values = some if law.nodes is None else numbers.choice(law.nodes, len(values))
            if label is not None and scores is not None and scores.size == len(values):
                values = scores.ravel()
            if label is None and loud is not None and loud[0] == len(sizes):
                where = slice(None) if loud[1] < 0 else loud[1]
                values[where] = _LOUD if law.nodes is None else law.nodes[-1]
            if label is None:
                sizes.append(len(values))
            return torch.as_tensor(values.reshape(tuple(shape)))

        self.calls.label = None  # a call that was broken off may have left one
        response = call(self.run, u.clone(), asked, draw, self.calls.by_state)
        return _Answer(self.calls.cells(response.state), times, sizes)


def dependence(calls: Calls, run: Run) -> BlackBoxError | None:
    """That scores are asked for, or numbers drawn, as often as states or numbers have it; None if they are not."""
    try:
        sentence = _states(_Asked(calls, run))
    except BlackBoxError:
        return None
    return None if sentence is None else NamedCause(sentence)


def cause_of(error: BlackBoxError, calls: Calls, run: Run, sampler: object) -> BlackBoxError | None:
    """What a test of its own shows to be behind an error; None if none of them does."""
    asked = _Asked(calls, run)
    try:
        sentence = _again(asked, sampler) or _source(asked, sampler) or _cells(asked) or _alike(asked)
        bent = _line(asked, _NEAR) or _line(asked, _FAR) if sentence is None and isinstance(error, NotAffine) else None
    except UnseenDraws as unseen:
        sentence = _source(asked, sampler) or compiled_within(sampler)
        return unseen if sentence is None else BlackBoxError(sentence)
    except BlackBoxError:
        sentence = _source(asked, sampler)
        return None if sentence is None else BlackBoxError(sentence)
    if bent is not None:
        return Bent(f"{error}; {bent}")
    return None if sentence is None else NamedCause(sentence)


def check_again(calls: Calls, run: Run, sampler: object) -> None:
    """Raises NamedCause where a call with the same state and numbers, and another one in between, gives another
    result."""
    try:
        sentence = _again(_Asked(calls, run), sampler)
    except BlackBoxError:
        return  # which the probe meets, too, and tells
    if sentence is not None:
        raise NamedCause(sentence)


class NotAffine(BlackBoxError):
    """A departure from an affine map."""


class Bent(NamedCause, NotAffine):
    """One whose cause was found along a line of states."""


def _again(asked: _Asked, sampler: object) -> str | None:
    one, _, two = (asked(asked.states(number), noisy=True).cells for number in (1, 2, 1))
    if one.shape == two.shape and _moved(one, two).max() <= _STILL * max(1.0, float(np.abs(one).max())):
        return None
    if (sentence := _source(asked, sampler) or compiled_within(sampler)) is not None:
        return sentence
    return (
        "the sampler gives another result when it is called again with the same state and the same noise: it keeps "
        "state between calls (give it a reset() then), or draws from what cannot be made an input, such as a clock"
    )


def _source(asked: _Asked, sampler: object) -> str | None:
    states = asked.states(0)  # made before anyone watches generators
    return None if sampler is None else other_source(sampler, lambda: asked(states))


def _states(asked: _Asked) -> str | None:
    one, two = (asked(asked.states(number)) for number in (1, 2))
    if one.times != two.times:
        return (
            f"the sampler asks for its scores at times that depend on its states ({len(one.times)} and "
            f"{len(two.times)} times in two calls), as one does that adapts its steps; an order is one in steps that "
            "are given: verify it with fixed steps"
        )
    draws = len(one.sizes)
    if any(len(asked(asked.states(1), (k, -1)).sizes) != draws for k in range(min(draws, _LOOKED_AT))):
        return (
            "the sampler draws again where a number is too large, so that its noise is cut off and no Gaussian; draw "
            "once, from torch.randn"
        )
    return None


def _cells(asked: _Asked) -> str | None:
    states = asked.states(1)
    rest, changed = asked(states), states.copy()
    elements = len(rest.cells) // len(states)
    one = 1 % elements  # on no diagonal of an image
    changed.reshape(len(states), asked.calls.components, -1)[0, :, one] = _LOUD
    others = _moved(asked(changed).cells, rest.cells) > _STILL * _LOUD
    if others[elements:].any():
        return f"the sampler {_MIXES}: changing the state of one changes what it does with others"
    if np.delete(others[:elements], one).any():
        return "the sampler mixes the pixels of an image: changing the state of one changes what it does with others"
    for k, size in list(enumerate(rest.sizes))[:_LOOKED_AT]:
        if size < len(states):
            continue
        moved = _moved(asked(states, (k, 0)).cells, rest.cells)
        entries = moved.reshape(len(states), elements).max(1)
        if _is_mixed(entries):
            return f"the sampler {_MIXES}, as a mean over them does: one number that it draws moves all of them"
        if _is_mixed(moved[int(entries.argmax()) * elements :][:elements]):
            return "the sampler mixes the pixels of an image: one number that it draws moves all of them"
    return None


_MIXES = "mixes the entries of a batch"


def _alike(asked: _Asked) -> str | None:
    if asked.calls.copies > 1:  # whose scores differ
        return None
    one = asked.states(1).reshape(-1)[: asked.calls.components]
    states = np.ones(asked.calls.shape(_MANY)) * one.reshape(-1, *(1,) * len(asked.calls.event))
    rest = asked(states)
    moves = [_moved(rest.cells, rest.cells[:1])]
    for k in range(min(len(rest.sizes), _LOOKED_AT)):
        moved = np.abs(asked(states, (k, -1)).cells - rest.cells)
        moves.append(_moved(moved, moved[:1]))
    return NOT_ALIKE if max(map(np.max, moves)) > _STILL * _LOUD else None


NOT_ALIKE = (
    "the sampler treats the entries of a batch, or the pixels of an image, differently: from the same state and with "
    "the same numbers some go elsewhere than others"
)


def _is_mixed(moved: Array) -> bool:
    """Whether one number moves all of some cells, and not alike, as it moves those that share it."""
    most = float(moved.max())
    return len(moved) > 1 and bool((moved > _STILL * most).all()) and float(np.ptp(moved)) > 1e-6 * most > 0


def _moved(one: Array, two: Array) -> Array:
    """How far each cell moved."""
    return np.abs(one - two).max(1)


def _line(asked: _Asked, far: float) -> str | None:
    """How results along a line of states, and of scores, of size `far` depart from one; None if they do not."""
    calls, numbers = asked.calls, np.random.default_rng(0)
    copies, elements, n = calls.copies, math.prod(calls.event), calls.components
    middle, way = numbers.uniform(-2, 2, (2, copies, 1, n))
    places = np.linspace(-1, 1, _POINTS)
    batch = max(3, math.ceil(copies * _POINTS / elements))
    cells = np.zeros((batch * elements, n))
    cells[: copies * _POINTS] = (middle + far / 2 * places[:, None] * way).reshape(-1, n)
    states = np.ascontiguousarray(cells.reshape(batch, elements, n).transpose(0, 2, 1)).reshape(calls.shape(batch))
    result = asked(states, rows=_POINTS, scores=states).cells[: copies * _POINTS].reshape(copies, _POINTS, n)
    found = np.moveaxis(result, 1, 0)
    along = (places + 1)[:, None, None] / 2
    off = np.abs(found - (1 - along) * found[0] - along * found[-1])
    size = max(1.0, float(np.abs(found).max()))
    if off.max() <= FLOAT32 / 8 * size:  # less than what was refused
        return None
    bends = np.abs(np.diff(found, 2, axis=0))
    bent = bends.max(0) > _STILL * size
    bends, changes = bends[:, bent], np.abs(np.diff(found, 3, axis=0))[:, bent]
    if (bends > _STILL * size).mean() < _FEW:
        return "it branches on its state, as what clamps or thresholds does"
    if np.median(changes) < np.median(bends) / 2:
        return "it is nonlinear"
    near = np.abs(found[1:-1]).max((1, 2))[:, None]  # rounding is small where states are
    return "it rounds to half precision: verify it in float32 or float64" if (bends <= _HALF * near).all() else None

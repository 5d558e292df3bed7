"""The anatomy of a black box: what it does in a short run, whatever the score.

The score is an input like the noise. Answer each of its evaluations with numbers of our own, and a run of any sampler
is

    u' = P u + sum_k K_k s_k + b + xi,   xi ~ N(0, Q),   s_k the score as conditioned at time t_k,

and the state at which s_k is taken is P_k u + sum_j K_kj s_j + b_k + xi_k, j over the scores before it. All of it is
read off by probing: P, K_k, b, Q, the times t_k and the states of the scores, to all digits and without any target. Two
questions follow. What is wrong with it (blackbox.consistency)? And what changed (blackbox.baseline)?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...integrators.blackbox import Sampler, Score, as_trajectory, kind_of
from ...integrators.draws import unwatched
from ...integrators.light_draws import stand_ins
from ...integrators.threads import one_thread
from ...theory.model import PSLD_DIFFUSION, Diffusion
from ...theory.parameters import COMPONENTS
from ..verdicts import Array
from .causes import check_again
from .columns import Columns
from .probe import CHECKS, Probe
from .probing import check_own_batch, one_time

# Of components, as they are told to people.
NAMES = COMPONENTS


class Place(NamedTuple):
    """The state at which a score is taken: propagator u + gains of the scores before + offset + noise.

    propagator (n, n), gains (earlier scores, n, n), offset (n,); noise_cov (n, n), the covariance of its noise, and
    noise_cross (n, n), that with the noise of the whole run.
    """

    propagator: Array
    gains: Array
    offset: Array
    noise_cov: Array
    noise_cross: Array

    @property
    def moved(self) -> Array:
        """propagator - I."""
        return self.propagator - np.eye(len(self.propagator))


@dataclass(frozen=True)
class Anatomy:
    """A short run over the times `taus`, of states of n components: propagator P (n, n), gains K (evaluations, n, n),
    noise_cov Q (n, n), offset b (n,); times (evaluations,), where each score was conditioned, and the places, the
    states at which it was taken; rounding: to float32, relative, else 0; increments: what each number of a discrete law
    adds, less its mean, as weights (values,) and values (values, n)."""

    taus: tuple[float, ...]
    propagator: Array
    gains: Array
    noise_cov: Array
    offset: Array
    times: tuple[float, ...]
    places: tuple[Place, ...]
    rounding: float
    increments: tuple[tuple[Array, Array], ...] = ()

    @property
    def nfe(self) -> int:
        """Score evaluations."""
        return len(self.times)

    @property
    def moved(self) -> Array:
        """P - I."""
        return self.propagator - np.eye(len(self.propagator))

    def parts(self) -> Iterator[tuple[str, Array]]:
        """What it consists of, by name."""
        yield "propagator", self.propagator
        for k, gain in enumerate(self.gains):
            yield f"score gain {k + 1}", gain
        yield "offset", self.offset
        yield "noise covariance", self.noise_cov
        for k, place in enumerate(self.places):
            yield f"state of score {k + 1}", place.propagator
            yield f"offset in the state of score {k + 1}", place.offset
            for j, gain in enumerate(place.gains):
                yield f"gain of score {j + 1} in the state of score {k + 1}", gain
            yield f"noise covariance in the state of score {k + 1}", place.noise_cov
            yield f"noise covariance of the run and the state of score {k + 1}", place.noise_cross


def check_repeats(sampler: Sampler, event: tuple[int, ...] = (), components: int = 2) -> None:
    """Raises BlackBoxError where a step or a run that is made again, with the same state and noise, gives another
    result, as where state is kept that only a batch of another size clears."""

    def score(u: Tensor, _: float | Tensor) -> Tensor:
        return -u

    probe = Probe(1, lambda *_: score, event, sampler, components)
    check_again(probe, as_trajectory(sampler, [0.5, 0.51, 0.52]), sampler)


class _Read(Probe):
    """A probe of short runs, whose scores are numbers like its noise; asked: the states (rows, n) at which each call
    asks for its scores."""

    def __init__(self, sampler: Sampler, event: tuple[int, ...], components: int) -> None:
        super().__init__(1, self._free, event, sampler, components)
        self.asked: list[list[Array]] = []

    def _free(self, rows: int, batch: int) -> Score:
        self.asked.append(asked := [])

        def score(u: Tensor, t: float | Tensor) -> Tensor:
            with unwatched():
                check_own_batch(u, batch, self.event, self.components)
                asked.append(self.unpack(u, rows)[0])
                self.label = one_time(t)
            return torch.randn_like(u)

        return score

    def anatomy(self, times: tuple[float, ...], columns: Columns) -> Anatomy:
        """Of the columns that were read last, of a run over these times."""
        is_score = np.array([label is not None for label in self.labels], dtype=bool)[columns.is_of]
        noise = columns.draws[0][~is_score]
        places = _of_all_rows(self.asked, 1 + self.components + len(is_score) + 2 * CHECKS)
        return Anatomy(
            times,
            columns.state[0].T,
            _gains(columns.draws[0][is_score]),
            noise.T @ noise,
            columns.offset[0],
            tuple(label for label in self.labels if isinstance(label, float)),
            tuple(_place(self, rows, k, is_score, noise) for k, rows in enumerate(places)),
            columns.rounding,
            tuple((weights, values[0]) for weights, values in columns.increments),
        )


class Dissection:
    """The anatomies of a black box of any kind, one short run after another.

    The first run of each number of steps is watched whole; those after it are checked alike, and watched by the names
    of torch alone as long as they draw what it drew (`light_draws`), which takes half the time.
    """

    def __init__(self, sampler: Sampler, event: tuple[int, ...] = (), diffusion: Diffusion = PSLD_DIFFUSION) -> None:
        self.sampler, self.event, self.diffusion, self.kind = sampler, event, diffusion, kind_of(sampler)
        self._known = dict[int, _Read | None]()  # by the number of times; None where it was no use

    @one_thread()
    @stand_ins()
    def __call__(self, taus: Array) -> Anatomy:
        """The anatomy on a run over taus (N + 1,). Raises BlackBoxError."""
        times = tuple(float(tau) for tau in taus)
        run = as_trajectory(self.sampler, list(times), self.kind)
        if (known := self._known.get(len(times))) is not None:
            known.asked.clear()
            if (columns := known.lightly(run, discover=True)) is not None:
                return known.anatomy(times, columns)
        read = _Read(self.sampler, self.event, self.diffusion.size)
        columns = read.columns_of(run)
        self._known[len(times)] = None if len(times) in self._known else read
        return read.anatomy(times, columns)


def dissect(
    sampler: Sampler, taus: Array, event: tuple[int, ...] = (), diffusion: Diffusion = PSLD_DIFFUSION
) -> Anatomy:
    """The anatomy of a black box of any kind on a short run over taus (N + 1,). Raises BlackBoxError."""
    return Dissection(sampler, event, diffusion)(taus)


def _of_all_rows(calls: list[list[Array]], rows: int) -> list[Array]:
    """The states at which each score was asked for (rows, n), which were read in one call or in several, the last of
    `calls`; empty if the sampler asks for none."""
    first, seen = len(calls), 0
    while first and calls[first - 1] and seen < rows:
        first -= 1
        seen += len(calls[first][0])
    return [np.concatenate(states) for states in zip(*calls[first:], strict=True)]


def _gains(rows: Array) -> Array:
    """What n rows (n,) a score, a unit in each of its components, become: (scores, n, n)."""
    n = rows.shape[-1]
    return rows.reshape(-1, n, n).transpose(0, 2, 1)


def _place(probe: Probe, rows: Array, k: int, is_score: NDArray[np.bool_], noise: Array) -> Place:
    """The k-th place, from the states (rows, n) at which the score was asked for: see `Probe.read` for the rows."""
    first = 1 + probe.components
    state = rows[1:first] - rows[0]
    (offset,), (draws,), _ = probe.centred(rows[None, 0], rows[None, first : first + len(is_score)] - rows[0])
    own = draws[~is_score]
    return Place(state.T, _gains(draws[is_score])[:k], offset, own.T @ own, own.T @ noise)

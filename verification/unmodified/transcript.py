"""A whole run of an unmodified sampler, read off: affine in its start, its noise and the network's answers.

The answers are made inputs, like the noise (blackbox.anatomy does so for short runs). Then a run of N evaluations is

    y_k = p_k x + b_k + sum_j<k G_kj s_j + sum_n C_kn xi_n,   k = 0 ... N,

with y_k the network's input at evaluation k, s_k its answer, x the state at the start and y_N the state that is
returned; xi are independent standard normals. No target is in it: one transcript serves all of them
(unmodified.laws).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...integrators.blackbox import BlackBoxError, NotFinite, Score
from ...integrators.threads import one_thread
from ...integrators.unmodified import Unmodified
from ...theory.paths import Level
from ..blackbox import CHECKS, NotAffine, Probe, one_time
from ..verdicts import Array


@dataclass(frozen=True)
class Transcript:
    """A run with `steps` steps, of N evaluations and `draws` numbers: start (N + 1,), offset (N + 1,), gains
    (N + 1, N), strictly lower triangular but for the last row, and noise (N + 1, draws), the rows y_0 ... y_N; levels
    (N,), the noise that the network was trained on at each time it was told, times (N,); begin, the level of the
    start, and prior, the standard deviation of what is drawn for it in practice; rounding: of states to float32,
    relative, else 0."""

    steps: int
    start: Array
    offset: Array
    gains: Array
    noise: Array
    levels: tuple[Level, ...]
    times: tuple[float, ...]
    begin: Level
    prior: float
    rounding: float

    @property
    def nfe(self) -> int:
        """Network evaluations."""
        return len(self.levels)

    @property
    def draws(self) -> int:
        """Random numbers a coordinate."""
        return self.noise.shape[1]

    @property
    def is_stochastic(self) -> bool:
        """Whether what it draws moves its result."""
        return bool(self.noise.any())

    @property
    def is_finite(self) -> bool:
        """Whether no entry overflowed or is nan."""
        return all(bool(np.isfinite(a).all()) for a in (self.start, self.offset, self.gains, self.noise))


@one_thread()
def transcribe(sampler: Unmodified, steps: int, exact: bool = True) -> Transcript:
    """The transcript of a run with `steps` steps; exact: with constants and tables in float64 (`Unmodified`), else as
    shipped. Raises BlackBoxError if it cannot be read off."""
    prepared = sampler.prepare(steps, exact)
    times: list[float] = []
    calls: list[tuple[int, list[Array]]] = []

    def free(rows: int, batch: int) -> Score:
        times.clear()
        calls.append((rows, inputs := []))

        def answer(y: Tensor, time: float | Tensor) -> Tensor:
            if tuple(y.shape) != (batch, *sampler.event):
                raise BlackBoxError(
                    f"the sampler asks the network for {tuple(y.shape)} where its states are "
                    f"{(batch, *sampler.event)}; call it on the whole batch, and without guidance"
                )
            inputs.append(probe.unpack(y, rows)[0, :, 0])
            probe.label = one_time(time)
            times.append(probe.label)
            return torch.randn_like(y)

        return answer

    probe = Probe(1, free, sampler.event, None, components=1, again=True)
    probe.by_state = True
    try:
        columns = probe.columns_of(lambda x, network: prepared.run(network, x))
    except (NotAffine, NotFinite) as error:
        if not sampler.clamps:
            raise
        raise BlackBoxError(f"{error}; {sampler.clamped}: put off what goes with it, as dividing by a bound") from error
    if not times:
        raise BlackBoxError("the sampler never asks the network; it must call model(x, time)")
    begin = prepared.start(times[0])
    is_answer = np.array([label is not None for label in probe.labels], dtype=bool)[columns.is_of]
    last = columns.draws[0, :, 0]
    inputs = _inputs(probe, calls)
    seen = np.array([_rows(probe, rows) for rows in inputs]).reshape(len(inputs), -1)
    rows = np.concatenate([seen, np.concatenate([columns.offset[0], columns.state[0, 0], last])[None]])
    draws = rows[:, 2:]
    run = Transcript(
        steps,
        rows[:, 1],
        rows[:, 0],
        draws[:, is_answer],
        draws[:, ~is_answer],
        tuple(prepared.level(time) for time in times),
        tuple(times),
        begin,
        prepared.prior or begin.scale * float(np.hypot(begin.alpha, begin.sigma)),
        columns.rounding,
    )
    if sampler.clamps and not run.is_finite:
        raise BlackBoxError(f"the sampler diverges; {sampler.clamped}: give it data and steps that do without")
    return run


def _inputs(probe: Probe, calls: list[tuple[int, list[Array]]]) -> list[Array]:
    """What the network was given at each evaluation, (rows,), in the calls that the map was read off from, the last
    ones: one, or several where a sampler draws for each entry of a batch."""
    missing, blocks = 2 + sum(probe.widths or []) + 2 * CHECKS, []
    while missing > 0:
        rows, inputs = calls[-1 - len(blocks)]
        blocks.append(inputs)
        missing -= rows
    return [np.concatenate(parts) for parts in zip(*reversed(blocks), strict=True)]


def _rows(probe: Probe, seen: Array) -> Array:
    """What the network was given, (rows,), as offset, start and draws."""
    width = sum(probe.widths or [])
    (offset,), (draws,), _ = probe.centred(seen[None, :1], (seen[2 : 2 + width] - seen[0])[None, :, None])
    return np.concatenate([offset, [seen[1] - seen[0]], draws[:, 0]])

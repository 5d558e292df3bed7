"""Exact moments of a black box: its one-step maps are read off by probing, then iterated as any scheme's.

On a Gaussian target the step is affine in state and noise, u' = R u + b + sum_k C_k xi_k. One call on a batch of
probes, a zero state, unit states, and a unit in each slot of each draw, gives b, R and the columns of C; further rows
with random states and noises must come out as the affine map says, or the step is not affine or rounds. The first step
is repeated on those rows alone: another batch must not change them. All targets are probed in the same call.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..integrators.blackbox import BlackBoxError, Step, call_step, slots
from ..integrators.grids import check_grid
from .algebra import Array
from .gaussian import GaussianTarget
from .moments import AffineMap, Moments, starting_law

# Rows that check the map, and how well: float64 steps agree to 1e-13 or so, float32 anywhere in them shows as 1e-8.
_CHECKS, _TOLERANCE = 4, 1e-10


class ProbedStep:
    """A black box's step on a batch of Gaussian targets, as affine maps; `nfe` counts its score evaluations."""

    def __init__(self, step: Step, target: GaussianTarget) -> None:
        self.step, self.target, self.nfe = step, target, 0
        self._shapes: list[torch.Size] | None = None
        self._rng = np.random.default_rng(0)  # of the checking rows: any will do

    def __call__(self, tau: float, h: float) -> AffineMap:
        """The map (V,) of the step from tau to tau + h. Raises BlackBoxError, naming the step's time."""
        try:
            return self._probe(tau, h)
        except BlackBoxError as error:
            raise BlackBoxError(f"at tau = {tau:.6g}: {error}") from error

    def _probe(self, tau: float, h: float) -> AffineMap:
        first = self._shapes is None
        if self._shapes is None:
            batch = _CHECKS * self.target.mean.size
            zero = torch.zeros(batch, 2, dtype=torch.float64)
            _, shapes, _ = call_step(
                self.step, zero, tau, h, self._score(_CHECKS), lambda _, shape: torch.zeros(shape, dtype=torch.float64)
            )
            slots(shapes, batch)
            self._shapes = [torch.Size(shape[1:]) for shape in shapes]
        width = sum(math.prod(shape) for shape in self._shapes)
        states, noises = np.zeros((3 + width + _CHECKS, 2)), np.zeros((3 + width + _CHECKS, width))
        states[1, 0] = states[2, 1] = 1
        noises[3 : 3 + width] = np.eye(width)
        # Few enough bits for any floating type, so that noise drawn in float32 is not taken for rounding.
        states[-_CHECKS:] = self._rng.integers(-16, 17, (_CHECKS, 2)) / 8
        noises[-_CHECKS:] = self._rng.integers(-16, 17, (_CHECKS, width)) / 8
        out, nfe = self._call(tau, h, states, noises)
        self.nfe += nfe
        offset = out[:, 0]
        columns = out[:, 1 : 3 + width] - offset[:, None]
        predicted = offset[:, None] + np.concatenate([states, noises], axis=1)[-_CHECKS:] @ columns
        size = max(1.0, float(np.abs(out).max()))
        error = float(np.abs(out[:, -_CHECKS:] - predicted).max()) / size
        if not error <= _TOLERANCE:
            raise BlackBoxError(
                f"the step is not an affine map of its state and noise on a Gaussian target: it departs by {error:.1e} "
                "(near 1e-8: it rounds to float32 somewhere; else it is nonlinear or mixes the entries of a batch)"
            )
        if first:
            again, _ = self._call(tau, h, states[-_CHECKS:], noises[-_CHECKS:])
            error = float(np.abs(again - out[:, -_CHECKS:]).max()) / size
            if not error <= _TOLERANCE:
                raise BlackBoxError(
                    f"the step gives other results in another batch or when called again: they differ by {error:.1e}; "
                    "it mixes the entries of a batch, or keeps state between calls"
                )
        matrix, factor = columns[:, :2], columns[:, 2:]
        return AffineMap(
            np.ascontiguousarray(matrix.transpose(2, 1, 0)),
            np.ascontiguousarray(offset.T),
            np.einsum("vki,vkj->ijv", factor, factor),
        )

    def _call(self, tau: float, h: float, states: Array, noises: Array) -> tuple[Array, int]:
        """The step on every row for every target: (V, rows, 2), and its score evaluations."""
        V, rows = self.target.mean.size, len(states)
        u, xi = (torch.as_tensor(np.tile(array, (V, 1))) for array in (states, noises))
        known = self._shapes or []
        offsets = np.cumsum([0, *(math.prod(shape) for shape in known)])

        def draw(k: int, shape: torch.Size) -> Tensor:
            if k >= len(known) or torch.Size(shape[1:]) != known[k] or shape[0] != rows * V:
                raise BlackBoxError("the step draws another number or shape of Gaussians than in its first call")
            return xi[:, offsets[k] : offsets[k + 1]].reshape(shape)

        result, shapes, nfe = call_step(self.step, u, tau, h, self._score(rows), draw)
        if len(shapes) != len(known):
            raise BlackBoxError(f"the step draws {len(shapes)} times, and {len(known)} times in its first call")
        return result.double().numpy().reshape(V, rows, 2), nfe

    def _score(self, rows: int) -> Callable[[Tensor, float], Tensor]:
        def score(u: Tensor, t: float) -> Tensor:
            law = self.target.law(float(t))
            precision = torch.as_tensor(np.repeat(self.target.precision(law), rows, axis=-1).transpose(2, 0, 1))
            mean = torch.as_tensor(np.repeat(law.mean, rows, axis=-1).T)
            centred = u.double() - mean
            return -torch.einsum("bij,bj->bi", precision, centred).to(u.dtype)

        return score


def probed_moments(step: Step, target: GaussianTarget, taus: Array, start: str = "exact") -> Moments:
    """Mean and covariance that the black box delivers after the steps of the grid, as `exact_moments` for schemes.

    Raises BlackBoxError if the step cannot be verified as it stands, ValueError on a bad grid or start.
    """
    taus = check_grid(taus, target.params)
    law = starting_law(target, float(taus[0]), start)
    probed = ProbedStep(step, target)
    with np.errstate(over="ignore", invalid="ignore"):
        for tau, h in zip(taus[:-1].tolist(), np.diff(taus).tolist(), strict=True):
            law = probed(tau, h).apply(law)
    return Moments(law, target.law(target.params.T - taus[-1]), probed.nfe)

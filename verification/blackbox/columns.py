"""What a probe reads off: the columns of an affine map, whose numbers all have mean 0 and variance 1.

A number of a discrete law is moved through all its values, one by one. Their mean belongs to the offset, and what is
left of them, weighted, adds up to the covariance that a Gaussian of the same first two moments has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...integrators.blackbox import Response
from ...integrators.draws import Law
from ..exact import AffineMap
from ..verdicts import Array
from .layout import NamedCause

# How well float32 agrees with float64: a few roundings, 2^-24 each.
FLOAT32 = 64 * 2.0**-24


class Increment(NamedTuple):
    """A number of a discrete law, and what it adds to the next state, less its mean: weights (n,), values (V, n,
    components)."""

    weights: Array
    values: Array


class Columns(NamedTuple):
    """An affine map read off: u' = offset + rows of `state` times u + rows of `draws` times independent numbers of
    mean 0 and variance 1.

    offset (V, n), state (V, n, n) and draws (V, width, n), of n components, the last axis that of u'; is_of (width,):
    which draw of the call each row belongs to; increments: of the draws that are not Gaussian, whose rows are as many
    as they have values and add up to their covariance; rounding: its departure from being affine where that is float32
    rounding, else 0; response: of the call.
    """

    offset: Array
    state: Array
    draws: Array
    is_of: NDArray[np.int64]
    increments: tuple[Increment, ...]
    rounding: float
    response: Response

    @property
    def map(self) -> AffineMap:
        """As a map whose draws have mean 0 and variance 1; nan if the run overflowed."""
        cov = np.einsum("vki,vkj->ijv", self.draws, self.draws)
        return AffineMap(np.ascontiguousarray(self.state.transpose(2, 1, 0)), np.ascontiguousarray(self.offset.T), cov)


def centred(
    offset: Array, draws: Array, widths: Sequence[int], laws: Sequence[Law]
) -> tuple[Array, Array, tuple[Increment, ...]]:
    """Offset (V, components) and rows of draws (V, rows, components) as they were read, with numbers of mean 0 and
    variance 1 in the place of the values of discrete laws; and what those add.

    widths, laws: of the draws, in order. Raises NamedCause where a number adds neither steps nor a multiple of itself.
    """
    if all(law.nodes is None for law in laws):
        return offset, draws, ()
    counts = [w * (1 if law.nodes is None else len(law.nodes)) for w, law in zip(widths, laws, strict=False)]
    settled, increments = list[Array](), list[Increment]()
    for block, law in zip(np.split(draws, np.cumsum(counts)[:-1], axis=1) if counts else [], laws, strict=False):
        if law.nodes is None or law.weights is None:
            settled.append(block)
            continue
        moved, weights = block.reshape(len(block), -1, len(law.nodes), block.shape[-1]), law.weights[:, None]
        _check_steps(moved, law)
        mean = (weights * moved).sum(2)[:, :, None]
        offset = offset + mean.sum((1, 2))
        increments += [Increment(law.weights, slot) for slot in np.moveaxis(moved - mean, 1, 0)]
        settled.append((np.sqrt(weights) * (moved - mean)).reshape(block.shape))
    return offset, np.concatenate(settled, axis=1) if settled else draws, tuple(increments)


def _check_steps(moved: Array, law: Law) -> None:
    """Raises NamedCause unless what a number adds (V, width, values, components) is constant on each part of its law,
    or, of a uniform number, linear there."""
    if not law.cells:
        return
    parts = moved.reshape(*moved.shape[:2], law.cells, moved.shape[2] // law.cells, moved.shape[-1])
    rest = parts - parts[..., :1, :]
    if law.is_uniform:
        across = np.array(
            [0, *(np.diff(law.nodes.reshape(law.cells, -1)[0]).cumsum() if law.nodes is not None else ())]
        )
        rest = rest - rest[..., -1:, :] * (across / across[-1])[:, None]
    if not np.abs(rest).max(initial=0.0) <= FLOAT32 * max(1e-3, float(np.abs(moved).max(initial=0.0))):
        what = (
            "neither linear nor steps at twelfths"
            if law.is_uniform
            else "neither linear nor steps of equal probability"
        )
        raise NamedCause(
            f"the sampler takes a function of what it draws from torch.{law.source} that is {what}; draw from "
            "torch.randn, or a two- or three-point law from torch.randint"
        )

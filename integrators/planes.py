"""States of any number of components, on kernels that know two planes.

A state of n components is (batch, n, *event), and (batch, *event) where n = 1, as code that knows one component alone
has it. A sample's noise in one interval is that of n E numbers, E the elements of an event, by rows of components,
drawn as ceil(n E / 2) pairs (integrators.noise), all first ones before all second ones: of two components the pairs
are those of (x, m). So one component is half of the elements in each of two planes, with P, K and C times the unit
matrix, and the compiled kernels serve it as they are; more than two are advanced by torch's operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .kernels import Draw, kernels_for
from .noise import check_samples, draw_pairs

Array = NDArray[np.float64]
# Columns of P, K and the lower triangle of C, of n components.
_COLUMNS = {2 * n * n + n * (n + 1) // 2: n for n in range(1, 9)}
_NEVER = 2**31 - 1


class Updates(Protocol):
    """The updates of a run, as `kernels.Updates`, on states of any number of components."""

    def __call__(self, k: int, u: Tensor, s: Tensor | None, noise: Draw | Tensor | None) -> Tensor:
        """The k-th update of u, a new state."""
        ...

    def wrong(self, wait: bool) -> int | None:
        """The first update whose score is not finite, as far as that is known without waiting for a device."""
        ...


def shape_of(size: int, event: Sequence[int]) -> tuple[int, ...]:
    """The shape of one state of `size` components."""
    return tuple(event) if size == 1 else (size, *event)


def normals(
    seed: int, samples: Tensor, interval: int, size: int, event: Sequence[int], dtype: torch.dtype = torch.float64
) -> Tensor:
    """Standard normals in the shape of states (batch, n, *event), or (batch, *event) of one component: those of the
    samples numbered `samples` (batch,), int64 >= 0, in one interval. Raises ValueError as `noise.normal_pairs`."""
    samples = check_samples(samples, dtype)
    out = torch.empty(len(samples), size, math.prod(event), dtype=dtype, device=samples.device)
    draw_normals(seed, samples, interval, size, out)
    return out.view(len(samples), *shape_of(size, event))


def draw_normals(seed: int, samples: Tensor, interval: int, size: int, out: Tensor, row: int = 0) -> None:
    """The same into out[:, row : row + size], out (batch, rows, elements) contiguous, on the device of `samples`, which
    `check_samples` has seen. Raises ValueError on a seed or interval out of range."""
    if size == 2:  # they are the pairs, which are drawn where they belong
        draw_pairs(seed, samples, interval, out, row)
        return
    batch, _, elements = out.shape
    count = size * elements
    pairs = out.new_empty(batch, 2, (count + 1) // 2)
    draw_pairs(seed, samples, interval, pairs)
    out[:, row : row + size] = pairs.view(batch, -1)[:, :count].view(batch, size, elements)


def linear_image(table: Array, operand: Tensor) -> Tensor:
    """The matrix `table` (rows, columns), float64, times `operand` (batch, columns, *event), in the operand's dtype and
    on its device: (batch, rows, *event)."""
    matrix = torch.from_numpy(np.array(table)).to(operand)
    flat = operand.flatten(2) if operand.ndim > 2 else operand[..., None]
    product = flat[..., 0] @ matrix.T if flat.shape[2] == 1 else matrix @ flat
    return product.reshape(len(operand), len(matrix), *operand.shape[2:])


def updates_for(coefficients: Array, u: Tensor) -> Updates:
    """The updates of rows P, K and the lower triangle of C (updates, 2 n^2 + n (n + 1) / 2) on states like u."""
    size = _COLUMNS[coefficients.shape[1]]
    if size == 2:
        return kernels_for(u).Updates(coefficients, u)
    return _Folded(coefficients, u) if size == 1 else _ByOperators(coefficients, size, u)


class _Folded:
    """One component, as two planes of half of the elements each, the last one padded where their number is odd."""

    def __init__(self, coefficients: Array, u: Tensor) -> None:
        p, k, c = coefficients.T
        zero = np.zeros_like(p)
        self._updates = kernels_for(u).Updates(np.stack([p, zero, zero, p, k, zero, zero, k, c, zero, c], axis=1), u)

    def __call__(self, k: int, u: Tensor, s: Tensor | None, noise: Draw | Tensor | None) -> Tensor:
        if isinstance(noise, Tensor):
            noise = _folded(noise)
        out = self._updates(k, _folded(u), None if s is None else _folded(s), noise)
        return out.reshape(len(u), -1)[:, : u[:1].numel()].reshape(u.shape)

    def wrong(self, wait: bool) -> int | None:
        return self._updates.wrong(wait)


def _folded(u: Tensor) -> Tensor:
    flat = u.reshape(len(u), -1)
    if flat.shape[1] % 2:
        flat = torch.nn.functional.pad(flat, (0, 1))
    return flat.reshape(len(u), 2, flat.shape[1] // 2)


class _ByOperators:
    """Three components and more, plane by plane."""

    def __init__(self, coefficients: Array, size: int, u: Tensor) -> None:
        square = size * size
        rows = (coefficients[:, :square], coefficients[:, square : 2 * square])
        self._maps = [matrix.reshape(-1, size, size).tolist() for matrix in rows]
        lower = np.zeros((len(coefficients), size, size))
        lower[:, *np.tril_indices(size)] = coefficients[:, 2 * square :]
        self._maps.append(lower.tolist())
        self.size = size
        self._first_wrong = torch.tensor(_NEVER, device=u.device)

    def __call__(self, k: int, u: Tensor, s: Tensor | None, noise: Draw | Tensor | None) -> Tensor:
        if isinstance(noise, Draw):
            noise = normals(noise.seed, noise.samples, noise.interval, self.size, u.shape[2:], u.dtype)
        out = torch.zeros_like(u)
        for matrices, operand in zip(self._maps, (u, s, noise), strict=True):
            if operand is not None:
                for i, row in enumerate(matrices[k]):
                    for j, factor in enumerate(row):
                        if factor != 0:
                            out[:, i].add_(operand[:, j], alpha=factor)
        if s is not None:
            bad = ~torch.isfinite(s).all()
            self._first_wrong = torch.where(bad, self._first_wrong.clamp(max=k), self._first_wrong)
        return out

    def wrong(self, wait: bool) -> int | None:
        if not wait and self._first_wrong.device.type != "cpu":
            return None
        first = int(self._first_wrong)
        return None if first == _NEVER else first

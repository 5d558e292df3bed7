"""Sums of exponentials over points that lie anywhere,

    sum_j w_j exp(i (p phi_j + q psi_j)),   |p| < rows, 0 <= q < columns:

two tables of powers, multiplied; or, in machine code, the nonuniform FFT (exact.compiled_sums). And over points on a
line, sum_j w_j exp(i q phi_j): few points, whose powers are no work.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..verdicts import Array

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

# Points whose powers are computed at once by operators: a few MB of them.
_BLOCK = 1 << 13
# Powers of points on a line that are computed at once: 4 MB of them.
_LINE_ENTRIES = 1 << 18


def exponential_sums(phases: Array, weights: Array, rows: int, columns: int) -> NDArray[np.complex128]:
    """The sums for phases (2, J), phi and psi, and weights (J,): complex, (2 rows - 1, columns), with p = 0, ...,
    rows - 1, 1 - rows, ..., -1. In machine code where there is numba."""
    with suppress(ImportError):
        from .compiled_sums import exponential_sums as compiled

        return compiled(phases, weights, rows, columns)
    return by_operators(phases, weights, rows, columns)


def line_sums(phases: Array, weights: Array, columns: int) -> NDArray[np.complex128]:
    """sum_j w_j exp(i q phi_j) for phases and weights (J,), 0 <= q < columns: complex, (columns,)."""
    total = np.zeros(columns, dtype=complex)
    block = max(1, _LINE_ENTRIES // columns)
    for begin in range(0, len(phases), block):
        powers = np.empty((columns, min(block, len(phases) - begin)), dtype=complex)
        powers[0] = 1
        turn = np.exp(1j * phases[begin : begin + block])
        done = 1
        while done < columns:  # by doubling: log2(columns) roundings in each
            more = min(done, columns - done)
            np.multiply(powers[:more], powers[done - 1] * turn, out=powers[done : done + more])
            done += more
        total += powers @ weights[begin : begin + block]
    return total


def by_operators(phases: Array, weights: Array, rows: int, columns: int) -> NDArray[np.complex128]:
    """`exponential_sums` by torch's operators."""
    import torch

    products = torch.zeros((2 * rows, 2 * columns), dtype=torch.float64)
    blocks = torch.from_numpy(phases).split(_BLOCK, dim=1)
    for block, mass in zip(blocks, torch.from_numpy(weights).split(_BLOCK), strict=True):
        left, right = (_powers(phase, count) for phase, count in zip(block, (rows, columns), strict=True))
        products.addmm_(left, right.mul_(mass).T)
    (cc, cs), (sc, ss) = (np.hsplit(half, 2) for half in np.vsplit(products.numpy(), 2))
    positive, negative = cc - ss + 1j * (sc + cs), cc + ss + 1j * (cs - sc)
    return np.concatenate([positive, negative[:0:-1]])


def _powers(phase: Tensor, count: int) -> Tensor:
    """z^n with z = exp(i phase) (J,), for n < count: real parts, then imaginary ones, (2 count, J). By doubling:
    log2(count) roundings in each."""
    import torch

    powers = phase.new_empty((2, count, phase.numel()))
    real, imag = powers
    real[0], imag[0] = 1, 0
    cos, sin = torch.cos(phase), torch.sin(phase)
    done = 1
    while done < count:
        more = min(done, count - done)
        new = slice(done, done + more)
        # z^done
        leap, turn = (
            (cos, sin)
            if done == 1
            else (
                real[done - 1] * cos - imag[done - 1] * sin,
                real[done - 1] * sin + imag[done - 1] * cos,
            )
        )
        torch.mul(real[:more], leap, out=real[new]).addcmul_(imag[:more], turn, value=-1)
        torch.mul(real[:more], turn, out=imag[new]).addcmul_(imag[:more], leap)
        done += more
    return powers.flatten(0, 1)

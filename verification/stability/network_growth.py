"""How much one step stretches a perturbation where the score is a network's.

A network has no matrix R; the largest factor by which one of its steps stretches a perturbation v around a given state
is the largest singular value of the step's Jacobian J, the root of the largest eigenvalue of J^T J. Power iteration,

    v <- J^T J v / |J^T J v|,    growth = |J v| / |v|,    residual = |J^T J v - growth^2 v| / growth^2,

needs products with J and J^T only. On data with a matrix R it is the norm of S^-1 R S with S = diag(units), n x n of n
components; verification.stability takes the law's factors at the two ends of the step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..verdicts import Array

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

    from ...integrators.blackbox import Score
    from ...integrators.draws import Draw, Law


@dataclass(frozen=True)
class NetworkGrowth:
    """How much one step stretches perturbations of each state of a batch.

    growth (batch,): the largest |J v| / |v| found, a lower bound of the largest singular value of the step's Jacobian.
    residual (batch,): |J^T J v - growth^2 v| / growth^2 for the unit direction v found; some singular value sigma has
    |sigma^2 / growth^2 - 1| <= residual. direction: v, shaped as the state, in the units asked for. iterations: how
    many were made.
    """

    growth: Array
    residual: Array
    direction: Tensor
    iterations: int


def _at_rest(_: int, shape: Sequence[int], law: Law) -> Tensor:
    """Normals that are 0, and of other draws a value that they can have."""
    import torch

    return torch.full(tuple(shape), 0.0 if law.nodes is None else float(law.nodes[0]), dtype=torch.float64)


def network_growth(
    step: Callable[[Tensor, float, float, Score], Tensor],
    u: Tensor,
    tau: float,
    h: float,
    score: Score,
    units: Sequence[float] = (1.0, 1.0),
    noise: Draw | None = None,
    iterations: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> NetworkGrowth:
    """The largest growth of one `step` around the states u (batch, n, *event), or (batch, *event) of one component, for
    any score, a network's among them.

    Power iteration v <- J^T J v on the whole batch at once, J v by torch.func.jvp and J^T by torch.func.vjp, so no
    matrix is formed; entries of the batch must not mix. The step's Gaussians are held fixed while it is
    differentiated, at `noise` (k, shape, law) or 0. units: the standard deviations, one for each of the n components,
    in which perturbations are measured, as those of the law at the step's time; (1,) or the like of one. Stops when
    every residual is at most `tolerance`. Raises ValueError on units that are not positive, a state of another layout
    than theirs, and steps that draw otherwise than black boxes may.
    """
    import torch

    from ...integrators.blackbox import NoiseAsInput
    from ...integrators.planes import shape_of

    if not min(units, default=0) > 0:
        raise ValueError(f"units = {units}: give the standard deviation of each component, all positive")
    planes = shape_of(len(units), ())
    if u.ndim <= len(planes) or u.shape[1 : 1 + len(planes)] != planes or not u.is_floating_point():
        raise ValueError(
            f"state of shape {tuple(u.shape)} and {u.dtype}: with {len(units)} unit{'s' * (len(units) > 1)} it must be "
            f"floating, (batch, {''.join(f'{n}, ' for n in planes)}*event); give a unit for each component"
        )
    if iterations < 1:
        raise ValueError(f"iterations = {iterations}: make 1 or more")
    layout = (*planes, *(1 for _ in u.shape[1 + len(planes) :]))
    scale = torch.tensor(units, dtype=u.dtype, device=u.device).reshape(layout)
    draw = noise or _at_rest

    def move(w: Tensor) -> Tensor:
        with NoiseAsInput(draw):
            return step(w * scale, tau, h, score) / scale

    def norm(v: Tensor) -> Tensor:
        return v.reshape(len(v), -1).norm(dim=1).reshape(-1, *(1 for _ in u.shape[1:]))

    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(u.shape, generator=generator, dtype=torch.float64).to(u)
    v, start = v / norm(v), u.detach() / scale
    made, growth, residual, direction = 0, torch.zeros(len(u)), torch.full((len(u),), torch.inf), v
    with warnings.catch_warnings(), torch.no_grad():  # a network's weights may ask for gradients, and get none
        warnings.filterwarnings(
            "ignore", "`torch.jit.script`", DeprecationWarning
        )  # torch's own, when jvp is first used
        pull = torch.func.vjp(move, start)[1]
        while made < iterations and bool((residual > tolerance).any()):
            moved = torch.func.jvp(move, (start,), (v,))[1]
            square = norm(moved) ** 2
            (back,) = pull(moved)
            growth = square.flatten().sqrt()
            residual = torch.where(growth > 0, (norm(back - square * v) / square).flatten(), 0.0)
            direction, v = v, back / norm(back).clamp_min(torch.finfo(u.dtype).tiny)
            made += 1
    return NetworkGrowth(growth.double().cpu().numpy(), residual.double().cpu().numpy(), direction, made)

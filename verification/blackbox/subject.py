"""A black box as a subject of studies: what a word would have said is read off by probing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...integrators.blackbox import Kind, Sampler, kind_of
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ...theory.scheme import Scheme
from ...theory.splitting import Splitting, whole_of
from ..exact import STEPS, T_END, Moments, Opaque, OrderStudy, gaussian_targets, study_order
from ..targets import GaussianTarget
from ..verdicts import Array
from .anatomy import Anatomy, dissect
from .probing import probed_moments
from .study import BLACK_BOX_STEPS, study_black_box


@dataclass(frozen=True)
class BlackBox(Opaque):
    """A sampler without a word (integrators.blackbox) under a name; event: the shape of one data point it needs;
    diffusion: what it samples.

    It follows the reverse SDE of its diffusion, or the probability flow if it draws no noise.
    """

    name: str
    sampler: Sampler = field(compare=False)
    event: tuple[int, ...] = ()
    diffusion: Diffusion = PSLD_DIFFUSION

    word: str = "black box"

    @cached_property
    def splitting(self) -> Splitting:
        """The dynamics it follows, as one part or two."""
        return whole_of(self.diffusion, self.is_stochastic)

    @cached_property
    def nfe_per_step(self) -> int:
        """Score evaluations of a step, after the first ones of a run."""
        longer, shorter = (self._run(np.linspace(0.5, 0.5 + 0.01 * n, n + 1)) for n in (4, 3))
        return longer.nfe - shorter.nfe

    @cached_property
    def is_stochastic(self) -> bool:
        """Whether its steps have noise."""
        return bool(self._run(np.array([0.5, 0.51])).noise_cov.any())

    @cached_property
    def is_stepwise(self) -> bool:
        """Whether steps can be probed one by one, at a cost linear in their number."""
        return kind_of(self.sampler) is Kind.STEP

    def _run(self, taus: Array) -> Anatomy:
        return dissect(self.sampler, taus, self.event, self.diffusion)

    def moments(self, target: GaussianTarget, taus: Array, start: str = "exact") -> Moments:
        """Mean and covariance on Gaussian data, by probing."""
        return probed_moments(self.sampler, target, taus, start, self.event)


def order_study_of(
    subject: Scheme | BlackBox,
    params: Parameters,
    expected: int | None = None,
    steps: Sequence[int] = STEPS,
    t_end: float = T_END,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> OrderStudy:
    """The order study of either; a black box, which is called at every step, stops at `BLACK_BOX_STEPS`' last."""
    options: dict[str, Any] = {"expected": expected, "t_end": t_end, "progress": progress}
    if isinstance(subject, Scheme):
        return study_order(subject, params, steps=steps, **options)
    levels = [count for count in steps if count <= BLACK_BOX_STEPS[-1]]
    target = gaussian_targets(subject.diffusion, params)
    return study_black_box(
        subject.name, subject.sampler, params, steps=levels, target=target, event=subject.event, **options
    )

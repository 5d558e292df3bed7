"""What is studied: a scheme, whose word is known, or a black box, which is read off by probing.

Studies ask either for the same few things: its name, the splitting whose dynamics it follows, its cost, its moments on
Gaussian data, its order study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...integrators.compiled import denoising_step
from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ...theory.splitting import PSLD_FLOW, PSLD_WHOLE, Splitting
from ..exact import (
    BLACK_BOX_STEPS,
    STEPS,
    T_END,
    Moments,
    OrderStudy,
    closed_map,
    exact_moments,
    study_black_box,
    study_order,
)
from ..targets import GaussianTarget
from ..verdicts import Array

if TYPE_CHECKING:
    from ...integrators.blackbox import Sampler


@dataclass(frozen=True)
class BlackBox:
    """A sampler without a word (integrators.blackbox) under a name; event: the shape of one data point it needs.

    It follows the reverse SDE of PSLD, or the probability flow if it draws no noise.
    """

    name: str
    sampler: Sampler = field(compare=False)
    event: tuple[int, ...] = ()

    # What a scheme derives from its word
    word: str = "black box"
    flow: str = "euler"
    lambda_s: float = 1.0
    order: int | None = None
    reference: str = ""
    warnings: tuple[str, ...] = ()
    inconsistencies: tuple[str, ...] = ()
    is_palindrome: bool = False

    @cached_property
    def splitting(self) -> Splitting:
        """The dynamics it follows, as one part or two."""
        return PSLD_WHOLE if self.is_stochastic else PSLD_FLOW

    @cached_property
    def nfe_per_step(self) -> int:
        """Score evaluations of a step, after the first ones of a run."""
        from .anatomy import dissect

        longer, shorter = (dissect(self.sampler, np.linspace(0.5, 0.5 + 0.01 * n, n + 1), self.event) for n in (4, 3))
        return longer.nfe - shorter.nfe

    @cached_property
    def is_stochastic(self) -> bool:
        """Whether its steps have noise."""
        from .anatomy import dissect

        return bool(dissect(self.sampler, np.array([0.5, 0.51]), self.event).noise_cov.any())

    @cached_property
    def is_stepwise(self) -> bool:
        """Whether steps can be probed one by one, at a cost linear in their number."""
        from ...integrators.blackbox import Kind, kind_of

        return kind_of(self.sampler) is Kind.STEP


Subject = Scheme | BlackBox


def moments_of(
    subject: Subject, target: GaussianTarget, taus: Array, start: str = "exact", denoise: bool = False
) -> Moments:
    """Mean and covariance on Gaussian data, as `exact_moments` (for a scheme) and `probed_moments` give them.

    denoise: whether the published denoising step follows, of the subject's dynamics, which costs one evaluation more.
    """
    if isinstance(subject, Scheme):
        return exact_moments(subject, target, taus, start, denoise)
    from .probing import probed_moments

    moments = probed_moments(subject.sampler, target, taus, start, subject.event)
    if not denoise:
        return moments
    last = closed_map(denoising_step(subject.splitting, target.params.T - float(taus[-1]), target.params), target)
    with np.errstate(over="ignore", invalid="ignore"):
        law = type(last)(*(entry[..., 0, :] for entry in last)).apply(moments.computed)
    return Moments(law, moments.exact, moments.nfe + 1, moments.rounding)


def order_study_of(
    subject: Subject,
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
    return study_black_box(subject.name, subject.sampler, params, steps=levels, event=subject.event, **options)

"""What is studied by its moments: a scheme, whose word is known, or whatever else knows its moments on Gaussian data.

Studies ask either for the same few things: its name, the splitting whose dynamics it follows, its cost, its moments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np

from ...integrators.compiled import denoising_step
from ...theory.scheme import Scheme
from ...theory.splitting import Splitting
from ..targets import GaussianTarget
from ..verdicts import Array
from .moments import Moments, closed_map, exact_moments


class Opaque(ABC):
    """A sampler that has no word, but can be asked for what studies need: see verification.blackbox.

    name: of the sampler. What a scheme derives from its word has a value here too.
    """

    name: str
    word: str
    flow: str = "euler"
    lambda_s: float = 1.0
    held: str = ""
    order: int | None = None
    reference: str = ""
    warnings: tuple[str, ...] = ()
    inconsistencies: tuple[str, ...] = ()
    is_palindrome: bool = False

    @cached_property
    @abstractmethod
    def splitting(self) -> Splitting:
        """The dynamics it follows, as one part or two."""

    @cached_property
    @abstractmethod
    def nfe_per_step(self) -> int:
        """Score evaluations of a step, after the first ones of a run."""

    @cached_property
    @abstractmethod
    def is_stochastic(self) -> bool:
        """Whether its steps have noise."""

    @cached_property
    @abstractmethod
    def is_stepwise(self) -> bool:
        """Whether its cost is linear in the number of steps: a whole trajectory's is not."""

    @abstractmethod
    def moments(self, target: GaussianTarget, taus: Array, start: str = "exact") -> Moments:
        """As `exact_moments` gives them for a scheme."""


Subject = Scheme | Opaque


def moments_of(
    subject: Subject, target: GaussianTarget, taus: Array, start: str = "exact", denoise: bool = False
) -> Moments:
    """Mean and covariance on Gaussian data, as `exact_moments` gives them for a scheme.

    denoise: whether the published denoising step follows, of the subject's dynamics, which costs one evaluation more.
    """
    if isinstance(subject, Scheme):
        return exact_moments(subject, target, taus, start, denoise)
    moments = subject.moments(target, taus, start)
    if not denoise:
        return moments
    last = closed_map(denoising_step(subject.splitting, target.params.T - float(taus[-1]), target.params), target)
    with np.errstate(over="ignore", invalid="ignore"):
        law = type(last)(*(entry[..., 0, :] for entry in last)).apply(moments.computed)
    return Moments(law, moments.exact, moments.nfe + 1, moments.rounding)

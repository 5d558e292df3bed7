"""What an error is measured in: on one Gaussian, moment by moment; on a spectrum, as a distance.

Every measure is signed or a square, is 0 for the data themselves, and is asked of the law of a sampler's last states:

    distance    sum_i (m_i - mu_i)^2 + (sqrt(C_i) - sqrt(s2_i))^2 of the positions, Frechet's (exact.spectrum)
    means       its first part
    deviations  its second part
    variance    sum_i (C_i - s2_i) / sum_i s2_i, signed: too little of it, or too much
    mean x ...  of one Gaussian: the moment minus that of the data, signed

A spectrum has thousands of eigenvalues, and a sampler's law N(a mu, C) depends on the eigenvalue s2 alone: its gain a,
for dynamics and scores are linear, and its variance C are smooth functions of log s2. They are computed at Chebyshev
points, and taken from there once the last coefficients of their series are below `_RESOLVED` of the largest; if 513
points do not resolve them, at all eigenvalues.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...theory.model import Diffusion, Parameters
from ..exact import Spectrum
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Array

Run = Callable[[GaussianTarget], GaussianLaw]

# The Chebyshev points that are tried, one after the other, and what the last eighth of the coefficients may be.
_POINTS, _RESOLVED = (49, 81, 129, 257, 513), 1e-10


class Measure(ABC):
    """What a budget is in: `names` of its measures, the first one the distance."""

    params: Parameters

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the measures."""

    @cached_property
    @abstractmethod
    def target(self) -> GaussianTarget:
        """The data, all of them."""

    @abstractmethod
    def of(self, law: GaussianLaw) -> Array:
        """The measures of a law of all data, (measures,); nan where it overflowed."""

    def of_run(self, run: Run) -> Array:
        """The measures of what `run` makes of a target, however many targets that takes."""
        return self.of(run(self.target))


@dataclass(frozen=True)
class OnSpectrum(Measure):
    """Of data with a spectrum, such as CIFAR-10's."""

    spectrum: Spectrum
    diffusion: Diffusion
    params: Parameters

    @property
    def names(self) -> tuple[str, ...]:
        """The distance, its two parts, and the variance."""
        return ("distance", "means", "deviations", "variance")

    @cached_property
    def target(self) -> GaussianTarget:
        """The data, all eigenvalues."""
        return GaussianTarget(self.spectrum.mean, self.spectrum.variances, self.diffusion, self.params)

    def of(self, law: GaussianLaw) -> Array:
        """The measures of a law at all eigenvalues."""
        with np.errstate(over="ignore", invalid="ignore"):
            means = ((law.mean[0] - self.spectrum.mean) ** 2).sum()
            deviations = ((np.sqrt(law.cov[0, 0]) - np.sqrt(self.spectrum.variances)) ** 2).sum()
            variance = (law.cov[0, 0] - self.spectrum.variances).sum() / self.spectrum.variances.sum()
        found = np.array([means + deviations, means, deviations, variance])
        return np.where(np.isfinite(found).all(), found, np.nan)

    def of_run(self, run: Run) -> Array:
        """The measures, from Chebyshev points where these resolve the law."""
        variances = self.spectrum.variances
        # Beside the noise of the cut-off smaller variances are as good as 0, where log s2 has no end.
        least = variances.min() * np.array([1.0, 2.0])
        once, twice = GaussianTarget.of(0, least, self.diffusion, self.params).law(self.params.eps).cov[0, 0]
        scale = max(2 * once - twice, 0.0)
        ends = np.log([variances.min() + scale, variances.max() + scale])
        centre, half = ends.mean(), (ends[1] - ends[0]) / 2
        place = (np.log(variances + scale) - centre) / half if half > 0 else np.zeros_like(variances)
        for points in _POINTS if half > 0 else ():
            nodes = np.cos(np.pi * np.arange(points) / (points - 1))
            some = np.maximum(np.exp(centre + half * nodes) - scale, 0)
            target = GaussianTarget(np.ones(points), some, self.diffusion, self.params)
            law = run(target)
            ratios = np.stack([law.mean[0], law.cov[0, 0] / (some + scale)])
            if not np.isfinite(ratios).all():
                return np.full(len(self.names), np.nan)
            series = _chebyshev(ratios)
            size = np.abs(series).max(1)
            if (np.abs(series[:, -points // 8 :]).max(1) <= _RESOLVED * size).all():
                gain, variance = np.polynomial.chebyshev.chebval(place, series.T)
                cov = variance * (variances + scale)
                return self.of(GaussianLaw((gain * self.spectrum.mean)[None], cov[None, None]))
        return self.of(run(self.target))


@dataclass(frozen=True)
class OnGaussian(Measure):
    """Of one Gaussian, N(mean, variance) in position: the distance, and every moment of a state."""

    mean: float
    variance: float
    diffusion: Diffusion
    params: Parameters

    @cached_property
    def target(self) -> GaussianTarget:
        """The Gaussian."""
        return GaussianTarget.of(self.mean, self.variance, self.diffusion, self.params)

    @property
    def names(self) -> tuple[str, ...]:
        """The distance and the moments."""
        components = self.diffusion.components
        pairs = zip(*np.triu_indices(len(components)), strict=True)
        moments = [f"cov {components[i]}{components[j]}" for i, j in pairs]
        return ("distance", *(f"mean {name}" for name in components), *moments)

    def of(self, law: GaussianLaw) -> Array:
        """The measures of a law."""
        data = self.target.law(0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            offset, spread = law.mean[0] - data.mean[0], np.sqrt(law.cov[0, 0]) - np.sqrt(data.cov[0, 0])
            pairs = np.triu_indices(self.diffusion.size)
            moments = [*(law.mean - data.mean)[:, 0], *(law.cov - data.cov)[pairs][:, 0]]
            found = np.array([(offset**2 + spread**2)[0], *moments])
        return np.where(np.isfinite(found).all(), found, np.nan)


def _chebyshev(values: Array) -> Array:
    """The coefficients of the series through values at cos(pi j / (n - 1)), (..., n)."""
    n = values.shape[-1] - 1
    j = np.arange(n + 1)
    ends = np.where((j == 0) | (j == n), 0.5, 1.0)
    return 2 / n * ends * ((ends * values) @ np.cos(np.pi * np.outer(j, j) / n))

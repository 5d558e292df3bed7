"""The mixtures that have a name; the banana and the Student law are of enough components to look smooth."""

from __future__ import annotations

import math

import numpy as np
import torch

from ...integrators.kernels import philox
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ..verdicts import Array
from .mixture import MixtureTarget

LARGEST_DIMENSION = 4096


def fixed_rotation(dim: int, number: int) -> Array:
    """An orthogonal matrix (dim, dim) that looks random and is always the same: the Q of the QR decomposition, with a
    positive diagonal of R, of normals z, row by row, that are defined here and no sampler's:

        z_e = (-2 log u)^1/2 cos(2 pi v),   u, v 53 bits in (0, 1] of words 0, 1 and 2, 3 of Philox(e, 0, number, 0).
    """
    words = philox((torch.arange(dim * dim), 0, number, 0), (0, 0))
    u, v = (((words[k] << 21) + (words[k + 1] >> 11) + 1).double() * 2.0**-53 for k in (0, 2))
    normals = (torch.cos(2 * math.pi * v) * torch.sqrt(-2 * torch.log(u))).reshape(dim, dim).numpy()
    q, r = np.linalg.qr(normals)
    return q * np.sign(np.diagonal(r))


def fixed_covariance(dim: int, number: int, first: float, last: float) -> Array:
    """The matrix (dim, dim) with `fixed_rotation`'s columns as eigenvectors, and eigenvalues from `first` to `last` in
    geometric progression; `first` alone if dim = 1. Exactly symmetric."""
    rotation = fixed_rotation(dim, number)
    matrix = (rotation * np.geomspace(first, last, dim)) @ rotation.T
    return (matrix + matrix.T) / 2


def fixed_direction(dim: int) -> Array:
    """A unit vector (dim,) that looks random: the first column of rotation number 0, its largest entry positive."""
    direction = fixed_rotation(dim, 0)[:, 0]
    return direction * np.sign(direction[np.abs(direction).argmax()])


def _check_dimension(dim: int) -> None:
    if not isinstance(dim, int) or not 1 <= dim <= LARGEST_DIMENSION:
        raise ValueError(f"dim = {dim}: the dimension of the data is an integer from 1 to {LARGEST_DIMENSION}")


def gaussian(dim: int, params: Parameters, diffusion: Diffusion = PSLD_DIFFUSION) -> MixtureTarget:
    """N(0.5 e, S): e `fixed_direction`, S `fixed_covariance` number 1 with eigenvalues 0.25 to 0.05; N(0.5, 0.25) if
    dim = 1. Raises ValueError on a dim outside [1, 4096]."""
    _check_dimension(dim)
    mean = 0.5 * fixed_direction(dim)
    return MixtureTarget.of([1], [mean], [fixed_covariance(dim, 1, 0.25, 0.05)], params, diffusion, "gaussian")


def bimodal(dim: int, params: Parameters, diffusion: Diffusion = PSLD_DIFFUSION) -> MixtureTarget:
    """0.4 N(-e, S_1) + 0.6 N(e, S_2): e `fixed_direction`, S_1 and S_2 `fixed_covariance` numbers 1 and 2 with
    eigenvalues 0.2 to 0.05 and 0.05 to 0.2; 0.4 N(-1, 0.2) + 0.6 N(1, 0.05) if dim = 1.

    The modes are two apart in every dimension. No odd moment vanishes by symmetry. Raises ValueError on a dim outside
    [1, 4096].
    """
    _check_dimension(dim)
    e = fixed_direction(dim)
    covs = [fixed_covariance(dim, 1, 0.2, 0.05), fixed_covariance(dim, 2, 0.05, 0.2)]
    return MixtureTarget.of([0.4, 0.6], [-e, e], covs, params, diffusion, "mixture")


def banana(params: Parameters, diffusion: Diffusion = PSLD_DIFFUSION) -> MixtureTarget:
    """Gaussians along the parabola c(z) = (0.8 z, 0.5 z^2 - 0.5), 2-D.

    Nodes z from -3 to 3, h = 1/4 apart, with weights ~ exp(-z^2 / 2); covariances h^2 c' c'^T + 0.15^2 1: along the
    curve a component is as wide as the nodes are apart, and a lattice of such Gaussians is level to 2 exp(-2 pi^2) =
    5e-9 of its height (Poisson summation). 25 components.
    """
    spacing = 0.25
    z = spacing * np.arange(-12, 13)
    weights = np.exp(-(z**2) / 2)
    tangent = spacing * np.stack([np.full_like(z, 0.8), z], axis=1)
    covs = tangent[:, :, None] * tangent[:, None, :] + 0.15**2 * np.eye(2)
    means = np.stack([0.8 * z, 0.5 * z**2 - 0.5], axis=1)
    return MixtureTarget.of(weights / weights.sum(), means, covs, params, diffusion, "banana")


STUDENT_FREEDOM = 5
STUDENT_LOCATION, STUDENT_SCALE = (0.2, -0.1), ((0.15, 0.06), (0.06, 0.08))


def student(params: Parameters, diffusion: Diffusion = PSLD_DIFFUSION) -> MixtureTarget:
    """A Student law with 5 degrees of freedom, 2-D, up to its far tail: a scale mixture of Gaussians N(mu, v Sigma).

    In a Student law v has the inverse gamma law, v^-1 ~ Gamma(n/2, n/2), so log v has the density ~ v^(-n/2)
    exp(-n / (2 v)). Here that is the trapezoid rule in log v with steps of 1/2 from -2 to 6.5, 18 components, weights
    divided by their sum. The density is the Student law's to 1e-5 out to ten times its scale, to 5e-3 out to thirty;
    far out it is Gaussian in place of a power law, so that all moments exist.
    """
    n = STUDENT_FREEDOM
    log_v = np.arange(-4, 14) / 2
    log_weights = -n / 2 * (log_v + np.exp(-log_v))
    weights = np.exp(log_weights - log_weights.max())
    means = np.tile(STUDENT_LOCATION, (len(log_v), 1))
    covs = np.exp(log_v)[:, None, None] * np.array(STUDENT_SCALE)
    return MixtureTarget.of(weights / weights.sum(), means, covs, params, diffusion, "student")

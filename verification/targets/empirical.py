"""The empirical law of real images: a score in 3,072 dimensions that is known exactly, without a network.

Data: a point mass 1/n at each of n images x_i. Every coordinate has the same kernel (theory.kernel), with mean a x_i,
a = P (1, 0)^T, and covariance C = L L^T, of the k components of a state. With x_i taken relative to a centre c, a
whitened state w and b = L^-1 a,

    w = L^-1 (u - a c),   h = b.w,   g = |b|^2                              (w, h per coordinate)
    log N_i(u) = l_i - 1/2 |w|^2 - dim (log det L + k/2 log 2 pi),   l_i = h.x_i - g/2 |x_i|^2
    h = q.(u - a c),   q = L^-T b
    r = softmax(l),   D(u, t) = c + sum_i r_i x_i               the optimal denoiser, E[x_0 | u_t = u]
    score   s(u, t) = -L^-T L^-1 (u - a D)

h / g is what u says of the image: an unbiased estimate, with noise of variance 1 / g. All l_i are one matrix product, D
is a second one; both run over chunks of images, and sum and largest logarithm are carried along (a streaming softmax),
so that the memory is that of the states and a chunk.

What the products lose: pixels are integers from 0 to 255 and the centre is one too (the mean image, rounded), so x_i
and |x_i|^2 are exact, and a product of dim terms errs by at most dim 2^-53 |h||x_i|. Near the data h / g is an image,
so

    |error of l_i| <= dim 2^-53 g R^2,   R = max_i |x_i|,

the price of products where differences |h / g - x_i|^2 would be taken with error 2^-53 g |h / g||x_i - x_j|, from the
rounding of h alone. With the default model at t = 1e-3 the bound is 1e-5, on logarithms that differ by 1e6 between most
images, and errors measured on real images are 1e-8. The bound grows like g, which is 1 / (Gamma theta) for small t and
like theta^-3 if Gamma = 0; where it exceeds `MAX_LOGIT_ERROR` the time is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...integrators.planes import shape_of
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from .. import data as shipped
from ..verdicts import Array
from .gaussian import GaussianTarget
from .mixture import Factors, as_components, check_time, normals_and_uniform
from .target import Target

# States and images that are worked on at once: 1024 x 3072 float64 are 25 MB.
_STATES, _CHUNK = 1024, 512
# Beside a probability of 1: a chunk of such terms is less than a rounding of the sum.
_NEGLIGIBLE = 2.0**-64
# The most that rounding may change a logarithm of probability, and so, relatively, a responsibility.
MAX_LOGIT_ERROR = 1e-2
# A pixel p in 0..255 stands for the number p / HALF_RANGE - 1 in [-1, 1].
HALF_RANGE = 127.5


@dataclass(frozen=True, eq=False)
class EmpiricalTarget(Target):
    """x_0 uniform on n images: uint8 (n, *event), scaled to [-1, 1] by pixel / 127.5 - 1.

    Images are kept as bytes and converted chunk by chunk. Raises ValueError if there are none or on another dtype, and
    under a diffusion without noise, where point masses have no score.
    """

    name: str
    images: NDArray[np.uint8]
    diffusion: Diffusion
    params: Parameters
    event: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim < 2 or not self.images.size:
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}; they must be uint8 (n, *event)")
        object.__setattr__(self, "event", self.images.shape[1:])
        _ = self._point  # refuses a diffusion without noise

    # --- The data -----------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Array:
        """1/n for every image, (n,)."""
        return np.full(len(self.images), 1 / len(self.images))

    @property
    def data_mean(self) -> Array:
        """The mean image, (*event)."""
        return self._sums[0] / len(self.images) / HALF_RANGE - 1

    @property
    def data_variance(self) -> Array:
        """The variance of every pixel over the images (divisor n), (*event)."""
        (total, squares), n = self._sums, len(self.images)
        return (n * squares - total**2) / (n * HALF_RANGE) ** 2

    @cached_property
    def radius(self) -> float:
        """R, the largest distance of an image from the centre."""
        return math.sqrt(max(float(squares.max()) for _, squares in self._chunks(torch.device("cpu")))) / HALF_RANGE

    # --- The law at time t --------------------------------------------------------------------------------------------

    def score(self, u: Tensor, t: float) -> Tensor:
        """grad log p_t(u), in u's shape, dtype and device."""

        def block_score(kernel: _Kernel, block: Tensor) -> Tensor:
            return kernel.score(block, self._denoise(kernel, block))

        return self._in_blocks(u, t, block_score).reshape(u.shape).to(u.dtype)

    def denoiser(self, u: Tensor, t: float) -> Tensor:
        """The optimal denoiser E[x_0 | u_t = u], (batch, *event), float64."""
        return self._in_blocks(u, t, self._denoise).reshape(-1, *self.event)

    def log_density(self, u: Tensor, t: float) -> Tensor:
        """log p_t(u), (batch,), float64."""

        def block_density(kernel: _Kernel, block: Tensor) -> Tensor:
            sums = [torch.logsumexp(logits, dim=1) for _, logits in self._logits(kernel, block)]
            whitened = kernel.whiten(block - kernel.mean(self._centre(block.device) / HALF_RANGE - 1))
            log_det, scale = kernel.factors.log_det, len(kernel.a) / 2 * math.log(2 * math.pi)
            constant = block.shape[-1] * (log_det + scale) + math.log(len(self.images))
            return torch.logsumexp(torch.stack(sums), dim=0) - whitened.square().sum((1, 2)) / 2 - constant

        return self._in_blocks(u, t, block_density)

    def responsibilities(self, u: Tensor, t: float) -> Tensor:
        """The probabilities of the images given u, (batch, n), float64."""

        def block_responsibilities(kernel: _Kernel, block: Tensor) -> Tensor:
            logits = [logits for _, logits in self._logits(kernel, block)]
            return torch.softmax(torch.cat(logits, dim=1), dim=1)

        return self._in_blocks(u, t, block_responsibilities)

    def sample(self, t: float, numbers: Tensor, seed: int) -> Tensor:
        """Exact draws of p_t; see `Target.sample`."""
        check_time(t)
        kernel = self._kernel(float(t), numbers.device)
        xi, uniform = normals_and_uniform(seed, numbers, math.prod(self.event), self.diffusion.size)
        chosen = (uniform * len(self.images)).long().clamp(max=len(self.images) - 1)
        images = self._bytes(numbers.device)[chosen].to(torch.float64) / HALF_RANGE - 1
        return (kernel.mean(images) + kernel.colour(xi)).reshape(-1, *shape_of(self.diffusion.size, self.event))

    # --- How ----------------------------------------------------------------------------------------------------------

    def _denoise(self, kernel: _Kernel, block: Tensor) -> Tensor:
        """D (batch, dim) of states (batch, n, dim); the softmax's sum and largest logarithm are carried along."""
        largest = torch.full((len(block), 1), -math.inf, dtype=torch.float64, device=block.device)
        total, weighted = torch.zeros_like(largest), None
        for images, logits in self._logits(kernel, block):
            before, largest = largest, torch.maximum(largest, logits.amax(1, keepdim=True))
            old, new = (before - largest).exp(), (logits - largest).exp()
            total = total * old + new.sum(1, keepdim=True)
            some = new.amax(0) > _NEGLIGIBLE  # near the data few are
            if 2 * int(some.sum()) < len(some):  # else copying them costs more than it spares
                new, images = new[:, some], images[some]
            weighted = new @ images if weighted is None else torch.addmm(weighted * old, new, images)
        assert weighted is not None  # there are images
        return (weighted / (HALF_RANGE * total)).add_(self._centre(block.device) / HALF_RANGE - 1)

    def _logits(self, kernel: _Kernel, block: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of images relative to the centre, in pixels (chunk, dim), with their l_i (batch, chunk), of states
        (batch, n, dim)."""
        centre = self._centre(block.device) / HALF_RANGE - 1
        first, *others = (
            entry / HALF_RANGE for entry in kernel.q.tolist()
        )  # of q.(u - a c), which is h in whole pixels
        h = block[:, 0] * first
        for entry, component in zip(others, block.unbind(1)[1:], strict=True):
            h = torch.add(h, component, alpha=entry)
        h.sub_(centre, alpha=kernel.g / HALF_RANGE)
        for images, squares in self._chunks(block.device):
            yield images, torch.addmm(squares, h, images.T, beta=-kernel.g / (2 * HALF_RANGE**2))

    def _chunks(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Of chunks of images the pixels relative to the centre (chunk, dim), and their sums of squares (chunk,)."""
        if len(self.images) <= _CHUNK:
            yield self._only_chunk(device)
            return
        for chunk in self._bytes(device).split(_CHUNK):
            yield self._relative(chunk, device)

    def _relative(self, chunk: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        images = chunk.to(torch.float64).sub_(self._centre(device))
        return images, images.square().sum(1)

    @cached_property
    def _only_chunk(self) -> Callable[[torch.device], tuple[Tensor, Tensor]]:
        """`_chunks` of few images, kept."""
        return lru_cache(lambda device: self._relative(self._bytes(device), device))

    def _in_blocks(self, u: Tensor, t: float, function: Callable[[_Kernel, Tensor], Tensor]) -> Tensor:
        """function(kernel, block) of blocks (rows, n, dim) of the batch u, in float64."""
        u = as_components(u, self.diffusion.size, self.event, t)
        kernel = self._kernel(float(t), u.device)
        found = [function(kernel, block) for block in u.split(_STATES)]
        return found[0] if len(found) == 1 else torch.cat(found)

    @cached_property
    def _sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sum and sum of squares of every pixel over the images, (*event): integers, exact."""
        total = np.zeros((2, *self.event), dtype=np.int64)
        for first in range(0, len(self.images), _CHUNK):
            chunk = self.images[first : first + _CHUNK].astype(np.int64)
            total += np.stack([chunk.sum(0), (chunk**2).sum(0)])
        return total[0], total[1]

    @cached_property
    def _bytes(self) -> Callable[[torch.device], Tensor]:
        """The images (n, dim), uint8, on a device."""
        images = torch.from_numpy(np.ascontiguousarray(self.images.reshape(len(self.images), -1)))
        return lru_cache(images.to)

    @cached_property
    def _centre(self) -> Callable[[torch.device], Tensor]:
        """The rounded mean image in pixels, (dim,), float64, on a device."""
        centre = torch.from_numpy(np.rint(self._sums[0] / len(self.images)).ravel())
        return lru_cache(centre.to)

    @cached_property
    def _point(self) -> GaussianTarget:
        """A single point at 1: its law is the kernel's covariance, and its mean is a."""
        return GaussianTarget.of(1.0, 0.0, self.diffusion, self.params)

    @cached_property
    def _kernel(self) -> Callable[[float, torch.device], _Kernel]:
        @lru_cache
        def kernel(t: float, device: torch.device) -> _Kernel:
            law = self._point.law(t)
            factors = Factors.of(law.cov[..., 0], t)
            a = torch.from_numpy(law.mean[:, 0])
            b = torch.stack(factors.whiten(a.unbind(0)))
            q = torch.cat(factors.pull(b.unbind(0)))
            g = float(b.square().sum())
            error = math.prod(self.event) * 2.0**-53 * g * self.radius**2
            if not error <= MAX_LOGIT_ERROR:
                raise ValueError(
                    f"t = {t:g}: the kernel is too narrow for float64 to tell the images apart (logarithms of "
                    f"probabilities err by up to {error:.1g}, allowed {MAX_LOGIT_ERROR:g}); give a larger t or eps"
                )
            return _Kernel(factors.each(lambda entry: entry.to(device)), a.to(device), q, g)

        return kernel


class _Kernel(NamedTuple):
    """The kernel at one time, on one device: L, a (n,), q = L^-T b (n,) and g = |b|^2, with b = L^-1 a; states are
    (batch, n, dim)."""

    factors: Factors
    a: Tensor
    q: Tensor
    g: float

    def mean(self, images: Tensor) -> Tensor:
        """a x of x (..., dim): (..., n, dim)."""
        return self.a[:, None] * images[..., None, :]

    def whiten(self, states: Tensor) -> Tensor:
        """L^-1 of every coordinate."""
        return torch.stack(self.factors.whiten(states.unbind(1)), dim=1)

    def colour(self, states: Tensor) -> Tensor:
        """L of every coordinate."""
        return torch.stack(self.factors.colour(states.unbind(1)), dim=1)

    def score(self, states: Tensor, images: Tensor) -> Tensor:
        """-L^-T L^-1 (state - a image), by the entries of L^-T L^-1: few passes over memory."""
        units = torch.eye(len(self.a), dtype=torch.float64).unbind(0)
        lower = Factors(tuple(tuple(entry.cpu() for entry in row) for row in self.factors.lower), self.factors.log_det)
        precision = torch.stack(lower.pull(lower.whiten(units))).tolist()
        apart = [torch.add(state, images, alpha=-a) for state, a in zip(states.unbind(1), self.a.tolist(), strict=True)]
        rows = []
        for first, *others in precision:
            row = apart[0] * -first
            for entry, z in zip(others, apart[1:], strict=True):
                row = torch.add(row, z, alpha=-entry)
            rows.append(row)
        return torch.stack(rows, dim=1)


# --- Images -----------------------------------------------------------------------------------------------------------


def read_images(path: Path | Traversable, side: int = 32) -> NDArray[np.uint8]:
    """The images of an npz file with `images`, uint8 (n, side, side, 3), as (n, 3, side, side).

    Raises ValueError, in one line that names the file, if it is missing or holds something else.
    """
    name, rule = str(path), f"it must be an npz file with `images`, uint8 (n, {side}, {side}, 3)"
    try:
        with path.open("rb") as file:
            arrays = np.load(file)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            if "images" not in arrays:
                raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}")
            images = arrays["images"]
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {name!r}; give the path of an npz file of images") from error
    except Exception as error:  # numpy and zipfile raise a dozen kinds on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name!r} cannot be read: {reason}; {rule}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3) or not len(images):
        raise ValueError(f"{name!r} has images of {images.dtype} {images.shape}; {rule}")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def cifar10_target(
    params: Parameters, data: Path | None = None, diffusion: Diffusion = PSLD_DIFFUSION
) -> EmpiricalTarget:
    """The images of the file `data`, or the 512 that data/README.md describes. Raises ValueError on a bad file."""
    path = resources.files(shipped) / "cifar10_images.npz" if data is None else data
    return EmpiricalTarget("empirical-cifar10", read_images(path), diffusion, params)

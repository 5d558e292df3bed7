"""Coarse runs on the noise of one fine run, the anchor: each coupled to it exactly, whatever other runs there are.

`integrators.coupling` cuts one Brownian motion at the ends of all its runs' intervals, so the normals that a run sees
depend on which runs are coupled. Here the anchor is sampled as ever, from standard normals z, n per segment with noise,
n the components of a state (integrators.sampler); any other run is coupled to it afterwards, from its own scheme and
grid and the anchor's.

`couple` gives the noises of both as linear images of common normals zeta. A segment's noise is C times its n standard
normals, C C^T = Q with C lower (`noise_factor`), so Gram and Schmidt on the n rows of its image give those normals
themselves, as orthonormal rows:

    z = W zeta  (anchor),  W W^T = 1         y = V zeta  (run),  V V^T = 1.

Given z, y is Gaussian with the mean A z and the covariance 1 - A A^T:

    y = A z + B z',     A = V W^T,     V - A W = B Q,     z' ~ N(0, 1) of the run's own,

where B Q is the LQ decomposition, B lower triangular, Q Q^T = 1, so that B B^T = 1 - A A^T without the difference of
nearly equal numbers. Then (y, z) has exactly the law of `couple`, and y that of the sampler's own normals.

A segment shares its Brownian motion only with the anchor's segments that overlap it, and what the anchor does not know
only with its neighbours, so A and B are banded. The anchor does not know how a piece of its noise divides where an
interval of the run ends inside it, nor, if the kinds of noise differ (an exact flow's against an increment), the
difference of the two. Nested runs of one kind have B = 0 and draw nothing. Where two runs, each coupled to the anchor,
draw, they may draw the same z': each pair (run, anchor) has its law, and nothing is said of the two together.

What counts as zero. A segment's second or later normal (or the anchor's) is left out, 0, where it carries less than
eps^(1/2) of its coordinate's standard deviation, eps the rounding unit: `noise_factor` cannot tell that from 0 either,
and the covariance misses eps. What is left of a normal without the anchor's, a row of V - A W, is 0 where its length is
below `_KNOWN`, that is at the rounding of the flows: its standard deviation relative to the normal's 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ..theory.model import Parameters
from ..theory.scheme import Scheme
from .compiled import Array, Run, compile_run
from .coupling import Coupling, couple
from .grids import check_grid
from .noise import START, check_samples
from .planes import draw_normals, linear_image, shape_of
from .sampler import Advance, Noise, Score

# A sample's own normals are those of the sample with this number more: no study has as many samples.
_OWN = 1 << 40

# Ten times what flows are accurate to (theory.flows), and far below what a float32 state resolves.
_KNOWN = 1e-11

# Normals of different segments are orthogonal to eps^(1/2) at worst; two that share Brownian motion are not, by much.
_INDEPENDENT = 1e-6


@dataclass(frozen=True, eq=False)
class Anchor:
    """A run of `scheme` over the grid `taus` (steps + 1,) that others are coupled to, P of its segments with noise.

    Normals are in the shape of states: (batch, P, n, *event) of n components, (batch, P, *event) of one. Raises
    ValueError on a bad grid, or a sub-flow that is not sampled (see `compile_step`).
    """

    scheme: Scheme
    taus: Array
    params: Parameters

    def __post_init__(self) -> None:
        object.__setattr__(self, "taus", check_grid(self.taus, self.params))
        _ = self.run

    @property
    def size(self) -> int:
        """The components n of a state."""
        return self.scheme.splitting.diffusion.size

    @cached_property
    def run(self) -> Run:
        """The compiled run."""
        return compile_run(self.scheme, self.taus, self.params)

    @cached_property
    def intervals(self) -> NDArray[np.int64]:
        """The numbers, increasing, of the P intervals whose noise the run draws, in the sampler's count."""
        return _intervals(self.run)

    def draw(
        self, samples: Tensor, event: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The normals of the samples numbered `samples` (batch,), as the sampler draws them: (batch, P, n, *event)."""
        samples, size, count = check_samples(samples, dtype), self.size, len(self.intervals)
        normals = torch.empty(len(samples), size * count, math.prod(event), dtype=dtype, device=samples.device)
        for k, interval in enumerate(self.intervals.tolist()):
            draw_normals(seed, samples, interval, size, normals, size * k)
        return normals.view(len(samples), count, *shape_of(size, event))

    def noise(self, normals: Tensor, dtype: torch.dtype) -> Noise:
        """The drawn `normals` (batch, P, n, *event) by interval, for `sampler.integrate` on states of `dtype`."""
        place = {interval: k for k, interval in enumerate(self.intervals.tolist())}
        return lambda interval: normals[:, place[interval]].to(dtype)


class Image(NamedTuple):
    """What the n normals of segments first, ..., last - 1 contribute to those of one: `matrix` (n, n (last - first)),
    float64."""

    first: int
    last: int
    matrix: Array


@dataclass(frozen=True, eq=False)
class AnchoredRun:
    """A run coupled to `anchor`: its k-th segment with noise has the standard normals `known`[k] of the anchor's +
    `own`[k] of the run's own, of which each of these segments has n."""

    anchor: Anchor
    run: Run
    known: tuple[Image, ...]
    own: tuple[Image, ...]

    @property
    def draws(self) -> bool:
        """Whether the run needs normals of its own: the anchor's do not determine it."""
        return any(image.last > image.first for image in self.own)

    def noise(self, normals: Tensor, samples: Tensor, seed: int, dtype: torch.dtype) -> Noise:
        """The run's standard normals in the shape of states (batch, n, *event) by interval, of `dtype`, for
        `sampler.integrate`.

        normals: the anchor's, (batch, P, n, *event), see `Anchor.draw`; samples (batch,): the numbers, below 2^40, that
        the run's own normals go by. Raises ValueError if they do not fit.
        """
        batch, size = len(samples), self.anchor.size
        expected = batch, len(self.anchor.intervals), *shape_of(size, ())
        if normals.shape[: len(expected)] != expected:
            raise ValueError(
                f"anchor normals of shape {tuple(normals.shape)}: {batch} samples of this anchor have "
                f"({', '.join(map(str, expected))}, *event)"
            )
        event = tuple(normals.shape[len(expected) :])
        if bool((samples >= _OWN).any()):
            raise ValueError(f"sample {int(samples.max())}: number the samples below 2^40")

        place = {interval: k for k, interval in enumerate(_intervals(self.run).tolist())}
        numbers = check_samples(samples, dtype) + _OWN

        @lru_cache(maxsize=max((own.last - own.first for own in self.own), default=0))
        def drawn(k: int) -> Tensor:
            rows = torch.empty(batch, size, math.prod(event), dtype=dtype, device=numbers.device)
            draw_normals(seed, numbers, START + 1 + k, size, rows)
            return rows.view(batch, size, *event)

        rows = normals.flatten(1, 2) if size > 1 else normals

        def noise(interval: int) -> Tensor:
            known, own = self.known[place[interval]], self.own[place[interval]]
            total = linear_image(known.matrix, rows[:, size * known.first : size * known.last].to(dtype))
            if own.last > own.first:
                total += linear_image(own.matrix, torch.cat([drawn(k) for k in range(own.first, own.last)], dim=1))
            return total.view(batch, *shape_of(size, event))

        return noise


def anchor_to(anchor: Anchor, scheme: Scheme, taus: Array) -> AnchoredRun:
    """Couple the run of `scheme` over the grid `taus` (steps + 1,) to the anchor; both may differ in every respect.

    Raises ValueError on states of other components than the anchor's, a bad grid, a sub-flow that is not sampled, noise
    that changes with time, or an anchor whose segments share noise.
    """
    size, coupling = anchor.size, couple([(anchor.scheme, anchor.taus), (scheme, taus)], anchor.params)
    W, V = (_normals(coupling, number) for number in (0, 1))
    shared = (W @ W.T).tocoo()
    if (np.abs(shared.data[shared.row // size != shared.col // size]) > _INDEPENDENT).any():
        raise ValueError(
            f"scheme {anchor.scheme.name!r} uses one noise in two segments: an anchor's segments must be independent; "
            "choose a word that covers each clock once"
        )
    A = V @ W.T
    rest = V - A @ W
    unknown = np.sqrt(rest.multiply(rest).sum(axis=1)) > _KNOWN
    B = _lower(sparse.csr_array(rest.multiply(unknown[:, None])), size)
    return AnchoredRun(anchor, coupling.runs[1].run, _images(A, size), _images(B, size))


@torch.no_grad()
def sample_anchored(
    run: AnchoredRun, score: Score, u: Tensor, normals: Tensor, samples: Tensor, seed: int = 0
) -> Tensor:
    """Run from the states `u` (batch, n, *event) of the samples numbered `samples` (batch,), on the anchor's `normals`
    (batch, P, n, *event): the last state. Of one component neither has the n.

    score(u, t): grad log p_t(u) in u's shape, t a float. `normals` may be of a lower precision than u. A path is a
    function of the run, its anchor, the seed, the sample's number and its first state; one that overflows ends in inf
    or nan, and leaves the others alone. Raises ValueError as `AnchoredRun.noise`.
    """
    advance = Advance(run.run, u, run.noise(normals, samples, seed, u.dtype))
    u, times = advance(0, u, None), run.run.updates.time
    for k, t in enumerate([] if times is None else times.tolist()):
        u = advance(k + 1, u, score(u, t))
    return u


# --- Compiling --------------------------------------------------------------------------------------------------------


def _intervals(run: Run) -> NDArray[np.int64]:
    """The numbers of the intervals whose noise the run draws, in the sampler's count: of segments with Q != 0."""
    noise_cov = np.concatenate([run.prologue.noise_cov[None], run.updates.flow.noise_cov])
    return START + 1 + np.flatnonzero(noise_cov.any(axis=(1, 2)))


def _normals(coupling: Coupling, number: int) -> Any:
    """The standard normals of a run's P segments with noise as orthonormal rows (n P, columns width), sparse; 0 for one
    that its segment does not have."""
    coupled, size = coupling.runs[number], coupling.size
    noisy = _intervals(coupled.run) - START - 1
    real = np.isin(coupled.segment, noisy)  # a rate of 0 leaves a noisy part without noise
    segment, image = np.searchsorted(noisy, coupled.segment[real]), coupled.image[real]

    def dot(a: Array, b: Array) -> Array:
        return np.bincount(segment, (a * b).sum(axis=1), len(noisy)).astype(float)

    found: list[Array] = []
    for i in range(size):
        row = image[:, i]
        smallest = np.sqrt(np.finfo(float).eps * dot(row, row))
        for _ in range(2):  # once leaves eps times the row, which may be much longer than what is left of it
            for earlier in found:
                row = row - dot(row, earlier)[segment, None] * earlier
        length = np.sqrt(dot(row, row))
        scale = np.divide(1, length, out=np.zeros(length.shape), where=length > smallest)
        found.append(row * scale[segment, None])
    rows = np.stack(found, axis=1)
    entry, row, normal = np.nonzero(rows)
    places = size * segment[entry] + row, coupling.width * coupled.column[real][entry] + normal
    return sparse.csr_array(
        (rows[entry, row, normal], places), shape=(size * len(noisy), coupling.columns * coupling.width)
    )


def _lower(rows: Any, n: int) -> Any:
    """B, lower triangular with B B^T = rows rows^T, (n P, n P), both sparse and banded.

    LQ from the first segment to the last: of the columns not yet used that reach into segment k, the rotated first n
    are those of B, and the others, no more than there are rows left in the band, are carried on.
    """
    size = rows.shape[0]
    columns = rows.tocsc()
    columns.sort_indices()
    used = np.flatnonzero(np.diff(columns.indptr))
    begin, end = columns.indices[columns.indptr[used]] // n, columns.indices[columns.indptr[used + 1] - 1] // n + 1
    used, end, begin = (entries[np.argsort(begin, kind="stable")] for entries in (used, end, begin))
    split = np.searchsorted(begin, np.arange(size // n + 1))
    carried, B = np.zeros((0, 0)), sparse.lil_array((size, size))
    for k in range(size // n):
        new = slice(split[k], split[k + 1])
        height = max(n, len(carried), n * (int(end[new].max(initial=0)) - k))
        band = np.zeros((height, carried.shape[1] + new.stop - new.start))
        band[: len(carried), : carried.shape[1]] = carried
        band[:, carried.shape[1] :] = rows[n * k : n * k + height][:, used[new]].toarray()
        if band[:n].any():
            band = np.asarray(np.linalg.qr(band.T, mode="r")).T
            B[n * k : n * k + height, n * k : n * k + min(n, band.shape[1])] = band[:, :n]
            band = band[:, n:]
        carried = band[n:]
    return sparse.csr_array(B)


def _images(matrix: Any, n: int) -> tuple[Image, ...]:
    """A sparse matrix (n P, n segments) by segment."""
    images = []
    for row in range(0, matrix.shape[0], n):
        entries = slice(matrix.indptr[row], matrix.indptr[row + n])
        segments = matrix.indices[entries][matrix.data[entries] != 0] // n
        first, last = (int(segments.min()), int(segments.max()) + 1) if len(segments) else (0, 0)
        images.append(Image(first, last, matrix[row : row + n, n * first : n * last].toarray()))
    return tuple(images)

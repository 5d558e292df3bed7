"""What a run ends at and how that changes with every time of its grid and with lambda_s, exactly up to differences.

On Gaussian data step k is an affine map, u <- R_k u + b_k + xi, xi ~ N(0, Q_k) (exact.moments), on the state and what
is remembered. With e the row that reads the position off the last state, that of the denoising step where there is one,
the position has the mean m = e m_N and the variance C = e C_N e^T, and with the rows l_N = e, l_k = l_(k+1) R_k

    dm = sum_k l_(k+1) (dR_k m_k + db_k),      dC = sum_k 2 l_(k+1) dR_k C_k l_k^T + l_(k+1) dQ_k l_(k+1)^T.

So one sweep forwards and one backwards give the derivatives by all maps at once, of every eigenvalue by itself, as a
least-squares method wants them: the Frechet distance is a sum of squares of the residuals

    m_i - mu_i,    sqrt(C_i) - sqrt(s2_i).

The maps' own derivatives are central differences of four points. Step k of a scheme that looks back on K evaluations
depends on the times tau_(k-K+1), ..., tau_(k+1) and on no other, so every (K+1)-th time is moved at once, and 4 (K + 1)
grids, whose steps are compiled in one call, give the derivatives by all times. A time is moved by 2^-9 and 2^-8 of its
shorter step: what is left out and what is rounded are both some 1e-11 of a map's own change over a step. By lambda_s
only Q changes, and as a square: there the difference is the derivative. (The tests hold all of it to the differences of
whole runs, and to automatic differentiation.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...integrators.compiled import Segment, compile_steps, denoising_step
from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..exact import AffineMap, Spectrum, closed_map, starting_law
from ..targets import GaussianTarget
from ..verdicts import Array

# By what share of its shorter step a time is moved at first, and lambda_s by what share of itself.
SHARE, SCALE_SHARE = 2.0**-9, 0.25
# Where a time is moved to, in these units, and with which weights the values there make a derivative.
MOVES, WEIGHTS = (-2, -1, 1, 2), (1 / 12, -8 / 12, 8 / 12, -1 / 12)
# Times differ by multiples of this, which are exact beside 1.
_GRAIN = 2.0**-48
# Steps times eigenvalues times what a step moves, squared, that one sweep holds: some 10 MB an array.
_SWEEP = 1 << 20
# Eigenvalues below this share of the largest count as this.
_LEAST = 1e-12


class Sketch(NamedTuple):
    """A spectrum of a few eigenvalues that stand for many: variances, mean and weights (V,), how many each stands for.
    A run's distance is the sum of `weights` times the squares of the residuals."""

    variances: Array
    mean: Array
    weights: Array


def sketch(data: Spectrum, count: int | None = None) -> Sketch:
    """The spectrum with its eigenvalues in `count` bins of equal width in log, each at the mean of their logs (None, or
    no fewer than there are: itself).

    What a run makes of N(mu, s2) is mu a(s2) and C(s2), so that the distance is sum_i mu_i^2 g(s2_i) + h(s2_i) with
    smooth functions of log s2: a bin of width w leaves out w^2 / 24 of their second derivatives.
    """
    if count is None or len(data.variances) <= count:
        return Sketch(data.variances, data.mean, np.ones(len(data.variances)))
    logs = np.log(np.maximum(data.variances, _LEAST * data.variances.max()))
    edges = np.linspace(logs.min(), logs.max(), count + 1)
    place = np.clip(np.digitize(logs, edges) - 1, 0, count - 1)
    weights = np.bincount(place, minlength=count).astype(float)
    kept = weights > 0
    middle, squares = (np.bincount(place, v, count)[kept] / weights[kept] for v in (logs, data.mean**2))
    return Sketch(np.exp(middle), np.sqrt(squares), weights[kept])


class Ending(NamedTuple):
    """The residuals of a run, (2 V,), the means' first, and their derivatives by the grid's times, (2 V, steps + 1),
    and by lambda_s, (2 V,); not finite where the run overflowed."""

    residuals: Array
    by_tau: Array
    by_scale: Array


def residuals(scheme: Scheme, data: Sketch, params: Parameters, taus: Array, denoise: bool) -> Array:
    """The residuals of a run from the prior over the grid `taus` (steps + 1,), down to params.T - taus[-1], where the
    denoising step follows if `denoise`: (2 V,)."""
    return _joined([_Course(scheme, part, params, taus, denoise).residuals for part in _blocks(scheme, data, taus, 1)])


def ending(scheme: Scheme, data: Sketch, params: Parameters, taus: Array, denoise: bool) -> Ending:
    """`residuals` with their derivatives."""
    blocks = _blocks(scheme, data, taus, 1 + len(MOVES) * stride_of(scheme))
    parts = [_Course(scheme, part, params, taus, denoise).ending() for part in blocks]
    return Ending(*(_joined(list(entries)) for entries in zip(*parts, strict=True)))


def _blocks(scheme: Scheme, data: Sketch, taus: Array, grids: int) -> Iterator[Sketch]:
    size = scheme.splitting.diffusion.size * scheme.memory
    block = max(1, _SWEEP // (len(taus) * grids * size**2))
    for first in range(0, len(data.variances), block):
        yield Sketch(*(entry[first : first + block] for entry in data))


def _joined(parts: list[Array]) -> Array:
    """Of blocks (2 V, ...) the means' rows of all, then the others."""
    halves = [np.split(part, 2) for part in parts]
    return np.concatenate([half[i] for i in (0, 1) for half in halves])


class _Course:
    """The states of a run, forwards, and the rows l, backwards; batches (steps, V, ...) with matrices last."""

    def __init__(self, scheme: Scheme, data: Sketch, params: Parameters, taus: Array, denoise: bool) -> None:
        self.scheme, self.data, self.params, self.taus, self.denoise = scheme, data, params, taus, denoise
        self.target = GaussianTarget(data.mean, data.variances, scheme.splitting.diffusion, params)
        self.maps = self._maps(scheme, [taus])
        R, b, Q = self.maps
        steps, V, d = b.shape
        law = starting_law(self.target, 0.0, "prior")
        size = len(law.mean)
        self.means, self.covs = np.zeros((steps + 1, V, d)), np.zeros((steps + 1, V, d, d))
        self.means[0, :, :size], self.covs[0, :, :size, :size] = law.mean.T, np.moveaxis(law.cov, -1, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(steps):
                self.means[k + 1] = (R[k] @ self.means[k, ..., None])[..., 0] + b[k]
                self.covs[k + 1] = R[k] @ self.covs[k] @ np.swapaxes(R[k], -1, -2) + Q[k]
            self.row, self.offset = self._last(taus[-1])
            self.mean = (self.row * self.means[-1]).sum(-1) + self.offset
            self.variance = np.einsum("vi,vij,vj->v", self.row, self.covs[-1], self.row)

    @property
    def residuals(self) -> Array:
        """(2 V,)."""
        with np.errstate(invalid="ignore"):
            spread = np.sqrt(self.variance) - np.sqrt(self.data.variances)
            return np.concatenate([self.mean - self.data.mean, spread]) * np.tile(np.sqrt(self.data.weights), 2)

    def ending(self) -> Ending:
        """The residuals and their derivatives."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._sweep_back()
            changes = differences(lambda grids: self._maps(self.scheme, grids), self.scheme, self.taus, self.params)
            by_tau = np.zeros((2, len(self.taus), len(self.mean)))
            for place, (dR, db, dQ) in changes:
                felt = place >= 1
                for half, entries in zip(by_tau, self._change(dR, db, dQ), strict=True):
                    np.add.at(half, place[felt], entries[felt])
            by_tau[:, -1] += self._last_change()
            by_scale = self._by_scale()
            scale = np.sqrt(self.data.weights) * np.stack([np.ones_like(self.variance), 0.5 / np.sqrt(self.variance)])
            return Ending(
                self.residuals,
                np.concatenate([(half * s).T for half, s in zip(by_tau, scale, strict=True)]),
                (by_scale * scale).reshape(-1),
            )

    def _maps(self, scheme: Scheme, grids: Sequence[Array]) -> tuple[Array, Array, Array]:
        """R, b and Q of all steps of the grids, one after the other."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _batch_first(maps_of(scheme, self.target, grids), len(self.data.mean))

    def _last(self, tau: float) -> tuple[Array, Array]:
        """The row e (V, d) and what the denoising step adds to the position, (V,)."""
        size, d = self.scheme.splitting.diffusion.size, self.means.shape[2]
        row, offset = np.zeros((len(self.data.mean), d)), np.zeros(len(self.data.mean))
        if not self.denoise:
            row[:, 0] = 1
            return row, offset
        step = denoising_step(self.scheme.splitting, self.params.T - tau, self.params)
        R, b, _ = _batch_first(closed_map(step, self.target), len(self.data.mean))
        row[:, :size], offset[:] = R[0, :, 0], b[0, :, 0]
        return row, offset

    def _sweep_back(self) -> None:
        R = self.maps[0]
        self.rows = np.zeros(self.means.shape)
        self.rows[-1] = self.row
        for k in range(len(R) - 1, -1, -1):
            self.rows[k] = (self.rows[k + 1, :, None] @ R[k])[:, 0]
        self.pulled = (self.covs[:-1] @ self.rows[:-1, ..., None])[..., 0]  # C_k l_k^T

    def _change(self, dR: Array, db: Array, dQ: Array) -> tuple[Array, Array]:
        """What the change of every step's map makes of m and of C, (steps, V) each."""
        rows = self.rows[1:]
        along = (rows[:, :, None] @ dR)[:, :, 0]
        return (
            (along * self.means[:-1]).sum(-1) + (rows * db).sum(-1),
            2 * (along * self.pulled).sum(-1) + self._noise(dQ),
        )

    def _noise(self, dQ: Array) -> Array:
        rows = self.rows[1:]
        return ((rows[:, :, None] @ dQ)[:, :, 0] * rows).sum(-1)

    def _last_change(self) -> Array:
        """What the last time changes by the denoising step, of m and of C: (2, V)."""
        if not self.denoise:
            return np.zeros((2, len(self.mean)))
        shift = sizes(self.taus, self.params)[-1]
        ends = [self._last(self.taus[-1] + move * shift) for move in MOVES]
        row, offset = (np.tensordot(WEIGHTS, [end[i] for end in ends], 1) / shift for i in (0, 1))
        return np.stack(
            [(row * self.means[-1]).sum(-1) + offset, 2 * np.einsum("vi,vij,vj->v", row, self.covs[-1], self.row)]
        )

    def _by_scale(self) -> Array:
        """By lambda_s, of m and of C: (2, V); 0 where nothing is scaled."""
        if not takes_scale(self.scheme):
            return np.zeros((2, len(self.mean)))
        value = self.scheme.lambda_s
        scales = [value * (1 - SCALE_SHARE), value * (1 + SCALE_SHARE)]
        low, high = (self._maps(replace(self.scheme, lambda_s=scale), [self.taus])[2] for scale in scales)
        found = self._noise(high - low).sum(0) / (scales[1] - scales[0])
        return np.stack([np.zeros_like(found), found])


def takes_scale(scheme: Scheme) -> bool:
    """Whether lambda_s changes what the scheme does: its parts draw noise in position."""
    return any(part.sde.noisy[0] for part in scheme.parts)


def maps_of(scheme: Scheme, target: GaussianTarget, grids: Sequence[Array]) -> AffineMap:
    """The one-step maps of all steps of the grids, one after the other, as exact.step_maps has them of one grid."""
    segments = _segments(scheme, tuple(taus.tobytes() for taus in grids), target.params)
    return reduce(AffineMap.then, (closed_map(segment, target, scheme.memory) for segment in segments))


@lru_cache(maxsize=8)
def _segments(scheme: Scheme, grids: tuple[bytes, ...], params: Parameters) -> list[Segment]:
    """The compiled steps of grids; kept, since laws and growth ask for the same ones, of other eigenvalues."""
    return compile_steps(scheme, [np.frombuffer(taus) for taus in grids], params)


def stride_of(scheme: Scheme) -> int:
    """How far apart times are of which no step feels two."""
    return scheme.memory + 1


def sizes(taus: Array, params: Parameters) -> Array:
    """By how much each time is moved at first, (steps + 1,); the last one as far as what is left of T, too."""
    h = np.append(np.diff(taus), params.T - taus[-1])
    size = SHARE * np.minimum(np.append(h[0], h[:-1]), h)
    return np.maximum(np.round(size / _GRAIN), 1.0) * _GRAIN


def differences(
    maps: Callable[[Sequence[Array]], Sequence[Array]], scheme: Scheme, taus: Array, params: Parameters
) -> Iterator[tuple[NDArray[np.int64], list[Array]]]:
    """The derivatives of what `maps(grids)` gives, arrays (all steps of the grids, ...), in portions: of each step the
    number of the one time that is moved in this portion, 0 for none (steps,), and the derivatives by it (steps, ...).
    """
    stride, size = stride_of(scheme), sizes(taus, params)
    steps = np.arange(len(taus) - 1)
    colours = range(1, min(stride, len(steps)) + 1)
    grids = []
    for colour in colours:
        for move in MOVES:
            grid = taus.copy()
            grid[colour::stride] += move * size[colour::stride]
            grids.append(grid)
    entries = [entry.reshape(len(colours), len(MOVES), len(steps), *entry.shape[1:]) for entry in maps(grids)]
    for number, colour in enumerate(colours):
        place = np.maximum(steps + 1 - (steps + 1 - colour) % stride, 0)
        found = []
        for entry in entries:
            change = np.tensordot(WEIGHTS, entry[number], 1)
            found.append(change / size[place].reshape(-1, *(1 for _ in change.shape[1:])))
        yield place, found


def _batch_first(maps: AffineMap, count: int) -> tuple[Array, Array, Array]:
    """(d, d, steps, V or 1) to (steps, V, d, d)."""

    def turned(entry: Array, axes: int) -> Array:
        whole = np.broadcast_to(entry, (*entry.shape[:-1], count))
        return np.ascontiguousarray(np.moveaxis(whole, range(axes), range(-axes, 0)))

    return turned(maps.matrix, 2), turned(maps.offset, 1), turned(maps.noise_cov, 2)

"""What tests of anchored runs look at, of any number of components: their joint law as images, its error, and couplings
that are not exact."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from coupled_specimens import images
from scipy import linalg
from weakorder.integrators.anchored import AnchoredRun, Image
from weakorder.integrators.compiled import Run, noise_factor
from weakorder.integrators.coupling import CoupledRun, Coupling, couple
from weakorder.theory.scheme import Scheme

# Flows are accurate to 1e-12, and a noise is a sum over some pieces of products of five n x n factors.
ROUNDING = 1e-11


def noise_cov(run: Run) -> np.ndarray:
    """Q of every segment, the prologue first."""
    return np.concatenate([run.prologue.noise_cov[None], run.updates.flow.noise_cov])


def as_coupling(run: AnchoredRun) -> Coupling:
    """What is sampled, the anchor's noise C z and the run's C (A z + B z'), as images of the columns z and then z'."""
    size, count = run.anchor.size, len(run.anchor.intervals)
    segments = [np.flatnonzero(noise_cov(tables).any(axis=(1, 2))) for tables in (run.anchor.run, run.run)]
    factors = [
        noise_factor(noise_cov(tables)[segment])
        for tables, segment in zip((run.anchor.run, run.run), segments, strict=True)
    ]
    entries = [
        (segment, offset + image.first + k, factor @ image.matrix[:, size * k : size * k + size])
        for known, own, segment, factor in zip(run.known, run.own, segments[1], factors[1], strict=True)
        for offset, image in ((0, known), (count, own))
        for k in range(image.last - image.first)
    ]
    segment, column, image = zip(*entries, strict=True) if entries else ((), (), np.zeros((0, size, size)))
    mine = CoupledRun(run.run, np.array(segment, dtype=int), np.array(column, dtype=int), np.array(image))
    anchor = CoupledRun(run.anchor.run, segments[0], np.arange(count), factors[0])
    return Coupling((anchor, mine), count + len(segments[1]), size, size)


class Errors(NamedTuple):
    """The largest errors in a correlation: of the run's own noises against its compiled tables, of the run's noises
    with the anchor's against the coupling of the two, and, of the coupling, its two runs' against their tables."""

    own: float
    joint: float
    oracle: float


def errors(run: AnchoredRun, scheme: Scheme, taus: np.ndarray) -> Errors:
    """Those of the run, which is that of `scheme` over `taus`."""
    expected = couple([(run.anchor.scheme, run.anchor.taus), (scheme, taus)], run.anchor.params)
    tables = [noise_cov(coupled.run) for coupled in expected.runs]
    scales = [np.sqrt(covs.diagonal(axis1=1, axis2=2)).reshape(-1, 1) for covs in tables]
    scales = [np.where(scale > 0, scale, 1) for scale in scales]
    compiled = [linalg.block_diag(*covs) / scale / scale.T for covs, scale in zip(tables, scales, strict=True)]
    (x, y), (X, Y) = (
        [np.concatenate(list(images(coupling, k))) / scales[k] for k in (0, 1)]
        for coupling in (expected, as_coupling(run))
    )

    def size(difference: np.ndarray) -> float:
        return float(np.abs(difference).max(initial=0))

    oracle = max(size(x @ x.T - compiled[0]), size(y @ y.T - compiled[1]))
    return Errors(size(Y @ Y.T - compiled[1]), size(y @ x.T - Y @ X.T), oracle)


def law_error(run: AnchoredRun, scheme: Scheme, taus: np.ndarray) -> float:
    """The largest error of the joint law of a run and its anchor."""
    return max(errors(run, scheme, taus)[:2])


def independent(run: AnchoredRun) -> AnchoredRun:
    """What the anchor does not know of neighbouring segments, drawn apart."""
    own = []
    for k, image in enumerate(run.own):
        R = image.matrix @ image.matrix.T
        own.append(Image(k, k + 1, noise_factor(R)))
    return replace(run, own=tuple(own))


def forgetful(run: AnchoredRun) -> AnchoredRun:
    """No normals of the run's own."""
    return replace(run, own=tuple(Image(0, 0, np.zeros((run.anchor.size, 0))) for _ in run.own))


def shifted(run: AnchoredRun) -> AnchoredRun:
    """The anchor's normals of the next segment."""
    last = len(run.anchor.intervals)
    known = [
        image._replace(first=image.first + 1, last=image.last + 1) if image.last < last else image
        for image in run.known
    ]
    return replace(run, known=tuple(known))


def assert_joint_law_is_exact(run: AnchoredRun, scheme: Scheme, taus: np.ndarray) -> None:
    """To rounding, for any words."""
    found = errors(run, scheme, taus)
    # A factor's later pivot is a root of a difference: it is off by the difference's error over it, or by the root of
    # that error. Where one kind of noise almost determines another, the coupling's own images are off by 1e-8.
    covs = np.concatenate([noise_cov(tables) for tables in (run.run, run.anchor.run)])
    pivots = np.diagonal(noise_factor(covs), axis1=1, axis2=2)[:, 1:]
    sizes = np.sqrt(np.diagonal(covs, axis1=1, axis2=2))[:, 1:]
    singular = float(np.min(pivots[pivots > 0] / sizes[pivots > 0], initial=1.0))
    rounding = ROUNDING + found.oracle
    assert found.own <= ROUNDING
    assert found.joint <= rounding + 2 * min(rounding / singular, rounding**0.5)

"""A user's images as a Gaussian: moments and spectrum from one decomposition, against the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from weakorder.verification.cifar10.model import to_unit
from weakorder.verification.cifar10.study.frechet import Moments, frechet_distance
from weakorder.verification.cifar10.study.pixels import pixel_law

RNG = np.random.default_rng(0)
SHAPE = (3, 4, 4)  # 48 pixels


@pytest.mark.parametrize("n", [2, 7, 48, 49, 200])
def test_moments_and_spectrum_are_those_of_the_definitions(n: int) -> None:
    images = RNG.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    rows = to_unit(images).numpy().reshape(n, -1)
    law = pixel_law(images)
    centred = rows - rows.mean(0)
    expected = np.linalg.eigvalsh(centred.T @ centred / n)[::-1]
    assert np.abs(law.spectrum.variances - expected).max() < 1e-13
    assert law.spectrum.images == n
    assert float((law.spectrum.mean**2).sum()) == pytest.approx(float((rows.mean(0) ** 2).sum()), rel=1e-12)
    assert np.abs(law.moments.factor.T @ law.moments.factor - centred.T @ centred / (n - 1)).max() < 1e-13
    assert abs(frechet_distance(law.moments, Moments.of_samples(rows))) < 1e-12
    # the mean by eigenspaces: |P mu| for the projection on each gap's upper part, whatever the basis
    values, vectors = np.linalg.eigh(centred.T @ centred / n)
    along = (vectors.T @ rows.mean(0))[::-1] ** 2
    rank = min(n - 1, 48)
    assert np.abs(law.spectrum.mean[:rank] ** 2 - along[:rank]).max() < 1e-9
    assert float((law.spectrum.mean[rank:] ** 2).sum()) == pytest.approx(float(along[rank:].sum()), abs=1e-12)
    assert (values >= -1e-13).all()


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (5, 3, 0, 0)])
def test_too_few_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="n >= 2"):
        pixel_law(np.zeros(shape, np.uint8))

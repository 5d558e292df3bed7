"""What a study says of a data set that does not ship: of no images nothing, of given ones what they tell.

The network's place is taken by the score of Gaussian data, and its images are of 8 x 8.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tiny_models import CPU, SCHEMES, gaussian
from weakorder.verification.cifar10.model import CELEBA64, to_unit
from weakorder.verification.cifar10.study.design import Design
from weakorder.verification.cifar10.study.frechet import Moments, frechet_distance
from weakorder.verification.cifar10.study.reading import Data, read
from weakorder.verification.cifar10.study.sampling import Store, missing_work, run_work

DESIGN = Design(SCHEMES, (4, 6), samples=4, refinement=4)
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("study"), gaussian()[0], batch=4)
    run_work(made, missing_work(made, [*DESIGN.cells.values()], DESIGN.samples), CPU, 1)
    return made


def cells(store: Store, data: Data) -> dict[tuple[str, int], dict[str, Any]]:
    results = json.loads(json.dumps(read(DESIGN, store, data)[0], allow_nan=False))
    assert results["settings"]["dataset"] == "CelebA-64"
    return {(scheme["name"], cell["nfe"]): cell for scheme in results["schemes"] for cell in scheme["cells"]}


def test_without_images_there_are_errors_and_distances_to_the_reference_alone(store: Store) -> None:
    found = cells(store, Data(None, None, dataset=CELEBA64))
    assert len(found) > 5
    for cell in found.values():
        assert cell["strong"]["value"] > 0
        assert cell["frechet"]["pixels"].keys() == {"to_reference"}
        assert "features" not in cell["frechet"]  # the yardstick is of 32 x 32
        assert cell["frechet"]["inception"] is None
        # PUBLISHED_FID is of CIFAR-10, whatever the scheme's name
        assert (cell["predicted"], cell["predicted_to_data"], cell["published_fid"]) == (None, None, None)


def test_given_images_are_what_distances_and_predictions_are_of(store: Store) -> None:
    data = Data(IMAGES, "mine", True, dataset=CELEBA64)
    found = cells(store, data)
    moments = Moments.of_samples(to_unit(IMAGES).numpy())
    for (name, budget), cell in found.items():
        place = next(i for i, scheme in enumerate(SCHEMES) if scheme.name == name)
        samples = store.load(DESIGN.cells[place, budget], DESIGN.samples)
        assert samples is not None
        expected = frechet_distance(Moments.of_samples(samples.x), moments)
        assert cell["frechet"]["pixels"]["to_data"] == pytest.approx(expected, rel=1e-9)
        assert cell["frechet"]["pixels"].keys() == {"to_data", "to_reference", "excess"}
        assert cell["predicted"] is not None
    other = cells(store, Data(255 - IMAGES // 2, "others", True, dataset=CELEBA64))
    assert all(cell["predicted_to_data"] != found[key]["predicted_to_data"] for key, cell in other.items())

"""Files of images: the one that ships is what its card says, and bad ones are refused in one line."""

from __future__ import annotations

import importlib.util
import math
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from weakorder.theory.model import Parameters
from weakorder.verification.targets.empirical import HALF_RANGE, EmpiricalTarget, cifar10_target, read_images
from weakorder.verification.targets.named import make_target

PARAMS = Parameters()
DATA = Path(__file__).parents[3] / "verification" / "data"


def test_the_shipped_images_are_512_and_under_two_megabytes() -> None:
    target = make_target("empirical-cifar10", PARAMS)
    assert isinstance(target, EmpiricalTarget)
    assert target.images.shape == (512, 3, 32, 32)
    assert target.event == (3, 32, 32)
    assert len(np.unique(target.images.reshape(512, -1), axis=0)) == 512
    assert (DATA / "cifar10_images.npz").stat().st_size < 2e6


def test_the_readme_states_what_the_image_file_holds() -> None:
    text = resources.files("weakorder.verification.data").joinpath("README.md").read_text()
    match = re.search(
        r"total variance is ([\d.]+), and the closest two are ([\d.]+) apart. The file has ([\d,]+)", text
    )
    assert match
    pixels = (cifar10_target(PARAMS).images / HALF_RANGE - 1).reshape(512, -1)
    squares = (pixels**2).sum(1)
    apart = squares[:, None] + squares - 2 * pixels @ pixels.T + np.diag(np.full(512, np.inf))
    assert float(match[1]) == pytest.approx(pixels.var(0).sum(), abs=0.005)
    assert float(match[2]) == pytest.approx(math.sqrt(apart.min()), abs=0.005)
    assert int(match[3].replace(",", "")) == (DATA / "cifar10_images.npz").stat().st_size


def test_the_script_chooses_evenly() -> None:
    spec = importlib.util.spec_from_file_location("make_cifar10_images", DATA / "make_cifar10_images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images = np.zeros((1024, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(1024), 256)
    chosen = module.choose(images).astype(int)
    assert (256 * chosen[:, 0, 0, 0] + chosen[:, 0, 0, 1]).tolist() == list(range(0, 1024, 2))
    with pytest.raises(ValueError, match="n >= 512"):
        module.choose(images[:100])


def test_images_of_a_users_file_are_read_channels_first(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, images=images, labels=np.arange(4))
    target = make_target("empirical-cifar10", PARAMS, data=path)
    assert isinstance(target, EmpiricalTarget)
    assert target.images[2, 1, 7, 5] == images[2, 7, 5, 1]
    assert target.event == (3, 32, 32)


def _write_text(path: Path) -> None:
    path.write_text("not an archive")


def _write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 32, 32, 3), dtype=np.uint8))


def _write_truncated(path: Path) -> None:
    np.savez(path, images=np.zeros((2, 32, 32, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:2000])


BAD_FILES = {
    "text": (_write_text, "cannot be read"),
    "array": (_write_array, "it is a single array"),
    "truncated": (_write_truncated, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "directory": (lambda path: path.mkdir(), "cannot be read"),
    "other": (lambda path: np.savez(path, pictures=np.zeros(3)), "it holds pictures"),
    "floats": (lambda path: np.savez(path, images=np.zeros((2, 32, 32, 3))), "images of float64"),
    "none": (lambda path: np.savez(path, images=np.zeros((0, 32, 32, 3), np.uint8)), r"\(0, 32, 32, 3\)"),
    "channels first": (lambda path: np.savez(path, images=np.zeros((2, 3, 32, 32), np.uint8)), r"\(2, 3, 32, 32\)"),
    "objects": (lambda path: np.savez(path, images=np.array([None])), "cannot be read"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_holds_no_images_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    write, message = BAD_FILES[kind]
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_images(path)
    assert str(caught.value).startswith(f"'{path}'")
    assert "uint8 (n, 32, 32, 3)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        make_target("empirical-cifar10", PARAMS, data=tmp_path / "nothing.npz")

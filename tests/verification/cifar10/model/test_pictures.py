"""CelebA and AFHQ from the forms that users have: small folders and zips with the public archives' layouts.

What a published picture becomes is held to torchvision's formula by hand: a triangle filter as wide as the scale.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from weakorder.verification.cifar10.model import AFHQV2, CELEBA64, CIFAR10, load_images

ALIGNED = (218, 178)  # height, width
RNG = np.random.default_rng(0)
FACES = [RNG.integers(0, 256, (*ALIGNED, 3), dtype=np.uint8) for _ in range(3)]


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def celeba(path: Path) -> Path:
    """The layout of img_align_celeba.zip: one folder of numbered files; written out of order."""
    with zipfile.ZipFile(path, "w") as file:
        for place in (2, 0, 1):
            file.writestr(f"img_align_celeba/{place + 1:06}.png", png(FACES[place]))
    return path


def triangle(size: int, to: int) -> NDArray[np.float64]:
    """The bilinear filter with antialiasing (to, size): triangles of half-width size / to about each centre."""
    scale = size / to
    centres = (np.arange(to)[:, None] + 0.5) * scale
    weights = np.maximum(1 - np.abs(np.arange(size) + 0.5 - centres) / scale, 0)
    return weights / weights.sum(1, keepdims=True)


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """(3, side, side), not rounded."""
    height, width = pixels.shape[:2]
    return np.einsum("ai,bj,ijc->cab", triangle(height, side), triangle(width, side), pixels, optimize=True)


def test_a_folder_and_a_zip_are_read_in_the_order_of_their_names_and_resized_whole(tmp_path: Path) -> None:
    images = load_images(celeba(tmp_path / "mine.zip"), dataset=CELEBA64)
    assert (images.shape, images.dtype) == ((3, 3, 64, 64), np.uint8)
    with zipfile.ZipFile(tmp_path / "mine.zip") as file:
        file.extractall(tmp_path / "out")
    for folder in (tmp_path / "out", tmp_path / "out" / "img_align_celeba"):
        assert np.array_equal(load_images(folder, "test", CELEBA64), images)
    for image, face in zip(images, FACES, strict=True):
        assert np.abs(image - resized(face, 64)).max() <= 1  # rounded after each axis
        assert np.abs(image - resized(face[39:179, 19:159], 64)).max() > 50  # a crop is something else


@pytest.mark.parametrize(("crop", "top", "left"), [(140, 39, 19), (148, 35, 15)])
def test_a_crop_is_the_central_square(crop: int, top: int, left: int, tmp_path: Path) -> None:
    images = load_images(celeba(tmp_path / "mine.zip"), dataset=CELEBA64, crop=crop)
    for image, face in zip(images, FACES, strict=True):
        assert np.abs(image - resized(face[top : top + crop, left : left + crop], 64)).max() <= 1


def test_the_public_archive_is_known_by_its_name_and_checksum(tmp_path: Path) -> None:
    path = celeba(tmp_path / "img_align_celeba.zip")
    with pytest.raises(ValueError, match=r"img_align_celeba\.zip': it has MD5 .* is 00d2c5bc6d35e252742224ab0c1e8fcb"):
        load_images(path, dataset=CELEBA64)
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    known = replace(CELEBA64, archive=("img_align_celeba.zip", digest))
    assert len(load_images(path, dataset=known)) == 3


def test_folders_called_train_and_test_are_splits(tmp_path: Path) -> None:
    for name, value in (("train/dog/a", 10), ("train/cat/b", 20), ("test/cat/a", 30)):
        path = tmp_path / "afhqv2" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((512, 512, 3), value, np.uint8)))
    train, test = (load_images(tmp_path / "afhqv2", split, AFHQV2) for split in ("train", "test"))
    assert train.shape == (2, 3, 128, 128)
    assert train[:, 0, 0, 0].tolist() == [20, 10]
    assert test[:, 0, 0, 0].tolist() == [30]


def test_an_npz_file_has_the_side_of_the_data_set(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    images = load_images(tmp_path / "images.npz", dataset=CELEBA64)
    assert np.array_equal(images, pixels.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"images of uint8 \(2, 64, 64, 3\); .* uint8 \(n, 32, 32, 3\)"):
        load_images(tmp_path / "images.npz")


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    faces = celeba(tmp_path / "mine.zip")
    (tmp_path / "text").write_text("<html>")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no image")
    for path, crop, message in (
        (tmp_path / "nowhere", None, r"no such file; give img_align_celeba\.zip, a folder or a zip"),
        (tmp_path / "text", None, "of no known form; give img_align"),
        (tmp_path / "empty", None, "holds no JPEG or PNG files"),
        (tmp_path / "bad", None, r"a\.jpg is no image that can be read"),
        (faces, 179, r"000001\.png is 178 x 218, too small for a crop of 179; give less"),
        (faces, 0, "crop = 0: give the side of a square"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_images(path, dataset=CELEBA64, crop=crop)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="crop = 28: CIFAR-10's images are taken as they are; drop it"):
        load_images(faces, dataset=CIFAR10, crop=28)

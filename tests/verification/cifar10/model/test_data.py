"""CIFAR-10 from every form that users have: small synthetic files, whose checksums stand in for the published ones."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from weakorder.verification.cifar10.model import data
from weakorder.verification.cifar10.model.data import load_images, to_unit

PER_BATCH = 3


def images(batch: int) -> np.ndarray:
    """Random images, uint8 (3, 3, 32, 32)."""
    return np.random.default_rng(batch).integers(0, 256, (PER_BATCH, 3, 32, 32), dtype=np.uint8)


TRAIN = np.concatenate([images(batch) for batch in range(1, 6)])
TEST = images(0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """cifar-10-batches-py of 3 images per batch, its checksums taken as the published ones."""
    path = tmp_path / data.FOLDER
    path.mkdir()
    for names, batches in ((data.BATCHES["train"], range(1, 6)), (data.BATCHES["test"], [0])):
        for name, batch in zip(names, batches, strict=True):
            rows = {b"data": images(batch).reshape(PER_BATCH, -1), b"labels": [0] * PER_BATCH}
            (path / name).write_bytes(pickle.dumps(rows, protocol=2))
            monkeypatch.setitem(names, name, md5((path / name).read_bytes()))
    return path


@pytest.fixture
def archive(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """cifar-10-python.tar.gz of that folder."""
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, data.FOLDER)
    monkeypatch.setattr(data, "ARCHIVE_MD5", md5(path.read_bytes()))
    return path


def zipped(path: Path, entries: dict[str, np.ndarray], kind: str = "png") -> Path:
    """A zip of images, which are uint8 (3, height, width)."""
    with zipfile.ZipFile(path, "w") as file:
        for name, image in entries.items():
            buffer = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(buffer, kind, quality=95)
            file.writestr(name, buffer.getvalue())
    return path


def test_the_published_checksums_are_those_of_the_original_files() -> None:
    assert data.ARCHIVE_MD5 == "c58f30108f718f92721af3b95e74349a"
    assert {split: len(names) for split, names in data.BATCHES.items()} == {"train": 5, "test": 1}


def test_archive_and_folder_hold_the_same_images(archive: Path, folder: Path) -> None:
    for path in (archive, folder, folder.parent):
        assert np.array_equal(load_images(path), TRAIN)
        assert np.array_equal(load_images(path, "test"), TEST)


def test_npz_and_zip_files_are_taken_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", images=TRAIN.transpose(0, 2, 3, 1))
    assert np.array_equal(load_images(tmp_path / "some.npz"), TRAIN)
    names = [f"{kind}/{number:04}.png" for kind in ("ship", "airplane") for number in range(PER_BATCH)]
    path = zipped(tmp_path / "some.zip", dict(zip(names, TRAIN, strict=False)))
    assert np.array_equal(load_images(path), TRAIN[[3, 4, 5, 0, 1, 2]])
    smooth = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8), (3, 32, 32))
    jpeg = load_images(zipped(tmp_path / "jpeg.zip", {"a.jpg": np.ascontiguousarray(smooth)}, "jpeg"))
    assert np.abs(jpeg[0].astype(int) - smooth).max() <= 8


def test_pixels_become_data_between_minus_one_and_one() -> None:
    unit = to_unit(np.array([0, 255, 51], dtype=np.uint8))
    assert unit.tolist() == [-1.0, 1.0, 51 / 127.5 - 1]


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "has MD5"),
    "empty": (lambda path: path.write_bytes(b""), "no known form"),
    "missing": (lambda path: path.unlink(), "no such file"),
    "text": (lambda path: path.write_text("<html>"), "no known form"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_archive_that_is_not_the_published_one_is_refused_in_one_line(kind: str, archive: Path) -> None:
    change, message = WRONG[kind]
    change(archive)
    with pytest.raises(ValueError, match=message) as caught:
        load_images(archive)
    assert "\n" not in str(caught.value)
    assert str(archive) in str(caught.value)


def test_a_changed_batch_is_refused_before_it_is_opened(folder: Path) -> None:
    path = folder / "data_batch_3"
    path.write_bytes(b"cos\nabort\n(tR." + path.read_bytes())  # opening it would end the process
    with pytest.raises(ValueError, match=r"data_batch_3 has MD5 .* published one is"):
        load_images(folder)
    assert np.array_equal(load_images(folder, "test"), TEST)
    path.unlink()
    with pytest.raises(ValueError, match="no data_batch_3"):
        load_images(folder)


def test_files_of_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", images=TRAIN)
    small = zipped(tmp_path / "small.zip", {"a.png": TRAIN[0, :, :16]})
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as file:
        file.writestr("readme.txt", "")
    with zipfile.ZipFile(tmp_path / "broken.zip", "w") as file:
        file.writestr("a.png", b"not an image")
    cut = tmp_path / "cut.zip"
    content = bytearray(small.read_bytes())
    content[60] ^= 1
    cut.write_bytes(content)
    for path, message in (
        (tmp_path / "wrong.npz", "uint8"),
        (small, r"a\.png is 32 x 16; the images are 32 x 32; scale it"),
        (tmp_path / "none.zip", "no JPEG"),
        (tmp_path / "broken.zip", r"a\.png is no image that can be read; mend it, or take it out"),
        (cut, "CRC|no image"),
        (tmp_path, "no data_batch_1"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_images(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="split"):
        load_images(tmp_path, "validation")

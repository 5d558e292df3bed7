"""Makes cifar10_spectrum.npz: the spectrum of CIFAR-10's pixel covariance, and its mean image in the eigenbasis.

    python verification/data/make_cifar10_spectrum.py IMAGES.npz

With the n images as rows z = pixels / 127.5 - 1 in R^3072,

    covariance = (1/n) sum (z - mean)(z - mean)^T = V diag(eigenvalues) V^T,     mean_eigenbasis = V^T mean.

Every sampler of this project acts on each coordinate alike, so it commutes with V: these two vectors are all that the
first two moments of its samples depend on. An eigenvector's sign is arbitrary; here the one is taken that makes the
mean's coefficient >= 0, so that the file does not depend on the linear algebra library's choice. Eigenvalues that
rounding made negative are set to 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).with_name("cifar10_spectrum.npz")


def spectrum(images: NDArray[np.uint8]) -> dict[str, NDArray]:
    """The file's arrays from images uint8 (n, 32, 32, 3): `eigenvalues` (3072,), descending, `mean` (3072,), both
    float64, and the integers `images` (how many) and `clipped` (how many eigenvalues were negative and set to 0).

    Raises ValueError on another shape or dtype.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
        raise ValueError(f"images are {images.dtype} {images.shape}; they must be uint8 (n, 32, 32, 3)")
    pixels = images.reshape(len(images), -1) / 127.5 - 1
    mean = pixels.mean(0)
    centred = pixels - mean
    ascending, vectors = np.linalg.eigh(centred.T @ centred / len(images))
    eigenvalues = ascending[::-1]
    return {
        "eigenvalues": np.maximum(eigenvalues, 0.0),
        "mean": np.abs(vectors.T @ mean)[::-1],
        "images": np.array(len(images)),
        "clipped": np.array(int((eigenvalues < 0).sum())),
    }


def main() -> None:
    """Write the file beside this script and print what the README states."""
    parser = argparse.ArgumentParser(description="Make cifar10_spectrum.npz from exact CIFAR-10 pixels.")
    parser.add_argument("images", type=Path, help="an npz file with `images`, uint8 (n, 32, 32, 3)")
    arguments = parser.parse_args()
    with np.load(arguments.images) as file:
        arrays = spectrum(file["images"])
    np.savez_compressed(TARGET, **arrays)  # pyright: ignore[reportArgumentType]
    values = arrays["eigenvalues"]
    known = {place: f"{values[place - 1]:.4g}" for place in (1, 2, 11, 101, 501, 1001, 2001, 3072)}
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes, {arrays['images']} images, {arrays['clipped']} clipped")
    print(f"eigenvalues {known}, sum {values.sum():.5g}, squared norm of the mean {(arrays['mean'] ** 2).sum():.5g}")


if __name__ == "__main__":
    main()

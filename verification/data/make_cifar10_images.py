"""Makes cifar10_images.npz: 512 real CIFAR-10 images, the data of the target `empirical-cifar10`.

    python verification/data/make_cifar10_images.py IMAGES.npz

Of n images those numbered floor(i n / 512), i = 0 .. 511: evenly spread over the file, chosen by nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).with_name("cifar10_images.npz")
COUNT = 512


def choose(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """512 of the images uint8 (n, 32, 32, 3), n >= 512, evenly spread. Raises ValueError on another shape or dtype."""
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) < COUNT:
        raise ValueError(f"images are {images.dtype} {images.shape}; they must be uint8 (n, 32, 32, 3), n >= {COUNT}")
    return images[np.arange(COUNT) * len(images) // COUNT]


def main() -> None:
    """Write the file beside this script and print what the README states."""
    parser = argparse.ArgumentParser(description="Make cifar10_images.npz from exact CIFAR-10 pixels.")
    parser.add_argument("images", type=Path, help="an npz file with `images`, uint8 (n, 32, 32, 3)")
    arguments = parser.parse_args()
    with np.load(arguments.images) as file:
        images = choose(file["images"])
    np.savez_compressed(TARGET, images=images)
    pixels = images.reshape(COUNT, -1) / 127.5 - 1
    squared = (pixels**2).sum(1)
    apart = squared[:, None] + squared - 2 * pixels @ pixels.T + np.diag(np.full(COUNT, np.inf))
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes, {COUNT} images")
    print(f"total variance {pixels.var(0).sum():.5g}, the closest two images {np.sqrt(apart.min()):.4g} apart")


if __name__ == "__main__":
    main()

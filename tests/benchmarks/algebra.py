"""What the algebra of any number of components costs at two: against 2x2 formulas written out, and numpy's routines.

    python tests/benchmarks/algebra.py [--clock cpu] [--repetitions 15] [--json FILE]

Ours is verification.verdicts.algebra, which every diffusion goes through: products by einsum over any number of
components, the rest branching to 2x2 formulas. The peer knows 2x2 alone, with every entry a formula of its own, as the
suite had it when it knew (x, m) only; numpy's routines on (..., 2, 2) are what a general algebra would be without
branches. Batches are numbers of data variances, at one step or at 50 at once; `law` is what those are for: mean and
covariance through 50 steps. A peer whose answers are others to rounding is not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.interleaved import CLOCKS, interleave
from weakorder.verification.verdicts import algebra
from weakorder.verification.verdicts.algebra import Array

BATCHES: tuple[tuple[int, ...], ...] = ((1,), (64,), (3072,), (50, 3072))
STEPS = 50
# Matrices a candidate goes through in one timing, at least: enough for a clock.
ENOUGH = 1 << 14
OURS, PEER, NUMPY = "any number of components", "2x2 written out", "numpy's routines"
# Conditions of the matrices are below 100, and each answer is a few operations away from them.
ROUNDING = 1e-11


class TwoByTwo:
    """The same functions of 2x2 matrices, entry by entry."""

    @staticmethod
    def matmul(a: Array, b: Array) -> Array:
        """a b."""
        product = np.empty((2, 2, *np.broadcast_shapes(a.shape[2:], b.shape[2:])))
        for i in range(2):
            for j in range(2):
                entry = product[i, j, ...]
                np.multiply(a[i, 0], b[0, j], out=entry)
                entry += a[i, 1] * b[1, j]
        return product

    @staticmethod
    def matvec(a: Array, v: Array) -> Array:
        """a v."""
        product = np.empty((2, *np.broadcast_shapes(a.shape[2:], v.shape[1:])))
        for i in range(2):
            entry = product[i, ...]
            np.multiply(a[i, 0], v[0], out=entry)
            entry += a[i, 1] * v[1]
        return product

    @classmethod
    def congruence(cls, a: Array, q: Array) -> Array:
        """a q a^T."""
        left = cls.matmul(a, q)
        product = np.empty(left.shape)
        for i, j in ((0, 0), (0, 1), (1, 1)):
            entry = product[i, j, ...]
            np.multiply(left[i, 0], a[j, 0], out=entry)
            entry += left[i, 1] * a[j, 1]
        product[1, 0] = product[0, 1]
        return product

    @staticmethod
    def determinant(a: Array) -> Array:
        """det a."""
        return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]

    @classmethod
    def inverse(cls, a: Array) -> Array:
        """a^-1."""
        result, scale = np.empty(a.shape), 1 / cls.determinant(a)
        np.multiply(a[1, 1], scale, out=result[0, 0])
        np.multiply(a[0, 0], scale, out=result[1, 1])
        np.multiply(a[0, 1], -scale, out=result[0, 1])
        np.multiply(a[1, 0], -scale, out=result[1, 0])
        return result

    @classmethod
    def spectral_radius(cls, a: Array) -> Array:
        """The largest |eigenvalue|."""
        half, square = (a[0, 0] + a[1, 1]) / 2, (a[0, 0] - a[1, 1]) ** 2 / 4 + a[0, 1] * a[1, 0]
        real = np.abs(half) + np.sqrt(np.maximum(square, 0))
        return np.where(square >= 0, real, np.sqrt(np.maximum(cls.determinant(a), 0)))

    @staticmethod
    def spectral_norm(a: Array) -> Array:
        """The largest singular value."""
        a, b, c, d = a[0, 0], a[0, 1], a[1, 0], a[1, 1]
        return (np.sqrt((a + d) ** 2 + (b - c) ** 2) + np.sqrt((a - d) ** 2 + (b + c) ** 2)) / 2


def _rows(a: Array) -> Array:
    return np.moveaxis(a, (0, 1), (-2, -1))


def _first(a: Array) -> Array:
    return np.moveaxis(a, (-2, -1), (0, 1))


class Numpy:
    """The same by numpy's routines for matrices of any size, to which components come last."""

    matmul = staticmethod(lambda a, b: _first(_rows(a) @ _rows(b)))
    matvec = staticmethod(lambda a, v: np.moveaxis(_rows(a) @ np.moveaxis(v, 0, -1)[..., None], (-2, -1), (0, 1))[:, 0])
    congruence = staticmethod(lambda a, q: _first(_rows(a) @ _rows(q) @ np.swapaxes(_rows(a), -1, -2)))
    determinant = staticmethod(lambda a: np.linalg.det(_rows(a)))
    inverse = staticmethod(lambda a: _first(np.linalg.inv(_rows(a))))
    spectral_radius = staticmethod(lambda a: np.abs(np.linalg.eigvals(_rows(a))).max(-1))
    spectral_norm = staticmethod(lambda a: np.linalg.norm(_rows(a), 2, axis=(-2, -1)))


KNOWN = {OURS: algebra, PEER: TwoByTwo, NUMPY: Numpy}
PRODUCTS = ("matmul", "matvec", "congruence")
FUNCTIONS = (*PRODUCTS, "determinant", "inverse", "spectral_radius", "spectral_norm")


def law(known: Any, maps: Array, offset: Array, noise: Array) -> Array:
    """Mean and covariance (6, V) after the maps (2, 2, STEPS, V)."""
    mean, cov = np.zeros(offset.shape), np.zeros(noise.shape)
    for k in range(maps.shape[2]):
        R = maps[:, :, k]
        mean, cov = known.matvec(R, mean) + offset, known.congruence(R, cov) + noise
    return np.concatenate([mean, cov.reshape(4, -1)])


def candidates(function: str, batch: tuple[int, ...]) -> dict[str, Callable[[], Array]]:
    """One call of each, on the same matrices."""
    generator = np.random.default_rng(0)
    if function == "law":
        maps = generator.uniform(-0.5, 0.5, (2, 2, STEPS, *batch)) + 0.6 * np.eye(2)[:, :, None, None]
        offset, noise = generator.uniform(-1, 1, (2, *batch)), np.broadcast_to(np.eye(2)[:, :, None], (2, 2, *batch))
        return {name: lambda known=known: law(known, maps, offset, noise) for name, known in KNOWN.items()}
    unit = np.eye(2).reshape(2, 2, *(1 for _ in batch))
    a = generator.uniform(-0.5, 0.5, (2, 2, *batch)) + 1.2 * unit
    second = {
        "matmul": (generator.uniform(-1, 1, a.shape),),
        "matvec": (a[0],),
        "congruence": (a + np.swapaxes(a, 0, 1),),
    }.get(function, ())
    return {name: lambda known=known: getattr(known, function)(a, *second) for name, known in KNOWN.items()}


def check(function: str, runs: dict[str, Callable[[], Array]]) -> None:
    """Raises ValueError where the candidates' answers differ by more than rounding."""
    ours = runs[OURS]()
    for name, run in runs.items():
        error = float(np.abs(run() - ours).max() / np.abs(ours).max())
        if not error <= ROUNDING:
            raise ValueError(f"{name}: {function} differs by {error:.2g}: it is another function")


def repeated(run: Callable[[], Array], times: int) -> Callable[[], None]:
    """So many calls as one."""

    def calls() -> None:
        for _ in range(times):
            run()

    return calls


def measured(function: str, batch: tuple[int, ...], repetitions: int, clock: str) -> list[dict[str, Any]]:
    """A row for each candidate: seconds of a call, and how many times as long as ours it takes."""
    runs = candidates(function, batch)
    check(function, runs)
    times = max(1, ENOUGH // (int(np.prod(batch)) + 64))  # 64: what a call costs, in matrices
    timings = interleave({name: repeated(run, times) for name, run in runs.items()}, OURS, repetitions, clock)
    return [
        timing.as_json() | {"function": function, "batch": batch, "seconds": timing.seconds / times}
        for timing in timings
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--json", type=Path, help="where the rows go, too")
    options = parser.parse_args()
    rows = []
    print(f"{', '.join(KNOWN)}: microseconds a call, and how many times as long as the first (quartiles)")
    for function in (*FUNCTIONS, "law"):
        for batch in BATCHES if function != "law" else [b for b in BATCHES if len(b) == 1]:
            found = measured(function, batch, options.repetitions, options.clock)
            rows += found
            print(f"{function:16s} {' x '.join(map(str, batch)):10s}", end="")
            for row in found:
                print(f"  {row['seconds'] * 1e6:10.1f}", end="")
                if row["ratio"] is not None:
                    print(f" {row['ratio']:6.2f} ({row['quartiles'][0]:.2f} to {row['quartiles'][1]:.2f})", end="")
            print()
    if options.json:
        about = {"numpy": np.__version__, "clock": options.clock, "repetitions": options.repetitions}
        options.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

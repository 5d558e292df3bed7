"""The Frechet distance, what a few samples say of it, and the compact features it is taken in.

Statistical assertions: 4 at 1e-9 each, a false alarm at fresh seeds has a chance of 4e-9.
"""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy import stats
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model.checkpoint import Checkpoint
from weakorder.verification.cifar10.model.data import to_unit
from weakorder.verification.cifar10.model.network import Config, NCSNpp
from weakorder.verification.cifar10.study import features as module
from weakorder.verification.cifar10.study.features import (
    feature_moments,
    features,
    read_moments,
    shipped_network,
    yardstick,
)
from weakorder.verification.cifar10.study.frechet import (
    ENOUGH,
    Moments,
    excess_distance,
    frechet_distance,
    leave_one_out,
)
from weakorder.verification.exact.errors import wasserstein
from weakorder.verification.targets.empirical import read_images
from weakorder.verification.targets.gaussian import GaussianLaw

DATA = Path(__file__).parents[4] / "verification" / "data"
Z = float(stats.norm.isf(0.5e-9))
EPS = float(np.finfo(float).eps)


def samples(n: int, dim: int, seed: int, decay: float = 1.0) -> np.ndarray:
    """Correlated Gaussian rows (n, dim) about a mean, standard deviations falling as a power."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return rng.standard_normal((n, dim)) * np.arange(1.0, dim + 1) ** -decay @ mixing + rng.standard_normal(dim)


def scale(*moments: Moments) -> float:
    """What the distance's roundings are in proportion to."""
    return sum(float((m.mean**2).sum() + (m.factor**2).sum()) for m in moments)


def in_digits(a: Moments, b: Moments) -> float:
    """The distance by its definition, with the square roots of the eigenvalues of C_1 C_2, in 40 digits."""
    with mpmath.workdps(40):
        c1, c2 = (mpmath.matrix(m.factor.tolist()).T * mpmath.matrix(m.factor.tolist()) for m in (a, b))
        values = mpmath.eig(c1 * c2, left=False, right=False)
        root = mpmath.fsum(mpmath.sqrt(abs(mpmath.re(value))) for value in values)
        means = mpmath.fsum((mpmath.mpf(p) - mpmath.mpf(q)) ** 2 for p, q in zip(a.mean, b.mean, strict=True))
        trace = mpmath.fsum(c[i, i] for c in (c1, c2) for i in range(len(a.mean)))
        return float(means + trace - 2 * root)


# --- The distance ---


@given(st.integers(2, 12), st.integers(2, 12), st.integers(2, 6), st.integers(0, 10**6))
def test_it_is_the_definitions_for_few_and_for_many_samples(n: int, m: int, dim: int, seed: int) -> None:
    a, b = Moments.of_samples(samples(n, dim, seed)), Moments.of_samples(samples(m, dim, seed + 1))
    assert frechet_distance(a, b) == pytest.approx(in_digits(a, b), abs=100 * dim * EPS * scale(a, b))
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), abs=100 * dim * EPS * scale(a, b))


def test_samples_and_their_covariance_have_the_same_moments() -> None:
    for n, dim in ((4, 9), (9, 9), (300, 5)):
        x, other = samples(n, dim, 1), Moments.of_samples(samples(20, dim, 2))
        a, b = Moments.of_samples(x), Moments.of_covariance(x.mean(0), np.cov(x.T))
        assert len(a.factor) == min(n, dim)
        assert np.abs(a.factor.T @ a.factor - np.cov(x.T)).max() <= 100 * EPS * scale(a)
        # A covariance knows its zero eigenvalues to EPS, their square roots to sqrt EPS.
        assert frechet_distance(a, other) == pytest.approx(
            frechet_distance(b, other), abs=10 * dim * np.sqrt(EPS) * scale(a, other)
        )


def test_many_rows_are_reduced_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x, other = samples(100, 3, 1).astype(np.float32), Moments.of_samples(samples(20, 3, 2))
    whole = frechet_distance(Moments.of_samples(x), other)
    monkeypatch.setattr(sys.modules[Moments.__module__], "_ROWS", 7)
    in_blocks = Moments.of_samples(x)
    assert in_blocks.factor.shape == (3, 3)
    assert frechet_distance(in_blocks, other) == pytest.approx(whole, abs=100 * EPS * scale(in_blocks, other))


def test_in_two_dimensions_it_is_the_squared_wasserstein_distance() -> None:
    a, b = Moments.of_samples(samples(9, 2, 3)), Moments.of_samples(samples(9, 2, 4))
    laws = [GaussianLaw(m.mean[:, None], (m.factor.T @ m.factor)[..., None]) for m in (a, b)]
    assert frechet_distance(a, b) == pytest.approx(wasserstein(*laws).item() ** 2, rel=1e-12)


def test_close_sets_keep_the_digits_that_the_trace_formula_loses() -> None:
    """Scaling centred samples by 1 + e moves each by e times itself: the distance is e^2 tr C."""
    x, e = samples(40, 100, 5), 1e-7
    mean = x.mean(0)
    a, b = Moments.of_samples(x), Moments.of_samples(mean + (x - mean) * (1 + e))
    exact = e**2 * float((a.factor**2).sum())
    rounding = 1e3 * EPS / e  # of a number of size 1 against e
    assert frechet_distance(a, b) == pytest.approx(exact, rel=rounding)
    root = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    by_trace = float((a.factor**2).sum() + (b.factor**2).sum() - 2 * root)
    assert abs(by_trace - exact) > rounding * exact  # the broken variant
    assert frechet_distance(a, a) <= (100 * EPS) ** 2 * scale(a)


def test_the_divisor_is_n_minus_1() -> None:
    x = np.array([[0.0], [2.0]])
    assert frechet_distance(Moments.of_samples(x), Moments(np.array([1.0]), np.zeros((1, 1)))) == pytest.approx(2.0)


def test_bad_moments_are_refused_in_one_line() -> None:
    good = Moments.of_samples(samples(5, 3, 1))
    for call, message in (
        (lambda: Moments.of_samples(np.ones((1, 3))), "n >= 2"),
        (lambda: Moments.of_samples(np.ones(3)), "n >= 2"),
        (lambda: Moments.of_samples(np.full((3, 3), np.nan)), "not finite"),
        (lambda: Moments(np.ones(2), np.ones((2, 3))), "dim"),
        (lambda: Moments.of_covariance(np.ones(2), np.ones((3, 3))), "dim"),
        (lambda: Moments.of_covariance(np.ones(2), np.array([[1.0, 1.0], [0.0, 1.0]])), r"not symmetric: .* by 1;"),
        (lambda: Moments.of_covariance(np.ones(2), np.diag([1.0, -0.1])), "eigenvalue -0.1"),
        (lambda: frechet_distance(good, Moments.of_samples(np.eye(4))), "3 and 4 dimensions"),
        (lambda: leave_one_out(np.ones((2, 3)), good), "n >= 3"),
        (lambda: leave_one_out(np.eye(4), good), "4 and 3 dimensions"),
        (lambda: excess_distance(np.ones((5, 3)), np.ones((4, 3)), good), "one shape"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


# --- What a few samples say ---


@pytest.mark.parametrize(
    ("n", "dim", "rank"), [(3, 2, 2), (12, 40, 40), (12, 40, 5), (30, 5, 5), (20, 21, 30), (20, 19, 19), (20, 20, 20)]
)
def test_distances_with_a_row_left_out_are_those_of_the_other_rows(n: int, dim: int, rank: int) -> None:
    x, data = samples(n, dim, 6), Moments.of_samples(samples(rank + 1, dim, 7))
    each = [frechet_distance(Moments.of_samples(np.delete(x, row, 0)), data) for row in range(n)]
    assert np.abs(leave_one_out(x, data) - each).max() <= 1e-7 * scale(Moments.of_samples(x), data)  # the integral's
    assert np.ptp(each) > 1e-3 * scale(data)


def test_rows_left_out_of_degenerate_sets() -> None:
    data = Moments.of_samples(samples(9, 4, 8))
    for x in (np.ones((5, 4)), np.repeat(samples(3, 4, 9), 2, axis=0), np.eye(5)[:, :1] * np.ones(4)):
        each = [frechet_distance(Moments.of_samples(np.delete(x, row, 0)), data) for row in range(len(x))]
        assert np.abs(leave_one_out(x, data) - each).max() <= 1e-7 * scale(Moments.of_samples(x), data)
    none = Moments(np.zeros(4), np.zeros((1, 4)))
    assert np.isfinite(leave_one_out(samples(5, 4, 9), none)).all()


def coupled(n: int, dim: int, repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Repeated studies: the reference is the data's law N(0, diag(scales^2)), the cell a perturbation of it, coupled.

    Returns (repeats,) of: d(reference, data), the excess, and the excess's standard error.
    """
    rng, scales = np.random.default_rng(n), np.arange(1.0, dim + 1) ** -0.5
    data = Moments(np.zeros(dim), np.diag(scales))
    found = []
    for _ in range(repeats):
        reference = rng.standard_normal((n, dim)) * scales
        cell = 1.1 * reference + 0.1 * rng.standard_normal((n, dim)) * scales
        excess = excess_distance(cell, reference, data)
        found.append((frechet_distance(Moments.of_samples(reference), data), *excess))
    distance, value, error = np.array(found).T
    return distance, value, error


@pytest.mark.parametrize(("n", "dim"), [(16, 40), (100, 5)])
def test_the_excess_scatters_as_its_standard_error_says(n: int, dim: int) -> None:
    """Within a factor of 1.5 (the jackknife is too large on average), and less than without coupling. The variance of
    200 values has a relative standard error of sqrt((kurtosis - 1) / 200), below 0.15 for a kurtosis up to 5.5."""
    repeats = 200
    distance, value, error = coupled(n, dim, repeats)
    ratio = float((error**2).mean() / value.var(ddof=1))
    assert 1 / (1 + 0.15 * Z) <= ratio <= 1.5**2 * (1 + 0.15 * Z)
    if n < dim:
        assert value.std() < np.sqrt(2) * distance.std() * 0.6  # what two independent sets scatter by


def test_few_samples_that_lost_contrast_seem_nearer_to_the_data_than_the_reference() -> None:
    """Why the excess ranks nothing below `ENOUGH` samples a dimension: at 32 in 200 dimensions it has the wrong sign,
    far beyond its standard error; with enough it is the exact distance."""
    rng, scales = np.random.default_rng(3), np.arange(1.0, 201) ** -0.5
    for n, dim, enough in ((32, 200, False), (2000, 20, True)):
        data = Moments(np.zeros(dim), np.diag(scales[:dim]))
        reference = rng.standard_normal((n, dim)) * scales[:dim]
        excess = excess_distance(0.8 * reference, reference, data)
        exact = 0.2**2 * (scales[:dim] ** 2).sum()
        assert (n >= ENOUGH * dim) == enough
        if enough:
            assert excess.value == pytest.approx(exact, rel=0.25)
        else:
            assert excess.value < -Z * excess.standard_error < 0 < exact


def test_a_sets_distance_from_its_own_law_is_the_bias_that_is_stated() -> None:
    """n = 400, dim = 5: the next order is relatively dim / n; 4 of them are allowed beside the standard error."""
    n, dim = 400, 5
    values = coupled(n, dim, 100)[0]
    law = np.arange(1.0, dim + 1) ** -1.0
    pairs = law[:, None] * law / (law[:, None] + law)
    bias = (law.sum() + pairs.sum() / 2 + law.sum() / 4) / n
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - bias) <= Z * error + 4 * dim / n * bias
    assert abs(values.mean()) > Z * error  # it is not 0


# --- Features ---


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    """The shipped images, uint8 (512, 3, 32, 32)."""
    return read_images(DATA / "cifar10_images.npz")


def test_features_do_not_depend_on_the_batch_and_leave_the_network_as_it_was(
    real: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = to_unit(real[:6])
    whole = features(x)
    assert (whole.dtype, whole.shape) == (np.float32, (6, 128))
    assert np.array_equal(features(x), whole)
    monkeypatch.setattr(module, "_BATCH", 4)
    assert np.abs(features(x.numpy()) - whole).max() <= 1e-4 * np.abs(whole).max()  # a hundred layers in float32
    assert np.abs(features(x.flip(3)) - whole).max() > 1e-2 * np.abs(whole).max()
    network = shipped_network().network
    assert not any(layer._forward_pre_hooks for layer in network.modules())
    assert network(torch.zeros(1, 6, 32, 32), torch.ones(1)).shape == (1, 6, 32, 32)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


def blurred(image: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image.transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(radius))).transpose(
        2, 0, 1
    )


@pytest.mark.nightly
def test_the_worse_images_are_the_further_their_features_are_from_real_ones(real: np.ndarray) -> None:
    """64 images against 64 others: their distance is the scale, and every degradation adds to it in order."""
    first, second = real[0:512:8], real[4:512:8]
    data = Moments.of_samples(features(to_unit(first)))
    noise = np.random.default_rng(1).standard_normal(second.shape)
    unit = to_unit(second).numpy()

    def distance(x: np.ndarray) -> float:
        rows = to_unit(x).numpy() if x.dtype == np.uint8 else x
        return frechet_distance(Moments.of_samples(features(rows)), data)

    halves = distance(second)
    assert halves < 0.3 * float((data.factor**2).sum())
    for worse in (
        [unit + size * noise for size in (0.07, 0.15, 0.3)],
        [np.stack([blurred(image, radius) for image in second]) for radius in (0.8, 1.5)],
        [np.stack([jpeg(image, quality) for image in second]) for quality in (60, 10)],
        [unit.mean(1, keepdims=True) * (1 - share) + unit * share for share in (0.4, 0.0)],
    ):
        found = [halves, *map(distance, worse)]
        assert found == sorted(found)
        assert found[-1] > 1.3 * halves


def test_the_statistics_that_ship_are_of_real_images_and_of_the_network_that_ships(real: np.ndarray) -> None:
    """If this fails, the network was replaced: run `make_cifar10_features` anew."""
    data = feature_moments()
    some = Moments.of_samples(features(to_unit(real[::4])))
    assert data.mean.shape == (128,)
    assert np.abs(np.tril(data.factor, -1)).max() == 0
    # 128 real images are about their own bias away (some percent of the variance), grey ones much further.
    grey = np.broadcast_to(real[::4].mean(1, keepdims=True).astype(np.uint8), (128, 3, 32, 32))
    near, far = frechet_distance(some, data), frechet_distance(feature_moments(np.ascontiguousarray(grey)), data)
    assert near < 0.15 * float((data.factor**2).sum())
    assert far > 3 * near


def test_statistics_of_another_network_are_refused(tmp_path: Path) -> None:
    path = DATA / "cifar10_features.npz"
    assert "sha256" in yardstick(shipped_network())
    with pytest.raises(ValueError, match=r"made with another network .* now x\); make it anew: python -m") as caught:
        read_moments(path, "x")
    assert "\n" not in str(caught.value)
    (tmp_path / "bad.npz").write_bytes(path.read_bytes()[:-100])
    for name, message in (("bad.npz", "holds no statistics"), ("none.npz", "there is no file")):
        with pytest.raises(ValueError, match=f"{message}.*make_cifar10_features"):
            read_moments(tmp_path / name, yardstick(shipped_network()))


def test_other_networks_have_features_and_those_without_levels_none() -> None:
    torch.manual_seed(0)
    small = Config(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), dropout=0.0)
    params = Parameters()
    assert features(np.zeros((2, 3, 32, 32)), Checkpoint(NCSNpp(small), params, {})).shape == (2, 16)
    flat = Config(nf=4, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), dropout=0.0)
    with pytest.raises(ValueError, match="one level"):
        features(np.zeros((2, 3, 32, 32)), Checkpoint(NCSNpp(flat), params, {}))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\).*reads \(n, 3, 32, 32\)"):
        features(np.zeros((3, 32, 32)))


@pytest.mark.nightly
def test_the_script_makes_the_file(
    real: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module("weakorder.verification.data.make_cifar10_features")
    np.savez(tmp_path / "images.npz", images=real[:140].transpose(0, 2, 3, 1))
    made = tmp_path / "made.npz"
    monkeypatch.setattr(sys, "argv", ["make", str(tmp_path / "images.npz"), "-o", str(made)])
    script.main()
    assert "140 images, sha256" in capsys.readouterr().out
    again = read_moments(made, yardstick(shipped_network()))
    assert frechet_distance(again, feature_moments(real[:140])) <= 1e-9 * scale(again)

"""Precisions of the network's products: what they round, and what that is said to change of a scheme's law.

Statistical assertions: at `Z` standard errors, false alarms below 1e-9.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretended_gpu import pretended_gpu
from tiny_models import CPU, PARAMS, SCHEMES, gaussian, network, neural
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from weakorder.verification.cifar10.model.checkpoint import NetworkScore
from weakorder.verification.cifar10.model.machine import products, round_to_tf32
from weakorder.verification.cifar10.model.precisions import PRECISIONS
from weakorder.verification.cifar10.study.design import Design
from weakorder.verification.cifar10.study.frechet import Moments
from weakorder.verification.cifar10.study.reading import Data, read
from weakorder.verification.cifar10.study.rounding import changes, summarise
from weakorder.verification.cifar10.study.sampling import Store, missing_work, run_work
from weakorder.verification.cifar10.study.statistics import QUANTITIES, CellStatistics, compare_images

Z = 6.2
ATEN = torch.ops.aten


# --- What is rounded --------------------------------------------------------------------------------------------------


def truncated(x: Tensor) -> Tensor:
    """The broken variant: cut off, not rounded."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)


def is_nearest(x: float, y: float) -> bool:
    """Whether y has at most 11 significant bits and none of its two neighbours that have is nearer to x; of two that
    are as near, the even one. In exact arithmetic."""
    exponent = max(math.frexp(x)[1], -125)  # below are subnormal numbers
    unit = Fraction(2) ** (exponent - 11)
    places, exact = Fraction(y) / unit, Fraction(x) / unit
    if places.denominator != 1:
        return False
    distance = abs(places - exact)
    return distance < Fraction(1, 2) or (distance == Fraction(1, 2) and places.numerator % 2 == 0)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**127), max_value=2.0**127))
def test_tf32_is_the_nearest_number_of_ten_bits(x: float) -> None:
    assert is_nearest(x, float(round_to_tf32(torch.tensor(x))))


def test_ties_go_to_even_and_cutting_off_is_not_the_nearest() -> None:
    ties = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-23])
    assert round_to_tf32(ties).tolist() == [1.0, 1 + 2 * 2**-10, 1 + 2**-10]
    assert not is_nearest(float(ties[1]), float(truncated(ties)[1]))


def test_tf32_leaves_what_is_no_number_or_has_another_precision() -> None:
    odd = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0])
    loud = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)  # nan, all bits set
    assert round_to_tf32(loud).isnan().all()
    torch.testing.assert_close(round_to_tf32(odd), odd, equal_nan=True, rtol=0, atol=0)
    exact = torch.tensor([1 / 3], dtype=torch.float64)
    assert round_to_tf32(exact) is exact


class Factors(TorchDispatchMode):
    """Which factors of products reach the machine, whatever called them."""

    PLACES: ClassVar = {
        ATEN.convolution.default: (0, 1),
        ATEN.mm.default: (0, 1),
        ATEN.bmm.default: (0, 1),
        ATEN.addmm.default: (1, 2),
        ATEN.baddbmm.default: (1, 2),
        ATEN._scaled_dot_product_flash_attention_for_cpu.default: (0, 1, 2),
    }

    def __init__(self) -> None:
        super().__init__()
        self.products, self.unrounded, self.fused = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        places = self.PLACES.get(func, ())
        self.products += bool(places)
        self.fused += "attention" in str(func)  # whose second product is of weights that nobody else sees
        self.unrounded += any(not torch.equal(args[k], round_to_tf32(args[k])) for k in places)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_every_product_of_the_network_has_rounded_factors() -> None:
    made, u, t = (
        network(),
        torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(3)),
        torch.tensor([0.3, 0.7]),
    )
    with Factors() as plain:
        exact = made(u, t)
    with products("tf32", CPU), Factors() as seen:
        rounded = made(u, t)
    assert plain.products > 20
    assert plain.unrounded > 0.9 * plain.products  # or the count could not fail
    assert plain.fused > 0
    assert seen.products == plain.products + plain.fused  # attention's two, one by one
    assert (seen.unrounded, seen.fused) == (0, 0)
    change = float((rounded - exact).norm() / exact.norm())
    assert 2**-14 < change < 2**-5  # of ten bits, some dozens of products deep


@torch.no_grad()
def test_attention_in_tf32_is_attention() -> None:
    q, k, v = torch.randn(3, 2, 1, 9, 4, generator=torch.Generator().manual_seed(5))
    with products("tf32", CPU):
        rounded = functional.scaled_dot_product_attention(q, k, v)
    exact = functional.scaled_dot_product_attention(q, k, v)
    assert 0 < float((rounded - exact).abs().max()) < 2**-9


@torch.no_grad()
def test_bfloat16_is_imitated_in_the_places_where_autocast_rounds() -> None:
    """As far as autocast's lists say: against the pretended GPU, whose products are the CPU's own kernels. What is left
    is that those round products of tensors with gaps before they add the bias, too."""
    made, u, t = (
        network(),
        torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(3)),
        torch.tensor([0.3, 0.7]),
    )
    exact = made(u, t)
    with products("bfloat16", CPU), Factors() as seen:
        imitated = made(u, t)
    with products("tf32", CPU):
        finer = made(u, t)
    with pretended_gpu() as gpu:
        there = network().to(gpu.device)
        with products("bfloat16", gpu.device):
            expected = there(u.to(gpu.device), t.to(gpu.device)).cpu()
    assert seen.unrounded == seen.fused == 0
    change = float((expected - exact).norm())
    with torch.autocast("cpu", torch.bfloat16):  # its norms are in bfloat16
        other = made(u, t)
    assert float((imitated - expected).norm()) < 0.75 * change
    assert min(float((wrong - expected).norm()) for wrong in (finer, other)) > 0.9 * change


@torch.no_grad()
def test_products_in_bfloat16_are_its_kernels_but_for_the_order_of_sums() -> None:
    generator = torch.Generator().manual_seed(2)
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((2, 8, 8, 8), (8, 8, 3, 3), (8,)))

    def answers(*given: Tensor) -> list[Tensor]:
        x, w, b = given
        rows = x.flatten(0, 2)
        biased = functional.conv2d(x, w, None, 1, 1) + b[:, None, None]  # as torch calls cuDNN
        convolved = functional.conv2d(x, w, b, 1, 1) if b.dtype == torch.float32 else biased
        found = [convolved, functional.conv2d(x, w, None, 2), functional.linear(rows, x[0, 0], b)]
        return [*found, functional.scaled_dot_product_attention(x, x, x)]

    with products("bfloat16", CPU):
        imitated = answers(x, w, b)
    late = [entry.bfloat16() for entry in answers(x, w, b)]  # the broken variant: rounded at the end alone
    kernels = answers(x.bfloat16(), w.bfloat16(), b.bfloat16())
    for found, expected, wrong in zip(imitated, kernels, late, strict=True):
        assert found.dtype == torch.bfloat16
        assert float((found != expected).float().mean()) < 0.02 < 0.2 < float((wrong != expected).float().mean())
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-3)


@torch.no_grad()
def test_a_precision_ends_with_its_context_and_leaves_other_threads_alone() -> None:
    a, b = torch.full((1, 1), 1 / 3), torch.full((1, 1), 1 / 3)
    exact, found = float(functional.linear(a, b)), []
    settings = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for precision in PRECISIONS:
        with products(precision, CPU):
            other = threading.Thread(target=lambda: found.append(float(functional.linear(a, b))))
            other.start()
            other.join()
            inside = float(functional.linear(a, b))
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == settings
        assert (inside == exact) is (precision == "float32")
        assert float(functional.linear(a, b)) == exact
    assert found == [exact] * len(PRECISIONS)


def test_accelerators_take_tf32_only_where_it_is_asked_for() -> None:
    def settings() -> tuple[bool, bool]:
        return torch.get_float32_matmul_precision() == "high", torch.backends.cudnn.allow_tf32

    before = settings()
    with products("tf32", torch.device("cuda")):
        assert settings() == (True, True)
        with products("float32", torch.device("cuda")):
            assert settings() == (False, False)
        assert settings() == (True, True)
    assert settings() == before


# --- What it changes --------------------------------------------------------------------------------------------------


def coupled(n: int, shift: float, spread: float, error: float = 0.5) -> tuple[CellStatistics, CellStatistics]:
    """Cells beside one reference: one is off by `error` on average, its twin by `shift` more, row by row by chance."""
    rng = np.random.default_rng(11)
    fine = rng.standard_normal((n, 3, 8, 8))
    full = fine + error + 0.1 * rng.standard_normal(fine.shape)
    rounded = full + shift + spread * rng.standard_normal(fine.shape)
    return compare_images(rounded, fine), compare_images(full, fine)


@pytest.mark.parametrize("shift", [0.2, -0.2])
def test_a_change_is_that_of_the_expectations(shift: float) -> None:
    rounded, full = coupled(400, shift, 0.3)
    change = changes(rounded, full)["mean"]
    assert abs(change["value"] - abs(shift)) < Z * change["standard_error"]
    assert change["standard_error"] < 0.3 / math.sqrt(400)
    assert change["sure"]
    assert change["share"] == pytest.approx(abs(shift) / 0.5, rel=0.1)
    # the difference of the two errors' sizes is another number
    assert full.weak["mean"].norm.value - rounded.weak["mean"].norm.value == pytest.approx(-shift, abs=0.05)


def test_a_twin_that_forgets_the_noise_has_an_error_bar_that_says_so() -> None:
    rounded, full = coupled(400, 0.2, 0.3)
    strangers = replace(rounded, rows={name: np.roll(rows, 1, axis=0) for name, rows in rounded.rows.items()})
    for quantity in ("higher moments", "Fourier features"):
        assert changes(strangers, full)[quantity]["noise"] > 1.1 * changes(rounded, full)[quantity]["noise"]


def test_without_a_change_there_is_none() -> None:
    _, full = coupled(50, 0.0, 0.0)
    found = changes(full, full)
    assert [(entry["value"], entry["noise"], entry["sure"]) for entry in found.values()] == [(0.0, 0.0, False)] * 4
    assert found["mean"]["share"] == 0.0


def test_noise_alone_is_not_taken_for_a_change() -> None:
    rounded, full = coupled(200, 0.0, 0.1, error=0.0)
    found = changes(rounded, full)
    assert not found["mean"]["sure"]
    assert found["mean"]["share"] is None  # of an error that is noise


def test_a_cell_that_diverged_has_no_change_and_others_do_not_belong_together() -> None:
    rounded, full = coupled(20, 0.1, 0.1)
    gone = CellStatistics(20)
    assert changes(gone, full) == changes(rounded, gone) == {}
    with pytest.raises(ValueError, match="30 and 20 samples: give both the same number"):
        changes(coupled(30, 0.1, 0.1)[0], full)


def test_the_summary_is_of_the_cells_that_have_a_share() -> None:
    def cell(nfe: int, share: float | None, sure: bool = True, seconds: float = 3.0) -> dict[str, Any]:
        change = {name: {"share": share, "sure": sure} for name in QUANTITIES}
        twin = {"seconds": seconds, "diverged": False, "change": change}
        return {"nfe": nfe, "seconds": 2.0, "diverged": False, "precisions": {"bfloat16": twin}}

    gone = cell(80, None)
    gone["precisions"]["bfloat16"] |= {"change": {}, "diverged": True}
    entries = [
        ("C", cell(20, None)),
        ("A", cell(20, 0.1)),
        ("A", cell(40, 0.7)),
        ("B", cell(20, 0.3)),
        ("B", cell(40, 9.0, False)),
        ("B", gone),
    ]
    found = summarise(entries)["bfloat16"]
    spectrum = {"cells": 5, "sure": 4, "shares": 3, "middle": 0.3, "largest": 0.7, "at": ["A", 40]}
    assert found["quantities"]["spectrum"] == spectrum
    assert found["diverged"] == [["B", 80]]
    assert found["seconds"] == pytest.approx(1.5)
    assert summarise([("A", {"precisions": {}})]) == {}


# --- In a study -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "precisions", [(), ("half",), ("bfloat16", "float32"), ("tf32", "bfloat16"), ("float32", "float32")]
)
def test_precisions_that_cannot_be_compared_are_refused(precisions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="precision"):
        Design(SCHEMES, (4,), 4, precisions=precisions)


@torch.no_grad()
def sampled(folder: Path, precisions: tuple[str, ...]) -> dict[str, Any]:
    """The results of a small study with that."""
    design = Design(SCHEMES[::4], (4, 6), samples=4, refinement=2, precisions=precisions)
    learned, exact = NetworkScore(network(), PARAMS), gaussian()[0].score(CPU)  # alone, the former lets runs diverge
    model = replace(neural(), score=lambda _: lambda u, t: exact(u, t) + 0.05 * learned(u, t))
    store = Store(folder, model, batch=2)
    run_work(store, missing_work(store, [*design.cells.values(), *design.rounded.values()], design.samples), CPU, 1)
    rng = np.random.default_rng(0)
    return read(design, store, Data(rng.integers(0, 256, (9, 3, 8, 8), dtype=np.uint8), "noise"))[0]


@pytest.mark.nightly
def test_twins_say_what_a_study_in_their_precision_alone_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weakorder.verification.cifar10.study.reading._Reader.predictions", {})
    monkeypatch.setattr("weakorder.verification.cifar10.study.reading.features", lambda x: x)
    moments = Moments.of_samples(np.random.default_rng(1).standard_normal((9, 3, 8, 8)))
    monkeypatch.setattr("weakorder.verification.cifar10.study.reading.feature_moments", lambda _: moments)
    together = sampled(tmp_path / "together", PRECISIONS)
    assert together["settings"]["precisions"] == list(PRECISIONS)
    alone = {precision: sampled(tmp_path / precision, (precision,)) for precision in PRECISIONS}
    for place, scheme in enumerate(together["schemes"]):
        for at, cell in enumerate(scheme["cells"]):
            assert list(cell["precisions"]) == ["tf32", "bfloat16"]
            for precision, found in {"float32": cell, **cell["precisions"]}.items():
                own = alone[precision]["schemes"][place]["cells"][at]
                for part in ("strong", "moments", "distances", "frechet", "evaluations"):
                    assert found[part] == own[part]
                for quantity in QUANTITIES:
                    assert found["weak"][quantity]["value"] == own["weak"][quantity]["value"]
            sizes = [cell["precisions"][precision]["change"]["mean"]["noise"] for precision in ("tf32", "bfloat16")]
            assert 0 < 3 * sizes[0] < sizes[1]  # eight times, of three more bits
    assert list(together["rounding"]) == ["tf32", "bfloat16"]
    assert alone["float32"]["rounding"] == {}

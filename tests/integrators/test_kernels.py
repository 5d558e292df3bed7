"""Every tier draws the noise that is defined and makes the update that is written, however the work is cut."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, get_ident
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import DTYPES, INTERVAL, SAMPLES, SEED, SIZES, TIERS, device_of, some
from noise_reference import normals
from selection import examples, nightly_but
from weakorder.integrators import kernels
from weakorder.integrators.kernels import Draw, cpu, fallback, gpu, split_rows, threads, tiers


def drawn(
    tier: Any, n: int, dtype: torch.dtype, samples: list[int] = SAMPLES, interval: int = INTERVAL
) -> torch.Tensor:
    """The normals (batch, 2, n), in the CPU's memory."""
    out = torch.full((len(samples), 2, n), float("nan"), dtype=dtype, device=device_of(tier))
    tier.fill(Draw(SEED, torch.tensor(samples, device=out.device), interval), out)
    return out.cpu()


def updated(tier: Any, u: torch.Tensor, s: torch.Tensor | None, noise: Any, row: int = 2) -> torch.Tensor:
    device = device_of(tier)
    if isinstance(noise, Draw):
        noise = noise._replace(samples=noise.samples.to(device))
    elif noise is not None:
        noise = noise.to(device)
    updates = tier.Updates(some(3, 11, dtype=torch.float64).numpy(), u.to(device))
    return updates(row, u.to(device), None if s is None else s.to(device), noise).cpu()


def by_hand(u: torch.Tensor, s: torch.Tensor | None, xi: torch.Tensor | None, row: int = 2) -> torch.Tensor:
    """P u + K s + C xi in float64."""
    c = some(3, 11, dtype=torch.float64)[row]
    lower = torch.stack([torch.stack([c[8], 0 * c[8]]), c[9:]])
    terms = [(c[:4].reshape(2, 2), u), (c[4:8].reshape(2, 2), s), (lower, xi)]
    return sum(torch.einsum("ij,bje->bie", matrix, v.double()) for matrix, v in terms if v is not None)  # type: ignore


# --- Against the definition -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tier", TIERS)
def test_a_tiers_normals_are_the_defined_ones_to_a_few_roundings(tier, dtype, n: int) -> None:
    """Of the radius: 4 for the polynomials or functions, the square root and the products, 4 for the angle's."""
    expected, radius = normals(SEED, SAMPLES, INTERVAL, n, DTYPES[dtype])
    error = np.abs(drawn(tier, n, dtype).double().numpy() - expected) / radius
    assert error.max() < 8 * np.finfo(DTYPES[dtype]).eps


def test_the_comparison_sees_another_bit_in_any_word_of_the_counter() -> None:
    expected, radius = normals(SEED, SAMPLES, INTERVAL, 4, np.float64)
    others = [
        drawn(cpu, 4, torch.float64, [sample ^ 1 for sample in SAMPLES]),
        drawn(cpu, 4, torch.float64, [sample ^ 1 << 40 for sample in SAMPLES]),
        drawn(cpu, 4, torch.float64, interval=INTERVAL ^ 1),
        drawn(cpu, 6, torch.float64)[..., 2:],
        drawn(cpu, 4, torch.float64).flip(2),
        drawn(cpu, 4, torch.float64).flip(1),
    ]
    for other in others:
        assert (np.abs(other.numpy() - expected) / radius).max() > 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_compiled_tiers_have_the_same_bits(dtype) -> None:
    for n in SIZES:
        assert torch.equal(drawn(cpu, n, dtype), drawn(gpu, n, dtype))
        u, s = some(2, len(SAMPLES), 2, n, dtype=dtype)
        draw = Draw(SEED, torch.tensor(SAMPLES), INTERVAL)
        assert torch.equal(updated(cpu, u, s, draw), updated(gpu, u, s, draw))


@pytest.mark.parametrize(
    ("tier", "kind", "scored"),
    nightly_but(
        lambda case: case[0] is not gpu or case[1:] == ("drawn", True),
        itertools.product(TIERS, ("drawn", "given", "none"), (True, False)),
    ),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_is_the_formula_to_rounding(tier, dtype, kind: str, scored: bool) -> None:
    for n in SIZES:
        u, s = some(2, len(SAMPLES), 2, n, dtype=dtype)
        xi = {"drawn": drawn(tier, n, dtype), "given": some(len(SAMPLES), 2, n, dtype=dtype, seed=2), "none": None}[
            kind
        ]
        noise = Draw(SEED, torch.tensor(SAMPLES), INTERVAL) if kind == "drawn" else xi
        found = updated(tier, u, s if scored else None, noise)
        expected = by_hand(u, s if scored else None, xi)
        size = by_hand(u.abs(), s.abs(), None if xi is None else xi.abs()).abs().max() + 30  # the terms' own size
        assert float((found.double() - expected).abs().max()) < 8 * torch.finfo(dtype).eps * float(size)
        wrong = by_hand(u, None if scored else s, xi)
        assert float((found.double() - wrong).abs().max()) > 0.01


# --- The same numbers however they are cut ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tier", TIERS)
@examples(8)
@given(data=st.data())
def test_no_bit_depends_on_batch_order_or_length(tier, dtype, data: st.DataObject) -> None:
    n = data.draw(st.sampled_from(SIZES if tier is not gpu else SIZES[:5]))
    rows = data.draw(st.lists(st.integers(0, len(SAMPLES) - 1), min_size=1, max_size=9))
    shorter = data.draw(st.integers(1, n))
    u, s = some(2, len(SAMPLES), 2, n, dtype=dtype)
    whole = updated(tier, u, s, Draw(SEED, torch.tensor(SAMPLES), INTERVAL))
    numbers = torch.tensor(SAMPLES)[rows]
    cut = updated(tier, u[rows, :, :shorter], s[rows, :, :shorter], Draw(SEED, numbers, INTERVAL))
    assert torch.equal(cut, whole[rows, :, :shorter])
    assert torch.equal(drawn(tier, shorter, dtype, numbers.tolist()), drawn(tier, n, dtype)[rows, :, :shorter])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tier", TIERS)
def test_noise_that_is_drawn_and_noise_that_is_given_make_the_same_update(tier, dtype) -> None:
    """In a block of any width; runs that are coupled on drawn normals are then the sampler's own, bit for bit."""
    for n in SIZES:
        u, s = some(2, len(SAMPLES), 2, n, dtype=dtype)
        fused = updated(tier, u, s, Draw(SEED, torch.tensor(SAMPLES), INTERVAL))
        assert torch.equal(fused, updated(tier, u, s, drawn(tier, n, dtype)))


@pytest.mark.parametrize("shape", [(600, 2, 64), (3, 2, 20_000), (40_000, 2, 1)])
@pytest.mark.parametrize("tier", [cpu, fallback])
def test_no_bit_depends_on_the_number_of_threads(tier, shape: tuple[int, ...]) -> None:
    u, s = some(2, *shape, dtype=torch.float32)
    draw, before = Draw(SEED, torch.arange(len(u)), 3), torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(updated(tier, u, s, draw))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.fixture(params=["torch's threads", "Python's threads"])
def team(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is shared out over either; the first is what this torch offers."""
    assert threads._torch_team() is not None
    if request.param == "Python's threads":
        monkeypatch.setattr(threads, "_torch_team", lambda: None)


@pytest.mark.usefixtures("team")
def test_work_is_shared_out_whole_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    parts: list[tuple[int, int]] = []
    assert split_rows(lambda begin, end: parts.append((begin, end)) or end - begin, 10_001, 0.004) == 10_001
    assert sorted(parts) == [(0, 3333), (3333, 6667), (6667, 10_001)]
    parts.clear()
    split_rows(lambda begin, end: parts.append((begin, end)), 10, 0.004)  # too little to wake anyone
    assert parts == [(0, 10)]


@pytest.mark.usefixtures("team")
def test_parts_are_done_at_once_by_threads_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other: one thread alone would break the barrier."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both = Barrier(2)
    seen = []

    def work(_begin: int, _end: int) -> int:
        both.wait(timeout=60)
        seen.append(get_ident())
        return 1

    assert split_rows(work, 2, 1.0) == 2
    assert len(set(seen)) == 2


@pytest.mark.usefixtures("team")
def test_what_a_part_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def work(begin: int, end: int) -> int:
        raise ArithmeticError(f"rows {begin} to {end}")

    with pytest.raises(ArithmeticError, match="rows"):
        split_rows(work, 2, 1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_works_on_threads_of_its_own() -> None:
    """In one whose parent's threads of OpenMP have worked, more work for them never ends."""
    code = (
        "import os, torch; from weakorder.integrators.kernels import split_rows; torch.set_num_threads(2)\n"
        "work = lambda begin, end: end - begin\n"
        "assert split_rows(work, 2, 1.0) == 2\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(split_rows(work, 2, 1.0))\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=120)


def test_calls_from_several_threads_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    u, s = some(2, 2000, 2, 40, dtype=torch.float64)
    draws = [Draw(SEED, torch.arange(2000), interval) for interval in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda draw: updated(cpu, u, s, draw), draws))
    assert all(torch.equal(found, updated(cpu, u, s, draw)) for found, draw in zip(together, draws, strict=True))


@pytest.mark.parametrize("tier", TIERS)
def test_normals_go_into_the_planes_that_are_named_and_no_others(tier) -> None:
    for n in SIZES[:6]:
        out = torch.full((len(SAMPLES), 6, n), 7.0, device=device_of(tier))
        tier.fill(Draw(SEED, torch.tensor(SAMPLES, device=out.device), INTERVAL), out, 2)
        assert torch.equal(out[:, 2:4].cpu(), drawn(tier, n, torch.float32))
        assert bool((out[:, [0, 1, 4, 5]] == 7).all())


# --- Scores that are not finite ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tier", TIERS)
def test_the_first_bad_score_is_known_by_its_update(tier, bad: float) -> None:
    for n in (1, 7, 64, 300):
        u, s = some(2, 5, 2, n, dtype=torch.float32).to(device_of(tier))
        worse = s.clone()
        worse[3, 1, n - 1] = bad
        updates = tier.Updates(np.ones((6, 11)), u)
        for k, score in enumerate([None, s, s, worse, s, worse]):
            updates(k, u, score, None)
            assert updates.wrong(wait=True) == (None if k < 3 else 3)


def test_a_state_that_is_not_finite_is_no_bad_score() -> None:
    u = torch.full((2, 2, 3), float("inf"))
    for tier in TIERS:
        updates = tier.Updates(np.ones((2, 11)), u.to(device_of(tier)))
        updates(1, u.to(device_of(tier)), torch.ones_like(u).to(device_of(tier)), None)
        assert updates.wrong(wait=True) is None


# --- Which tier -------------------------------------------------------------------------------------------------------


def test_a_processors_floats_are_compiled_and_all_else_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(u: torch.Tensor) -> Any:
        return kernels.kernels_for(u)

    assert module(torch.zeros(1)) is cpu
    assert module(torch.zeros(1, dtype=torch.float64)) is cpu
    assert module(torch.zeros(1, dtype=torch.bfloat16)) is fallback
    assert module(torch.zeros(1, device="meta")) is fallback
    monkeypatch.setitem(sys.modules, "numba", None)
    tiers._problem.cache_clear()
    try:
        assert module(torch.zeros(1)) is fallback
        assert kernels.tiers_in_use()["CPU"].startswith("torch operators (no numba: ")
    finally:
        monkeypatch.undo()
        tiers._problem.cache_clear()
    assert kernels.tiers_in_use()["CPU"].startswith("numba 0.")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precisions_are_float32_rounded_once(dtype) -> None:
    u, s = some(2, 3, 2, 5, dtype=dtype)
    draw = Draw(SEED, torch.arange(3), 1)
    assert torch.equal(updated(fallback, u, s, draw), updated(fallback, u.float(), s.float(), draw).to(dtype))
    assert torch.equal(drawn(fallback, 5, dtype), drawn(fallback, 5, torch.float32).to(dtype))

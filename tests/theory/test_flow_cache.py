"""Derived flows are kept on disk: derived once, mended when corrupted, and valid for one question and version."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_parts import BUILT_IN, is_zero
from weakorder.theory import cache, flow_proof, flows
from weakorder.theory import derivations as shipped
from weakorder.theory.cache import cached
from weakorder.theory.flows import ExactFlow, exact_flow
from weakorder.theory.model import LinearSDE, Parameters

Counter = list[LinearSDE]


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """The derivations that were not read from a cache, as they happen; nothing is shipped."""
    monkeypatch.setattr(shipped, "known", lambda _: None)
    done: Counter = []
    derive = flow_proof.derive

    def counting(sde: LinearSDE) -> Any:
        done.append(sde)
        return derive(sde)

    monkeypatch.setattr(flow_proof, "derive", counting)
    return done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that does not exist yet, and nothing shipped."""
    monkeypatch.setattr(shipped, "known", lambda _: None)
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def uncached_flow(sde: LinearSDE) -> ExactFlow:
    """As in a new process: the disk is asked, not the memory."""
    return exact_flow.__wrapped__(sde)


SDE = BUILT_IN["psld:O"].sde


def test_a_flow_is_derived_once_and_then_read_from_disk(folder: Path, derivations: Counter) -> None:
    first = uncached_flow(SDE)
    assert derivations == [SDE]
    assert [file.suffix for file in folder.iterdir()] == [".json"]
    second = uncached_flow(SDE)
    assert derivations == [SDE]
    assert second == first
    assert second.matrices == first.matrices


def test_within_a_process_a_flow_is_one_value() -> None:
    assert exact_flow(SDE) is exact_flow(LinearSDE(SDE.drift, SDE.diffusion))
    assert exact_flow(SDE) is not exact_flow(BUILT_IN["langevin:O"].sde)


def test_another_sde_is_another_entry(folder: Path, derivations: Counter) -> None:
    uncached_flow(SDE)
    other = uncached_flow(LinearSDE(SDE.drift))
    assert len(derivations) == 2
    assert len(list(folder.iterdir())) == 2
    assert is_zero(other.matrices[2])


@pytest.mark.parametrize("content", [b"", b"[[[", b"\xff\xfe", b"\0" * 64], ids=["empty", "cut", "not text", "zeros"])
def test_a_corrupted_entry_is_derived_again_and_mended(folder: Path, derivations: Counter, content: bytes) -> None:
    first = uncached_flow(SDE)
    (entry,) = folder.iterdir()
    entry.write_bytes(content)
    assert uncached_flow(SDE) == first
    assert len(derivations) == 2
    assert uncached_flow(SDE) == first
    assert len(derivations) == 2


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, derivations: Counter
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(file / "cache"))
    assert uncached_flow(SDE) == uncached_flow(SDE)
    assert len(derivations) == 2
    assert file.read_text() == "not a folder"


def test_an_answer_is_valid_for_one_question_one_version_of_the_code_and_one_of_sympy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cached(("a",), lambda: 1) == 1
    assert cached(("a",), lambda: 2) == 1
    assert cached(("b",), lambda: 3) == 3
    assert cached(("a", "b"), lambda: 4) == 4
    with monkeypatch.context() as other:
        other.setattr(cache, "_code", lambda: "another text")
        assert cached(("a",), lambda: 5) == 5
    with monkeypatch.context() as other:
        other.setattr(cache, "_sympy", lambda: "another")
        assert cached(("a",), lambda: 6) == 6
    assert cached(("a",), lambda: 7) == 1
    assert len(list(folder.iterdir())) == 5


def test_what_cannot_be_derived_raises_and_leaves_no_entry(folder: Path) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached(("fails",), fails)
    assert not folder.exists() or not list(folder.iterdir())


class _Watched(dict):
    """A dictionary that notes whether two threads were in it at once; each stays for a while."""

    def __init__(self) -> None:
        self.inside, self.met = 0, False

    def _visit(self, method: Callable[..., Any], *arguments: Any) -> Any:
        self.inside += 1
        time.sleep(0.01)
        self.met |= self.inside > 1
        try:
            return method(*arguments)
        finally:
            self.inside -= 1

    def pop(self, *arguments: Any) -> Any:
        return self._visit(super().pop, *arguments)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._visit(super().__setitem__, key, value)


@pytest.mark.parametrize("locked", [True, False])
def test_what_is_kept_changes_under_one_thread_at_a_time(locked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: threads that ask for other lengths at once do not meet in the flows that are kept; without the lock they
    do."""
    flow, kept = exact_flow.__wrapped__(SDE), _Watched()
    flow.__dict__["_kept"] = kept
    if not locked:
        monkeypatch.setattr(flows, "_KEEPING", contextlib.nullcontext())
    values = Parameters().values()
    start = threading.Barrier(4)

    def ask(first: int) -> None:
        start.wait()
        for k in range(3):
            flow(np.array([0.01 * (3 * first + k + 1)]), values)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 12
    assert kept.met is not locked
